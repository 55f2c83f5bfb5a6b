"""The charts of a study, each described once as a `Chart` and drawn twice: by the report's page from what `drawing()`
makes of it, and by `png()`.

One colour per LR schedule everywhere: `schedule_style` is the only place that assigns them. The palette begins with
Okabe and Ito's; grey stands for black and a dark red for yellow, so that all show on a white and on a dark page. Any
two of the fourteen stay apart with normal sight and under protanopia and deuteranopia; those beyond the eighth are
dashed besides.
"""

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tune_lr.lr.ramp_curve import smooth_curve
from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.lr.schedules import SCHEDULES as LR_SCHEDULES
from tune_lr.records.looks import DASHES, GREY, SCHEDULES, SYMBOLS, Style, schedule_color, schedule_style
from tune_lr.records.parameters import setting
from tune_lr.records.row import RAMP, TrialRow

Array = npt.NDArray[np.float64]
Columns = Mapping[str, Array]

_GREY, _BLUE, _GREEN = GREY, "#0072b2", "#009e73"
_INK, _GRID = "#2b2f36", "#e3e6ea"
_FEATURED_POINTS = 600  # of one curve among few; a chart is some 1,000 pixels wide at most


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
    whole: bool = False  # ticks at whole numbers only

    def ticks(self) -> list[float]:
        """Of a log axis: 1, 2, 5, fewer where it spans more decades; evenly apart within a third of one."""
        decades = math.log10(self.high / self.low)
        if decades < 0.33:
            even = MaxNLocator(5).tick_values(self.low, self.high)
            return [float(value) for value in even if self.low <= value <= self.high]
        digits = (1, 1.5, 2, 3, 4, 5, 6, 7, 8) if decades < 0.7 else (1, 2, 5) if decades < 2.2 else (1,)
        every = 1 if decades < 8 else 2
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1, every)
        values = [digit * 10.0**exponent for exponent in exponents for digit in digits]
        return [value for value in values if self.low <= value <= self.high]


@dataclass(frozen=True)
class Series:
    """Points of one chart, joined or single. `key` says which switch of the report hides them."""

    x: Array
    y: Array
    style: Style
    legend: str = ""
    key: str = ""
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
    stacked: bool = True  # each mark's label below the one before it; or all in one line
    key: str = ""  # explains markers, in a line below the title of the PNG


@dataclass(frozen=True)
class Shown:
    """A trial with its curve, as several charts show it."""

    row: TrialRow
    curve: Columns
    label: str
    key: str
    style: Style
    batch_size: int | None = None  # where curves of several are overlaid: they are drawn over samples, not over steps

    @property
    def x(self) -> Array:
        return self.curve["step"] * (self.batch_size or 1)


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
        smoothed = np.asarray(smooth_curve(lrs, losses), dtype=float)
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


def lr_chart(shown: Sequence[Shown], of: str, points: int = _FEATURED_POINTS) -> Chart:
    """Learning rate over steps. `of` is the title's end."""
    series = []
    for one in shown:
        x, y = thin(one.x, one.curve["lr"], points)
        spec = LR_SCHEDULES.get(one.row.lr_schedule)
        stairs = spec is not None and spec.piecewise
        series.append(Series(x, y, one.style, one.label, one.key, stairs=stairs))
    everything = [value for one in series for value in one.y]
    y_axis = axis("learning rate", [0.0, *everything])
    return Chart(f"Learning rate {of}".strip(), _steps(series, shown), y_axis, series)


def train_loss_chart(shown: Sequence[Shown], of: str, points: int = _FEATURED_POINTS) -> Chart:
    """Training loss over steps: raw and faint, and its running mean."""
    raw, smooth_lines = [], []
    for one in shown:
        finite = np.isfinite(one.curve["train_loss"])
        steps, losses = one.x[finite], one.curve["train_loss"][finite]
        x, y = thin(steps, losses, points)
        raw.append(Series(x, y, Style(one.style.color), "", one.key, width=0.8, opacity=0.22, silent=True))
        x, y = thin(steps, running_mean(losses), points)
        smooth_lines.append(Series(x, y, one.style, one.label, one.key))
    return Chart(f"Training loss {of}".strip(), _steps(smooth_lines, shown),
                 _loss_axis("training loss", smooth_lines, raw), [*raw, *smooth_lines])  # fmt: skip


