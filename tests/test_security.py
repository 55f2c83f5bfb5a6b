"""Nothing is unpickled from disk, and no key is written down.

That nobody else reaches a local Ray is shown in cluster/test_ray_private.py.
"""

import ast
import re
import time
from datetime import date
from pathlib import Path

import pytest

from faults.inputs import CORPUS, LIMIT_S
from finished_study import CANARY, Finished
from paths import ROOT
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
PIPES = {"cast('IO[bytes]', self._process.stdout)", "sys.stdin.buffer"}


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
