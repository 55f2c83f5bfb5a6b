"""The first batch of a workload, trained once and thrown away: what does not fit shows before any trial starts."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tune_lr.errors import InputError
from tune_lr.workloads import Batch, Workload, load_batch, outputs_of, raised, to_device

_Measure = Callable[[Any, Batch], Tensor]


def check_first_batch(workload: Workload, items: int | None = None, unused_parameters: bool = False) -> None:
    """One forward and backward pass over the first `items` training items (default: a batch), and one forward pass
    over as many of the validation data.

    `unused_parameters`: whether parameters may be left without a gradient, as torch's DDP understands it. Raises
    InputError where a function of the workload raises, returns what it must not, or nothing would train.
    """
    try:
        _check(workload, items or workload.batch_size, unused_parameters)
    except InputError as error:
        # A model or a loss that talks to the other ranks can be tried in a group alone, and here there may be none yet.
        if "process group has not been initialized" not in str(error):
            raise


def _check(workload: Workload, items: int, unused_parameters: bool) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _model(workload).to(device)

    batch = _first(workload, workload.train_data, "train_data", items, device)
    model.train()
    outputs = _outputs(workload, model, batch, "train_data")
    loss = _scalar(workload.criterion, "criterion", outputs, batch)
    if not loss.requires_grad:
        raise InputError(
            "workload: the loss has no gradient, so nothing would train; compute it from the model's outputs, "
            "without detach(), item() or no_grad()"
        )
    try:
        loss.backward()
    except Exception as error:
        raise InputError(f"workload: the backward pass of the first batch {raised(error)}") from error
    _check_gradients(workload, model, unused_parameters)
    _check_weight(workload, batch)

    batch = _first(workload, workload.val_data, "val_data", items, device)
    model.eval()
    with torch.inference_mode():
        outputs = _outputs(workload, model, batch, "val_data")
        _scalar(workload.criterion, "criterion", outputs, batch)
        for name, measure in workload.metrics.items():
            _scalar(measure, f"metric {name}", outputs, batch)


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


def _first(workload: Workload, data: Dataset[Any], name: str, items: int, device: torch.device) -> Batch:
    try:
        batch = load_batch(workload, data, range(min(items, len(data))))  # type: ignore[arg-type]
    except Exception as error:
        raise InputError(f"workload: the first batch of {name} {raised(error)}") from error
    if workload.forward is None and not isinstance(batch, Mapping | list | tuple):
        raise InputError(
            f"workload: a batch of {name} must be (input, target) or a mapping (got {described(batch)}); else write a "
            "forward"
        )
    return to_device(batch, device)


def _outputs(workload: Workload, model: nn.Module, batch: Batch, name: str) -> Any:
    try:
        return outputs_of(workload, model, batch)
    except Exception as error:
        raise InputError(
            f"workload: the model, given the first batch of {name}, {raised(error)}; the batch is {described(batch)}"
        ) from error


def _scalar(measure: _Measure, name: str, outputs: Any, batch: Batch) -> Tensor:
    """What the criterion or a metric returns, if it is what it must be."""
    try:
        value = measure(outputs, batch)
    except Exception as error:
        raise InputError(
            f"workload: {name} {raised(error)}; it was given outputs {described(outputs)} and the batch "
            f"{described(batch)}"
        ) from error
    if not isinstance(value, Tensor) or value.dim() != 0:
        raise InputError(
            f"workload: {name} must return a scalar tensor, the mean over the batch (got {described(value)})"
        )
    return value


def _check_gradients(workload: Workload, model: nn.Module, unused_parameters: bool) -> None:
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
    if workload.param_groups is None:
        return
    try:
        given = {id(parameter) for group in workload.param_groups(model) for parameter in group["params"]}
    except Exception as error:
        raise InputError(
            f"workload: param_groups {raised(error)}; it must return a list of {{'params': [...], ...}}"
        ) from error
    if not any(id(parameter) in given for parameter in trained.values()):
        raise InputError("workload: param_groups holds none of the parameters that train; take them from its argument")


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
