"""Proposes the next trial of a search: of many draws from the space the one that is expected to improve most.

Efficient global optimization: a process is fitted to the trials so far and says what another one can be expected to
gain on the best of them (Jones, Schonlau and Welch, "Efficient global optimization of expensive black-box functions",
1998; for hyperparameters Snoek, Larochelle and Adams, "Practical Bayesian optimization of machine learning
algorithms", 2012). What is known of LR schedules beforehand is in the process, so that it has little to estimate and
proposes well from the first trial on (docs/search.md):

- over the peak LR the loss is a valley, for all schedules the same around the LR that is expected to be best for each.
  Where its bottom lies and how steep its sides are is not known: some hundred valleys are weighed by how well they
  explain the trials so far, and what they say is averaged;
- how good a schedule is at its best is expected from the curve of its LR, whatever its name;
- what is left is a Gaussian process: schedules with similar curves are alike.

Figures are taken by their distance from the best, in units of what they differ by, and cut off: any metric will do, and
a trial that diverged counts as a bad one, not as 1e30.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from scipy.special import ndtr

from tune_lr.study.search_space import Suggests

Array = NDArray[np.float64]

CANDIDATES = 500
# Of a long study only so many of the best and of the latest trials are looked at: a proposal costs the same throughout.
BEST, LATEST = 50, 200
# What Optuna calls the LR and its schedule: they enter as a placement, not as parameters like others.
PLACED = ("lr", "lr_position", "lr_schedule")

# All in units in which a third of the trials come closer to the best than UNIT: about the logarithm of a loss. Chosen
# by replays on the workloads of benchmarks/landscapes.
UNIT, CLOSER = 0.12, 1 / 3
WORST = 0.5
# The valleys: where the bottom may be, in decades, as far as the uncertainty allows; what a decade below it costs, and
# how many times that above it.
FARTHEST, APART = 3.0, 0.1
STEEPNESS = (0.25, 0.5, 1.0, 2.0, 4.0)
ASYMMETRY = (1.0, 2.0, 4.0)
DEEPEST = 1.0  # no valley is deeper: what diverges is no worse
UNLIKELY = 1e-3  # what is so many times less likely than the likeliest is left out
LEVEL = 0.3  # of the best, against what is expected of its schedule; and how much any other parameter does
BENT, BENT_DECADES = 0.2, 0.5  # how far these bend the valley
CURVE = 0.075  # how far a schedule, at its best, is off what is expected of its curve
OWN, OWN_DECADES = 0.05, 0.3  # how far its losses are off the valley, and how far along the LR that reaches
# Of a figure: where the next trial is proposed, and where finalists are chosen, for whom one seed's luck matters most.
NOISE, SEED_NOISE = 0.04, 0.08
# Nothing is proposed twice: nearer than this, and as much alike, is the same.
SAME_DECADES, SAME = 0.05, 0.98
# How much of CURVE and OWN two configurations share: by the distance of their curves, in natural logarithms of
# LR / peak + FLOOR; of two LR schedules, for what a curve does not show (momentum); of one schedule, from one end of a
# parameter to the other, for the same. And how much of all they share by two names, or the two ends, of anything else.
FLOOR, REACH = 0.05, 1.2
OTHER_SCHEDULE, HIDDEN, OTHER = 0.2, 0.95, 0.6
# Every third proposal, and every one before the first figure, is of a schedule that none was of, while there is one: a
# study compares schedules.
UNTRIED = 3
# What is expected of a schedule at its best, from `features` of its curve: fitted to the landscapes by
# benchmarks/curve_quality.py; of none more than of the best of those.
BEST_CURVE = 0.05
QUALITY: tuple[float, ...] = (0.1508, -0.1940, 0.0001, 0.1372, 0.0300, 0.0813, 0.0289)


@dataclass(frozen=True)
class Placement:
    """Of a configuration: its LR schedule; its LR in decades from the one that is expected to be best for it; the
    standard deviation of that expectation, in decades; and its LR / peak LR over the training, at places spread evenly.
    """

    lr_schedule: str
    decades: float
    uncertainty: float
    curve: tuple[float, ...]


Place = Callable[[Suggests], Placement]  # draws a configuration


@dataclass
class _Random:
    """Draws at random, for no trial."""

    rng: random.Random
    params: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        return self._keep(name, self.rng.choice(choices), CategoricalDistribution(choices))

    def suggest_float(self, name: str, low: float, high: float, /, *, log: bool = False) -> float:
        value = low * (high / low) ** self.rng.random() if log else self.rng.uniform(low, high)
        return float(self._keep(name, min(max(value, low), high), FloatDistribution(low, high, log=log)))

    def suggest_int(self, name: str, low: int, high: int, /) -> int:
        return int(self._keep(name, self.rng.randint(low, high), IntDistribution(low, high)))

    def _keep(self, name: str, value: Any, distribution: BaseDistribution) -> Any:
        self.params[name], self.distributions[name] = value, distribution
        return value


@dataclass(frozen=True)
class Point:
    """A configuration as the process sees it: its placement, and every parameter but the LR and its schedule: a number
    as its place between its ends or among its choices, 0 to 1, a name as it is."""

    placed: Placement
    others: Mapping[str, float | str]


class LRSampler(BaseSampler):
    """See the module. The same seed and the same trials give the same proposal."""

    def __init__(self, place: Place, seed: int) -> None:
        self._place, self._seed = place, seed
        self._random = RandomSampler(seed=seed)
        self._points: dict[int, Point] = {}  # of the trials that have ended

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Proposes already: which parameters there are depends on it."""
        # One that was begun by a driver before this has been drawn.
        self._proposed = _Random(random.Random()) if trial.params else self._propose(study, trial.number)
        return self._proposed.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._proposed.params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Of a trial that was asked for by a driver that died before it drew."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _propose(self, study: Study, number: int) -> _Random:
        rng = random.Random(f"{self._seed} {number}")
        draws = [_Random(rng) for _ in range(CANDIDATES)]
        candidates = [point_of(self._place, draw, draw) for draw in draws]
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.number != number and trial.params]
        ended, figures = _figures(trials, -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for trial in ended:
            if trial.number not in self._points:
                self._points[trial.number] = point_of(self._place, FixedTrial(trial.params), trial)
        seen = [self._points[trial.number] for trial in ended]
        seen += [point_of(self._place, FixedTrial(trial.params), trial) for trial in running]
        gains = expected_improvement(seen, figures, candidates)
        if not len(figures) or len(seen) % UNTRIED == UNTRIED - 1:
            tried = {point.placed.lr_schedule for point in seen}
            untried = np.array([point.placed.lr_schedule not in tried for point in candidates])
            gains = np.where(untried, gains, -np.inf) if untried.any() else gains
        return draws[int(np.argmax(gains))]


def point_of(place: Place, trial: Suggests, drawn: _Random | FrozenTrial) -> Point:
    """`drawn` holds what `trial` is asked for."""
    placed = place(trial)
    others = {name: value for name, value in drawn.params.items() if name not in PLACED}
    return Point(placed, {name: _fraction(value, drawn.distributions[name]) for name, value in others.items()})


def expected_improvement(seen: Sequence[Point], figures: Array, candidates: Sequence[Point]) -> Array:
    """Of each candidate, shape (len(candidates),). `figures` are those of the first points seen, the best of them 0;
    the others are still being trained, and are taken for what they are expected to give."""
    valleys, weights = _valleys(max(point.placed.uncertainty for point in candidates))
    expected = _expected(candidates, valleys)
    if not seen:
        return -expected @ weights
    told, there = len(figures), _expected(seen, valleys)
    among = _covariance(*_compared(seen, seen))
    distance, alike, others = _compared(candidates, seen)
    noisy, across = among + NOISE**2 * np.eye(len(seen)), _covariance(distance, alike, others)
    explained, weights = _explained(noisy[:told, :told], figures[:, None] - there[:told], weights)
    likely = weights > UNLIKELY * weights.max()
    weights = weights[likely] / weights[likely].sum()
    expected, there, explained = expected[:, likely], there[:, likely], explained[:, likely]
    mean = expected + across[:, :told] @ explained
    # Those without a figure yet take away from what is not known, and change nothing else.
    before = _covariance(np.zeros(1), np.ones(1), None if others is None else np.ones(1))
    variance = before - np.einsum("ij,ji->i", across, np.linalg.solve(noisy, across.T))
    deviation = np.sqrt(np.maximum(variance, 1e-12))[:, None]
    # The best by the process, not by a lucky figure.
    best = (there + among[:, :told] @ explained).min(axis=0)
    z = (best - mean) / deviation
    gain = deviation * (z * ndtr(z) + np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)) @ weights
    same = (np.abs(distance) < SAME_DECADES) & (alike * (1.0 if others is None else others) > SAME)
    new: Array = np.where(same.any(axis=1), 0.0, gain)
    return new


