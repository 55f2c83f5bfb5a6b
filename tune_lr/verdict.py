"""Who has won, and how sure one can be. Pure: rows of trials in, a verdict out."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t as student_t

from tune_lr.errors import NoAnswerError
from tune_lr.study_dir import TrialRow
from tune_lr.trial import setting

CONFIDENCE = 0.95

Interval = tuple[float, float]


@dataclass(frozen=True)
class Finalist:
    """A configuration and its figures over seeds, in the order of the seeds. `trial` is its number in the search."""

    lr_schedule: str
    lr: float
    parameters: Mapping[str, Any]  # qualified
    trial: int
    confirm_trials: tuple[int, ...]
    seeds: tuple[int, ...]
    values: tuple[float, ...]  # of the metric
    mean: float
    interval: Interval | None  # 95 %, Student's t; None with one seed

    @property
    def label(self) -> str:
        beside = setting(self.parameters)
        return f"{self.lr_schedule} at lr {self.lr:.3g}{' with ' if beside else ''}{beside}"


@dataclass(frozen=True)
class Verdict:
    """Finalists, best first. `difference` is winner minus runner-up, paired by seed."""

    finalists: tuple[Finalist, ...]
    difference: float | None
    difference_interval: Interval | None
    sentence: str

    @property
    def winner(self) -> Finalist:
        return self.finalists[0]

    @property
    def distinguishable(self) -> bool:
        """Whether the interval of the paired difference leaves zero out."""
        interval = self.difference_interval
        return interval is not None and not interval[0] <= 0.0 <= interval[1]


def rank_search(rows: Sequence[TrialRow], metric: str, goal: str) -> list[TrialRow]:
    """The search trials that trained to the end, each configuration once, best first. A ramp is no answer."""
    sign = -1.0 if goal == "maximize" else 1.0
    ended = [row for row in rows if row.phase == "search" and row.lr_schedule != "ramp"]
    done = [row for row in ended if row.state == "complete" and metric in row.metrics]
    ranked = sorted(done, key=lambda row: (sign * row.metrics[metric], row.number))
    unique: dict[tuple[Any, ...], TrialRow] = {}
    for row in ranked:
        unique.setdefault(_configuration(row), row)
    return list(unique.values())


def judge(rows: Sequence[TrialRow], metric: str, goal: str) -> Verdict:
    """The winner by its mean over the confirmation's seeds; by the search alone where there was no confirmation.

    A finalist that diverged or failed under any seed loses to all that did not. Raises NoAnswerError where no trial
    was completed.
    """
    ranked = rank_search(rows, metric, goal)
    if not ranked:
        ends = ", ".join(sorted({row.state for row in rows if row.phase == "search"})) or "none was started"
        raise NoAnswerError(f"no trial of the search was completed ({ends}); lower the LRs, or see the trials' reasons")
    sign = -1.0 if goal == "maximize" else 1.0
    confirmations: dict[tuple[Any, ...], list[TrialRow]] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        if row.phase == "confirm":
            confirmations.setdefault(_configuration(row), []).append(row)
    confirmed = [row for row in ranked if _whole(confirmations.get(_configuration(row), []), metric)]
    finalists = [_finalist(row, confirmations[_configuration(row)], metric) for row in confirmed]
    if not finalists:  # nothing was confirmed, or every confirmation has gone wrong
        untried = [row for row in ranked if _configuration(row) not in confirmations]
        finalists = [_finalist(row, [row], metric) for row in (untried or ranked)[:1]]
    most_seeds = max(len(finalist.seeds) for finalist in finalists)
    finalists = [finalist for finalist in finalists if len(finalist.seeds) == most_seeds]
    finalists.sort(key=lambda finalist: sign * finalist.mean)
    difference, interval = _difference(finalists)
    return Verdict(tuple(finalists), difference, interval, _sentence(finalists, difference, interval, metric))


def mean_interval(values: Sequence[float]) -> Interval | None:
    """The 95 % interval of the mean, by Student's t with n - 1 degrees of freedom; None for fewer than two values."""
    if len(values) < 2:
        return None
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def _configuration(row: TrialRow) -> tuple[Any, ...]:
    # As text: a parameter may be a list.
    return row.lr_schedule, row.lr, json.dumps(row.parameters, sort_keys=True)


def _whole(confirmations: Sequence[TrialRow], metric: str) -> bool:
    return bool(confirmations) and all(row.state == "complete" and metric in row.metrics for row in confirmations)


def _finalist(row: TrialRow, runs: Sequence[TrialRow], metric: str) -> Finalist:
    values = tuple(run.metrics[metric] for run in runs)
    return Finalist(
        lr_schedule=row.lr_schedule,
        lr=row.lr,
        parameters=dict(row.parameters),
        trial=row.number,
        confirm_trials=tuple(run.number for run in runs if run.phase == "confirm"),
        seeds=tuple(run.seed for run in runs),
        values=values,
        mean=fmean(values),
        interval=mean_interval(values),
    )


def _difference(finalists: Sequence[Finalist]) -> tuple[float | None, Interval | None]:
    if len(finalists) < 2 or finalists[0].seeds != finalists[1].seeds:
        return None, None
    pairs = [a - b for a, b in zip(finalists[0].values, finalists[1].values, strict=True)]
    return fmean(pairs), mean_interval(pairs)


def _sentence(finalists: Sequence[Finalist], difference: float | None, interval: Interval | None, metric: str) -> str:
    winner, seeds = finalists[0], len(finalists[0].seeds)
    figure = f"{winner.label} reaches {metric} {winner.mean:.4g}"
    if not winner.confirm_trials:
        return f"{figure} with one seed; nothing was confirmed, so a lucky seed cannot be told from a good setting."
    if difference is None:
        return f"{figure} (mean of {seeds} seeds); there was no other finalist to compare it with."
    second = f"{finalists[1].label} ({finalists[1].mean:.4g})"
    if interval is None:
        return f"{figure} with one fresh seed; one seed cannot tell it from {second}."
    if interval[0] <= 0.0 <= interval[1]:
        return f"{figure} (mean of {seeds} seeds); it and {second} cannot be told apart at {seeds} seeds."
    return f"{figure} (mean of {seeds} seeds), better than {second} beyond the noise of {seeds} seeds."