def val_loss_chart(shown: Sequence[Shown], of: str, points: int = _FEATURED_POINTS) -> Chart:
    """Validation loss over steps."""
    series = [_validation(one, points) for one in shown]
    everything = [value for one in series for value in one.y]
    y_axis = axis("validation loss", everything, log=True)
    return Chart(f"Validation loss {of}".strip(), _steps(series, shown), y_axis, series)


def loss_chart(one: Shown, points: int) -> Chart:
    """Training loss, raw, and validation loss of one trial."""
    x, y = thin(one.x, one.curve["train_loss"], points)
    training = Series(x, y, Style(one.style.color), "training", width=1, opacity=0.5)
    validation = replace(_validation(one, points), legend="validation")
    return Chart("Loss", _steps([training, validation], [one]), _loss_axis("loss", [validation], [training]),
                 [training, validation])  # fmt: skip


def _validation(one: Shown, points: int) -> Series:
    x, y = thin(one.x, one.curve["val_loss"], points)
    marker: Literal["small", "none"] = "small" if len(x) <= 60 else "none"
    return Series(x, y, one.style, one.label, one.key, marker=marker)


def _loss_axis(title: str, lines: Sequence[Series], raw: Sequence[Series]) -> Axis:
    """Around the lines; the raw losses count without their rarest, of which single ones may leave the chart."""
    values = np.concatenate([[], *(one.y for one in lines)])
    rough = np.concatenate([[], *(one.y for one in raw)])
    if len(rough):
        values = np.append(values, np.quantile(rough, [0.005, 0.995]))
    return axis(title, values, log=True)


def timeline_chart(rows: Sequence[TrialRow]) -> Chart:
    """Which trial each slot trained, and when: thick lines, faint where a trial was pruned."""
    order = in_order({row.lr_schedule for row in rows})
    rows = sorted(rows, key=lambda row: (order.index(row.lr_schedule), row.number))
    end = max((row.started_s + row.duration_s for row in rows), default=1.0)
    minutes = end > 600
    unit = 60.0 if minutes else 1.0
    slots = 1 + max((row.slot for row in rows), default=0)
    width = max(2.0, min(14.0, 220 / slots))
    series, named = [], set()
    for row in rows:
        name = row.lr_schedule
        gap = min(0.001 * end, 0.5 * row.duration_s)  # or two trials in a row would look like one
        places = np.linspace(row.started_s, row.started_s + row.duration_s - gap, 3) / unit
        words = f"{_named(row)}: {row.state} after {row.steps} steps"
        said = f"{words}, {number_text(row.duration_s)} s"
        opacity = {"complete": 1.0, "pruned": 0.4}.get(row.state, 0.7)
        legend = "" if name in named else name
        series.append(
            Series(places, np.full(3, float(row.slot)), Style(schedule_color(name)), legend, name, width=width,
                   opacity=opacity, hover=[said] * 3)
        )  # fmt: skip
        named.add(name)
    lost = [row for row in rows if row.state in ("diverged", "failed")]
    for row in lost:
        place = np.array([(row.started_s + row.duration_s) / unit])
        series.append(
            Series(place, np.array([float(row.slot)]), schedule_style(row.lr_schedule), key=row.lr_schedule,
                   marker="cross", joined=False, silent=True)
        )  # fmt: skip
    starts = {phase: min((row.started_s for row in rows if row.phase == phase), default=math.nan)
              for phase in ("search", "confirm")}  # fmt: skip
    return Chart("Trials over slots", axis("minutes" if minutes else "seconds", [0.0, end / unit], pad=0.01),
                 Axis("slot", -0.6, slots - 0.05, whole=True), series,
                 marks=[(start / unit, phase) for phase, start in starts.items() if start > 0],
                 stacked=False, key="faint: pruned   ×: diverged or failed")  # fmt: skip


def loss_over_lr_chart(rows: Sequence[TrialRow], metric: str, goal: str) -> Chart:
    """The final metric of every search trial over its LR. Diverged ones stand at the edge on the bad side."""
    rows = [row for row in rows if row.phase == "search" and row.lr_schedule != RAMP and row.lr > 0]
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
                    f"{_named(row)}: {state} after {row.steps} steps"
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


def _named(row: TrialRow) -> str:
    """What a trial is called under the mouse."""
    words = [f"trial {row.number}", row.lr_schedule, f"lr {number_text(row.lr)}", setting(row.parameters)]
    return ", ".join(filter(None, words))


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


