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

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tune_lr.errors import InputError, suggestion

Array = NDArray[np.float64]
Interval = tuple[float, float]

MODES = ("exponential", "linear", "staircase")

# --- divergence ---
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

# --- reading ---
# Smoothing windows are this part of the curve, a third of a decade on a ramp over six: wide enough to average a noisy
# basin, narrow enough to leave its edges where they are.
SMOOTHING = 1 / 15
# Curves longer than this are thinned by medians of blocks first: the answer is no finer than the smoothing window.
MAX_POINTS = 500
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
# A standard normal deviate's median absolute value, and the standard error of a median in units of that of a mean.
MAD_TO_SIGMA = 1.4826
MEDIAN_ERROR = 1.2533
# A curve that diverged without having fallen was too high from the start when that happened within so many steps (what
# the detector needs to be sure, twice) or within half a decade; later than that, it had a plateau to fall from.
START_STEPS = 2 * WINDOW
START_RATIO = 10**0.5
# With fewer steps before the basin than this the distance is coarse, and so is the lower end. The reason says so.
FEW_STEPS = 30
# Fewer points hold no plateau, minimum and rise.
MIN_POINTS = 5

# --- bounds, as multiples of the LR at which the model has fallen (see docs/range_test.md) ---
# At lower LRs a training as long as the ramp is still falling when it ends.
LOW = 0.67
# 1.3 decades in all, less where the basin ends sooner: no schedule was best at more than twice its end.
HIGH = 13.0
BEYOND = 2.0
# The best constant LR lies between two limits: where the model has fallen, so that the budget suffices, and the end of
# the basin, where training breaks. A quarter of the way, on a log scale, and this part of that.
TO_THE_END = 0.25
SUGGESTION = 0.75
# An LR schedule whose LR is on average m times its peak travels as far as a constant LR when its peak is 1/m as high (a
# power of 1), and breaks at the same peak (a power of 0). In between.
PACE = 0.6
# Where no clear fall is seen before the loss diverges, as multiples of the LR that diverged: low, suggestion, high.
# These bounds hold the best LRs of seven workloads of eight.
FROM_DIVERGENCE = (0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Ramp:
    """The LR of a range test as a function of the step.

    `low` is the LR of the first step, `high` that of the last, `steps` the number of optimizer steps. Modes:
    "exponential" multiplies by a constant factor each step, "linear" adds a constant, "staircase" holds `stairs` LRs,
    spaced evenly on a log scale, for about `steps / stairs` steps each.

    Raises InputError for LRs that are not 0 < low < high, fewer than 2 steps, an unknown mode, and stairs that are
    missing, given for another mode, fewer than 2 or more than the steps.
    """

    low: float
    high: float
    steps: int
    mode: str = "exponential"
    stairs: int | None = None

    def __post_init__(self) -> None:
        if not (0 < self.low < self.high < math.inf):
            raise InputError(
                f"range_test.low, high (got {self.low}, {self.high}) must be finite LRs with 0 < low < high"
            )
        if self.steps < 2:
            raise InputError(f"range_test.steps (got {self.steps}) must be at least 2")
        if self.mode not in MODES:
            raise InputError(f"range_test.mode (got {self.mode!r}) must be one of {', '.join(MODES)}")
        if self.mode == "staircase":
            if self.stairs is None or not 2 <= self.stairs <= self.steps:
                raise InputError(
                    f"range_test.stairs (got {self.stairs}) must be 2 to steps ({self.steps}) for mode staircase"
                )
        elif self.stairs is not None:
            raise InputError(
                f"range_test.stairs (got {self.stairs}) belongs to mode staircase; the mode is {self.mode}"
            )

    def lr(self, step: int) -> float:
        """The LR of `step`, 0-based. Raises InputError outside 0 <= step < steps."""
        if not 0 <= step < self.steps:
            raise InputError(f"step (got {step}) must lie in the ramp of {self.steps} steps: 0 to {self.steps - 1}")
        if self.stairs is None:
            position, last = step, self.steps - 1
        else:
            position, last = step * self.stairs // self.steps, self.stairs - 1
        # The ends exactly, without rounding.
        if position == 0:
            return self.low
        if position == last:
            return self.high
        fraction = position / last
        if self.mode == "linear":
            return self.low + (self.high - self.low) * fraction
        return float(self.low * (self.high / self.low) ** fraction)

    def over(self, low: float, high: float) -> "Ramp":
        """The same ramp over another range, with as many steps a decade and never fewer in all."""
        wider = math.log(high / low) / math.log(self.high / self.low)
        return replace(self, low=low, high=high, steps=math.ceil(self.steps * max(1.0, wider)))


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
            self._diverged = _first_divergence(np.array(self._losses))
        return self._diverged


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


@dataclass(frozen=True)
class _Reading:
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


@dataclass(frozen=True)
class _Cut:
    """A curve up to its divergence: LRs, losses and distances of shape (n,), n >= 0, all finite.

    A distance is the sum of all LRs so far, as the LR at which a ramp of STEPS_PER_DECADE has such a sum.
    """

    lrs: Array
    losses: Array
    distances: Array
    divergence_lr: float | None
    start_lr: float


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
    cuts = [_cut(*_parse(lrs, losses, index)) for index, (lrs, losses) in enumerate(curves)]
    pooled = cuts[0] if len(cuts) == 1 else _pool(cuts)
    answer = _read(pooled)
    readings = [answer] if len(cuts) == 1 else [_read(cut) for cut in cuts]
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
        thirds = [_read(_every_third(pooled, first)) for first in range(3)]
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


def read_curve(path: Path) -> tuple[list[float], list[float]]:
    """LRs and losses, one a step, from a CSV file with the columns `lr` and `loss`; others, as `step`, are ignored.

    A loss may be nan or inf. Raises InputError, with file and line, for a file that cannot be read, a column that is
    missing, a cell that is no number, and LRs that are not positive and finite or that fall.
    """
    lrs: list[float] = []
    losses: list[float] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = [name.strip() for name in reader.fieldnames or []]
            for name in ("lr", "loss"):
                if name not in header:
                    hint, got = suggestion(name, header), ", ".join(header)[:80] or "nothing"
                    raise InputError(f"{path}:1 {name}: no such column (got {got}){hint}; allowed are step, lr, loss")
            reader.fieldnames = header
            for row in reader:
                place = f"{path}:{reader.line_num}"
                lr, loss = _number(row["lr"], f"{place} lr"), _number(row["loss"], f"{place} loss")
                if not 0 < lr < math.inf:
                    raise InputError(f"{place} lr: must be positive and finite (got {lr:g})")
                if lrs and lr < lrs[-1]:
                    what = f"must not fall from one step to the next (got {lr:g} after {lrs[-1]:g})"
                    raise InputError(f"{place} lr: {what}; write each replicate into a file of its own")
                lrs.append(lr)
                losses.append(loss)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no CSV file"
        raise InputError(f"{path}: cannot be read ({why}); give a CSV file with the columns step, lr, loss") from None
    if not lrs:
        raise InputError(f"{path}: holds no steps; each line after the first is one step: step, lr, loss")
    return lrs, losses


def _number(text: str | None, place: str) -> float:
    try:
        return float(text or "")
    except ValueError:
        what = f"must be a number (got {(text or '')[:40]!r}); a loss may be nan or inf"
        raise InputError(f"{place}: {what}") from None


def smooth(lrs: ArrayLike, losses: ArrayLike) -> Array:
    """The curve that the bounds are read from, for pictures: running median, then running mean.

    Takes 1-D arrays of equal length n, as `find_lr_bounds`, with its errors; returns shape (n,), NaN from the step that
    diverged on.
    """
    parsed_lrs, parsed_losses = _parse(lrs, losses, 0)
    end = _first_divergence(parsed_losses)
    smoothed = np.full(len(parsed_lrs), np.nan)
    if end != 0:
        steps = np.arange(len(parsed_losses[:end]), dtype=np.float64)
        thin_steps, thin_losses = _thin(steps, parsed_losses[:end])
        smoothed[:end] = np.interp(steps, thin_steps, _smooth(thin_losses))
    return smoothed


def _parse(lrs: ArrayLike, losses: ArrayLike, index: int) -> tuple[Array, Array]:
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


def _noise(losses: Array) -> float:
    """The standard deviation of one loss around its trend, from the second differences; spikes hardly count."""
    if len(losses) < 3:
        return 0.0
    # The second difference of white noise has six times its variance, and loses a slope.
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(np.diff(losses, 2)))) / math.sqrt(6)
    rounding = 8 * float(np.finfo(np.float64).eps * np.abs(losses).max())
    return max(sigma, rounding)


