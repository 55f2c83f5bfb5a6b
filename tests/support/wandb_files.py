"""Reads back what W&B wrote offline, by W&B's own command."""

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

# What `wandb leet inspect` calls; by itself it takes 0.05 s, not one.
_spec = find_spec("wandb")
assert _spec is not None
assert _spec.origin is not None
CORE = Path(_spec.origin).parent / "bin" / "wandb-core"


class Run(NamedTuple):
    config: dict[str, Any]
    history: list[dict[str, float]]  # in the order logged, without W&B's own columns
    summary: dict[str, Any]
    group: str
    job_type: str
    name: str
    tags: list[str]
    exit_code: int | None  # None: never finished


def read_run(directory: Path) -> Run:
    """The one run in `wandb/offline-run-*`."""
    (file,) = directory.glob("run-*.wandb")
    command = [str(CORE), "leet", "inspect", "-no-observability", "-json", "-run-file", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    info: dict[str, Any] = {}
    history: list[dict[str, float]] = []
    summary: dict[str, Any] = {}
    exit_code = None
    for record in map(json.loads, lines):
        if record["type"] == "run":
            info = record["run"]  # the last one holds the final tags
        elif record["type"] == "history":
            history.append(_own(record["history"]["item"]))
        elif record["type"] == "summary":
            summary |= _own(record["summary"].get("update", {}))
        elif record["type"] == "exit":
            exit_code = record["exit"].get("exit_code", 0)
    return Run(
        config=_own(info["config"]["update"]),
        history=[{name: float(value) for name, value in row.items()} for row in history],  # "NaN" is text in JSON
        summary=summary,
        group=info["run_group"],
        job_type=info["job_type"],
        name=info["display_name"],
        tags=info["tags"],
        exit_code=exit_code,
    )


def read_runs(folder: Path) -> dict[str, Run]:
    """Every offline run under `folder` (a study's wandb/), by its id."""
    return {path.name.split("-", 3)[3]: read_run(path) for path in sorted(folder.glob("offline-run-*"))}


def _own(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.startswith("_")}
