"""How a study stands, read from its directory alone while somebody else may be writing it, and how it is stopped."""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tune_lr.config.model import Config
from tune_lr.config.plan import Plan, plan
from tune_lr.errors import NoAnswerError, ResourceError
from tune_lr.records.phases import STATES
from tune_lr.records.row import RAMP
from tune_lr.records.status import Leader, PhaseStatus, Running, Status
from tune_lr.records.time_left import PhaseLeft, seconds_left, steps_left, usual_steps
from tune_lr.records.trial import TrialSpec
from tune_lr.store.curves import read_curve
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.curves import curve_path
from tune_lr.study.study import Study
from tune_lr.study.trial_book import TrialBook

# A driver looks every second, sees a file of another NFS client within a minute, and then closes W&B.
STOP_LIMIT_S = 180.0


@dataclass(frozen=True)
class _Standing:
    """What the journal says at one moment."""

    trials: TrialBook
    totals: Mapping[str, int]  # trials of each phase, those to come included
    leader: Leader | None
    verdict: str | None
    last_write: float  # Unix time in seconds


def read_status(directory: StudyDir) -> Status:
    """Return how a study stands. Nothing in its directory is touched. Raises ResourceError where it is no study."""
    record = directory.read_record()
    config = record.config
    driver = directory.driver()  # first: what ends in the meantime is then still called running
    standing = _read_journal(directory, config, record.phases)
    planned = plan(config, record.phases)
    trials, rows = standing.trials, standing.trials.rows()
    phases = _count_trials(standing, planned)
    phase = next((name for name in phases if phases[name].unfinished), "finish")
    finished = driver is None and phase == "finish" and directory.report_html.exists()
    running = tuple(_running(directory, spec, config.metric.name) for spec in trials.begun())
    done = {trial.number: trial.step * trials.weight(trials.spec(trial.number)) for trial in running}
    full = _full_steps(planned)
    steps_to_come = sum(full[name] * phases[name].unfinished for name in phases) - round(sum(done.values()))
    left_s = None if driver is None else _seconds_left(trials, phases, full, done)
    end = time.time() if driver is not None else standing.last_write
    return Status(
        name=directory.name,
        directory=str(directory.root),
        state="running" if driver is not None else "finished" if finished else "stopped",
        driver=driver,
        phase=phase,
        phases=phases,
        running=running,
        metric=config.metric.name,
        leader=standing.leader,
        verdict=_verdict(directory, standing) if finished else None,
        bounds=directory.read_json(directory.bounds_json) if directory.bounds_json.exists() else None,
        steps=sum(row.steps for row in rows) + sum(trial.step for trial in running),
        steps_to_come=steps_to_come,
        elapsed_s=round(max(0.0, end - datetime.fromisoformat(record.created).timestamp()), 1),
        trained_s=round(sum(row.duration_s for row in rows), 1),
        left_s=None if left_s is None else round(left_s, 1),
    )


def stop(directory: StudyDir, limit_s: float = STOP_LIMIT_S) -> str | None:
    """End a running study as SIGTERM does, and wait until its driver has let go of it.

    Return who drove it; None where nobody does. Raises ResourceError where the driver does not end in time.
    """
    directory.read_study()
    driver = directory.driver()
    if driver is None:
        return None
    try:
        directory.stop_file.touch()
    except OSError as error:
        raise ResourceError(f"{directory.stop_file}: cannot be written ({error.strerror})") from None
    deadline = time.monotonic() + limit_s
    while directory.driver() is not None:
        if time.monotonic() > deadline:
            raise ResourceError(
                f"{directory.root}: {driver} was asked to stop and has not, for {limit_s:.0f} s; "
                "it stops as soon as it can, or end that process yourself"
            )
        time.sleep(0.2)
    directory.stop_file.unlink(missing_ok=True)  # where it had just ended by itself
    return driver


