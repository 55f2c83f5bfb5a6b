"""The charts of a study, each described once as a `Chart` and drawn twice: by `plotly()` for the report, by `png()`.

One colour per LR schedule everywhere: `schedule_style` is the only place that assigns them. The palette is Okabe and
Ito's, which stays apart under every common colour blindness; black became grey and the yellow darker, so that both
show on a white and on a dark page. Schedules beyond the eighth share a colour and differ in dash and marker.
"""

import html
import io
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from tune_lr.lr_range_test import smooth
from tune_lr.study_dir import TrialRow

Array = npt.NDArray[np.float64]
Columns = Mapping[str, Array]

SCHEDULES = (
    "constant", "step", "exponential", "cosine", "onecycle", "cyclic", "multistep", "cosine_restarts",
    "polynomial", "linear", "inverse_sqrt", "wsd", "flat_anneal", "plateau",
)  # fmt: skip
STAIRS = ("step", "multistep", "plateau", "constant")  # their LR jumps; it never slopes

_GREY, _VERMILLION, _ORANGE, _BLUE, _GREEN, _PURPLE, _SKY, _YELLOW = (
    "#7f7f7f", "#d55e00", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#b5a200",
)  # fmt: skip
_PALETTE = (_GREY, _VERMILLION, _ORANGE, _BLUE, _GREEN, _PURPLE, _SKY, _YELLOW)
_DASHES: Mapping[str, tuple[float, Sequence[float]]] = {  # plotly's name: matplotlib's
    "solid": (0, ()), "dash": (0, (4, 2)), "dot": (0, (1, 1.5))
}  # fmt: skip
_SYMBOLS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v", "pentagon": "p",
    "star": "*", "hexagon": "h",
}  # fmt: skip

_INK, _GRID = "#2b2f36", "#e3e6ea"
_FEATURED_POINTS = 1000  # a curve that is shown by itself


@dataclass(frozen=True)
class Style:
    color: str
    dash: str = "solid"
    symbol: str = "circle"


def schedule_style(name: str) -> Style:
    """The look of an LR schedule. A name that is not known gets a dotted one that depends on the name alone."""
    known = name in SCHEDULES
    index = SCHEDULES.index(name) if known else zlib.crc32(name.encode())
    turn = index // len(_PALETTE) if known else 2
    return Style(
        color=_PALETTE[index % len(_PALETTE)],
        dash=list(_DASHES)[turn],
        symbol=list(_SYMBOLS)[(index + 3 * turn) % len(_SYMBOLS)],
    )


def schedule_color(name: str) -> str:
    return schedule_style(name).color


