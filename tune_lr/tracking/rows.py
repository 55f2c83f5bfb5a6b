"""What is logged of a curve: one row a step, the same from a report and from a file, and the thinning of long ones."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tune_lr.config.model import Config
from tune_lr.records.predicted_curve import PredictedCurve
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.curves import Curve, Point, points_of, validations_of

# A run has every point up to this many steps. Beyond, it is thinned to about as many: see Thinner.
MAX_POINTS = 5_000

Row = dict[str, Any]  # what is logged at one step


def x_axis(config: Config) -> str:
    """Return over which axis curves are comparable. Where batch sizes differ, steps are not."""
    return "train/samples" if config.parameters.batch_size else "train/step"


def report_rows(
    trial: TrialSpec, report: Report, predicted_curve: PredictedCurve | None = None, metric: str = ""
) -> list[Row]:
    """Return what is logged of a report. `predicted_curve` is the predicted curve of `metric`, where there is one."""
    rows = _rows(trial, report.points, {report.step: report.metrics})
    expected = predicted_curve.at(report.step) if predicted_curve and report.metrics else None
    if rows and expected is not None:
        name = f"val/{metric.removeprefix('val_')}"
        rows[-1] |= {f"{name}_predicted": expected.value, f"{name}_low": expected.low, f"{name}_high": expected.high}
    return rows


def curve_rows(trial: TrialSpec, curve: Curve) -> list[Row]:
    """Return what is logged of a whole curve on disk."""
    return _rows(trial, points_of(curve), validations_of(curve))


def _rows(trial: TrialSpec, points: Iterable[Point], validations: Mapping[int, Mapping[str, float]]) -> list[Row]:
    if trial.phase == "range_test":
        return [{"range/lr": lr, "range/step": step, "range/loss": loss} for step, lr, loss in points]
    rows = []
    for step, lr, loss in points:
        row: Row = {"train/step": step, "train/lr": lr, "train/loss": loss}
        if trial.batch_size:
            row["train/samples"] = step * trial.batch_size
        for name, value in validations.get(step, {}).items():
            row[f"val/{name.removeprefix('val_')}"] = value
        rows.append(row)
    return rows


class Thinner:
    """Bounds the points of a very long run, and keeps points of the curve itself, never means of them.

    Up to `MAX_POINTS` steps nothing is left out. Beyond, the steps are cut into stretches of equal length, and of each
    stretch stay the point with the lowest and the one with the highest loss, every validation and every loss that is
    not finite; so do the curve's first and last point. Rows come out in their order, a stretch late.
    """

    def __init__(self, max_steps: int, step: str, loss: str) -> None:
        self._every = 1 if max_steps <= MAX_POINTS else math.ceil(max_steps / (MAX_POINTS // 2))
        self._step, self._loss = step, loss
        self._stretch: list[Row] = []

    def add(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield what can be logged now that `rows` are there."""
        if self._every == 1:
            yield from rows
            return
        for row in rows:
            if row[self._step] == 1:
                yield row
                continue
            if self._stretch and row[self._step] // self._every != self._stretch[-1][self._step] // self._every:
                yield from self._take()
            self._stretch.append(row)

    def end(self) -> Iterator[Row]:
        """Yield what is left, with the curve's last point."""
        last = self._stretch[-1:]
        rows = self._take()
        yield from rows
        if rows[-1:] != last:
            yield from last

    def _take(self) -> list[Row]:
        rows, self._stretch = self._stretch, []
        losses = [row[self._loss] for row in rows]
        finite = [loss for loss in losses if math.isfinite(loss)]
        extremes = {losses.index(pick(finite)) for pick in (min, max) if finite}
        return [
            row
            for i, (row, loss) in enumerate(zip(rows, losses, strict=True))
            if i in extremes or not math.isfinite(loss) or any(name.startswith("val/") for name in row)
        ]
