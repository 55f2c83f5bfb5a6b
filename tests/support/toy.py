"""Small workloads for the tests: what they cost is Ray, not arithmetic."""

import itertools
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import TensorDataset, default_collate

from tune_lr import Workload
from tune_lr.workloads import digits as built_in
from tune_lr.workloads.gpt_bytes import gpt_bytes


def regression(items: int = 256, dropout: float = 0.0, fail: str = "", seen: str = "") -> Workload:
    """A noisy regression. `fail`: once | always, raised in the third step; `seen` is where a process says that it has
    failed once."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(items, 8, generator=generator)
    targets = inputs @ torch.randn(8, 1, generator=generator) + 0.1 * torch.randn(items, 1, generator=generator)
    calls = {"train": 0}

    def criterion(outputs: torch.Tensor, batch: list[torch.Tensor]) -> torch.Tensor:
        if outputs.requires_grad:
            calls["train"] += 1
            first = seen and not Path(seen).exists()
            if calls["train"] == 3 and (fail == "always" or (fail == "once" and first)):
                if seen:
                    Path(seen).write_text(str(os.getpid()))
                raise RuntimeError("the user's own code is broken")
        return nn.functional.mse_loss(outputs, batch[1])

    return Workload(
        model=lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 1)),
        train_data=TensorDataset(inputs[: items // 2], targets[: items // 2]),
        val_data=TensorDataset(inputs[items // 2 :], targets[items // 2 :]),
        test_data=TensorDataset(inputs[: items // 4], targets[: items // 4]),
        criterion=criterion,
        batch_size=16,
    )


def digits(**arguments: Any) -> Workload:
    """The built-in one, as a module of the user's may have it."""
    return built_in.digits(**arguments)


def eventful(log: str = "", memory: str = "") -> Workload:
    """The regression with steps of 0.2 s, each of which is a line in `log`. The first process to take a third step says
    that its GPU's memory is full, and leaves `memory` behind."""
    steps = itertools.count(1)

    def criterion(outputs: torch.Tensor, batch: list[torch.Tensor]) -> torch.Tensor:
        if outputs.requires_grad and log:
            with Path(log).open("a") as file:
                file.write(f"{os.getpid()}\n")
            if next(steps) == 3 and memory and not Path(memory).exists():
                Path(memory).write_text("")
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation.")
            time.sleep(0.2)
        return nn.functional.mse_loss(outputs, batch[1])

    return replace(regression(dropout=0.2), criterion=criterion)


def broken_gpu(how: str, seen: str) -> Workload:
    """The regression. The first process to take a third step asks its GPU for more memory than there is, or for an
    element that is not there, and leaves `seen` behind."""
    steps = itertools.count(1)

    def criterion(outputs: torch.Tensor, batch: list[torch.Tensor]) -> torch.Tensor:
        if outputs.is_cuda and outputs.requires_grad and next(steps) == 3 and not Path(seen).exists():
            Path(seen).write_text(how)
            if how == "memory":
                torch.empty(2**50, device=outputs.device)
            return outputs.flatten()[torch.tensor([10**6], device=outputs.device)].sum()
        return nn.functional.mse_loss(outputs, batch[1])

    return replace(regression(), criterion=criterion)


def gpt(**arguments: Any) -> Workload:
    """gpt_bytes as ColossalAI's tensors and pipelines in parts want it: with an attention mask, and eager attention."""
    plain = gpt_bytes(**arguments)

    def model() -> nn.Module:
        made = plain.model()
        cast("Any", made.config)._attn_implementation = "eager"
        return made

    def collate(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = default_collate(items)
        return {**batch, "attention_mask": torch.ones_like(batch["input_ids"])}

    return replace(plain, model=model, collate_fn=collate)
