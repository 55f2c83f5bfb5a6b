"""A trial's model as the workload makes it, with its lazy parameters made."""

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from tune_lr.errors import InputError
from tune_lr.worker.loading import random_state_after
from tune_lr.workloads import Workload, load_batch, outputs_of, to_device

_MARK = "_tune_lr_trained"


def made_model(workload: Workload, device: torch.device) -> nn.Module:
    """Return a fresh model on a device.

    Lazy modules get their shapes, and their initial values, from a forward pass of two training items. These are the
    same on all ranks, so the weights are too. Raises InputError where a parameter stays without a shape.
    """
    model = workload.model().to(device)
    _check_fresh(model)
    if not _lazy(model):
        return model
    data: Any = workload.train_data
    with random_state_after("lazy modules"):
        batch = load_batch(workload, data, range(min(2, len(data))))
    model.eval()  # a norm or dropout is to change nothing
    outputs_of(workload, model, to_device(batch, device))
    model.train()
    if left := _lazy(model):
        raise InputError(
            f"workload: the forward pass does not reach {len(left)} lazy parameters of the model (first: {left[0]}), "
            "so they have no shape; give the modules their sizes, or leave them out"
        )
    return model


def _check_fresh(model: nn.Module) -> None:
    """Mark the parameters that a trial trains. Raise InputError where one of them is marked already."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if hasattr(parameter, _MARK):
            raise InputError(
                f"workload: model() returns a parameter that an earlier trial has trained ({name}); make the model "
                "anew each time, or copy what is given (copy.deepcopy)"
            )
        setattr(parameter, _MARK, True)


def _lazy(model: nn.Module) -> list[str]:
    return [name for name, value in (*model.named_parameters(), *model.named_buffers()) if is_lazy(value)]
