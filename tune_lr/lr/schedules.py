"""LR schedules as pure functions of the step: a name and its parameters -> LR (and momentum) at every step.

A schedule is one entry of `SCHEDULES`: its parameters as data, and small functions that take those parameters with
every length in steps. To add one, write its functions and its entry; nothing else knows the names. Every function
computes what the class of the same shape in `torch.optim.lr_scheduler` computes, in the same order of operations, so
that training here and training with the PyTorch lines of `LRSchedule.code` give the same curve. Nothing here imports
torch.

The LR of a trial is its peak, `lr`; a schedule scales it and never exceeds it. Lengths are a fraction of `max_steps`
(a float in (0, 1]) or steps (an integer from 2 up). Floors are fractions of the peak.

A `warmup` takes the LR linearly up to the peak, and the schedule then runs over the steps that remain: its lengths
count from the end of the warm-up, as with torch's SequentialLR, and fractions are of those steps. There is none where
it has no place: one-cycle and cyclic rise by themselves, and SequentialLR refuses ReduceLROnPlateau.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from numbers import Integral, Real
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

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


def _length(name: str, default: float | None, doc: str, *, rounded_up: bool = False) -> Parameter:
    return Parameter(name, default, "length", f"{doc}: fraction of max_steps, or steps", rounded_up=rounded_up)


def _fraction(
    name: str, default: float | None, doc: str, *, low_open: bool = False, high_open: bool = False
) -> Parameter:
    return Parameter(name, default, "number", doc, 0.0, 1.0, low_open=low_open, high_open=high_open)


def _decay(name: str, default: float | None, doc: str) -> Parameter:
    return _fraction(name, default, doc, low_open=True)


def _floor(default: float) -> Parameter:
    return _fraction("floor", default, "lowest LR / peak")


def _momenta(base: float, top: float) -> tuple[Parameter, Parameter]:
    return (
        _fraction("base_momentum", base, "momentum (Adam: beta1) where the LR is highest", high_open=True),
        _fraction("max_momentum", top, "momentum (Adam: beta1) where the LR is lowest", high_open=True),
    )


def _warmup(default: float | None = None) -> tuple[Parameter, Parameter]:
    return (
        _length("warmup", default, "length of a linear rise to the peak before all else"),
        # torch's LinearLR divides by it: not 0.
        Parameter("warmup_start", None, "number", "LR at the first step / peak; 0.01 where absent", 1e-6, 1.0),
    )


class _Code(str):
    """Code, where `LRSchedule.code` writes values."""

    __repr__ = str.__str__


def _as_given(parameters: dict[str, Any]) -> dict[str, Any]:
    return parameters


def _as_resolved(parameters: dict[str, Any], max_steps: int, steps_per_epoch: int | None) -> dict[str, Any]:
    return parameters


@dataclass(frozen=True, kw_only=True)
class ScheduleSpec:
    """One LR schedule: data for tables and validators, and the functions that draw it.

    `lr`, `momentum` and `arguments` get the parameters as `resolve` leaves them, lengths in steps, and `max_steps`,
    which like `step` counts from the end of the warm-up and of what is `flat`.
    """

    name: str
    doc: str
    parameters: tuple[Parameter, ...] = ()
    torch_class: str  # in torch.optim.lr_scheduler
    piecewise: bool = False  # drawn as steps, not as a line
    lr: Callable[[Parameters, float, int], float]  # (parameters, peak, step)
    momentum: Callable[[Parameters, int], float] | None = None  # (parameters, step)
    # Follows validations, not steps: torch's class is stepped in training, and `lr` shows how far the LR can fall.
    by_metric: bool = False
    arguments: Callable[[Parameters, float], dict[str, Any]]  # (parameters, lr) -> keyword arguments of the torch class
    # Refuses parameters that contradict each other (ValueError); fills in what follows from their absence.
    combine: Callable[[dict[str, Any]], dict[str, Any]] = _as_given
    # (parameters, max_steps) -> steps at the peak before `lr` begins: torch's ConstantLR.
    flat: Callable[[Parameters, int], int] | None = None
    # What only a budget tells; gets lengths in steps. May refuse (ValueError).
    resolve: Callable[[dict[str, Any], int, int | None], dict[str, Any]] = _as_resolved

    @property
    def cycles_momentum(self) -> bool:
        return self.momentum is not None

    @property
    def torch_classes(self) -> tuple[str, ...]:
        """In torch.optim.lr_scheduler, without the LinearLR of a warm-up; several follow each other by SequentialLR."""
        return ("ConstantLR", self.torch_class) if self.flat else (self.torch_class,)


def _check_momenta(p: Parameters) -> None:
    if p["base_momentum"] > p["max_momentum"]:
        raise ValueError(
            f"base_momentum is above max_momentum (got {p['base_momentum']:g} > {p['max_momentum']:g}); "
            "allowed: base_momentum <= max_momentum"
        )


# --- step


def _step_lr(p: Parameters, peak: float, step: int) -> float:
    return float(peak * p["gamma"] ** (step // p["step_size"]))


# --- exponential


def _exponential_combine(p: dict[str, Any]) -> dict[str, Any]:
    given = [name for name in ("final_factor", "gamma", "gamma_per_epoch") if p[name] is not None]
    if len(given) > 1:
        raise ValueError(
            f"{' and '.join(given)} contradict each other (got {', '.join(f'{name}={p[name]:g}' for name in given)}); "
            "allowed: one of final_factor, gamma, gamma_per_epoch"
        )
    return p if given else {**p, "final_factor": 0.01}


def _exponential_resolve(p: dict[str, Any], max_steps: int, steps_per_epoch: int | None) -> dict[str, Any]:
    if p["final_factor"] is not None:
        return {**p, "gamma": p["final_factor"] ** (1 / max_steps)}
    if p["gamma_per_epoch"] is not None:
        if steps_per_epoch is None:
            raise ValueError(
                f"gamma_per_epoch wants the number of steps in an epoch (got {p['gamma_per_epoch']:g} without one); "
                "give steps_per_epoch, or final_factor or gamma in its place"
            )
        return {**p, "gamma": p["gamma_per_epoch"] ** (1 / steps_per_epoch)}
    return p


def _exponential_lr(p: Parameters, peak: float, step: int) -> float:
    return float(peak * p["gamma"] ** step)


# --- cosine, and the end of flat_cosine


def _cosine_lr(p: Parameters, peak: float, step: int) -> float:
    floor = p["floor"] * peak
    return float(floor + (peak - floor) * (1 + math.cos(math.pi * step / p["max_steps"])) / 2)


def _cosine_arguments(p: Parameters, lr: float) -> dict[str, Any]:
    return {"T_max": p["max_steps"], "eta_min": p["floor"] * lr}


# --- onecycle


def _onecycle_combine(p: dict[str, Any]) -> dict[str, Any]:
    _check_momenta(p)
    if p["three_phase"] and p["pct_start"] > 0.5:
        raise ValueError(
            f"pct_start leaves no room for the way down (got {p['pct_start']:g}); allowed with three_phase: at most 0.5"
        )
    return p


def _onecycle_resolve(p: dict[str, Any], max_steps: int, steps_per_epoch: int | None) -> dict[str, Any]:
    # A rise of exactly one step makes torch's OneCycleLR divide by zero; a rise that is longer by a hair does not.
    if p["pct_start"] * max_steps == 1:
        return {**p, "pct_start": p["pct_start"] * (1 + 1e-12)}
    return p


def _onecycle(p: Parameters, step: int, start: float, top: float, end: float) -> float:
    """From `start` to `top`, and down to `end`; with three_phase back to `start` in between."""
    last = p["max_steps"] - 1
    rise = p["pct_start"] * p["max_steps"]
    if p["three_phase"]:
        phases = [(rise - 1, start, top), (2 * rise - 2, top, start), (last, start, end)]
    else:
        phases = [(rise - 1, start, top), (last, top, end)]
    # One step further torch leaves the curve: a linear one-cycle would show a negative LR.
    step = min(step, last)
    begin = 0.0
    for until, left, right in phases:  # noqa: B007 - used after the loop
        if step <= until:
            break
        begin = until
    done = (step - begin) / (until - begin)
    if p["anneal_strategy"] == "linear":
        return float((right - left) * done + left)
    return float(right + (left - right) / 2 * (math.cos(math.pi * done) + 1))


def _onecycle_lr(p: Parameters, peak: float, step: int) -> float:
    start = peak / p["div_factor"]
    return _onecycle(p, step, start, peak, start / p["final_div_factor"])


def _onecycle_momentum(p: Parameters, step: int) -> float:
    return _onecycle(p, step, p["max_momentum"], p["base_momentum"], p["max_momentum"])


def _onecycle_arguments(p: Parameters, lr: float) -> dict[str, Any]:
    shape = ("pct_start", "anneal_strategy", "div_factor", "final_div_factor", "three_phase")
    return {"max_lr": lr, "total_steps": p["max_steps"], **{name: p[name] for name in shape}}


# --- cyclic


_MODES = ("triangular", "triangular2", "exp_range")


def _cyclic_combine(p: dict[str, Any]) -> dict[str, Any]:
    _check_momenta(p)
    if p["gamma"] is not None and p["mode"] != "exp_range":
        raise ValueError(f"gamma has no effect in mode {p['mode']} (got {p['gamma']:g}); allowed: with mode exp_range")
    return p


def _cyclic_resolve(p: dict[str, Any], max_steps: int, steps_per_epoch: int | None) -> dict[str, Any]:
    down = p["step_size_up"] if p["step_size_down"] is None else p["step_size_down"]
    cycles = max_steps // (p["step_size_up"] + down)
    if p["mode"] == "triangular2" and cycles >= 1024:
        # torch computes 2.0 ** cycles, which overflows.
        raise ValueError(f"triangular2 halves the LR's range too often (got {cycles} cycles); allowed: at most 1023")
    gamma = 0.01 ** (1 / max_steps) if p["gamma"] is None else p["gamma"]
    return {**p, "step_size_down": down, "gamma": gamma}


def _cyclic_height(p: Parameters, step: int) -> float:
    """How far up, from 0 (floor) to 1 (peak)."""
    length = p["step_size_up"] + p["step_size_down"]
    rise = p["step_size_up"] / length
    # In floats, as torch has it: whole steps are rounded otherwise, which shows where momentum falls to 0.
    cycle = math.floor(1 + step / length)
    position = 1 + step / length - cycle
    height = position / rise if position <= rise else (position - 1) / (rise - 1)
    scale = {"triangular": 1.0, "triangular2": 0.5 ** (cycle - 1), "exp_range": p["gamma"] ** step}[p["mode"]]
    return float(height * scale)


def _cyclic_lr(p: Parameters, peak: float, step: int) -> float:
    floor = p["floor"] * peak
    return float(floor + (peak - floor) * _cyclic_height(p, step))


def _cyclic_momentum(p: Parameters, step: int) -> float:
    return float(p["max_momentum"] - (p["max_momentum"] - p["base_momentum"]) * _cyclic_height(p, step))


def _cyclic_arguments(p: Parameters, lr: float) -> dict[str, Any]:
    shape = ("step_size_up", "step_size_down", "mode") + (("gamma",) if p["mode"] == "exp_range" else ())
    return {"base_lr": p["floor"] * lr, "max_lr": lr, **{name: p[name] for name in shape}}


# --- multistep


def _multistep_lr(p: Parameters, peak: float, step: int) -> float:
    # Milestones that coincide, as fractions of a small budget may, count each: so they do in torch.
    return float(peak * p["gamma"] ** bisect_right(p["milestones"], step))


# --- cosine_restarts


def _cosine_restarts_lr(p: Parameters, peak: float, step: int) -> float:
    floor, length = p["floor"] * peak, p["t_0"]
    while step >= length:
        if p["t_mult"] == 1:
            step %= length
        else:
            step, length = step - length, length * p["t_mult"]
    return float(floor + (peak - floor) * (1 + math.cos(math.pi * step / length)) / 2)


# --- polynomial


def _polynomial_lr(p: Parameters, peak: float, step: int) -> float:
    return float(peak * (1 - step / p["max_steps"]) ** p["power"])


# --- linear, and the end of wsd


def _linear_lr(p: Parameters, peak: float, step: int) -> float:
    return float(peak * (1 + (p["floor"] - 1) * step / p["max_steps"]))


def _linear_arguments(p: Parameters, lr: float) -> dict[str, Any]:
    return {"start_factor": 1.0, "end_factor": p["floor"], "total_iters": p["max_steps"]}


# --- inverse_sqrt


def _inverse_sqrt_resolve(p: dict[str, Any], max_steps: int, steps_per_epoch: int | None) -> dict[str, Any]:
    return {**p, "timescale": p["warmup"] if p["timescale"] is None else p["timescale"]}


def _inverse_sqrt_lr(p: Parameters, peak: float, step: int) -> float:
    return float(peak * (p["timescale"] / (p["timescale"] + step)) ** 0.5)


def _inverse_sqrt_arguments(p: Parameters, lr: float) -> dict[str, Any]:
    return {"lr_lambda": _Code(f"lambda step: ({p['timescale']} / ({p['timescale']} + step)) ** 0.5")}


# --- plateau


_VALIDATIONS = 10  # in the budget, where a plateau is drawn


def _plateau_combine(p: dict[str, Any]) -> dict[str, Any]:
    if p["threshold_mode"] == "rel" and p["threshold"] >= 1:
        raise ValueError(
            f"threshold is out of range in threshold_mode rel (got {p['threshold']:g}); allowed: a number in [0, 1)"
        )
    return p


def _plateau_lr(p: Parameters, peak: float, step: int) -> float:
    """As if every validation after the first were no better: the LR falls as early and as often as it can."""
    worse = step * _VALIDATIONS // p["max_steps"] - 1
    first = p["patience"] + 1
    drops = 0 if worse < first else 1 + (worse - first) // (first + p["cooldown"])
    return float(max(peak * p["factor"] ** drops, p["floor"] * peak))


def _plateau_arguments(p: Parameters, lr: float) -> dict[str, Any]:
    shape = ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown")
    # torch's own eps, 1e-8, would end the fall of a small LR early.
    return {**{name: p[name] for name in shape}, "min_lr": p["floor"] * lr, "eps": 0.0}


SCHEDULES: Mapping[str, ScheduleSpec] = {
    spec.name: spec
    for spec in (
        ScheduleSpec(
            name="constant",
            doc="the peak LR at every step",
            parameters=_warmup(),
            torch_class="ConstantLR",
            lr=lambda p, peak, step: float(peak),
            arguments=lambda p, lr: {"factor": 1.0, "total_iters": p["max_steps"]},
        ),
        ScheduleSpec(
            name="step",
            # The defaults are how ResNets were trained. With 0.33 a fourth plateau would follow, a few steps long.
            doc="plateaus, each lower by gamma; by default three, at 1, 0.1 and 0.01 of the peak (He et al. 2016)",
            parameters=(
                _length("step_size", 0.34, "length of a plateau"),
                _decay("gamma", 0.1, "factor from plateau to plateau"),
                *_warmup(),
            ),
            torch_class="StepLR",
            piecewise=True,
            lr=_step_lr,
            arguments=lambda p, lr: {"step_size": p["step_size"], "gamma": p["gamma"]},
        ),
        ScheduleSpec(
            name="exponential",
            doc="falls by the same factor at every step; give one of its parameters",
            parameters=(
                _decay("final_factor", None, "LR at max_steps / peak; 0.01 where none of the three is given"),
                _decay("gamma", None, "factor from step to step"),
                _decay("gamma_per_epoch", None, "factor from epoch to epoch, spread evenly over the steps"),
                *_warmup(),
            ),
            torch_class="ExponentialLR",
            combine=_exponential_combine,
            resolve=_exponential_resolve,
            lr=_exponential_lr,
            arguments=lambda p, lr: {"gamma": p["gamma"]},
        ),
        ScheduleSpec(
            name="cosine",
            doc="falls from the peak to the floor along half a cosine (Loshchilov & Hutter 2017), without restarts",
            parameters=(_floor(0.0), *_warmup()),
            torch_class="CosineAnnealingLR",
            lr=_cosine_lr,
            arguments=_cosine_arguments,
        ),
        ScheduleSpec(
            name="onecycle",
            doc="rises to the peak, then falls far below the start; momentum goes the other way (Smith & Topin 2019)",
            parameters=(
                _fraction("pct_start", 0.3, "fraction of max_steps spent rising", low_open=True, high_open=True),
                Parameter("div_factor", 25.0, "number", "peak / LR at the start", 1.0, 1e12),
                Parameter("final_div_factor", 1e4, "number", "LR at the start / LR at the end", 1.0, 1e12),
                Parameter("anneal_strategy", "cos", "choice", "shape of rise and fall", choices=("cos", "linear")),
                Parameter("three_phase", False, "flag", "fall to the start as fast as it rose, then to the end"),
                *_momenta(0.85, 0.95),
            ),
            torch_class="OneCycleLR",
            combine=_onecycle_combine,
            resolve=_onecycle_resolve,
            lr=_onecycle_lr,
            momentum=_onecycle_momentum,
            arguments=_onecycle_arguments,
        ),
        ScheduleSpec(
            name="cyclic",
            # The default 0.25: two whole cycles, so that training ends at the floor, where Smith advises to stop.
            doc="between floor and peak, up and down; momentum goes the other way (Smith 2017)",
            parameters=(
                _floor(0.1),
                _length("step_size_up", 0.25, "length of a rise"),
                _length("step_size_down", None, "length of a fall, step_size_up where absent"),
                Parameter("mode", "triangular", "choice", "peaks alike, halved each cycle, or falling", choices=_MODES),
                _decay(
                    "gamma", None, "exp_range: factor per step on the height above the floor; absent: 0.01 at max_steps"
                ),
                *_momenta(0.8, 0.9),
            ),
            torch_class="CyclicLR",
            combine=_cyclic_combine,
            resolve=_cyclic_resolve,
            lr=_cyclic_lr,
            momentum=_cyclic_momentum,
            arguments=_cyclic_arguments,
        ),
        ScheduleSpec(
            name="multistep",
            doc="falls by gamma at each milestone; by default at half and at three quarters (He et al. 2016)",
            parameters=(
                Parameter(
                    "milestones",
                    (0.5, 0.75),
                    "lengths",
                    "where it falls: a list of fractions of max_steps, or of steps",
                ),
                _decay("gamma", 0.1, "factor at each milestone"),
                *_warmup(),
            ),
            torch_class="MultiStepLR",
            piecewise=True,
            lr=_multistep_lr,
            arguments=lambda p, lr: {"milestones": list(p["milestones"]), "gamma": p["gamma"]},
        ),
        ScheduleSpec(
            name="cosine_restarts",
            doc="half a cosine again and again, each time from the peak (Loshchilov & Hutter 2017)",
            parameters=(
                # 1 + 2 + 4 of these are the whole. Rounded down, a last restart would end training at the peak.
                _length("t_0", 0.143, "length of the first cycle", rounded_up=True),
                Parameter("t_mult", 2, "integer", "how many times longer each cycle is than the last", 1, 10),
                _floor(0.0),
                *_warmup(),
            ),
            torch_class="CosineAnnealingWarmRestarts",
            lr=_cosine_restarts_lr,
            arguments=lambda p, lr: {"T_0": p["t_0"], "T_mult": p["t_mult"], "eta_min": p["floor"] * lr},
        ),
        ScheduleSpec(
            name="polynomial",
            doc="falls to 0 as a power of the steps that are left; by default the square (You et al. 2017)",
            parameters=(
                Parameter(
                    "power", 2.0, "number", "of the steps that are left; 1 is a straight line", 0.0, 10.0, low_open=True
                ),
                *_warmup(),
            ),
            torch_class="PolynomialLR",
            lr=_polynomial_lr,
            arguments=lambda p, lr: {"total_iters": p["max_steps"], "power": p["power"]},
        ),
        ScheduleSpec(
            name="linear",
            doc="falls from the peak to the floor in a straight line",
            parameters=(_floor(0.0), *_warmup()),
            torch_class="LinearLR",
            lr=_linear_lr,
            arguments=_linear_arguments,
        ),
        ScheduleSpec(
            name="inverse_sqrt",
            doc="rises to the peak, then falls with the square root of the step (Vaswani et al. 2017)",
            parameters=(
                _length("timescale", None, "length of the fall to 0.71 of the peak, warmup where absent"),
                *_warmup(0.1),
            ),
            torch_class="LambdaLR",
            resolve=_inverse_sqrt_resolve,
            lr=_inverse_sqrt_lr,
            arguments=_inverse_sqrt_arguments,
        ),
        ScheduleSpec(
            name="wsd",
            doc="warm-up, stable, decay: rises, stays at the peak, falls in a straight line (Hu et al. 2024)",
            parameters=(_length("decay", 0.2, "length of the fall"), _floor(0.0), *_warmup(0.1)),
            torch_class="LinearLR",
            flat=lambda p, max_steps: max(0, max_steps - p["decay"]),
            lr=_linear_lr,
            arguments=_linear_arguments,
        ),
        ScheduleSpec(
            name="flat_cosine",
            doc="stays at the peak, then falls to the floor along half a cosine",
            parameters=(_length("flat", 0.72, "length of the stay"), _floor(0.0), *_warmup()),
            torch_class="CosineAnnealingLR",
            flat=lambda p, max_steps: int(p["flat"]),
            lr=_cosine_lr,
            arguments=_cosine_arguments,
        ),
        ScheduleSpec(
            name="plateau",
            doc="falls by a factor where validations stop improving; drawn as if none improved after the first",
            parameters=(
                Parameter(
                    "mode", "min", "choice", "how the metric improves: as metric.goal says", choices=("min", "max")
                ),
                _fraction("factor", 0.1, "factor of each fall", low_open=True, high_open=True),
                # torch's own 10 are a whole trial here.
                Parameter("patience", 2, "integer", "validations that may be no better before the LR falls", 0),
                Parameter("threshold", 1e-4, "number", "an improvement smaller than this is none", 0.0),
                Parameter(
                    "threshold_mode", "rel", "choice", "relative to the best, or absolute", choices=("rel", "abs")
                ),
                Parameter("cooldown", 0, "integer", "validations after a fall that do not count", 0),
                _floor(0.0),
            ),
            torch_class="ReduceLROnPlateau",
            piecewise=True,
            by_metric=True,
            combine=_plateau_combine,
            lr=_plateau_lr,
            arguments=_plateau_arguments,
        ),
    )
}


@dataclass(frozen=True)
class LRSchedule:
    """An LR schedule over a budget of `max_steps` optimizer steps; made by `make_lr_schedule`.

    `parameters` is complete, with lengths as given, so that it makes the same schedule for another budget. `resolved`
    holds the numbers behind the curve, with lengths in steps: `warmup` and `flat`, 0 where there is none, and as
    `max_steps` what remains after them. Beyond the budget the last value holds.
    """

    name: str
    parameters: Parameters
    max_steps: int
    resolved: Parameters = field(repr=False)

    def factor(self, step: int) -> float:
        """LR / peak LR of the optimizer step with the 0-based index `step`."""
        return self.lr(1.0, step)

    def curve(self, places: int = 50) -> tuple[float, ...]:
        """`factor` at so many places, spread evenly over the budget."""
        return tuple(self.factor((2 * i + 1) * self.max_steps // (2 * places)) for i in range(places))

    def mean_factor(self) -> float:
        """The mean of `factor` over the budget, to a few percent."""
        return fmean(self.curve())

    def lr(self, peak: float, step: int) -> float:
        """LR of the optimizer step with the 0-based index `step`.

        It is what the torch class shows after `step` calls of its `step()`, except that a one-cycle ends, and holds, at
        step max_steps - 1. Where the schedule is `by_metric` it is the fastest fall, not what a training will show.
        Raises ValueError for a negative step.
        """
        p, step = self.resolved, self._within_budget(step)
        if step < p["warmup"]:
            return float(peak * (p["warmup_start"] + (1 - p["warmup_start"]) * step / p["warmup"]))
        step -= p["warmup"]
        return float(peak) if step < p["flat"] else SCHEDULES[self.name].lr(p, peak, step - p["flat"])

    def momentum(self, step: int) -> float | None:
        """Momentum (Adam: beta1) of the optimizer step with the 0-based index `step`; None where it is not scheduled.

        Raises ValueError for a negative step.
        """
        step = self._within_budget(step)
        momentum = SCHEDULES[self.name].momentum
        return None if momentum is None else momentum(self.resolved, step)

    def code(self, lr: float, *, cycle_momentum: bool) -> str:
        """The PyTorch lines that define `scheduler`, complete with every number, for an `optimizer` built with `lr`.

        `cycle_momentum` says whether one-cycle and cyclic also move momentum. Give False for an optimizer that has
        none: torch would switch plain SGD's momentum on. The lines are for parameter groups that share one LR.
        """
        spec, p = SCHEDULES[self.name], self.resolved
        arguments = self.arguments(lr)
        if spec.cycles_momentum:
            arguments["cycle_momentum"] = cycle_momentum
            if cycle_momentum:
                arguments |= {name: p[name] for name in ("base_momentum", "max_momentum")}
        before: list[tuple[int, str]] = []  # steps, and the scheduler of these steps
        if p["warmup"]:
            rise = {"start_factor": p["warmup_start"], "total_iters": p["warmup"]}
            before.append((p["warmup"], _call("LinearLR", rise)))
        if p["flat"]:
            before.append((p["flat"], _call("ConstantLR", {"factor": 1.0, "total_iters": p["flat"]})))
        if before:
            schedulers = [scheduler for _, scheduler in before] + [_call(spec.torch_class, arguments)]
            listed = "".join(f"        {scheduler},\n" for scheduler in schedulers)
            milestones = list(accumulate(steps for steps, _ in before))
            together = {"schedulers": _Code(f"[\n{listed}    ]"), "milestones": milestones}
            scheduler = _call("SequentialLR", together, "\n")
        else:
            scheduler = _call(spec.torch_class, arguments, "\n")
        steps = f"step() after every optimizer step, {self.max_steps} in all"
        return (
            "import torch\n\n"
            f"# `optimizer` was built with lr={float(lr)!r}.\n"
            f"# Call scheduler.{'step(metric) after every validation' if spec.by_metric else steps}.\n"
            f"scheduler = {scheduler}\n"
        )

    def arguments(self, lr: float) -> dict[str, Any]:
        """The keyword arguments of the torch class besides momentum's, for an optimizer built with `lr`."""
        return SCHEDULES[self.name].arguments(self.resolved, float(lr))

    def _within_budget(self, step: int) -> int:
        if step < 0:
            raise ValueError(f"step is negative (got {step}); steps count from 0")
        return min(step, self.max_steps)


