"""Faults of drivers and of their files: real processes, the real journal, no Ray.

A driver is a process of its own, forked, which locks the study, opens it and executes it with made-up losses
(tests/simulated.py). Rows 4, 11, 15 and 21.
"""

import errno
import os
import random
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import simulated
from faults.campaign import Held, Skipped
from tune_lr import run as search
from tune_lr.config.model import Config
from tune_lr.errors import TuneLRError
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.session import create
from tune_lr.store.curves import read_curve
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.study import Study

SLOTS = 3
# A study whose trials have several lengths, of 3 full trainings in all.
LADDER: dict[str, Any] = {
    "max_steps": 640,
    "report_every": 40,
    "num_trials": 200,
    "budget": "3x",
    "lengths": [1 / 16, 1 / 4, 1],
    "sampler": {"name": "gp"},
    "pruner": {"name": "none"},
    "confirm": {"top": 0},
    "parameters": simulated.FIXED_LR,
}


def driver(root: Path, reports: int | None = None, finish: bool = False) -> int:
    """Forks a driver that goes on with the study in `root`, up to so many reports; returns its pid. Every report is
    noted beside before it is handed in, and so is how it ended."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _drive(StudyDir(root), reports, finish)
    except TuneLRError as error:
        code = error.exit_code
        _beside(root, "error").write_text(str(error))
    except BaseException:
        _beside(root, "error").write_text(traceback.format_exc())
    os._exit(code)


def _drive(directory: StudyDir, reports: int | None, finish: bool) -> int:
    events = os.open(_beside(directory.root, "events"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def train(spec: TrialSpec, config: Config) -> Iterator[Report]:
        made_up = simulated.train_long if config.ladder else simulated.train
        for report in made_up(spec, config):
            os.write(events, f"{os.getpid()} {spec.number} {report.step}\n".encode())
            yield report

    with directory.lock():
        record = directory.read_record()
        study = Study(record.config, directory, phases=record.phases)
        simulated.execute(study, slots=SLOTS, train=train, reports=reports)
        if study.error is not None:
            raise study.error
        if finish and study.over:
            search.finish(study)
    return 0


def _beside(root: Path, suffix: str) -> Path:
    """Beside the folder that the study lies in: that one may be full."""
    return root.parent.with_name(f"{root.parent.name}-{root.name}.{suffix}")


def ended(pid: int) -> int:
    """Waits for a driver; returns its exit code, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def error_of(root: Path) -> str:
    path = _beside(root, "error")
    return path.read_text() if path.exists() else ""


def events_of(root: Path) -> list[tuple[int, int, int]]:
    """(driver's pid, trial, step) of every report that was to be handed in."""
    path = _beside(root, "events")
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(pid), int(number), int(step)) for pid, number, step in map(str.split, lines)]


@dataclass(frozen=True)
class Entry:
    """A trial as Optuna's journal has it, read past tune-lr."""

    ledger: str
    state: str
    spec: Any
    outcome: Any
    values: dict[int, float]

    @property
    def finished(self) -> bool:
        return self.state not in ("RUNNING", "WAITING")


def ledger(root: Path) -> dict[int, Entry]:
    """By number. Half a line at the end, as a kill leaves it, is left out."""
    data = (root / "study.journal").read_bytes()
    copy = _beside(root, "journal")
    copy.write_bytes(data[: data.rfind(b"\n") + 1])
    storage = JournalStorage(JournalFileBackend(str(copy)))
    entries: dict[int, Entry] = {}
    for study in storage.get_all_studies():
        for trial in storage.get_all_trials(study._study_id):
            if "spec" in trial.user_attrs:
                number = trial.user_attrs["spec"]["number"]
                assert number not in entries, f"trial {number} is there twice"
                entries[number] = Entry(
                    study.study_name,
                    trial.state.name,
                    trial.user_attrs["spec"],
                    trial.user_attrs.get("outcome"),
                    dict(trial.intermediate_values),
                )
    return entries


def begin(root: Path, **changes: Any) -> None:
    create(simulated.config_of(**changes), StudyDir(root), [])


def check_whole(root: Path, curves: bool = True) -> dict[int, Entry]:
    """I1 and, for all `curves`, I2 of a finished study, and that each rung holds the value that was reported there."""
    entries = ledger(root)
    assert sorted(entries) == list(range(len(entries))), "a number is missing"
    directory = StudyDir(root)
    for number, entry in entries.items():
        assert entry.finished, f"trial {number} is {entry.state}"
        assert entry.outcome, f"trial {number} is {entry.state}"
        spec = TrialSpec.from_dict(entry.spec)
        path = directory.range_curve(number) if spec.ramp else directory.curve(number)
        if curves:
            steps = read_curve(path)["step"]
            assert steps == list(range(1, entry.outcome["steps"] + 1)), f"trial {number}'s curve: {steps}"
        for step, value in entry.values.items():
            assert value == _made_up_loss(directory, spec, step), f"trial {number}, step {step}"
    return entries


