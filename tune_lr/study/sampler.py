"""Proposes the next trial of a search: of many draws from the space the one with the highest expected improvement.

This is efficient global optimization (Jones, Schonlau and Welch, "Efficient global optimization of expensive black-box
functions", 1998; for hyperparameters Snoek, Larochelle and Adams, "Practical Bayesian optimization of machine learning
algorithms", 2012): a Gaussian process is fitted to the trials so far and says how much another trial can be expected to
improve on the best of them. What is known of LR schedules beforehand is in the prior of the process, so that little is
left to estimate and the first proposals are good already (docs/search.md):

- Over the peak LR the loss is a valley, the same for all schedules around the LR that is expected to be best for each.
  Where its bottom lies and how steep its walls are is not known: some hundred valleys are weighed by how well they
  explain the trials so far, and what follows from each is averaged.
- How good a schedule is at its best LR is expected from the curve of its LR, whatever its name.
- What is left is a zero-mean Gaussian process, in which schedules with similar curves have similar losses.

| symbol             | meaning                                                            | unit       | shape  |
|--------------------|--------------------------------------------------------------------|------------|--------|
| `n`                | trials: first the observed ones, then those that are still trained |            |        |
| `o`                | trials that were observed, `o <= n`                                |            |        |
| `m`                | candidates                                                         |            |        |
| `v`                | valleys                                                            |            |        |
| `decades`          | log10 of an LR over the LR that is expected to be best for it      | decades    |        |
| `observed`         | scaled losses: how much worse than the best each trial is          | scaled     | (o,)   |
| `valleys`          | the bottom of each, its curvature below it, and above it           | decades    | (v, 3) |
| `weights`          | probability of each valley                                         |            | (v,)   |
| `prior_mean`       | loss that the valley and the schedule's curve lead to expect       | scaled     | (n, v) |
| `covariance`       | covariance of the process between trials, without noise            | scaled^2   | (n, n) |
| `cross_covariance` | the same between candidates and trials                             | scaled^2   | (m, n) |
| `solution`         | (covariance + noise)^-1 (observed - prior_mean)                    | 1 / scaled | (o, v) |
| `mean`             | posterior mean of the candidates                                   | scaled     | (m, v) |
| `deviation`        | posterior standard deviation of the candidates                     | scaled     | (m, 1) |
| `incumbent`        | the lowest posterior mean among all trials                         | scaled     | (v,)   |

A scaled loss is the distance of a figure from the best one, in units of what the figures differ by, and cut off (see
`_scaled`). So any metric will do, and a trial that diverged counts as a bad one, not as 1e30.
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
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from scipy.special import ndtr

from tune_lr.records.phases import sign_of
from tune_lr.study.open_trial import PENALTY
from tune_lr.study.search_space import Suggests

Array = NDArray[np.float64]

CANDIDATES = 500  # draws of which one is proposed
# Of a long study only so many of the best and of the latest trials are observed: a proposal costs the same throughout.
MOST_BEST = 50
MOST_LATEST = 200
# The parameters that enter as a placement; all others enter by their values.
PLACED = ("lr", "lr_position", "lr_schedule")

# Scaled losses: UNIT is the distance from the best that a share of UNIT_QUANTILE of the trials does not exceed, which
# is about the logarithm of a loss; no scaled loss is higher than WORST. This and what follows was chosen by replays on
# the workloads of benchmarks/landscapes.
UNIT = 0.12
UNIT_QUANTILE = 1 / 3
WORST = 0.5

# The valleys. Their bottoms lie SPACING decades apart, at most FARTHEST from the expected LR. CURVATURE is how far a
# valley rises in the first decade below its bottom, and ASYMMETRY how many times as far above it. No wall is higher
# than HIGHEST: what diverges is no worse.
FARTHEST = 3.0
SPACING = 0.1
CURVATURE = (0.25, 0.5, 1.0, 2.0, 4.0)
ASYMMETRY = (1.0, 2.0, 4.0)
HIGHEST = 1.0
NEGLIGIBLE = 1e-3  # a valley that is so many times less probable than the most probable one is left out

# Standard deviations of the parts of the Gaussian process, and their length scales in decades of the LR.
LEVEL = 0.3  # one level for all configurations with the same other parameters
BEND = 0.2  # how far other parameters bend the valley
BEND_SCALE = 0.5
CURVE = 0.075  # how far a schedule at its best LR is off what its curve leads to expect
RESIDUAL = 0.05  # how far a schedule's losses are off the valley
RESIDUAL_SCALE = 0.3
# Standard deviation of the noise of a figure: where the next trial is proposed, and where finalists are chosen, for
# whom the luck of one seed matters most.
NOISE = 0.04
SEED_NOISE = 0.08

# The correlation of CURVE and RESIDUAL between two configurations falls with the distance of their curves, which is
# taken between the natural logarithms of LR / peak LR + CURVE_FLOOR, over a length of CURVE_SCALE. For what a curve
# does not show (momentum) it is multiplied by OTHER_SCHEDULE between two LR schedules, and by HIDDEN from one end of a
# parameter of a schedule to its other end.
CURVE_FLOOR = 0.05
CURVE_SCALE = 1.2
OTHER_SCHEDULE = 0.2
HIDDEN = 0.95
OTHER = 0.6  # the correlation of everything between two names, or the two ends, of any other parameter

# Nothing is proposed twice: what is nearer to a trial than this, and has a higher correlation, is the same.
SAME_DECADES = 0.05
SAME_CORRELATION = 0.98
# Every third proposal, and every one before the first figure, is of a schedule that no trial had, while there is one:
# a study compares schedules.
UNTRIED_EVERY = 3

# The scaled loss of a schedule at its best LR is expected to be the product of these coefficients with the `features`
# of its curve, and no lower than BEST_QUALITY. Fitted to the landscapes by benchmarks/curve_quality.py.
QUALITY: tuple[float, ...] = (0.1508, -0.1940, 0.0001, 0.1372, 0.0300, 0.0813, 0.0289)
BEST_QUALITY = 0.05
FEATURE_FLOOR = 0.02  # is added to a mean before its logarithm is taken


@dataclass(frozen=True)
class Placement:
    """Where a configuration stands by its LR and its LR schedule."""

    lr_schedule: str
    decades: float  # of its LR from the LR that is expected to be best for it
    uncertainty: float  # the standard deviation of that expectation, in decades
    curve: tuple[float, ...]  # LR / peak LR over the training, at places spread evenly


Place = Callable[[Suggests], Placement]  # draws a configuration and returns its placement


@dataclass(frozen=True)
class Point:
    """A configuration as the Gaussian process sees it."""

    placement: Placement
    # Every parameter that is not PLACED: a number as its position between its ends or among its choices, from 0 to 1; a
    # name as it is.
    parameters: Mapping[str, float | str]


@dataclass
class _RandomDraw:
    """Suggests values at random, for no trial, and remembers them."""

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
        self.params[name] = value
        self.distributions[name] = distribution
        return value


class LRSampler(BaseSampler):
    """Optuna's sampler of the search; the module says how it proposes.

    `place` draws a configuration and says where it stands. The same seed and the same trials give the same proposal.
    """

    def __init__(self, place: Place, seed: int) -> None:
        self._place = place
        self._seed = seed
        self._random = RandomSampler(seed=seed)
        self._points: dict[int, Point] = {}  # of the trials that have ended, by number
        self._proposal = _RandomDraw(random.Random())  # for the trial that Optuna samples now

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Propose a trial, and return the distributions of its parameters: which ones there are depends on it."""
        # A trial that a driver before this one has begun was drawn then.
        self._proposal = _RandomDraw(random.Random()) if trial.params else self._propose(study, trial.number)
        return self._proposal.distributions

    def sample_relative(
        self,
        study: Study,  # noqa: ARG002  Optuna passes it by its name
        trial: FrozenTrial,  # noqa: ARG002  likewise
        search_space: dict[str, BaseDistribution],  # noqa: ARG002  likewise
    ) -> dict[str, Any]:
        """Return the proposal that `infer_relative_search_space` has made."""
        return self._proposal.params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a random value: the driver that asked for the trial died before it drew."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _propose(self, study: Study, number: int) -> _RandomDraw:
        rng = random.Random(f"{self._seed} {number}")
        draws = [_RandomDraw(rng) for _ in range(CANDIDATES)]
        candidates = [point_of(self._place, draw, draw) for draw in draws]
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.number != number and trial.params]
        ended, observed = _observations(trials, _sign(study))
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for trial in ended:
            if trial.number not in self._points:
                self._points[trial.number] = point_of(self._place, FixedTrial(trial.params), trial)
        points = [self._points[trial.number] for trial in ended]
        points += [point_of(self._place, FixedTrial(trial.params), trial) for trial in running]
        gains = expected_improvement(points, observed, candidates)
        if not len(observed) or len(points) % UNTRIED_EVERY == UNTRIED_EVERY - 1:
            tried = {point.placement.lr_schedule for point in points}
            untried = np.array([point.placement.lr_schedule not in tried for point in candidates])
            gains = np.where(untried, gains, -np.inf) if untried.any() else gains
        return draws[int(np.argmax(gains))]


