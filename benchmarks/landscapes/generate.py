"""Makes the ground truth of the benchmarks: what every LR schedule reaches at every LR, on small workloads of many
kinds.

    PYTHONPATH=benchmarks .venv/bin/python -m landscapes.generate [--minutes 60] [--processes 2] [--only mlp_adamw ...]

Per workload, `NAME.csv` has one line for a training (LR schedule and shape, LR, seed) with the validation loss before
the first step and at each tenth of the way, and `NAME.npz` the training losses of LR range tests: tune-lr's own default
ramp and those of its peers, 20 seeds each. A plain loop, nothing of Ray or ColossalAI, one thread a training; the LRs
come from `tune_lr.lr.schedules`, the optimizers from `tune_lr.worker.optimizers`.

It goes on where it was stopped, at any moment. In stages, so that the files are of use early: three seeds of each
schedule in its default shape, then the ramps; three seeds of all other shapes; 12 more seeds for all that comes within
10 % of the best, and for each schedule's LRs within 15 % of its best; last, 36 more for all within 3 % of the best. To
change a workload, delete its files.
"""

import argparse
import csv
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import Pool

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from landscapes.landscape import (
    FOLDER,
    POINTS,
    RAMP_SEEDS,
    RAMPS,
    SCHEDULES,
    SEARCH_SEEDS,
    all_shapes,
    curve_fields,
    schedule_and_shape,
)
from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.worker.optimizers import cycles_momentum, make_optimizer
from tune_lr.workloads import Workload
from tune_lr.workloads.digits import digits
from tune_lr.workloads.gpt_bytes import gpt_bytes
from tune_lr.workloads.lenet5 import LeNet5, mnist_5k

LRS = 13  # at first, six a decade; where the best lies at an end, more
MORE_LRS = 6  # at each end at most
NEAR, CLOSE, CLOSEST = 0.15, 0.10, 0.03
TRUTH_SEEDS, MORE_SEEDS = range(3, 15), range(15, 51)

Data = tuple[Tensor, Tensor, Tensor, Tensor]  # training inputs and targets, validation inputs and targets
Key = tuple[str, float, int]  # the LR schedule, with its shape where that is not the default; the LR; the seed
Cells = dict[Key, list[float]]  # validation losses


@dataclass(frozen=True, kw_only=True)
class Work:
    """A workload, small enough that a training takes about a second."""

    name: str
    data: Callable[[], Data]
    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: str
    arguments: dict[str, object]
    batch_size: int
    max_steps: int
    lowest: float  # log10 of the lowest LR


# --- data


def _tensors(workload: Workload) -> Data:
    train, val = workload.train_data, workload.val_data
    assert isinstance(train, TensorDataset)
    assert isinstance(val, TensorDataset)
    (inputs, targets), (val_inputs, val_targets) = train.tensors, val.tensors
    return inputs, targets, val_inputs, val_targets


@cache
def mnist() -> Data:
    return _tensors(mnist_5k(val=300))


@cache
def digits_flat() -> Data:
    return _tensors(digits())


@cache
def digits_images() -> Data:
    train, targets, val, val_targets = digits_flat()
    return train.view(-1, 1, 8, 8), targets, val.view(-1, 1, 8, 8), val_targets


@cache
def digits_rows() -> Data:
    train, targets, val, val_targets = digits_flat()
    return train.view(-1, 8, 8), targets, val.view(-1, 8, 8), val_targets


@cache
def digits_to_themselves() -> Data:
    train, _, val, _ = digits_flat()
    return train, train, val, val


@cache
def text() -> Data:
    """Windows of 32 bytes of Python's own sources, and the same one byte further."""
    work = gpt_bytes(context=33, max_bytes=400_000, val_windows=100)
    train, val = (
        torch.stack([part[i]["input_ids"] for i in range(len(part))])  # type: ignore[arg-type]  # map-style: it has one
        for part in (work.train_data, work.val_data)
    )
    return train[:, :-1], train[:, 1:], val[:, :-1], val[:, 1:]


