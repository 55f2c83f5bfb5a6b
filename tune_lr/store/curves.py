"""Curves as CSV: one row an optimizer step, appended by the driver while a trial trains.

A driver that is killed may leave half a row at the end. Readers leave it out, and whoever goes on cuts it off.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from tune_lr.errors import ResourceError, one_line
from tune_lr.store.files import replacing
from tune_lr.store.tables import cell

RANGE_CURVE_COLUMNS = ("step", "lr", "loss")
CURVE_COLUMNS = ("step", "lr", "train_loss")  # then val_loss, and val_<metric> for each metric of the workload

Point = tuple[int, float, float]  # step, LR, training loss
Curve = dict[str, list[float]]  # columns by their names; NaN where nothing was measured


def start_curve(path: Path, columns: Sequence[str]) -> None:
    """Begin a curve anew, with its header alone."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerow(columns)


def append_points(path: Path, points: Iterable[Sequence[float | None]]) -> None:
    """Append points, each with its figures in the order of the file's columns. None is left empty."""
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([cell(value) for value in point] for point in points)


def cut_curve(path: Path, step: int) -> None:
    """Leave the points up to `step`, from which an interrupted trial goes on."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = _whole_lines(file)
    with replacing(path) as file:
        file.writelines([header, *(line for line in lines if int(line.partition(",")[0]) <= step)])


def read_curve(path: Path) -> Curve:
    """Return a curve's columns by their names. Raises ResourceError where the file is no curve."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(_whole_lines(file))
            header = next(reader, None)
            if header is None:
                raise ResourceError(f"{path}: empty; `tune-lr resume` runs an unfinished trial again")
            columns: Curve = {name: [] for name in header}
            for record in reader:
                for name, text in zip(header, record, strict=True):
                    columns[name].append(float(text) if text else math.nan)
    except (OSError, ValueError, csv.Error) as error:
        raise ResourceError(f"{path}: cannot be read as a curve ({one_line(error)}); put the file back") from None
    return columns


def has_points(path: Path) -> bool:
    """Return whether a curve has more than its header."""
    return len(path.read_bytes().splitlines()) > 1


def points_of(curve: Curve) -> list[Point]:
    """Return a curve's points: step, LR and training loss. A curve without columns has none."""
    if not curve:
        return []
    losses = curve["loss" if "loss" in curve else "train_loss"]
    return [(int(step), lr, loss) for step, lr, loss in zip(curve["step"], curve["lr"], losses, strict=True)]


def validations_of(curve: Curve) -> dict[int, dict[str, float]]:
    """Return what was measured in each validation: the metrics by their names in files, by the step."""
    metrics = [name for name in curve if name.startswith("val_")]
    validations = {}
    for place, step in enumerate(curve["step"] if metrics else []):
        measured = {name: curve[name][place] for name in metrics if not math.isnan(curve[name][place])}
        if measured:
            validations[int(step)] = measured
    return validations


def _whole_lines(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if line.endswith("\n")]
