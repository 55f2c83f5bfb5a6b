"""Faults of the input: rows 13, 16 and 20, and those that have tests of their own."""

import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from faults.campaign import Held
from tune_lr.store.study_dir import StudyDir

TESTS = Path(__file__).resolve().parent.parent
LIMIT_S = 2.0

GOOD = """\
workload: tune_lr.workloads.lenet5:mnist_5k
max_steps: 62
report_every: 31
num_trials: 4
parameters:
  lr: {min: 0.01, max: 0.1}
  lr_schedule: {values: [constant, cosine]}
"""


def _with(old: str, new: str) -> bytes:
    assert old in GOOD
    return GOOD.replace(old, new).encode()


# What is refused, by what the message says of it.
CORPUS: dict[str, tuple[bytes, str]] = {
    "unknown key": (GOOD.encode() + b"max_step: 4\n", ":8 max_step: is unknown; did you mean 'max_steps'?"),
    "LR zero": (_with("min: 0.01", "min: 0"), ":6 parameters.lr.min: must be greater than 0"),
    "LR negative": (_with("min: 0.01", "min: -0.01"), ":6 parameters.lr.min: must be greater than 0"),
    "low above high": (_with("min: 0.01", "min: 1"), ":6 parameters.lr.min: must be less than max"),
    "low equals high": (_with("min: 0.01", "min: 0.1"), ":6 parameters.lr.min: must be less than max"),
    "ramp the wrong way": (GOOD.encode() + b"range_test: {low: 1, high: 0.1}\n", ":8 range_test.low: must be less"),
    "NaN": (_with("min: 0.01", "min: .nan"), ":6 parameters.lr.min: must be a finite number"),
    "inf": (_with("max: 0.1", "max: .inf"), ":6 parameters.lr.max: must be a finite number"),
    "overflow": (_with("max: 0.1", "max: 1e999"), ":6 parameters.lr.max: must be a finite number"),
    "unknown schedule": (_with("cosine", "cosin"), "did you mean 'cosine'?"),
    "wrong type": (_with("max_steps: 62", "max_steps: many"), ":2 max_steps: must be a whole number"),
    "steps as a float": (_with("max_steps: 62", "max_steps: 62.0"), ":2 max_steps: must be a whole number"),
    "steps negative": (_with("max_steps: 62", "max_steps: -62"), ":2 max_steps: must be at least 1"),
    "steps of 400 digits": (_with("max_steps: 62", f"max_steps: 1{'0' * 400}"), ":2 max_steps: is too long a number"),
    "seed beyond 31 bits": (GOOD.encode() + b"seed: 4294967296\n", ":8 seed: must be at most"),
    "duplicate key": (GOOD.encode() + b"num_trials: 5\n", ":8 num_trials: is given twice (first on line 4)"),
    "missing key": (_with("workload: tune_lr.workloads.lenet5:mnist_5k\n", ""), "workload: is missing"),
    "a path as workload": (_with("tune_lr.workloads.lenet5:mnist_5k", "../x.py"), ":1 workload: is no workload"),
    "empty": (b"", ":1: is empty"),
    "a comment alone": (b"# nothing\n", "is empty"),
    "a list": (b"- 1\n", ":1: is not a mapping"),
    "a word": (b"hello\n", ":1: is not a mapping"),
    "binary": (bytes(range(256)), "is not text"),
    "NUL": (b"workload: a\0b\n", ":1: is not text (got byte 0x00)"),
    "UTF-16": (GOOD.encode("utf-16"), "is not text"),
    "Latin-1": (b"workload: \xe4\n", "is not text"),
    "a control character": (b"workload: \x07\n", "has a character that YAML does not allow"),
    "10 MB": (b"# " + b"x" * 10_000_000, ":1: is too large (got 10000002 bytes)"),
    "10 MB of one line each": (b"a: 1\n" * 2_000_000, ":1: is too large"),
    "64 KB of brackets": (b"[" * 65_000, "is nested too deeply"),
    "nesting by indentation": ("\n".join(" " * i + "a:" for i in range(300)).encode(), "is nested too deeply"),
    "nesting in a field": (_with("num_trials: 4", f"workload_args: {{a: {'[' * 5000}"), "is nested too deeply"),
    "alias bomb": (
        b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n".encode() for i in range(8)
        ),
        "anchors are not allowed",
    ),
    "alias to itself": (b"a: &a [*a]\n", "anchors are not allowed"),
    "merge key": (b"base: &b {x: 1}\nworkload:\n  <<: *b\n", "anchors are not allowed"),
    "a Python object": (b"workload: !!python/object/apply:os.system ['true']\n", ":1 workload: tags are not allowed"),
    "a Python name": (b"workload: !!python/name:os.system\n", ":1 workload: tags are not allowed"),
    "a tag of one's own": (b"workload: !x y\n", ":1 workload: tags are not allowed"),
    "two documents": (GOOD.encode() + b"---\n" + GOOD.encode(), "a second document begins"),
    "a bracket left open": (b"parameters: {lr: {min: 1\n", "is not valid YAML"),
    "a tab": (b"parameters:\n\tlr: 1\n", "is not valid YAML"),
    "a mapping as a key": (b"{a: 1}: 2\n", "a key must be one word"),
    "a number as a key": (b"1: 2\n", "a key must be text"),
    "a date": (_with("num_trials: 4", "num_trials: 2026-01-01"), ":4 num_trials: dates are not read"),
}  # fmt: skip
# Names of studies, and what else is given on the command line.
NAMES = ["../x", "/abs", "a/b", ".", "..", ".hidden", "a" * 300, "a b", "a\nb", "a;b", "$(a)", "ä", "-x"]


