"""The chart of an LR range test."""

from collections.abc import Sequence

import numpy as np

from tune_lr.lr.bounds import LRBounds
from tune_lr.lr.ramp_curve import smooth_curve
from tune_lr.records.looks import GREY, Style
from tune_lr.show.charts.model import CURVE_POINTS, Array, Axis, Chart, Columns, Series, axis_around, thin
from tune_lr.show.text import number_text

_RAW = Style(GREY)
_SMOOTHED = Style("#0072b2")


def range_test_chart(ramps: Sequence[Columns], bounds: LRBounds | None) -> Chart:
    """Return the chart of the loss over the ramped LR: each replicate thin, smoothed thick, and the bounds read off."""
    raw: list[Series] = []
    smoothed: list[Series] = []
    smoothed_losses: list[Array] = []
    for number, ramp in enumerate(ramps):
        finite = np.isfinite(ramp["loss"]) & (ramp["lr"] > 0)
        lrs = ramp["lr"][finite]
        losses = ramp["loss"][finite]
        if not len(lrs):
            continue
        smooth_losses = smooth_curve(lrs, losses)
        smoothed_losses.append(smooth_losses)
        first = number == 0  # only the first ramp's lines are named in the legend
        x, y = thin(lrs, losses, CURVE_POINTS)
        raw.append(Series(x, y, _RAW, "loss of each ramp" * first, width=1, opacity=0.55, silent=True))
        x, y = thin(lrs, smooth_losses, CURVE_POINTS)
        smoothed.append(Series(x, y, _SMOOTHED, "smoothed" * first, width=2.2, opacity=0.9))
    series = [*raw, *smoothed]
    return Chart(
        title=_title(bounds),
        x=axis_around("learning rate", (lr for line in series for lr in line.x), log=True, margin=0.01),
        y=_loss_axis(series, smoothed_losses),
        series=series,
        band=(bounds.low, bounds.high) if bounds and bounds.low and bounds.high else None,
        marks=_marks(bounds),
    )


def _title(bounds: LRBounds | None) -> str:
    conclusion = (bounds.reason or bounds.status) if bounds else ""
    return f"LR range test: {conclusion}" if conclusion else "LR range test"


def _loss_axis(series: Sequence[Series], smoothed_losses: Sequence[Array]) -> Axis:
    """Return an axis that cuts off what diverges a little above the start: else it would press the descent flat."""
    if not smoothed_losses:
        return axis_around("training loss", [])
    low = min(float(np.nanmin(losses)) for losses in smoothed_losses)
    start = max(float(np.nanmedian(losses[: max(1, len(losses) // 10)])) for losses in smoothed_losses)
    highest = max(float(line.y.max()) for line in series)
    top = min(start + 0.7 * max(start - low, 0.1 * abs(low)), highest)
    return axis_around("training loss", [low, max(top, low)], margin=0.1)


def _marks(bounds: LRBounds | None) -> list[tuple[float, str]]:
    if bounds is None:
        return []
    lrs = {"low": bounds.low, "suggestion": bounds.suggestion, "high": bounds.high}
    return [(lr, f"{label} {number_text(lr)}") for label, lr in lrs.items() if lr]