def _first_divergence(losses: Array) -> int | None:
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
        noise[known : 2 * known] = _noise(x[:known])
        known *= 2
    exploded = np.zeros(end, dtype=bool)
    top, bottom = np.maximum.accumulate(x)[:-1], np.minimum.accumulate(x)[:-1]
    # Only the first losses say how high is normal, or a loss that explodes in several leaps would raise its own limit.
    top[WINDOW:] = top[WINDOW - 1 : WINDOW]
    exploded[1:] = x[1:] > top + EXPLOSION * np.maximum(noise[1:], top - bottom)

    plateau = np.median(x[:WINDOW])
    level = _trailing_median(x, WINDOW)
    best = np.fmin.accumulate(level)
    fall = np.maximum(plateau - best, 0)
    worse = level > plateau + NOISE_MARGIN * noise
    worse[: 2 * WINDOW] = False
    # Against the best before the window: a median over a steep fall lags behind it.
    lost = np.zeros(end, dtype=bool)
    if end > LOST_WINDOW:
        limits = best[:-LOST_WINDOW] + np.maximum(LOST * fall[:-LOST_WINDOW], NOISE_MARGIN * noise[LOST_WINDOW:])
        lost[LOST_WINDOW:] = _most_above(x, LOST_WINDOW, limits)
    steps = np.flatnonzero(exploded | worse | lost)
    return int(steps[0]) if len(steps) else found