def refuse_inputs(folder: Path, count: int) -> Held:
    """Every input by the command, in a process of its own."""
    folder.mkdir(exist_ok=True)
    _refused(folder, ["search", "nowhere.yaml"])  # not counted: in a fresh installation it compiles what it imports
    corpus = list(CORPUS.items())
    step = max(1, -(-(len(corpus) + len(NAMES)) // count))
    slowest, times = 0.0, 0
    for what, (content, expected) in corpus[::step]:
        (folder / "space.yaml").write_bytes(content)
        error, seconds = _refused(folder, ["search", "space.yaml", "--wandb=disabled"])
        assert error.startswith("error: space.yaml:"), f"{what}: {error}"
        assert expected in error, f"{what}: {error}"
        slowest, times = max(slowest, seconds), times + 1
    (folder / "space.yaml").write_text(GOOD)
    for name in NAMES[::step]:
        error, seconds = _refused(folder, ["search", "space.yaml", "--wandb=disabled", f"--name={name}"])
        assert error.startswith("error: --name: not a study name"), error
        slowest, times = max(slowest, seconds), times + 1
    assert slowest < LIMIT_S, f"{slowest:.1f} s"
    return Held(times, f"exit 2, one line with file, line and field; at most {slowest:.2f} s of CPU; nothing written")


def _refused(folder: Path, arguments: list[str]) -> tuple[str, float]:
    """What it says, and its CPU-seconds: others may be using this machine."""
    before, spent = sorted(folder.iterdir()), _cpu_of_children()
    done = subprocess.run([sys.executable, "-m", "tune_lr.cli", *arguments], cwd=folder, capture_output=True, text=True)
    seconds = _cpu_of_children() - spent
    assert done.returncode == 2, f"exit code {done.returncode}: {done.stderr}"
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert sorted(folder.iterdir()) == before, "something was written"
    return done.stderr.strip(), seconds


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def refuse_a_name_that_exists(folder: Path, count: int) -> Held:
    folder.mkdir(exist_ok=True)
    (folder / "space.yaml").write_text(GOOD)
    directory = StudyDir(folder / "studies" / "first")
    directory.create({"name": "first"})
    before = {path: path.read_bytes() for path in directory.root.rglob("*") if path.is_file()}
    error, _ = _refused(folder, ["search", "space.yaml", "--wandb=disabled", "--name=first"])
    assert error.endswith(f"go on with it: tune-lr resume {directory.root}"), error
    assert {path: path.read_bytes() for path in directory.root.rglob("*") if path.is_file()} == before
    return Held(1, "exit 2 pointing at `resume`; the directory unchanged")


def tests(files: str, words: str) -> Callable[[Path, int], Held]:
    """A row that is held by tests of the suite."""

    def run(folder: Path, count: int) -> Held:
        paths = [f"tests/{file}" for file in files.split()]
        command = [sys.executable, "-m", "pytest", "-m", "", *paths, "-k", words]
        done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True)
        passed = re.search(r"(\d+) passed", done.stdout)
        assert done.returncode == 0, done.stdout[-3000:]
        assert passed, done.stdout[-3000:]
        return Held(int(passed[1]), f'`pytest {" ".join(paths)} -k "{words}"`')

    return run
