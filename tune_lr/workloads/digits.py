"""A small network on scikit-learn's handwritten digits: the fastest study on real data."""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from tune_lr.errors import InputError
from tune_lr.workloads import Workload
from tune_lr.workloads.lenet5 import accuracy, cross_entropy

SIZE = 1797  # digits in the file, each 8x8 pixels from 0 to 16


def digits(hidden: int = 64, layers: int = 2, batch_size: int = 64) -> Workload:
    """1,197 digits to train, 300 to validate, 300 to test, and an MLP of `layers` hidden layers of `hidden` units.

    The digits come with the scikit-learn package: nothing is downloaded.
    """
    if hidden < 1 or layers < 1:
        raise InputError(f"workload_args: hidden and layers (got {hidden}, {layers}) must be positive")
    images, labels = _sklearn_digits()
    # A fixed shuffle: the file lists its writers one after another.
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(0))
    parts = order.split([SIZE - 600, 300, 300])
    train_data, val_data, test_data = (TensorDataset(images[part], labels[part]) for part in parts)

    def model() -> nn.Module:
        inner: list[nn.Module] = []
        for inputs in [64, *[hidden] * (layers - 1)]:
            inner += [nn.Linear(inputs, hidden), nn.ReLU()]
        return nn.Sequential(*inner, nn.Linear(hidden, 10))

    return Workload(
        model=model,
        train_data=train_data,
        val_data=val_data,
        test_data=test_data,
        criterion=cross_entropy,
        metrics={"accuracy": accuracy},
        batch_size=batch_size,
    )


def _sklearn_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images of shape (1797, 64), between -1 and 1, and labels. Reads the package's file without importing it, which
    would cost a second."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise InputError("workload: digits needs the package scikit-learn, which is not installed")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.uint8))
    return table[:, :-1].float() / 8 - 1, table[:, -1].long()
