"""LR range test: the ramp's shape, and reading its curves into the interval that is worth searching.

A range test trains for a few hundred steps while the LR climbs from far too small to far too large, and records the
training loss of every step. Four pieces, pure but for the one file that is read:

- `Ramp` says which LR each step of the test has;
- `DivergenceDetector` watches the loss as it comes and says when the rest of the ramp is not worth running;
- `find_lr_bounds` reads one or more finished curves into `LRBounds`: an interval for the peak LR, or an honest "no";
- `read_curve` reads a curve that was measured elsewhere, from a CSV file.

How curves are read. Every curve is cut at its divergence; the curves are pooled into one by the median over the
replicates at each LR (a replicate that has diverged counts as the worst); the pooled curve is smoothed. It must fall
below its first plateau by more than the noise explains, and it must turn up again. Two landmarks are then read off:
where most of the fall is made, and where the loss turns up. Both move little from seed to seed, unlike the LR of the
minimum, which lies anywhere in a flat and noisy basin. Slopes are not used: they do not survive noise.

A fall that is not far beyond the noise has no such landmarks. Where the loss then diverges, that LR alone gives bounds,
wide ones.

How far a model gets depends on the LRs of all steps so far more than on the LR of the last: their sum, the distance
travelled. A ramp with four times fewer steps makes its fall at a four times higher LR, though the best LRs are the
same. So the first landmark is that distance, given as the LR at which a ramp of `STEPS_PER_DECADE` has travelled it.

Everything is invariant to a positive scale and an offset of the loss, and moves with the scale of the LR. The exception
is a loss beyond `OVERFLOW`, which counts as infinite.

The LR range test is from Smith, "Cyclical learning rates for training neural networks" (WACV 2017); its use for
one-cycle schedules from Smith and Topin, "Super-convergence: very fast training of neural networks using large learning
rates" (2019).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tune_lr.errors import InputError
from tune_lr.lr.reading import CutCurve, Interval, Reading, cut_at_divergence, every_third, parse_curve, pool, read

# With fewer steps before the basin than this the distance is coarse, and so is the lower end. The reason says so.
FEW_STEPS = 30
# An LR schedule whose LR is on average m times its peak travels as far as a constant LR when its peak is 1/m as high (a
# power of 1), and breaks at the same peak (a power of 0). In between.
PACE = 0.6


def peak_multiplier(mean_factor: float) -> float:
    """Of the suggestion, for the peak of an LR schedule whose LR is on average that share of it: see `PACE`."""
    return math.pow(mean_factor, -PACE)


@dataclass(frozen=True)
class LRBounds:
    """What a range test found: the interval worth searching for the peak LR, or why it cannot say.

    `low`, `high` and `suggestion` are LRs, None unless `status` is "ok"; `suggestion` is for a constant LR, and
    `suggestion_for` for the peak of any LR schedule. Each `*_interval` is the range of that figure:
    over the replicates where at least two could be read alone, else over three thirds of the pooled curve, every third
    step each, and where these cannot be read over the basin. `reason` is one sentence that a user can act on.
    `edge_only` says that no clear fall was seen and all is derived from the LR that diverged; each interval is then
    that from `low` to `high`. `replicates` counts the curves read.
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
        """The suggested peak of an LR schedule whose LR is on average `mean_factor`, in (0, 1], of its peak: 1 for a
        constant LR, 0.5 for a one-cycle or a cosine to 0. At most `high`; None where there is no suggestion.

        Raises InputError for a mean factor outside (0, 1].
        """
        if not 0 < mean_factor <= 1:
            raise InputError(f"mean_factor (got {mean_factor}) must be in (0, 1]")
        if self.suggestion is None or self.high is None:
            return None
        return min(self.high, self.suggestion * peak_multiplier(mean_factor))

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON: tuples become lists; there is no NaN."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "LRBounds":
        """The inverse of `to_dict`. Raises InputError for a missing or unknown key."""
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


