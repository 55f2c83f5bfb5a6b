"""Says where a value that is not a number comes from: a batch of the data, a function of the workload, or the model."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tune_lr.workloads import Batch
from tune_lr.workloads.first_batch import described


def nan_in(batch: Batch) -> str:
    """Return in words which tensor of a batch holds NaN, the first one: "its tensor 0 (float32 [50, 8]) holds NaN in 50
    of 400 values". It is "" where none does."""
    for path, tensor in _tensors(batch, ""):
        if tensor.layout != torch.strided or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        count = int(tensor.isnan().sum())
        if count:
            where = f"its tensor {path}" if path else "it"
            return f"{where} ({described(tensor)}) holds NaN in {count} of {tensor.numel()} values"
    return ""


def all_finite(value: Any) -> bool:
    """Return whether all tensors in a value, of whatever nesting, are finite."""
    return all(bool(tensor.isfinite().all()) for _, tensor in _tensors(value, "") if tensor.layout == torch.strided)


def _tensors(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a value, each with where it lies: "0", "input_ids", "inputs.mask"."""
    below = f"{path}." if path else ""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors(inner, f"{below}{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _tensors(inner, f"{below}{index}")
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from _tensors(getattr(value, entry.name), f"{below}{entry.name}")


def word(value: float) -> str:
    """Return what a value that is not finite is called in a message."""
    return "is not a number" if math.isnan(value) else "is infinite"


def first_said(text: str) -> str:
    """Return what the first rank says that says anything. Every rank has to call this."""
    if dist.get_world_size() == 1:
        return text
    texts: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(texts, text)
    return next((said for said in texts if said), "")
