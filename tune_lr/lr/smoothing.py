"""Robust statistics of a loss curve: its noise, medians over windows, thinning and smoothing."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


# Smoothing windows are this part of the curve, a third of a decade on a ramp over six: wide enough to average a noisy
# basin, narrow enough to leave its edges where they are.
SMOOTHING = 1 / 15
# Curves longer than this are thinned by medians of blocks first: the answer is no finer than the smoothing window.
MAX_POINTS = 500
# A standard normal deviate's median absolute value, and the standard error of a median in units of that of a mean.
MAD_TO_SIGMA = 1.4826


def noise_sigma(losses: Array) -> float:
    """The standard deviation of one loss around its trend, from the second differences; spikes hardly count."""
    if len(losses) < 3:
        return 0.0
    # The second difference of white noise has six times its variance, and loses a slope.
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(np.diff(losses, 2)))) / math.sqrt(6)
    rounding = 8 * float(np.finfo(np.float64).eps * np.abs(losses).max())
    return max(sigma, rounding)


def trailing_median(x: Array, window: int) -> Array:
    """The median of the last `window` values at each place; NaN, which compares as false, before there are so many."""
    result = np.full(len(x), np.nan)
    if len(x) >= window:
        result[window - 1 :] = row_medians(np.lib.stride_tricks.sliding_window_view(x, window))
    return result


def trailing_median_above(x: Array, window: int, limits: Array) -> NDArray[np.bool_]:
    """Whether the median of the last `window` values, an odd number of at most 255, lies above the limit: counted,
    which takes a tenth of the time that the median takes. `limits` are those of the last places of x."""
    above = np.zeros(len(limits), dtype=np.uint8)
    for back in range(window):
        end = len(x) - back
        above += x[end - len(limits) : end] > limits
    return above > window // 2


def row_medians(rows: Array) -> Array:
    """np.median of each row, where there is no NaN: np.median looks for one, and takes several times as long."""
    return _middles(np.sort(rows, axis=1))


def _middles(ascending: Array) -> Array:
    """The medians of rows that are sorted."""
    half = ascending.shape[1] // 2
    if ascending.shape[1] % 2:
        return ascending[:, half]
    middles: Array = (ascending[:, half - 1] + ascending[:, half]) / 2
    return middles


def thin(x: Array, losses: Array) -> tuple[Array, Array]:
    """At most MAX_POINTS points: medians of blocks of equal size; the last block may be smaller. `x` never falls."""
    size = math.ceil(len(x) / MAX_POINTS)
    if size == 1:
        return x, losses
    whole = len(x) // size * size
    thin_x, thin_losses = _middles(x[:whole].reshape(-1, size)), row_medians(losses[:whole].reshape(-1, size))
    if whole == len(x):
        return thin_x, thin_losses
    return np.append(thin_x, np.median(x[whole:])), np.append(thin_losses, np.median(losses[whole:]))


def smoothing_window(length: int) -> int:
    """An odd number of points, at least 3."""
    return max(3, round(length * SMOOTHING) // 2 * 2 + 1)


def smooth_losses(losses: Array) -> Array:
    """Running median, then running mean, over `_window` points; the ends are mirrored."""
    half = smoothing_window(len(losses)) // 2
    smoothed: Array = np.mean(_windows(row_medians(_windows(losses, half)), half), axis=1)
    return smoothed


def _windows(x: Array, half: int) -> Array:
    """Shape (n, 2 half + 1): the neighbourhood of each point."""
    return np.lib.stride_tricks.sliding_window_view(np.pad(x, half, mode="symmetric"), 2 * half + 1)
