"""Answers for full trainings from short ones: forecasts of every schedule at full length, and the next training.

`fit` takes the trainings so far, of any length, and returns what is known. `forecast` says what each schedule reaches
at full length, at which LR, and how sure that is; `propose` says which training, of which length, gains most for its
cost.
The model is in `tune_lr.study.length_fit`, what it expects beforehand in `tune_lr.study.length_prior`, and how a
training is valued in `tune_lr.study.length_gain`; docs/long_trainings.md explains it for practitioners.

Losses are minimized and may be of any sign and scale: the model sees them by their distances.

Notation

    symbol  meaning                                                   unit       shape
    x       log10 of a peak LR                                        decades    (LRs,)
    q, b    height and place of the bottom of a schedule's valley     nats, decades   (draws, schedules)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tune_lr.study.length_fit import SETS, Fitted, LRPrior, Observation, Parameters, fit, standard_normal
from tune_lr.study.length_gain import LOOKED_AT, expected_gains
from tune_lr.study.length_prior import Schedule

__all__ = [
    "Fitted",
    "Forecast",
    "LRPrior",
    "Observation",
    "Proposal",
    "Schedule",
    "ScheduleForecast",
    "fit",
    "forecast",
    "propose",
]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

# Every so many proposals are of a family of schedules that no longer training was of, while there is one.
TURN = 3
DRAWS = 512
# The quantiles of an interval that is said to hold the truth in 80 of 100 cases. The model's own 80 % intervals held it
# in 53 to 69 of 100 cases on the workloads in view: no real valley has exactly the model's shape, and no loss falls by
# its law. Its 95 % intervals held it in 70 to 81.
INTERVAL = (0.025, 0.975)
GRID_DECADES = 0.025
KEPT = 0.95  # of the draws, in a mean of losses: a few of them may be absurdly high
# A proposal's LRs: so many deviations from the bottom that is expected; a deviation is at least that many decades.
AWAY, LEAST_SPREAD = (-1.5, -0.75, 0.0, 0.75, 1.5), 0.15


@dataclass(frozen=True)
class ScheduleForecast:
    """What is expected of a schedule at full length.

    `lr` is the LR to train it with, and `lr_interval` holds its best LR with a probability of 80 %. `loss` is the
    median of the mean final loss at `lr`, and `loss_interval` holds that loss with a probability of 80 %; the luck of
    one training's seed comes on top. `probability_best` says how likely this schedule is the best of all.
    """

    schedule: Schedule
    lr: float
    lr_interval: tuple[float, float]
    loss: float
    loss_interval: tuple[float, float]
    probability_best: float


@dataclass(frozen=True)
class Forecast:
    """The forecasts of all schedules, the best first.

    `expected_regret` is by how much the first, at its LR, is expected to be worse than the best of all at theirs, in
    units of the loss.
    """

    schedules: tuple[ScheduleForecast, ...]
    expected_regret: float


@dataclass(frozen=True)
class Proposal:
    """The next training. `gain` is what it is expected to take off the loss of the answer, in units of the loss."""

    schedule: Schedule
    lr: float
    length: float
    gain: float


@dataclass(frozen=True)
class _Draws:
    """Samples of what is not known; q and b are of shape (draws, schedules)."""

    parameters: Parameters
    q: Array
    b: Array


def forecast(
    fitted: Fitted, schedules: Sequence[Schedule], lrs: Sequence[float] | None = None, length: float = 1.0
) -> Forecast:
    """Return what is expected of each schedule at full length, or at another `length`.

    The LR of a forecast is the one with the lowest expected loss: of `lrs` where they are given, else of all that are
    allowed.
    """
    allowed = _grid(fitted.prior) if lrs is None else np.asarray(lrs, dtype=np.float64)
    draws = _draws(fitted, schedules, length)
    losses, at = _losses_at_the_best_lr(fitted, draws, np.log10(allowed))
    means = _mean(losses)
    order = np.argsort(means, kind="stable")
    shares = np.bincount(losses.argmin(axis=1), minlength=len(schedules)) / len(losses)
    places, reached = np.quantile(draws.b, INTERVAL, axis=0), np.quantile(losses, (*INTERVAL, 0.5), axis=0)
    regrets = losses[:, order[0]] - losses.min(axis=1)
    return Forecast(
        tuple(
            ScheduleForecast(
                schedule=schedules[i],
                lr=float(allowed[at[i]]),
                lr_interval=(float(10 ** places[0, i]), float(10 ** places[1, i])),
                loss=float(reached[2, i]),
                loss_interval=(float(reached[0, i]), float(reached[1, i])),
                probability_best=float(shares[i]),
            )
            for i in order
        ),
        expected_regret=float(_mean(regrets)),
    )


def propose(
    fitted: Fitted,
    schedules: Sequence[Schedule],
    lengths: Sequence[float],
    running: Sequence[Observation] = (),
    overhead: float = 0.0,
) -> Proposal:
    """Return the training of one of the schedules, at one of the lengths, that gains most for its cost.

    The cost of a training is its length and `overhead`, both in full trainings. `running` are trainings whose losses
    are not known yet: what they will show is allowed for.
    """
    candidates = _candidates(fitted, schedules, lengths)
    candidates = _turn_of_the_untried(fitted, candidates, running)
    gains = expected_gains(fitted, schedules, candidates, running)
    best = int(np.argmax(gains / (np.array([candidate.length for candidate in candidates]) + overhead)))
    chosen = candidates[best]
    return Proposal(chosen.schedule, chosen.lr, chosen.length, float(gains[best]))


def _turn_of_the_untried(
    fitted: Fitted, candidates: list[Observation], running: Sequence[Observation]
) -> list[Observation]:
    """Of every third proposal the trainings, of the second shortest length, of families that were trained at the
    shortest length only, or not at all; of all others, and where there are none, all candidates. Schedules that are bad
    at the shortest length may be good at longer ones."""
    lengths = sorted({candidate.length for candidate in candidates})
    if len(lengths) == 1 or (len(fitted.data.x) + len(running)) % TURN != TURN - 1:
        return candidates
    shortest, second = lengths[:2]
    longer = fitted.data.places.u > math.log10(shortest) + 0.1
    tried = {*fitted.data.places.families[longer].tolist()}
    tried |= {training.schedule.family for training in running if training.length > shortest}
    untried = [
        candidate for candidate in candidates if candidate.schedule.family not in tried and candidate.length == second
    ]
    return untried or candidates


def _candidates(fitted: Fitted, schedules: Sequence[Schedule], lengths: Sequence[float]) -> list[Observation]:
    """Trainings of every schedule and length, at LRs around the bottom that is expected there."""
    pairs = [(schedule, length) for schedule in schedules for length in lengths]
    sets = np.arange(LOOKED_AT)
    mean, joint = fitted.predict(
        fitted.places([schedule for schedule, _ in pairs], [length for _, length in pairs]), sets
    )
    mean_b, variance_b = mean[:, len(pairs) :], np.diagonal(joint, axis1=1, axis2=2)[:, len(pairs) :]
    middle = mean_b.mean(axis=0)
    spread = np.sqrt(np.maximum((variance_b + (mean_b - middle) ** 2).mean(axis=0), LEAST_SPREAD**2))
    low, high = math.log10(fitted.prior.low), math.log10(fitted.prior.high)
    x = np.clip(middle[:, None] + spread[:, None] * np.array(AWAY), low, high)
    return [
        Observation(schedule, float(10**place), length, math.nan)
        for (schedule, length), row in zip(pairs, x, strict=True)
        for place in row
    ]


def _draws(fitted: Fitted, schedules: Sequence[Schedule], length: float) -> _Draws:
    """Samples of q and b of every schedule at a length, as many from each set of parameters."""
    m = len(schedules)
    which = np.arange(DRAWS) % SETS
    mean, joint = fitted.predict(fitted.places(schedules, [length] * m), np.arange(SETS))
    values, vectors = np.linalg.eigh(joint)
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    normal = standard_normal(DRAWS, 2 * m, np.random.default_rng(0))
    both = mean[which] + np.einsum("dij,dj->di", root[which], normal)
    return _Draws(fitted.parameters.take(which), both[:, :m], both[:, m:])


def _losses_at_the_best_lr(fitted: Fitted, draws: _Draws, x: Array) -> tuple[Array, Indices]:
    """The loss of every draw at the LR that is best on average, (draws, schedules), and which LR that is,
    (schedules,)."""
    losses, at = np.empty_like(draws.b), np.empty(draws.b.shape[1], dtype=np.intp)
    for i in range(draws.b.shape[1]):
        walls, _ = draws.parameters.valley(x - draws.b[:, i, None])
        above_floor = np.exp(np.minimum(draws.q[:, i, None] + walls, 700.0))
        at[i] = int(np.argmin(_mean(above_floor)))
        losses[:, i] = fitted.data.lowest - draws.parameters.offset + above_floor[:, at[i]]
    return losses, at


def _mean(values: Array) -> Array:
    """The mean over the draws, the first axis, without the highest of them."""
    kept = np.sort(values, axis=0)[: math.ceil(KEPT * len(values))]
    mean: Array = kept.mean(axis=0)
    return mean


def _grid(prior: LRPrior) -> Array:
    """LRs from the lowest to the highest that is allowed."""
    decades = math.log10(prior.high / prior.low)
    return np.geomspace(prior.low, prior.high, max(2, math.ceil(decades / GRID_DECADES) + 1))
