"""An optimizer's state after it was saved and loaded: by torch it is changed, here it is not."""

import copy

import torch
from torch.optim import Optimizer

from tune_lr.worker.compat.optimizer_state import restore_optimizer


def half_parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(2, 3, 4, 5, dtype=torch.bfloat16))


def with_state() -> Optimizer:
    """Its parameter is of half precision. Its momentum is not, and has the channels last."""
    optimizer = torch.optim.SGD([half_parameter()], lr=0.1, momentum=0.9)
    momentum = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    optimizer.state[optimizer.param_groups[0]["params"][0]] = {"momentum_buffer": momentum}
    return optimizer


def momentum_of(optimizer: Optimizer) -> torch.Tensor:
    (state,) = optimizer.state.values()
    momentum: torch.Tensor = state["momentum_buffer"]
    return momentum


def test_torch_casts_the_state_and_here_it_stays_as_it_was() -> None:
    saved = with_state()
    by_torch, here = (torch.optim.SGD([half_parameter()], lr=1.0, momentum=0.5) for _ in range(2))
    by_torch.load_state_dict(saved.state_dict())
    assert momentum_of(by_torch).dtype == torch.bfloat16
    restore_optimizer(here, copy.deepcopy(saved.state_dict()))
    assert momentum_of(here).dtype == torch.float32
    assert momentum_of(here).stride() == momentum_of(saved).stride()
    assert torch.equal(momentum_of(here), momentum_of(saved))
    assert (here.param_groups[0]["lr"], here.param_groups[0]["momentum"]) == (0.1, 0.9)
    assert len(here.param_groups[0]["params"]) == 1
