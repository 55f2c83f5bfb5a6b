"""An LR schedule over a budget of steps: its LR and momentum at every step, and the PyTorch lines that build it.

`make_lr_schedule` takes the name of an entry of `schedules.SCHEDULES`. What all schedules have in common is here: a
warm-up, a flat part at the peak, and the end of the budget, beyond which the last value holds.

Notation

    symbol     meaning                                                          unit   shape
    peak       the LR that the schedule scales and never exceeds                LR     ()
    step       index of an optimizer step, from 0                               steps  ()
    max_steps  steps of the whole budget                                        steps  ()
    factor     LR / peak LR                                                     1      ()
    p          resolved parameters: lengths in steps, `warmup`, `flat`, and     -      -
               `max_steps` as what remains after these two
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_lr.errors import InputError, suggestion
from tune_lr.lr.parameters import Parameters, check_step_count
from tune_lr.lr.schedules import SCHEDULES
from tune_lr.lr.torch_code import torch_code

# The LR at the first step of a warm-up that does not say it, as a fraction of the peak.
WARMUP_START = 0.01


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
        """Return LR / peak LR of the optimizer step with the 0-based index `step`."""
        return self.lr(1.0, step)

    def curve(self, places: int = 50) -> tuple[float, ...]:
        """Return `factor` at so many places, spread evenly over the budget."""
        return tuple(self.factor((2 * i + 1) * self.max_steps // (2 * places)) for i in range(places))

    def mean_factor(self) -> float:
        """Return the mean of `factor` over the budget, to a few percent."""
        return fmean(self.curve())

    def lrs(self, peak: float) -> NDArray[np.float64]:
        """Return the LR of every optimizer step of the budget; shape (max_steps,)."""
        return np.array([self.lr(peak, step) for step in range(self.max_steps)], dtype=np.float64)

    def lr(self, peak: float, step: int) -> float:
        """Return the LR of the optimizer step with the 0-based index `step`.

        It is what the torch class shows after `step` calls of its `step()`, except that a one-cycle ends, and holds, at
        step max_steps - 1. Where the schedule is `by_metric` it is the fastest fall, not what a training will show.
        Raises ValueError for a negative step.
        """
        p = self.resolved
        step = self._within_budget(step)
        if step < p["warmup"]:
            return float(peak * (p["warmup_start"] + (1 - p["warmup_start"]) * step / p["warmup"]))
        step -= p["warmup"]
        if step < p["flat"]:
            return float(peak)
        return SCHEDULES[self.name].lr(p, peak, step - p["flat"])

    def momentum(self, step: int) -> float | None:
        """Return the momentum (Adam: beta1) of the optimizer step with the 0-based index `step`.

        It is None where the schedule does not move it. Raises ValueError for a negative step.
        """
        step = self._within_budget(step)
        momentum = SCHEDULES[self.name].momentum
        return None if momentum is None else momentum(self.resolved, step)

    def code(self, lr: float, *, cycle_momentum: bool, ratios: tuple[float, ...] = ()) -> str:
        """Return the PyTorch lines that define `scheduler` for an `optimizer` built with `lr`, with every number.

        `cycle_momentum` says whether one-cycle and cyclic also move momentum. Give False for an optimizer that has
        none: torch would switch plain SGD's momentum on. `ratios` are those of the LRs of the optimizer's parameter
        groups to `lr`, empty where they share it.
        """
        spec = SCHEDULES[self.name]
        return torch_code(spec, self.resolved, self.max_steps, lr, cycle_momentum=cycle_momentum, ratios=ratios)

    def arguments(self, lr: float) -> dict[str, Any]:
        """Return the keyword arguments of the torch class besides momentum's, for an optimizer built with `lr`."""
        return SCHEDULES[self.name].arguments(self.resolved, float(lr))

    def _within_budget(self, step: int) -> int:
        if step < 0:
            raise ValueError(f"step is negative (got {step}); steps count from 0")
        return min(step, self.max_steps)


def check_parameters(name: str, parameters: Parameters) -> None:
    """Raise ValueError, saying what is wrong and what is allowed, unless `name` is an LR schedule with such parameters.

    No budget is needed; `make_lr_schedule` checks what only a budget tells.
    """
    _complete(name, parameters)


def make_lr_schedule(
    name: str, parameters: Parameters, max_steps: int, *, steps_per_epoch: int | None = None
) -> LRSchedule:
    """Return the LR schedule `name` over `max_steps` optimizer steps; parameters left out take their defaults.

    `steps_per_epoch` (optimizer steps) is needed for `gamma_per_epoch` only. Raises InputError for an unknown name or
    parameter, for a value that is not allowed, and for parameters that contradict each other or the budget.
    """
    max_steps = check_step_count("max_steps", max_steps)
    if steps_per_epoch is not None:
        steps_per_epoch = check_step_count("steps_per_epoch", steps_per_epoch)
    try:
        complete = _complete(name, parameters)
        resolved = _resolve(name, complete, max_steps, steps_per_epoch)
    except ValueError as error:
        raise InputError(f"lr_schedule {name}: {error}" if name in SCHEDULES else str(error)) from None
    return LRSchedule(name, complete, max_steps, resolved)


def _complete(name: str, parameters: Parameters) -> Parameters:
    """Return the parameters checked, with defaults filled in, as plain Python numbers. Raises ValueError."""
    if name not in SCHEDULES:
        raise ValueError(f"lr_schedule is unknown (got {name!r}){_allowed_words(name, SCHEDULES)}")
    spec = SCHEDULES[name]
    known = {parameter.name: parameter for parameter in spec.parameters}
    for key, value in parameters.items():
        if key not in known:
            raise ValueError(f"parameter is unknown (got {key!r}){_allowed_words(key, known)}")
        known[key].check(value)
    given = {key: known[key].plain(value) for key, value in parameters.items()}
    complete = {key: given.get(key, parameter.default) for key, parameter in known.items()}
    if complete.get("warmup_start") is not None and complete["warmup"] is None:
        raise ValueError(
            f"warmup_start has no effect without warmup (got {complete['warmup_start']:g}); allowed: with warmup"
        )
    return spec.reconcile(complete)


def _resolve(name: str, complete: Parameters, max_steps: int, steps_per_epoch: int | None) -> Parameters:
    """Return the parameters with lengths in steps, and what only a budget tells. Raises ValueError.

    Fractions are of the steps after the warm-up, that of the warm-up itself is of the whole budget. No length is
    refused for being longer than the budget: the end of such a warm-up is never reached.
    """
    spec = SCHEDULES[name]
    known = {parameter.name: parameter for parameter in spec.parameters}
    warmup = known["warmup"].in_steps(complete["warmup"], max_steps) if "warmup" in known else None
    warmup = warmup or 0
    remaining = max(1, max_steps - warmup)
    p = {key: known[key].in_steps(value, remaining) for key, value in complete.items()} | {"warmup": warmup}
    if warmup and p["warmup_start"] is None:
        p["warmup_start"] = WARMUP_START
    p["flat"] = spec.flat(p, remaining) if spec.flat else 0
    remaining = max(1, remaining - p["flat"])
    return {**spec.resolve(p, remaining, steps_per_epoch), "max_steps": remaining}


def _allowed_words(word: str, known: Mapping[str, object]) -> str:
    """Return the end of a message about an unknown word: the closest known one, and all that are allowed."""
    return f"{suggestion(str(word), known)}; allowed: {', '.join(known) or 'none'}"
