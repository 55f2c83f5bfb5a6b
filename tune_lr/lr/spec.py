"""What one LR schedule consists of: data for tables and validators, and the functions that compute it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tune_lr.lr.parameters import Parameter, Parameters


def _unchanged(p: Parameters) -> Parameters:
    return p


def _unchanged_by_the_budget(p: Parameters, _max_steps: int, _steps_per_epoch: int | None) -> Parameters:
    return p


@dataclass(frozen=True, kw_only=True)
class ScheduleSpec:
    """One LR schedule. An entry of `tune_lr.lr.schedules.SCHEDULES`.

    `name`, `doc`: what it is called, and one line that says its shape.
    `parameters`: what a user may set.
    `torch_class`: the class of the same shape in torch.optim.lr_scheduler.
    `piecewise`: the LR jumps, so that it is drawn as steps and not as a line.
    `by_metric`: it follows validations and not steps. torch's class is then stepped in training, and `lr` shows how far
    the LR can fall.

    The functions get `p`, the parameters by name:

    `reconcile(p)` raises ValueError for parameters that contradict each other, and fills in what follows from the
    absence of others.
    `flat(p, max_steps)` returns for how many steps the LR stays at the peak before `lr` begins (torch's ConstantLR).
    `resolve(p, max_steps, steps_per_epoch)` fills in what only a budget tells, and may raise ValueError. Lengths are in
    steps from here on.
    `lr(p, peak, step)` returns the LR of a step, and `momentum(p, step)` the momentum (Adam: beta1).
    `arguments(p, lr)` returns the keyword arguments of the torch class, for an optimizer built with `lr`.

    In the last three `p["max_steps"]` is what remains of the budget after a warm-up and after what is flat, and `step`
    counts from there, from 0.
    """

    name: str
    doc: str
    parameters: tuple[Parameter, ...] = ()
    torch_class: str
    piecewise: bool = False
    by_metric: bool = False
    reconcile: Callable[[Parameters], Parameters] = _unchanged
    flat: Callable[[Parameters, int], int] | None = None
    resolve: Callable[[Parameters, int, int | None], Parameters] = _unchanged_by_the_budget
    lr: Callable[[Parameters, float, int], float]
    momentum: Callable[[Parameters, int], float] | None = None
    arguments: Callable[[Parameters, float], dict[str, Any]]

    @property
    def cycles_momentum(self) -> bool:
        """Whether the schedule moves the momentum too."""
        return self.momentum is not None

    @property
    def torch_classes(self) -> tuple[str, ...]:
        """The classes in torch.optim.lr_scheduler that follow each other, without the LinearLR of a warm-up."""
        return ("ConstantLR", self.torch_class) if self.flat else (self.torch_class,)
