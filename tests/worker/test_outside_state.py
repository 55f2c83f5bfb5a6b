"""State of a workload outside its model: a trial sees what the first one saw."""

import random
from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tune_lr.errors import InputError
from tune_lr.worker.outside_state import OutsideState
from tune_lr.workloads import Batch
from two_ranks import figures, make_trial, mean_square, regression, train

pytestmark = pytest.mark.usefixtures("group_of_one")

CALLS = 0
WEIGHT = nn.Parameter(torch.ones(1))


class Counting(Dataset[tuple[Tensor, Tensor]]):
    """Its items depend on what has happened before."""

    served = 0

    def __init__(self) -> None:
        self.rng, self.random = np.random.default_rng(0), random.Random(0)
        self.generator = torch.Generator().manual_seed(0)
        self.visits: dict[int, int] = defaultdict(int)
        self.mean = np.zeros(1)

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.visits[index] += 1
        Counting.served += 1
        self.mean[0] += 0.001
        drawn = self.rng.normal() + self.random.random() + torch.rand(1, generator=self.generator).item()
        shift = drawn + self.visits[index] + 0.001 * Counting.served + self.mean[0]
        return torch.full((8,), float(shift)), torch.ones(1)


def with_globals(outputs: Tensor, batch: Batch) -> Tensor:
    global CALLS
    CALLS += 1
    if torch.is_grad_enabled():
        with torch.no_grad():
            WEIGHT.mul_(1.01)
    return mean_square(outputs, batch) * (1 + 0.01 * CALLS) * WEIGHT.detach()[0]


class RunningMean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))
        self.mean: Tensor
        self.steps = 0

    def forward(self, outputs: Tensor, batch: Batch) -> Tensor:
        loss = mean_square(outputs, batch)
        self.steps += 1
        self.mean.mul_(0.9).add_(0.1 * loss.detach())
        return loss * (1 + self.mean[0] + 0.01 * self.steps)


def remembered(outputs: Tensor, batch: Batch, past: list[float] = []) -> Tensor:  # noqa: B006 - as a user may write it
    past.append(1.0)
    return mean_square(outputs, batch) * (1 + 0.01 * len(past))


def closure() -> Any:
    calls, limit = 0, {"of": torch.ones(1)}

    def criterion(outputs: Tensor, batch: Batch, scale: float) -> Tensor:
        nonlocal calls
        calls += 1
        limit["of"] = limit["of"] * 1.01
        return mean_square(outputs, batch) * (scale + 0.01 * calls) * limit["of"][0]

    return partial(criterion, scale=2.0)


@pytest.mark.parametrize(
    "changes",
    [
        lambda: {"train_data": Counting()},
        lambda: {"criterion": with_globals},
        lambda: {"criterion": RunningMean()},
        lambda: {"criterion": remembered},
        lambda: {"criterion": closure()},
    ],
    ids=["data set", "globals", "module", "default argument", "closure"],
)
def test_what_changes_outside_the_model_is_put_back(changes: Any) -> None:
    workload = regression(**changes())
    outside, trial = OutsideState(workload), make_trial(max_steps=10)
    assert outside.put_back() == []
    first = figures(train(workload, trial=trial))
    assert figures(train(workload, trial=trial)) != first  # so it does matter here
    assert outside.put_back()
    assert figures(train(workload, trial=trial)) == first


def test_nothing_of_a_library_is_touched_and_nothing_is_said_where_nothing_changes() -> None:
    workload = regression()
    outside = OutsideState(workload)
    train(workload, trial=make_trial(max_steps=5))
    assert outside.put_back() == []


def test_a_model_that_was_trained_before_is_refused() -> None:
    model = nn.Linear(8, 1)
    workload = regression(model=lambda: model)
    train(workload, trial=make_trial(max_steps=2))
    with pytest.raises(InputError, match=r"model\(\) returns a parameter that an earlier trial has trained \(weight\)"):
        train(workload, trial=make_trial(max_steps=2))
