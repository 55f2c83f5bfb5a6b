"""One driver's session with a study: what is checked before it, and what it shows and reports while the study runs.

A new study is written down first. From there on it goes on from what stands in its directory, as a resumed one does.
"""

import os
import platform
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_lr.config.hardware import check_address
from tune_lr.config.load import Space, parse_config
from tune_lr.config.model import UNLIMITED, Config
from tune_lr.config.plan import plan
from tune_lr.config.user_code import check_code, check_names, fingerprint
from tune_lr.errors import InputError, Interrupted, NoAnswerError, TuneLRError, one_line
from tune_lr.records.outcome import Outcome
from tune_lr.records.phases import PHASES
from tune_lr.records.predicted_curve import PredictedCurve
from tune_lr.records.waiting import Tell, told_while
from tune_lr.store.record import StudyRecord
from tune_lr.store.study_dir import StudyDir, check_study_name
from tune_lr.tracking.key import Mode, choose_mode, run_folder

if TYPE_CHECKING:
    from rich.console import Console

    from tune_lr.show.terminal.progress import Progress
    from tune_lr.study.study import Study
    from tune_lr.tracking.process import WandbProcess

PACKAGES = ("tune-lr", "ray", "optuna", "colossalai", "torch", "torchvision", "wandb", "numpy")


@dataclass(frozen=True)
class Session:
    """How a study is driven, whatever it trains. `open_session` makes one that can be."""

    address: str | None  # of a Ray cluster; None: RAY_ADDRESS, else a local Ray
    mode: Mode  # of W&B
    strict: bool  # raise NoAnswerError where the LR range test abstains
    console: "Console | None"  # where to show what happens


def open_session(
    address: str | None = None,
    wandb: Mode | None = None,
    *,
    strict: bool = False,
    console: "Console | None" = None,
) -> Session:
    """Return a session; where `wandb` is not given, W&B is online where a key is configured, else offline.

    Raises InputError for what cannot be, before anything is imported or made.
    """
    mode = choose_mode(wandb)
    check_address(address or os.environ.get("RAY_ADDRESS"), "--address" if address else "RAY_ADDRESS")
    return Session(address, mode, strict, console)


