"""A stand-in for the W&B server on the loopback: takes what the real client sends and keeps it, to be looked at."""

import base64
import gzip
import json
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "c0ffee" * 6 + "cafe"  # 40 characters, as W&B's keys have
ENTITY = "somebody"


@dataclass
class ArrivedRun:
    """What a server knows of a run. Wandb's own names, which begin with `_`, are left out."""

    id: str
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)  # over what each kind of curve is shown
    lines: list[str] = field(default_factory=list)  # of the history
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None  # None: it has not ended
    times_begun: int = 0

    @property
    def history(self) -> list[dict[str, float]]:
        """In the order logged; "NaN" is text in JSON, as a media file or a table is a mapping."""
        return [
            {
                name: float(value)
                for name, value in json.loads(line).items()
                if _own(name) and not isinstance(value, dict)
            }
            for line in self.lines
        ]


@dataclass
class Arrived:
    """An artifact."""

    name: str
    type: str
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


class WandbServer:
    """`with WandbServer() as server`, and WANDB_BASE_URL set to `server.url`.

    `trouble`: "500" answers every request with that status, "hang" answers none; None is good health.
    """

    def __init__(self) -> None:
        self.runs: dict[str, ArrivedRun] = {}
        self.files: dict[str, bytes] = {}  # media and tables of runs, by "RUN/PATH"
        self.artifacts: dict[str, Arrived] = {}  # by name, the last version alone
        self.views: dict[str, dict[str, Any]] = {}  # by id
        self.stopped: set[str] = set()  # ids of runs that somebody stops
        self.operations: list[str] = []  # names of GraphQL operations, and "file_stream"
        self.trouble: str | None = None
        self.changed = threading.Condition()  # notified at each request
        self._artifact_ids: dict[str, Arrived] = {}
        self._released = threading.Event()
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._http.shutdown()
        self._http.server_close()

    def recover(self) -> None:
        """From its trouble; what waits for an answer gets one."""
        self.trouble = None
        self._released.set()

    def wait_for(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Until it holds; it is looked at after each request."""
        with self.changed:
            assert self.changed.wait_for(condition, seconds), "it did not come to pass"

    # --- what is answered ---------------------------------------------------------------------------------------

    def answer(self, path: str, body: bytes, authorization: str) -> tuple[int, Any]:
        """Status and JSON."""
        if self.trouble == "hang":
            self._released.wait()
        if self.trouble is not None:
            return 500, {"error": "out of order"}
        if authorization != "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode():
            return 401, {"errors": [{"message": "user is not logged in"}]}
        if path == "/graphql":
            request = json.loads(body)
            found = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            assert found is not None
            self.operations.append(found[1])
            return 200, {"data": self._graphql(found[1], request.get("variables") or {})}
        stream = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path)
        assert stream is not None, path
        self.operations.append("file_stream")
        self._take_lines(self.runs[stream[1]], json.loads(body))
        return 200, {"stopped": stream[1] in self.stopped}

    def store(self, path: str, body: bytes) -> None:
        """What is PUT to an address that was given out for it."""
        kind, _, rest = path.removeprefix("/storage/").partition("/")
        if kind == "run":
            self.files[rest] = body
        elif kind == "artifact":
            artifact, _, name = rest.partition("/")
            self._artifact_ids[artifact].files[name] = body

    def _take_lines(self, run: ArrivedRun, body: Mapping[str, Any]) -> None:
        for name, file in (body.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                assert file["offset"] <= len(run.lines), "lines are missing"
                run.lines[file["offset"] :] = file["content"]
            elif name == "wandb-summary.json":
                run.summary = {key: value for key, value in json.loads(file["content"][-1]).items() if _own(key)}
        if body.get("complete"):
            run.exit_code = body["exitcode"]

    def _graphql(self, operation: str, given: Mapping[str, Any]) -> Any:  # noqa: C901  a branch an operation
        viewer = {"id": "viewer", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "admin": False}
        viewer["teams"] = {"edges": [{"node": {"name": ENTITY}}]}
        if operation in ("Viewer", "GetViewer"):
            return {"viewer": viewer}
        if operation == "GetDefaultEntity":
            return {"viewer": viewer}
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if operation == "UpsertBucket":
            return {"upsertBucket": {"bucket": self._upsert_run(given), "inserted": given["id"] is None}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": self._storage("run", given["run"], name)} for name in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        if operation == "ArtifactType":
            return {"project": {"artifact": None}}
        if operation == "CreateArtifact":
            return {"createArtifact": {"artifact": self._create_artifact(given["input"])}}
        if operation in ("CreateArtifactManifest", "UpdateArtifactManifest"):
            file = {"id": "file", "uploadUrl": self._storage("manifest"), "uploadHeaders": []}
            name = operation[0].lower() + operation[1:]
            return {name: {"artifactManifest": {"id": "manifest", "file": file}}}
        if operation == "CreateArtifactFiles":
            nodes = [
                {
                    "storagePath": file["name"],
                    "uploadUrl": self._storage("artifact", file["artifactID"], file["name"]),
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": {"id": file["artifactID"]},
                }
                for file in given["input"]["artifactFiles"]
            ]
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        if operation == "CommitArtifact":
            self._artifact_ids[given["artifactID"]].committed = True
            return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": ""}}}
        if operation == "UpsertView2":
            ident = given.get("id") or f"view{len(self.views)}"
            self.views[ident] = dict(given)
            return {"upsertView": {"view": {"id": ident, "name": given["name"]}, "inserted": "id" not in given}}
        if operation == "View":
            found = [(ident, view) for ident, view in self.views.items() if view["name"] == given["viewName"]]
            edges = [
                {"node": {"id": ident, "displayName": view["displayName"], "spec": view["spec"]}}
                for ident, view in found
            ]
            return {"project": {"allViews": {"edges": edges}}}
        raise AssertionError(f"{operation} {dict(given)}")

    def _upsert_run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        run = self.runs.setdefault(given["name"], ArrivedRun(given["name"]))
        if given["id"] is None and given["displayName"] is not None:
            run.times_begun += 1
            run.exit_code = None
        if given["config"] is not None:
            config = json.loads(given["config"])
            run.config = {name: entry["value"] for name, entry in config.items() if _own(name)}
            metrics = config["_wandb"]["value"].get("m", [])  # "1": a name, "2": a pattern, "5": its axis, from 1
            run.axes = {metric["2"]: metrics[metric["5"] - 1]["1"] for metric in metrics if "2" in metric}
        for name, value in [("name", "displayName"), ("group", "groupName"), ("job_type", "jobType"), ("tags", "tags")]:
            if given[value] is not None:  # null leaves it as it is
                setattr(run, name, given[value])
        project = {"id": "project", "name": given["project"], "entity": {"id": "entity", "name": ENTITY}}
        return {
            "id": f"bucket-{run.id}", "name": run.id, "displayName": run.name, "description": None, "config": None,
            "sweepName": None, "historyLineCount": 0, "project": project,
        }  # fmt: skip

    def _create_artifact(self, given: Mapping[str, Any]) -> dict[str, Any]:
        artifact = Arrived(given["artifactCollectionName"], given["artifactTypeName"])
        ident = f"artifact{len(self._artifact_ids)}"
        self.artifacts[artifact.name] = self._artifact_ids[ident] = artifact
        return {"id": ident, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}

    def _storage(self, *parts: str) -> str:
        return "/".join([self.url, "storage", *parts])


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # the client has gone
            super().handle_error(request, client_address)


def _own(name: str) -> bool:
    return not name.startswith("_")


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            status, answer = server.answer(self.path, self._body(), self.headers.get("Authorization") or "")
            self._reply(status, json.dumps(answer).encode())

        def do_PUT(self) -> None:
            server.store(self.path, self._body())
            self._reply(200, b"{}")

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            with server.changed:
                server.changed.notify_all()

    return Handler