def thin(x: Iterable[float], y: Iterable[float], limit: int) -> tuple[Array, Array]:
    """At most `limit` points of a curve, honestly: points of the curve itself, never means of them.

    Points that are not finite are left out. The rest is cut into runs of equal length, and of each run the lowest
    and the highest point stay; so do the first and the last point of the curve. No extreme is lost.
    """
    assert limit >= 4, limit
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    finite = np.isfinite(xs) & np.isfinite(ys)
    xs, ys = xs[finite], ys[finite]
    if len(ys) <= limit:
        return xs, ys
    keep = {0, len(ys) - 1}
    for run in np.array_split(np.arange(len(ys)), (limit - 2) // 2):
        keep |= {int(run[np.argmin(ys[run])]), int(run[np.argmax(ys[run])])}
    kept = sorted(keep)
    return xs[kept], ys[kept]


def number_text(value: float, digits: int = 3) -> str:
    """Significant digits without noise: 0.31, 1e-5, 12400."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}g}"
    if "e" in text and 1e-4 <= abs(value) < 1e7:
        text = f"{float(text):.0f}"
    return re.sub(r"e([+-])0*(\d)", lambda match: "e" + match[1].replace("+", "") + match[2], text)


# --- what a chart is ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    title: str
    low: float
    high: float
    log: bool = False

    def ticks(self) -> list[float]:
        """Of a log axis: 1, 2, 5, fewer where it spans more decades."""
        decades = math.log10(self.high / self.low)
        digits = (1, 1.5, 2, 3, 4, 5, 6, 7, 8) if decades < 0.7 else (1, 2, 5) if decades < 2.2 else (1,)
        every = 1 if decades < 8 else 2
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1, every)
        values = [digit * 10.0**exponent for exponent in exponents for digit in digits]
        return [value for value in values if self.low <= value <= self.high]


@dataclass(frozen=True)
class Series:
    """Points of one chart, joined or single. `schedule` says which switch of the report hides them."""

    x: Array
    y: Array
    style: Style
    legend: str = ""
    schedule: str = ""
    width: float = 2.0
    opacity: float = 1.0
    stairs: bool = False
    marker: Literal["none", "small", "full", "hollow", "cross"] = "none"
    joined: bool = True
    hover: Sequence[str] = ()
    silent: bool = False  # no hover


@dataclass(frozen=True)
class Chart:
    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    band: tuple[float, float] | None = None
    marks: Sequence[tuple[float, str]] = ()
    key: str = ""  # explains markers, in a line below the title of the PNG


def axis(title: str, values: Iterable[float], log: bool = False, pad: float = 0.04) -> Axis:
    """An axis around the values; logarithmic where asked, unless a value forbids it."""
    array = np.asarray(list(values), dtype=float)
    array = array[np.isfinite(array)]
    if not len(array):
        return Axis(title, 0.1 if log else 0.0, 1.0, log)
    low, high = float(array.min()), float(array.max())
    if log and low > 0:
        margin = max((high / low) ** pad, 1.02)
        return Axis(title, low / margin, high * margin, log=True)
    margin = (high - low) * pad or abs(high) * 0.05 or 1.0
    return Axis(title, low - margin, high + margin)


# --- the charts of a study ----------------------------------------------------------------------------------------


def range_test_chart(ramps: Sequence[Columns], bounds: Mapping[str, Any] | None) -> Chart:
    """Loss over the ramped LR: each replicate thin, smoothed thick, and what was concluded."""
    status = str((bounds or {}).get("status", ""))
    reason = str((bounds or {}).get("reason", "") or "")
    series: list[Series] = []
    smoothed_all: list[Array] = []
    for number, ramp in enumerate(ramps):
        finite = np.isfinite(ramp["loss"]) & (ramp["lr"] > 0)
        lrs, losses = ramp["lr"][finite], ramp["loss"][finite]
        if not len(lrs):
            continue
        smoothed = np.asarray(smooth(lrs, losses), dtype=float)
        smoothed_all.append(smoothed)
        x, y = thin(lrs, losses, _FEATURED_POINTS)
        series.append(
            Series(x, y, Style(_GREY), "loss of each ramp" * (number == 0), width=1, opacity=0.55, silent=True)
        )
        x, y = thin(lrs, smoothed, _FEATURED_POINTS)
        series.append(Series(x, y, Style(_BLUE), "smoothed" * (number == 0), width=2.2, opacity=0.9))
    series.sort(key=lambda one: one.width)
    if smoothed_all:
        # What diverges is cut off a little above the start; else it would press the descent flat.
        low = min(float(np.nanmin(one)) for one in smoothed_all)
        start = max(float(np.nanmedian(one[: max(1, len(one) // 10)])) for one in smoothed_all)
        top = min(start + 0.7 * max(start - low, 0.1 * abs(low)), max(float(one.y.max()) for one in series))
        y_axis = axis("training loss", [low, max(top, low)], pad=0.1)
    else:
        y_axis = axis("training loss", [])
    x_axis = axis("learning rate", [value for one in series for value in one.x], log=True, pad=0.01)
    low_lr, high_lr, suggested = ((bounds or {}).get(name) for name in ("low", "high", "suggestion"))
    band = (float(low_lr), float(high_lr)) if low_lr and high_lr else None
    marks = [(value, f"{label} {number_text(value)}") for value, label in
             ((low_lr, "low"), (suggested, "suggestion"), (high_lr, "high")) if value]  # fmt: skip
    title = f"LR range test: {reason or status}" if reason or status else "LR range test"
    return Chart(title, x_axis, y_axis, series, band, marks)


def lr_chart(best: Sequence[tuple[TrialRow, Columns]]) -> Chart:
    series = []
    for row, columns in best:
        x, y = thin(columns["step"], columns["lr"], _FEATURED_POINTS)
        stairs = row.lr_schedule in STAIRS
        style, name = schedule_style(row.lr_schedule), row.lr_schedule
        series.append(Series(x, y, style, _label(row), name, stairs=stairs))
    everything = [value for one in series for value in one.y]
    return Chart("Learning rate of the best trial of each LR schedule", _steps(series),
                 axis("learning rate", [0.0, *everything]), series)  # fmt: skip


def train_loss_chart(best: Sequence[tuple[TrialRow, Columns]]) -> Chart:
    raw, smooth_lines = [], []
    for row, columns in best:
        style, name = schedule_style(row.lr_schedule), row.lr_schedule
        finite = np.isfinite(columns["train_loss"])
        steps, losses = columns["step"][finite], columns["train_loss"][finite]
        x, y = thin(steps, losses, _FEATURED_POINTS)
        raw.append(Series(x, y, Style(style.color), "", name, width=0.8, opacity=0.22, silent=True))
        x, y = thin(steps, running_mean(losses), _FEATURED_POINTS)
        smooth_lines.append(Series(x, y, style, _label(row), name))
    series = [*raw, *smooth_lines]
    shown = np.concatenate([[], *(one.y for one in smooth_lines)])
    raw_values = np.concatenate([[], *(one.y for one in raw)])
    if len(raw_values):  # the range follows the smoothed lines; single raw spikes may leave it
        shown = np.append(shown, np.quantile(raw_values, [0.005, 0.995]))
    return Chart("Training loss of the best trial of each LR schedule", _steps(series),
                 axis("training loss", shown, log=True), series)  # fmt: skip


def val_loss_chart(best: Sequence[tuple[TrialRow, Columns]]) -> Chart:
    series = []
    for row, columns in best:
        x, y = thin(columns["step"], columns["val_loss"], _FEATURED_POINTS)
        series.append(
            Series(x, y, schedule_style(row.lr_schedule), _label(row), row.lr_schedule,
                   marker="small" if len(x) <= 60 else "none")
        )  # fmt: skip
    everything = [value for one in series for value in one.y]
    return Chart("Validation loss of the best trial of each LR schedule", _steps(series),
                 axis("validation loss", everything, log=True), series)  # fmt: skip


def loss_over_lr_chart(rows: Sequence[TrialRow], metric: str, goal: str) -> Chart:
    """The final metric of every search trial over its LR. Diverged ones stand at the edge on the bad side."""
    rows = [row for row in rows if row.phase == "search" and math.isfinite(row.lr) and row.lr > 0]
    scored = [row for row in rows if row.state in ("complete", "pruned") and math.isfinite(final(row, metric))]
    lost = [row for row in rows if row.state == "diverged"]
    y_axis = axis(metric, [final(row, metric) for row in scored], log=goal == "minimize", pad=0.07)
    edge = y_axis.high if goal == "minimize" else y_axis.low
    markers: dict[str, Literal["full", "hollow", "cross"]] = {
        "complete": "full", "pruned": "hollow", "diverged": "cross"
    }  # fmt: skip
    series = []
    for name in in_order({row.lr_schedule for row in [*scored, *lost]}):
        legend = name
        for state, marker in markers.items():
            own = [row for row in [*scored, *lost] if row.lr_schedule == name and row.state == state]
            if own:
                values = [edge if state == "diverged" else final(row, metric) for row in own]
                hover = [
                    f"trial {row.number}, {name}, lr {number_text(row.lr)}: {state} after {row.steps} steps"
                    + (f", {metric} {number_text(final(row, metric), 4)}" if state != "diverged" else "")
                    for row in own
                ]
                series.append(
                    Series(np.array([row.lr for row in own]), np.array(values), schedule_style(name), legend, name,
                           marker=marker, joined=False, hover=hover)
                )  # fmt: skip
                legend = ""
    return Chart(f"Final {metric} over the learning rate", axis("learning rate", [row.lr for row in rows], log=True),
                 y_axis, series, key="filled: complete   hollow: pruned   ×: diverged, at the edge")  # fmt: skip


def final(row: TrialRow, metric: str) -> float:
    return row.metrics.get(metric, math.nan)


def in_order(schedules: Iterable[str]) -> list[str]:
    """Known schedules in the order of their colours, then the others by name."""
    return sorted(schedules, key=lambda name: (SCHEDULES.index(name) if name in SCHEDULES else len(SCHEDULES), name))


def running_mean(values: Array) -> Array:
    """A centred mean over a thirtieth of the curve; shorter at its ends, so that it does not lag."""
    half = len(values) // 60
    if not half:
        return values
    window = np.ones(2 * half + 1)
    mean: Array = np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")
    return mean


def _label(row: TrialRow) -> str:
    return f"{row.lr_schedule}, lr {number_text(row.lr)}"


def _steps(series: Sequence[Series]) -> Axis:
    return axis("step", [value for one in series for value in one.x], pad=0.01)


def _reads_leftwards(one: Axis, x: float, label: str) -> bool:
    """Where the text of a mark goes: out of the band, unless that is off the chart."""
    place = math.log(x / one.low) / math.log(one.high / one.low) if one.log else (x - one.low) / (one.high - one.low)
    return place > 0.6 or (label.startswith("low") and place > 0.15)


# --- drawn by plotly ----------------------------------------------------------------------------------------------


def plotly(chart: Chart, legend: bool = False) -> dict[str, Any]:
    """A figure as JSON holds it. Text colours come from the page's style sheet, so that they follow its theme."""
    layout: dict[str, Any] = {
        "margin": {"l": 12, "r": 12, "t": 34 if legend else 14, "b": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        "xaxis": _plotly_axis(chart.x),
        "yaxis": _plotly_axis(chart.y),
        "shapes": [],
        "annotations": [],
    }
    if chart.band:
        layout["shapes"].append(
            {"type": "rect", "xref": "x", "yref": "paper", "x0": chart.band[0], "x1": chart.band[1], "y0": 0, "y1": 1,
             "fillcolor": _GREEN, "opacity": 0.13, "line": {"width": 0}, "layer": "below"}
        )  # fmt: skip
    for row, (x, label) in enumerate(chart.marks):
        layout["shapes"].append(
            {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1,
             "line": {"color": _GREEN, "width": 1.5, "dash": "dash" if "suggestion" in label else "solid"}}
        )  # fmt: skip
        at = math.log10(x) if chart.x.log else x
        left = _reads_leftwards(chart.x, x, label)
        layout["annotations"].append(
            {"x": at, "y": 1, "xref": "x", "yref": "paper", "text": _safe(label), "showarrow": False,
             "xanchor": "right" if left else "left", "yanchor": "top", "xshift": -4 if left else 4, "yshift": -18 * row,
             "bgcolor": "rgba(255,255,255,0.7)"}
        )  # fmt: skip
    return {"data": [_plotly_trace(series) for series in chart.series], "layout": layout}


def _plotly_axis(one: Axis) -> dict[str, Any]:
    described: dict[str, Any] = {
        "title": {"text": _safe(one.title), "standoff": 8},
        "automargin": True,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": "rgba(0,0,0,0)",
        "range": [one.low, one.high],
        "nticks": 7,
    }
    if one.log:
        values = one.ticks()
        described |= {
            "type": "log", "range": [math.log10(one.low), math.log10(one.high)],
            "tickvals": values, "ticktext": [number_text(value) for value in values],
        }  # fmt: skip
    return described


def _plotly_trace(series: Series) -> dict[str, Any]:
    style = series.style
    modes = ["lines"] * series.joined + ["markers"] * (series.marker != "none")
    symbol = {"hollow": f"{style.symbol}-open", "cross": "x-thin"}.get(series.marker, style.symbol)
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "+".join(modes),
        "name": _safe(series.legend or series.schedule),
        "meta": series.schedule,
        "x": [rounded(value) for value in series.x],
        "y": [rounded(value) for value in series.y],
        "opacity": series.opacity,
        "showlegend": bool(series.legend),
        "cliponaxis": series.marker != "cross",
    }
    if series.joined:
        shape = "hv" if series.stairs else "linear"
        trace["line"] = {"color": style.color, "width": series.width, "dash": style.dash, "shape": shape}
    if series.marker != "none":
        trace["marker"] = {
            "color": style.color, "symbol": symbol, "size": 5 if series.marker == "small" else 10,
            "line": {"color": style.color, "width": 2 if series.marker in ("hollow", "cross") else 0},
        }  # fmt: skip
    if series.silent:
        trace["hoverinfo"] = "skip"
    elif series.hover:
        trace |= {"hovertext": [_safe(text) for text in series.hover], "hoverinfo": "text"}
    else:
        trace["hovertemplate"] = "%{x:.4~g}: %{y:.4~g}<extra>%{fullData.name}</extra>"
    return trace


def rounded(value: float) -> float | int | None:
    """Five significant digits: what a screen shows, at half the bytes. Whole numbers stay whole."""
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.5g}")


