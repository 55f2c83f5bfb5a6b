"""The parameters of LR schedules: their names, kinds, defaults and allowed values.

Lengths are a fraction of `max_steps` (a float in (0, 1]) or a number of steps (an integer from 2 up). Floors are
fractions of the peak LR.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal

from tune_lr.errors import InputError, suggestion

# The parameters of one LR schedule by name. A value is of the type that the kind of its parameter says.
Parameters = Mapping[str, Any]
Kind = Literal["length", "lengths", "number", "integer", "choice", "flag"]
Default = float | int | str | bool | tuple[float, ...] | None


@dataclass(frozen=True)
class Parameter:
    """One parameter of an LR schedule.

    `kind` is "length" (see the module), "lengths" (a list of them), "number", "integer", "choice" (one of `choices`) or
    "flag". `low` and `high` bound numbers and integers; `low_open` and `high_open` exclude the bound itself. Where
    `default` is None the parameter may be left out or be None, and `doc` says what then holds; with `zero_is_none` a 0
    says the same. A length that is a
    fraction becomes the nearest whole number of steps, or with `rounded_up` the next larger one.
    """

    name: str
    default: Default
    kind: Kind
    doc: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[str, ...] = ()
    rounded_up: bool = False
    zero_is_none: bool = False

    def check(self, value: object) -> None:
        """Raise ValueError, saying what is wrong and what is allowed, unless `value` is a value of this parameter."""
        if self._is_none(value) and self.default is None:
            return
        if not self._is_of_kind(value):
            what = {"lengths": "a list of lengths", "integer": "an integer"}.get(self.kind, f"a {self.kind}")
            hint = suggestion(str(value), self.choices) if self.kind == "choice" else ""
            raise ValueError(f"{self.name} is not {what} (got {value!r}){hint}; allowed: {self.allowed()}")
        if self.kind == "lengths":
            assert isinstance(value, list | tuple)
            for length in value:
                replace(self, kind="length").check(length)
        elif self.kind == "length" and isinstance(value, Integral) and value == 1:
            raise ValueError(
                f"{self.name} is ambiguous, the whole budget or one step (got 1); "
                "write 1.0 for the whole budget or 2 or more for steps"
            )
        elif not self._is_in_range(value):
            raise ValueError(f"{self.name} is out of range (got {value!r}); allowed: {self.allowed()}")

    def _is_none(self, value: object) -> bool:
        return value is None or (self.zero_is_none and value == 0 and not isinstance(value, bool))

    def _is_of_kind(self, value: object) -> bool:
        if self.kind == "lengths":
            return isinstance(value, list | tuple) and len(value) > 0
        if self.kind == "choice":
            return value in self.choices
        if self.kind == "flag":
            return isinstance(value, bool)
        # In Python True is an integer.
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        return is_number and (self.kind != "integer" or isinstance(value, Integral))

    def _is_in_range(self, value: Any) -> bool:
        """Return whether a value of the right kind lies within the bounds of this parameter."""
        if self.kind in ("choice", "flag"):
            return True
        if self.kind == "length":
            whole = isinstance(value, Integral)
            return bool(value >= 2 if whole else 0 < value <= 1)
        # Every comparison with NaN is false, so NaN is outside, and so are the infinities.
        above = value > (-math.inf if self.low is None else self.low) or (value == self.low and not self.low_open)
        below = value < (math.inf if self.high is None else self.high) or (value == self.high and not self.high_open)
        return bool(above and below)

    def default_text(self) -> str:
        """Return the default as it stands in a table and in YAML."""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if isinstance(self.default, tuple):
            return str(list(self.default))
        return "-" if self.default is None else str(self.default)

    def allowed(self) -> str:
        """Return the values allowed, in the words of a message."""
        if self.kind in ("length", "lengths"):
            each = "a list, such as [0.5, 0.75]; each " if self.kind == "lengths" else ""
            return f"{each}a float in (0, 1] as a fraction of max_steps, or an integer from 2 up as steps"
        if self.kind == "flag":
            return "true or false"
        if self.kind == "choice":
            return self.range()
        return f"{'an integer' if self.kind == 'integer' else 'a number'} in {self._interval()}"

    def range(self) -> str:
        """Return the values allowed, in short, for a table whose words say the rest."""
        if self.kind in ("length", "lengths"):
            return f"{'a list of ' if self.kind == 'lengths' else ''}(0, 1] or 2, 3, ..."
        if self.kind == "choice":
            return ", ".join(self.choices)
        if self.kind == "flag":
            return "true, false"
        if self.kind == "integer":
            assert self.low is not None
            return f"{self.low:g}, {self.low + 1:g}, ..." + ("" if self.high is None else f", {self.high:g}")
        return self._interval()

    def _interval(self) -> str:
        left = "(-inf" if self.low is None else f"{'(' if self.low_open else '['}{self.low:g}"
        right = "inf)" if self.high is None else f"{self.high:g}{')' if self.high_open else ']'}"
        return f"{left}, {right}"

    def plain(self, value: Any) -> Any:
        """Return a value of this parameter in Python's own types, whose repr is fit for `LRSchedule.code`.

        Numbers of numpy become those of Python, a list becomes a tuple.
        """
        if self._is_none(value):
            return None
        if self.kind in ("choice", "flag"):
            return value
        if self.kind == "lengths":
            return tuple(replace(self, kind="length").plain(length) for length in value)
        whole = self.kind == "integer" or (self.kind == "length" and isinstance(value, Integral))
        return int(value) if whole else float(value)

    def in_steps(self, value: Any, max_steps: int) -> Any:
        """Return a length in steps, and a list of lengths as a rising tuple of steps; any other value as it is."""
        if self.kind == "lengths":
            return tuple(sorted(_length_in_steps(length, max_steps, self.rounded_up) for length in value))
        if self.kind == "length" and value is not None:
            return _length_in_steps(value, max_steps, self.rounded_up)
        return value


def _length_in_steps(length: float | int, max_steps: int, rounded_up: bool) -> int:
    """Return a length in steps: a fraction (float) of the budget, at least 1; an integer is steps already."""
    if not isinstance(length, float):
        return length
    # 0.07 of 100 steps is 7.000000000000001 in floats, which must not be rounded up to 8.
    return max(1, math.ceil(length * max_steps - 1e-9) if rounded_up else round(length * max_steps))


def check_step_count(name: str, value: object) -> int:
    """Return `value` as a Python integer. Raises InputError unless it is an integer from 1 up; `name` is the field."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
        raise InputError(f"{name} is not a number of steps (got {value!r}); allowed: an integer from 1 up")
    return int(value)