def believed(study: Study, place: Place) -> dict[int, float]:
    """Of the trials that were completed, by number: the value that the process, fitted to them all, takes each for. One
    seed's luck moves it less than the value itself: what is near a trial has a say. Nothing is believed to be better
    than it was by more than SEED_NOISE. Of a long study only of the best and the latest."""
    sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
    trials = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    ended, figures = _figures([trial for trial in trials if trial.params], sign)
    if not ended:
        return {}
    values = [sign * (trial.value or 0.0) for trial in ended]
    points = [point_of(place, FixedTrial(trial.params), trial) for trial in ended]
    valleys, weights = _valleys(max(point.placed.uncertainty for point in points))
    there, among = _expected(points, valleys), _covariance(*_compared(points, points))
    explained, weights = _explained(among + SEED_NOISE**2 * np.eye(len(points)), figures[:, None] - there, weights)
    likely = np.maximum((there + among @ explained) @ weights, figures - SEED_NOISE)
    taken_for = min(values) + likely * _unit(values) / UNIT
    return {trial.number: sign * float(value) for trial, value in zip(ended, taken_for, strict=True)}


def _explained(noisy: Array, rest: Array, weights: Array) -> tuple[Array, Array]:
    """What the Gaussian process makes of what each valley leaves of the figures, shape (len(rest), len(weights)), and
    how likely each valley is after them."""
    # Not by Cholesky: where many parameters exist under one choice only, the covariance need not be positive definite.
    explained = np.linalg.solve(noisy, rest).astype(np.float64)
    likelihood = np.log(weights) - (rest * explained).sum(axis=0) / 2
    likely: Array = np.exp(likelihood - likelihood.max())
    return explained, likely / likely.sum()


