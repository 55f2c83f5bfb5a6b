"""The small workloads of the long trainings: their data, models and optimizers.

Models are ordinary modules of torch. `batched.py` runs many copies of a model at a time by `torch.func.vmap`, so there
is neither dropout nor batch norm. Data is real (digits, Python's sources and documentation) or generated; nothing is
downloaded.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pydoc_data import topics
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from tune_lr.workloads.digits import digits
from tune_lr.workloads.gpt_bytes import Windows, gpt_bytes
from tune_lr.workloads.lenet5 import mnist_5k

Batch = tuple[Tensor, Tensor]  # inputs and targets
Change = Callable[[Batch, torch.Generator], Batch]
VOCABULARY = 97  # the printable characters of ASCII, the end of a line, and one for every other byte
VAL_BATCHES = 4  # the validation data is divided into so many, to keep the memory small


@dataclass(frozen=True)
class Finite:
    """Training data that is seen again each epoch, in a new order; the last partial batch is dropped.

    `change` makes another batch of each one: images that are shifted or noisy.
    """

    train: Batch
    val: Batch
    batch_size: int
    change: Change | None = None

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield batches without an end."""
        generator = torch.Generator().manual_seed(seed)
        inputs, targets = self.train
        whole = len(inputs) // self.batch_size * self.batch_size
        while True:
            for chosen in torch.randperm(len(inputs), generator=generator)[:whole].split(self.batch_size):
                batch = inputs[chosen], targets[chosen]
                yield self.change(batch, generator) if self.change else batch

    def val_batches(self) -> list[Batch]:
        """Return the validation data in parts of one size."""
        return _parts(self.val)


@dataclass(frozen=True)
class Endless:
    """Training data of which no item is seen twice."""

    draw: Callable[[int, torch.Generator], Batch]
    val: Batch
    batch_size: int

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield batches without an end."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield self.draw(self.batch_size, generator)

    def val_batches(self) -> list[Batch]:
        """Return the validation data in parts of one size."""
        return _parts(self.val)


def _parts(val: Batch) -> list[Batch]:
    size = len(val[0]) // VAL_BATCHES
    return [(val[0][i * size : (i + 1) * size], val[1][i * size : (i + 1) * size]) for i in range(VAL_BATCHES)]


Data = Finite | Endless


@dataclass(frozen=True, kw_only=True)
class Work:
    """A workload, small enough that a hundred trainings side by side take some milliseconds a step.

    `optimizer` is sgd (with momentum), adam or adamw. `steps` are those of the shortest training.
    """

    name: str
    make_data: Callable[[], Data]
    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: str
    arguments: Mapping[str, Any]
    steps: int
    seeds: int = 4

    @cached_property
    def data(self) -> Data:
        """The training and validation data, made when they are first asked for."""
        return self.make_data()


# --- losses


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over all items; logits are in the last dimension."""
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over the items of the squares' sum over each item's outputs."""
    return (outputs - targets).square().sum(1).mean()


# --- data


def tensors(data: Dataset[Any] | None) -> Batch:
    """Return what a data set of a built-in workload holds, as one batch."""
    inputs, targets = cast("TensorDataset", data).tensors
    return inputs, targets


@cache
def _digits() -> tuple[Batch, Batch]:
    """Digits of 8 x 8 pixels between -1 and 1 as shape (N, 64): 1,197 to train, 600 to validate."""
    work = digits()
    (images, labels), (more_images, more_labels) = tensors(work.val_data), tensors(work.test_data)
    return tensors(work.train_data), (torch.cat([images, more_images]), torch.cat([labels, more_labels]))


@cache
def _mnist() -> tuple[Batch, Batch]:
    """MNIST digits at half their resolution, shape (N, 1, 14, 14)."""
    work = mnist_5k(val=800, test=200)
    (images, labels), (val_images, val_labels) = tensors(work.train_data), tensors(work.val_data)
    return (functional.avg_pool2d(images, 2), labels), (functional.avg_pool2d(val_images, 2), val_labels)


