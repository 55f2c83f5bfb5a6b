"""The convex last-iterate bound of an LR schedule: which peak LR suits it, and how good it is, from its curve alone.

For a convex, G-Lipschitz loss and SGD whose start is at the distance D from the minimum, the loss at the last of T
steps with the LRs gamma * s_1 .. gamma * s_T lies above the minimum by at most

    D**2 * t1 / gamma + G**2 * gamma * (t2 + t3)

(Defazio, Cutkosky, Mehta and Mishchenko, "Optimal linear decay learning rate schedules and further refinements", 2023;
Schaipp, Haegele, Taylor, Simsekli and Bach, "The surprising agreement between convex optimization theory and
learning-rate scheduling for large model training", ICML 2025). The peak that makes it smallest is
D / G * sqrt(t1 / (t2 + t3)), and the bound is then D * G * 2 * sqrt(t1 * (t2 + t3)). D and G belong to the model and
its data, so only the ratios between schedules and between lengths mean something. Real trainings are not convex: the
ratios are a starting point for a model that learns from trainings (docs/long_trainings.md).

Notation

    symbol  meaning                                            unit        shape
    s       LR / peak LR at every step, or at places of them   1           (P,)
    T       the optimizer steps of the training                steps       ()
    n       how many steps one place of the curve stands for   steps       ()
    S_k     sum of s_t over the steps t >= k                   steps       (P + 1,) at the places' starts
    Q_k     sum of s_t**2 over the steps t >= k                steps       (P + 1,) at the places' starts
    t1      1 / (2 S_1)                                        1 / steps   ()
    t2      Q_1 / (2 S_1)                                      1           ()
    t3      1/2 sum_{k<T} s_k / S_{k+1} * Q_k / S_k            1           ()
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

Array = NDArray[np.float64]

# A factor that is so many times smaller than the largest moves nothing, and would only lose digits.
NEGLIGIBLE = 1e-12


@dataclass(frozen=True)
class ConvexBound:
    """The three terms of the bound for a schedule with peak 1; see the module for formulas and units."""

    t1: float
    t2: float
    t3: float

    @property
    def best_peak(self) -> float:
        """Return the peak LR that makes the bound smallest, in units of D / G."""
        return math.sqrt(self.t1 / (self.t2 + self.t3))

    @property
    def quality(self) -> float:
        """Return the bound at the best peak, in units of D * G. A smaller bound promises a lower final loss."""
        return 2.0 * math.sqrt(self.t1 * (self.t2 + self.t3))

    def at(self, peak: float, distance: float = 1.0, gradient: float = 1.0) -> float:
        """Return the bound at a peak LR, for the distance D to the minimum and the largest gradient norm G."""
        return distance**2 * self.t1 / peak + gradient**2 * peak * (self.t2 + self.t3)


def convex_bound(factors: ArrayLike, steps: float | None = None) -> ConvexBound:
    """Return the terms of the bound for a schedule.

    `factors` are LR / peak LR, shape (P,), finite and not negative: one for each optimizer step or, with `steps`, at
    P places of a training of so many steps, each of which stands for steps / P of them. The sums over the steps of a
    place are taken in closed form, so the cost is O(P) for any number of steps, and the result equals the plain double
    sum over the steps. Steps at the end with a factor of 0 change no weight and do not count.

    Raises ValueError for factors that are empty, negative, not finite or all zero, and for `steps` below P.
    """
    s = np.asarray(factors, dtype=np.float64)
    if s.ndim != 1 or not len(s) or not np.isfinite(s).all() or (s < 0).any() or not s.any():
        raise ValueError("factors must be a list of finite numbers from 0 up, and one of them above 0")
    if steps is not None and not steps >= len(s):
        raise ValueError(f"steps (got {steps}) must be at least the number of factors, {len(s)}")
    n = 1.0 if steps is None else steps / len(s)
    s = s[: np.flatnonzero(s)[-1] + 1]
    s = np.where(s > NEGLIGIBLE * s.max(), s, 0.0)
    s_sum = n * _sums_to_the_end(s)
    q_sum = n * _sums_to_the_end(s**2)
    return ConvexBound(
        t1=float(1 / (2 * s_sum[0])),
        t2=float(q_sum[0] / (2 * s_sum[0])),
        t3=float(_t3_of_places(s, s_sum[1:], q_sum[1:], n).sum() / 2),
    )


def _sums_to_the_end(x: Array) -> Array:
    """Return the sum of `x` from each place to the end, and a last 0: (P,) to (P + 1,)."""
    sums: Array = np.append(np.cumsum(x[::-1])[::-1], 0.0)
    return sums


def _t3_of_places(s: Array, a: Array, b: Array, n: float) -> Array:
    """Return what the steps of each place add to the sum in t3; all of shape (P,).

    `a` and `b` are the sums of the factors and of their squares over the steps after the place. Inside the place the
    step with j more steps behind it has S_{k+1} = a + s j, S_k = a + s (j + 1) and Q_k = b + s**2 (j + 1). With
    s / (S_{k+1} S_k) = 1 / S_{k+1} - 1 / S_k and Q_k = (b - s a) + s S_k the sum over j = 0 .. n - 1 is

        (b - s a) (1 / a - 1 / (a + s n)) + s (digamma(a / s + n) - digamma(a / s)).

    In the last place a = b = 0 and the last step, which has none behind it, is left out: s (digamma(n) - digamma(1)).
    """
    found = np.zeros_like(s)
    moving = np.flatnonzero(s[:-1] > 0)
    s_in, a_in, b_in = s[moving], a[moving], b[moving]
    telescoped = (b_in - s_in * a_in) * s_in * n / (a_in * (a_in + s_in * n))
    found[moving] = telescoped + s_in * (digamma(a_in / s_in + n) - digamma(a_in / s_in))
    found[-1] = s[-1] * (digamma(n) - digamma(1.0)) if n > 1 else 0.0
    return found