def _steps(series: Sequence[Series], shown: Sequence[Shown]) -> Axis:
    title = "samples" if any(one.batch_size for one in shown) else "step"
    return replace(axis(title, [value for one in series for value in one.x], pad=0.01), whole=True)


def _reads_leftwards(one: Axis, x: float, label: str) -> bool:
    """Where the text of a mark goes: out of the band, that of the suggestion towards its middle, unless that is off the
    chart."""
    place = math.log(x / one.low) / math.log(one.high / one.low) if one.log else (x - one.low) / (one.high - one.low)
    return place > (0.8 if label.startswith("suggestion") else 0.6) or (label.startswith("low") and place > 0.15)


# --- drawn by the report's page -----------------------------------------------------------------------------------


def drawing(chart: Chart) -> dict[str, Any]:
    """A chart as the page's script reads it. What has its default is left out; text colours are the page's."""
    drawn: dict[str, Any] = {
        "x": _drawn_axis(chart.x), "y": _drawn_axis(chart.y), "series": [_drawn(series) for series in chart.series],
    }  # fmt: skip
    if chart.band:
        drawn["band"] = chart.band
    if chart.marks:
        drawn["marks"] = [
            {
                "x": x,
                "label": label,
                "left": _reads_leftwards(chart.x, x, label),
                "dashed": "suggestion" in label,
                "row": row * chart.stacked,
            }
            for row, (x, label) in enumerate(chart.marks)
        ]
    return drawn


def _drawn_axis(one: Axis) -> dict[str, Any]:
    drawn: dict[str, Any] = {"title": one.title, "low": rounded(one.low), "high": rounded(one.high)}
    return {**drawn, **({"log": True} if one.log else {}), **({"whole": True} if one.whole else {})}


def _drawn(series: Series) -> dict[str, Any]:
    style = series.style
    drawn: dict[str, Any] = {
        "x": [rounded(value) for value in series.x],
        "y": [rounded(value) for value in series.y],
        "color": style.color,
        "name": series.legend or series.key,
    }
    if series.key:
        drawn["key"] = series.key
    if series.joined:
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


def rounded(value: float) -> float | int | None:
    """Five significant digits: what a screen shows, at half the bytes. Whole numbers stay whole."""
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.5g}")


# --- drawn by matplotlib ------------------------------------------------------------------------------------------


