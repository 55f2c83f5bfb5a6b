"""A curve of an LR range test as it is read: checked, cut at its divergence, pooled with its replicates, smoothed.

How far a model gets depends on the LRs of all steps so far more than on the LR of the last one: on their sum, the
distance travelled. A ramp with four times fewer steps makes its fall at a four times higher LR, though the best LRs are
the same. So a curve has a distance at every step. It is written as an LR: the one at which an exponential ramp of
STEPS_PER_DECADE has travelled as far.

Notation

    symbol         meaning                                                    unit   shape
    lrs            LR of every step                                           LR     (n,)
    losses         training loss of every step, before its update             loss   (n,)
    distances      distance travelled by the end of every step                LR     (n,)
    divergence_lr  LR of the step that diverged, None where none did          LR     ()
    start_lr       LR of the first step                                       LR     ()
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tune_lr.errors import InputError
from tune_lr.lr.divergence import first_divergence
from tune_lr.lr.smoothing import smooth, thin

Array = NDArray[np.float64]

# The steps per decade of the default ramp: 300 steps over six decades.
STEPS_PER_DECADE = 50


@dataclass(frozen=True)
class RampCurve:
    """A curve up to its divergence. `lrs`, `losses` and `distances` have shape (n,), n >= 0, and are finite."""

    lrs: Array
    losses: Array
    distances: Array
    divergence_lr: float | None
    start_lr: float

    def every_third_step(self, first: int) -> "RampCurve":
        """Return the steps `first`, `first + 3`, ... of the curve."""
        steps = slice(first, None, 3)
        return replace(self, lrs=self.lrs[steps], losses=self.losses[steps], distances=self.distances[steps])


def parse_curve(lrs: ArrayLike, losses: ArrayLike, index: int) -> tuple[Array, Array]:
    """Return LRs and losses as float arrays of shape (n,), n >= 1.

    `index` is the number of the curve in messages. Raises InputError for arrays that are empty, not 1-D or not equally
    long, and for LRs that are not positive and finite or that fall.
    """
    lr = np.asarray(lrs, dtype=np.float64)
    loss = np.asarray(losses, dtype=np.float64)
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


def cut_at_divergence(lrs: Array, losses: Array) -> RampCurve:
    """Return the curve up to the step before the one that diverged, from what `parse_curve` returns."""
    end = first_divergence(losses)
    # The sum of an exponential ramp's LRs is its last LR times its steps in a factor of e.
    distances = np.cumsum(lrs[:end]) * (math.log(10) / STEPS_PER_DECADE)
    divergence_lr = None if end is None else float(lrs[end])
    return RampCurve(lrs[:end], losses[:end], distances, divergence_lr, start_lr=float(lrs[0]))


def pool(curves: Sequence[RampCurve]) -> RampCurve:
    """Return the median over the replicates at each LR of the longest one, cut where half of them have diverged.

    Beyond its divergence a replicate counts as the worst.
    """
    longest = max(curves, key=lambda curve: len(curve.lrs))
    grid = longest.lrs
    losses = np.array([_losses_on_grid(curve, grid) for curve in curves])
    pooled = np.nanmedian(losses, axis=0) if len(grid) else np.empty(0)
    diverged = np.flatnonzero(np.isinf(pooled))
    start_lr = min(curve.start_lr for curve in curves)
    if len(diverged):
        end = int(diverged[0])
        return RampCurve(grid[:end], pooled[:end], longest.distances[:end], float(grid[end]), start_lr)
    # If all replicates diverged at the same step, the pooled curve ends there with them.
    divergence_lrs = [curve.divergence_lr for curve in curves if curve.divergence_lr is not None]
    divergence_lr = float(np.median(divergence_lrs)) if 2 * len(divergence_lrs) >= len(curves) else None
    return RampCurve(grid, pooled, longest.distances, divergence_lr, start_lr)


def _losses_on_grid(curve: RampCurve, grid: Array) -> Array:
    """Return the losses of a curve at the LRs of `grid`, shape (m,).

    They are infinite beyond the curve's divergence, and NaN where the curve has no such LR.
    """
    losses = np.full(len(grid), np.nan)
    length = len(curve.lrs)
    if np.allclose(curve.lrs, grid[:length], rtol=1e-6, atol=0):
        losses[:length] = curve.losses
        beyond = np.arange(len(grid)) >= length
    else:
        losses[:] = np.interp(np.log(grid), np.log(curve.lrs), curve.losses, left=np.nan, right=np.nan)
        beyond = grid > curve.lrs[-1]
    if curve.divergence_lr is not None:
        losses[beyond] = np.inf
    return losses


def smooth_curve(lrs: ArrayLike, losses: ArrayLike) -> Array:
    """Return the smoothed losses that the bounds are read from, for pictures.

    `lrs` and `losses` have shape (n,) and so has the result, which is NaN from the step that diverged on. Raises
    InputError as `find_lr_bounds` does.
    """
    parsed_lrs, parsed_losses = parse_curve(lrs, losses, 0)
    end = first_divergence(parsed_losses)
    smoothed = np.full(len(parsed_lrs), np.nan)
    if end != 0:
        steps = np.arange(len(parsed_losses[:end]), dtype=np.float64)
        thin_steps, thin_losses = thin(steps, parsed_losses[:end])
        smoothed[:end] = np.interp(steps, thin_steps, smooth(thin_losses))
    return smoothed
