"""The parameters of LR schedules: their names, defaults and allowed values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

from tune_lr.errors import InputError, suggestion

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One parameter of an LR schedule.

    `kind` is "length" (see the module), "lengths" (a list of them), "number", "integer", "choice" (one of `choices`) or
    "flag". `low` and `high` bound numbers and integers; `low_open` and `high_open` exclude the bound itself. Where
    `default` is None the parameter may be left out or be None, and `doc` says what then holds.
    """

    name: str
    default: Any
    kind: str
    doc: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[str, ...] = ()
    rounded_up: bool = False  # a fraction becomes so many whole steps or the next more; else the nearest

    def check(self, value: Any) -> None:
        """Raise ValueError, saying what is wrong and what is allowed, unless `value` is a value of this parameter."""
        if value is None and self.default is None:
            return
        what = {"lengths": "a list of lengths", "integer": "an integer"}.get(self.kind, f"a {self.kind}")
        wrong = f"{self.name} is not {what} (got {value!r})"
        if self.kind == "lengths":
            if not isinstance(value, list | tuple) or not value:
                raise ValueError(f"{wrong}; allowed: {self.allowed()}")
            for length in value:
                replace(self, kind="length").check(length)
        elif self.kind == "choice":
            if value not in self.choices:
                raise ValueError(f"{wrong}{suggestion(str(value), self.choices)}; allowed: {self.allowed()}")
        elif self.kind == "flag":
            if not isinstance(value, bool):
                raise ValueError(f"{wrong}; allowed: {self.allowed()}")
        elif not _is_real(value) or (self.kind == "integer" and not isinstance(value, Integral)):
            raise ValueError(f"{wrong}; allowed: {self.allowed()}")
        elif self.kind == "length" and isinstance(value, Integral) and value == 1:
            raise ValueError(
                f"{self.name} is ambiguous, the whole budget or one step (got 1); "
                "write 1.0 for the whole budget or 2 or more for steps"
            )
        elif not self._inside(value):
            raise ValueError(f"{self.name} is out of range (got {value!r}); allowed: {self.allowed()}")

    def _inside(self, value: Any) -> bool:
        if self.kind == "length":
            whole = isinstance(value, Integral)
            return bool(value >= 2 if whole else 0 < value <= 1)
        # NaN, for which every comparison is false, and the infinities are outside.
        above = value > (-math.inf if self.low is None else self.low) or (value == self.low and not self.low_open)
        below = value < (math.inf if self.high is None else self.high) or (value == self.high and not self.high_open)
        return bool(above and below)

    def default_text(self) -> str:
        """The default, as it stands in a table and in YAML."""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return "-" if self.default is None else str(list(self.default) if self.kind == "lengths" else self.default)

    def allowed(self) -> str:
        """The values allowed, as words for a message."""
        if self.kind in ("length", "lengths"):
            each = "a list, such as [0.5, 0.75]; each " if self.kind == "lengths" else ""
            return f"{each}a float in (0, 1] as a fraction of max_steps, or an integer from 2 up as steps"
        if self.kind == "flag":
            return "true or false"
        if self.kind == "choice":
            return self.range()
        return f"{'an integer' if self.kind == 'integer' else 'a number'} in {self._interval()}"

    def range(self) -> str:
        """The values allowed, in short for a table whose words say the rest."""
        if self.kind in ("length", "lengths"):
            return f"{'a list of ' * (self.kind == 'lengths')}(0, 1] or 2, 3, ..."
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


def _is_real(value: Any) -> bool:
    # In Python True is an integer.
    return isinstance(value, Real) and not isinstance(value, bool)


def length_parameter(name: str, default: float | None, doc: str, *, rounded_up: bool = False) -> Parameter:
    return Parameter(name, default, "length", f"{doc}: fraction of max_steps, or steps", rounded_up=rounded_up)


def fraction_parameter(
    name: str, default: float | None, doc: str, *, low_open: bool = False, high_open: bool = False
) -> Parameter:
    return Parameter(name, default, "number", doc, 0.0, 1.0, low_open=low_open, high_open=high_open)


def decay_parameter(name: str, default: float | None, doc: str) -> Parameter:
    return fraction_parameter(name, default, doc, low_open=True)


def floor_parameter(default: float) -> Parameter:
    return fraction_parameter("floor", default, "lowest LR / peak")


def momentum_parameters(base: float, top: float) -> tuple[Parameter, Parameter]:
    return (
        fraction_parameter("base_momentum", base, "momentum (Adam: beta1) where the LR is highest", high_open=True),
        fraction_parameter("max_momentum", top, "momentum (Adam: beta1) where the LR is lowest", high_open=True),
    )


def warmup_parameters(default: float | None = None) -> tuple[Parameter, Parameter]:
    return (
        length_parameter("warmup", default, "length of a linear rise to the peak before all else"),
        # torch's LinearLR divides by it: not 0.
        Parameter("warmup_start", None, "number", "LR at the first step / peak; 0.01 where absent", 1e-6, 1.0),
    )


def plain_value(kind: str, value: Any) -> Any:
    """numpy's numbers as Python's, whose repr is fit for `code`."""
    if value is None or kind in ("choice", "flag"):
        return value
    if kind == "lengths":
        return tuple(plain_value("length", length) for length in value)
    return int(value) if kind == "integer" or (kind == "length" and isinstance(value, Integral)) else float(value)


def step_count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
        raise InputError(f"{name} is not a number of steps (got {value!r}); allowed: an integer from 1 up")
    return int(value)


def in_steps(parameter: Parameter, value: Any, max_steps: int) -> Any:
    """A length, or each of a list of them in rising order, in steps; any other value as it is."""
    if parameter.kind == "lengths":
        return tuple(sorted(_steps(length, max_steps, parameter.rounded_up) for length in value))
    return _steps(value, max_steps, parameter.rounded_up) if parameter.kind == "length" and value is not None else value


def _steps(length: float | int, max_steps: int, rounded_up: bool) -> int:
    """A length in steps: a fraction (float) of the budget, at least 1; an integer is steps already."""
    if not isinstance(length, float):
        return length
    # 0.07 of 100 steps is 7.000000000000001 in floats, which is not 8.
    return max(1, math.ceil(length * max_steps - 1e-9) if rounded_up else round(length * max_steps))
