"""What each LR schedule has come to, in a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tune_lr.records.answer import Finalist
from tune_lr.records.phases import STATES
from tune_lr.records.row import TrialRow, best_of_each_schedule
from tune_lr.show.charts.model import sort_schedules
from tune_lr.show.report.study import ReportedStudy


@dataclass(frozen=True)
class ScheduleLine:
    """What one LR schedule has come to."""

    schedule: str
    best: TrialRow | None  # its best complete search trial
    confirmed: Finalist | None  # the best of its confirmed finalists, which may be another trial
    trials: int
    states: Mapping[str, int]  # trials by state
    steps: int


def schedule_lines(study: ReportedStudy) -> list[ScheduleLine]:
    """Return a line for each LR schedule of the search, the best first, those without a complete trial last."""
    best = {row.lr_schedule: row for row in best_of_each_schedule(study.ranked)}
    places = {name: place for place, name in enumerate(best)}
    names = sort_schedules({row.lr_schedule for row in study.searched})
    confirmed: dict[str, Finalist] = {}
    for finalist in study.answer.finalists if study.answer else ():
        if finalist.confirm_trials:
            confirmed.setdefault(finalist.lr_schedule, finalist)
    return [
        _line(name, [row for row in study.searched if row.lr_schedule == name], best.get(name), confirmed.get(name))
        for name in sorted(names, key=lambda name: places.get(name, math.inf))
    ]


def _line(name: str, rows: Sequence[TrialRow], best: TrialRow | None, confirmed: Finalist | None) -> ScheduleLine:
    states = {state: sum(row.state == state for row in rows) for state in STATES}
    return ScheduleLine(name, best, confirmed, len(rows), states, sum(row.steps for row in rows))