def png(*charts: Chart, title: str = "") -> bytes:
    """One chart with its legend inside or beside it, or several side by side above the legend that they share.

    Margins are reckoned from the lengths of the labels, in inches: an automatic layout takes as long as the drawing.
    """
    several = len(charts) > 1
    labels = [series.legend for series in charts[0].series if series.legend]
    longest = 0.75 + 0.075 * max(map(len, labels), default=0)  # of the legend's entries
    beside = not several and any(series.key for series in charts[0].series)  # many lines leave no room inside
    width = 5.0 * len(charts) if several else 8.0
    columns = max(1, min(len(labels), int(width / longest)))
    below = 0.2 + 0.19 * math.ceil(len(labels) / columns) if several else 0.0
    height, top, bottom = 4.6 + below, 0.85, 0.6 + below
    figure = Figure(figsize=(width, height), dpi=150)
    figure.subplots_adjust(
        left=0.75 / width, right=1 - (min(longest, 3.0) if beside else 0.2) / width, top=1 - top / height,
        bottom=bottom / height, wspace=0.22,
    )  # fmt: skip
    if several:
        figure.suptitle(_plain(title), x=0.2 / width, ha="left", fontsize=12, color=_INK)
    for place, chart in enumerate(charts, start=1):
        ax = figure.add_subplot(1, len(charts), place)
        handles = _mpl_chart(ax, chart)
        look: dict[str, Any] = {"handles": handles, "fontsize": 8.5, "labelcolor": _INK, "frameon": False}
        if several and place == 1 and handles:
            figure.legend(**look, handlelength=3.2, loc="lower left", bbox_to_anchor=(0, 0), ncols=columns)
        elif beside:
            ax.legend(**look, handlelength=2.4, loc="upper left", bbox_to_anchor=(1.01, 1.0))
        elif handles and not several:
            ax.legend(**look, handlelength=2.4, loc="lower left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 3})
    return buffer.getvalue()


def schedules_png(names: Sequence[str]) -> bytes:
    """The curves of LR schedules with their defaults, each in a small picture of its own, all on the same scales."""
    columns = min(len(names), 5)
    rows = -(-len(names) // columns)
    width, height = 2.4 * columns + 0.6, 1.9 * rows + 0.6  # inches
    figure = Figure(figsize=(width, height), dpi=150)
    figure.subplots_adjust(
        left=0.6 / width, right=1 - 0.15 / width, top=1 - 0.3 / height, bottom=0.6 / height, wspace=0.12, hspace=0.32
    )
    figure.supxlabel("step / max_steps", y=0.1 / height, va="bottom", fontsize=9.5, color=_INK)
    figure.supylabel("LR / peak", x=0.1 / width, ha="left", fontsize=9.5, color=_INK)
    steps = 840  # a multiple of the lengths that are usual, so that what jumps does so at its place
    x = np.arange(steps) / steps
    for place, name in enumerate(names, start=1):
        spec, style = LR_SCHEDULES[name], schedule_style(name)
        y = make_lr_schedule(name, {}, steps).lrs(1.0)
        ax = figure.add_subplot(rows, columns, place)
        ax.set_title(name, loc="left", fontsize=10.5, fontweight="bold", color=_INK, pad=5)
        if spec.by_metric:
            ax.text(1, 1.05, "follows the metric", transform=ax.transAxes, fontsize=7.5, color="#5c6370", ha="right")
        ax.fill_between(x, y, step="post" if spec.piecewise else None, color=style.color, alpha=0.1, linewidth=0)
        ax.plot(x, y, color=style.color, linewidth=1.8, drawstyle="steps-post" if spec.piecewise else "default")
        ax.set(xlim=(0, 1), ylim=(0, 1.06))
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.grid(color=_GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color("#9aa1ab")
        lowest, first = place + columns > len(names), place % columns == 1 or columns == 1
        ax.tick_params(color="#9aa1ab", labelcolor=_INK, labelsize=8, length=3, labelbottom=lowest, labelleft=first)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _mpl_chart(ax: Axes, chart: Chart) -> list[Line2D]:
    """Draws a chart; returns the lines of its legend."""
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
        left, down = _reads_leftwards(chart.x, x, label), 0.065 * row * chart.stacked
        ax.axvline(x, color=_GREEN, linewidth=1.3, linestyle="--" if "suggestion" in label else "-")
        ax.annotate(
            label, (x, 1 - down), xycoords=("data", "axes fraction"), xytext=(-5 if left else 5, -2),
            textcoords="offset points", ha="right" if left else "left", va="top", fontsize=9, color=_INK,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}, zorder=4,
        )  # fmt: skip
    handles = []
    for series in chart.series:
        line = _mpl_line(series, series.x, series.y)
        line.set_clip_on(series.marker != "cross")
        ax.add_line(line)
        if series.legend:
            handle = _mpl_line(series, [], [])
            handle.set(label=_plain(series.legend), linewidth=min(handle.get_linewidth(), 5), alpha=1.0)
            if series.marker in ("hollow", "cross"):  # the legend says the schedule, not the state
                handle.set(marker=SYMBOLS[series.style.symbol], markerfacecolor=series.style.color, markersize=6.5)
            handles.append(handle)
    if not chart.series:
        ax.text(0.5, 0.5, "nothing to show yet", transform=ax.transAxes, ha="center", color="#5c6370")
    return handles


def _mpl_line(series: Series, x: Iterable[float], y: Iterable[float]) -> Line2D:
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


def _mpl_axis(ax: Axes, which: Literal["x", "y"], one: Axis) -> None:
    if one.log:
        ax.set(**{f"{which}scale": "log"})
        getattr(ax, f"set_{which}ticks")(one.ticks(), [number_text(value) for value in one.ticks()])
        getattr(ax, f"{which}axis").minorticks_off()
    else:
        getattr(ax, f"{which}axis").set_major_locator(MaxNLocator(7, integer=one.whole))
    ax.set(**{f"{which}lim": (one.low, one.high)})
    getattr(ax, f"set_{which}label")(_plain(one.title), fontsize=9.5, color=_INK)


def _plain(text: str) -> str:
    """Matplotlib reads what stands between dollar signs as mathematics."""
    return text.replace("$", r"\$")