def plain_digits() -> Data:
    return Finite(*_digits(), batch_size=32)


def shifted(batch: Batch, generator: torch.Generator) -> Batch:
    """Move each image by -1, 0 or 1 pixel in both directions, around the edge."""
    images, labels = batch
    n, _, height, width = images.shape
    down, right = torch.randint(-1, 2, (2, n, 1), generator=generator)
    rows = (torch.arange(height) - down) % height
    columns = (torch.arange(width) - right) % width
    moved = images[torch.arange(n).view(n, 1, 1), 0, rows.unsqueeze(2), columns.unsqueeze(1)]
    return moved.unsqueeze(1), labels


def shifted_mnist() -> Data:
    return Finite(*_mnist(), batch_size=16, change=shifted)


def shifted_digits() -> Data:
    (images, labels), (val_images, val_labels) = _digits()
    train, val = (images.view(-1, 1, 8, 8), labels), (val_images.view(-1, 1, 8, 8), val_labels)
    return Finite(train, val, batch_size=16, change=shifted)


def mnist_with_wrong_labels() -> Data:
    """A fifth of the labels that are trained on are drawn at random."""
    (images, labels), (val_images, val_labels) = _mnist()
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(labels), generator=generator) < 0.2
    labels = torch.where(wrong, torch.randint(10, labels.shape, generator=generator), labels)
    return Finite((images.flatten(1), labels), (val_images.flatten(1), val_labels), batch_size=32)


def noisy_digits_to_clean_ones() -> Data:
    """The noise of a training image is another one each time that it is seen."""
    (train, _), (val, _) = _digits()

    def noisy(batch: Batch, generator: torch.Generator) -> Batch:
        images, clean = batch
        return images + 0.7 * torch.randn(images.shape, generator=generator), clean

    return Finite((train, train), noisy((val, val), torch.Generator().manual_seed(0)), batch_size=256, change=noisy)


def digits_to_themselves() -> Data:
    (train, _), (val, _) = _digits()
    return Finite((train, train), (val, val), batch_size=256)


def noisy_function() -> Data:
    """A smooth function of ten inputs, with noise of half its own spread."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4000, 10, generator=generator)
    directions = torch.randn(10, 4, generator=generator) / 10**0.5
    clean = torch.sin(inputs @ directions).sum(1, keepdim=True)
    targets = clean / clean.std() + 0.5 * torch.randn(len(inputs), 1, generator=generator)
    return Finite((inputs[:3000], targets[:3000]), (inputs[3000:], targets[3000:]), batch_size=16)


def friedman() -> Data:
    """The first function of Friedman, "Multivariate adaptive regression splines" (1991), with noise, to unit spread."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(3000, 10, generator=generator)
    x = inputs.T
    clean = 10 * torch.sin(torch.pi * x[0] * x[1]) + 20 * (x[2] - 0.5) ** 2 + 10 * x[3] + 5 * x[4]
    targets = ((clean - clean.mean()) / clean.std()).unsqueeze(1) + 0.3 * torch.randn(3000, 1, generator=generator)
    inputs = 2 * inputs - 1
    return Finite((inputs[:2000], targets[:2000]), (inputs[2000:], targets[2000:]), batch_size=32)


