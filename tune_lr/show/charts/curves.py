"""Charts over the steps of trials: learning rate, training loss and validation loss."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tune_lr.lr.schedules import SCHEDULES
from tune_lr.records.looks import Style
from tune_lr.records.row import TrialRow
from tune_lr.show.charts.model import CURVE_POINTS, Array, Axis, Chart, Columns, Marker, Series, axis_around, thin

_MOST_MARKED = 60  # points of a curve that are marked one by one


@dataclass(frozen=True)
class TrialCurve:
    """A trial with its curve, and how charts show it."""

    row: TrialRow
    curve: Columns
    label: str  # in the legend
    key: str  # the switch of the report that hides it
    style: Style
    batch_size: int | None = None  # where batch sizes are searched: the curve is drawn over samples, not over steps

    @property
    def x(self) -> Array:
        """The optimizer steps of the curve's points, or the samples seen."""
        return self.curve["step"] * (self.batch_size or 1)


def lr_chart(trials: Sequence[TrialCurve], subject: str = "", points: int = CURVE_POINTS) -> Chart:
    """Return the chart of the learning rate over steps; `subject` ends its title."""
    series = []
    for trial in trials:
        x, y = thin(trial.x, trial.curve["lr"], points)
        spec = SCHEDULES.get(trial.row.lr_schedule)
        stairs = spec is not None and spec.piecewise
        series.append(Series(x, y, trial.style, trial.label, trial.key, stairs=stairs))
    y_axis = axis_around("learning rate", [0.0, *(lr for line in series for lr in line.y)])
    return Chart(f"Learning rate {subject}".strip(), _step_axis(series, trials), y_axis, series)


def train_loss_chart(trials: Sequence[TrialCurve], subject: str = "", points: int = CURVE_POINTS) -> Chart:
    """Return the chart of the training loss over steps: raw and faint, and its running mean."""
    raw = []
    means = []
    for trial in trials:
        finite = np.isfinite(trial.curve["train_loss"])
        steps = trial.x[finite]
        losses = trial.curve["train_loss"][finite]
        x, y = thin(steps, losses, points)
        raw.append(Series(x, y, Style(trial.style.color), "", trial.key, width=0.8, opacity=0.22, silent=True))
        x, y = thin(steps, running_mean(losses), points)
        means.append(Series(x, y, trial.style, trial.label, trial.key))
    y_axis = _loss_axis("training loss", means, raw)
    return Chart(f"Training loss {subject}".strip(), _step_axis(means, trials), y_axis, [*raw, *means])


def val_loss_chart(trials: Sequence[TrialCurve], subject: str = "", points: int = CURVE_POINTS) -> Chart:
    """Return the chart of the validation loss over steps."""
    series = [_validation(trial, points) for trial in trials]
    y_axis = axis_around("validation loss", (loss for line in series for loss in line.y), log=True)
    return Chart(f"Validation loss {subject}".strip(), _step_axis(series, trials), y_axis, series)


def loss_chart(trial: TrialCurve, points: int) -> Chart:
    """Return the chart of one trial's raw training loss and its validation loss."""
    x, y = thin(trial.x, trial.curve["train_loss"], points)
    training = Series(x, y, Style(trial.style.color), "training", width=1, opacity=0.5)
    validation = replace(_validation(trial, points), legend="validation")
    x_axis = _step_axis([training, validation], [trial])
    return Chart("Loss", x_axis, _loss_axis("loss", [validation], [training]), [training, validation])


def running_mean(values: Array) -> Array:
    """Return a centred mean over a thirtieth of the curve; it is shorter at the ends, so that it does not lag."""
    half = len(values) // 60
    if not half:
        return values
    window = np.ones(2 * half + 1)
    mean: Array = np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")
    return mean


def _validation(trial: TrialCurve, points: int) -> Series:
    x, y = thin(trial.x, trial.curve["val_loss"], points)
    marker: Marker = "small" if len(x) <= _MOST_MARKED else "none"
    return Series(x, y, trial.style, trial.label, trial.key, marker=marker)


def _loss_axis(title: str, lines: Sequence[Series], raw: Sequence[Series]) -> Axis:
    """Return an axis around the lines and the raw losses, of which the rarest may leave the chart."""
    values = np.concatenate([[], *(line.y for line in lines)])
    raw_losses = np.concatenate([[], *(line.y for line in raw)])
    if len(raw_losses):
        values = np.append(values, np.quantile(raw_losses, [0.005, 0.995]))
    return axis_around(title, values, log=True)


def _step_axis(series: Sequence[Series], trials: Sequence[TrialCurve]) -> Axis:
    title = "samples" if any(trial.batch_size for trial in trials) else "step"
    return replace(axis_around(title, (step for line in series for step in line.x), margin=0.01), whole=True)
