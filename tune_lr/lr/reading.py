"""Reading the curve of an LR range test: where the model has fallen, and where the loss turns up or diverges."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tune_lr.errors import InputError
from tune_lr.lr.divergence import WINDOW, first_divergence
from tune_lr.lr.smoothing import noise_sigma, smooth_losses, smoothing_window, thin

Array = NDArray[np.float64]
Interval = tuple[float, float]


# A curve has fallen when its smoothed minimum lies this many standard errors below the plateau. Pure noise stays above,
# although the minimum over all windows is taken (see the test that counts).
FALL_ERRORS = 6.0
# At the end of a ramp without divergence the loss has turned up when it left the basin by this many standard errors:
# one place is looked at, not the best of many.
RISE_ERRORS = 3.0
# The basin: the LRs whose smoothed loss gave back at most this part of the fall.
BASIN = 0.2
# The basin of a smaller fall ends in the noise. Where the loss diverges, that LR is then the better landmark.
READABLE_ERRORS = RISE_ERRORS / BASIN
# The model has fallen when it made this part of the fall.
FALLEN = 0.9
# Of the exponential ramp whose LRs stand for distances: that of the default, 300 steps over six decades.
STEPS_PER_DECADE = 50
MEDIAN_ERROR = 1.2533
# A curve that diverged without having fallen was too high from the start when that happened within so many steps (what
# the detector needs to be sure, twice) or within half a decade; later than that, it had a plateau to fall from.
START_STEPS = 2 * WINDOW
START_RATIO = 10**0.5
# Fewer points hold no plateau, minimum and rise.
MIN_POINTS = 5
# At lower LRs a training as long as the ramp is still falling when it ends.
LOW = 0.67
# 1.3 decades in all, less where the basin ends sooner: no schedule was best at more than twice its end.
HIGH = 13.0
BEYOND = 2.0
# The best constant LR lies between two limits: where the model has fallen, so that the budget suffices, and the end of
# the basin, where training breaks. A quarter of the way, on a log scale, and this part of that.
TO_THE_END = 0.25
SUGGESTION = 0.75
# Where no clear fall is seen before the loss diverges, as multiples of the LR that diverged: low, suggestion, high.
# These bounds hold the best LRs of seven workloads of eight.
FROM_DIVERGENCE = (0.01, 0.1, 1.0)


@dataclass(frozen=True)
class CutCurve:
    """A curve up to its divergence: LRs, losses and distances of shape (n,), n >= 0, all finite.

    A distance is the sum of all LRs so far, as the LR at which a ramp of STEPS_PER_DECADE has such a sum.
    """

    lrs: Array
    losses: Array
    distances: Array
    divergence_lr: float | None
    start_lr: float


@dataclass(frozen=True)
class Reading:
    """One curve, read: its status and, where that is ok, the LR at which the model has fallen and its basin's ends, or
    else the LR that diverged."""

    status: str
    fallen: float = math.nan
    basin: Interval = (math.nan, math.nan)
    edge: float | None = None

    @property
    def low(self) -> float:
        if self.edge is not None:
            return FROM_DIVERGENCE[0] * self.edge
        return LOW * self.fallen

    @property
    def suggestion(self) -> float:
        if self.edge is not None:
            return FROM_DIVERGENCE[1] * self.edge
        # `fallen` is never beyond the basin, so this is never below `low`.
        return min(self.high, SUGGESTION * self.fallen * math.pow(self.basin[1] / self.fallen, TO_THE_END))

    @property
    def high(self) -> float:
        if self.edge is not None:
            return FROM_DIVERGENCE[2] * self.edge
        return min(HIGH * self.fallen, BEYOND * self.basin[1])


def parse_curve(lrs: ArrayLike, losses: ArrayLike, index: int) -> tuple[Array, Array]:
    """One curve as float arrays, or InputError."""
    lr, loss = np.asarray(lrs, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if lr.ndim != 1 or lr.shape != loss.shape or len(lr) == 0:
        raise InputError(
            f"curve {index}: LRs and losses (got shapes {lr.shape}, {loss.shape}) must be 1-D, equally long, not empty"
        )
    wrong = np.flatnonzero(~(np.isfinite(lr) & (lr > 0)))
    if len(wrong):
        raise InputError(f"curve {index}: LR of step {wrong[0]} (got {lr[wrong[0]]}) must be positive and finite")
    falling = np.flatnonzero(np.diff(lr) < 0)
    if len(falling):
        step = falling[0] + 1
        raise InputError(f"curve {index}: LR of step {step} (got {lr[step]} after {lr[step - 1]}) must not fall")
    return lr, loss


def cut_at_divergence(lrs: Array, losses: Array) -> CutCurve:
    end = first_divergence(losses)
    # The sum of an exponential ramp's LRs is its last one times its steps in a factor of e.
    distances = np.cumsum(lrs[:end]) * (math.log(10) / STEPS_PER_DECADE)
    return CutCurve(lrs[:end], losses[:end], distances, None if end is None else float(lrs[end]), float(lrs[0]))


def every_third(cut: CutCurve, first: int) -> CutCurve:
    steps = slice(first, None, 3)
    return replace(cut, lrs=cut.lrs[steps], losses=cut.losses[steps], distances=cut.distances[steps])


def pool(cuts: Sequence[CutCurve]) -> CutCurve:
    """The median over the replicates at each LR of the longest one, cut where half of them have diverged."""
    longest = max(cuts, key=lambda cut: len(cut.lrs))
    grid = longest.lrs
    rows = np.full((len(cuts), len(grid)), np.nan)
    for row, cut in zip(rows, cuts, strict=True):
        length = len(cut.lrs)
        if np.allclose(cut.lrs, grid[:length], rtol=1e-6, atol=0):
            row[:length] = cut.losses
            beyond = np.arange(len(grid)) >= length
        else:
            row[:] = np.interp(np.log(grid), np.log(cut.lrs), cut.losses, left=np.nan, right=np.nan)
            beyond = grid > cut.lrs[-1]
        if cut.divergence_lr is not None:
            row[beyond] = np.inf
    pooled = np.nanmedian(rows, axis=0) if len(grid) else np.empty(0)
    diverged = np.flatnonzero(np.isinf(pooled))
    start = min(cut.start_lr for cut in cuts)
    if len(diverged):
        end = int(diverged[0])
        return CutCurve(grid[:end], pooled[:end], longest.distances[:end], float(grid[end]), start)
    # Where all of them diverged at the same step, the pooled curve ends with them.
    lrs = [cut.divergence_lr for cut in cuts if cut.divergence_lr is not None]
    divergence_lr = float(np.median(lrs)) if 2 * len(lrs) >= len(cuts) else None
    return CutCurve(grid, pooled, longest.distances, divergence_lr, start)


def read(cut: CutCurve) -> Reading:
    """Decides on one curve that ends at its divergence, if it has one."""
    diverged = cut.divergence_lr is not None
    not_fallen = Reading("no_descent")
    if cut.divergence_lr is not None:
        at_start = len(cut.lrs) < START_STEPS or cut.divergence_lr <= START_RATIO * cut.start_lr
        not_fallen = Reading("diverged_at_start") if at_start else Reading("ok", edge=cut.divergence_lr)
    if len(cut.lrs) < MIN_POINTS:
        return not_fallen

    steps, losses = thin(np.arange(len(cut.losses), dtype=np.float64), cut.losses)
    lrs, distances = cut.lrs[steps.astype(int)], cut.distances[steps.astype(int)]
    smoothed, window = smooth_losses(losses), smoothing_window(len(losses))
    error = MEDIAN_ERROR * noise_sigma(losses) / math.sqrt(window)
    # The lower of two estimates: a loss that only rises has its minimum at the first point, and has not fallen.
    plateau, lowest = min(float(np.median(losses[:window])), float(smoothed[0])), float(smoothed.min())
    fall = plateau - lowest
    if fall <= (READABLE_ERRORS if diverged else FALL_ERRORS) * error:
        # A ramp too short for the detector, which only rose, was too high from the start as well.
        rose = not diverged and smoothed[-1] > plateau + FALL_ERRORS * error
        return Reading("diverged_at_start") if rose else not_fallen
    given_back = max(BASIN * fall, RISE_ERRORS * error)
    if not diverged and smoothed[-1] <= lowest + given_back:
        return Reading("no_divergence")

    basin = np.flatnonzero(smoothed <= lowest + given_back)
    below, above = float(lrs[basin[0]]), float(lrs[basin[-1]])
    # The lowest of many noisy values lies below what the model has reached.
    fallen = int(np.flatnonzero(smoothed <= lowest + max((1 - FALLEN) * fall, RISE_ERRORS * error))[0])
    # However slow the ramp, and however far it has travelled: never beyond the LR at which the loss turns up.
    return Reading("ok", min(float(distances[fallen]), above), (below, above))


def smooth_curve(lrs: ArrayLike, losses: ArrayLike) -> Array:
    """The curve that the bounds are read from, for pictures: running median, then running mean.

    Takes 1-D arrays of equal length n, as `find_lr_bounds`, with its errors; returns shape (n,), NaN from the step that
    diverged on.
    """
    parsed_lrs, parsed_losses = parse_curve(lrs, losses, 0)
    end = first_divergence(parsed_losses)
    smoothed = np.full(len(parsed_lrs), np.nan)
    if end != 0:
        steps = np.arange(len(parsed_losses[:end]), dtype=np.float64)
        thin_steps, thin_losses = thin(steps, parsed_losses[:end])
        smoothed[:end] = np.interp(steps, thin_steps, smooth_losses(thin_losses))
    return smoothed
