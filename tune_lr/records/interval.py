"""An interval of numbers, as it stands in files and tables."""

from typing import NamedTuple


class Interval(NamedTuple):
    """The closed interval from `low` to `high`."""

    low: float
    high: float