def teacher() -> Data:
    """What a network with random weights answers to random inputs, with a little noise."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(16, 24, generator=generator) / 16**0.5
    second = torch.randn(24, 1, generator=generator) / 24**0.5

    def draw(size: int, generator: torch.Generator) -> Batch:
        inputs = torch.randn(size, 16, generator=generator)
        clean = 2 * torch.tanh(2 * inputs @ first) @ second
        return inputs, clean + 0.2 * torch.randn(size, 1, generator=generator)

    return Endless(draw, draw(1000, torch.Generator().manual_seed(1)), batch_size=32)


def markov_chain() -> Data:
    """Four symbols of a chain in which each symbol's probabilities depend on the two before it, and the fifth."""
    symbols = 16
    logits = 2 * torch.randn(symbols, symbols, symbols, generator=torch.Generator().manual_seed(0))
    probabilities = logits.softmax(-1)

    def draw(size: int, generator: torch.Generator) -> Batch:
        chain = [torch.randint(symbols, (size,), generator=generator) for _ in range(2)]
        while len(chain) < 5:
            chain.append(torch.multinomial(probabilities[chain[-2], chain[-1]], 1, generator=generator).squeeze(1))
        return torch.stack(chain[:4], dim=1), chain[4]

    return Endless(draw, draw(2000, torch.Generator().manual_seed(1)), batch_size=32)


def characters(text: bytes, context: int) -> Tensor:
    """Return windows of a text, each byte as one of VOCABULARY; int64 of shape (N, context + 1)."""
    codes = torch.zeros(256, dtype=torch.int64)
    codes[32:127] = torch.arange(2, VOCABULARY)
    codes[10] = 1
    rows = len(text) // (context + 1)
    return codes[torch.frombuffer(bytearray(text), dtype=torch.uint8).long()][: rows * (context + 1)].view(rows, -1)


def windows(rows: Tensor, batch_size: int) -> Data:
    """A window without its last character, and the same one character further; 200 windows validate."""
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    train, val = rows[200:], rows[:200]
    return Finite((train[:, :-1], train[:, 1:]), (val[:, :-1], val[:, 1:]), batch_size)


def python_sources() -> Data:
    work = gpt_bytes(context=17, max_bytes=1_000_000)
    data = cast("Windows", work.train_data)
    text = b"".join(bytes(data[i]["input_ids"].tolist()) for i in range(len(data)))
    return windows(characters(text, 16), batch_size=8)


def python_documentation() -> Data:
    """English: the language reference that Python's `help` shows."""
    return windows(characters("\n".join(topics.topics.values()).encode(), 16), batch_size=4)


# --- models


def mlp(*sizes: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return linear layers with an activation between each two."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def normed_mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(10, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 1)
    )


def markov_model() -> nn.Sequential:
    """int64 of shape (N, 4) to logits of shape (N, 16)."""
    return nn.Sequential(nn.Embedding(16, 8), nn.Flatten(), mlp(32, 48, 16, activation=nn.Tanh))


class Patches(nn.Module):
    """A convolution whose kernel does not overlap with itself: shape (N, C, H, W) to (N, channels, H / 2, W / 2).

    Written as a matrix product, which is many times as fast as a convolution with groups where there are many models.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * inputs, channels)

    def forward(self, images: Tensor) -> Tensor:
        n, c, h, w = images.shape
        patches = images.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h // 2, w // 2, 4 * c)
        features: Tensor = self.linear(patches)
        return features.permute(0, 3, 1, 2)


def mnist_conv() -> nn.Sequential:
    """Shape (N, 1, 14, 14) to logits of shape (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=2, stride=2), nn.ReLU(), Patches(6, 12), nn.ReLU(), nn.Flatten(), nn.Linear(192, 10)
    )