def point_of(place: Place, trial: Suggests, drawn: _RandomDraw | FrozenTrial) -> Point:
    """Return the configuration that `place` draws from `trial`; `drawn` holds what `trial` suggests."""
    placement = place(trial)
    parameters = {
        name: _position(value, drawn.distributions[name]) for name, value in drawn.params.items() if name not in PLACED
    }
    return Point(placement, parameters)


# --- the Gaussian process -----------------------------------------------------------------------------------


def expected_improvement(points: Sequence[Point], observed: Array, candidates: Sequence[Point]) -> Array:
    """Return the expected improvement of each candidate, shape (m,).

    `observed` are the scaled losses of the first of the `points`, the best of them 0. The other points are still being
    trained: they take away from what is not known around them, and change nothing else. Before the first trial there is
    no incumbent, and the negative prior mean is returned instead. A candidate that is the same as one of the points
    improves nothing.
    """
    valleys, weights = _valleys(max(point.placement.uncertainty for point in candidates))
    candidate_prior_mean = _prior_mean(candidates, valleys)
    if not points:
        return -candidate_prior_mean @ weights
    count = len(observed)
    prior_mean = _prior_mean(points, valleys)
    covariance = _covariance(*_compare(points, points))
    distance, similarity, others = _compare(candidates, points)
    noisy = covariance + NOISE**2 * np.eye(len(points))
    cross_covariance = _covariance(distance, similarity, others)
    solution, weights = _posterior(noisy[:count, :count], observed[:, None] - prior_mean[:count], weights)
    probable = weights > NEGLIGIBLE * weights.max()
    weights = weights[probable] / weights[probable].sum()
    candidate_prior_mean = candidate_prior_mean[:, probable]
    prior_mean = prior_mean[:, probable]
    solution = solution[:, probable]
    mean = candidate_prior_mean + cross_covariance[:, :count] @ solution
    prior_variance = _covariance(np.zeros(1), np.ones(1), None if others is None else np.ones(1))
    variance = prior_variance - np.einsum("ij,ji->i", cross_covariance, np.linalg.solve(noisy, cross_covariance.T))
    deviation = np.sqrt(np.maximum(variance, 1e-12))[:, None]
    # The lowest posterior mean, and not the lowest figure, which may be luck.
    incumbent = (prior_mean + covariance[:, :count] @ solution).min(axis=0)
    z = (incumbent - mean) / deviation
    improvement = deviation * (z * ndtr(z) + np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)) @ weights
    correlation = similarity * (1.0 if others is None else others)
    same = (np.abs(distance) < SAME_DECADES) & (correlation > SAME_CORRELATION)
    of_new_ones: Array = np.where(same.any(axis=1), 0.0, improvement)
    return of_new_ones


