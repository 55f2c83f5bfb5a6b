"""What is trained: a model, its data and its loss. Nothing here knows about learning rates."""

import importlib
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset, default_collate

from tune_lr.errors import InputError, one_line, suggestion

Batch = Any  # what the collate function returns: a tuple or list (input, target), or a mapping
Outputs = Any  # what the model returns


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A training task.

    An item of a data set is `(input, target)` or a mapping. `criterion` and `metrics` get the model's outputs and the
    batch and return a scalar tensor, the mean over the batch. `batch_size` is global: it is split evenly over the
    workers, and the last partial training batch is dropped.
    """

    model: Callable[[], nn.Module]  # fresh, seeded by the caller
    train_data: Dataset[Any]
    val_data: Dataset[Any]
    test_data: Dataset[Any] | None = None  # touched once, for the winner
    criterion: Callable[[Outputs, Batch], Tensor]
    metrics: Mapping[str, Callable[[Outputs, Batch], Tensor]] = field(default_factory=dict)
    batch_size: int
    collate_fn: Callable[[list[Any]], Batch] | None = None
    forward: Callable[[nn.Module, Batch], Outputs] | None = None
    batch_weight: Callable[[Batch], float] | None = None  # default: the number of items
    param_groups: Callable[[nn.Module], list[dict[str, Any]]] | None = None  # a group's "lr" is its ratio to the LR

    def __post_init__(self) -> None:
        for name in ("train_data", "val_data", "test_data"):
            data = getattr(self, name)
            if data is None and name == "test_data":
                continue
            if isinstance(data, IterableDataset):
                raise InputError(
                    f"workload: {name} is an iterable-style data set ({type(data).__name__}); give a map-style one"
                )
            if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
                raise InputError(f"workload: {name} (got {type(data).__name__}) needs __getitem__ and __len__")
            if len(data) == 0:
                raise InputError(f"workload: {name} is empty")
        for name in ("model", "criterion"):
            if not callable(getattr(self, name)):
                raise InputError(f"workload: {name} (got {type(getattr(self, name)).__name__}) must be callable")
        if isinstance(self.model, nn.Module):
            raise InputError("workload: model is a module; give a function that returns a fresh one for each trial")
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise InputError(f"workload: batch_size (got {self.batch_size!r}) must be a positive integer")
        for name in self.metrics:
            if name == "loss" or not re.fullmatch(r"[A-Za-z0-9_]+", name):
                raise InputError(f"workload: no metric can be called {name!r}; use letters, digits and _, but not loss")


def load_batch(workload: Workload, data: Dataset[Any], indices: Sequence[int] | Tensor) -> Batch:
    """The items at `indices`, collated."""
    if workload.collate_fn is None and isinstance(data, TensorDataset):  # one gather a tensor, not one an item
        return [tensor[torch.as_tensor(indices)] for tensor in data.tensors]
    numbers = indices.tolist() if isinstance(indices, Tensor) else indices
    return (workload.collate_fn or default_collate)([data[number] for number in numbers])


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch, of whatever nesting, with its tensors on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [to_device(value, device) for value in batch]
    return batch


def outputs_of(workload: Workload, model: Any, batch: Batch) -> Outputs:
    """Return the model's outputs for a batch: by the workload's `forward`, else by the batch's type."""
    if workload.forward is not None:
        return workload.forward(model, batch)
    return model(**batch) if isinstance(batch, Mapping) else model(batch[0])


def load_workload(reference: str, arguments: Mapping[str, Any]) -> Workload:
    """Calls the function that `module:function` names. Raises InputError where that does not give a Workload."""
    module_name, _, function_name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise InputError(
                f"workload: {module_name} needs the module {error.name!r}, which is not installed"
            ) from error
        raise InputError(
            f"workload: there is no module {module_name!r}; put the file beside the YAML or into the current directory"
        ) from error
    except Exception as error:
        raise InputError(f"workload: importing {module_name} {raised(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise InputError(f"workload: {module_name} has no function {function_name!r}{suggestion(function_name, names)}")
    try:
        workload = function(**arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"workload: {reference} {raised(error)} (workload_args: {dict(arguments)!r})") from error
    if not isinstance(workload, Workload):
        raise InputError(
            f"workload: {reference} returned a {type(workload).__name__}; it must return a tune_lr.Workload"
        )
    return workload


def raised(error: Exception) -> str:
    """`raised ValueError: ...`. Of a file that is missing also where: another node may have it."""
    text = f"raised {type(error).__name__}: {one_line(error)}"
    return f"{text} on node {node()}; {SHARE_DATA}" if isinstance(error, OSError) else text


SHARE_DATA = "data is not sent to nodes: give a path that every node sees"


def node() -> str:
    """This machine, as a message names it."""
    return socket.gethostname()
