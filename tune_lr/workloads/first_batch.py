"""A workload whose functions say in one line what went wrong with its first batch: what was called, and with what."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tune_lr.errors import InputError
from tune_lr.workloads import Batch, Workload, listed_groups, load_batch, outputs_of, over_all, raised

_Measure = Callable[[Any, Batch], Tensor]

# What is said by a process group that has lost a rank. That is no mistake of the user's.
_OF_THE_GROUP = ("gloo", "NCCL", "Connection closed", "Connection reset")


def check_data(workload: Workload, items: int | None = None) -> None:
    """Load the first `items` items of the training data (default: a batch), and as many of the validation data.

    Raises InputError where that fails, or is no batch that a model can take.
    """
    for name in ("train_data", "val_data"):
        batch = _first(workload, getattr(workload, name), name, items or workload.batch_size)
        if name == "train_data":
            _check_weight(workload, batch)


def guarded(workload: Workload) -> Workload:
    """Return a workload that does the same, but raises InputError where a function raises or returns what it must not.

    It is for a first step and a first validation of a model that has not been trained yet.
    """
    return replace(
        workload,
        model=lambda: _model(workload),
        forward=lambda model, batch: _outputs(workload, model, batch),
        criterion=lambda outputs, batch: _loss(workload, outputs, batch),
        metrics={name: _guarded_metric(metric, name) for name, metric in workload.metrics.items()},
        param_groups=None if workload.param_groups is None else lambda model: _groups(workload, model),
    )


def is_of_the_group(error: Exception) -> bool:
    """Return whether an exception says that another rank is lost."""
    return any(word in str(error) for word in _OF_THE_GROUP)


def _guarded_metric(metric: Any, name: str) -> Any:
    return metric if over_all(metric) else lambda outputs, batch: _scalar(metric, f"metric {name}", outputs, batch)


def _loss(workload: Workload, outputs: Any, batch: Batch) -> Tensor:
    loss = _scalar(workload.criterion, "criterion", outputs, batch)
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise InputError(
            "workload: the loss has no gradient, so nothing would train; compute it from the model's outputs, "
            "without detach(), item() or no_grad()"
        )
    return loss


def _model(workload: Workload) -> nn.Module:
    try:
        model = workload.model()
    except Exception as error:
        raise InputError(f"workload: model() {raised(error)}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"workload: model() returned a {type(model).__name__}; it must return a torch.nn.Module")
    parameters = list(model.parameters())
    if not parameters:
        raise InputError(f"workload: the model ({type(model).__name__}) has no parameters; there is nothing to train")
    if not any(parameter.requires_grad for parameter in parameters):
        raise InputError(
            f"workload: none of the model's {len(parameters)} parameters requires a gradient, so nothing would train; "
            "set requires_grad on those to train"
        )
    return model


def _first(workload: Workload, data: Dataset[Any], name: str, items: int) -> Batch:
    try:
        batch = load_batch(workload, data, range(min(items, len(data))))  # type: ignore[arg-type]
    except Exception as error:
        raise InputError(f"workload: the first batch of {name} {raised(error)}") from error
    if workload.forward is None and not isinstance(batch, Mapping | list | tuple):
        raise InputError(
            f"workload: a batch of {name} must be (input, target) or a mapping (got {described(batch)}); else write a "
            "forward"
        )
    return batch


def _outputs(workload: Workload, model: nn.Module, batch: Batch) -> Any:
    try:
        return outputs_of(workload, model, batch)
    except Exception as error:
        if isinstance(error, InputError) or is_of_the_group(error):
            raise
        name = "train_data" if torch.is_grad_enabled() else "val_data"
        raise InputError(
            f"workload: the model, given the first batch of {name}, {raised(error)}; the batch is {described(batch)}"
        ) from error


def _scalar(measure: _Measure, name: str, outputs: Any, batch: Batch) -> Tensor:
    """What the criterion or a metric returns, if it is what it must be."""
    try:
        value = measure(outputs, batch)
    except Exception as error:
        if is_of_the_group(error):
            raise
        raise InputError(
            f"workload: {name} {raised(error)}; it was given outputs {described(outputs)} and the batch "
            f"{described(batch)}"
        ) from error
    if not isinstance(value, Tensor) or value.dim() != 0:
        raise InputError(
            f"workload: {name} must return a scalar tensor, the mean over the batch (got {described(value)})"
        )
    return value


def check_gradients(model: nn.Module, *, unused_parameters: bool) -> None:
    """Raise InputError where the first step left parameters of the model without a gradient.

    `unused_parameters`: whether that is allowed for some of them, as torch's DDP understands it.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    without = [name for name, parameter in trained.items() if parameter.grad is None]
    if len(without) == len(trained):
        raise InputError(
            "workload: the loss does not depend on any parameter of the model, so nothing would train; "
            "compute it from the model's outputs"
        )
    if without and not unused_parameters:  # DDP would wait for their gradients and fail in the second step
        raise InputError(
            f"workload: the loss does not depend on {len(without)} of the model's {len(trained)} parameters (first: "
            f"{without[0]}); freeze them by requires_grad_(False), or set scaling.plugin_args: "
            "{find_unused_parameters: true}"
        )


def _groups(workload: Workload, model: nn.Module) -> list[dict[str, Any]]:
    assert workload.param_groups is not None
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        groups = listed_groups(workload.param_groups(model))
        given = {id(parameter) for group in groups for parameter in group["params"]}
    except Exception as error:
        raise InputError(
            f"workload: param_groups {raised(error)}; it must return a list of {{'params': [...], ...}}"
        ) from error
    if not any(id(parameter) in given for parameter in trained):
        raise InputError("workload: param_groups holds none of the parameters that train; take them from its argument")
    return groups


def _check_weight(workload: Workload, batch: Batch) -> None:
    if workload.batch_weight is None:
        return
    try:
        weight = float(workload.batch_weight(batch))
    except Exception as error:
        raise InputError(f"workload: batch_weight {raised(error)}; the batch is {described(batch)}") from error
    if not weight > 0:
        raise InputError(f"workload: batch_weight must return a positive number (got {weight:g})")


def described(value: Any) -> str:
    """Shapes and types instead of figures: `(float32 [16, 1, 28, 28], int64 [16])`."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {described(inner)}" for key, inner in list(value.items())[:6]) + "}"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(described(inner) for inner in value[:6]) + ")"
    return f"{type(value).__name__} {value!r}" if isinstance(value, bool | int | float) else type(value).__name__