def length_parameter(
    name: str, default: float | None, doc: str, *, rounded_up: bool = False, zero_is_none: bool = False
) -> Parameter:
    """Return a length."""
    doc = f"{doc}: fraction of max_steps, or steps"
    return Parameter(name, default, "length", doc, rounded_up=rounded_up, zero_is_none=zero_is_none)


def fraction_parameter(
    name: str, default: float | None, doc: str, *, low_open: bool = False, high_open: bool = False
) -> Parameter:
    """Return a number from 0 to 1."""
    return Parameter(name, default, "number", doc, 0.0, 1.0, low_open=low_open, high_open=high_open)


def decay_parameter(name: str, default: float | None, doc: str) -> Parameter:
    """Return a factor in (0, 1]."""
    return fraction_parameter(name, default, doc, low_open=True)


def floor_parameter(default: float) -> Parameter:
    """Return the lowest LR of a schedule, as a fraction of the peak."""
    return fraction_parameter("floor", default, "lowest LR / peak")


def momentum_parameters(base: float, top: float) -> tuple[Parameter, Parameter]:
    """Return the two ends of a momentum that moves against the LR, with their defaults."""
    return (
        fraction_parameter("base_momentum", base, "momentum (Adam: beta1) where the LR is highest", high_open=True),
        fraction_parameter("max_momentum", top, "momentum (Adam: beta1) where the LR is lowest", high_open=True),
    )


def warmup_parameters(default: float | None = None) -> tuple[Parameter, Parameter]:
    """Return the length of a linear warm-up, with its default, and the LR that it starts from."""
    return (
        length_parameter("warmup", default, "length of a linear rise to the peak before all else", zero_is_none=True),
        # torch's LinearLR divides by the start, so it must not be 0.
        Parameter("warmup_start", None, "number", "LR at the first step / peak; 0.01 where absent", 1e-6, 1.0),
    )
