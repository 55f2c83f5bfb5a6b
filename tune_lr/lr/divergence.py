"""When a training has diverged: `DivergenceDetector` says it of a ramp, `ExplosionDetector` of every other training.

A trial of the search has diverged when its training loss is not finite, or TOO_HIGH times where it began: it is
compared with others anyway, and a schedule may recover. (`worker.evaluation` judges a validation loss that is not
finite, and a value that is not a number in the data already is a failure.) A ramp ends as soon as its loss says nothing
more about the model. A step of a ramp has diverged in any of four cases, which `first_divergence` looks for:

- its loss is not finite, or beyond OVERFLOW;
- its loss explodes: it lies EXPLOSION noises above everything normal;
- the loss got worse: the median of the last WINDOW losses lies above the first plateau by more than the noise;
- the model is lost: for most of LOST_WINDOW steps the loss has given back nearly all that it had gained.

Whether a step has diverged depends on the losses up to it alone.

Notation

    symbol   meaning                                                                    unit   shape
    losses   training loss of every step so far                                         loss   (n,)
    x        the losses before the first that is not finite                             loss   (k,)
    noise    standard deviation of one loss, as far as it is known at each step         loss   (k,)
    plateau  median of the first WINDOW losses                                          loss   ()
    level    median of the last WINDOW losses at each step                              loss   (k,)
    best     lowest level so far                                                        loss   (k,)
    fall     how far the best level lies below the plateau, at least 0                  loss   (k,)
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tune_lr.lr.smoothing import noise_sigma, trailing_median, trailing_median_above

Array = NDArray[np.float64]

# A loss this large is as good as infinite: its square overflows float32.
OVERFLOW = 1e19
# The plateau is the median of this many steps. The noise is measured on about twice as many before anything finite is
# called divergence, except an explosion (below), for which three steps are enough to know the scale of the loss.
WINDOW = 15
EXPLOSION_AFTER = 3
# A single loss that lies this many noises (or falls, whichever is larger) above the highest of the first losses is no
# spike. On LeNet-5 single losses of 140 come from a noise of 0.015.
EXPLOSION = 1e6
# The median of WINDOW noisy losses strays about 0.33 noises. It does not reach four noises above the plateau, not with
# heavy tails, nor with a noise that was itself measured on few steps, nor in tens of thousands of steps.
NOISE_MARGIN = 4.0
# A network that died gives back all it had gained and stays there, often no higher than where it started. Short of the
# edge of stability the loss does the same for some 15 steps and then recovers to a lower minimum (seen on LeNet-5 with
# momentum). So the loss has to stay high over a window that is longer than such an episode.
LOST = 0.9
LOST_WINDOW = 35
# A training loss this many times its first value (or 1, where that is larger) has diverged, though still finite.
TOO_HIGH = 1e3


class DivergenceDetector:
    """Says when the loss of a range test has diverged, so that the rest of the ramp need not be run.

    Give it the training loss of consecutive steps, already reduced over the ranks, so that all of them stop together.
    The module says when a step has diverged. The verdict on a step does not depend on the chunks in which the losses
    come, and never changes afterwards.
    """

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._diverged: int | None = None

    def update(self, losses: Sequence[float]) -> int | None:
        """Take the losses of the next steps; return the step that diverged once it is known, None before that.

        The step is counted from 0, the first loss ever given. All losses so far are looked at again, which takes about
        0.1 ms for 300 of them.
        """
        if self._diverged is None:
            self._losses.extend(float(loss) for loss in losses)
            self._diverged = first_divergence(np.array(self._losses))
        return self._diverged


class ExplosionDetector:
    """Says when a training that is no ramp has diverged. It is used as `DivergenceDetector` is."""

    def __init__(self) -> None:
        self._seen = 0
        self._limit = math.inf

    def update(self, losses: Sequence[float]) -> int | None:
        """Take the losses of the next steps; return the first step that diverged, counted from 0, or None."""
        for loss in losses:
            if self._seen == 0:
                self._limit = TOO_HIGH * max(1.0, abs(loss))
            if not math.isfinite(loss) or loss > self._limit:
                return self._seen
            self._seen += 1
        return None


def first_divergence(losses: Array) -> int | None:
    """Return the first step that has diverged, counted from 0, or None. The losses may be NaN or infinite."""
    with np.errstate(invalid="ignore"):
        overflows = np.flatnonzero(~(np.abs(losses) < OVERFLOW))
    first_overflow = int(overflows[0]) if len(overflows) else None
    x = losses[:first_overflow]
    if len(x) <= EXPLOSION_AFTER:
        return first_overflow
    noise = _noise_so_far(x)
    level = trailing_median(x, WINDOW)
    best = np.fmin.accumulate(level)
    plateau = np.median(x[:WINDOW])
    fall = np.maximum(plateau - best, 0)
    worse = level > plateau + NOISE_MARGIN * noise
    worse[: 2 * WINDOW] = False
    diverged = np.flatnonzero(_exploded(x, noise) | worse | _lost(x, noise, best, fall))
    return int(diverged[0]) if len(diverged) else first_overflow


def _noise_so_far(x: Array) -> Array:
    """Return the noise as it is known at each step, shape (k,); infinite before EXPLOSION_AFTER steps.

    It is that of the first 3, 6, 12, ... losses, so that it need not be computed anew at every step.
    """
    noise = np.full(len(x), np.inf)
    known = EXPLOSION_AFTER
    while known < len(x):
        noise[known : 2 * known] = noise_sigma(x[:known])
        known *= 2
    return noise


def _exploded(x: Array, noise: Array) -> NDArray[np.bool_]:
    """Return whether the loss of each step lies far above the highest before it; shape (k,)."""
    highest = np.maximum.accumulate(x)[:-1]
    lowest = np.minimum.accumulate(x)[:-1]
    # Only the first losses say how high is normal, or a loss that explodes in several leaps would raise its own limit.
    highest[WINDOW:] = highest[WINDOW - 1 : WINDOW]
    exploded = np.zeros(len(x), dtype=bool)
    exploded[1:] = x[1:] > highest + EXPLOSION * np.maximum(noise[1:], highest - lowest)
    return exploded


def _lost(x: Array, noise: Array, best: Array, fall: Array) -> NDArray[np.bool_]:
    """Return whether most of the last LOST_WINDOW losses lie nearly as high as the plateau again; shape (k,)."""
    lost = np.zeros(len(x), dtype=bool)
    if len(x) > LOST_WINDOW:
        # The comparison is with the best before the window: a median over a steep fall lags behind it.
        allowed = np.maximum(LOST * fall[:-LOST_WINDOW], NOISE_MARGIN * noise[LOST_WINDOW:])
        limits = best[:-LOST_WINDOW] + allowed
        lost[LOST_WINDOW:] = trailing_median_above(x, LOST_WINDOW, limits)
    return lost
