"""What the rows of the campaign share: results, a study as a process of its own, and the invariants."""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import yaml

from studies import ray_node, tune_lr
from tune_lr.records.row import TrialRow
from tune_lr.store.curves import read_curve
from tune_lr.store.study_dir import StudyDir

if TYPE_CHECKING:
    import subprocess

CANARY = "ca0a71" * 6 + "5eed"  # a key of 40 characters, which must stand in no file
HERE = Path(__file__).parent
REPORTS, STEPS_PER_REPORT = 6, 2  # of 0.15 s each: six reports of 0.3 s
MAX_STEPS = REPORTS * STEPS_PER_REPORT
CHECKPOINT_EVERY = 4  # steps


class Held(NamedTuple):
    """What held, how often it was tried."""

    times: int
    what: str


class Skipped(Exception):
    """The row cannot be run here; the text says why."""


class Event(NamedTuple):
    """One line of the workers' own log."""

    event: str  # model: an attempt begins; step
    pid: int
    time: float
    seed: int
    step: int


SPACE: dict[str, Any] = {
    "workload": "slow_on_purpose:regression",
    "max_steps": MAX_STEPS,
    "report_every": STEPS_PER_REPORT,
    "num_trials": 8,
    "pruner": {"name": "none"},
    "confirm": {"top": 0, "seeds": 1},
    "optimizer": {"name": "sgd"},
    # One configuration and one seed: all trials of the search have the same curve, whatever befalls them.
    "parameters": {"lr": {"value": 0.05}, "lr_schedule": {"value": "cosine"}},
    "checkpoints": {"every_steps": CHECKPOINT_EVERY},
    "scaling": {"workers_per_trial": 2, "max_concurrent": 1, "timeout_s": 6},
}


@dataclass
class Study:
    """A study of the slow workload, run by the command line in processes of their own."""

    folder: Path
    name: str = "study"
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, arguments: Mapping[str, Any] | None = None, **changes: Any) -> "Study":
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / "slow_on_purpose.py", folder / "slow_on_purpose.py")
        space = {**SPACE, "workload_args": {"log": str(folder / "log"), **(arguments or {})}, **changes}
        (folder / "space.yaml").write_text(yaml.safe_dump(space))
        return cls(folder)

    @property
    def directory(self) -> StudyDir:
        return StudyDir(self.folder / "studies" / self.name)

    @property
    def events(self) -> list[Event]:
        path = self.folder / "log"
        if not path.exists():
            return []
        records = (json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n"))
        return [Event(**record) for record in records]

    @property
    def attempts(self) -> list[list[Event]]:
        """The steps of each time that a rank set out to train a trial, in the order of their beginning.

        The rehearsal before a process's first trial is none.
        """
        found: dict[int, list[list[Event]]] = {}
        for event in self.events:
            if event.event == "model":
                found.setdefault(event.pid, []).append([event])
            else:
                found[event.pid][-1].append(event)
        for mine in found.values():
            # A step at most, and the same seed again: the rehearsal before a process's first trial.
            if len(mine) > 1 and len(mine[0]) <= 2 and mine[0][0].seed == mine[1][0].seed:
                del mine[0]
        attempts = [attempt for mine in found.values() for attempt in mine if attempt[0].seed >= 0]
        return sorted(attempts, key=lambda attempt: attempt[0].time)

    def search(self, *options: str) -> "subprocess.Popen[str]":
        return self._start("search", "space.yaml", f"--name={self.name}", *options)

    def resume(self, *options: str) -> "subprocess.Popen[str]":
        return self._start("resume", str(self.directory.root), *options)

    def _start(self, *arguments: str) -> "subprocess.Popen[str]":
        # A key is configured, and nothing is to be sent.
        environment = {"WANDB_API_KEY": CANARY, "COLUMNS": "400", **self.environment}
        return tune_lr(*arguments, "--wandb=offline", cwd=self.folder, **environment)

    def rows(self) -> list[TrialRow]:
        return self.directory.read_rows()


class Ended(NamedTuple):
    code: int
    output: str
    errors: str


def finished(process: "subprocess.Popen[str]", code: int, timeout: float = 400.0) -> Ended:
    """Waits for a driver, and asserts how it ends (I5)."""
    output, errors = process.communicate(timeout=timeout)
    assert process.returncode == code, f"exit code {process.returncode} instead of {code}\n{output}\n{errors}"
    if code not in (0, 3):
        last = errors.splitlines()[-1] if errors else ""
        assert last.startswith("error: "), f"the last line is no error:\n{errors}"
        assert "Traceback" not in errors, errors
    return Ended(code, output, errors)


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Until it holds; looked at 20 times a second: the trials share the machine with this loop."""
    deadline = time.monotonic() + seconds
    while not (held := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return held


def children_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
        return children
    except psutil.NoSuchProcess:
        return []


def all_gone(processes: Sequence[psutil.Process], seconds: float = 60.0) -> float:
    """I4, where a Ray of our own ended with its driver: no child is left. Returns how long that took."""
    began = time.monotonic()
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not alive, f"still there after {seconds:g} s: {[process.name() for process in alive]}"
    return time.monotonic() - began


def check_rows(study: Study, trials: int, states: Mapping[int, str] | None = None) -> list[TrialRow]:
    """I1 and I2: each trial once, in its state (complete, if it is not said otherwise), and its curve without a gap, a
    repetition or a step beyond its end."""
    rows = study.rows()
    assert [row.number for row in rows] == list(range(trials)), [row.number for row in rows]
    for row in rows:
        state = (states or {}).get(row.number, "complete")
        assert row.state == state, f"trial {row.number} is {row.state}, not {state}: {row.reason}"
        path = study.directory.curve(row.number)
        steps = read_curve(path)["step"] if path.exists() else []
        assert steps == list(range(1, row.steps + 1)), f"trial {row.number}'s curve: {steps}"
    return rows


def check_same_curves(study: Study, rows: Sequence[TrialRow]) -> None:
    """All trials of the search are alike, so their curves are, to the last digit: also those that were begun again."""
    curves = {study.directory.curve(row.number).read_text() for row in rows if row.phase == "search"}
    assert len(curves) == 1, f"{len(curves)} different curves"


def check_no_canary(*folders: Path) -> int:
    """I6. Returns how many files were read."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    hits = [path for path in files if CANARY.encode() in path.read_bytes()]
    assert not hits, f"the key stands in {hits}"
    return len(files)


def ray_folder() -> Path:
    """Where Ray keeps its sessions while the campaign runs."""
    return Path(os.environ["RAY_TMPDIR"])


@contextmanager
def ray_head(folder: Path, cpus: int, environment: Mapping[str, str]) -> Iterator[tuple[str, list[psutil.Process]]]:
    """A cluster of one node, as `ray start` makes it: its address, and its processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command: list[str | Path] = [
        Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={port}", f"--num-cpus={cpus}",
        "--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}",
    ]  # fmt: skip
    with ray_node(command, {**os.environ, **environment}) as process:
        yield f"127.0.0.1:{port}", [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
