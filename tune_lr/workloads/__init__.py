"""What is trained: a model, its data and its loss. Nothing here knows about learning rates."""

import copy
import importlib
import io
import re
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, Sampler, TensorDataset, WeightedRandomSampler, default_collate

from tune_lr.errors import InputError, one_line, suggestion
from tune_lr.records.user_calls import user_call

Batch = Any  # what the collate function returns: a tuple or list (input, target), or a mapping
Outputs = Any  # what the model returns


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A training task.

    An item of a data set is `(input, target)` or a mapping. `criterion` and `metrics` get the model's outputs and the
    batch and return a scalar tensor, the mean over the batch. A metric of the whole data set, such as F1, is an object
    with `update(outputs, batch)` and `compute()`. `batch_size` is global: it is split evenly over the workers, and the
    last partial training batch is dropped.
    """

    model: Callable[[], nn.Module]  # fresh, seeded by the caller
    train_data: Dataset[Any]
    val_data: Dataset[Any]
    test_data: Dataset[Any] | None = None  # touched once, for the winner
    criterion: Callable[[Outputs, Batch], Tensor]
    metrics: Mapping[str, Any] = field(default_factory=dict)  # functions, or objects with update and compute
    batch_size: int
    collate_fn: Callable[[list[Any]], Batch] | None = None
    forward: Callable[[nn.Module, Batch], Outputs] | None = None
    batch_weight: Callable[[Batch], float] | None = None  # default: the number of items
    param_groups: Callable[[nn.Module], list[dict[str, Any]]] | None = None  # a group's "lr" is its ratio to the LR
    sampler: Sampler[int] | Sequence[float] | Tensor | None = None  # of train_data, or a weight for each of its items

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
        _check_sampler(self.sampler, self.train_data)
        self._check_metrics()

    def _check_metrics(self) -> None:
        for name, metric in self.metrics.items():
            if not callable(metric) and not over_all(metric):
                raise InputError(
                    f"workload: metric {name} (got {type(metric).__name__}) must be callable, or have update and "
                    "compute"
                )
            if name == "loss" or not re.fullmatch(r"[A-Za-z0-9_]+", name):
                raise InputError(f"workload: no metric can be called {name!r}; use letters, digits and _, but not loss")


def over_all(metric: Any) -> bool:
    """Return whether a metric is computed from the whole data set, and is not a mean over batches."""
    return callable(getattr(metric, "update", None)) and callable(getattr(metric, "compute", None))


def _check_sampler(sampler: Any, train_data: Any) -> None:
    """Raise InputError for what cannot say which items of the training data a trial sees."""
    if sampler is None:
        return
    if isinstance(sampler, Sampler | list | tuple | Tensor):
        if not hasattr(sampler, "__len__"):
            raise InputError(
                f"workload: sampler ({type(sampler).__name__}) needs __len__, from which the steps of an epoch follow"
            )
        if hasattr(sampler, "num_replicas"):
            raise InputError(
                f"workload: sampler ({type(sampler).__name__}) splits the data over workers, which tune-lr does by "
                "itself; give one that is for all of the data"
            )
        if isinstance(sampler, Sampler):
            return
    else:
        raise InputError(
            f"workload: sampler (got {type(sampler).__name__}) must be a torch.utils.data.Sampler, or a list or tensor "
            "of weights, one for each item of train_data"
        )
    weights = torch.as_tensor(sampler, dtype=torch.float64)
    if weights.shape != (len(train_data),):
        raise InputError(
            f"workload: sampler has {list(weights.shape)} weights, and train_data has {len(train_data)} items; give "
            "one weight for each item"
        )
    if not bool((weights >= 0).all() & weights.isfinite().all() & (weights.sum() > 0)):
        raise InputError("workload: the weights in sampler must be finite, not negative, and not all 0")


def sampler_of(workload: Workload) -> Sampler[int] | None:
    """Return the sampler of the training data; None where its items are taken in random order, each once an epoch."""
    if workload.sampler is None or isinstance(workload.sampler, Sampler):
        return workload.sampler
    weights = torch.as_tensor(workload.sampler, dtype=torch.float64)
    return WeightedRandomSampler(weights.tolist(), len(weights))


def listed_groups(groups: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return an optimizer's parameter groups with the parameters of each as a list, whatever they were given as."""
    return [
        {**group, "params": [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])}
        for group in groups
    ]


def items_per_epoch(workload: Workload) -> int:
    """Return how many training items an epoch has."""
    data: Any = workload.train_data if workload.sampler is None else workload.sampler
    return len(data)


