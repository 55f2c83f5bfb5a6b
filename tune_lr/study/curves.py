"""The curves of a study on disk: reports are appended to them, and an interrupted trial is read back from them."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tune_lr.errors import ResourceError
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.checkpoints import Checkpoint
from tune_lr.store.curves import (
    CURVE_COLUMNS,
    RANGE_CURVE_COLUMNS,
    Curve,
    append_points,
    cut_curve,
    points_of,
    read_curve,
    start_curve,
    validations_of,
)
from tune_lr.store.study_dir import StudyDir


def curve_path(directory: StudyDir, spec: TrialSpec) -> Path:
    """Return the file of a trial's curve."""
    return directory.range_curve(spec.number) if spec.phase == "range_test" else directory.curve(spec.number)


class Curves:
    """Writes the curves of a study and reads them back. Raises OSError where the storage refuses."""

    def __init__(self, directory: StudyDir) -> None:
        self._directory = directory

    def start(self, spec: TrialSpec) -> None:
        """Begin the curve of a trial anew; a trial of the search or the confirmation gets its folder too."""
        path = curve_path(self._directory, spec)
        if spec.phase == "range_test":
            start_curve(path, RANGE_CURVE_COLUMNS)
        else:
            # The columns depend on the metrics of the workload, which the first report names.
            self._directory.start_trial(spec.number, spec.to_dict())
            path.unlink(missing_ok=True)

    def append(self, spec: TrialSpec, report: Report, metrics: Sequence[str]) -> None:
        """Append the points of a report; `metrics` are those of the workload: "val_loss", "val_accuracy"."""
        path = curve_path(self._directory, spec)
        if spec.phase == "range_test":
            append_points(path, report.points)
            return
        if not report.points:
            return
        if not path.exists():
            start_curve(path, [*CURVE_COLUMNS, *metrics])
        append_points(path, _rows_of(report, metrics))

    def take_up(self, spec: TrialSpec) -> tuple[list[Report], list[str]]:
        """Return what an interrupted trial had reported up to the checkpoint from which it goes on, and what a person
        should know of it. The curve is cut back to that checkpoint.

        There are no reports where no checkpoint goes with the curve: then the trial begins anew.
        """
        path = curve_path(self._directory, spec)
        columns = RANGE_CURVE_COLUMNS if spec.phase == "range_test" else CURVE_COLUMNS
        try:
            curve = read_curve(path)
        except ResourceError:  # there is no curve, or none that can be read
            return [], []
        if not set(columns) <= curve.keys():
            return [], []
        checkpoint, refused = self._directory.newest_checkpoint(spec.number, len(curve["step"]))
        notices = [f"trial {spec.number}: {problem}" for problem in refused]
        if checkpoint is None or curve["step"][: checkpoint.step] != list(range(1, checkpoint.step + 1)):
            return [], notices
        cut_curve(path, checkpoint.step)
        notices.append(f"trial {spec.number}: goes on from its checkpoint at step {checkpoint.step}")
        return _reports_up_to(checkpoint, curve), notices


def _rows_of(report: Report, metrics: Sequence[str]) -> list[tuple[float | None, ...]]:
    """Return the rows that a report adds to a curve: step, lr, training loss, then each of `metrics`.

    Only the last row has figures of a validation; None stands for what was not measured.
    """
    unmeasured = (None,) * len(metrics)
    rows: list[tuple[float | None, ...]] = [(*point, *unmeasured) for point in report.points]
    if report.metrics:
        rows[-1] = (*report.points[-1], *(report.metrics.get(name) for name in metrics))
    return rows


def _reports_up_to(checkpoint: Checkpoint, curve: Curve) -> list[Report]:
    """Return the curve up to a checkpoint as reports, one for each validation and one at the checkpoint.

    The curve does not say how long its steps took: the first report counts for the time of all.
    """
    points = points_of(curve)
    validations = validations_of(curve)
    ends = sorted({*(step for step in validations if step < checkpoint.step), checkpoint.step})
    reports: list[Report] = []
    for before, step in pairwise([0, *ends]):
        seconds = 0.0 if reports else checkpoint.seconds
        reports.append(Report(step, tuple(points[before:step]), validations.get(step, {}), seconds=seconds))
    return reports
