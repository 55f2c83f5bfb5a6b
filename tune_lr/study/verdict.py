"""Who has won, and how sure one can be. Pure: rows of trials in, a verdict out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev, variance
from types import MappingProxyType

import numpy as np
from scipy.stats import t as student_t

from tune_lr.errors import NoAnswerError
from tune_lr.records.answer import Difference, Finalist, Verdict
from tune_lr.records.interval import Interval
from tune_lr.records.phases import sign_of
from tune_lr.records.row import Configuration, TrialRow, best_of_each_schedule, configuration_of, rank_search

CONFIDENCE = 0.95


def choose_finalists(
    rows: Sequence[TrialRow],
    metric: str,
    goal: str,
    top: int,
    finalists: int,
    believed: Mapping[int, float] = MappingProxyType({}),
) -> list[TrialRow]:
    """The search trials to be confirmed, so many `finalists`: first one of each of the `top` LR schedules, by the order
    of their best figures, since the question is which schedule it is; then the best of all others.

    Which trial stands for its schedule, and which of the others come, is judged by what is `believed` of each, by
    number, where that is known, and else by its figure, which is of one seed.
    """
    sign = sign_of(goal)
    ranked = rank_search(rows, metric, goal)
    likely = sorted(ranked, key=lambda row: sign * believed.get(row.number, row.metrics[metric]))
    stands_for = {row.lr_schedule: row for row in best_of_each_schedule(likely)}
    chosen = [stands_for[row.lr_schedule] for row in best_of_each_schedule(ranked)][:top]
    return [*chosen, *(row for row in likely if row not in chosen)][:finalists]


def judge(rows: Sequence[TrialRow], metric: str, goal: str, seeds: int = 0, max_seeds: int = 0) -> Verdict:
    """The winner by its mean over the confirmation's seeds; by the search alone where there was no confirmation.

    A confirmation begins with `seeds` seeds of each finalist and may go on to `max_seeds` of its contenders; 0: all
    seeds there are, and no more. A finalist that diverged or failed under any seed loses to all that did not. Raises
    NoAnswerError where no trial was completed.
    """
    ranked = rank_search(rows, metric, goal)
    if not ranked:
        ends = ", ".join(sorted({row.state for row in rows if row.phase == "search"})) or "none was started"
        raise NoAnswerError(f"no trial of the search was completed ({ends}); lower the LRs, or see the trials' reasons")
    sign = sign_of(goal)
    confirmations: dict[Configuration, list[TrialRow]] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        if row.phase == "confirm":
            confirmations.setdefault(configuration_of(row), []).append(row)
    confirmed = [row for row in ranked if _whole(confirmations.get(configuration_of(row), []), metric)]
    finalists = [_finalist(row, confirmations[configuration_of(row)], metric) for row in confirmed]
    if not finalists:  # nothing was confirmed, or every confirmation has gone wrong
        untried = [row for row in ranked if configuration_of(row) not in confirmations]
        finalists = [_finalist(row, [row], metric) for row in (untried or ranked)[:1]]
    most = max(len(finalist.seeds) for finalist in finalists)
    first = min(seeds or most, most)
    finalists = [finalist for finalist in finalists if len(finalist.seeds) >= first]
    alpha = (1 - CONFIDENCE) / (2 if max_seeds > seeds else 1)  # of one look
    verdict = _compare([_with_seeds(finalist, first) for finalist in finalists], sign, alpha, max_seeds, metric)
    going_on = [finalist for finalist in finalists if finalist.trial in verdict.contenders]
    shared = min((len(finalist.seeds) for finalist in going_on), default=first)
    if shared <= first:
        return verdict
    told_apart = [finalist for finalist in verdict.finalists if finalist.trial not in verdict.contenders]
    going_on = [_with_seeds(finalist, shared) for finalist in going_on]
    return replace(_compare([*going_on, *told_apart], sign, alpha, 0, metric), contenders=verdict.contenders)


def mean_interval(values: Sequence[float]) -> Interval | None:
    """The 95 % interval of the mean, by Student's t with n - 1 degrees of freedom; None for fewer than two values."""
    if len(values) < 2:
        return None
    half = _half_width(stdev(values), len(values), len(values) - 1, 1 - CONFIDENCE)
    return Interval(fmean(values) - half, fmean(values) + half)


