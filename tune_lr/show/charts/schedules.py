"""The picture of LR schedules that `tune-lr schedules --png` writes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.lr.schedules import SCHEDULES
from tune_lr.records.looks import schedule_style
from tune_lr.show.charts.png import DPI, FRAME, INK, SOFT, png_bytes, style_axes

_STEPS = 840  # a multiple of the lengths that are usual, so that what jumps does so at its place
_MOST_COLUMNS = 5


def schedules_png(names: Sequence[str]) -> bytes:
    """Return the curves of LR schedules with their defaults, each in a small chart, all on the same scales."""
    columns = min(len(names), _MOST_COLUMNS)
    rows = -(-len(names) // columns)
    width = 2.4 * columns + 0.6  # inches
    height = 1.9 * rows + 0.6
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.subplots_adjust(
        left=0.6 / width, right=1 - 0.15 / width, top=1 - 0.3 / height, bottom=0.6 / height, wspace=0.12, hspace=0.32
    )
    figure.supxlabel("step / max_steps", y=0.1 / height, va="bottom", fontsize=9.5, color=INK)
    figure.supylabel("LR / peak", x=0.1 / width, ha="left", fontsize=9.5, color=INK)
    for place, name in enumerate(names, start=1):
        ax = figure.add_subplot(rows, columns, place)
        _draw_schedule(ax, name)
        lowest = place + columns > len(names)
        first = place % columns == 1 or columns == 1
        ax.tick_params(color=FRAME, labelcolor=INK, labelsize=8, length=3, labelbottom=lowest, labelleft=first)
    return png_bytes(figure)


def _draw_schedule(ax: Axes, name: str) -> None:
    spec = SCHEDULES[name]
    color = schedule_style(name).color
    x = np.arange(_STEPS) / _STEPS
    y = make_lr_schedule(name, {}, _STEPS).lrs(1.0)
    ax.set_title(name, loc="left", fontsize=10.5, fontweight="bold", color=INK, pad=5)
    if spec.by_metric:
        ax.text(1, 1.05, "follows the metric", transform=ax.transAxes, fontsize=7.5, color=SOFT, ha="right")
    ax.fill_between(x, y, step="post" if spec.piecewise else None, color=color, alpha=0.1, linewidth=0)
    ax.plot(x, y, color=color, linewidth=1.8, drawstyle="steps-post" if spec.piecewise else "default")
    ax.set(xlim=(0, 1), ylim=(0, 1.06))
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    style_axes(ax)
