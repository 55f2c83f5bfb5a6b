"""The validation metric that short trainings predict along a full training, with its 80 % band."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

# A figure is far out of the band where it lies this many times as far from the median as the band's end on its side.
# Figures leave a band of 80 % by chance, and bands of this model more often than that (benchmarks/RESULTS.md).
FAR_OUT = 2.0


class Expected(NamedTuple):
    """What is expected at one step: the median, and the ends of the 80 % band."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PredictedCurve:
    """The curve at some steps, in ascending order; `values`, `low` and `high` have one entry for each of them."""

    steps: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def at(self, step: int) -> Expected | None:
        """Return what is expected at a step, linear between two places; None before the first place."""
        if not self.steps or not self.steps[0] <= step <= self.steps[-1]:
            return None
        return Expected(*(float(np.interp(step, self.steps, line)) for line in (self.values, self.low, self.high)))

    def side(self, step: int, value: float) -> Literal["above", "below"] | None:
        """Return on which side of the band a figure lies far outside of it; None where it does not."""
        expected = self.at(step)
        if expected is None:
            return None
        if value > expected.value + FAR_OUT * (expected.high - expected.value):
            return "above"
        return "below" if value < expected.value - FAR_OUT * (expected.value - expected.low) else None

    def to_dict(self) -> dict[str, Any]:
        """Return the curve as predicted_curves.json holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "PredictedCurve":
        """Return the inverse of `to_dict`. Raises KeyError or TypeError where `data` says something else."""
        return cls(**{name: tuple(values) for name, values in data.items()})
