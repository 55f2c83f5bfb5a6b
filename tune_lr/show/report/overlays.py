"""Which trials' curves the report lays over each other, and how each of them looks."""

from collections.abc import Sequence
from dataclasses import dataclass

from tune_lr.records.looks import schedule_style, told_apart
from tune_lr.records.parameters import BATCH_SIZE
from tune_lr.records.row import TrialRow, best_of_each_schedule
from tune_lr.show.charts.curves import TrialCurve
from tune_lr.show.charts.model import sort_schedules
from tune_lr.show.report.study import ReportedStudy
from tune_lr.show.text import configuration_text

BEST = 3  # search trials that are overlaid


@dataclass(frozen=True)
class Overlay:
    """Trials whose LR, training loss and validation loss are shown in three charts side by side."""

    name: str  # what the names of its charts begin with
    title: str
    trials: Sequence[TrialCurve]


@dataclass(frozen=True)
class Overlays:
    """All curves that the report lays over each other."""

    schedules: Sequence[TrialCurve]  # the best trial of each LR schedule
    fixed: Sequence[Overlay]  # the fixed configurations, those of one LR schedule together
    best: Overlay | None  # the best of all search trials; None where there are not two to compare

    @property
    def labels(self) -> dict[str, str]:
        """What the best trial of each LR schedule is called, by the schedule's name."""
        return {trial.key: trial.label for trial in self.schedules}

    @property
    def groups(self) -> list[Overlay]:
        """The overlays that have three charts of their own."""
        return [*self.fixed, *([self.best] if self.best else [])]


def overlays_of(study: ReportedStudy) -> Overlays:
    """Return which curves of a study are laid over each other."""
    return Overlays(_best_of_each(study), _fixed_configurations(study), _best_configurations(study))


def _best_of_each(study: ReportedStudy) -> list[TrialCurve]:
    """Return of each LR schedule its best search trial, else the one that got furthest; those that have a curve."""
    best = {row.lr_schedule: row for row in best_of_each_schedule(study.ranked)}
    for row in sorted(study.searched, key=lambda row: -row.steps):
        if row.number in study.curves:
            best.setdefault(row.lr_schedule, row)
    rows = [best[name] for name in sort_schedules(best) if best[name].number in study.curves]
    return [
        TrialCurve(
            row,
            study.curves[row.number],
            label=configuration_text(row),
            key=row.lr_schedule,
            style=schedule_style(row.lr_schedule),
            batch_size=row.parameters.get(BATCH_SIZE),
        )
        for row in rows
    ]


def _fixed_configurations(study: ReportedStudy) -> list[Overlay]:
    fixed = [row for row in study.rows if row.phase == "search" and row.label and row.number in study.curves]
    return [
        Overlay(
            f"fixed_{name}",
            f"Fixed configurations: {name}",
            _distinct(study, [row for row in fixed if row.lr_schedule == name]),
        )
        for name in sort_schedules({row.lr_schedule for row in fixed})
    ]


def _best_configurations(study: ReportedStudy) -> Overlay | None:
    best = [row for row in study.ranked if row.number in study.curves][:BEST]
    if len(best) < 2:
        return None
    return Overlay("best_three", f"The best {len(best)} search trials", _distinct(study, best))


def _distinct(study: ReportedStudy, rows: Sequence[TrialRow]) -> list[TrialCurve]:
    """Return trials with looks that tell them apart, also where they share an LR schedule."""
    styles = told_apart([row.lr_schedule for row in rows])
    return [
        TrialCurve(
            row,
            study.curves[row.number],
            label=row.label or f"{configuration_text(row)} (trial {row.number})",
            key=str(row.number),
            style=style,
            batch_size=row.parameters.get(BATCH_SIZE),
        )
        for row, style in zip(rows, styles, strict=True)
    ]
