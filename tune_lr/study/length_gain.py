"""What the next training is worth: how much lower the loss of the answer is expected to be after it.

The answer is a schedule and its LR at full length. A training moves what is expected of every schedule there; by how
much is known beforehand, in which direction is not. The gain is what that saves on average: a better choice of the
schedule (the knowledge gradient: Frazier, Powell and Dayanik, "The knowledge-gradient policy for correlated normal
beliefs", 2009), and LRs nearer to the bottom of each schedule's valley.

Notation

    symbol  meaning                                                          shape
    m       schedules that the answer is chosen from
    k       trainings: the n candidates, and those that are still running
    f       q and b of the schedules at full length                          (sets, 2 m)
    h       what a training shows, z, as a linear function of its q and b    (sets, k)
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import norm

from tune_lr.study.length_fit import MISFIT, Fitted, Observation
from tune_lr.study.length_prior import Schedule

Array = NDArray[np.float64]

LOOKED_AT = 24  # sets of parameters that are looked at
QUANTILES = norm.ppf((np.arange(16) + 0.5) / 16)  # of how a training may turn out
EVERY_SCHEDULE = 0.3  # what the LRs of all schedules are worth together, against that of the best
DIVERGES = (0.6, 0.3)  # where a training is expected to diverge: decades above the bottom, and their deviation
MOST = 1.0  # no LR costs more than that, in nats: the valley is no parabola
SAME_DECADES, SAME = 0.08, 0.98  # nearer than this in the LR, and so much alike, is the same training
FEW = 64  # draws that estimate how likely each schedule is the best


def expected_gains(
    fitted: Fitted, schedules: Sequence[Schedule], candidates: Sequence[Observation], running: Sequence[Observation]
) -> Array:
    """Return what each candidate is expected to take off the loss of the answer, in units of the loss, shape (n,).

    The losses of `candidates` and of `running` trainings are not looked at. A candidate that was trained already, or
    that is being trained, gains nothing: with the same seed it would show the same.
    """
    sets = np.arange(LOOKED_AT)
    parameters = fitted.parameters.take(sets)
    m, n, trainings = len(schedules), len(candidates), [*candidates, *running]
    everything = [*schedules, *(training.schedule for training in trainings)]
    places = fitted.places(everything, [1.0] * m + [training.length for training in trainings])
    mean, joint = fitted.predict(places, sets)
    away = np.log10([training.lr for training in trainings]) - mean[:, len(everything) + m :]
    walls, slope = parameters.valley(away)
    noise = parameters.noise[:, None] ** 2 + (MISFIT * walls) ** 2

    # (q, b) of the schedules, and h of the trainings, by the (q, b) of everything.
    of_f = np.concatenate([np.arange(m), len(everything) + np.arange(m)])
    of_q, of_b = m + np.arange(len(trainings)), len(everything) + m + np.arange(len(trainings))
    across = joint[:, of_f][:, :, of_q] - joint[:, of_f][:, :, of_b] * slope[:, None, :]
    own, variance = joint[:, of_f][:, :, of_f], _variance(joint, of_q, of_b, slope)
    if running:
        among = _among(joint, of_q, of_b, slope)
        noisy = among[:, n:, n:] + noise[:, n:, None] * np.eye(len(running))
        solved = np.linalg.solve(noisy, among[:, n:, :n])
        variance = variance[:, :n] - np.einsum("srn,srn->sn", among[:, n:, :n], solved)
        own = own - across[:, :, n:] @ np.linalg.solve(noisy, across[:, :, n:].transpose(0, 2, 1))
        across = across[:, :, :n] - across[:, :, n:] @ solved
    moved = across / np.sqrt(np.maximum(variance, 0.0) + noise[:, :n])[:, None, :]

    steepness = np.sqrt(parameters.below * parameters.above)
    deviation = np.sqrt(np.maximum(np.diagonal(own, axis1=1, axis2=2), 1e-12))
    level = mean[:, :m] + np.minimum(steepness[:, None] * deviation[:, m:] ** 2, MOST)
    after = level[:, :, None, None] + moved[:, :m, :, None] * QUANTILES
    choice = level.min(axis=1)[:, None] - after.min(axis=1).mean(axis=-1)
    saved = np.minimum(steepness[:, None, None] * moved[:, m:] ** 2, MOST)
    lrs = np.einsum("sm,smn->sn", _shares(level, deviation[:, :m]) + EVERY_SCHEDULE / m, saved)
    # A training that diverges shows little.
    unsure = np.sqrt(np.maximum(joint[:, of_b[:n], of_b[:n]], 0.0) + DIVERGES[1] ** 2)
    holds = ndtr((DIVERGES[0] - away[:, :n]) / unsure)
    gains: Array = (np.exp(level.min(axis=1))[:, None] * (choice + lrs) * holds).mean(axis=0)
    return np.where(_trained(fitted, candidates, running), 0.0, gains)


def _variance(joint: Array, of_q: NDArray[np.intp], of_b: NDArray[np.intp], slope: Array) -> Array:
    """The variance of h of each training, (sets, k)."""
    variance: Array = joint[:, of_q, of_q] - 2 * slope * joint[:, of_q, of_b] + slope**2 * joint[:, of_b, of_b]
    return variance


def _among(joint: Array, of_q: NDArray[np.intp], of_b: NDArray[np.intp], slope: Array) -> Array:
    """The covariance of h between the trainings, (sets, k, k)."""
    q_b = joint[:, of_q][:, :, of_b] * slope[:, None, :]
    b_b = joint[:, of_b][:, :, of_b] * slope[:, :, None] * slope[:, None, :]
    among: Array = joint[:, of_q][:, :, of_q] - q_b - q_b.transpose(0, 2, 1) + b_b
    return among


def _shares(level: Array, deviation: Array) -> Array:
    """Roughly how likely each schedule is the best, (sets, m)."""
    draws = level[:, :, None] + deviation[:, :, None] * np.random.default_rng(0).normal(size=(level.shape[1], FEW))
    first = draws.argmin(axis=1)
    shares: Array = (first[:, None, :] == np.arange(level.shape[1])[:, None]).mean(axis=2)
    return shares


def _trained(fitted: Fitted, candidates: Sequence[Observation], running: Sequence[Observation]) -> NDArray[np.bool_]:
    """Which candidates were trained, or are being trained, already, (n,)."""
    asked = fitted.places(
        [candidate.schedule for candidate in candidates], [candidate.length for candidate in candidates]
    )
    others = fitted.places([training.schedule for training in running], [training.length for training in running])
    x = np.log10([candidate.lr for candidate in candidates])
    found = np.zeros(len(candidates), dtype=bool)
    for places, lrs in ((fitted.data.places, fitted.data.x), (others, np.log10([training.lr for training in running]))):
        same = np.abs(np.subtract.outer(x, lrs)) < SAME_DECADES
        same &= np.isclose(asked.u[:, None], places.u) & (asked.alike(places) > SAME)
        found |= same.any(axis=1)
    return found
