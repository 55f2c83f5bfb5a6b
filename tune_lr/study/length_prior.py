"""What is expected of the best LR and of the final loss before any training: by the LR schedule's curve and the length.

For each schedule and length there is a valley of the loss over the LR. The place b of its bottom and the height q of it
are straight lines over (the logarithm of) the length, with slopes that are not known well, and over what the convex
bound says of the schedule's curve (`tune_lr.lr.convex_bound`). What is left is a Gaussian process over the curves, the
lengths and other parameters. All coefficients are normal, so b and q are Gaussian processes as a whole.

Notation

    symbol  meaning                                                               unit      shape
    u       log10 of the length, a fraction of max_steps                          decades   (n,)
    r       log10 of the best peak by the convex bound, over a constant LR's      decades   (n,)
    k       ln of the convex bound at the best peak, over a constant LR's         nats      (n,)
    g       the progress that is still missing at a length; 0 at full length      decades   (sets, n)
    q       ln(loss - floor) at the bottom of the valley                          nats      (sets, n)
    b       log10 of the LR at the bottom of the valley                           decades   (n,)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tune_lr.lr.convex_bound import convex_bound

Array = NDArray[np.float64]

# The mean and the standard deviation of each coefficient.
PEAK = (1.1, 0.4)  # of r, in b
MOVES = (-0.4, 0.3)  # of u, in b: how the best LR of a constant schedule moves with the length
MOVES_LESS = (0.05, 0.2)  # of u * r, in b: how much less that of a schedule does that wants a high peak
QUALITY = (0.6, 0.4)  # of k, in q
FALLS = (0.8, 0.6)  # of g, in q: how the loss falls with the length
LEVEL = 3.0  # the standard deviation of the level of q
# The standard deviations of what is left: for each schedule, for a decade of length, and off the straight line.
PEAK_OWN, PEAK_OWN_SLOPE, PEAK_BENT = 0.12, 0.08, 0.15
QUALITY_OWN, QUALITY_OWN_SLOPE, QUALITY_BENT = 0.25, 0.2, 0.15
# The same off the straight line for all schedules together.
PEAK_BENT_TOGETHER, QUALITY_BENT_TOGETHER = 0.1, 0.2
BENT_DECADES = 0.6  # over how many decades of length a deviation from the straight line reaches
# How much other parameters, from one end of their range to the other, may change b and q, and how far that reaches.
OTHER_PEAK, OTHER_QUALITY, OTHER_REACH = 0.3, 0.3, 0.7
# Two curves are alike by the root mean square of the difference of ln(LR / peak + FLOOR), over REACH; two schedules of
# another family share OTHER_FAMILY of that at most.
FLOOR, REACH, OTHER_FAMILY = 0.05, 1.2, 0.5


@dataclass(frozen=True)
class Schedule:
    """An LR schedule with its parameters, and what else makes a configuration besides the LR.

    `name` tells it from others and `family` is shared by schedules that differ in their parameters alone. `curve` is
    LR / peak LR at places spread evenly over the training, of one number for all schedules that are compared.
    `others` are the other parameters of the search, each between 0 and 1; empty where there are none.
    """

    name: str
    curve: tuple[float, ...]
    family: str = ""
    others: tuple[float, ...] = ()


@dataclass(frozen=True)
class Places:
    """Schedules at lengths, as arrays: n of them."""

    families: NDArray[np.str_]
    log_curves: Array  # (n, places of a curve)
    others: Array  # (n, other parameters)
    u: Array
    r: Array
    k: Array

    @classmethod
    def of(cls, schedules: Sequence[Schedule], lengths: Sequence[float], steps: float) -> "Places":
        """Return the places of schedules at lengths, fractions of a full training of so many `steps`."""
        n = len(schedules)
        curves = np.array([schedule.curve for schedule in schedules], dtype=np.float64).reshape(n, -1 if n else 0)
        others = np.array([schedule.others for schedule in schedules], dtype=np.float64).reshape(n, -1 if n else 0)
        bounds = np.array([_against_constant(schedule.curve, steps) for schedule in schedules]).reshape(n, 2)
        families = np.array([schedule.family for schedule in schedules], dtype=np.str_)
        u = np.log10(np.asarray(lengths, dtype=np.float64))
        return cls(families, np.log(curves + FLOOR), others, u, bounds[:, 0], bounds[:, 1])

    def alike(self, other: "Places") -> Array:
        """Return how much alike the schedules are: 1 for the same, less the farther they are apart; shape (n, m)."""
        if not len(self.u) or not len(other.u):
            return np.zeros((len(self.u), len(other.u)))
        mean_square = _squares(self.log_curves, other.log_curves) / self.log_curves.shape[1]
        same = np.where(self.families[:, None] == other.families, 1.0, OTHER_FAMILY)
        alike: Array = same * np.exp(-mean_square / REACH**2 / 2) * self.others_alike(other)
        return alike

    def others_alike(self, other: "Places") -> Array:
        """Return how much alike the other parameters are, 0 to 1, shape (n, m); 1 where there are none."""
        if not len(self.u) or not len(other.u):
            return np.zeros((len(self.u), len(other.u)))
        alike: Array = np.exp(-_squares(self.others, other.others) / OTHER_REACH**2 / 2)
        return alike


def _squares(x: Array, y: Array) -> Array:
    """The squared distances between the rows of two arrays."""
    squares: Array = np.maximum((x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T, 0.0)
    return squares


@lru_cache(maxsize=10_000)
def _against_constant(curve: tuple[float, ...], steps: float) -> tuple[float, float]:
    """r and k of a curve."""
    steps = max(steps, len(curve))
    bound, constant = convex_bound(curve, steps), convex_bound((1.0,) * len(curve), steps)
    return float(np.log10(bound.best_peak / constant.best_peak)), float(np.log(bound.quality / constant.quality))


def missing_progress(u: Array, bend: Array) -> Array:
    """Return g, shape (sets, n): it grows towards short trainings like length**-bend, from 0 at full length, with a
    slope of 1 a decade at a tenth of the length. `bend` is an exponent for each set, shape (sets,)."""
    exponent = bend[:, None] * np.log(10)
    missing: Array = np.expm1(-exponent * u) / (exponent * np.exp(exponent))
    return missing


def expected(places: Places, x: float, bend: Array) -> tuple[Array, Array]:
    """Return the means of q, (sets, n), but for its level, and of b, (n,); `x` is log10 of the constant LR that is
    expected to be best at full length."""
    q = QUALITY[0] * places.k + FALLS[0] * missing_progress(places.u, bend)
    b = x + PEAK[0] * places.r + MOVES[0] * places.u + MOVES_LESS[0] * places.u * places.r
    return q, b


def covariance(a: Places, b: Places, decades: float, freedom: Array, bend: Array) -> tuple[Array, Array]:
    """Return the covariances of q and of b between two lists of places, each of shape (sets, n, m).

    `decades` is the standard deviation of b of a constant LR at full length; `freedom`, shape (sets,), scales the
    standard deviations of what is left."""
    alike = a.alike(b)
    u = np.multiply.outer(a.u, b.u)
    missing = missing_progress(a.u, bend)[:, :, None] * missing_progress(b.u, bend)[:, None, :]
    bent = np.exp(-((np.subtract.outer(a.u, b.u) / BENT_DECADES) ** 2) / 2)
    left_q = alike * (QUALITY_OWN**2 + QUALITY_OWN_SLOPE**2 * missing + QUALITY_BENT**2 * bent)
    left_b = alike * (PEAK_OWN**2 + PEAK_OWN_SLOPE**2 * u + PEAK_BENT**2 * bent)
    line_q = LEVEL**2 + FALLS[1] ** 2 * missing + QUALITY[1] ** 2 * np.multiply.outer(a.k, b.k)
    line_b = decades**2 + MOVES[1] ** 2 * u + PEAK[1] ** 2 * np.multiply.outer(a.r, b.r)
    line_b = line_b + MOVES_LESS[1] ** 2 * np.multiply.outer(a.u * a.r, b.u * b.r)
    if a.others.shape[1]:
        others = a.others_alike(b)
        line_q, line_b = line_q + OTHER_QUALITY**2 * others, line_b + OTHER_PEAK**2 * others
    left_q, left_b = left_q + QUALITY_BENT_TOGETHER**2 * bent, left_b + PEAK_BENT_TOGETHER**2 * bent
    squared = freedom[:, None, None] ** 2
    return line_q + squared * left_q, line_b + squared * left_b