def new_directory(out: str | Path, name: str | None, source: str | Path | Mapping[str, Any]) -> StudyDir:
    """Return the directory `out`/`name`, which is not made. A study without a name is called after its search space.

    Raises InputError where the name is none.
    """
    stem = "study" if isinstance(source, Mapping) else Path(source).stem
    return StudyDir(Path(out) / check_study_name(name or f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"))


def create(config: Config, directory: StudyDir, python_path: Sequence[str], phases: Sequence[str] = PHASES) -> None:
    """Make the study directory. The user's Python files lie in `python_path`.

    Raises InputError where the directory exists, ResourceError where it cannot be written.
    """
    record = StudyRecord(
        name=directory.name,
        id=uuid.uuid4().hex[:8],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        python_path=tuple(python_path),
        phases=tuple(phases),
        config=config,
        packages={name: _version(name) for name in PACKAGES},
        code=fingerprint(config, python_path),
        hardware={"host": socket.gethostname(), "machine": platform.machine(), "cpus": os.cpu_count()},
    )
    directory.create(record.to_dict())


def run_new(
    space: Space,
    directory: StudyDir,
    session: Session,
    phases: Sequence[str] = PHASES,
    predicted_curve: PredictedCurve | None = None,
) -> Outcome:
    """Make the study directory and run the study to its end.

    `predicted_curve` is what another study predicts of the validation curve of the first trial. Where something is
    wrong before any trial has ended, the name stays free; a study whose trials failed is kept. Raises TuneLRError.
    """
    create(space.config, directory, space.python_path, phases)
    if predicted_curve is not None:
        directory.write_predicted_curve(0, predicted_curve)
    try:
        return _go_on(directory, session)
    except TuneLRError as error:
        if not isinstance(error, Interrupted | NoAnswerError) and not directory.has_points():
            directory.remove()
        raise


def resume(
    directory: StudyDir,
    session: Session,
    *,
    num_trials: int | None = None,
    budget: str | None = None,
    accept_changed_code: bool = False,
) -> Outcome:
    """Run a study from where it stands to its end, with more trials or another budget where these are given.

    Raises TuneLRError; InputError where the user's Python files have changed since the study was made, unless
    `accept_changed_code`.
    """
    record = directory.read_record()
    config = _extended(record.config, num_trials, budget, str(directory.study_yaml))
    check_names(record.python_path)
    code = fingerprint(config, record.python_path)
    changed = check_code(record.code, code, accept=accept_changed_code)
    with directory.lock():
        directory.write_record(replace(record, config=config, code=code if record.code else {}))
    return _go_on(directory, session, [f"goes on with changed code: {text}" for text in changed])


def _extended(config: Config, num_trials: int | None, budget: str | None, source: str) -> Config:
    data = config.to_dict()
    if num_trials is not None:
        if config.num_trials == UNLIMITED:
            raise InputError(f"--num-trials: a budget ends the search of this study ({config.budget}); give --budget")
        if num_trials < config.num_trials:
            raise InputError(f"--num-trials: must be at least the study's own {config.num_trials} (got {num_trials})")
        data["num_trials"] = num_trials
    if budget is not None:
        data["budget"] = budget
    return parse_config(data, source=source)


def _go_on(directory: StudyDir, session: Session, notices: Sequence[str] = ()) -> Outcome:
    """Run the study in `directory` from where it stands to its end, with every curve reported to W&B."""
    record = directory.read_record()
    config = record.config
    progress = _progress(record, directory, session.console)
    if progress is not None:
        for text in notices:
            progress.notice(text)
    with _tracked(record, directory, session.mode, progress.notice if progress else None) as tracker:

        def on_study(study: "Study") -> None:
            if progress is not None:
                progress.spent_s, progress.spent_steps = study.elapsed(), sum(study.trials.steps_by_phase().values())
            if tracker is not None:
                tracker.stop_trial = study.stop_trial

        with told_while("Optuna to be imported", progress.notice if progress else None):
            from tune_lr.run import run  # it takes a second: whatever is wrong has shown by now

        with progress or nullcontext():
            outcome = run(
                directory,
                address=session.address,
                observers=[observer for observer in (progress, tracker) if observer is not None],
                strict=session.strict,
                on_study=on_study,
                on_cluster=progress.cluster_joined if progress else None,
                on_waiting=progress.notice if progress else None,
            )
        if tracker is not None:
            tracker.study_ended(outcome.rows)
    if progress is not None and session.console is not None:
        _show_end(session.console, progress, tracker, directory, outcome)
    answerable = config.num_trials or any(fixed.ramp is None for fixed in config.fixed)
    if outcome.no_answer and answerable and "search" in record.phases:
        raise NoAnswerError(outcome.no_answer)
    return outcome


def _progress(record: StudyRecord, directory: StudyDir, console: "Console | None") -> "Progress | None":
    """Show the plan, and return what will show the progress; None where nothing is shown."""
    if console is None:
        return None
    from tune_lr.show.terminal.plan import show_plan
    from tune_lr.show.terminal.progress import Progress

    planned = plan(record.config, record.phases)
    show_plan(console, record.name, record.config, planned)
    progress = Progress(console, record.config, planned)
    progress.read_predicted_curve = directory.read_predicted_curve
    return progress


@contextmanager
def _tracked(
    record: StudyRecord, directory: StudyDir, mode: Mode, on_notice: Tell | None
) -> "Iterator[WandbProcess | None]":
    """Give what reports to W&B; None where that is disabled, or cannot be started.

    At the end wait until everything is delivered.
    """
    if mode == "disabled":
        yield None
        return
    from tune_lr.tracking.process import WandbProcess

    try:
        tracker = WandbProcess(record.config, directory, record.id, mode)
    except OSError as error:  # the system gives no process, or no memory for it
        if on_notice is not None:
            on_notice(f"W&B is not reported to: its process cannot be started ({one_line(error)})")
        yield None
        return
    try:
        yield tracker
    finally:
        with told_while("Weights & Biases to take what is left of the curves", on_notice):
            tracker.close()


def _show_end(
    console: "Console", progress: "Progress", tracker: "WandbProcess | None", directory: StudyDir, outcome: Outcome
) -> None:
    """Print the answer, and what a person should do or look into."""
    from tune_lr.show.terminal.outcome import show_outcome

    show_outcome(console, outcome)
    if tracker is not None and tracker.trouble:
        progress.notice(f"W&B: {tracker.trouble}")
    if tracker is not None and (tracker.mode == "offline" or tracker.trouble):
        other = "" if tracker.trouble else f"   (or wandb sync {run_folder(directory.root) / 'wandb'}/offline-run-*)"
        console.print(f"W&B          tune-lr sync {directory.root}{other}", highlight=False, soft_wrap=True)
    if outcome.failed:
        progress.notice(f"{outcome.failed} trial(s) failed for good: see the column reason in {directory.trials_csv}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