def _made_up_loss(directory: StudyDir, spec: TrialSpec, step: int) -> float:
    """Return what a trial reports at a step."""
    if spec.length is None:
        return simulated.loss(spec.lr, spec.lr_schedule, step, spec.seed)
    config = directory.read_record().config
    reports = simulated.train_long(spec, config)
    return next(report.metrics[config.metric.name] for report in reports if report.step == step)


# --- row 4 ------------------------------------------------------------------------------------------------------------


def kill_drivers(folder: Path, count: int) -> Held:
    """So many SIGKILLs, each when the journal has grown by a seeded number of lines; over a study of twice as many
    trials, and over another one where that has ended before."""
    space = {"num_trials": max(4, 2 * count - 6), "sampler": {"name": "tpe"}}
    return _kill_drivers(folder, count, random.Random(4), space)


def kill_drivers_of_a_ladder(folder: Path, count: int) -> Held:
    """So many SIGKILLs of studies whose trials have three lengths, the last one a full training. Each of these studies
    keeps its budget, and ends with one full training."""
    held = _kill_drivers(folder, count, random.Random(21), LADDER)
    full = LADDER["max_steps"]
    for root in folder.glob("study-*"):
        rows = [entry for entry in ledger(root).values() if entry.ledger == "search"]
        assert sum(entry.outcome["steps"] for entry in rows) <= 3 * full, "the budget was passed"
        assert [entry for entry in rows if entry.spec["length"] == 1 and entry.spec["checkpoint"]], "no full training"
    return held


def _kill_drivers(folder: Path, count: int, rng: random.Random, space: dict[str, Any]) -> Held:
    kills, torn, redone, trials, studies, worst = 0, 0, 0, 0, 0, 0
    while kills < count:
        root = folder / f"study-{studies}"
        studies += 1
        begin(root, **space)
        before: dict[int, Entry] = {}
        finished_by: dict[int, set[int]] = {}  # by driver's pid, what had ended when it began
        while True:
            pid = driver(root)
            finished_by[pid] = {number for number, entry in before.items() if entry.finished}
            if kills < count and _signal_at(pid, root / "study.journal", rng.randint(6, 30), signal.SIGKILL):
                assert ended(pid) == -signal.SIGKILL
                data = (root / "study.journal").read_bytes()
                torn += not data.endswith(b"\n")
                now = ledger(root)
                _unchanged(before, now)
                before = now
                running = {number for number, entry in now.items() if not entry.finished}
                if running and len(running) < len(now):
                    kills += 1
                    lost = [_steps(events_of(root), pid, number) for number in running]
                    redone += sum(lost)
                    worst = max([worst, *lost])
                continue
            assert ended(pid) == 0, error_of(root)
            break
        after = check_whole(root)
        _unchanged(before, after)
        trials += len(after)
        again = [(number, step) for pid, number, step in events_of(root) if number in finished_by[pid]]
        assert not again, f"what had ended ran again: {again}"
    return Held(
        kills,
        f"{trials} trials in {studies} studies: 0 lost, 0 finished ones run again, each once in the ledger; rungs as "
        f"reported; {redone / kills:.1f} steps redone a kill, at most {worst} of a trial (no checkpoints); "
        f"{torn} torn lines mended",
    )


def _signal_at(pid: int, journal: Path, lines: int, number: int) -> bool:
    """Signals the driver when the journal has so many more lines; false where it ended before."""
    start = journal.stat().st_size if journal.exists() else 0
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if journal.exists():
            with journal.open("rb") as file:
                file.seek(start)
                if file.read().count(b"\n") >= lines:
                    os.kill(pid, number)
                    return True
        time.sleep(0.0005)  # the driver shares the machine with this loop
    return False


def _steps(events: list[tuple[int, int, int]], pid: int, number: int) -> int:
    return max((step for driver, trial, step in events if (driver, trial) == (pid, number)), default=0)


def _unchanged(before: dict[int, Entry], after: dict[int, Entry]) -> None:
    """What had ended has stayed, and what had begun is still itself."""
    for number, entry in before.items():
        assert number in after, f"trial {number} is lost"
        assert after[number].spec == entry.spec, f"trial {number} is another"
        assert entry.values.items() <= after[number].values.items(), f"trial {number} has lost a value"
        assert not entry.finished or after[number] == entry, f"trial {number} had ended and has changed"


