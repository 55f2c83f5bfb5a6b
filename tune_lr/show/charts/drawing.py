"""A chart as the report's script reads it, which draws it as SVG. What has its default is left out."""

import math
from typing import Any

from tune_lr.records.looks import DASHES
from tune_lr.show.charts.model import Axis, Chart, Series, label_stands_left


def drawing(chart: Chart) -> dict[str, Any]:
    """Return a chart as JSON values. Its texts have no colour: they take the page's."""
    drawn: dict[str, Any] = {
        "x": _axis(chart.x),
        "y": _axis(chart.y),
        "series": [_series(series) for series in chart.series],
    }
    if chart.band:
        drawn["band"] = chart.band
    if chart.marks:
        drawn["marks"] = [
            {
                "x": x,
                "label": label,
                "left": label_stands_left(chart.x, x, label),
                "dashed": "suggestion" in label,
                "row": row * chart.stacked,
            }
            for row, (x, label) in enumerate(chart.marks)
        ]
    return drawn


def rounded(value: float) -> float | int | None:
    """Return a number with five significant digits: what a screen shows, at half the bytes.

    Whole numbers stay whole. None stands for what is not finite.
    """
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.5g}")


def _axis(axis: Axis) -> dict[str, Any]:
    drawn: dict[str, Any] = {"title": axis.title, "low": rounded(axis.low), "high": rounded(axis.high)}
    if axis.log:
        drawn["log"] = True
    if axis.whole:
        drawn["whole"] = True
    return drawn


def _series(series: Series) -> dict[str, Any]:
    style = series.style
    drawn: dict[str, Any] = {
        "x": [rounded(value) for value in series.x],
        "y": [rounded(value) for value in series.y],
        "color": style.color,
        "name": series.legend or series.key,
    }
    if series.key:
        drawn["key"] = series.key
    if series.filled:
        drawn["filled"] = True
    elif series.joined:
        drawn |= {"width": series.width, "dash": [length * series.width for length in DASHES[style.dash]]}
    if series.stairs:
        drawn["stairs"] = True
    if series.marker != "none":
        drawn |= {"marker": series.marker, "symbol": style.symbol}
    if series.opacity < 1:
        drawn["opacity"] = series.opacity
    if series.silent:
        drawn["silent"] = True
    elif series.hover:
        drawn["hover"] = list(series.hover)
    return drawn
