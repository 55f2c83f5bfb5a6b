"""What other LR finders suggest, by their definitions: fastai, Lightning and pytorch-lr-finder.

Each takes the LRs and the training losses of every step of its own default ramp (`landscapes.landscape.RAMPS`), does
its own smoothing and early stopping, and returns an LR, or None where it has no answer or raises. As they are: with
their treatment of NaN, and with what they skip at either end.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rule = Callable[[Array, Array], float | None]


def _until(losses: Array, factor: float, first: int) -> int:
    """How many smoothed losses there are when the ramp stops: at the first, from step `first` on, above `factor` times
    the best so far. NaN is above nothing."""
    best = np.fmin.accumulate(losses)
    with np.errstate(invalid="ignore"):
        stops = np.flatnonzero(losses[first:] > factor * best[first:])
    return first + int(stops[0]) + 1 if len(stops) else len(losses)


def _average(losses: Array, keep: float, correction: Array) -> Array:
    """The running average that keeps so much of its past, from 0, divided by `correction`."""
    averages, average = np.empty(len(losses)), 0.0
    for step, loss in enumerate(losses):
        average = keep * average + (1 - keep) * loss
        averages[step] = average
    return averages / correction


# --- fastai: smoothed losses without the first tenth and the last five


def _fastai(rule: Rule) -> Rule:
    def read(lrs: Array, losses: Array) -> float | None:
        smoothed = _average(losses, 0.98, 1 - 0.98 ** np.arange(1, len(losses) + 1, dtype=np.float64))
        end = max(0, _until(smoothed, 4, 0) - 5)
        lrs, smoothed = lrs[len(losses) // 10 : end], smoothed[len(losses) // 10 : end]
        bad = np.flatnonzero(np.isnan(smoothed))
        if len(bad):
            lrs, smoothed = lrs[: bad[0]], smoothed[: bad[0]]
        return rule(lrs, smoothed) if len(lrs) > 1 else None

    return read


@_fastai
def valley(lrs: Array, losses: Array) -> float | None:
    """Half-way through the longest falling subsequence, counted in steps back from its end."""
    lengths = np.ones(len(losses), dtype=int)
    for i in range(1, len(losses)):
        higher = lengths[:i][losses[:i] > losses[i]]
        lengths[i] = 1 + (higher.max() if len(higher) else 0)
    end = int(lengths.argmax())
    third = lengths[end] / 3
    return float(lrs[end - lengths[end] + int(third) + int(third / 2)])


@_fastai
def slide(lrs: Array, losses: Array) -> float | None:
    """From the right end leftwards, 15 steps wide, while the slopes at the window's two ends differ by over 0.005."""
    slopes = np.gradient(losses)
    left = len(losses) - 16
    if left < 0:
        return None
    chosen = left
    while left >= 0 and abs(slopes[left + 15] - slopes[left]) > 0.005:
        chosen = left
        left -= 1
    return float(lrs[chosen])


@_fastai
def minimum(lrs: Array, losses: Array) -> float | None:
    """A tenth of the LR of the lowest loss."""
    return float(lrs[losses.argmin()]) / 10


@_fastai
def steep(lrs: Array, losses: Array) -> float | None:
    """Where the loss falls most steeply over log LR."""
    return float(lrs[(np.diff(losses) / np.diff(np.log(lrs))).argmin()])


def lightning(lrs: Array, losses: Array) -> float | None:
    """Where the smoothed loss falls most steeply over the LR itself, without the first ten steps and the last."""
    # Its correction is that of one step more than there were.
    smoothed = _average(losses, 0.98, 1 - 0.98 ** np.arange(2, len(losses) + 2, dtype=np.float64))
    end = max(0, _until(smoothed, 4, 1) - 1)
    lrs, smoothed = lrs[10:end], smoothed[10:end]
    finite = np.isfinite(smoothed)
    lrs, smoothed = lrs[finite], smoothed[finite]
    return float(lrs[np.gradient(smoothed, lrs).argmin()]) if len(lrs) > 1 else None


def lr_finder(lrs: Array, losses: Array) -> float | None:
    """Where the smoothed loss falls most steeply from one step to the next, without the first ten and the last five.

    It smooths from the first loss on, and a NaN counts as the steepest fall.
    """
    smoothed = losses.copy()
    for step in range(1, len(losses)):
        smoothed[step] = 0.05 * losses[step] + 0.95 * smoothed[step - 1]
    end = max(0, _until(smoothed, 5, 0) - 5)
    lrs, smoothed = lrs[10:end], smoothed[10:end]
    return float(lrs[np.gradient(smoothed).argmin()]) if len(lrs) > 1 else None


# By name: the ramp and the rule.
PEERS: dict[str, tuple[str, Rule]] = {
    "fastai valley": ("fastai", valley),
    "fastai slide": ("fastai", slide),
    "fastai minimum": ("fastai", minimum),
    "fastai steep": ("fastai", steep),
    "Lightning": ("lightning", lightning),
    "pytorch-lr-finder": ("lr_finder", lr_finder),
}
