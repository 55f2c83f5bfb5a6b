"""Charts as PNG pictures, drawn by matplotlib.

Margins are reckoned from the lengths of the labels, in inches: matplotlib's automatic layout takes as long as the
drawing itself.
"""

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tune_lr.records.looks import DASHES, SYMBOLS
from tune_lr.show.charts.model import Axis, Chart, Series, label_stands_left
from tune_lr.show.text import number_text

INK = "#2b2f36"
GRID = "#e3e6ea"
FRAME = "#9aa1ab"
SOFT = "#5c6370"
_FOUND = "#009e73"  # what was read off a range test
DPI = 150


def png(chart: Chart) -> bytes:
    """Return the picture of one chart, with its legend inside, or beside it where the lines leave no room."""
    labels = _labels(chart)
    outside = any(series.key for series in chart.series)
    width = 8.0
    height = 4.6
    right = min(_entry_width(labels), 3.0) if outside else 0.2
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.subplots_adjust(
        left=0.75 / width, right=1 - right / width, top=1 - 0.85 / height, bottom=0.6 / height, wspace=0.22
    )
    ax = figure.add_subplot(1, 1, 1)
    handles = _draw_chart(ax, chart)
    if outside:
        ax.legend(**_legend_look(handles), handlelength=2.4, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    elif handles:
        ax.legend(**_legend_look(handles), handlelength=2.4, loc="lower left")
    return png_bytes(figure)


def png_row(charts: Sequence[Chart], title: str) -> bytes:
    """Return the picture of charts side by side, above the legend of the first one, which they share."""
    labels = _labels(charts[0])
    width = 5.0 * len(charts)
    columns = max(1, min(len(labels), int(width / _entry_width(labels))))
    legend_height = 0.2 + 0.19 * math.ceil(len(labels) / columns)
    height = 4.6 + legend_height
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.subplots_adjust(
        left=0.75 / width,
        right=1 - 0.2 / width,
        top=1 - 0.85 / height,
        bottom=(0.6 + legend_height) / height,
        wspace=0.22,
    )
    figure.suptitle(_plain(title), x=0.2 / width, ha="left", fontsize=12, color=INK)
    for place, chart in enumerate(charts, start=1):
        handles = _draw_chart(figure.add_subplot(1, len(charts), place), chart)
        if place == 1 and handles:
            look = _legend_look(handles)
            figure.legend(**look, handlelength=3.2, loc="lower left", bbox_to_anchor=(0, 0), ncols=columns)
    return png_bytes(figure)


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 3})
    return buffer.getvalue()


def log_ticks(axis: Axis) -> list[float]:
    """Return the ticks of a logarithmic axis: 1, 2, 5, fewer where it spans more decades.

    Within a third of a decade they are evenly apart.
    """
    decades = math.log10(axis.high / axis.low)
    if decades < 0.33:
        even = MaxNLocator(5).tick_values(axis.low, axis.high)
        return [float(value) for value in even if axis.low <= value <= axis.high]
    digits: tuple[float, ...] = (1,)
    if decades < 0.7:
        digits = (1, 1.5, 2, 3, 4, 5, 6, 7, 8)
    elif decades < 2.2:
        digits = (1, 2, 5)
    first = math.floor(math.log10(axis.low))
    last = math.ceil(math.log10(axis.high))
    exponents = range(first, last + 1, 1 if decades < 8 else 2)
    values = [digit * 10.0**exponent for exponent in exponents for digit in digits]
    return [value for value in values if axis.low <= value <= axis.high]


def style_axes(ax: Axes) -> None:
    """Give axes the grid and the frame that all pictures share."""
    ax.grid(color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FRAME)


def _labels(chart: Chart) -> list[str]:
    return [series.legend for series in chart.series if series.legend]


def _entry_width(labels: Sequence[str]) -> float:
    """Return the inches that the longest entry of a legend takes."""
    return 0.75 + 0.075 * max(map(len, labels), default=0)


def _legend_look(handles: Sequence[Line2D]) -> dict[str, Any]:
    return {"handles": handles, "fontsize": 8.5, "labelcolor": INK, "frameon": False}