def _valleys(uncertainty: float) -> tuple[Array, Array]:
    """All that are thought of: bottom in decades, steepness below and above it, shape (n, 3); and how likely each is
    before any trial, shape (n,)."""
    farthest = min(3 * uncertainty, FARTHEST)
    bottoms = np.arange(-farthest, farthest + APART / 2, APART)
    bottom, below, times = np.array(list(product(bottoms, STEEPNESS, ASYMMETRY))).T
    weights = np.exp(-((bottom / uncertainty) ** 2) / 2 - np.log(below) ** 2 / 2)
    return np.stack([bottom, below, below * times], axis=1), weights / weights.sum()


def _expected(points: Sequence[Point], valleys: Array) -> Array:
    """What each point gives in each valley, shape (len(points), len(valleys))."""
    away = np.array([point.placed.decades for point in points])[:, None] - valleys[:, 0]
    walls = np.where(away > 0, valleys[:, 2], valleys[:, 1]) * away**2
    whole = walls + quality(np.array([point.placed.curve for point in points]))[:, None]
    return np.minimum(whole, DEEPEST)


def quality(curves: Array) -> Array:
    """How much worse than the best a schedule is expected to be, at its best LR, by its curve: (n, places) to (n,)."""
    expected: Array = features(curves) @ np.array(QUALITY)
    return np.clip(expected, BEST_CURVE, WORST)


