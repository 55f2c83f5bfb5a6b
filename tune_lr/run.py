"""The story of a study: make its directory, run its phases, judge them, write the report."""

import os
import platform
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any

from tune_lr.config.hardware import Hardware
from tune_lr.config.load import parse_config
from tune_lr.config.model import Config
from tune_lr.config.task import make_task
from tune_lr.errors import Interrupted, NoAnswerError
from tune_lr.records.answer import Answer
from tune_lr.records.observer import Observer
from tune_lr.records.outcome import Outcome, Spending
from tune_lr.records.phases import PHASES
from tune_lr.records.trial import CheckpointPlan
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.answer import answer_of
from tune_lr.study.study import Study

PACKAGES = ("tune-lr", "ray", "optuna", "colossalai", "torch", "torchvision", "wandb", "numpy")
# How often a driver looks whether somebody wants it to stop.
STOP_POLL_S = 1.0


def create(config: Config, directory: StudyDir, python_path: Sequence[str], phases: Sequence[str] = PHASES) -> None:
    """Makes the study directory; the user's Python files lie in `python_path`. Raises InputError where it exists."""
    directory.create(
        {
            "name": directory.name,
            "id": uuid.uuid4().hex[:8],  # of the W&B runs
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "python_path": list(python_path),
            "phases": list(phases),
            "config": config.to_dict(),
            "packages": {name: _version(name) for name in PACKAGES},
            "hardware": {"host": socket.gethostname(), "machine": platform.machine(), "cpus": os.cpu_count()},
        }
    )


def run(
    directory: StudyDir,
    *,
    address: str | None = None,
    observers: Sequence[Observer] = (),
    strict: bool = False,
    on_study: Callable[[Study], None] | None = None,
    on_cluster: Callable[[int, Hardware], None] | None = None,
) -> Outcome:
    """Runs the study in `directory` from where it stands to its end, and writes every derived file. `on_study` is given
    the study before anything of it runs.

    Raises TuneLRError; Interrupted after SIGINT or SIGTERM. Whatever ends it, what was finished stands on disk.
    """
    with directory.lock():
        directory.stop_file.unlink(missing_ok=True)  # of a driver before this one
        record = directory.read_resumable()
        config = parse_config(record["config"], source=str(directory.study_yaml))
        study = Study(config, directory, observers=observers, phases=record["phases"], strict=strict)
        if on_study is not None:
            on_study(study)
        task = make_task(config, record["python_path"], _checkpoint_plan(config, directory, record["id"]))
        with _interruptible(study, directory) as take_signals:
            from tune_lr.cluster import cluster  # Ray is imported as late as can be: whatever is wrong shows first

            with (
                open(directory.driver_log, "a") as log,
                redirect_stdout(log),  # Ray prints what befalls a worker; whoever shows progress holds the old one
                cluster.connected(address, task.python_path),
                cluster.head_watched(lambda: _end_at_once("the Ray cluster was lost", 4, directory)),
                _stoppable(directory),
            ):
                take_signals()  # again: Ray has set a handler of its own
                if not study.stopped:
                    cluster.run(study, task, config.scaling.max_concurrent, on_cluster)
        if study.error is not None:
            raise study.error
        return finish(study)


def report(directory: StudyDir) -> Outcome:
    """Writes every derived file anew, from the journal and the curves."""
    record = directory.read_resumable()
    config = parse_config(record["config"], source=str(directory.study_yaml))
    with directory.lock():
        study = Study(config, directory, phases=record["phases"], resume=False)
        study.read_bounds()
        return finish(study)


def finish(study: Study) -> Outcome:
    """Judge what there is, write the derived files and return the outcome."""
    from tune_lr.show.report import write_report  # here, since matplotlib takes a second that workers need not wait for

    directory, rows = study.directory, study.rows()
    directory.write_rows(rows)
    if study.widened:
        directory.write_json(directory.widened_json, study.widened.to_dict())
    answer, no_answer = None, ""
    try:
        answer = answer_of(study)
        directory.write_yaml(directory.best_yaml, answer.to_dict())
    except NoAnswerError as error:
        no_answer = str(error)
        directory.best_yaml.unlink(missing_ok=True)
    write_report(directory)
    return _outcome(study, answer, no_answer)


def _outcome(study: Study, answer: Answer | None, no_answer: str) -> Outcome:
    metric = study.config.metric
    return Outcome(
        root=study.directory.root,
        rows=tuple(study.rows()),
        bounds={str(combination): bounds for combination, bounds in study.all_bounds.items()},
        widening=study.widened,
        metric=metric.name,
        goal=metric.goal,
        answer=answer,
        no_answer=no_answer,
        spending=Spending(
            steps=study.trials.steps_by_phase(),
            full_trainings=round(study.trials.full_trainings(), 1),
            saved=study.trials.steps_saved(),
            elapsed_s=study.elapsed(),
            budget=study.config.budget,
        ),
    )


def _checkpoint_plan(config: Config, directory: StudyDir, study_id: str) -> CheckpointPlan | None:
    """None where there are to be no checkpoints, and with plugins that split the model or the optimizer."""
    how = config.checkpoints
    if config.scaling.plugin != "ddp" or (how.every_steps is None and how.every_minutes is None):
        return None
    return CheckpointPlan(how.every_steps, how.every_minutes, how.keep, str(directory.root), study_id)


@contextmanager
def _interruptible(study: Study, directory: StudyDir) -> Iterator[Callable[[], Any]]:
    """The first SIGINT or SIGTERM stops the study and keeps all that is finished; a second one ends the process,
    whose local Ray ends with it. Gives what takes the signals again."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # Python hands signals to the main thread alone: they are for whoever called this one
        return
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            _end_at_once("ended at once", 128 + number, directory)
        study.interrupt()

    def take() -> dict[int, Any]:
        return {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}

    previous = take()
    try:
        yield take
    except SystemExit as end:
        if end.code != signal.SIGTERM:  # this is how Ray, while it starts, takes that signal
            raise
        received.append(signal.SIGTERM)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        raise Interrupted(f"interrupted; go on with: tune-lr resume {directory.root}", received[0])


def _end_at_once(why: str, code: int, directory: StudyDir) -> None:
    """For when nothing else can be waited for. Of what is on disk nothing is lost."""
    shown = "\x1b[?25h" if sys.stderr.isatty() else ""  # the cursor, which the progress has hidden
    print(f"{shown}\nerror: {why}; go on with: tune-lr resume {directory.root}", file=sys.stderr, flush=True)
    os._exit(code)


@contextmanager
def _stoppable(directory: StudyDir) -> Iterator[None]:
    """Takes the file that `tune-lr stop` leaves, here or on another host that shares the storage, for a SIGTERM."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(STOP_POLL_S):
            if directory.stop_file.exists():
                directory.stop_file.unlink(missing_ok=True)
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=watch, name="tune-lr-stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()  # before the handlers are taken down: no SIGTERM comes later


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
