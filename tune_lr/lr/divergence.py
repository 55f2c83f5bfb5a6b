"""Divergence in an LR range test: from which step on the loss says nothing more."""

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
# One loss that lies this many noises (or falls, whichever is larger) above the highest of the first is no spike. On
# LeNet-5 single losses of 140 come from a noise of 0.015.
EXPLOSION = 1e6
# The median of WINDOW noisy losses strays about 0.33 noises: four noises above the plateau are out of its reach, also
# for heavy tails, a noise that was itself measured on few steps, and tens of thousands of steps.
NOISE_MARGIN = 4.0
# A network that died gives back all it had gained and stays there, often no higher than where it started. Short of the
# edge the loss does the same for some 15 steps and then recovers to a lower minimum (seen on LeNet-5 with momentum), so
# this has to last over a window that is longer than such an episode.
LOST = 0.9
LOST_WINDOW = 35


class DivergenceDetector:
    """Says when the loss of a range test has diverged, so that the rest of the ramp need not be run.

    Feed it the training loss of consecutive steps, already reduced over the ranks, so that all of them stop together.
    A step diverges when its loss is not finite (or beyond `OVERFLOW`); when it explodes; when the median of the last
    `WINDOW` losses lies above the first plateau by more than the noise; or when the loss gave back nearly all that it
    had gained, for most of `LOST_WINDOW` steps. The verdict on a step depends on the losses up to it alone, hence not
    on the chunks in which they come, and never changes afterwards.
    """

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._diverged: int | None = None

    def update(self, losses: Sequence[float]) -> int | None:
        """Takes the losses of the next steps; returns the step that diverged (0-based, counted from the first loss ever
        fed) once that is known, before that None.

        It looks at all losses so far again: about 0.1 ms for 300 of them.
        """
        if self._diverged is None:
            self._losses.extend(float(loss) for loss in losses)
            self._diverged = first_divergence(np.array(self._losses))
        return self._diverged


def first_divergence(losses: Array) -> int | None:
    """The first step that counts as diverged. Whether a step does depends on the losses up to it alone."""
    with np.errstate(invalid="ignore"):
        overflows = np.flatnonzero(~(np.abs(losses) < OVERFLOW))
    end = int(overflows[0]) if len(overflows) else len(losses)
    found = int(overflows[0]) if len(overflows) else None
    x = losses[:end]
    if end <= EXPLOSION_AFTER:
        return found

    # Noise as known at each step: of the first 3, 6, 12, ... losses, so that it need not be taken anew at every step.
    noise = np.full(end, np.inf)
    known = EXPLOSION_AFTER
    while known < end:
        noise[known : 2 * known] = noise_sigma(x[:known])
        known *= 2
    exploded = np.zeros(end, dtype=bool)
    top, bottom = np.maximum.accumulate(x)[:-1], np.minimum.accumulate(x)[:-1]
    # Only the first losses say how high is normal, or a loss that explodes in several leaps would raise its own limit.
    top[WINDOW:] = top[WINDOW - 1 : WINDOW]
    exploded[1:] = x[1:] > top + EXPLOSION * np.maximum(noise[1:], top - bottom)

    plateau = np.median(x[:WINDOW])
    level = trailing_median(x, WINDOW)
    best = np.fmin.accumulate(level)
    fall = np.maximum(plateau - best, 0)
    worse = level > plateau + NOISE_MARGIN * noise
    worse[: 2 * WINDOW] = False
    # Against the best before the window: a median over a steep fall lags behind it.
    lost = np.zeros(end, dtype=bool)
    if end > LOST_WINDOW:
        limits = best[:-LOST_WINDOW] + np.maximum(LOST * fall[:-LOST_WINDOW], NOISE_MARGIN * noise[LOST_WINDOW:])
        lost[LOST_WINDOW:] = trailing_median_above(x, LOST_WINDOW, limits)
    steps = np.flatnonzero(exploded | worse | lost)
    return int(steps[0]) if len(steps) else found