def _call(torch_class: str, arguments: Mapping[str, Any], end: str = "") -> str:
    """The call that builds a scheduler: on one line, or with `end` a newline one argument a line."""
    given = ["optimizer", *(f"{name}={value!r}" for name, value in arguments.items())]
    inner = "".join(f"    {one},\n" for one in given) if end else ", ".join(given)
    return f"torch.optim.lr_scheduler.{torch_class}({end}{inner})"


def check_parameters(name: str, parameters: Parameters) -> None:
    """Raise ValueError, saying what is wrong and what is allowed, unless `name` is an LR schedule with such parameters.

    It needs no budget; what only a budget tells is checked by `make_lr_schedule`.
    """
    _complete(name, parameters)


def make_lr_schedule(
    name: str, parameters: Parameters, max_steps: int, *, steps_per_epoch: int | None = None
) -> LRSchedule:
    """The LR schedule `name` over `max_steps` optimizer steps; parameters left out take their defaults.

    `steps_per_epoch` (optimizer steps) is needed for `gamma_per_epoch` only. Raises InputError for an unknown name or
    parameter, for a value that is not allowed, and for parameters that contradict each other or the budget.
    """
    max_steps = _count("max_steps", max_steps)
    if steps_per_epoch is not None:
        steps_per_epoch = _count("steps_per_epoch", steps_per_epoch)
    try:
        complete = _complete(name, parameters)
        spec = SCHEDULES[name]
        known = {parameter.name: parameter for parameter in spec.parameters}
        warmup = _in_steps(known["warmup"], complete["warmup"], max_steps) or 0 if "warmup" in known else 0
        # A warm-up that is longer than the budget is not refused, as no length is: its end is never reached.
        rest = max(1, max_steps - warmup)
        p = {key: _in_steps(known[key], value, rest) for key, value in complete.items()} | {"warmup": warmup}
        if warmup and p["warmup_start"] is None:
            p["warmup_start"] = 0.01
        flat = spec.flat(p, rest) if spec.flat else 0
        rest = max(1, rest - flat)
        resolved = spec.resolve({**p, "flat": flat}, rest, steps_per_epoch)
    except ValueError as error:
        raise InputError(f"lr_schedule {name}: {error}" if name in SCHEDULES else str(error)) from None
    return LRSchedule(name, complete, max_steps, {**resolved, "max_steps": rest})


