"""The file of a trained model: its tensors, in safetensors."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

MODEL_FILE = "model.safetensors"


def save_model(model: nn.Module, directory: Path) -> tuple[str, ...]:
    """Write a model's weights so that a reader sees the whole file or none; return the names of what was left out.

    A module may put anything into its state (`get_extra_state`). The file holds tensors only.
    """
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".{MODEL_FILE}"
    state: dict[str, Any] = model.state_dict()
    # A copy of each: the format refuses tied weights, which share their memory.
    tensors = {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
    save_file(tensors, temporary)
    temporary.replace(directory / MODEL_FILE)
    return tuple(name for name in state if name not in tensors)


def load_weights(model: nn.Module, directory: Path) -> None:
    """Read what `save_model` wrote into a model of the same kind; what the file left out stays as it is."""
    model.load_state_dict({**model.state_dict(), **load_file(directory / MODEL_FILE)})
