"""What the table of all trials shows, and in which order. Its columns are in templates/leaderboard.html."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tune_lr.records.phases import sign_of
from tune_lr.records.row import RAMP, TrialRow
from tune_lr.show.charts.model import sort_schedules
from tune_lr.show.charts.trials import last_value
from tune_lr.show.report.study import ReportedStudy

_ORDER = ("search", "confirm", "range_test")


@dataclass(frozen=True)
class Leaderboard:
    """All trials that have ended."""

    rows: Sequence[TrialRow]
    labels: bool  # whether some trial has a label
    metrics: Sequence[str]  # that some trial was validated by; the study's own first
    schedules: Sequence[str]
    winners: frozenset[int]  # the winner's search trial and its confirmations


def leaderboard_of(study: ReportedStudy) -> Leaderboard:
    """Return the trials by phase: the complete ones of search and confirmation best first, then the others."""
    answer = study.answer
    winner = answer.winner if answer and answer.finalists else None
    metrics = {name for row in study.rows for name in row.metrics}
    return Leaderboard(
        rows=sorted(study.rows, key=lambda row: _place(study, row)),
        labels=any(row.label for row in study.rows),
        metrics=sorted(metrics, key=lambda name: (name != study.settings.metric, name)),
        schedules=sort_schedules({row.lr_schedule for row in study.rows}),
        winners=frozenset((winner.trial, *winner.confirm_trials)) if winner else frozenset(),
    )


def _place(study: ReportedStudy, row: TrialRow) -> tuple[int, bool, float, int]:
    value = last_value(row, study.settings.metric)
    ranked = row.state == "complete" and row.phase != "range_test" and row.lr_schedule != RAMP and math.isfinite(value)
    return _ORDER.index(row.phase), not ranked, sign_of(study.settings.goal) * value if ranked else 0.0, row.number
