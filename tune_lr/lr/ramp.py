"""The ramp of an LR range test: which LR each of its steps has.

The LR range test is from Smith, "Cyclical learning rates for training neural networks" (WACV 2017).

Notation

    symbol     meaning                                              unit    shape
    low, high  LR of the first and of the last step                 LR      ()
    steps      optimizer steps of the ramp                          steps   ()
    stairs     LRs that a staircase holds, one after the other      1       ()
    step       index of an optimizer step, from 0                   steps   ()
    position   index of the LR: the step, or of a staircase the stair   1   ()
"""

import math
from dataclasses import dataclass, replace

from tune_lr.errors import InputError

MODES = ("exponential", "linear", "staircase")


@dataclass(frozen=True)
class Ramp:
    """The LR of a range test as a function of the step.

    `low` is the LR of the first step, `high` that of the last, `steps` the number of optimizer steps. Modes:
    "exponential" multiplies by a constant factor each step, "linear" adds a constant, "staircase" holds `stairs` LRs,
    spaced evenly on a log scale, for about `steps / stairs` steps each.

    Raises InputError for LRs that are not 0 < low < high, fewer than 2 steps, an unknown mode, and stairs that are
    missing, given for another mode, fewer than 2 or more than the steps.
    """

    low: float
    high: float
    steps: int
    mode: str = "exponential"
    stairs: int | None = None

    def __post_init__(self) -> None:
        if not (0 < self.low < self.high < math.inf):
            raise InputError(
                f"range_test.low, high (got {self.low}, {self.high}) must be finite LRs with 0 < low < high"
            )
        if self.steps < 2:
            raise InputError(f"range_test.steps (got {self.steps}) must be at least 2")
        if self.mode not in MODES:
            raise InputError(f"range_test.mode (got {self.mode!r}) must be one of {', '.join(MODES)}")
        if self.mode == "staircase":
            if self.stairs is None or not 2 <= self.stairs <= self.steps:
                raise InputError(
                    f"range_test.stairs (got {self.stairs}) must be 2 to steps ({self.steps}) for mode staircase"
                )
        elif self.stairs is not None:
            raise InputError(
                f"range_test.stairs (got {self.stairs}) belongs to mode staircase; the mode is {self.mode}"
            )

    def lr(self, step: int) -> float:
        """Return the LR of `step`, counted from 0. Raises InputError outside 0 <= step < steps."""
        if not 0 <= step < self.steps:
            raise InputError(f"step (got {step}) must lie in the ramp of {self.steps} steps: 0 to {self.steps - 1}")
        if self.stairs is None:
            position, last = step, self.steps - 1
        else:
            position, last = step * self.stairs // self.steps, self.stairs - 1
        # The formulas below would return both ends with a rounding error.
        if position == 0:
            return self.low
        if position == last:
            return self.high
        fraction = position / last
        if self.mode == "linear":
            return self.low + (self.high - self.low) * fraction
        return float(self.low * (self.high / self.low) ** fraction)

    def over(self, low: float, high: float) -> "Ramp":
        """Return the same ramp over another range.

        It has as many steps per decade as this one, and in all never fewer steps than this one.
        """
        widening = math.log(high / low) / math.log(self.high / self.low)
        return replace(self, low=low, high=high, steps=math.ceil(self.steps * max(1.0, widening)))
