"""Numbers, intervals and trials in words, the same in the report, in its charts and in the terminal."""

import math
import re
from collections.abc import Sequence

from tune_lr.records.parameters import setting
from tune_lr.records.row import TrialRow

MISSING = "–"  # stands where a figure was not measured


def number_text(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits and without padding: 0.31, 1e-5, 12400."""
    if not math.isfinite(value):
        return MISSING
    text = f"{value:.{digits}g}"
    if "e" in text and 1e-4 <= abs(value) < 1e7:
        text = f"{float(text):.0f}"
    return re.sub(r"e([+-])0*(\d)", lambda match: "e" + match[1].replace("+", "") + match[2], text)


def figure_text(value: float | None, digits: int = 4) -> str:
    """Return a result, padded to so many significant digits, so that a column of them lines up: 0.3100."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return MISSING
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return f"{value:#.{digits}g}".rstrip(".")
    return number_text(value, digits)


def interval_text(interval: Sequence[float] | None) -> str:
    """Return "[0.0310, 0.0340]", or "" where there is no interval."""
    return f"[{figure_text(interval[0], 3)}, {figure_text(interval[1], 3)}]" if interval else ""


def configuration_text(row: TrialRow) -> str:
    """Return what a trial has trained: "cosine, lr 0.1, adamw, batch 64"."""
    parts = (row.lr_schedule, f"lr {number_text(row.lr)}", setting(row.parameters))
    return ", ".join(part for part in parts if part)
