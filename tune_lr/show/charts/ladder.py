"""Charts of a ladder: the loss over the LR at each length, and full trainings beside what was predicted of them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tune_lr.config.lengths import length_text
from tune_lr.records.looks import GREY, Style, length_styles, schedule_style
from tune_lr.records.parameters import LENGTH
from tune_lr.records.row import TrialRow
from tune_lr.records.valleys import PredictedTraining, ScheduleValleys, Valley
from tune_lr.show.charts.model import Axis, Chart, Marker, Series, axis_around, sort_schedules
from tune_lr.show.text import configuration_text, number_text

_PATH = Style(GREY)
_HEADROOM = 1.2  # of the axis above the highest training that counts, as a share of the range below it
_MOST = 0.85  # of the trainings, the lowest ones, set the axis: a few may be absurdly high


def valley_chart(schedule: ScheduleValleys, rows: Sequence[TrialRow], metric: str, goal: str) -> Chart:
    """Return the chart of the loss over the LR, with a colour for each length.

    A dot is a training, hollow where its schedule had other parameters; what ended far above the rest stands at the
    edge. A line is the valley that the model fits, in its 80 % band; it is dashed at the full length while nothing was
    trained there. The grey band is where the bottom lies with 80 %, from length to length.
    """
    own = [row for row in rows if row.phase == "search" and row.lr_schedule == schedule.lr_schedule]
    trained = [row for row in own if row.state == "complete" and metric in row.metrics]
    styles = length_styles(len(schedule.valleys))
    bands: list[Series] = []
    lines: list[Series] = []
    dots: list[Series] = []
    for valley, style in zip(schedule.valleys, styles, strict=True):
        at_length = [row for row in trained if abs(row.length - valley.length) < 1e-9]
        name = length_text(valley.length)
        bands.append(_area(valley.lrs, valley.low, valley.lrs, valley.high, style, name, 0.13))
        dash = "solid" if at_length else "dash"
        line = Style(style.color, dash, style.symbol)
        lines.append(Series(np.array(valley.lrs), np.array(valley.losses), line, name, name, width=2.4))
        dots += _dots(at_length, schedule, style, name, metric)
    path = _bottoms(schedule.valleys)
    full = schedule.valleys[-1]
    losses = [row.metrics[metric] for row in trained]
    y_axis = _loss_axis(metric, losses, schedule.valleys, goal)
    return Chart(
        f"{schedule.lr_schedule}: {metric} over the learning rate, by length",
        axis_around("learning rate", schedule.valleys[0].lrs, log=True, margin=0.0),
        y_axis,
        [
            *(_within(series, y_axis) for series in (*bands, *path, *lines)),
            *(_at_edge(series, y_axis) for series in dots),
        ],
        marks=[(full.lr, f"best at full length {number_text(full.lr)}")],
        key="dot: one training   line: fitted valley, dashed: nothing trained there   grey: the bottom, 80 %",
    )


def predicted_and_observed_chart(full_trainings: Sequence[PredictedTraining], metric: str) -> Chart:
    """Return the chart of what was predicted of each full training over what it reached, with 80 % intervals."""
    ends = [end for entry in full_trainings for end in (*entry.interval, entry.observed)]
    axis = axis_around(f"{metric}, observed", ends, margin=0.12)
    diagonal = np.array([axis.low, axis.high])
    series = [Series(diagonal, diagonal, Style(GREY, "dash"), "as predicted", width=1.5, silent=True)]
    for name in sort_schedules({entry.lr_schedule for entry in full_trainings}):
        style = schedule_style(name)
        own = [entry for entry in full_trainings if entry.lr_schedule == name]
        for entry in own:
            x, y = np.full(2, entry.observed), np.array(entry.interval)
            series.append(Series(x, y, Style(style.color), key=name, width=3, opacity=0.45, silent=True))
        observed, predicted = ([getattr(entry, which) for entry in own] for which in ("observed", "predicted"))
        hover = [_predicted_text(entry, metric) for entry in own]
        points = Series(
            np.array(observed), np.array(predicted), style, name, name, marker="full", joined=False, hover=hover
        )
        series.append(points)
    y_axis = Axis(f"{metric}, predicted from shorter trainings", axis.low, axis.high)
    return Chart("Predicted and observed at full length", axis, y_axis, series, key="bar: 80 % interval of the mean")


def _dots(rows: Sequence[TrialRow], schedule: ScheduleValleys, style: Style, key: str, metric: str) -> list[Series]:
    dots = []
    for same in (True, False):
        shown = [row for row in rows if _has_parameters(row, schedule) == same]
        if shown:
            x, y = np.array([row.lr for row in shown]), np.array([row.metrics[metric] for row in shown])
            hover = [
                f"trial {row.number}, {configuration_text(row)}: {metric} {number_text(row.metrics[metric], 4)}"
                for row in shown
            ]
            marker: Marker = "full" if same else "hollow"
            dots.append(Series(x, y, Style(style.color), key=key, marker=marker, joined=False, hover=hover))
    return dots


def _has_parameters(row: TrialRow, schedule: ScheduleValleys) -> bool:
    return {name: value for name, value in row.parameters.items() if name != LENGTH} == dict(schedule.parameters)


def _bottoms(valleys: Sequence[Valley]) -> list[Series]:
    """Return the way of the bottom from the shortest length to the full one: its band, and a line with dots."""
    losses = [valley.loss for valley in valleys]
    low, high = ([valley.lr_interval[end] for valley in valleys] for end in (0, 1))
    hover = [
        f"bottom at {length_text(valley.length)}: lr {number_text(valley.lr)}, "
        f"between {number_text(valley.lr_interval.low)} and {number_text(valley.lr_interval.high)}"
        for valley in valleys
    ]
    line = Series(
        np.array([valley.lr for valley in valleys]),
        np.array(losses),
        _PATH,
        "bottom",
        width=2,
        marker="small",
        hover=hover,
    )
    return [_area(low, losses, high, losses, _PATH, "", 0.22), line]


def _area(
    x: Sequence[float], y: Sequence[float], x_back: Sequence[float], y_back: Sequence[float], style: Style, key: str,
    opacity: float,
) -> Series:  # fmt: skip
    """Return the area between two lines."""
    corners = np.array([*x, *reversed(x_back)]), np.array([*y, *reversed(y_back)])
    return Series(*corners, Style(style.color), key=key, opacity=opacity, filled=True, silent=True)


def _within(series: Series, axis: Axis) -> Series:
    """Return a series whose points leave the axis by no more than its own range: walls may be absurdly high."""
    if axis.log:
        ends = axis.low**2 / axis.high, axis.high**2 / axis.low
    else:
        ends = 2 * axis.low - axis.high, 2 * axis.high - axis.low
    return replace(series, y=np.clip(series.y, *ends))


def _at_edge(series: Series, axis: Axis) -> Series:
    """Return points of which those outside the axis stand at its edge."""
    return replace(series, y=np.clip(series.y, axis.low, axis.high))


def _loss_axis(metric: str, losses: Sequence[float], valleys: Sequence[Valley], goal: str) -> Axis:
    """Return an axis around the bottoms and most trainings; the walls of the valleys leave it."""
    sign = -1.0 if goal == "maximize" else 1.0
    ordered = sorted(sign * loss for loss in [*losses, *(valley.loss for valley in valleys)])
    best, worst = ordered[0], ordered[max(0, round(_MOST * len(ordered)) - 1)]
    ends = [sign * best, sign * (best + _HEADROOM * (worst - best))]
    return axis_around(metric, ends, log=goal == "minimize", margin=0.08)


def _predicted_text(entry: PredictedTraining, metric: str) -> str:
    interval = f"{number_text(entry.interval.low, 4)} to {number_text(entry.interval.high, 4)}"
    return (
        f"trial {entry.trial}, {entry.lr_schedule} at lr {number_text(entry.lr)}\n"
        f"{metric} {number_text(entry.observed, 4)}, predicted {number_text(entry.predicted, 4)} ({interval})"
    )
