"""Nothing is unpickled from disk, no key is written down, and nobody else reaches a Ray of our own."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from conftest import CANARY, Finished
from faults.inputs import CORPUS, LIMIT_S
from paths import ROOT
from tune_lr.cluster import cluster
from tune_lr.config.load import load_config
from tune_lr.errors import InputError

SOURCES = sorted((ROOT / "tune_lr").rglob("*.py"))

# --- the source -------------------------------------------------------------------------------------------------------

# What turns bytes into code, or a text into a command.
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
UNSAFE_CALLS = {
    "torch.load", "torch.save", "torch.jit.load", "torch.export.load", "torch.hub.load", "yaml.load", "yaml.load_all",
    "yaml.full_load", "yaml.unsafe_load", "eval", "exec", "compile", "os.system", "os.popen",
}  # fmt: skip
# Between the driver and its own process for W&B: a pipe, never a file.
PIPES = {"cast(IO[bytes], self._process.stdout)", "sys.stdin.buffer"}


def unsafe_calls(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        argument = ast.unparse(node.args[0]) if node.args else ""
        reads = name.split(".")[0] in UNSAFE_MODULES and not name.endswith((".dump", ".dumps"))
        keywords = {f"{keyword.arg}={ast.unparse(keyword.value)}" for keyword in node.keywords}
        if (reads and argument not in PIPES) or name in UNSAFE_CALLS or {"shell=True", "allow_pickle=True"} & keywords:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_module_unpickles_a_file_or_runs_a_text(path: Path) -> None:
    assert unsafe_calls(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    ["torch.load(path)", "pickle.load(open(path, 'rb'))", "pickle.loads(data)", "yaml.load(text, yaml.Loader)",
     "eval(text)", "subprocess.run(text, shell=True)", "np.load(path, allow_pickle=True)", "marshal.loads(data)"],
)  # fmt: skip
def test_what_is_looked_for_is_found(line: str) -> None:
    assert unsafe_calls(line) == [line]


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_stands_in_no_file_of_a_study_nor_of_ray(finished: Finished) -> None:
    assert list(finished.ray.glob("ray/session_*/logs/*"))  # the right place
    files = [path for folder in (finished.directory.root, finished.ray) for path in folder.rglob("*")]
    files = [path for path in files if path.is_file() and not path.is_symlink()]
    assert len(files) > 50
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_a_token_is_made_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    with cluster._of_our_own():
        assert os.environ["RAY_AUTH_TOKEN"] == "mine"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    with cluster._of_our_own():
        assert re.fullmatch("[0-9a-f]{64}", os.environ["RAY_AUTH_TOKEN"])


LOOK = """
import json, os
import psutil
from ray._raylet import AuthenticationMode, get_authentication_mode
from tune_lr.cluster import cluster
with cluster.connected(None):
    me = psutil.Process()
    listening = [
        connection.laddr.ip
        for process in [me, *me.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    token = os.environ["RAY_AUTH_TOKEN"]
    asks = get_authentication_mode() == AuthenticationMode.TOKEN
    needless = [
        word
        for process in me.children(recursive=True)
        for word in process.cmdline()
        if word.endswith(("dashboard/dashboard.py", "monitor.py"))
    ]
print(json.dumps([listening, token, asks, needless]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere one may not look at other processes' sockets")
def test_a_ray_of_our_own_listens_on_the_loopback_asks_for_a_token_and_is_no_more_than_it_must_be(
    tmp_path: Path,
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run([sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    listening, token, asks, needless = json.loads(done.stdout.splitlines()[-1])
    assert needless == []  # seconds of each start
    assert len(listening) >= 3
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    assert asks
    assert not (tmp_path / ".ray").exists()
    assert len(token) == 64


# --- input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", CORPUS)
def test_bad_input_is_refused_in_one_line_and_in_time(what: str, tmp_path: Path) -> None:
    content, expected = CORPUS[what]
    (tmp_path / "space.yaml").write_bytes(content)
    began = time.perf_counter()
    with pytest.raises(InputError) as error:
        load_config(tmp_path / "space.yaml")
    assert time.perf_counter() - began < LIMIT_S
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


# --- the exceptions of the audit --------------------------------------------------------------------------------------


def test_every_exception_has_its_date_its_package_and_its_reason() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    lines = [line for line in (ROOT / "audit-exceptions.txt").read_text().splitlines() if not line.startswith("#")]
    explained = (ROOT / "SECURITY.md").read_text()
    assert lines
    for line in lines:
        ident, reviewed, package, reason = line.split(" ", 3)
        assert re.fullmatch(r"(CVE|GHSA|PYSEC)-[\w-]+", ident)
        assert package in locked
        assert reason
        assert date.fromisoformat(reviewed) <= date.today()
        assert package in explained
