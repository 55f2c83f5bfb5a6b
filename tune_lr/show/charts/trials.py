"""Charts with a place for each trial: when and on which slot it ran, and what it reached at which LR."""

import math
from collections.abc import Sequence

import numpy as np

from tune_lr.records.looks import Style, schedule_color, schedule_style
from tune_lr.records.row import RAMP, TrialRow
from tune_lr.show.charts.model import Axis, Chart, Marker, Series, axis_around, sort_schedules
from tune_lr.show.text import configuration_text, number_text

_MARKERS: dict[str, Marker] = {"complete": "full", "pruned": "hollow", "diverged": "cross"}
_OPACITIES = {"complete": 1.0, "pruned": 0.4}
_OTHER_OPACITY = 0.7


def last_value(row: TrialRow, metric: str) -> float:
    """Return a metric of the trial's last validation; NaN where it was not measured."""
    return row.metrics.get(metric, math.nan)


def timeline_chart(rows: Sequence[TrialRow]) -> Chart:
    """Return the chart of which trial each slot trained, and when: thick lines, faint where a trial was pruned."""
    order = sort_schedules({row.lr_schedule for row in rows})
    ordered = sorted(rows, key=lambda row: (order.index(row.lr_schedule), row.number))
    end = max((row.started_s + row.duration_s for row in rows), default=1.0)
    minutes = end > 600
    unit = 60.0 if minutes else 1.0
    slots = 1 + max((row.slot for row in rows), default=0)
    width = max(2.0, min(14.0, 220 / slots))
    series: list[Series] = []
    for place, row in enumerate(ordered):
        named = place > 0 and ordered[place - 1].lr_schedule == row.lr_schedule  # once in the legend is enough
        series.append(_slot_line(row, end, unit, width, "" if named else row.lr_schedule))
    for row in ordered:
        if row.state in ("diverged", "failed"):
            x = np.array([(row.started_s + row.duration_s) / unit])
            y = np.array([float(row.slot)])
            style = schedule_style(row.lr_schedule)
            series.append(Series(x, y, style, key=row.lr_schedule, marker="cross", joined=False, silent=True))
    return Chart(
        "Trials over slots",
        axis_around("minutes" if minutes else "seconds", [0.0, end / unit], margin=0.01),
        Axis("slot", -0.6, slots - 0.05, whole=True),
        series,
        marks=_phase_starts(rows, unit),
        stacked=False,
        key="faint: pruned   ×: diverged or failed",
    )


def _slot_line(row: TrialRow, end_s: float, unit_s: float, width: float, legend: str) -> Series:
    gap = min(0.001 * end_s, 0.5 * row.duration_s)  # or two trials in a row would look like one
    x = np.linspace(row.started_s, row.started_s + row.duration_s - gap, 3) / unit_s
    return Series(
        x,
        np.full(3, float(row.slot)),
        Style(schedule_color(row.lr_schedule)),
        legend,
        row.lr_schedule,
        width=width,
        opacity=_OPACITIES.get(row.state, _OTHER_OPACITY),
        hover=[f"{_outcome_text(row)}, {number_text(row.duration_s)} s"] * 3,
    )


def _phase_starts(rows: Sequence[TrialRow], unit_s: float) -> list[tuple[float, str]]:
    """Return where the phases after the first began, with their names."""
    marks = []
    for phase in ("search", "confirm"):
        start = min((row.started_s for row in rows if row.phase == phase), default=0.0)
        if start > 0:
            marks.append((start / unit_s, phase))
    return marks


def loss_over_lr_chart(rows: Sequence[TrialRow], metric: str, goal: str) -> Chart:
    """Return the chart of the last value of the metric of every search trial over its LR.

    Diverged trials stand at the edge of the chart, on the bad side.
    """
    searched = [row for row in rows if row.phase == "search" and row.lr_schedule != RAMP and row.lr > 0]
    scored = [row for row in searched if _has_place(row, metric)]
    measured = [last_value(row, metric) for row in scored if row.state != "diverged"]
    y_axis = axis_around(metric, measured, log=goal == "minimize", margin=0.07)
    edge = y_axis.high if goal == "minimize" else y_axis.low
    series = []
    for name in sort_schedules({row.lr_schedule for row in scored}):
        legend = name
        for state in _MARKERS:
            trials = [row for row in scored if row.lr_schedule == name and row.state == state]
            if trials:
                series.append(_points(trials, metric, edge, legend))
                legend = ""
    return Chart(
        f"Final {metric} over the learning rate",
        axis_around("learning rate", (row.lr for row in searched), log=True),
        y_axis,
        series,
        key="filled: complete   hollow: pruned   ×: diverged, at the edge",
    )


def _has_place(row: TrialRow, metric: str) -> bool:
    return row.state == "diverged" or (row.state in _MARKERS and math.isfinite(last_value(row, metric)))


def _points(trials: Sequence[TrialRow], metric: str, edge: float, legend: str) -> Series:
    """Return the points of trials of one LR schedule that ended in the same state."""
    name = trials[0].lr_schedule
    state = trials[0].state
    if state == "diverged":
        values = [edge] * len(trials)
        hover = [_outcome_text(row) for row in trials]
    else:
        values = [last_value(row, metric) for row in trials]
        hover = [f"{_outcome_text(row)}, {metric} {number_text(last_value(row, metric), 4)}" for row in trials]
    return Series(
        np.array([row.lr for row in trials]),
        np.array(values),
        schedule_style(name),
        legend,
        name,
        marker=_MARKERS[state],
        joined=False,
        hover=hover,
    )


def _outcome_text(row: TrialRow) -> str:
    return f"trial {row.number}, {configuration_text(row)}: {row.state} after {row.steps} steps"