# --- row 15 -----------------------------------------------------------------------------------------------------------

FILES = ["study.journal"] * 5 + ["study.yaml", "bounds.json", "range_test/curve-0.csv", "trials/0003/curve.csv"]
FILES += ["trials/0003/params.json", "trials.csv", "study.lock"]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))] if data else data


def _cut_last_line(data: bytes, rng: random.Random) -> bytes:
    start = data.rstrip(b"\n").rfind(b"\n") + 1
    return data[: rng.randint(start, max(start, len(data) - 1))]


def _empty(data: bytes, rng: random.Random) -> bytes:
    return b""


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(max(1, len(data) - 16))
    return data[:at] + rng.randbytes(16) + data[at + 16 :]


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(max(1, len(data)))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if data else data


DAMAGES: list[Callable[[bytes, random.Random], bytes] | None] = [_cut, _cut_last_line, _empty, _overwrite, _flip, None]


def corrupt_files(folder: Path, count: int) -> Held:
    """A study that was killed somewhere, or had ended, one file of it damaged, and the next driver."""
    rng = random.Random(15)
    stages = []
    for reports in (4, 9, 14, 19, 25, None):
        root = folder / f"stage-{reports}"
        begin(root, seed=reports or 0)
        assert ended(driver(root, reports, finish=True)) == 0, error_of(root)
        stages.append(root)
    refused, resumed, again, harmless = 0, 0, 0, 0
    for index in range(count):
        stage = rng.choice(stages)
        name = rng.choice([name for name in FILES if (stage / name).exists()])
        damage = rng.choice(DAMAGES)
        what = f"{index}: {stage.name}/{name} {damage.__name__.strip('_') if damage else 'missing'}"
        root = folder / f"case-{index}"
        shutil.copytree(stage, root)
        before = ledger(root)
        path = root / name
        if damage:
            path.write_bytes(damage((stage / name).read_bytes(), rng))
        else:
            path.unlink()
        damaged = path.read_bytes() if path.exists() else None
        code = ended(driver(root, finish=True))
        if code == 0:
            ran = {number for _, number, _ in events_of(root)}
            ended_before = {number for number, entry in before.items() if entry.finished}
            if damaged == (stage / name).read_bytes():
                harmless += 1
            elif ran & ended_before:
                # Whole lines of the journal are gone, all since a trial began: as after a kill at that moment.
                assert name == "study.journal", f"{what}: finished trials ran again: {ran & ended_before}"
                assert len(ran & ended_before) <= SLOTS, f"{what}: a silent restart: {sorted(ran & ended_before)}"
                again += len(ran & ended_before)
            resumed += 1
            check_whole(root, "curve" not in name)
        else:
            said = error_of(root)
            assert code in (2, 4), f"{what}: exit code {code}\n{said}"
            assert len(said.splitlines()) == 1, f"{what}: {said}"
            assert name.rpartition("/")[2] in said, f"{what}: {said}"
            refused += 1
        shutil.rmtree(root)
        for suffix in ("events", "error", "journal"):
            _beside(root, suffix).unlink(missing_ok=True)
    return Held(
        count,
        f"{resumed} went on, {refused} refused with the file's name, 0 silent restarts; {again} trials whose end was "
        "in whole lines cut off the journal ran again, as after a kill at that moment",
    )


# --- row 11 -----------------------------------------------------------------------------------------------------------


def fill_the_disk(folder: Path, count: int) -> Held:
    """A file system of 20 MB that is full when the journal has a seeded number of lines, and then has room again; at
    last it is read-only."""
    rng = random.Random(11)
    place = folder / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        raise Skipped("mounting a file system needs root and is not allowed here")
    try:
        for index in range(count):
            root, ballast = place / f"study-{index}", place / "ballast"
            begin(root)
            pid = driver(root)
            assert _signal_at(pid, root / "study.journal", rng.randint(10, 60), signal.SIGSTOP), error_of(root)
            _fill(ballast)
            os.kill(pid, signal.SIGCONT)
            code = ended(pid)
            assert code == 4, error_of(root)
            assert _refuses(root, "No space left on device"), error_of(root)
            before = ledger(root)
            ballast.unlink()
            assert ended(driver(root)) == 0, error_of(root)
            _unchanged(before, check_whole(root))
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        code = ended(driver(root))
        assert code == 4, error_of(root)
        assert _refuses(root, "Read-only file system"), error_of(root)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)
    return Held(count, "exit 4 naming the file and how to go on; with room again nothing was lost or run twice")


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def _refuses(root: Path, why: str) -> bool:
    said = error_of(root)
    return len(said.splitlines()) == 1 and str(root) in said and why in said and f"tune-lr resume {root}" in said
