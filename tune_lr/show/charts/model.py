"""What a chart is: axes, series of points, a band and marks. `drawing` and `png` each draw every chart from this."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tune_lr.records.looks import SCHEDULES, Style

Array = npt.NDArray[np.float64]
Columns = Mapping[str, Array]  # a curve: its columns by name, all of the same length
Marker = Literal["none", "small", "full", "hollow", "cross"]

CURVE_POINTS = 600  # of one curve among few: a chart is some 1,000 pixels wide at most


@dataclass(frozen=True)
class Axis:
    """The range of one axis, and its title."""

    title: str
    low: float
    high: float
    log: bool = False
    whole: bool = False  # ticks at whole numbers only


@dataclass(frozen=True)
class Series:
    """Points of one chart, joined or single."""

    x: Array
    y: Array
    style: Style
    legend: str = ""
    key: str = ""  # the switch of the report that hides them
    width: float = 2.0
    opacity: float = 1.0
    stairs: bool = False
    filled: bool = False  # the points are the corners of an area, which has no line
    marker: Marker = "none"
    joined: bool = True
    hover: Sequence[str] = ()  # one text a point, shown under the mouse
    silent: bool = False  # nothing is shown under the mouse


@dataclass(frozen=True)
class Chart:
    """One picture of a study."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    band: tuple[float, float] | None = None  # on the x axis
    marks: Sequence[tuple[float, str]] = ()  # vertical lines: their x and their label
    stacked: bool = True  # each mark's label stands below the one before it; else all stand in one line
    key: str = ""  # explains the markers, in a line below the title of the PNG


def axis_around(title: str, values: Iterable[float], log: bool = False, margin: float = 0.04) -> Axis:
    """Return an axis that spans the finite values and a margin, a share of their range.

    It is logarithmic where `log` asks for it and every value is positive.
    """
    array = np.asarray(list(values), dtype=float)
    array = array[np.isfinite(array)]
    if not len(array):
        return Axis(title, 0.1 if log else 0.0, 1.0, log)
    low = float(array.min())
    high = float(array.max())
    if log and low > 0:
        factor = max((high / low) ** margin, 1.02)
        return Axis(title, low / factor, high * factor, log=True)
    space = (high - low) * margin or abs(high) * 0.05 or 1.0
    return Axis(title, low - space, high + space)


def thin(x: Iterable[float], y: Iterable[float], limit: int) -> tuple[Array, Array]:
    """Return at most `limit` (at least 4) points of a curve: points of the curve itself, never means of them.

    Points that are not finite are left out. The rest is cut into runs of equal length, and of each run the lowest
    and the highest point stay; so do the first and the last point of the curve. No extreme is lost.
    """
    assert limit >= 4, limit
    xs = np.asarray(x, dtype=float)
    ys = np.asarray(y, dtype=float)
    finite = np.isfinite(xs) & np.isfinite(ys)
    xs = xs[finite]
    ys = ys[finite]
    if len(ys) <= limit:
        return xs, ys
    keep = {0, len(ys) - 1}
    for run in np.array_split(np.arange(len(ys)), (limit - 2) // 2):
        keep |= {int(run[np.argmin(ys[run])]), int(run[np.argmax(ys[run])])}
    kept = sorted(keep)
    return xs[kept], ys[kept]


def sort_schedules(names: Iterable[str]) -> list[str]:
    """Return the names of LR schedules in the order of their colours; unknown ones follow, by name."""
    return sorted(names, key=lambda name: (SCHEDULES.index(name) if name in SCHEDULES else len(SCHEDULES), name))


def label_stands_left(axis: Axis, x: float, label: str) -> bool:
    """Return whether the label of a mark stands on the left of its line.

    Labels stand outside the band, and the suggestion's towards the band's middle, unless that is off the chart.
    """
    if axis.log:
        place = math.log(x / axis.low) / math.log(axis.high / axis.low)
    else:
        place = (x - axis.low) / (axis.high - axis.low)
    return place > (0.8 if label.startswith("suggestion") else 0.6) or (label.startswith("low") and place > 0.15)
