"""ResNet-18 on CIFAR-10: a convolutional network with batch normalisation, and data with augmentation."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from tune_lr.errors import InputError, one_line
from tune_lr.workloads import SHARE_DATA, Workload, node
from tune_lr.workloads.lenet5 import accuracy, cross_entropy

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images, a colour each
PADDING = 4  # pixels; a random crop moves an image by as many at most


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Images, uint8 of shape (N, 3, 32, 32), as normalised float32; with `augment` cropped and flipped at random."""

    def __init__(self, images: Tensor, labels: Tensor, augment: bool) -> None:
        self._images, self._labels, self._augment = images, labels, augment
        self._mean, self._std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self._images[index]
        if self._augment:
            padded = functional.pad(image, [PADDING] * 4)
            # torch's random numbers: a trial seeds them, on each rank apart
            top, left = torch.randint(0, 2 * PADDING + 1, (2,)).tolist()
            image = padded[:, top : top + 32, left : left + 32]
            if torch.rand(()) < 0.5:
                image = image.flip(2)
        return (image.float() / 255 - self._mean) / self._std, self._labels[index]


def resnet18_cifar10(
    root: str, download: bool = False, images: int | None = None, augment: bool = True, batch_size: int = 128
) -> Workload:
    """CIFAR-10 by torchvision: a tenth of the 50,000 training images validate, the 10,000 test images test.

    `root` holds `cifar-10-batches-py/` as torchvision lays it out, and must be seen by every node. Nothing is
    downloaded unless `download` is true. `images` keeps so many of the training images, and a fifth as many test
    images: for a look on a CPU.
    """
    (pixels, labels), (test_pixels, test_labels) = (_read(root, part, download) for part in (True, False))
    if images is not None and not 10 <= images <= len(pixels):
        raise InputError(f"workload_args.images: must be between 10 and {len(pixels)} (got {images})")
    kept = images or len(pixels)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:kept]
    val_part, train_part = order[: kept // 10], order[kept // 10 :]
    test_part = slice(kept // 5)
    return Workload(
        model=resnet18,
        train_data=Images(pixels[train_part], labels[train_part], augment),
        val_data=Images(pixels[val_part], labels[val_part], augment=False),
        test_data=Images(test_pixels[test_part], test_labels[test_part], augment=False),
        criterion=cross_entropy,
        metrics={"accuracy": accuracy},
        batch_size=batch_size,
    )


def resnet18() -> nn.Module:
    """torchvision's ResNet-18 with the stem for small images: 3x3 without stride, and no pooling after it."""
    from torchvision.models import resnet18

    model = cast("nn.Module", resnet18(num_classes=10))
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own
    model.maxpool = nn.Identity()
    return model


def _read(root: str, train: bool, download: bool) -> tuple[Tensor, Tensor]:
    """Images, uint8 of shape (N, 3, 32, 32), and labels. torchvision checks the files' sums before it reads them."""
    from torchvision.datasets import CIFAR10

    if not download and not (Path(root) / CIFAR10.base_folder).is_dir():
        raise InputError(
            f"workload_args.root: no CIFAR-10 under {root!r} on node {node()} "
            f"(looked for {root}/{CIFAR10.base_folder}); {SHARE_DATA}, or download: true"
        )
    try:
        data = CIFAR10(root, train=train, download=download)
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        raise InputError(
            f"workload_args.root: CIFAR-10 under {root!r} on node {node()} cannot be read ({one_line(error)})"
        ) from None
    return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)