def digits_conv() -> nn.Sequential:
    """Shape (N, 1, 8, 8) to logits of shape (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, stride=2), nn.GELU(), Patches(8, 24), nn.GELU(), nn.Flatten(), nn.Linear(96, 10)
    )


class Block(nn.Module):
    """A transformer's block (pre-norm) with causal attention."""

    def __init__(self, length: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = mlp(width, 4 * width, width, activation=nn.GELU)
        self.register_buffer("mask", torch.full((length, length), -torch.inf).triu(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5 + self.mask
        seen = scores.softmax(-1) @ v
        x = x + self.out(seen.transpose(1, 2).reshape(n, length, width))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Transformer(nn.Module):
    """int64 of shape (N, 16) to logits of shape (N, 16, VOCABULARY)."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(VOCABULARY, width)
        self.places = nn.Parameter(0.02 * torch.randn(16, width))
        nn.init.normal_(self.characters.weight, std=0.02)
        self.blocks = nn.Sequential(*(Block(16, width, 2) for _ in range(blocks)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, VOCABULARY))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.characters(tokens) + self.places
        logits: Tensor = self.head(self.blocks(x))
        return logits


MOMENTUM = {"momentum": 0.9}

WORKLOADS = (
    # In view: see `landscape.IN_VIEW`.
    Work(
        name="regression_momentum",
        make_data=noisy_function,
        model=lambda: mlp(10, 48, 1, activation=nn.Tanh),
        loss=squared_error,
        optimizer="sgd",
        arguments=MOMENTUM,
        steps=160,
    ),
    Work(  # overfits: 219 epochs of 1,197 digits
        name="digits_mlp_adamw",
        make_data=plain_digits,
        model=lambda: mlp(64, 48, 48, 10),
        loss=cross_entropy,
        optimizer="adamw",
        arguments={"weight_decay": 0.01},
        steps=128,
    ),
    Work(
        name="teacher_online_adam",
        make_data=teacher,
        model=lambda: mlp(16, 48, 48, 1),
        loss=squared_error,
        optimizer="adam",
        arguments={},
        steps=160,
    ),
    Work(
        name="mnist_conv_momentum",
        make_data=shifted_mnist,
        model=mnist_conv,
        loss=cross_entropy,
        optimizer="sgd",
        arguments=MOMENTUM,
        steps=80,
        seeds=3,
    ),
    Work(
        name="python_transformer_adamw",
        make_data=python_sources,
        model=lambda: Transformer(width=16, blocks=1),
        loss=cross_entropy,
        optimizer="adamw",
        arguments={"betas": (0.9, 0.95), "weight_decay": 0.1},
        steps=80,
        seeds=3,
    ),
    Work(
        name="denoiser_batch256_momentum",
        make_data=noisy_digits_to_clean_ones,
        model=lambda: mlp(64, 32, 64),
        loss=squared_error,
        optimizer="sgd",
        arguments=MOMENTUM,
        steps=80,
        seeds=3,
    ),
    # These judge.
    Work(
        name="friedman_adamw",
        make_data=friedman,
        model=normed_mlp,
        loss=squared_error,
        optimizer="adamw",
        arguments={"weight_decay": 0.1},
        steps=160,
    ),
    Work(  # overfits: it learns the wrong labels by heart
        name="wrong_labels_momentum",
        make_data=mnist_with_wrong_labels,
        model=lambda: mlp(196, 32, 10),
        loss=cross_entropy,
        optimizer="sgd",
        arguments=MOMENTUM,
        steps=96,
    ),
    Work(
        name="markov_online_momentum",
        make_data=markov_chain,
        model=markov_model,
        loss=cross_entropy,
        optimizer="sgd",
        arguments=MOMENTUM,
        steps=160,
    ),
    Work(
        name="autoencoder_batch256_adam",
        make_data=digits_to_themselves,
        model=lambda: mlp(64, 24, 6, 24, 64, activation=nn.Tanh),
        loss=squared_error,
        optimizer="adam",
        arguments={},
        steps=80,
        seeds=3,
    ),
    Work(
        name="digits_conv_adamw",
        make_data=shifted_digits,
        model=digits_conv,
        loss=cross_entropy,
        optimizer="adamw",
        arguments={"weight_decay": 0.05},
        steps=80,
        seeds=3,
    ),
    Work(
        name="docs_transformer_adamw",
        make_data=python_documentation,
        model=lambda: Transformer(width=16, blocks=1),
        loss=cross_entropy,
        optimizer="adamw",
        arguments={"betas": (0.9, 0.99), "weight_decay": 0.01},
        steps=80,
        seeds=3,
    ),
)
BY_NAME = {work.name: work for work in WORKLOADS}
