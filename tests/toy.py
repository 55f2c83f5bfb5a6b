"""Small workloads for the tests: what they cost is Ray, not arithmetic."""

import os
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from tune_lr import Workload


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
