"""Errors that a user can act on: one line each, and the exit code of the command line."""

from collections.abc import Iterable
from difflib import get_close_matches


class TuneLRError(Exception):
    """The root of every expected error. Its text is one line: what is wrong (got X); what is allowed."""

    exit_code = 1


class InputError(TuneLRError):
    """The input contradicts itself, or contradicts what this cluster declares."""

    exit_code = 2


class ResourceError(TuneLRError):
    """The cluster, the storage or the study on disk cannot serve what was asked."""

    exit_code = 4


class NoAnswerError(TuneLRError):
    """The study ended without an answer."""

    exit_code = 5


class Interrupted(TuneLRError):
    """SIGINT or SIGTERM ended the study; it can be resumed."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def suggestion(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` where something close to `word` is known, else an empty string."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


LONGEST_LINE = 2000


def one_line(error: object) -> str:
    """Return an exception's text, or any other, on one line. What comes after LONGEST_LINE characters is cut off."""
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]} [...]"
