"""A loss of one's own that may be negative: the negative log-density of a target whose noise depends on the input."""

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from tune_lr import Workload


def noisy_line(points: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(points, 1, generator=generator)
    return TensorDataset(inputs, inputs + (0.05 + 0.2 * inputs) * torch.randn(points, 1, generator=generator))


def negative_log_density(outputs: Tensor, batch: list[Tensor]) -> Tensor:
    mean, log_deviation = outputs.chunk(2, dim=1)
    return (log_deviation + ((batch[1] - mean) / log_deviation.exp()).square() / 2).mean()


def make_workload(width: int = 32) -> Workload:
    return Workload(
        model=lambda: nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 2)),
        train_data=noisy_line(2000, seed=0),
        val_data=noisy_line(500, seed=1),
        criterion=negative_log_density,
        batch_size=50,
    )
