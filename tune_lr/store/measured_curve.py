"""A range-test curve that was measured elsewhere, read from a CSV file of the user's."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from tune_lr.errors import InputError, suggestion


def read_curve(path: Path) -> tuple[list[float], list[float]]:
    """Return the LRs and losses of a CSV file, one a step, from its columns `lr` and `loss`; others are ignored.

    A loss may be nan or inf. Raises InputError, with file and line, for a file that cannot be read, a column that is
    missing, a cell that is no number, and LRs that are not positive and finite or that fall.
    """
    lrs: list[float] = []
    losses: list[float] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = _header(path, reader.fieldnames or [])
            for row in reader:
                place = f"{path}:{reader.line_num}"
                lr = _number(row["lr"], f"{place} lr")
                loss = _number(row["loss"], f"{place} loss")
                if not 0 < lr < math.inf:
                    raise InputError(f"{place} lr: must be positive and finite (got {lr:g})")
                if lrs and lr < lrs[-1]:
                    what = f"must not fall from one step to the next (got {lr:g} after {lrs[-1]:g})"
                    raise InputError(f"{place} lr: {what}; write each replicate into a file of its own")
                lrs.append(lr)
                losses.append(loss)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no CSV file"
        raise InputError(f"{path}: cannot be read ({why}); give a CSV file with the columns step, lr, loss") from None
    if not lrs:
        raise InputError(f"{path}: holds no steps; each line after the first is one step: step, lr, loss")
    return lrs, losses


def _header(path: Path, names: Sequence[str]) -> list[str]:
    """Return the names of the columns without spaces around them. Raises InputError unless lr and loss are there."""
    header = [name.strip() for name in names]
    for name in ("lr", "loss"):
        if name not in header:
            got = ", ".join(header)[:80] or "nothing"
            hint = suggestion(name, header)
            raise InputError(f"{path}:1 {name}: no such column (got {got}){hint}; allowed are step, lr, loss")
    return header


def _number(text: str | None, place: str) -> float:
    try:
        return float(text or "")
    except ValueError:
        what = f"must be a number (got {(text or '')[:40]!r}); a loss may be nan or inf"
        raise InputError(f"{place}: {what}") from None
