"""Batches are tuples (input, target): a small network says on which of two spirals a point lies."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

from tune_lr import Workload


def spirals(points: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(points) % 2
    radius = torch.rand(points, generator=generator)
    angle = 6 * radius + torch.pi * labels
    inputs = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return TensorDataset(inputs, labels)


def make_workload(width: int = 64) -> Workload:
    return Workload(
        model=lambda: nn.Sequential(
            nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)
        ),
        train_data=spirals(2000, seed=0),
        val_data=spirals(500, seed=1),
        criterion=lambda outputs, batch: nn.functional.cross_entropy(outputs, batch[1]),
        metrics={"accuracy": lambda outputs, batch: (outputs.argmax(1) == batch[1]).float().mean()},
        batch_size=50,
    )
