"""Robust statistics of a loss curve: its noise, medians over windows, thinning and smoothing.

Medians stand where means would do for normal noise, since the loss of a training has spikes.

Notation

    symbol   meaning                                                     unit   shape
    losses   training loss of consecutive steps, finite                  loss   (n,)
    x        values of consecutive steps                                 any    (n,)
    window   number of values that a median or a mean is taken over      1      ()
    sigma    standard deviation of one loss around its trend             loss   ()
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# A smoothing window is this part of the curve, a third of a decade on a ramp over six decades. That is wide enough to
# average a noisy basin, and narrow enough to leave its edges where they are.
SMOOTHING = 1 / 15
# A curve longer than this is thinned by medians of blocks before it is smoothed. That loses nothing: the landmarks are
# no finer than the smoothing window.
MAX_POINTS = 500
# The standard deviation of a normal variable in units of its median absolute deviation.
MAD_TO_SIGMA = 1.4826


def noise_sigma(losses: Array) -> float:
    """Return the standard deviation of one loss around its trend; 0 for fewer than three losses.

    It is estimated from the median of the second differences, so that spikes hardly count.
    """
    if len(losses) < 3:
        return 0.0
    # The second difference of white noise has six times its variance. It removes a constant slope.
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(np.diff(losses, 2)))) / math.sqrt(6)
    rounding = 8 * float(np.finfo(np.float64).eps * np.abs(losses).max())
    return max(sigma, rounding)


def trailing_median(x: Array, window: int) -> Array:
    """Return the median of the last `window` values at each place, shape (n,).

    It is NaN where there are not yet so many values. A comparison with NaN is false.
    """
    result = np.full(len(x), np.nan)
    if len(x) >= window:
        result[window - 1 :] = row_medians(np.lib.stride_tricks.sliding_window_view(x, window))
    return result


def trailing_median_above(x: Array, window: int, limits: Array) -> NDArray[np.bool_]:
    """Return whether the median of the last `window` values lies above the limit, for the last places of `x`.

    `window` is odd and at most 255; `limits` has shape (k,), and so has the result. The values above the limit are
    counted, which takes a tenth of the time that the medians take.
    """
    above = np.zeros(len(limits), dtype=np.uint8)
    for back in range(window):
        end = len(x) - back
        above += x[end - len(limits) : end] > limits
    return above > window // 2


def row_medians(rows: Array) -> Array:
    """Return the median of each row of a matrix without NaN: (n, m) to (n,).

    np.median gives the same figures, but it looks for NaN first and takes several times as long.
    """
    return _medians_of_sorted(np.sort(rows, axis=1))


def thin(x: Array, losses: Array) -> tuple[Array, Array]:
    """Return at most MAX_POINTS points of a curve: medians over blocks of equal size, of which the last may be smaller.

    `x` must not fall. Shapes (n,), (n,) to (k,), (k,).
    """
    size = math.ceil(len(x) / MAX_POINTS)
    if size == 1:
        return x, losses
    whole = len(x) // size * size
    thin_x = _medians_of_sorted(x[:whole].reshape(-1, size))
    thin_losses = row_medians(losses[:whole].reshape(-1, size))
    if whole == len(x):
        return thin_x, thin_losses
    return np.append(thin_x, np.median(x[whole:])), np.append(thin_losses, np.median(losses[whole:]))


def smoothing_window(length: int) -> int:
    """Return the window that a curve of `length` points is smoothed over: an odd number, at least 3."""
    return max(3, round(length * SMOOTHING) // 2 * 2 + 1)


def smooth(losses: Array) -> Array:
    """Return a running mean of a running median, each over `smoothing_window` points; shape (n,).

    The curve is mirrored at its ends.
    """
    half = smoothing_window(len(losses)) // 2
    smoothed: Array = np.mean(_neighbourhoods(row_medians(_neighbourhoods(losses, half)), half), axis=1)
    return smoothed


def _neighbourhoods(x: Array, half: int) -> Array:
    """Return each point with `half` points on either side: (n,) to (n, 2 half + 1)."""
    return np.lib.stride_tricks.sliding_window_view(np.pad(x, half, mode="symmetric"), 2 * half + 1)


def _medians_of_sorted(ascending: Array) -> Array:
    """Return the medians of rows that rise: (n, m) to (n,)."""
    half = ascending.shape[1] // 2
    if ascending.shape[1] % 2:
        return ascending[:, half]
    medians: Array = (ascending[:, half - 1] + ascending[:, half]) / 2
    return medians