def _half_width(deviation: float, values: int, freedom: int, alpha: float) -> float:
    """Of the interval that misses the mean of so many values in `alpha` of all cases, by Student's t."""
    return float(student_t.ppf(1 - alpha / 2, freedom)) * deviation / math.sqrt(values)


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


def _with_seeds(finalist: Finalist, seeds: int) -> Finalist:
    """On its first `seeds` seeds alone."""
    values = finalist.values[:seeds]
    trials, mean, interval = finalist.confirm_trials[:seeds], fmean(values), mean_interval(values)
    return replace(
        finalist, confirm_trials=trials, seeds=finalist.seeds[:seeds], values=values, mean=mean, interval=interval
    )


def _compare(finalists: Sequence[Finalist], sign: float, alpha: float, max_seeds: int, metric: str) -> Verdict:
    """Of those with the most seeds the one with the best mean, against each of the others on the seeds of both."""
    ordered = sorted(finalists, key=lambda finalist: (-len(finalist.seeds), sign * finalist.mean))
    winner, others = ordered[0], ordered[1:]
    alpha /= max(1, math.comb(len(ordered), 2))
    differences, deviations = [], []
    for other in others:
        assert winner.seeds[: len(other.seeds)] == other.seeds, "not paired"
        pairs = [a - b for a, b in zip(winner.values, other.values, strict=False)]
        deviation, freedom = _noise(pairs, ordered)
        half = _half_width(deviation, len(pairs), freedom, alpha) if freedom else None
        mean = fmean(pairs)
        differences.append(Difference(mean, None if half is None else Interval(mean - half, mean + half)))
        deviations.append(deviation)
    tied = [i for i, difference in enumerate(differences) if not difference.distinguishable]
    # Would more seeds tell them? By the noise of the winner and those that go on with it; one seed says nothing of it.
    freedom = len(tied) * (max_seeds - 1)
    would_decide = any(
        max_seeds > len(others[i].seeds) > 1
        and abs(differences[i].mean) > _half_width(deviations[i], max_seeds, freedom, alpha)
        for i in tied
    )
    contenders = (winner.trial, *(others[i].trial for i in tied)) if would_decide else ()
    sentence = _sentence(ordered, differences, metric)
    return Verdict(tuple(ordered), tuple(differences), contenders, sentence)


def _noise(pairs: Sequence[float], finalists: Sequence[Finalist]) -> tuple[float, int]:
    """The standard deviation of a difference from seed to seed, of these pairs or of all that have so many seeds, the
    larger one; and its degrees of freedom, 0 with one seed."""
    seeds = len(pairs)
    values = np.array([finalist.values[:seeds] for finalist in finalists if len(finalist.values) >= seeds])
    freedom = (len(values) - 1) * (seeds - 1)
    if not freedom:
        return 0.0, 0
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    return math.sqrt(max(variance(pairs), 2 * float((rest**2).sum()) / freedom)), freedom


def _sentence(finalists: Sequence[Finalist], differences: Sequence[Difference], metric: str) -> str:
    winner, seeds = finalists[0], len(finalists[0].seeds)
    figure = f"{winner.label} reaches {metric} {winner.mean:.4g}"
    if not winner.confirm_trials:
        return f"{figure} with one seed; nothing was confirmed, so a lucky seed cannot be told from a good setting."
    if not differences:
        return f"{figure} (mean of {seeds} seeds); there was no other finalist to compare it with."
    others = list(zip(finalists[1:], differences, strict=True))
    tied = [f"{other.label} ({other.mean:.4g})" for other, difference in others if not difference.distinguishable]
    if seeds == 1:
        return f"{figure} with one fresh seed; one seed cannot tell it from {_listed(tied, 'or')}."
    if tied:
        alike = _listed(["it", *tied], "and")
        return f"{figure} (mean of {seeds} seeds); {alike} cannot be told apart at {seeds} seeds."
    second = f"{finalists[1].label} ({finalists[1].mean:.4g})"
    return f"{figure} (mean of {seeds} seeds), better than {second} beyond the noise of {seeds} seeds."


def _listed(words: Sequence[str], last: str) -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else words[0]