def _trailing_median(x: Array, window: int) -> Array:
    """The median of the last `window` values at each place; NaN, which compares as false, before there are so many."""
    result = np.full(len(x), np.nan)
    if len(x) >= window:
        result[window - 1 :] = _row_medians(np.lib.stride_tricks.sliding_window_view(x, window))
    return result


def _most_above(x: Array, window: int, limits: Array) -> NDArray[np.bool_]:
    """Whether the median of the last `window` values, an odd number of at most 255, lies above the limit: counted,
    which takes a tenth of the time that the median takes. `limits` are those of the last places of x."""
    above = np.zeros(len(limits), dtype=np.uint8)
    for back in range(window):
        end = len(x) - back
        above += x[end - len(limits) : end] > limits
    return above > window // 2


def _row_medians(rows: Array) -> Array:
    """np.median of each row, where there is no NaN: np.median looks for one, and takes several times as long."""
    return _middles(np.sort(rows, axis=1))


def _middles(ascending: Array) -> Array:
    """The medians of rows that are sorted."""
    half = ascending.shape[1] // 2
    if ascending.shape[1] % 2:
        return ascending[:, half]
    middles: Array = (ascending[:, half - 1] + ascending[:, half]) / 2
    return middles


def _thin(x: Array, losses: Array) -> tuple[Array, Array]:
    """At most MAX_POINTS points: medians of blocks of equal size; the last block may be smaller. `x` never falls."""
    size = math.ceil(len(x) / MAX_POINTS)
    if size == 1:
        return x, losses
    whole = len(x) // size * size
    thin_x, thin_losses = _middles(x[:whole].reshape(-1, size)), _row_medians(losses[:whole].reshape(-1, size))
    if whole == len(x):
        return thin_x, thin_losses
    return np.append(thin_x, np.median(x[whole:])), np.append(thin_losses, np.median(losses[whole:]))


