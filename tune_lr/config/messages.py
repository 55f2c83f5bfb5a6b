"""Messages about a search space: `FILE:LINE FIELD: what is wrong (got X); what is allowed`, on one line."""

from collections.abc import Iterable
from typing import NamedTuple

from tune_lr.errors import InputError

# The keys and list indices that lead to a field: ("parameters", "lr", "values", 1).
FieldPath = tuple[str | int, ...]
# Where each field was written: a number to sort by, and how a message names the place.
Places = dict[FieldPath, tuple[int, str]]


def escaped(text: str) -> str:
    """Return `text` with line breaks, and all else that a terminal would act on, written as escapes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def shortened(text: str, length: int = 60) -> str:
    """Return `text` on one line, cut to about `length` characters."""
    cut = escaped(text[: length + 1])
    return cut if len(cut) <= length else cut[: length - 3] + "..."


def field_name(path: FieldPath) -> str:
    """Return the name of a field in messages, such as `parameters.lr.values.1`."""
    return ".".join(shortened(str(part)) for part in path)


def shown(value: object) -> str:
    """Return a value as a message shows it: one line of about 60 characters at most."""
    if isinstance(value, str):
        return shortened(repr(value[:61]))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    try:
        return shortened(repr(value))
    except (ValueError, RecursionError):  # It holds an integer of more than 4,300 digits, or itself.
        return f"a {type(value).__name__}"


class Issue(NamedTuple):
    """Something wrong at a field."""

    path: FieldPath
    what: str


def first_error(issues: Iterable[Issue], places: Places) -> InputError:
    """Return the error about the issue that was written first. It also says how many more there are.

    An issue is reported where its field was written, or else where the nearest field around it was.
    """

    def place(issue: Issue) -> tuple[int, str]:
        known = (issue.path[:n] for n in range(len(issue.path), 0, -1) if issue.path[:n] in places)
        return places[next(known, ())]

    first, *more = sorted(issues, key=lambda issue: place(issue)[0])
    where = place(first)[1]
    field = f" {field_name(first.path)}" if first.path else ""
    others = f" (and {len(more)} more)" if more else ""
    return InputError(f"{where}{field}: {escaped(first.what)}{others}")
