"""The lengths of trials, as the field `lengths` names them: fractions of `max_steps`.

With `full` every trial trains for `max_steps`. A ladder is a list of lengths, from short to full: most trials are short
complete trainings, and what they show is carried over to the full length (docs/long_trainings.md).
"""

from fractions import Fraction
from itertools import pairwise
from typing import Any

from tune_lr.config.base import FieldError
from tune_lr.config.messages import shown

SHORTEST = 20  # steps of a training that still shows which LR is good
DEFAULT_BUDGET = "2x"  # of a ladder: one full training at the end, and as much for the ramps and the short ones
# Validations of a short trial. They cost time, and the curve of the full training is predicted where they lie.
LEAST_REPORTS = 4
ALLOWED = "auto, full, or fractions of max_steps from short to full, such as [1/64, 1/16, 1/4, 1]"


def parse_lengths(value: Any) -> Any:
    """Return `auto`, `full` or a list of floats from what stands in the YAML. Raises FieldError."""
    if value in ("auto", "full"):
        return value
    if not isinstance(value, list | tuple) or not value:
        raise FieldError(f"names no lengths (got {shown(value)}); allowed: {ALLOWED}")
    lengths = tuple(_fraction(length, place) for place, length in enumerate(value))
    for place, (shorter, longer) in enumerate(pairwise(lengths), start=1):
        if longer <= shorter:
            raise FieldError(f"must be longer than the one before (got {shown(value[place])})", place)
    if lengths[-1] != 1.0:
        last = len(lengths) - 1
        raise FieldError(f"must be 1, the full length, since it is the last (got {shown(value[-1])})", last)
    return lengths if len(lengths) > 1 else "full"


def _fraction(length: Any, place: int) -> float:
    try:
        number = Fraction(length.strip()) if isinstance(length, str) else length
    except (ValueError, ZeroDivisionError):
        number = None
    if isinstance(number, bool) or not isinstance(number, int | float | Fraction) or not 0 < number <= 1:
        raise FieldError(f"is no fraction of max_steps (got {shown(length)}); write a number in (0, 1], or 1/16", place)
    return float(number)


def length_text(length: float) -> str:
    """Return a length as people write it: "1/64", "full"."""
    if length == 1.0:
        return "full"
    fraction = Fraction(length).limit_denominator(1000)
    return str(fraction) if abs(fraction - length) < 1e-9 * length else f"{length:.3g}"


def steps_of_length(length: float, max_steps: int) -> int:
    """Return how many steps a training of that length has."""
    return max(1, round(length * max_steps))
