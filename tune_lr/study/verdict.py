"""Who has won, and how sure one can be. Pure: rows of trials in, a verdict out.

Finalists are compared in pairs, since all have the same seeds: what counts is the difference of the winner and another
finalist, seed by seed. Its interval is Student's t (docs/verdict.md says why, and what is corrected for).

| symbol               | meaning                                                                            | unit   |
|----------------------|------------------------------------------------------------------------------------|--------|
| `seeds`              | seeds of the confirmation that every finalist gets at first                        |        |
| `max_seeds`          | seeds that the contenders may get at most                                          |        |
| `sign`               | factor that turns a figure of the metric into a loss                               |        |
| `alpha`              | probability with which an interval may miss the true mean                          |        |
| `standard_deviation` | standard deviation, from seed to seed, of a finalist's figures or of a difference  | metric |
| `degrees_of_freedom` | of the standard deviation's estimate                                               |        |
| `half_width`         | half the width of an interval of the mean                                          | metric |
"""

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
    posterior_values: Mapping[int, float] = MappingProxyType({}),
) -> list[TrialRow]:
    """Return the search trials to be confirmed, so many `finalists`.

    First comes one trial of each of the `top` LR schedules, by the order of their best figures, since the question is
    which schedule it is; then come the best of all others. Which trial stands for its schedule, and which others come,
    is judged by the metric that is expected of each, by its number (`sampler.posterior_values`), where that is known,
    and else by its figure, which is of one seed.
    """
    sign = sign_of(goal)
    ranked = rank_search(rows, metric, goal)
    expected = sorted(ranked, key=lambda row: sign * posterior_values.get(row.number, row.metrics[metric]))
    representatives = {row.lr_schedule: row for row in best_of_each_schedule(expected)}
    chosen = [representatives[row.lr_schedule] for row in best_of_each_schedule(ranked)][:top]
    return [*chosen, *(row for row in expected if row not in chosen)][:finalists]


def judge(rows: Sequence[TrialRow], metric: str, goal: str, seeds: int = 0, max_seeds: int = 0) -> Verdict:
    """Return the winner by its mean over the confirmation's seeds; by the search alone where nothing was confirmed.

    A confirmation begins with `seeds` seeds of each finalist and may go on to `max_seeds` of its contenders; 0 stands
    for all seeds there are, and for no more. A finalist that diverged or failed under any seed loses to all that did
    not. Raises NoAnswerError where no trial was completed.
    """
    sign = sign_of(goal)
    finalists = _finalists_in(rows, metric, goal)
    most = max(len(finalist.seeds) for finalist in finalists)
    first = min(seeds or most, most)
    finalists = [finalist for finalist in finalists if len(finalist.seeds) >= first]
    looks = 2 if max_seeds > seeds else 1  # each look at the figures may err
    alpha = (1 - CONFIDENCE) / looks
    verdict = _compare([_with_seeds(finalist, first) for finalist in finalists], sign, alpha, max_seeds, metric)
    contenders = [finalist for finalist in finalists if finalist.trial in verdict.contenders]
    shared = min((len(finalist.seeds) for finalist in contenders), default=first)
    if shared <= first:
        return verdict
    told_apart = [finalist for finalist in verdict.finalists if finalist.trial not in verdict.contenders]
    contenders = [_with_seeds(finalist, shared) for finalist in contenders]
    return replace(_compare([*contenders, *told_apart], sign, alpha, 0, metric), contenders=verdict.contenders)


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Return the 95 % interval of the mean, by Student's t with n - 1 degrees of freedom; None for fewer than two."""
    if len(values) < 2:
        return None
    half_width = _half_width(stdev(values), len(values), len(values) - 1, 1 - CONFIDENCE)
    return Interval(fmean(values) - half_width, fmean(values) + half_width)


def _half_width(standard_deviation: float, values: int, degrees_of_freedom: int, alpha: float) -> float:
    """Return half the width of the interval that misses the mean of so many values with the probability `alpha`."""
    quantile = float(student_t.ppf(1 - alpha / 2, degrees_of_freedom))
    return quantile * standard_deviation / math.sqrt(values)


def _finalists_in(rows: Sequence[TrialRow], metric: str, goal: str) -> list[Finalist]:
    """Return the finalists that were confirmed, in the order of the search; without any, the best of the search."""
    ranked = rank_search(rows, metric, goal)
    if not ranked:
        raise NoAnswerError(f"no trial of the search was completed {_ends(rows)}")
    confirmations: dict[Configuration, list[TrialRow]] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        if row.phase == "confirm" and row.state != "pruned":  # one that somebody stopped says nothing of its finalist
            confirmations.setdefault(configuration_of(row), []).append(row)
    confirmed = [row for row in ranked if _all_complete(confirmations.get(configuration_of(row), []), metric)]
    if confirmed:
        return [_finalist(row, confirmations[configuration_of(row)], metric) for row in confirmed]
    # Nothing was confirmed, or every confirmation has gone wrong.
    untried = [row for row in ranked if configuration_of(row) not in confirmations]
    return [_finalist(row, [row], metric) for row in (untried or ranked)[:1]]