@cache
def noisy_function() -> Data:
    """A smooth function of ten inputs, with noise of half its own spread."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2500, 10, generator=generator)
    directions = torch.randn(10, 4, generator=generator) / 10**0.5
    clean = torch.sin(2 * inputs @ directions).sum(1, keepdim=True)
    targets = clean / clean.std() + 0.5 * torch.randn(2500, 1, generator=generator)
    return inputs[:2000], targets[:2000], inputs[2000:], targets[2000:]


@cache
def noisy_digits_to_clean_ones() -> Data:
    train, _, val, _ = digits_images()
    noise = torch.randn(len(train) + len(val), 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 2
    return train + noise[: len(train)], train, val + noise[len(train) :], val


@cache
def eight_bytes() -> Data:
    """Eight bytes of Python's own sources, and the ninth."""
    train, _, val, _ = text()
    return train[:, :8], train[:, 8], val[:, :24].reshape(-1, 8), val[:, 8:25:8].reshape(-1)


@cache
def mnist_with_wrong_labels() -> Data:
    """A fifth of the labels that are trained on are drawn at random."""
    train, targets, val, val_targets = mnist()
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(targets), generator=generator) < 0.2
    return train, torch.where(wrong, torch.randint(10, targets.shape, generator=generator), targets), val, val_targets


@cache
def pixels_in_turn() -> Data:
    """The pixels of an image, each of 17 shades, as one sequence, and the same one pixel further."""
    train, _, val, _ = digits_flat()
    low, high = train.min(), train.max()
    train, val = (((16 * (part - low) / (high - low)).round()).long() for part in (train, val[:60]))
    return train[:, :-1], train[:, 1:], val[:, :-1], val[:, 1:]


@cache
def ratings() -> Data:
    """Pairs of 200 users and 100 things, and how much each likes each: three tastes, and noise of half their spread."""
    generator = torch.Generator().manual_seed(0)
    users, things = torch.randn(200, 3, generator=generator), torch.randn(100, 3, generator=generator)
    pairs = torch.cartesian_prod(torch.arange(200), torch.arange(100))
    liked = (users[pairs[:, 0]] * things[pairs[:, 1]]).sum(1, keepdim=True) / 3**0.5
    liked = liked + 0.5 * torch.randn(len(pairs), 1, generator=generator)
    order = torch.randperm(len(pairs), generator=generator)
    train, val = order[:12_000], order[12_000:14_000]
    return pairs[train], liked[train], pairs[val], liked[val]


# --- models


class Block(nn.Module):
    """A transformer's block (pre-norm) with causal attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind()
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(n, length, width))
        grown: Tensor = x + self.mlp(self.norm2(x))
        return grown


class ByteTransformer(nn.Module):
    """int64 of shape (N, length) to logits of shape (N, length, vocabulary)."""

    def __init__(
        self, length: int = 32, width: int = 32, blocks: int = 2, heads: int = 2, vocabulary: int = 256
    ) -> None:
        super().__init__()
        self.bytes, self.places = nn.Embedding(vocabulary, width), nn.Parameter(0.02 * torch.randn(length, width))
        nn.init.normal_(self.bytes.weight, std=0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary))

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.bytes(tokens) + self.places))
        return logits


class RowReader(nn.Module):
    """A GRU that reads an image row by row: shape (N, 8, 8) to logits of shape (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.head(self.gru(rows)[0][:, -1])
        return logits


class LSTMReader(nn.Module):
    """Like `RowReader`, with the mean of an LSTM's outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 24, batch_first=True), nn.Linear(24, 10)

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.head(self.lstm(rows)[0].mean(1))
        return logits


class RowTransformer(nn.Module):
    """Reads an image as a sequence of its rows: shape (N, 8, 8) to logits of shape (N, 10)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed, self.places = nn.Linear(8, width), nn.Parameter(0.02 * torch.randn(8, width))
        self.blocks = nn.Sequential(Block(width, 2), Block(width, 2))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.embed(rows) + self.places).mean(1))
        return logits


