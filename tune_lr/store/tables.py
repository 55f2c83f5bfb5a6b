"""trials.csv: one row a trial that has ended, of every phase."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tune_lr.records.parameters import WITHOUT_OWNER
from tune_lr.records.row import TrialRow
from tune_lr.store.files import replacing

FIRST_COLUMNS = ("number", "phase", "state", "lr_schedule", "lr")  # the parameters follow
MIDDLE_COLUMNS = ("seed", "steps", "val_loss")  # the other metrics follow
LAST_COLUMNS = ("duration_s", "started_s", "slot", "reason", "label")


def write_rows(path: Path, rows: Sequence[TrialRow]) -> None:
    """Replace the table by these rows. A cell is empty where a trial has no such parameter or metric."""
    parameters = sorted({name for row in rows for name in row.parameters})
    metrics = sorted({name for row in rows for name in row.metrics} - {"val_loss"})
    header = [*FIRST_COLUMNS, *parameters, *MIDDLE_COLUMNS, *metrics, *LAST_COLUMNS]
    lines = []
    for row in rows:
        cells = {**vars(row), **row.parameters, **row.metrics}
        lines.append([cell(cells.get(name)) for name in header])
    with replacing(path) as file:
        csv.writer(file, lineterminator="\n").writerows([header, *lines])


def read_rows(path: Path) -> list[TrialRow]:
    """Return the rows of the table, in its order. Raises OSError where there is no such file."""
    with path.open(newline="", encoding="utf-8") as file:
        return [_row(record) for record in csv.DictReader(file)]


def cell(value: Any) -> str:
    """Return a value as the text of a CSV cell, from which a number can be read back to its last digit."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.replace("\r", " ")  # csv leaves a carriage return unquoted, and then cannot read it
    return repr(float(value)) if isinstance(value, float) else str(value)  # numpy's floats say so in their repr


def _row(record: Mapping[str, str]) -> TrialRow:
    measured = {name: text for name, text in record.items() if text and name.startswith("val_")}
    parameters = {name: text for name, text in record.items() if text and ("." in name or name in WITHOUT_OWNER)}
    return TrialRow(
        number=int(record["number"]),
        phase=record["phase"],
        state=record["state"],
        lr_schedule=record["lr_schedule"],
        lr=float(record["lr"]) if record["lr"] else math.nan,
        parameters={name: _parameter(text) for name, text in parameters.items()},
        seed=int(record["seed"]),
        steps=int(record["steps"]),
        metrics={name: float(text) for name, text in measured.items()},
        duration_s=float(record["duration_s"]),
        started_s=float(record["started_s"]),
        slot=int(record["slot"]),
        reason=record["reason"],
        label=record["label"],
    )


def _parameter(text: str) -> Any:
    """Return a parameter as it was before it became text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    if text.startswith("["):  # milestones, betas: a list of numbers reads the same in Python and in JSON
        return json.loads(text)
    return {"True": True, "False": False}.get(text, text)