def _safe(text: str) -> str:
    """Plotly reads a little HTML in its texts."""
    return html.escape(text, quote=False)


# --- drawn by matplotlib ------------------------------------------------------------------------------------------


def png(chart: Chart) -> bytes:
    figure = Figure(figsize=(8, 4.8), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    ax = figure.add_subplot()
    ax.set_title(_plain(chart.title), loc="left", fontsize=11, color=_INK, pad=22 if chart.key else 10, wrap=True)
    if chart.key:
        ax.text(0, 1.02, chart.key, transform=ax.transAxes, fontsize=8.5, color="#5c6370", va="bottom")
    _mpl_axis(ax, "x", chart.x)
    _mpl_axis(ax, "y", chart.y)
    ax.grid(color=_GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#9aa1ab")
    ax.tick_params(colors="#9aa1ab", labelcolor=_INK, labelsize=9)
    if chart.band:
        ax.axvspan(*chart.band, color=_GREEN, alpha=0.12, linewidth=0)
    for row, (x, label) in enumerate(chart.marks):
        left = _reads_leftwards(chart.x, x, label)
        ax.axvline(x, color=_GREEN, linewidth=1.3, linestyle="--" if "suggestion" in label else "-")
        ax.annotate(
            label, (x, 1 - 0.065 * row), xycoords=("data", "axes fraction"), xytext=(-5 if left else 5, -2),
            textcoords="offset points", ha="right" if left else "left", va="top", fontsize=9, color=_INK,
        )  # fmt: skip
    handles = []
    for series in chart.series:
        line = _mpl_line(series, series.x, series.y)
        line.set_clip_on(series.marker != "cross")
        ax.add_line(line)
        if series.legend:
            handle = _mpl_line(series, [], [])
            handle.set_label(_plain(series.legend))
            if series.marker in ("hollow", "cross"):  # the legend says the schedule, not the state
                handle.set(marker=_SYMBOLS[series.style.symbol], markerfacecolor=series.style.color, markersize=6.5)
            handles.append(handle)
    if not chart.series:
        ax.text(0.5, 0.5, "nothing to show yet", transform=ax.transAxes, ha="center", color="#5c6370")
    if handles:
        beside = any(series.schedule for series in chart.series)  # many lines leave no room inside
        ax.legend(
            handles=handles, fontsize=8.5, labelcolor=_INK, frameon=False, handlelength=2.4,
            loc="upper left" if beside else "lower left", bbox_to_anchor=(1.01, 1.0) if beside else None,
        )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _mpl_line(series: Series, x: Iterable[float], y: Iterable[float]) -> Line2D:
    style = series.style
    marker = {"none": "", "cross": "x"}.get(series.marker, _SYMBOLS[style.symbol])
    return Line2D(
        list(x),
        list(y),
        color=style.color,
        alpha=series.opacity,
        linewidth=series.width * 0.8,
        linestyle=_DASHES[style.dash] if series.joined else "none",
        drawstyle="steps-post" if series.stairs else "default",
        marker=marker,
        markersize=3 if series.marker == "small" else 6.5,
        markerfacecolor="none" if series.marker == "hollow" else style.color,
        markeredgewidth=1.5 if series.marker in ("hollow", "cross") else 0,
    )


def _mpl_axis(ax: Axes, which: Literal["x", "y"], one: Axis) -> None:
    if one.log:
        ax.set(**{f"{which}scale": "log"})
        getattr(ax, f"set_{which}ticks")(one.ticks(), [number_text(value) for value in one.ticks()])
        getattr(ax, f"{which}axis").minorticks_off()
    ax.set(**{f"{which}lim": (one.low, one.high)})
    getattr(ax, f"set_{which}label")(_plain(one.title), fontsize=9.5, color=_INK)


def _plain(text: str) -> str:
    """Matplotlib reads what stands between dollar signs as mathematics."""
    return text.replace("$", r"\$")
