"""What a study has spent, what its trials were spared, and at which rungs they were pruned."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tune_lr.records.parameters import BATCH_SIZE
from tune_lr.records.phases import PHASES, STATES
from tune_lr.records.row import RAMP, TrialRow
from tune_lr.records.steps import equal_steps, steps_covered
from tune_lr.show.charts.model import sort_schedules
from tune_lr.show.report.study import ReportedStudy


@dataclass(frozen=True)
class Ledger:
    """A table of counts by phase."""

    columns: Mapping[
        str, Mapping[str, int]
    ]  # by their titles: a count for each phase; those with no count are left out
    spent: int  # optimizer steps
    saved: int  # steps that were not taken


@dataclass(frozen=True)
class Rung:
    """A step at which trials were pruned."""

    step: int
    arrived: int  # trials that came as far
    pruned: Mapping[str, int]  # trials that were pruned here, by LR schedule


def ledger_of(study: ReportedStudy) -> Ledger:
    """Return the ledger of a study."""
    saved = _steps_saved(study)
    steps = steps_by_phase(study)
    columns: dict[str, Mapping[str, int]] = {
        "steps": steps,
        "trials": Counter(row.phase for row in study.rows),
        **{state: Counter(row.phase for row in study.rows if row.state == state) for state in STATES},
        "steps saved by pruning": {phase: saved[phase, "pruned"] for phase in PHASES},
        "steps saved by ending what diverged": {phase: saved[phase, "diverged"] for phase in PHASES},
    }
    return Ledger(
        {
            title: {phase: counts.get(phase, 0) for phase in PHASES}
            for title, counts in columns.items()
            if any(counts.values())
        },
        sum(steps.values()),
        saved.total(),
    )


def steps_by_phase(study: ReportedStudy) -> dict[str, int]:
    """Return the optimizer steps of each phase: as best.yaml says, else as the trials that have ended add up to."""
    recorded = study.answer.steps if study.answer else {}
    return {
        phase: int(recorded.get(phase, sum(row.steps for row in study.rows if row.phase == phase))) for phase in PHASES
    }


def rungs_of(study: ReportedStudy) -> list[Rung]:
    """Return the rungs at which trials were pruned, by step. Fixed configurations are not pruned and not counted."""
    compared = [row for row in study.searched if not row.label]
    pruned = [row for row in compared if row.state == "pruned"]
    ends = {row.number: _last_rung(study, row) for row in compared}
    rungs = []
    for step in sorted({ends[row.number] for row in pruned}):
        arrived = sum(end >= step for end in ends.values())
        ended = Counter(row.lr_schedule for row in pruned if ends[row.number] == step)
        rungs.append(Rung(step, arrived, {name: ended[name] for name in sort_schedules(ended)}))
    return rungs


def _last_rung(study: ReportedStudy, row: TrialRow) -> int:
    """Return the step at which a trial ended.

    Where batch sizes are searched, it is the last report, in steps of the study's own batch size.
    """
    settings = study.settings
    batch_size = row.parameters.get(BATCH_SIZE)
    if not (settings.report_every and settings.batch_size and batch_size):
        return row.steps
    covered = steps_covered(row.steps, settings.batch_size, batch_size)
    return covered // settings.report_every * settings.report_every


def _steps_saved(study: ReportedStudy) -> Counter[tuple[str, str]]:
    """Return the steps that trials did not take, by phase and by what ended them: "pruned" or "diverged"."""
    saved: Counter[tuple[str, str]] = Counter()
    for row in study.rows:
        ended = "diverged" if row.lr_schedule == RAMP else row.state
        if ended in ("pruned", "diverged"):
            saved[row.phase, ended] += max(0, _planned_steps(study, row) - row.steps)
    return saved


def _planned_steps(study: ReportedStudy, row: TrialRow) -> int:
    settings = study.settings
    if row.phase == "range_test":  # the plan of a ramp that was extended is not on disk
        return settings.ramp_steps if row.lr == settings.ramp_high else 0
    batch_size = row.parameters.get(BATCH_SIZE)
    if settings.batch_size and batch_size:
        return equal_steps(settings.max_steps, settings.batch_size, batch_size)
    return settings.max_steps
