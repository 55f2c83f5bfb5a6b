"""The state of a training as bytes: tensors in safetensors, all else as JSON in its header. Nothing is pickled.

`store.checkpoints` says what a checkpoint looks like on disk, and whether it is whole.
"""

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor


def pack(state: Any) -> bytes:
    """Return nested dicts, lists and tuples of tensors, numbers, text and None as bytes.

    Raises TypeError for anything else.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_plain(state, tensors))
    return bytes(save(tensors, metadata={"state": text}))


def unpack(data: bytes, device: torch.device) -> Any:
    """What was packed, equal in type, shape and layout; what was not on the CPU goes to `device`."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return _restored(json.loads(header["__metadata__"]["state"]), load(data), device)


def _plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON has it. Its tensors are put into `tensors`, under the names that stand in their places."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_plain(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_plain(item, tensors) for item in value]}
    if isinstance(value, Mapping):  # a key may be a number
        return {"dict": [[key, _plain(item, tensors)] for key, item in value.items()]}
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        raise TypeError(f"a {type(value).__name__} cannot be kept in a checkpoint")
    name = str(len(tensors))
    # A copy of each: the format refuses tensors that share their memory.
    tensors[name] = value.detach().to("cpu").clone(memory_format=torch.contiguous_format)
    dense = value.numel() == 1 + sum((n - 1) * stride for n, stride in zip(value.shape, value.stride(), strict=True))
    strides = list(value.stride()) if dense and not value.is_contiguous() else None
    return {"tensor": name, "strides": strides, "cpu": value.device.type == "cpu"}


def _restored(value: Any, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    if isinstance(value, list):
        return [_restored(item, tensors, device) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_restored(item, tensors, device) for item in value["tuple"])
    if "dict" in value:
        return {key: _restored(item, tensors, device) for key, item in value["dict"]}
    tensor = tensors[value["tensor"]]
    if value["strides"] is not None:
        tensor = torch.empty_strided(tensor.shape, value["strides"], dtype=tensor.dtype).copy_(tensor)
    return tensor if value["cpu"] else tensor.to(device)


def random_state(device: torch.device) -> dict[str, Any]:
    """Python's, numpy's and torch's random numbers in this process, and those of a GPU where `device` is one."""
    numpy = np.random.get_state(legacy=False)
    assert isinstance(numpy, dict)
    words = numpy["state"]
    return {
        "python": random.getstate(),
        "numpy": {**numpy, "state": {"key": words["key"].tolist(), "pos": words["pos"]}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Set the generators of Python, numpy and torch to a state that `random_state` has returned."""
    random.setstate(state["python"])
    words = state["numpy"]["state"]
    np.random.set_state({**state["numpy"], "state": {**words, "key": np.array(words["key"], dtype=np.uint32)}})
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
