"""A plateau of a metric below zero, which torch's own rule does not see."""

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tune_lr.worker.compat.plateau import Plateau


def lrs(cls: type[ReduceLROnPlateau], values: list[float], **arguments: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = cls(optimizer, factor=0.5, patience=1, **arguments)  # type: ignore[arg-type]
    seen = []
    for value in values:
        scheduler.step(value)
        seen.append(float(optimizer.param_groups[0]["lr"]))
    return seen


STANDSTILL = [-10.0] * 7


def test_torch_never_reacts_to_a_standstill_below_zero_and_this_one_does() -> None:
    assert lrs(ReduceLROnPlateau, STANDSTILL) == [1.0] * 7
    assert lrs(Plateau, STANDSTILL) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_it_waits_while_a_loss_below_zero_still_falls() -> None:
    assert lrs(Plateau, [-1.0, -2.0, -3.0, -4.0, -5.0]) == [1.0] * 5


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_above_zero_it_is_torchs_own(mode: str, threshold_mode: str) -> None:
    values = [3.0, 2.0, 2.0, 1.9999, 1.9, 2.5, 2.5, 2.5, 0.5, 0.5, 0.5, 0.5]
    arguments = {"mode": mode, "threshold_mode": threshold_mode}
    assert lrs(Plateau, values, **arguments) == lrs(ReduceLROnPlateau, values, **arguments)