def find_lr_bounds(curves: Sequence[tuple[ArrayLike, ArrayLike]]) -> LRBounds:
    """Reads K >= 1 range-test curves, replicates of the same ramp with other seeds, into bounds for the peak LR.

    A curve is a pair (lr, loss) of 1-D arrays of equal length, one entry a step. Curves may differ in length: each ends
    where its ramp was stopped, with the step that diverged as its last. A loss that is not finite ends its curve.
    Points after a curve's divergence (by `DivergenceDetector`) do not change the answer.

    Statuses: "ok"; "no_descent" (no fall beyond the noise, and no divergence); "no_divergence" (still
    falling, or flat, at the ramp's end, so that there is no upper bound); "diverged_at_start" (diverged in the first
    steps, before anything fell). `low` and `high` may lie beyond the ramp's own ends.

    Raises InputError for no curves, an empty curve, shapes that differ or are not 1-D, and LRs that are not positive
    and finite or that fall (equal neighbours are allowed: a staircase).
    """
    if len(curves) == 0:
        raise InputError("curves (got none) must hold at least one range-test curve")
    cuts = [cut_at_divergence(*parse_curve(lrs, losses, index)) for index, (lrs, losses) in enumerate(curves)]
    pooled = cuts[0] if len(cuts) == 1 else pool(cuts)
    answer = read(pooled)
    readings = [answer] if len(cuts) == 1 else [read(cut) for cut in cuts]
    alone = [reading for reading in readings if reading.status == "ok" and reading.edge is None]
    found: dict[str, Any] = {
        "status": answer.status,
        "reason": _reason(answer, pooled),
        "replicates": len(cuts),
        "fallen_lrs": tuple(reading.fallen for reading in alone),
        "divergence_lrs": tuple(cut.divergence_lr for cut in cuts if cut.divergence_lr is not None),
    }
    if answer.status != "ok":
        return LRBounds(low=None, high=None, suggestion=None, **found)

    low, suggestion, high = answer.low, answer.suggestion, answer.high
    if answer.edge is not None:
        found |= dict.fromkeys(("low_interval", "high_interval", "suggestion_interval"), (low, high))
        return LRBounds(low=low, high=high, suggestion=suggestion, edge_only=True, **found)

    if len(alone) < 2:
        # One curve read three times, every third step each: what the noise of its batches does to it.
        thirds = [read(every_third(pooled, first)) for first in range(3)]
        alone = [reading for reading in thirds if reading.status == "ok" and reading.edge is None]

    if not alone:  # nothing could be read a second time: all that is known is the basin
        alone = [replace(answer, fallen=end) for end in answer.basin]

    def interval(name: str) -> Interval:
        values = [getattr(reading, name) for reading in (answer, *alone)]
        return min(values), max(values)

    return LRBounds(
        low=low,
        high=high,
        suggestion=suggestion,
        low_interval=interval("low"),
        high_interval=interval("high"),
        suggestion_interval=interval("suggestion"),
        **found,
    )


def _reason(reading: Reading, cut: CutCurve) -> str:
    """One sentence: what the pooled curve shows, and what to do."""
    first = cut.start_lr
    last = float(cut.lrs[-1]) if len(cut.lrs) else first
    if reading.edge is not None:
        return (
            f"the loss does not fall far enough beyond its noise to be read, and diverges at {reading.edge:.2g}: on "
            f"that alone, search the peak LR from {reading.low:.2g} to {reading.high:.2g}, or take more steps"
        )
    if reading.status == "ok":
        below, above = reading.basin
        end = "rises again" if cut.divergence_lr is None else f"diverges at {cut.divergence_lr:.2g}"
        lower = int(np.searchsorted(cut.lrs, below))
        few = (
            f"; only {lower} steps had a lower LR, so that the lower end is unsure: "
            "take more steps, an exponential ramp or a lower range_test.low"
        )
        return (
            f"the loss is lowest at LRs from {below:.2g} to {above:.2g} and {end}: "
            f"search the peak LR from {reading.low:.2g} to {reading.high:.2g}" + (few if lower < FEW_STEPS else "")
        )
    if reading.status == "no_divergence":
        return (
            f"the loss has not turned up by the end of the ramp, LR {last:.2g}: "
            f"raise range_test.high, to {10 * last:.2g} say"
        )
    if reading.status == "diverged_at_start":
        return (
            f"the loss diverges at LR {cut.divergence_lr or last:.2g}, before it falls: lower range_test.low, "
            f"to {first / 100:.2g} say, and look for NaN in the data"
        )
    return (
        f"the loss does not fall by more than its noise before the end of the ramp, LR {last:.2g}: "
        "raise range_test.high, or take more steps or replicates"
    )
