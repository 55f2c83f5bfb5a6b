"""How a study stands, read from its directory alone while somebody else may be writing it, and how it is stopped."""

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from tune_lr.config.load import parse_config
from tune_lr.config.plan import plan
from tune_lr.errors import NoAnswerError, ResourceError
from tune_lr.records.parameters import BATCH_SIZE
from tune_lr.records.status import Leader, PhaseStatus, Running, Status
from tune_lr.records.steps import steps_weight
from tune_lr.records.trial import TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.study import Study

# A driver looks every second, sees a file of another NFS client within a minute, and then closes W&B.
STOP_LIMIT_S = 180.0


def read_status(directory: StudyDir) -> Status:
    """Touches nothing in the directory. Raises ResourceError where it is no study."""
    record = directory.read_resumable()
    config = parse_config(record["config"], source=str(directory.study_yaml))
    driver = directory.driver()  # first: what ends in the meantime is then still called running
    with tempfile.TemporaryDirectory(prefix="tune-lr-status-") as scratch:
        copy = StudyDir(scratch)
        last_write = _copy_journal(directory.journal, copy.journal)
        try:
            study = Study(config, copy, phases=record["phases"])
        except ResourceError as error:
            raise ResourceError(str(error).replace(str(copy.journal), str(directory.journal))) from None
        rows, begun = study.rows(), study.begun()
        totals = {phase: study.total(phase) for phase in record["phases"]}
    planned = plan(config, record["phases"])
    phases: dict[str, PhaseStatus] = {}
    for phase, total in totals.items():
        states = [row.state for row in rows if row.phase == phase]
        running = sum(spec.phase == phase for spec in begun)
        if phase == "confirm" and any(_unfinished(phases[earlier]) for earlier in phases):
            total = max(total, planned.confirmations)
        counts = {state: states.count(state) for state in ("complete", "pruned", "diverged", "failed")}
        phases[phase] = PhaseStatus(**counts, running=running, to_come=total - len(states) - running)
    here = next((phase for phase in phases if _unfinished(phases[phase])), "finish")
    finished = driver is None and here == "finish" and directory.report_html.exists()
    trained_s, steps = sum(row.duration_s for row in rows), sum(row.steps for row in rows)
    weight = {r.number: steps_weight(r.parameters.get(BATCH_SIZE), config.batch_size) for r in rows}
    weight |= {spec.number: steps_weight(spec.batch_size, config.batch_size) for spec in begun}
    comparable = sum(row.steps * weight[row.number] for row in rows)  # steps with the study's batch size
    full = {"range_test": planned.ramp_steps, "search": planned.max_steps, "confirm": planned.max_steps}
    trials = tuple(_running(directory, spec) for spec in begun)
    done = round(sum(trial.step * weight[trial.number] for trial in trials))
    left_s = None
    if driver is not None and trials and steps:
        ended = {name: [r.steps * weight[r.number] for r in rows if r.phase == name] for name in phases}
        left = sum(fmean(ended[name] or [full[name]]) * _unfinished(phases[name]) for name in phases) - done
        left_s = max(0.0, left) * trained_s / comparable / len(trials)
    leader, verdict = _leader(study)
    end = time.time() if driver is not None else last_write
    return Status(
        name=directory.name,
        directory=str(directory.root),
        state="running" if driver is not None else "finished" if finished else "stopped",
        driver=driver,
        phase=here,
        phases=phases,
        running=trials,
        metric=config.metric.name,
        leader=leader,
        verdict=verdict if finished else None,
        bounds=directory.read_json(directory.bounds_json) if directory.bounds_json.exists() else None,
        steps=steps + sum(trial.step for trial in trials),
        steps_to_come=sum(full[name] * _unfinished(phases[name]) for name in phases) - done,
        elapsed_s=round(max(0.0, end - datetime.fromisoformat(record["created"]).timestamp()), 1),
        trained_s=round(trained_s, 1),
        left_s=None if left_s is None else round(left_s, 1),
    )


def stop(directory: StudyDir, limit_s: float = STOP_LIMIT_S) -> str | None:
    """Ends a running study as SIGTERM does, and waits until its driver has let go of it.

    Returns who drove it; None where nobody does. Raises ResourceError where the driver does not end in time.
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


def _unfinished(phase: PhaseStatus) -> int:
    return phase.running + phase.to_come


def _copy_journal(journal: Path, copy: Path) -> float:
    """Whole lines only: the last one may be half written, and mending it is the next driver's business. Returns when
    it was last written."""
    try:
        data, written = journal.read_bytes(), journal.stat().st_mtime
    except FileNotFoundError:
        return datetime.now(UTC).timestamp()
    copy.write_bytes(data[: data.rfind(b"\n") + 1])
    return written


def _running(directory: StudyDir, spec: TrialSpec) -> Running:
    ramping = spec.phase == "range_test"
    path = directory.range_curve(spec.number) if ramping else directory.curve(spec.number)
    try:
        steps = directory.read_curve(path)["step"]
    except (OSError, ResourceError):  # not begun
        steps = []
    label = spec.label or spec.lr_schedule or "ramp"
    lr = spec.ramp.high if spec.ramp else spec.lr
    return Running(spec.number, spec.phase, label, lr, int(steps[-1]) if steps else 0, spec.max_steps)


def _leader(study: Study) -> tuple[Leader | None, str | None]:
    try:
        verdict = study.verdict()
    except NoAnswerError:
        return None, None
    winner = verdict.winner
    seeds = len(winner.confirm_trials)
    leader = Leader(winner.trial, winner.lr_schedule, winner.lr, winner.parameters, winner.mean, seeds)
    return leader, verdict.sentence
