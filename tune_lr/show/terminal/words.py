"""Words and signs that several of the terminal's views share."""

import math
from collections.abc import Iterable

from rich.table import Table

TITLES = {"range_test": "LR range test", "search": "search", "confirm": "confirm"}
SPARKS = "▁▂▃▄▅▆▇█"
_WIDEST_SPARKLINE = 24


def sparkline(values: Iterable[float]) -> str:
    """Return a curve in one line of text, its lowest value at the bottom. Of a long curve it shows the end."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    low = min(finite)
    high = max(finite)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((value - low) * scale)] for value in finite[-_WIDEST_SPARKLINE:])


def duration_text(seconds: float) -> str:
    """Return a duration in minutes, or in seconds below 90 of them: "12 min", "45 s"."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{math.ceil(seconds)} s"


def count_text(number: int, noun: str) -> str:
    """Return "1 trial" or "3 trials"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def plain_table(right_padding: int = 2, left_padding: int = 0) -> Table:
    """Return an empty table without lines, with faint headings."""
    return Table(box=None, padding=(0, right_padding, 0, left_padding), header_style="dim")