def _draw_chart(ax: Axes, chart: Chart) -> list[Line2D]:
    """Draw a chart; return the lines of its legend."""
    ax.set_title(_plain(chart.title), loc="left", fontsize=11, color=INK, pad=22 if chart.key else 10, wrap=True)
    if chart.key:
        ax.text(0, 1.02, chart.key, transform=ax.transAxes, fontsize=8.5, color=SOFT, va="bottom")
    _draw_axis(ax, "x", chart.x)
    _draw_axis(ax, "y", chart.y)
    style_axes(ax)
    ax.tick_params(colors=FRAME, labelcolor=INK, labelsize=9)
    _draw_marks(ax, chart)
    handles = []
    for series in chart.series:
        if series.filled:
            color = series.style.color
            ax.fill(series.x, series.y, color=color, alpha=series.opacity, linewidth=0)
            continue
        line = _line(series, series.x, series.y)
        line.set_clip_on(series.marker != "cross")
        ax.add_line(line)
        if series.legend:
            handles.append(_legend_line(series))
    if not chart.series:
        ax.text(0.5, 0.5, "nothing to show yet", transform=ax.transAxes, ha="center", color=SOFT)
    return handles


def _draw_axis(ax: Axes, which: Literal["x", "y"], axis: Axis) -> None:
    if axis.log:
        ticks = log_ticks(axis)
        ax.set(**{f"{which}scale": "log"})
        getattr(ax, f"set_{which}ticks")(ticks, [number_text(value) for value in ticks])
        getattr(ax, f"{which}axis").minorticks_off()
    else:
        getattr(ax, f"{which}axis").set_major_locator(MaxNLocator(7, integer=axis.whole))
    ax.set(**{f"{which}lim": (axis.low, axis.high)})
    getattr(ax, f"set_{which}label")(_plain(axis.title), fontsize=9.5, color=INK)


def _draw_marks(ax: Axes, chart: Chart) -> None:
    if chart.band:
        ax.axvspan(*chart.band, color=_FOUND, alpha=0.12, linewidth=0)
    for row, (x, label) in enumerate(chart.marks):
        left = label_stands_left(chart.x, x, label)
        top = 1 - 0.065 * row * chart.stacked
        ax.axvline(x, color=_FOUND, linewidth=1.3, linestyle="--" if "suggestion" in label else "-")
        ax.annotate(
            label,
            (x, top),
            xycoords=("data", "axes fraction"),
            xytext=(-5 if left else 5, -2),
            textcoords="offset points",
            ha="right" if left else "left",
            va="top",
            fontsize=9,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
            zorder=4,
        )


def _legend_line(series: Series) -> Line2D:
    line = _line(series, [], [])
    line.set(label=_plain(series.legend), linewidth=min(line.get_linewidth(), 5), alpha=1.0)
    if series.marker in ("hollow", "cross"):  # the legend names the LR schedule, not the state
        line.set(marker=SYMBOLS[series.style.symbol], markerfacecolor=series.style.color, markersize=6.5)
    return line


def _line(series: Series, x: Iterable[float], y: Iterable[float]) -> Line2D:
    style = series.style
    marker = {"none": "", "cross": "x"}.get(series.marker, SYMBOLS[style.symbol])
    return Line2D(
        list(x),
        list(y),
        color=style.color,
        alpha=series.opacity,
        linewidth=series.width * 0.8,
        linestyle=(0, DASHES[style.dash]) if series.joined else "none",
        drawstyle="steps-post" if series.stairs else "default",
        marker=marker,
        markersize=3 if series.marker == "small" else 6.5,
        markerfacecolor="none" if series.marker == "hollow" else style.color,
        markeredgewidth=1.5 if series.marker in ("hollow", "cross") else 0,
        solid_capstyle="butt",
    )


def _plain(text: str) -> str:
    """Return a text that matplotlib shows as it is: it reads what stands between dollar signs as mathematics."""
    return text.replace("$", r"\$")