def features(curves: Array) -> Array:
    """Of LR / peak over a training, shape (n, places): 1, and the logarithms of its mean, of its last and of its first
    tenth, each with its square; shape (n, 7)."""
    tenth = max(1, curves.shape[1] // 10)
    parts = [curves.mean(axis=1), curves[:, -tenth:].mean(axis=1), curves[:, :tenth].mean(axis=1)]
    logs = [np.log(part + 0.02) for part in parts]
    return np.stack([np.ones(len(curves)), *(power for log in logs for power in (log, log**2))], axis=1)


def _covariance(distance: Array, alike: Array, others: Array | None) -> Array:
    """Of what `_compared` returns, in its shape."""
    covariance: Array = LEVEL**2 + alike * (CURVE**2 + OWN**2 * np.exp(-((distance / OWN_DECADES) ** 2) / 2))
    if others is not None:
        covariance = others * (covariance + BENT**2 * np.exp(-((distance / BENT_DECADES) ** 2) / 2))
    return covariance


def _compared(a: Sequence[Point], b: Sequence[Point]) -> tuple[Array, Array, Array | None]:
    """Decades between the LRs; how much alike the LR schedules are, 0 to 1; and all other parameters, None where there
    are none. All of shape (len(a), len(b))."""
    distance = np.subtract.outer([point.placed.decades for point in a], [point.placed.decades for point in b])
    schedules = [point.placed.lr_schedule for point in a], [point.placed.lr_schedule for point in b]
    same = _alike(*schedules, 0.0)
    others = None
    for name in sorted({name for point in (*a, *b) for name in point.others}):
        values = [point.others.get(name) for point in a], [point.others.get(name) for point in b]
        if name.partition(".")[0] in {*schedules[0], *schedules[1]}:
            same *= _alike(*values, HIDDEN)
        else:
            others = (1.0 if others is None else others) * _alike(*values, OTHER)
    return distance, _curves_alike(a, b) * (OTHER_SCHEDULE + (1 - OTHER_SCHEDULE) * same), others


def _curves_alike(a: Sequence[Point], b: Sequence[Point]) -> Array:
    """By the mean square, over the training, of how far the logarithms are apart."""
    x, y = (np.log(np.array([point.placed.curve for point in points]) + FLOOR) for points in (a, b))
    squares = (x**2).mean(axis=1)[:, None] + (y**2).mean(axis=1) - 2 * x @ y.T / x.shape[1]
    alike: Array = np.exp(-np.maximum(squares, 0.0) / REACH**2 / 2)
    return alike


def _alike(a: Sequence[float | str | None], b: Sequence[float | str | None], least: float) -> Array:
    """1 where two values are the same or one is missing: then another parameter tells them apart; `least` between two
    names, and between the ends of a range."""
    if any(isinstance(value, str) for value in (*a, *b)):
        x, y = (np.array([value or "" for value in values]) for values in (a, b))
        return np.where((x[:, None] == y) | (x[:, None] == "") | (y == ""), 1.0, least)
    x, y = (np.array([np.nan if value is None else value for value in values]) for values in (a, b))
    alike: Array = np.nan_to_num(least ** (np.subtract.outer(x, y) ** 2), nan=1.0)
    return alike


def _fraction(value: Any, distribution: BaseDistribution) -> float | str:
    if isinstance(distribution, CategoricalDistribution):
        order = _order(distribution.choices)
        return order[value] if order else str(value)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, value, high = (np.log(x) if distribution.log else x for x in (distribution.low, value, distribution.high))
    return float((value - low) / (high - low)) if high > low else 0.0


@lru_cache
def _order(choices: tuple[Any, ...]) -> dict[Any, float]:
    """Of choices that are all numbers: the place of each among them, 0 to 1. Else none."""
    if not all(isinstance(choice, int | float) for choice in choices):
        return {}
    return {choice: place / max(len(choices) - 1, 1) for place, choice in enumerate(sorted(choices))}


def _figures(trials: Sequence[FrozenTrial], sign: float) -> tuple[list[FrozenTrial], Array]:
    """The trials that tell something, and how much worse than the best each is, in the units above."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    values = [sign * (trial.value or 0.0) for trial in complete]
    if len(complete) > BEST + LATEST:
        best = sorted(range(len(complete) - LATEST), key=values.__getitem__)[:BEST]
        kept = [*best, *range(len(complete) - LATEST, len(complete))]
        complete, values = [complete[i] for i in kept], [values[i] for i in kept]
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED and trial.intermediate_values][-LATEST:]
    figures = list(_in_units(values, values))
    for trial in pruned:
        # Compared where it was stopped, and none of the better ones.
        step = max(trial.intermediate_values)
        there = [one.intermediate_values[step] for one in (*complete, *pruned) if step in one.intermediate_values]
        value = sign * trial.intermediate_values[step]
        figures.append(max(UNIT, *_in_units([value], [sign * other for other in there])))
    return [*complete, *pruned], np.array(figures)


def _in_units(values: Sequence[float], among: Sequence[float]) -> Array:
    if not values:
        return np.empty(0)
    return np.minimum(UNIT * (np.array(values) - min(among)) / _unit(among), WORST)


def _unit(among: Sequence[float]) -> float:
    """The distance from the best that a third of the others do not exceed."""
    gaps = np.sort(np.array(among) - min(among))[1:]
    return (float(np.quantile(gaps, CLOSER, method="lower")) if len(gaps) else 0.0) or 1.0