def posterior_values(study: Study, place: Place) -> dict[int, float]:
    """Return the metric that the process, fitted to all completed trials of a study, expects of each, by its number.

    The luck of one seed moves this less than it moves the figure itself, since the figures near a trial have a say. No
    trial is expected to be better than its figure by more than SEED_NOISE. Of a long study only the best and the latest
    trials are fitted and returned.
    """
    sign = _sign(study)
    completed = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    trials, observed = _observations([trial for trial in completed if trial.params], sign)
    if not trials:
        return {}
    losses = [sign * (trial.value or 0.0) for trial in trials]
    points = [point_of(place, FixedTrial(trial.params), trial) for trial in trials]
    valleys, weights = _valleys(max(point.placement.uncertainty for point in points))
    prior_mean = _prior_mean(points, valleys)
    covariance = _covariance(*_compare(points, points))
    noisy = covariance + SEED_NOISE**2 * np.eye(len(points))
    solution, weights = _posterior(noisy, observed[:, None] - prior_mean, weights)
    mean = np.maximum((prior_mean + covariance @ solution) @ weights, observed - SEED_NOISE)
    expected = min(losses) + mean * _unit_of(losses) / UNIT
    return {trial.number: sign * float(loss) for trial, loss in zip(trials, expected, strict=True)}