def _read_journal(directory: StudyDir, config: Config, phases: Sequence[str]) -> _Standing:
    """Read a copy of the journal, since opening one begins it where it is missing and mends it."""
    with tempfile.TemporaryDirectory(prefix="tune-lr-status-") as scratch:
        copy = StudyDir(scratch)
        last_write = _copy_journal(directory.journal, copy.journal)
        try:
            study = Study(config, copy, phases=phases)
        except ResourceError as error:
            raise ResourceError(str(error).replace(str(copy.journal), str(directory.journal))) from None
        totals = {phase: study.total(phase) for phase in phases}
        leader, verdict = _leader(study)
    return _Standing(study.trials, totals, leader, verdict, last_write)


def _copy_journal(journal: Path, copy: Path) -> float:
    """Copy the journal and return when it was last written, as Unix time in seconds.

    Only whole lines are copied: the last one may be half written, and mending it is the next driver's business.
    """
    try:
        data = journal.read_bytes()
        written = journal.stat().st_mtime
    except FileNotFoundError:
        return time.time()
    copy.write_bytes(data[: data.rfind(b"\n") + 1])
    return written


def _count_trials(standing: _Standing, planned: Plan) -> dict[str, PhaseStatus]:
    rows = standing.trials.rows()
    begun = standing.trials.begun()
    phases: dict[str, PhaseStatus] = {}
    for phase, total in standing.totals.items():
        states = [row.state for row in rows if row.phase == phase]
        running = sum(spec.phase == phase for spec in begun)
        if phase == "confirm" and any(earlier.unfinished for earlier in phases.values()):
            total = max(total, planned.confirmations)  # the finalists are not known yet
        counts = {state: states.count(state) for state in STATES}
        phases[phase] = PhaseStatus(**counts, running=running, to_come=total - len(states) - running)
    return phases


def _full_steps(planned: Plan) -> dict[str, int]:
    """Return the steps of one whole trial of each phase, with trials of several lengths their mean."""
    return {"range_test": planned.ramp_steps, "search": planned.trial_steps, "confirm": planned.max_steps}


def _seconds_left(
    trials: TrialBook, phases: Mapping[str, PhaseStatus], full: Mapping[str, int], done: Mapping[int, float]
) -> float | None:
    """Return how long the study still takes; None where nothing runs or nothing is known yet.

    `done` has the steps that the running trials have taken, by number.
    """
    ended = {name: [trials.weighted_steps_of(row.number) for row in trials.rows_of(name)] for name in phases}
    steps_done = sum(map(sum, ended.values()))
    if not done or not steps_done:
        return None
    left = steps_left(
        PhaseLeft(
            trials=status.unfinished,
            steps=usual_steps(ended[name], full[name]),
            done=sum(done[spec.number] for spec in trials.begun() if spec.phase == name),
        )
        for name, status in phases.items()
    )
    trained_s = sum(trials.seconds(name) for name in phases)
    return seconds_left(left, trained_s, steps_done, len(done))


def _running(directory: StudyDir, spec: TrialSpec, metric: str) -> Running:
    try:
        curve = read_curve(curve_path(directory, spec))
    except (OSError, ResourceError):  # it has not begun
        curve = {"step": []}
    steps = curve["step"]
    measured = [
        (step, value) for step, value in zip(steps, curve.get(metric, []), strict=False) if math.isfinite(value)
    ]
    predicted_curve = directory.read_predicted_curve(spec.number)
    expected = predicted_curve.at(int(measured[-1][0])) if predicted_curve and measured else None
    label = spec.label or spec.lr_schedule or RAMP
    lr = spec.ramp.high if spec.ramp else spec.lr
    step, value = int(steps[-1]) if steps else 0, measured[-1][1] if measured else None
    return Running(spec.number, spec.phase, label, lr, step, spec.max_steps, value, expected)


def _verdict(directory: StudyDir, standing: _Standing) -> str | None:
    """Return the verdict of a finished study. Where nothing was trained in full, best.yaml has what is predicted."""
    answer = None if standing.verdict else directory.read_answer()
    return answer.verdict if answer else standing.verdict


def _leader(study: Study) -> tuple[Leader | None, str | None]:
    try:
        verdict = study.verdict()
    except NoAnswerError:
        return None, None
    winner = verdict.winner
    seeds = len(winner.confirm_trials)
    leader = Leader(winner.trial, winner.lr_schedule, winner.lr, winner.parameters, winner.mean, seeds)
    return leader, verdict.sentence
