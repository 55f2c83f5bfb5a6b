"""What one LR schedule consists of: data for tables and validators, and the functions that draw it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tune_lr.lr.parameters import Parameter, Parameters


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