def curve(schedule: LRSchedule, peak: float) -> npt.NDArray[np.float64]:
    """The LR of every optimizer step of the budget; shape (max_steps,)."""
    return np.array([schedule.lr(peak, step) for step in range(schedule.max_steps)], dtype=np.float64)


def _complete(name: str, parameters: Parameters) -> dict[str, Any]:
    """The parameters checked, with defaults filled in, as plain Python numbers."""
    if name not in SCHEDULES:
        raise ValueError(f"lr_schedule is unknown (got {name!r}){_hint(name, SCHEDULES)}")
    spec = SCHEDULES[name]
    known = {parameter.name: parameter for parameter in spec.parameters}
    for key, value in parameters.items():
        if key not in known:
            raise ValueError(f"parameter is unknown (got {key!r}){_hint(key, known)}")
        known[key].check(value)
    given = {key: _plain(known[key].kind, value) for key, value in parameters.items()}
    complete = {key: given.get(key, parameter.default) for key, parameter in known.items()}
    if complete.get("warmup_start") is not None and complete["warmup"] is None:
        raise ValueError(
            f"warmup_start has no effect without warmup (got {complete['warmup_start']:g}); allowed: with warmup"
        )
    return spec.combine(complete)


def _hint(word: str, known: Mapping[str, Any]) -> str:
    return f"{suggestion(str(word), known)}; allowed: {', '.join(known) or 'none'}"


def _plain(kind: str, value: Any) -> Any:
    """numpy's numbers as Python's, whose repr is fit for `code`."""
    if value is None or kind in ("choice", "flag"):
        return value
    if kind == "lengths":
        return tuple(_plain("length", length) for length in value)
    return int(value) if kind == "integer" or (kind == "length" and isinstance(value, Integral)) else float(value)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
        raise InputError(f"{name} is not a number of steps (got {value!r}); allowed: an integer from 1 up")
    return int(value)


def _in_steps(parameter: Parameter, value: Any, max_steps: int) -> Any:
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