class Mixer(nn.Module):
    """An MLP-Mixer (Tolstikhin et al. 2021) over patches of 2 x 2 pixels: shape (N, 64) to logits of shape (N, 10)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.across = nn.ModuleList(mlp(16, 32, 16, activation=nn.GELU) for _ in range(2))
        self.within = nn.ModuleList(mlp(width, 48, width, activation=nn.GELU) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4))
        for i, (across, within) in enumerate(zip(self.across, self.within, strict=True)):
            x = x + across(self.norms[2 * i](x).transpose(1, 2)).transpose(1, 2)
            x = x + within(self.norms[2 * i + 1](x))
        logits: Tensor = self.head(x.mean(1))
        return logits


class VariationalAutoencoder(nn.Module):
    """Kingma and Welling 2014: shape (N, 64) to the image, the means and the logarithms of the variances side by side,
    shape (N, 64 + 2 * codes)."""

    def __init__(self, codes: int = 6) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 48, 2 * codes), mlp(codes, 48, 64)

    def forward(self, images: Tensor) -> Tensor:
        code = self.encoder(images)
        mean, log_variance = code.chunk(2, dim=1)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return torch.cat([self.decoder(mean + noise * torch.exp(log_variance / 2)), code], dim=1)


class Factors(nn.Module):
    """What a user and a thing have in common: int64 of shape (N, 2) to shape (N, 1)."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.users, self.things = nn.Embedding(200, width), nn.Embedding(100, width)
        for table in (self.users, self.things):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, pairs: Tensor) -> Tensor:
        rating: Tensor = (self.users(pairs[:, 0]) * self.things(pairs[:, 1])).sum(1, keepdim=True)
        return rating


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inside = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.inside(x))


def small_resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, stride=2, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        Residual(12),
        Residual(12),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


def denoiser() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(12, 12, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(12, 1, 3, padding=1),
    )


def byte_mlp() -> nn.Module:
    """int64 of shape (N, 8) to logits of shape (N, 256)."""
    return nn.Sequential(nn.Embedding(256, 12), nn.Flatten(), nn.Linear(96, 96), nn.Tanh(), nn.Linear(96, 256))


def mlp_with_dropout() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, stride=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 16, 10),
    )


