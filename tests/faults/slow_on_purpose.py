"""The campaign's workload: small, slow on purpose, and it writes down what it does.

It cannot know its trial's number. It knows its seed, and when the model is made anew: that is where an attempt begins.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from tune_lr import Workload


def regression(log: str, pause: float = 0.15, faults: Mapping[str, Mapping[str, Any]] | None = None) -> Workload:
    """Every step takes `pause` seconds and leaves a line in `log`: event (model, step), pid, seed, step, time.

    `faults`, by seed: {"do": nan | inf | huge | raise | hang, "at": step, "once": in one attempt only}.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 8, generator=generator)
    targets = inputs @ torch.randn(8, 1, generator=generator) + 0.1 * torch.randn(256, 1, generator=generator)
    now = {"seed": -1, "step": 0}

    def write(event: str) -> None:
        line = json.dumps({"event": event, "pid": os.getpid(), "time": time.time(), **now})
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{line}\n".encode())  # one call: lines of several processes do not mix
        os.close(file)

    def model() -> nn.Module:
        seed = torch.initial_seed()
        now.update(seed=seed if seed < 2**31 else -1, step=0)  # -1: before any trial, when the first batch is tried
        write("model")
        return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))

    def criterion(outputs: torch.Tensor, batch: list[torch.Tensor]) -> torch.Tensor:
        loss = nn.functional.mse_loss(outputs, batch[1])
        if not outputs.requires_grad or now["seed"] < 0:
            return loss
        now["step"] += 1
        write("step")
        fault = (faults or {}).get(str(now["seed"]))
        if fault and fault["at"] == now["step"] and (not fault.get("once") or _first(f"{log}.{now['seed']}")):
            return _harm(fault["do"], loss)
        time.sleep(pause)
        return loss

    return Workload(
        model=model,
        train_data=TensorDataset(inputs[:128], targets[:128]),
        val_data=TensorDataset(inputs[128:], targets[128:]),
        criterion=criterion,
        batch_size=16,
    )


def _first(mark: str) -> bool:
    """Whether nobody was here before."""
    try:
        Path(mark).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _harm(what: str, loss: torch.Tensor) -> torch.Tensor:
    if what == "raise":
        raise RuntimeError("the user's own code is broken")
    while what == "hang":
        time.sleep(0.01)  # for ever, but not at the others' cost
    return loss * {"nan": float("nan"), "inf": float("inf"), "huge": 1e30}[what]