def load_batch(workload: Workload, data: Dataset[Any], indices: Sequence[int] | Tensor) -> Batch:
    """Return the items at `indices`, collated.

    A TensorDataset itself is read with one gather for each tensor. A subclass of it may have a `__getitem__` of its
    own, so its items are asked for, as those of any other data set.
    """
    if workload.collate_fn is None and is_plain(data):
        return [tensor[torch.as_tensor(indices)] for tensor in data.tensors]  # type: ignore[attr-defined]
    numbers = indices.tolist() if isinstance(indices, Tensor) else list(indices)
    several: Callable[[list[int]], list[Any]] | None = getattr(data, "__getitems__", None)
    items = several(numbers) if several else [data[number] for number in numbers]
    return (workload.collate_fn or default_collate)(items)


def is_plain(data: Dataset[Any]) -> bool:
    """Return whether the items of a data set are the rows of its tensors and nothing else."""
    return type(data) is TensorDataset


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch, of whatever nesting, with its tensors on a device. Its types stay what they are.

    Tensors are looked for in mappings, lists, tuples, named tuples and dataclasses. Another object that has a method
    `to`, as the batches of some libraries have, is asked to move itself.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if callable(getattr(batch, "to", None)) and not isinstance(batch, type):
        return batch.to(device)
    if isinstance(batch, Mapping):
        moved = {key: to_device(value, device) for key, value in batch.items()}
        if type(batch) is dict or not isinstance(batch, MutableMapping):
            return moved
        same = copy.copy(batch)
        same.update(moved)
        return same
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, tuple):
        return tuple(to_device(value, device) for value in batch)
    if isinstance(batch, list):
        return [to_device(value, device) for value in batch]
    if is_dataclass(batch) and not isinstance(batch, type):
        like: Any = copy.copy(batch)
        for entry in fields(batch):
            object.__setattr__(like, entry.name, to_device(getattr(batch, entry.name), device))
        return like
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
        module = without_exit(lambda: importlib.import_module(module_name), f"importing {module_name}")
    except InputError:
        raise
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
        workload = without_exit(lambda: function(**arguments), reference)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"workload: {reference} {raised(error)} (workload_args: {dict(arguments)!r})") from error
    if not isinstance(workload, Workload):
        raise InputError(
            f"workload: {reference} returned a {type(workload).__name__}; it must return a tune_lr.Workload"
        )
    return workload


def without_exit(call: Callable[[], Any], what: str) -> Any:
    """Return what `call` returns. Raise InputError, with what was printed, where it ends the process.

    A script that reads its own command line, by argparse for example, ends the process that imports it. What it
    prints would be lost with the process.
    """
    printed = io.StringIO()
    try:
        with (
            redirect_stderr(_Copied(sys.stderr, printed)),
            redirect_stdout(_Copied(sys.stdout, printed)),
            user_call(what),
        ):
            return call()
    except SystemExit as error:
        said = [line.strip() for line in printed.getvalue().splitlines() if line.strip()][-3:]
        code = "" if error.code is None else str(error.code)
        text = "; ".join([*said, *([code] if code and code not in said else [])])
        raise InputError(
            f"workload: {what} ends the process (sys.exit: {text or 'without a text'}); a module is imported without "
            'the command line: read arguments under `if __name__ == "__main__":`, and give them as workload_args'
        ) from None


class _Copied(io.TextIOBase):
    """A stream that passes everything on and keeps a copy of it."""

    def __init__(self, stream: Any, copied: io.StringIO) -> None:
        self._stream, self._copied = stream, copied

    def write(self, text: str) -> int:
        self._copied.write(text)
        self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def raised(error: Exception) -> str:
    """Return `raised ValueError: ...`; of a file also on which node, and where it was looked for."""
    text = f"raised {type(error).__name__}: {one_line(error)}"
    if not isinstance(error, OSError):
        return text
    path = error.filename
    if isinstance(path, str) and path and not Path(path).is_absolute():
        found = next((folder for folder in sys.path if folder and Path(folder, path).exists()), None)
        lies = f"there is one in {found}; " if found else ""
        looked = f"a relative path is looked for in the worker's current directory, {Path.cwd()}"
        return f"{text} on node {node()}; {looked}; {lies}give an absolute path that every node sees"
    return f"{text} on node {node()}; {SHARE_DATA}"


SHARE_DATA = "data is not sent to nodes: give a path that every node sees"


def node() -> str:
    """This machine, as a message names it."""
    return socket.gethostname()