def mlp(*sizes: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def loss_of_bytes(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def loss_of_codes(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of the image, and of how far the codes are from a standard normal distribution, a value each."""
    image, mean, log_variance = outputs.split([64, *2 * [(outputs.shape[1] - 64) // 2]], dim=1)
    divergence: Tensor = (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
    return functional.mse_loss(image, targets) + 0.01 * divergence


# The fastest first.
WORKLOADS = (
    Work(
        name="mlp_adamw",
        data=digits_flat,
        model=lambda: mlp(64, 64, 64, 10),
        loss=functional.cross_entropy,
        optimizer="adamw",
        arguments={"weight_decay": 0.01},
        batch_size=64,
        max_steps=190,
        lowest=-3.0,
    ),
    Work(
        name="cnn_bn",
        data=digits_images,
        model=small_cnn,
        loss=functional.cross_entropy,
        optimizer="sgd",
        arguments={"momentum": 0.9},
        batch_size=32,
        max_steps=150,
        lowest=-2.0,
    ),
    Work(
        name="regression",
        data=noisy_function,
        model=lambda: mlp(10, 64, 1, activation=nn.Tanh),
        loss=functional.mse_loss,
        optimizer="sgd",
        arguments={"momentum": 0.9},
        batch_size=8,
        max_steps=500,
        lowest=-2.67,
    ),
    Work(
        name="autoencoder",
        data=digits_to_themselves,
        model=lambda: mlp(64, 32, 8, 32, 64, activation=nn.Tanh),
        loss=functional.mse_loss,
        optimizer="sgd",
        arguments={"momentum": 0.9},
        batch_size=32,
        max_steps=250,
        lowest=-1.33,
    ),
    Work(
        name="gru_adam",
        data=digits_rows,
        model=RowReader,
        loss=functional.cross_entropy,
        optimizer="adam",
        arguments={},
        batch_size=64,
        max_steps=190,
        lowest=-2.67,
    ),
    Work(
        name="transformer_adamw",
        data=text,
        model=ByteTransformer,
        loss=loss_of_bytes,
        optimizer="adamw",
        arguments={"betas": [0.9, 0.95], "weight_decay": 0.1},
        batch_size=16,
        max_steps=120,
        lowest=-3.33,
    ),
    Work(
        name="lenet5_momentum",
        data=mnist,
        model=LeNet5,
        loss=functional.cross_entropy,
        optimizer="sgd",
        arguments={"momentum": 0.9},
        batch_size=32,
        max_steps=180,
        lowest=-2.33,
    ),
    Work(
        name="lenet5_sgd",
        data=mnist,
        model=LeNet5,
        loss=functional.cross_entropy,
        optimizer="sgd",
        arguments={},
        batch_size=32,
        max_steps=180,
        lowest=-1.5,
    ),
    Work(
        name="denoiser_adam",
        data=noisy_digits_to_clean_ones,
        model=denoiser,
        loss=functional.mse_loss,
        optimizer="adam",
        arguments={},
        batch_size=16,
        max_steps=150,
        lowest=-2.67,
    ),
    Work(
        name="resnet_nesterov",
        data=digits_images,
        model=small_resnet,
        loss=functional.cross_entropy,
        optimizer="sgd",
        arguments={"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
        batch_size=32,
        max_steps=120,
        lowest=-2.0,
    ),
    Work(
        name="byte_mlp_rmsprop",
        data=eight_bytes,
        model=byte_mlp,
        loss=functional.cross_entropy,
        optimizer="rmsprop",
        arguments={},
        batch_size=32,
        max_steps=300,
        lowest=-3.67,
    ),
    Work(
        name="mlp_dropout_sgd",
        data=mnist,
        model=mlp_with_dropout,
        loss=functional.cross_entropy,
        optimizer="sgd",
        arguments={"weight_decay": 1e-4},
        batch_size=32,
        max_steps=250,
        lowest=-1.5,
    ),
    Work(
        name="lstm_momentum",
        data=digits_rows,
        model=LSTMReader,
        loss=functional.cross_entropy,
        optimizer="sgd",
        arguments={"momentum": 0.9},
        batch_size=32,
        max_steps=150,
        lowest=-1.0,
    ),
    Work(
        name="row_transformer",
        data=digits_rows,
        model=RowTransformer,
        loss=functional.cross_entropy,
        optimizer="adamw",
        arguments={"weight_decay": 0.05},
        batch_size=32,
        max_steps=120,
        lowest=-3.0,
    ),
    # These judge: see `landscape.IN_VIEW`.
    Work(
        name="mixer_nadam",
        data=digits_flat,
        model=Mixer,
        loss=functional.cross_entropy,
        optimizer="nadam",
        arguments={},
        batch_size=32,
        max_steps=130,
        lowest=-3.0,
    ),
    Work(
        name="lenet5_adamw",
        data=mnist,
        model=LeNet5,
        loss=functional.cross_entropy,
        optimizer="adamw",
        arguments={"weight_decay": 0.01},
        batch_size=32,
        max_steps=120,
        lowest=-3.33,
    ),
    Work(
        name="wrong_labels_nesterov",
        data=mnist_with_wrong_labels,
        model=lambda: nn.Sequential(nn.Flatten(), mlp(784, 128, 10)),
        loss=functional.cross_entropy,
        optimizer="sgd",
        arguments={"momentum": 0.9, "nesterov": True},
        batch_size=64,
        max_steps=150,
        lowest=-2.67,
    ),
    Work(
        name="vae_adam",
        data=digits_to_themselves,
        model=VariationalAutoencoder,
        loss=loss_of_codes,
        optimizer="adam",
        arguments={},
        batch_size=32,
        max_steps=220,
        lowest=-3.0,
    ),
    Work(
        name="pixel_gpt_adamw",
        data=pixels_in_turn,
        model=lambda: ByteTransformer(length=63, width=24, blocks=1, heads=2, vocabulary=17),
        loss=loss_of_bytes,
        optimizer="adamw",
        arguments={"betas": [0.9, 0.95], "weight_decay": 0.1},
        batch_size=8,
        max_steps=120,
        lowest=-3.17,
    ),
    Work(
        name="factors_adamax",
        data=ratings,
        model=Factors,
        loss=functional.mse_loss,
        optimizer="adamax",
        arguments={},
        batch_size=64,
        max_steps=400,
        lowest=-1.33,
    ),
)


# --- training


def descend(
    work: Work, seed: int, lrs: Sequence[float], momenta: Sequence[float | None], validate: set[int]
) -> tuple[list[float], list[float]]:
    """Trains with the LR of each step, and with its momentum (None: the optimizer's own) where the optimizer has any.

    Returns the training loss of every step and the validation loss before each step in `validate`; both end where the
    training loss is no longer finite.
    """
    train, targets, val, val_targets = work.data()
    torch.manual_seed(seed)
    model = work.model()
    optimizer = make_optimizer(work.optimizer, {**work.arguments, "foreach": True}, [{"params": model.parameters()}])
    group, cycles = optimizer.param_groups[0], cycles_momentum(optimizer)
    losses: list[float] = []
    values: list[float] = []

    def validation() -> float:
        model.eval()
        with torch.inference_mode():
            value = float(work.loss(model(val), val_targets))
        model.train()
        return value

    for step, indices in enumerate(batches(len(train), work.batch_size, len(lrs), seed)):
        if step in validate:
            values.append(validation())
        group["lr"] = lrs[step]
        if cycles and momenta[step] is not None and "betas" in group:
            group["betas"] = (momenta[step], *group["betas"][1:])
        elif cycles and momenta[step] is not None:
            group["momentum"] = momenta[step]
        loss = work.loss(model(train[indices]), targets[indices])
        loss.backward()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            return losses, values
        optimizer.step()
        optimizer.zero_grad()
    if len(lrs) in validate:
        values.append(validation())
    return losses, values


def batches(items: int, batch_size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """As many batches of indices as there are steps: a new order each epoch, the last partial batch dropped."""
    generator = torch.Generator().manual_seed(seed)
    done = 0
    while True:
        for indices in torch.randperm(items, generator=generator)[: items // batch_size * batch_size].split(batch_size):
            if done == steps:
                return
            yield indices
            done += 1


def train_cell(
    work: Work, name: str, lr: float, seed: int, parameters: Mapping[str, object] | None = None
) -> list[float]:
    """The validation losses of one training, POINTS + 1 of them, inf once it has diverged. The shape of the LR schedule
    is in its name, as landscapes have it, or in the parameters."""
    lr_schedule, shape = schedule_and_shape(name)
    schedule = make_lr_schedule(lr_schedule, parameters or shape, work.max_steps)
    steps = range(work.max_steps)
    lrs, momenta = [schedule.lr(lr, step) for step in steps], [schedule.momentum(step) for step in steps]
    _, values = descend(
        work, seed, lrs, momenta, {round(point * work.max_steps / POINTS) for point in range(POINTS + 1)}
    )
    return (values + [math.inf] * (POINTS + 1))[: POINTS + 1]


# --- files


def read_cells(work: Work) -> Cells:
    """What is there already. A last line that a kill cut off is cut away."""
    path = FOLDER / f"{work.name}.csv"
    if not path.exists():
        path.write_text(",".join(["lr_schedule", "lr", "seed", "steps", *curve_fields()]) + "\n")
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        path.write_bytes(content[: content.rindex(b"\n") + 1])
    with path.open(newline="") as file:
        return {
            (row["lr_schedule"], float(row["lr"]), int(row["seed"])): [float(row[field]) for field in curve_fields()]
            for row in csv.DictReader(file)
        }


def append_cell(work: Work, key: Key, values: list[float]) -> None:
    with (FOLDER / f"{work.name}.csv").open("a", newline="") as file:
        row = [key[0], f"{key[1]:.4g}", key[2], work.max_steps, *(f"{value:.5g}" for value in values)]
        csv.writer(file, lineterminator="\n").writerow(row)


def run_ramp(work: Work, ramp: str, seed: int) -> None:
    """Adds the range test of one seed."""
    path, lrs, rows = FOLDER / f"{work.name}.npz", RAMPS[ramp], read_ramps(work)
    losses, _ = descend(work, seed, lrs.tolist(), [None] * len(lrs), set())
    row = np.full((1, len(lrs)), np.nan, dtype=np.float32)
    row[0, : len(losses)] = [float(f"{loss:.5g}") for loss in losses]
    rows[ramp] = np.concatenate([rows[ramp], row])
    new, recorded = path.with_name(f"{path.name}.new"), {name: losses for name, losses in rows.items() if len(losses)}
    with new.open("wb") as file:
        np.savez_compressed(file, **recorded)  # type: ignore[arg-type]  # no ramp is called allow_pickle
    new.replace(path)


def read_ramps(work: Work) -> dict[str, np.ndarray]:
    path = FOLDER / f"{work.name}.npz"
    rows = {ramp: np.empty((0, len(lrs)), dtype=np.float32) for ramp, lrs in RAMPS.items()}
    if path.exists():
        with np.load(path) as file:
            rows.update(file)
    return rows


def missing_ramp(work: Work) -> tuple[str, int] | None:
    """The next ramp and its seed."""
    for ramp, there in read_ramps(work).items():
        if len(there) < len(RAMP_SEEDS):
            return ramp, RAMP_SEEDS[len(there)]
    return None


def run_ramps(name: str, ends: float) -> None:
    """Runs those that are missing, in a process of the pool."""
    torch.set_num_threads(1)
    while (missing := missing_ramp(BY_NAME[name])) is not None and time.monotonic() < ends:
        run_ramp(BY_NAME[name], *missing)


# --- what to do next


def lr_at(work: Work, place: int) -> float:
    return float(f"{10 ** (work.lowest + place / 6):.4g}")


def first_loss(cells: Cells, name: str, lr: float) -> float:
    """The mean final loss over the seeds that every cell has; of seed 0 alone until all are there."""
    means = [cells[name, lr, seed] for seed in SEARCH_SEEDS if (name, lr, seed) in cells]
    return float(np.mean([np.fmin(values[-1], values[0]) for values in means])) if means else math.inf


def grid(work: Work, cells: Cells, name: str) -> list[float]:
    """The LRs of a schedule: thirteen, and more where the best of them lies at an end."""
    below, above = 0, LRS - 1
    while True:
        lrs = [lr_at(work, place) for place in range(below, above + 1)]
        if not all((name, lr, 0) in cells for lr in lrs):
            return lrs
        losses = [first_loss(cells, name, lr) for lr in lrs]
        best = losses.index(min(losses))
        if best == 0 and below > -MORE_LRS:
            below -= 1
        elif best == len(lrs) - 1 and above < LRS - 1 + MORE_LRS:
            above += 1
        else:
            return lrs


def near(work: Work, cells: Cells, name: str) -> list[float]:
    """The LRs of a schedule that come within NEAR of its best."""
    losses = {lr: first_loss(cells, name, lr) for lr in grid(work, cells, name)}
    return [lr for lr, loss in losses.items() if loss <= (1 + NEAR) * min(losses.values())]


def lowest(cells: Cells, within: float) -> list[tuple[str, float]]:
    """What comes so near to the workload's best, each by its mean over the seeds it has."""
    losses: dict[tuple[str, float], list[float]] = {}
    for (name, lr, _), values in cells.items():
        losses.setdefault((name, lr), []).append(np.fmin(values[-1], values[0]))
    means = {cell: float(np.mean(values)) for cell, values in losses.items()}
    return [cell for cell, mean in means.items() if mean <= (1 + within) * min(means.values())]


BY_NAME = {work.name: work for work in WORKLOADS}
Stage = Callable[[Work, Cells], list[Key]]


def everywhere(names: Sequence[str], seeds: Sequence[int]) -> Stage:
    return lambda work, cells: [(name, lr, seed) for seed in seeds for name in names for lr in grid(work, cells, name)]


STAGES: tuple[Stage, ...] = (
    everywhere(SCHEDULES, [0]),
    everywhere(SCHEDULES, SEARCH_SEEDS),
    everywhere(all_shapes(), [0]),
    everywhere(all_shapes(), SEARCH_SEEDS),
    lambda _, cells: [(*cell, seed) for seed in TRUTH_SEEDS for cell in lowest(cells, CLOSE)],
    lambda work, cells: [
        (name, lr, seed) for seed in TRUTH_SEEDS for name in SCHEDULES for lr in near(work, cells, name)
    ],
    lambda _, cells: [(*cell, seed) for seed in MORE_SEEDS for cell in lowest(cells, CLOSEST)],
)
RAMPS_AFTER = 1  # the stage that they follow


def train(job: tuple[str, Key]) -> tuple[str, Key, list[float]]:
    """In a process of the pool."""
    torch.set_num_threads(1)
    name, key = job
    return name, key, train_cell(BY_NAME[name], *key)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes or completes the landscapes; may be stopped at any moment.")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="trainings at a time")
    parser.add_argument("--only", nargs="+", choices=BY_NAME, help="these workloads")
    options = parser.parse_args()
    works = [work for work in WORKLOADS if not options.only or work.name in options.only]
    ends = time.monotonic() + 60 * options.minutes
    cells = {work.name: read_cells(work) for work in works}
    with Pool(options.processes) as pool:
        for number, stage in enumerate(STAGES):
            started, trained = time.monotonic(), 0
            # What is wanted may grow with what was found.
            while jobs := [
                (work.name, key)
                for work in works
                for key in dict.fromkeys(stage(work, cells[work.name]))
                if key not in cells[work.name]
            ]:
                for name, key, values in pool.imap_unordered(train, jobs):
                    cells[name][key] = values
                    append_cell(BY_NAME[name], key, values)
                    trained += 1
                    if time.monotonic() > ends:
                        return
            print(f"stage {number}: {trained} trainings in {time.monotonic() - started:.0f} s", flush=True)
            if number == RAMPS_AFTER:
                pool.starmap(run_ramps, [(work.name, ends) for work in works])


if __name__ == "__main__":
    main()
