"""Proposes the next trial of a search: of many draws from the space the one that is expected to improve most.

Efficient global optimization: a Gaussian process is fitted to the trials so far and says what another one can be
expected to gain on the best of them (Jones, Schonlau and Welch, "Efficient global optimization of expensive black-box
functions", 1998; for hyperparameters Snoek, Larochelle and Adams, "Practical Bayesian optimization of machine learning
algorithms", 2012). What is known of LR schedules beforehand is in the process, so that it has nothing to estimate and
proposes well from the first trial on (docs/search.md):

- what counts is the LR relative to the one that is expected to be best for that schedule, on a log scale;
- far from it the loss is worse, whatever the schedule: the mean of the process is a parabola;
- schedules share a part of what is left, and each has a part of its own.

Figures are taken by their distance from the best, in units of what they differ by, and cut off: any metric will do, and
a trial that diverged counts as a bad one, not as 1e30.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from scipy.special import ndtr

from tune_lr.search_space import Suggests

Array = NDArray[np.float64]

CANDIDATES = 500
# Of a long study only so many of the best and of the latest trials are looked at: a proposal costs the same throughout.
BEST, LATEST = 50, 200
# What Optuna calls the LR. It enters as the distance from the expected one, not as a parameter like others.
LR_NAMES = ("lr", "lr_position")

# All in units in which a third of the trials come closer to the best than UNIT: about the logarithm of a loss. Chosen
# on the workloads of benchmarks/landscapes; most may be changed by half without a difference there.
UNIT, CLOSER = 0.15, 1 / 3
WORST = 0.5
CURVATURE = 1.0  # of the parabola: what a decade costs
SHARED, SHARED_DECADES = 0.3, 0.7  # how much all have in common beyond it, and how far along the LR that reaches
OFFSET = 0.2  # how much schedules differ, each at its best
OWN, OWN_DECADES = 0.2, 0.3  # how much else each has of its own
NOISE = 0.05
# Nothing is proposed twice: nearer than this, and as much alike, is the same.
SAME_DECADES, SAME = 0.05, 0.98
# How much of that two settings of anything else share: numbers by their distance, as a part of their range (as far
# apart as they can be, 0.6); the same for any two names, but nothing between LR schedules.
REACH, OTHER_NAME = 1.0, 0.5


# Draws a configuration. Returns its LR in decades from the one that is expected to be best for it, and how far that is
# to be trusted: 1 as the range test's suggestion, 0 not at all.
Place = Callable[[Suggests], tuple[float, float]]


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
    """A configuration as the process sees it: what `Place` returns, and every other parameter: a number as its place
    between its ends or among its choices, 0 to 1, a name as it is."""

    decades: float
    trust: float
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
        candidates = [self._point(draw, draw) for draw in draws]
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.number != number and trial.params]
        ended, figures = _figures(trials, -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for trial in ended:
            if trial.number not in self._points:
                self._points[trial.number] = self._point(FixedTrial(trial.params), trial)
        seen = [self._points[trial.number] for trial in ended]
        seen += [self._point(FixedTrial(trial.params), trial) for trial in running]
        return draws[int(np.argmax(expected_improvement(seen, figures, candidates)))]

    def _point(self, trial: Suggests, drawn: _Random | FrozenTrial) -> Point:
        """`drawn` holds what `trial` was asked for."""
        decades, trust = self._place(trial)
        others = {name: _fraction(value, drawn.distributions[name]) for name, value in drawn.params.items()}
        return Point(decades, trust, {name: fraction for name, fraction in others.items() if name not in LR_NAMES})


def expected_improvement(seen: Sequence[Point], figures: Array, candidates: Sequence[Point]) -> Array:
    """Of each candidate, shape (len(candidates),). `figures` are those of the first points seen, the best of them 0;
    the others are still being trained, and are taken for what they are expected to give."""
    parabola, expected = _parabola(seen), _parabola(candidates)
    if not seen:
        return -expected
    told = len(figures)
    rest = figures - parabola[:told]
    level = float(np.median(rest)) if told > 2 else UNIT
    among = _covariance(*_compared(seen, seen))
    noisy = among + NOISE**2 * np.eye(len(seen))
    distance, alike = _compared(candidates, seen)
    across = _covariance(distance, alike)
    # Not by Cholesky: where many parameters exist under one choice only, `alike` need not be positive definite.
    weights = np.linalg.solve(noisy[:told, :told], rest - level)
    mean = level + expected + across[:, :told] @ weights
    # Those without a figure yet take away from what is not known, and change nothing else.
    variance = SHARED**2 + OFFSET**2 + OWN**2 - np.einsum("ij,ji->i", across, np.linalg.solve(noisy, across.T))
    deviation = np.sqrt(np.maximum(variance, 1e-12))
    # The best by the process, not by a lucky figure.
    best = float(np.min(level + parabola + among[:, :told] @ weights))
    z = (best - mean) / deviation
    gain = deviation * (z * ndtr(z) + np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))
    new: Array = np.where(((np.abs(distance) < SAME_DECADES) & (alike > SAME)).any(axis=1), 0.0, gain)
    return new


def _parabola(points: Sequence[Point]) -> Array:
    return np.array([point.trust * CURVATURE * point.decades**2 for point in points])


def _covariance(distance: Array, alike: Array) -> Array:
    """Of what `_compared` returns, in its shape."""
    shared = SHARED**2 * np.exp(-((distance / SHARED_DECADES) ** 2) / 2)
    own = OFFSET**2 + OWN**2 * np.exp(-((distance / OWN_DECADES) ** 2) / 2)
    covariance: Array = shared + alike * own
    return covariance


def _compared(a: Sequence[Point], b: Sequence[Point]) -> tuple[Array, Array]:
    """Decades between the LRs, and how much alike the rest is, 0 to 1; both of shape (len(a), len(b))."""
    distance = np.subtract.outer([point.decades for point in a], [point.decades for point in b])
    alike = np.ones(distance.shape)
    for name in sorted({name for point in (*a, *b) for name in point.others}):
        alike *= _alike(name, [point.others.get(name) for point in a], [point.others.get(name) for point in b])
    return distance, alike


def _alike(name: str, a: Sequence[float | str | None], b: Sequence[float | str | None]) -> Array:
    """1 where two values are the same or one is missing: then another parameter tells them apart."""
    if any(isinstance(value, str) for value in (*a, *b)):
        x, y = (np.array([value or "" for value in values]) for values in (a, b))
        other = 0.0 if name == "lr_schedule" else OTHER_NAME
        return np.where((x[:, None] == y) | (x[:, None] == "") | (y == ""), 1.0, other)
    x, y = (np.array([np.nan if value is None else value for value in values]) for values in (a, b))
    alike: Array = np.nan_to_num(np.exp(-((np.subtract.outer(x, y) / REACH) ** 2) / 2), nan=1.0)
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
    gaps = np.sort(np.array(among) - min(among))[1:]
    unit = float(np.quantile(gaps, CLOSER, method="lower")) if len(gaps) else 0.0
    return np.minimum(UNIT * (np.array(values) - min(among)) / (unit or 1.0), WORST)