def _posterior(noisy: Array, residuals: Array, weights: Array) -> tuple[Array, Array]:
    """Fit the Gaussian process to the residuals that each valley leaves, shape (o, v), given `noisy`, shape (o, o).

    Return `solution`, shape (o, v), and the probability of each valley after the observations, shape (v,).
    """
    # Not by Cholesky: where many parameters exist under one choice only, the covariance need not be positive definite.
    solution = np.linalg.solve(noisy, residuals).astype(np.float64)
    # The determinant of the covariance is the same for all valleys, and is left out.
    log_likelihood = np.log(weights) - (residuals * solution).sum(axis=0) / 2
    posterior: Array = np.exp(log_likelihood - log_likelihood.max())
    return solution, posterior / posterior.sum()


# --- the prior mean -----------------------------------------------------------------------------------------


def _valleys(uncertainty: float) -> tuple[Array, Array]:
    """Return all valleys that are considered, shape (v, 3), and their prior probabilities, shape (v,).

    `uncertainty` is the standard deviation of the bottom, in decades.
    """
    farthest = min(3 * uncertainty, FARTHEST)
    bottoms = np.arange(-farthest, farthest + SPACING / 2, SPACING)
    bottom, below, asymmetry = np.array(list(product(bottoms, CURVATURE, ASYMMETRY))).T
    weights = np.exp(-((bottom / uncertainty) ** 2) / 2 - np.log(below) ** 2 / 2)
    return np.stack([bottom, below, below * asymmetry], axis=1), weights / weights.sum()


def _prior_mean(points: Sequence[Point], valleys: Array) -> Array:
    """Return the scaled loss of each point in each valley, shape (len(points), v)."""
    from_bottom = np.array([point.placement.decades for point in points])[:, None] - valleys[:, 0]
    walls = np.where(from_bottom > 0, valleys[:, 2], valleys[:, 1]) * from_bottom**2
    losses = walls + quality(np.array([point.placement.curve for point in points]))[:, None]
    return np.minimum(losses, HIGHEST)


def quality(curves: Array) -> Array:
    """Return the scaled loss that schedules are expected to have at their best LR, shape (n,).

    `curves` are LR / peak LR over a training, shape (n, places).
    """
    expected: Array = features(curves) @ np.array(QUALITY)
    return np.clip(expected, BEST_QUALITY, WORST)


