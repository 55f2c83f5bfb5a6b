"""Words and signs that several of the terminal's views share."""

import math
from collections.abc import Iterable, Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import measure_renderables
from rich.table import Table
from rich.text import Text

from tune_lr.records.predicted_curve import Expected

TITLES = {"range_test": "LR range test", "search": "search", "confirm": "confirm"}
SPARKS = "▁▂▃▄▅▆▇█"
_WIDEST_SPARKLINE = 24
_ANY_WIDTH = 10_000  # characters: no table of ours is wider


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


def expected_text(expected: Expected) -> str:
    """Return what is predicted at a step: "2.09 (2.05 to 2.14)"."""
    return f"{expected.value:.4g} ({expected.low:.4g} to {expected.high:.4g})"


def count_text(number: int, noun: str) -> str:
    """Return "1 trial" or "3 trials"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def plain_table(right_padding: int = 2, left_padding: int = 0) -> Table:
    """Return an empty table without lines, with faint headings, that is not cut in a narrow terminal."""
    return _WholeTable(box=None, padding=(0, right_padding, 0, left_padding), header_style="dim")


class _WholeTable(Table):
    """A table that loses no letter where the terminal is narrow.

    Its widest column is wrapped. Where that is not enough, each row is written as "heading value" pairs in as many
    lines as they need. Rich would cut the words of all columns.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unlimited = options.update(max_width=_ANY_WIDTH)
        widths = [measure_renderables(console, unlimited, [column.header, *column.cells]) for column in self.columns]
        least = sum(width.maximum for width in widths) + len(widths) * (self.padding[1] + self.padding[3])
        if least > options.max_width:
            widest = max(range(len(widths)), key=lambda place: widths[place].maximum)
            least -= widths[widest].maximum - widths[widest].minimum
            for place, column in enumerate(self.columns):
                column.no_wrap = place != widest
        if least <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        cells_of_rows = zip(*(column.cells for column in self.columns), strict=True)
        for row, cells in zip(self.rows, cells_of_rows, strict=True):
            for line in self._row_in_lines(cells, options.max_width):
                line.style = row.style or ""
                yield line

    def _row_in_lines(self, cells: Iterable[object], width: int) -> Iterator[Text]:
        """Yield a row as lines of at most `width` characters where its words allow it, indented from the second on."""
        indent = " " * self.padding[3]
        line = Text(indent)
        for column, cell in zip(self.columns, cells, strict=True):
            value = cell if isinstance(cell, Text) else Text.from_markup(str(cell))
            heading = Text(f"{column.header} " if column.header else "", style="dim")
            if not value.plain:
                continue
            pair = heading + value
            if line.plain.strip() and len(line) + 2 + len(pair) > width:
                yield line
                line = Text(f"{indent}  ")
            elif line.plain.strip():
                line.append("  ")
            line.append_text(pair)
        yield line
