"""Fits the model of short and long trainings: what is known of every schedule's valley after some trainings.

Above an unknown floor C the final loss y is, in logarithms, a bottom and a valley over the LR:

    ln(y - C) = q + W(x - b) + noise

The height q of the bottom and its place b are Gaussian processes over the schedule's curve and the length
(`tune_lr.study.length_prior`). C, the shape of W, the noise and how the loss levels off with the length are parameters
that no closed form gives. Sets of them are drawn from what is expected beforehand, and then resampled and moved while
the likelihood of the trainings is raised from nothing to its full power (a sequential Monte Carlo sampler: Del Moral,
Doucet and Jasra, 2006). For one set the model is linear in q and b but for W, which is linearized at the current
estimate again and again (Gauss-Newton; the evidence is Laplace's approximation: Rasmussen and Williams, "Gaussian
Processes for Machine Learning", 2006, section 3.4).

A training that diverged says that b lies below its LR. One that ended far above the others says only that it is bad.

Notation

    symbol  meaning                                          unit                        shape
    x       log10 of the peak LR                             decades                     (n,)
    y, C    final loss, and its floor                        loss                        (n,), (sets,)
    z       ln(y - C)                                        nats                        (sets, n)
    q       z at the bottom of the valley                    nats                        (sets, n)
    b       log10 of the LR at the bottom of the valley      decades                     (sets, n)
    W       what a distance from the bottom adds to z        nats                        (sets, n)
    S       covariance of what the trainings show                                        (sets, n, n)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr
from scipy.stats import norm, qmc

from tune_lr.study.length_prior import MOVES, Places, Schedule, covariance, expected

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

SETS = 64
ENOUGH = 0.75  # so many of the sets, by their effective number, keep a say when the likelihood is raised
LAST_MOVES = 5  # moves of all sets once the likelihood counts in full
STEP = 1.0  # of a move, against what is best for a normal distribution of many dimensions
LEAST_WIDTH = 0.05  # of a move, in standard deviations
FIRST_ITERATIONS, ITERATIONS = 8, 2  # of Gauss-Newton: from scratch, and from where a set was before
LONGEST_MOVE = 0.5  # of a bottom in one iteration, in decades
# A loss that lies so many times the usual distance above the best of its length or shorter only says that it is bad.
BAD, BAD_DEVIATION = 20.0, 0.1
# A training that diverged lies at least so many decades above the bottom, give or take.
EDGE, EDGE_DEVIATION = 0.15, 0.15
FEW = 3
SILENT = 1e6  # the largest variance: of a training that says nothing
WALL = 0.5  # so many decades from the bottom and farther the valley's sides are nearly straight
MISFIT = 0.1  # how wrong the valley's shape is, as a fraction of what it adds
# Of each parameter the median beforehand, and the standard deviation of its logarithm.
OFFSET = (12.0, 2.0)  # how far C lies below the best loss, in usual distances
STEEPNESS = (0.8, 0.9)  # what the first decade below the bottom adds to z, if its side were no straighter farther off
ASYMMETRY = (1.0, 0.7)  # how many times that the first decade above it
NOISE = (0.04, 1.0)  # the standard deviation of z
FREEDOM = (1.0, 0.4)  # how far schedules and lengths may be off what is expected of them, in those units
BEND = (0.15, 0.8)  # how the loss levels off with the length: `length_prior.missing_progress`
MEDIANS_AND_DEVIATIONS = (OFFSET, STEEPNESS, ASYMMETRY, NOISE, FREEDOM, BEND)
FARTHEST = 3.0  # no parameter is so many standard deviations off


@dataclass(frozen=True)
class Observation:
    """A complete training of a schedule over its own length, a fraction of `max_steps` in (0, 1].

    `loss` is what is minimized, at the end; it is not looked at where the training diverged. `schedule.curve` is the
    curve of this training, which may differ from that of a full one where lengths are given in steps.
    """

    schedule: Schedule
    lr: float
    length: float
    loss: float
    diverged: bool = False


@dataclass(frozen=True)
class LRPrior:
    """What is known of the LR before any training.

    The best constant LR of a training of `length`, a fraction of `max_steps`, is expected at `lr`, with a standard
    deviation of so many `decades`. LRs from `low` to `high` are allowed.
    """

    lr: float
    decades: float
    low: float
    high: float
    length: float = 1.0

    def at_full_length(self) -> float:
        """Return log10 of the constant LR that is expected to be best at full length."""
        return math.log10(self.lr) - MOVES[0] * math.log10(self.length)


@dataclass(frozen=True)
class Parameters:
    """The sets of parameters; see the constants of the module. All but `units` are of shape (sets,)."""

    units: Array  # the standard normal numbers that they come from, (sets, 6)
    offset: Array  # in units of the loss
    below: Array
    above: Array
    noise: Array
    freedom: Array
    bend: Array

    @classmethod
    def of(cls, units: Array, usual_distance: float) -> "Parameters":
        """Return the parameters that belong to standard normal numbers."""
        medians, deviations = np.array(MEDIANS_AND_DEVIATIONS).T
        offset, below, asymmetry, noise, freedom, bend = (
            medians * np.exp(deviations * units.clip(-FARTHEST, FARTHEST))
        ).T
        return cls(units, usual_distance * offset, below, below * asymmetry, noise, freedom, bend)

    def take(self, sets: Indices) -> "Parameters":
        """Return some of the sets."""
        return Parameters(*(getattr(self, field.name)[sets] for field in fields(self)))

    def valley(self, away: Array) -> tuple[Array, Array]:
        """Return W and its slope at distances from the bottom in decades, in their shape (sets, ...)."""
        sides = (-1,) + (1,) * (away.ndim - 1)
        steepness = np.where(away > 0, self.above.reshape(sides), self.below.reshape(sides))
        root = np.sqrt(1 + (away / WALL) ** 2)
        return steepness * 2 * WALL**2 * (root - 1), steepness * 2 * away / root


@dataclass(frozen=True)
class Data:
    """The trainings as arrays."""

    x: Array
    y: Array  # 0 where a training diverged
    places: Places
    bad: NDArray[np.bool_]  # the training ended far above the others
    diverged: NDArray[np.bool_]
    lowest: float  # the lowest loss
    usual_distance: float  # of a loss from the best of its length or shorter

    @classmethod
    def of(cls, observations: Sequence[Observation], steps: float) -> "Data":
        """Return the trainings that say something: those that diverged or have a finite loss."""
        kept = [training for training in observations if training.diverged or math.isfinite(training.loss)]
        diverged = np.array([training.diverged for training in kept], dtype=bool)
        y = np.array([0.0 if training.diverged else training.loss for training in kept])
        lengths = np.array([training.length for training in kept])
        ended = np.flatnonzero(~diverged)
        gaps = np.zeros(len(kept))
        for i in ended:
            gaps[i] = y[i] - y[ended][lengths[ended] <= 1.001 * lengths[i]].min()
        distances = np.sort(gaps[gaps > 0])
        # A third of the distances are smaller; of a few distances the smallest may be chance.
        place = max(len(distances) // 3, min(len(distances) - 1, FEW))
        usual = float(distances[place]) if len(distances) else 1.0
        return cls(
            x=np.log10([training.lr for training in kept]),
            y=y,
            places=Places.of([training.schedule for training in kept], [training.length for training in kept], steps),
            bad=gaps > BAD * usual,
            diverged=diverged,
            lowest=float(y[ended].min()) if len(ended) else 0.0,
            usual_distance=usual,
        )

    def z(self, offset: Array) -> Array:
        """Return z, shape (sets, n); where a training diverged it is not looked at."""
        above_lowest = np.where(self.diverged, 0.0, self.y - self.lowest)
        z: Array = np.log(above_lowest[None, :] + offset[:, None])
        return z


@dataclass(frozen=True)
class Fitted:
    """What is known after the trainings: a Gaussian process for each of many sets of parameters, all
    equally likely."""

    data: Data
    prior: LRPrior
    steps: float
    parameters: Parameters
    on_q: Array  # what a training shows changes with q and with b at its place by so much, (sets, n)
    on_b: Array
    explained: Array  # S^-1 (shown - expected), (sets, n)
    inverse: Array  # S^-1, (sets, n, n)

    def places(self, schedules: Sequence[Schedule], lengths: Sequence[float]) -> Places:
        """Return the places of schedules at lengths."""
        return Places.of(schedules, lengths, self.steps)

    def predict(self, places: Places, sets: Indices) -> tuple[Array, Array]:
        """Return the mean of (q, b) at other places, shape (sets, 2 m): all q first; and the covariance,
        (sets, 2 m, 2 m)."""
        parameters, m = self.parameters.take(sets), len(places.u)
        mean_q, mean_b = expected(places, self.prior.at_full_length(), parameters.bend)
        mean_q = mean_q + np.log(parameters.offset)[:, None]
        mean = np.concatenate([mean_q, np.broadcast_to(mean_b, mean_q.shape)], axis=1)
        free = self.prior.decades, parameters.freedom, parameters.bend
        own_q, own_b = covariance(places, places, *free)
        cross_q, cross_b = covariance(places, self.data.places, *free)
        cross = np.concatenate([cross_q * self.on_q[sets][:, None], cross_b * self.on_b[sets][:, None]], axis=1)
        joint = -cross @ self.inverse[sets] @ cross.transpose(0, 2, 1)
        joint[:, :m, :m] += own_q
        joint[:, m:, m:] += own_b
        return mean + np.einsum("smn,sn->sm", cross, self.explained[sets]), joint


def fit(observations: Sequence[Observation], prior: LRPrior, steps: float, seed: int = 0) -> Fitted:
    """Return what is known after the trainings. `steps` are those of a full training.

    The same trainings and the same seed give the same result.
    """
    data = Data.of(observations, steps)
    rng = np.random.default_rng(seed)
    units = standard_normal(SETS, len(MEDIANS_AND_DEVIATIONS), rng)
    start = np.broadcast_to(_start(data, prior), (SETS, len(data.x)))
    solved = _solve(data, prior, units, start, FIRST_ITERATIONS)
    power = 0.0
    while power < 1.0:
        step = _largest_step(solved.evidence, 1.0 - power)
        power += step
        solved = _moved(data, prior, solved.take(_resampled(step * solved.evidence, rng)), power, rng)
    for _ in range(LAST_MOVES):
        solved = _moved(data, prior, solved, 1.0, rng)
    inverse = np.linalg.inv(solved.s).astype(np.float64)
    explained = np.einsum("sij,sj->si", inverse, solved.rest)
    return Fitted(data, prior, steps, solved.parameters, solved.on_q, solved.on_b, explained, inverse)


def standard_normal(count: int, dimensions: int, rng: np.random.Generator) -> Array:
    """Return standard normal numbers that are spread evenly, shape (count, dimensions); `count` is a power of 2."""
    uniform = qmc.Sobol(dimensions, seed=rng).random(count)
    normal: Array = norm.ppf(uniform.clip(1e-6, 1 - 1e-6))
    return normal


@dataclass(frozen=True)
class _Solved:
    """For each set the linear statements of the trainings, their covariance and the evidence."""

    parameters: Parameters
    on_q: Array  # (sets, n)
    on_b: Array  # (sets, n)
    b: Array  # (sets, n)
    rest: Array  # what is shown, less what is expected, (sets, n)
    s: Array  # (sets, n, n)
    evidence: Array  # its logarithm, (sets,)

    def take(self, sets: Indices) -> "_Solved":
        """Return some of the sets."""
        arrays = (getattr(self, field.name)[sets] for field in fields(self)[1:])
        return _Solved(self.parameters.take(sets), *arrays)

    def merge(self, chosen: NDArray[np.bool_], other: "_Solved") -> "_Solved":
        """Return the sets of `other` where chosen, else those of this."""
        sets = np.arange(len(chosen)) + len(chosen) * chosen
        both = Parameters(*(np.concatenate(pair) for pair in _pairs(self.parameters, other.parameters)))
        arrays = (np.concatenate(pair)[sets] for pair in _pairs(self, other)[1:])
        return _Solved(both.take(sets), *arrays)


def _pairs(a: Any, b: Any) -> list[tuple[Any, Any]]:
    """The fields of two objects of one class, side by side."""
    return [(getattr(a, field.name), getattr(b, field.name)) for field in fields(a)]


def _largest_step(evidence: Array, most: float) -> float:
    """By how much the power of the likelihood may rise, at most `most`, so that enough of the sets keep a say."""
    steps = most * np.geomspace(1e-4, 1.0, 200)
    weights = np.exp(steps[:, None] * (evidence - evidence.max()))
    enough = weights.sum(axis=1) ** 2 / (weights**2).sum(axis=1) >= ENOUGH * len(evidence)
    return float(steps[np.flatnonzero(enough)[-1]] if enough.any() else steps[0])


def _resampled(log_weights: Array, rng: np.random.Generator) -> Indices:
    """Sets, each as often as its weight says (systematic resampling)."""
    weights = np.exp(log_weights - log_weights.max())
    places = (np.arange(len(weights)) + rng.random()) / len(weights)
    return np.searchsorted(np.cumsum(weights) / weights.sum(), places).clip(0, len(weights) - 1)


def _moved(data: Data, prior: LRPrior, solved: _Solved, power: float, rng: np.random.Generator) -> _Solved:
    """Each set, or another one near it: a step of random-walk Metropolis at that power of the likelihood."""
    units = solved.parameters.units
    dimensions = units.shape[1]
    root = np.linalg.cholesky(np.cov(units.T) + LEAST_WIDTH**2 * np.eye(dimensions))
    to = units + STEP * 2.38 / math.sqrt(dimensions) * rng.normal(size=units.shape) @ root.T
    tried = _solve(data, prior, to, solved.b, ITERATIONS)
    gain = power * (tried.evidence - solved.evidence) + ((units**2).sum(axis=1) - (to**2).sum(axis=1)) / 2
    return solved.merge(np.log(rng.random(len(units))) < gain, tried)


def _start(data: Data, prior: LRPrior) -> Array:
    """Where the search for the bottoms begins, (n,): as expected, but moved so that the best training of most lengths
    lies at its bottom."""
    _, mean_b = expected(data.places, prior.at_full_length(), np.ones(1))
    good = np.flatnonzero(~data.bad & ~data.diverged)
    if not len(good):
        return mean_b
    lengths = data.places.u[good]
    best = [good[lengths == u][np.argmin(data.y[good[lengths == u]])] for u in np.unique(lengths)]
    moved: Array = mean_b + float(np.median([data.x[i] - mean_b[i] for i in best]))
    return moved


def _solve(data: Data, prior: LRPrior, units: Array, start: Array, iterations: int) -> _Solved:
    """Find q and b at the trainings for every set, beginning with the bottoms `start`, (sets, n)."""
    parameters = Parameters.of(units, data.usual_distance)
    mean_q, mean_b = expected(data.places, prior.at_full_length(), parameters.bend)
    mean_q = mean_q + np.log(parameters.offset)[:, None]
    k_q, k_b = covariance(data.places, data.places, prior.decades, parameters.freedom, parameters.bend)
    z, diagonal = data.z(parameters.offset), np.arange(len(data.x))
    q, b = mean_q, start
    for _ in range(iterations):
        rows = _linearized(data, parameters, z, q, b)
        s = k_q * rows.on_q[:, :, None] * rows.on_q[:, None, :] + k_b * rows.on_b[:, :, None] * rows.on_b[:, None, :]
        s[:, diagonal, diagonal] += rows.variance
        rest = rows.shown - rows.on_q * mean_q - rows.on_b * mean_b
        explained = np.linalg.solve(s, rest[:, :, None])[:, :, 0]
        q = mean_q + (k_q @ (rows.on_q * explained)[:, :, None])[:, :, 0]
        to = mean_b + (k_b @ (rows.on_b * explained)[:, :, None])[:, :, 0]
        b = b + np.clip(to - b, -LONGEST_MOVE, LONGEST_MOVE)
    evidence = -((rest * explained).sum(axis=1) + np.linalg.slogdet(s)[1]) / 2 + rows.correction
    # The density is one of losses, not of z. The lowest loss says nothing: it is where the floor is counted from.
    ended = ~data.bad & ~data.diverged
    evidence -= z[:, ended].sum(axis=1) - (np.log(parameters.offset) if ended.any() else 0.0)
    return _Solved(parameters, rows.on_q, rows.on_b, b, rest, s, evidence)


@dataclass(frozen=True)
class _Linearized:
    """Each training as a statement on_q q + on_b b + noise = shown; all of shape (sets, n) but the last."""

    on_q: Array
    on_b: Array
    shown: Array
    variance: Array
    correction: Array  # (sets,): from the evidence of these statements to that of the trainings


def _linearized(data: Data, parameters: Parameters, z: Array, q: Array, b: Array) -> _Linearized:
    walls, slope = parameters.valley(data.x - b)
    noise = parameters.noise[:, None] ** 2 + (MISFIT * walls) ** 2
    # What is bad is at least so bad, and what diverged is above the bottom. The likelihood is the normal distribution
    # function of a margin, and its logarithm is expanded to the second order.
    soft = data.bad | data.diverged
    margin = np.where(data.diverged, data.x - EDGE - b, q + walls - z)
    deviation = np.where(data.diverged, EDGE_DEVIATION, np.sqrt(noise) + BAD_DEVIATION)
    log_likelihood = log_ndtr(margin / deviation)
    log_density = -((margin / deviation) ** 2) / 2 - math.log(2 * math.pi) / 2
    gradient = np.exp(log_density - log_likelihood) / deviation
    variance = np.where(soft, 1 / np.maximum(gradient * (gradient + margin / deviation**2), 1 / SILENT), noise)
    on_q = np.where(data.diverged, 0.0, np.ones_like(z))
    on_b = np.where(data.diverged, -1.0, -slope)
    shown = np.where(soft, on_q * q + on_b * b + gradient * variance, z - walls - slope * b)
    expansion = log_likelihood + (gradient**2 * variance + np.log(variance)) / 2
    return _Linearized(on_q, on_b, shown, variance, np.where(soft, expansion, 0.0).sum(axis=1))