def features(curves: Array) -> Array:
    """Return the features of curves of LR / peak LR, shape (n, places), by which schedules are compared; shape (n, 7).

    They are 1, and the logarithms of a curve's mean, of the mean of its last tenth and of that of its first tenth, each
    with its square.
    """
    tenth = max(1, curves.shape[1] // 10)
    parts = [curves.mean(axis=1), curves[:, -tenth:].mean(axis=1), curves[:, :tenth].mean(axis=1)]
    logs = [np.log(part + FEATURE_FLOOR) for part in parts]
    return np.stack([np.ones(len(curves)), *(power for log in logs for power in (log, log**2))], axis=1)


# --- the covariance -----------------------------------------------------------------------------------------


def _covariance(distance: Array, similarity: Array, others: Array | None) -> Array:
    """Return the covariance of the Gaussian process, in the shape of what `_compare` returns."""
    residual = np.exp(-((distance / RESIDUAL_SCALE) ** 2) / 2)
    covariance: Array = LEVEL**2 + similarity * (CURVE**2 + RESIDUAL**2 * residual)
    if others is not None:
        covariance = others * (covariance + BEND**2 * np.exp(-((distance / BEND_SCALE) ** 2) / 2))
    return covariance


def _compare(a: Sequence[Point], b: Sequence[Point]) -> tuple[Array, Array, Array | None]:
    """Compare each point of `a` with each point of `b`; the arrays have the shape (len(a), len(b)).

    Return the decades between the LRs, the similarity of the LR schedules from 0 to 1, and that of all other
    parameters, None where there are none.
    """
    distance = np.subtract.outer([point.placement.decades for point in a], [point.placement.decades for point in b])
    schedules_a = [point.placement.lr_schedule for point in a]
    schedules_b = [point.placement.lr_schedule for point in b]
    same_schedule = _similarity_of_values(schedules_a, schedules_b, 0.0)
    others = None
    for name in sorted({name for point in (*a, *b) for name in point.parameters}):
        values_a = [point.parameters.get(name) for point in a]
        values_b = [point.parameters.get(name) for point in b]
        if name.partition(".")[0] in {*schedules_a, *schedules_b}:
            same_schedule *= _similarity_of_values(values_a, values_b, HIDDEN)
        else:
            similarity = _similarity_of_values(values_a, values_b, OTHER)
            others = (1.0 if others is None else others) * similarity
    return distance, _similarity_of_curves(a, b) * (OTHER_SCHEDULE + (1 - OTHER_SCHEDULE) * same_schedule), others


def _similarity_of_curves(a: Sequence[Point], b: Sequence[Point]) -> Array:
    """Return the similarity of LR curves, by the mean square over the training of the distance of their logarithms."""
    x, y = (np.log(np.array([point.placement.curve for point in points]) + CURVE_FLOOR) for points in (a, b))
    squares = (x**2).mean(axis=1)[:, None] + (y**2).mean(axis=1) - 2 * x @ y.T / x.shape[1]
    similarity: Array = np.exp(-np.maximum(squares, 0.0) / CURVE_SCALE**2 / 2)
    return similarity


def _similarity_of_values(a: Sequence[float | str | None], b: Sequence[float | str | None], least: float) -> Array:
    """Return the similarity of a parameter's values: `least` between two names, and between the ends of a range.

    It is 1 where two values are the same, and where one is missing: then another parameter tells the points apart.
    """
    if any(isinstance(value, str) for value in (*a, *b)):
        names_a, names_b = (np.array([value or "" for value in values]) for values in (a, b))
        return np.where((names_a[:, None] == names_b) | (names_a[:, None] == "") | (names_b == ""), 1.0, least)
    x, y = (np.array([np.nan if value is None else value for value in values]) for values in (a, b))
    similarity: Array = np.nan_to_num(least ** (np.subtract.outer(x, y) ** 2), nan=1.0)
    return similarity


def _position(value: Any, distribution: BaseDistribution) -> float | str:
    """Return where a number stands between the ends of its range or among its choices, 0 to 1; a name as it is."""
    if isinstance(distribution, CategoricalDistribution):
        positions = _positions_of_numbers(distribution.choices)
        return positions[value] if positions else str(value)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, value, high = (np.log(x) if distribution.log else x for x in (distribution.low, value, distribution.high))
    return float((value - low) / (high - low)) if high > low else 0.0


@lru_cache
def _positions_of_numbers(choices: tuple[Any, ...]) -> dict[Any, float]:
    """Return the position of each choice among them in their order, 0 to 1; nothing where one is no number."""
    if not all(isinstance(choice, int | float) for choice in choices):
        return {}
    return {choice: place / max(len(choices) - 1, 1) for place, choice in enumerate(sorted(choices))}


# --- the observations ---------------------------------------------------------------------------------------


def _observations(trials: Sequence[FrozenTrial], sign: float) -> tuple[list[FrozenTrial], Array]:
    """Return the trials that are observed, and their scaled losses, shape (o,).

    `sign` turns a figure into a loss. A pruned trial is compared with those that were measured at the step at which it
    was stopped, and counts as none of the better ones.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    losses = [sign * (trial.value or 0.0) for trial in complete]
    if len(complete) > MOST_BEST + MOST_LATEST:
        best = sorted(range(len(complete) - MOST_LATEST), key=losses.__getitem__)[:MOST_BEST]
        kept = [*best, *range(len(complete) - MOST_LATEST, len(complete))]
        complete = [complete[i] for i in kept]
        losses = [losses[i] for i in kept]
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED and trial.intermediate_values]
    pruned = pruned[-MOST_LATEST:]
    observed = list(_scaled(losses, losses))
    for trial in pruned:
        step = max(trial.intermediate_values)
        measured = [
            other.intermediate_values[step] for other in (*complete, *pruned) if step in other.intermediate_values
        ]
        loss = sign * trial.intermediate_values[step]
        observed.append(max(UNIT, *_scaled([loss], [sign * value for value in measured])))
    return [*complete, *pruned], np.array(observed)


def _scaled(losses: Sequence[float], reference: Sequence[float]) -> Array:
    """Return how much worse than the best of `reference` each loss is, scaled by what those differ by, and cut off."""
    if not losses:
        return np.empty(0)
    return np.minimum(UNIT * (np.array(losses) - min(reference)) / _unit_of(reference), WORST)


def _unit_of(losses: Sequence[float]) -> float:
    """Return the distance from the best that a share of UNIT_QUANTILE of the other losses does not exceed.

    Where so many have diverged that this would be a diverged one's, return the largest distance of those that have not:
    the value of a diverged trial stands for "worse than any other", and is no distance.
    """
    distances = np.sort(np.array(losses) - min(losses))[1:]
    unit = float(np.quantile(distances, UNIT_QUANTILE, method="lower")) if len(distances) else 0.0
    if unit > PENALTY / 2:
        unit = float(max(distances[distances < PENALTY / 2], default=0.0))
    return unit or 1.0


def _sign(study: Study) -> float:
    return sign_of(study.direction.name.lower())
