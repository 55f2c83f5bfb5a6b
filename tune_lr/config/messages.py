"""Messages about a search space: `FILE:LINE FIELD: what is wrong (got X); what is allowed`, on one line."""

from collections.abc import Iterable
from typing import NamedTuple

from tune_lr.errors import InputError

FieldPath = tuple[str | int, ...]
# Where each field was written: a number to sort by, and how a message names the place.
Places = dict[FieldPath, tuple[int, str]]


def one_line(text: str) -> str:
    """`text` with line breaks and everything else that a terminal would act on written as escapes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def shortened(text: str, length: int = 60) -> str:
    """`text` on one line, cut to about `length` characters."""
    cut = one_line(text[: length + 1])
    return cut if len(cut) <= length else cut[: length - 3] + "..."


def field_name(path: FieldPath) -> str:
    """`parameters.lr.values.1` for the path of a field."""
    return ".".join(shortened(str(part)) for part in path)


def shown(value: object) -> str:
    """How an error message shows the value that it got: one line of about 60 characters at most."""
    if isinstance(value, str):
        return shortened(repr(value[:61]))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    try:
        return shortened(repr(value))
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits somewhere inside, or a loop
        return f"a {type(value).__name__}"


class Issue(NamedTuple):
    """Something wrong at a field."""

    path: FieldPath
    what: str


def first_error(issues: Iterable[Issue], places: Places) -> InputError:
    """The error about the issue that was written first, and how many more there are."""

    def place(issue: Issue) -> tuple[int, str]:
        known = (issue.path[:n] for n in range(len(issue.path), 0, -1) if issue.path[:n] in places)
        return places[next(known, ())]

    first, *more = sorted(issues, key=lambda issue: place(issue)[0])
    field = f" {field_name(first.path)}" if first.path else ""
    return InputError(f"{place(first)[1]}{field}: {one_line(first.what)}{f' (and {len(more)} more)' if more else ''}")