def _window(length: int) -> int:
    """An odd number of points, at least 3."""
    return max(3, round(length * SMOOTHING) // 2 * 2 + 1)


def _smooth(losses: Array) -> Array:
    """Running median, then running mean, over `_window` points; the ends are mirrored."""
    half = _window(len(losses)) // 2
    smoothed: Array = np.mean(_windows(_row_medians(_windows(losses, half)), half), axis=1)
    return smoothed


def _windows(x: Array, half: int) -> Array:
    """Shape (n, 2 half + 1): the neighbourhood of each point."""
    return np.lib.stride_tricks.sliding_window_view(np.pad(x, half, mode="symmetric"), 2 * half + 1)


def _cut(lrs: Array, losses: Array) -> _Cut:
    end = _first_divergence(losses)
    # The sum of an exponential ramp's LRs is its last one times its steps in a factor of e.
    distances = np.cumsum(lrs[:end]) * (math.log(10) / STEPS_PER_DECADE)
    return _Cut(lrs[:end], losses[:end], distances, None if end is None else float(lrs[end]), float(lrs[0]))


def _every_third(cut: _Cut, first: int) -> _Cut:
    steps = slice(first, None, 3)
    return replace(cut, lrs=cut.lrs[steps], losses=cut.losses[steps], distances=cut.distances[steps])


def _pool(cuts: Sequence[_Cut]) -> _Cut:
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
        return _Cut(grid[:end], pooled[:end], longest.distances[:end], float(grid[end]), start)
    # Where all of them diverged at the same step, the pooled curve ends with them.
    lrs = [cut.divergence_lr for cut in cuts if cut.divergence_lr is not None]
    divergence_lr = float(np.median(lrs)) if 2 * len(lrs) >= len(cuts) else None
    return _Cut(grid, pooled, longest.distances, divergence_lr, start)


def _read(cut: _Cut) -> _Reading:
    """Decides on one curve that ends at its divergence, if it has one."""
    diverged = cut.divergence_lr is not None
    not_fallen = _Reading("no_descent")
    if cut.divergence_lr is not None:
        at_start = len(cut.lrs) < START_STEPS or cut.divergence_lr <= START_RATIO * cut.start_lr
        not_fallen = _Reading("diverged_at_start") if at_start else _Reading("ok", edge=cut.divergence_lr)
    if len(cut.lrs) < MIN_POINTS:
        return not_fallen

    steps, losses = _thin(np.arange(len(cut.losses), dtype=np.float64), cut.losses)
    lrs, distances = cut.lrs[steps.astype(int)], cut.distances[steps.astype(int)]
    smoothed, window = _smooth(losses), _window(len(losses))
    error = MEDIAN_ERROR * _noise(losses) / math.sqrt(window)
    # The lower of two estimates: a loss that only rises has its minimum at the first point, and has not fallen.
    plateau, lowest = min(float(np.median(losses[:window])), float(smoothed[0])), float(smoothed.min())
    fall = plateau - lowest
    if fall <= (READABLE_ERRORS if diverged else FALL_ERRORS) * error:
        # A ramp too short for the detector, which only rose, was too high from the start as well.
        rose = not diverged and smoothed[-1] > plateau + FALL_ERRORS * error
        return _Reading("diverged_at_start") if rose else not_fallen
    given_back = max(BASIN * fall, RISE_ERRORS * error)
    if not diverged and smoothed[-1] <= lowest + given_back:
        return _Reading("no_divergence")

    basin = np.flatnonzero(smoothed <= lowest + given_back)
    below, above = float(lrs[basin[0]]), float(lrs[basin[-1]])
    # The lowest of many noisy values lies below what the model has reached.
    fallen = int(np.flatnonzero(smoothed <= lowest + max((1 - FALLEN) * fall, RISE_ERRORS * error))[0])
    # However slow the ramp, and however far it has travelled: never beyond the LR at which the loss turns up.
    return _Reading("ok", min(float(distances[fallen]), above), (below, above))


def _reason(reading: _Reading, cut: _Cut) -> str:
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
