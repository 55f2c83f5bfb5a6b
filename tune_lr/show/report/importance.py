"""How much of the differences between trials each parameter explains.

The figure is the correlation ratio of ranks, adjusted for chance (Kelley's epsilon squared, 1935): trials are put into
groups by the value of a parameter, and the share is how much less ranks vary within groups than over all. Ranks need no
rule for losses without bounds.

| symbol   | meaning                                              | shape      |
|----------|------------------------------------------------------|------------|
| `values` | the parameter's value in each trial                  | (n_trials) |
| `ranks`  | the trials' ranks, the best 0; equal trials share one | (n_trials) |
| `groups` | which group each trial belongs to                    | (n_trials) |
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tune_lr.records.parameters import BATCH_SIZE, OPTIMIZER, short_name
from tune_lr.records.phases import sign_of
from tune_lr.records.row import TrialRow
from tune_lr.show.charts.model import sort_schedules
from tune_lr.show.charts.trials import last_value

FEWEST_TRIALS = 8  # from which an importance can be told
_MOST_SINGLE_VALUES = 5  # a number that takes no more values is grouped by its value, else by quantiles
_ENDS = ("complete", "pruned", "diverged")  # the order in which trials rank, the best first


@dataclass(frozen=True)
class Importance:
    """The share, from 0 to 1, of the differences between trials that one parameter explains by itself."""

    parameter: str
    schedule: str  # the LR schedule whose trials were looked at; "": all
    trials: int
    share: float


class _Question(NamedTuple):
    parameter: str
    schedule: str
    rows: Sequence[TrialRow]
    values: Sequence[Any]  # one a row


def importances(rows: Sequence[TrialRow], metric: str, goal: str) -> list[Importance]:
    """Return the importances that can be told, strongest first: over all trials, then within each LR schedule.

    The LR schedule, the LR, the optimizer and the batch size are looked at over all trials; the LR and a schedule's own
    parameters within each schedule. Trials that completed are ranked by their metric, behind them the pruned ones and
    then the diverged ones, each by the steps they took.
    """
    sign = sign_of(goal)

    def quality(row: TrialRow) -> tuple[float, float, float]:
        steps = 0 if row.state == "complete" else -row.steps
        loss = 0.0 if row.state == "diverged" else sign * last_value(row, metric)
        return _ENDS.index(row.state), steps, loss

    judged = [
        row
        for row in rows
        if row.state in _ENDS and (row.state == "diverged" or math.isfinite(last_value(row, metric)))
    ]
    explained = []
    for question in _questions(judged):
        qualities = [quality(row) for row in question.rows]
        places = {value: place for place, value in enumerate(sorted(set(qualities)))}
        share = explained_share(question.values, [places[value] for value in qualities])
        if share is not None:
            explained.append(Importance(question.parameter, question.schedule, len(question.rows), share))
    return sorted(explained, key=lambda importance: (bool(importance.schedule), -importance.share))


def _questions(rows: Sequence[TrialRow]) -> Iterator[_Question]:
    yield _Question("lr_schedule", "", rows, [row.lr_schedule for row in rows])
    yield _Question("lr", "", rows, [math.log(row.lr) for row in rows])
    for name in (f"{OPTIMIZER}name", BATCH_SIZE):  # which belong to no LR schedule
        yield _about(name, "", rows)
    for schedule in sort_schedules({row.lr_schedule for row in rows}):
        trials = [row for row in rows if row.lr_schedule == schedule]
        yield _Question("lr", schedule, trials, [math.log(row.lr) for row in trials])
        for name in sorted({name for row in trials for name in row.parameters}):
            yield _about(name, schedule, trials)


def _about(parameter: str, schedule: str, rows: Sequence[TrialRow]) -> _Question:
    having = [row for row in rows if parameter in row.parameters]
    return _Question(short_name(parameter), schedule, having, [row.parameters[parameter] for row in having])


def explained_share(values: Sequence[Any], ranks: Sequence[float]) -> float | None:
    """Return epsilon squared of the ranks over the groups of values; None where there is too little to tell."""
    if len(values) < FEWEST_TRIALS or len(set(map(str, values))) < 2:
        return None
    groups = _groups(values)
    y = np.asarray(ranks, dtype=float)
    labels = np.unique(groups)
    total = float(((y - y.mean()) ** 2).sum()) / (len(y) - 1)
    if len(labels) < 2 or len(labels) >= len(y) or not total:
        return None
    within = sum(float(((y[groups == label] - y[groups == label].mean()) ** 2).sum()) for label in labels)
    return max(0.0, 1.0 - within / (len(y) - len(labels)) / total)


def _groups(values: Sequence[Any]) -> npt.NDArray[np.intp]:
    """Return the group of each value: by the value itself, or by quantiles where there are many numbers."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not numbers or len(set(values)) <= _MOST_SINGLE_VALUES:
        return np.unique([str(value) for value in values], return_inverse=True)[1]
    array = np.array(values, dtype=float)
    bins = min(6, len(array) // 4)
    edges = np.quantile(array, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, array, side="right")
