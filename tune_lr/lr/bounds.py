"""Bounds for the peak LR and a suggestion, read from the curves of an LR range test.

A range test trains for a few hundred steps while the LR rises from far too small to far too large (`ramp`), and records
the training loss of every step. `find_lr_bounds` reads one or more such curves in five steps:

1. every curve is cut at its divergence (`divergence`), and has a distance at each step (`ramp_curve`);
2. the curves are pooled into one by the median over the replicates at each LR (`ramp_curve`);
3. the landmarks are read off the pooled curve (`landmarks`): where most of the fall is made, where the loss turns up;
4. low, high and suggestion are multiples of the landmarks (this module; docs/range_test.md says how they were found);
5. for a training of many more steps they are lowered (`training_length`).

The answer does not change when the losses are multiplied by a positive number or shifted, and it moves with the scale
of the LR. The exception is a loss beyond `divergence.OVERFLOW`, which counts as infinite.

The use of range tests for one-cycle schedules is from Smith and Topin, "Super-convergence: very fast training of neural
networks using large learning rates" (2019).

Notation

    symbol       meaning                                                          unit   shape
    fallen       landmark: the distance at which the model has fallen             LR     ()
    basin        landmark: lowest and highest LR at which the loss is low         LR     (2,)
    edge         landmark: the LR that diverged, where nothing else is known      LR     ()
    low, high    ends of the interval that is worth searching for the peak LR     LR     ()
    suggestion   the LR that a constant LR schedule should try first              LR     ()
    mean_factor  mean LR of an LR schedule / its peak LR, in (0, 1]               1      ()
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tune_lr.errors import InputError
from tune_lr.lr.landmarks import Landmarks, find_landmarks
from tune_lr.lr.ramp_curve import RampCurve, cut_at_divergence, parse_curve, pool
from tune_lr.lr.training_length import (
    HIGH_POWER,
    LOW_POWER,
    REFERENCE_STEPS,
    SUGGESTION_POWER,
    relative_length,
)

Interval = tuple[float, float]

# At LRs below this multiple of `fallen` a training as long as the ramp is still falling when it ends.
LOW = 0.67
# `high` is this multiple of `fallen`, 1.3 decades above `low`. It is less where the basin ends sooner: no schedule was
# best at more than BEYOND times the end of the basin.
HIGH = 13.0
BEYOND = 2.0
# The best constant LR lies between two limits: `fallen`, so that the budget suffices, and the end of the basin, where
# training breaks. The suggestion is so far on the way from the first to the second on a log scale, times SUGGESTION.
TO_THE_END = 0.25
SUGGESTION = 0.75
# If no clear fall is seen before the loss diverges: low, suggestion and high as multiples of the LR that diverged.
# These bounds hold the best LRs of seven workloads of eight.
FROM_DIVERGENCE = (0.01, 0.1, 1.0)
# With fewer steps before the basin than this the distance is coarse, and so is the lower end. The reason says so.
FEW_STEPS = 30
# An LR schedule whose LR is on average m times its peak travels as far as a constant LR if its peak is 1 / m times as
# high (a power of 1), and breaks at the same peak (a power of 0). The suggestion takes a power between them.
PACE = 0.6


def peak_multiplier(mean_factor: float) -> float:
    """Return what the suggestion is multiplied by for the peak of an LR schedule with that mean factor (see PACE)."""
    return math.pow(mean_factor, -PACE)


@dataclass(frozen=True)
class LRBounds:
    """What a range test found: the interval worth searching for the peak LR, or the reason why it cannot say.

    `low`, `high` and `suggestion` are LRs, and None unless `status` is "ok". `suggestion` is for a constant LR,
    `suggestion_for` gives that for the peak of any LR schedule. `reason` is one sentence that a user can act on.
    `replicates` counts the curves read.

    Each `*_interval` is the range of that figure: over the replicates if at least two could be read alone, else over
    three thirds of the pooled curve, every third step each, and if these cannot be read, over the basin. `edge_only`
    says that no clear fall was seen and all is derived from the LR that diverged; each interval is then that from `low`
    to `high`.

    `fallen_lrs` and `divergence_lrs` are the landmarks of the curves that have them, in the curves' order: the LR at
    which the model has fallen, of every curve that reads "ok" alone, and the LR of the step that diverged.
    """

    low: float | None
    high: float | None
    suggestion: float | None
    status: str
    reason: str
    replicates: int
    low_interval: Interval | None = None
    high_interval: Interval | None = None
    suggestion_interval: Interval | None = None
    fallen_lrs: tuple[float, ...] = ()
    divergence_lrs: tuple[float, ...] = ()
    edge_only: bool = False

    def suggestion_for(self, mean_factor: float) -> float | None:
        """Return the suggested peak of an LR schedule whose LR is on average `mean_factor` of its peak.

        The mean factor is 1 for a constant LR and 0.5 for a one-cycle or a cosine to 0. The suggested peak is at most
        `high`, and None where there is no suggestion. Raises InputError for a mean factor outside (0, 1].
        """
        if not 0 < mean_factor <= 1:
            raise InputError(f"mean_factor (got {mean_factor}) must be in (0, 1]")
        if self.suggestion is None or self.high is None:
            return None
        return min(self.high, self.suggestion * peak_multiplier(mean_factor))

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, ready for JSON: tuples become lists, and there is no NaN."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "LRBounds":
        """Return the bounds that `to_dict` has written. Raises InputError for a missing or unknown key."""
        known = {field.name for field in fields(cls)}
        required = {"low", "high", "suggestion", "status", "reason", "replicates"}
        if not required <= data.keys() <= known:
            wrong = sorted((required - data.keys()) | (data.keys() - known))
            raise InputError(
                f"bounds: keys missing or unknown (got {', '.join(wrong)}); allowed are {', '.join(sorted(known))}"
            )
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        return cls(**values)


class _Figures(NamedTuple):
    """Three LRs with low <= suggestion <= high."""

    low: float
    suggestion: float
    high: float


def find_lr_bounds(curves: Sequence[tuple[ArrayLike, ArrayLike]], max_steps: int | None = None) -> LRBounds:
    """Read K >= 1 range-test curves, replicates of the same ramp with other seeds, into bounds for the peak LR.

    The bounds are for trainings of `max_steps` optimizer steps. Without that number they are for trainings of at most
    REFERENCE_STEPS.

    A curve is a pair (lr, loss) of 1-D arrays of equal length, one entry per step. Curves may differ in length: each
    ends where its ramp was stopped, with the step that diverged as its last. A loss that is not finite ends its curve.
    Points after a curve's divergence (by `DivergenceDetector`) do not change the answer.

    The status is one of "ok"; "no_descent" (no fall beyond the noise, and no divergence); "no_divergence" (still
    falling, or flat, at the ramp's end, so that there is no upper bound); "diverged_at_start" (diverged in the first
    steps, before anything fell). `low` and `high` may lie beyond the ramp's own ends.

    Raises InputError for no curves, a `max_steps` below 1, an empty curve, shapes that differ or are not 1-D, and LRs
    that are not positive and finite or that fall. Equal neighbours are allowed, as in a staircase.
    """
    if len(curves) == 0:
        raise InputError("curves (got none) must hold at least one range-test curve")
    if max_steps is not None and max_steps < 1:
        raise InputError(f"max_steps (got {max_steps}) must be at least 1")
    length = relative_length(max_steps)
    replicates = [cut_at_divergence(*parse_curve(lrs, losses, index)) for index, (lrs, losses) in enumerate(curves)]
    if len(replicates) == 1:
        pooled = replicates[0]
        landmarks = find_landmarks(pooled)
        of_replicates = [landmarks]
    else:
        pooled = pool(replicates)
        landmarks = find_landmarks(pooled)
        of_replicates = [find_landmarks(replicate) for replicate in replicates]
    with_fall = [each for each in of_replicates if each.has_fall]
    bounds = LRBounds(
        low=None,
        high=None,
        suggestion=None,
        status=landmarks.status,
        reason=_reason(landmarks, pooled, length),
        replicates=len(replicates),
        fallen_lrs=tuple(each.fallen for each in with_fall),
        divergence_lrs=tuple(each.divergence_lr for each in replicates if each.divergence_lr is not None),
    )
    if landmarks.status != "ok":
        return bounds
    figures = _figures(landmarks, length)
    if landmarks.edge is not None:
        whole = figures.low, figures.high
        intervals = whole, whole, whole
    else:
        intervals = _intervals(landmarks, with_fall, pooled, length)
    return replace(
        bounds,
        **figures._asdict(),
        low_interval=intervals[0],
        suggestion_interval=intervals[1],
        high_interval=intervals[2],
        edge_only=landmarks.edge is not None,
    )


def _figures(landmarks: Landmarks, length: float) -> _Figures:
    """Return low, suggestion and high for landmarks with the status "ok".

    `length` is that of the training in units of REFERENCE_STEPS, at least 1.
    """
    at_reference = _figures_at_reference(landmarks)
    return _Figures(
        low=at_reference.low * math.pow(length, -LOW_POWER),
        suggestion=at_reference.suggestion * math.pow(length, -SUGGESTION_POWER),
        high=at_reference.high * math.pow(length, -HIGH_POWER),
    )


def _figures_at_reference(landmarks: Landmarks) -> _Figures:
    """Return low, suggestion and high for trainings of at most REFERENCE_STEPS."""
    if landmarks.edge is not None:
        low, suggestion, high = (multiple * landmarks.edge for multiple in FROM_DIVERGENCE)
        return _Figures(low, suggestion, high)
    fallen = landmarks.fallen
    end = landmarks.basin[1]
    high = min(HIGH * fallen, BEYOND * end)
    # `fallen` is never beyond the end of the basin, so the suggestion is never below `low`.
    suggestion = min(high, SUGGESTION * fallen * math.pow(end / fallen, TO_THE_END))
    return _Figures(LOW * fallen, suggestion, high)


def _intervals(
    landmarks: Landmarks, of_replicates: Sequence[Landmarks], pooled: RampCurve, length: float
) -> tuple[Interval, Interval, Interval]:
    """Return the ranges of low, suggestion and high over repeated readings; see `LRBounds`.

    `landmarks` are those of the pooled curve, `of_replicates` those of the replicates with a clear fall.
    """
    repeated = list(of_replicates)
    if len(repeated) < 2:
        # One curve is read three times, every third step each: this shows what the noise of its batches does to it.
        thirds = [find_landmarks(pooled.every_third_step(first)) for first in range(3)]
        repeated = [third for third in thirds if third.has_fall]
    if not repeated:
        # Nothing could be read a second time. All that is known is the basin.
        repeated = [replace(landmarks, fallen=end) for end in landmarks.basin]
    low, suggestion, high = zip(*(_figures(each, length) for each in (landmarks, *repeated)), strict=True)
    return (min(low), max(low)), (min(suggestion), max(suggestion)), (min(high), max(high))


def _reason(landmarks: Landmarks, curve: RampCurve, length: float) -> str:
    """Return one sentence: what the pooled curve shows, and what to do."""
    first = curve.start_lr
    last = float(curve.lrs[-1]) if len(curve.lrs) else first
    status = landmarks.status
    if status == "ok":
        return _reason_for_bounds(landmarks, curve, length)
    if status == "no_divergence":
        return (
            f"the loss has not turned up by the end of the ramp, LR {last:.2g}: "
            f"raise range_test.high, to {10 * last:.2g} say"
        )
    if status == "diverged_at_start":
        return (
            f"the loss diverges at LR {curve.divergence_lr or last:.2g}, before it falls: lower range_test.low, "
            f"to {first / 100:.2g} say, and look for NaN in the data"
        )
    return (
        f"the loss does not fall by more than its noise before the end of the ramp, LR {last:.2g}: "
        "raise range_test.high, or take more steps or replicates"
    )


def _reason_for_bounds(landmarks: Landmarks, curve: RampCurve, length: float) -> str:
    """Return the reason where there are bounds."""
    low, _, high = _figures(landmarks, length)
    search = f"search the peak LR from {low:.2g} to {high:.2g}"
    if length > 1:
        search += f" in trainings of {round(length * REFERENCE_STEPS):,} steps"
    if landmarks.edge is not None:
        return (
            f"the loss does not fall far enough beyond its noise to be read, and diverges at {landmarks.edge:.2g}: on "
            f"that alone, {search}, or take more steps"
        )
    below, above = landmarks.basin
    end = "rises again" if curve.divergence_lr is None else f"diverges at {curve.divergence_lr:.2g}"
    reason = f"the loss is lowest at LRs from {below:.2g} to {above:.2g} and {end}: {search}"
    if curve.divergence_lr is not None and high > curve.divergence_lr:
        reason += "; that is above the LR that diverged, since a schedule with a short peak bears more than a ramp"
    steps_below = int(np.searchsorted(curve.lrs, below))
    if steps_below < FEW_STEPS:
        reason += (
            f"; only {steps_below} steps had a lower LR, so that the lower end is unsure: "
            "take more steps, an exponential ramp or a lower range_test.low"
        )
    return reason