def _ends(rows: Sequence[TrialRow]) -> str:
    """Return how the trials of a search have ended of which none was completed, and what to do about it."""
    searched = [row for row in rows if row.phase == "search"]
    states = sorted({row.state for row in searched})
    advice = []
    if "diverged" in states:
        advice.append("lower the LRs")
    reasons = [row.reason for row in searched if row.state == "failed"]
    if reasons:
        advice.append(f"trial {next(row.number for row in searched if row.state == 'failed')} failed: {reasons[0]}")
    if not advice:
        advice.append("see the trials' reasons")
    return f"({', '.join(states) or 'none was started'}); {'; '.join(advice)}"


def _all_complete(confirmations: Sequence[TrialRow], metric: str) -> bool:
    return bool(confirmations) and all(row.state == "complete" and metric in row.metrics for row in confirmations)


def _finalist(row: TrialRow, runs: Sequence[TrialRow], metric: str) -> Finalist:
    """Return the finalist of a search trial, whose figures are those of `runs`."""
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
    """Return a finalist with the figures of its first `seeds` seeds alone."""
    values = finalist.values[:seeds]
    return replace(
        finalist,
        confirm_trials=finalist.confirm_trials[:seeds],
        seeds=finalist.seeds[:seeds],
        values=values,
        mean=fmean(values),
        interval=mean_interval(values),
    )


def _compare(finalists: Sequence[Finalist], sign: float, alpha: float, max_seeds: int, metric: str) -> Verdict:
    """Compare the winner, which has the best mean of those with the most seeds, with each of the others.

    Each difference is taken over the seeds that both have. `alpha` is shared by all pairs (Bonferroni).
    """
    ordered = sorted(finalists, key=lambda finalist: (-len(finalist.seeds), sign * finalist.mean))
    winner, others = ordered[0], ordered[1:]
    alpha /= max(1, math.comb(len(ordered), 2))
    differences = []
    deviations = []
    for other in others:
        values_of_other = dict(zip(other.seeds, other.values, strict=True))
        values_of_winner = dict(zip(winner.seeds, winner.values, strict=True))
        shared = [seed for seed in winner.seeds if seed in values_of_other]
        pairs = [values_of_winner[seed] - values_of_other[seed] for seed in shared]
        standard_deviation, degrees_of_freedom = _noise(pairs, shared, ordered)
        # Confirmations end out of order where several run at once: two finalists may share no seed yet.
        mean = fmean(pairs) if pairs else winner.mean - other.mean
        interval = None
        if degrees_of_freedom:
            half_width = _half_width(standard_deviation, len(pairs), degrees_of_freedom, alpha)
            interval = Interval(mean - half_width, mean + half_width)
        differences.append(Difference(mean, interval))
        deviations.append(standard_deviation)
    tied = [i for i, difference in enumerate(differences) if not difference.distinguishable]
    # Would more seeds tell them? By the noise of the winner and those that go on with it; one seed says nothing of it.
    degrees_of_freedom = len(tied) * (max_seeds - 1)
    would_decide = any(
        max_seeds > len(others[i].seeds) > 1
        and abs(differences[i].mean) > _half_width(deviations[i], max_seeds, degrees_of_freedom, alpha)
        for i in tied
    )
    contenders = (winner.trial, *(others[i].trial for i in tied)) if would_decide else ()
    sentence = _sentence(ordered, differences, metric)
    return Verdict(tuple(ordered), tuple(differences), contenders, sentence)


def _noise(pairs: Sequence[float], seeds: Sequence[int], finalists: Sequence[Finalist]) -> tuple[float, int]:
    """Return the standard deviation of a difference from seed to seed, and its degrees of freedom, 0 with one seed.

    `pairs` are the differences under `seeds`. The deviation is the larger one of that of these pairs and that of all
    finalists with these seeds, pooled: the residuals of a two-way layout of finalists and seeds, whose variance counts
    twice in a difference.
    """
    if len(seeds) < 2:
        return 0.0, 0
    by_seed = [dict(zip(finalist.seeds, finalist.values, strict=True)) for finalist in finalists]
    values = np.array([[known[seed] for seed in seeds] for known in by_seed if known.keys() >= set(seeds)])
    degrees_of_freedom = (len(values) - 1) * (len(seeds) - 1)
    residuals = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    pooled = 2 * float((residuals**2).sum()) / degrees_of_freedom
    return math.sqrt(max(variance(pairs), pooled)), degrees_of_freedom


def _sentence(finalists: Sequence[Finalist], differences: Sequence[Difference], metric: str) -> str:
    """Return the verdict in one sentence."""
    winner = finalists[0]
    seeds = len(winner.seeds)
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
    """Return the words as a list in a sentence, with `last` before the last one: "a, b and c"."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else words[0]
