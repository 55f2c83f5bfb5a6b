"""An LR schedule over a budget of steps: its LR and momentum at every step, and the PyTorch lines that build it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from tune_lr.errors import InputError, suggestion
from tune_lr.lr.parameters import Parameters, in_steps, plain_value, step_count
from tune_lr.lr.schedules import SCHEDULES
from tune_lr.lr.torch_code import torch_code


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
        return torch_code(SCHEDULES[self.name], self.resolved, self.max_steps, lr, cycle_momentum=cycle_momentum)

    def arguments(self, lr: float) -> dict[str, Any]:
        """The keyword arguments of the torch class besides momentum's, for an optimizer built with `lr`."""
        return SCHEDULES[self.name].arguments(self.resolved, float(lr))

    def _within_budget(self, step: int) -> int:
        if step < 0:
            raise ValueError(f"step is negative (got {step}); steps count from 0")
        return min(step, self.max_steps)


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
    max_steps = step_count("max_steps", max_steps)
    if steps_per_epoch is not None:
        steps_per_epoch = step_count("steps_per_epoch", steps_per_epoch)
    try:
        complete = _complete(name, parameters)
        spec = SCHEDULES[name]
        known = {parameter.name: parameter for parameter in spec.parameters}
        warmup = in_steps(known["warmup"], complete["warmup"], max_steps) or 0 if "warmup" in known else 0
        # A warm-up that is longer than the budget is not refused, as no length is: its end is never reached.
        rest = max(1, max_steps - warmup)
        p = {key: in_steps(known[key], value, rest) for key, value in complete.items()} | {"warmup": warmup}
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
    given = {key: plain_value(known[key].kind, value) for key, value in parameters.items()}
    complete = {key: given.get(key, parameter.default) for key, parameter in known.items()}
    if complete.get("warmup_start") is not None and complete["warmup"] is None:
        raise ValueError(
            f"warmup_start has no effect without warmup (got {complete['warmup_start']:g}); allowed: with warmup"
        )
    return spec.combine(complete)


def _hint(word: str, known: Mapping[str, Any]) -> str:
    return f"{suggestion(str(word), known)}; allowed: {', '.join(known) or 'none'}"
