"""Reads the landscapes that `generate.py` made: final losses over (LR schedule, its shape, LR), and curves of LR range
tests."""

import csv
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from tune_lr.lr.ramp import Ramp
from tune_lr.lr.schedules import SCHEDULES as KNOWN

Array = NDArray[np.float64]

FOLDER = Path(__file__).parent
# What is searched over of each LR schedule's shape, the default among it.
SHAPES: dict[str, dict[str, tuple[float, ...]]] = {
    "constant": {},
    "step": {"step_size": (0.2, 0.34, 0.5), "gamma": (0.1, 0.3, 0.6)},
    "exponential": {"final_factor": (0.001, 0.01, 0.1)},
    "cosine": {"floor": (0.0, 0.05, 0.2)},
    "onecycle": {"pct_start": (0.1, 0.3, 0.5), "div_factor": (5.0, 25.0, 100.0)},
    "cyclic": {"step_size_up": (0.125, 0.25, 0.5), "floor": (0.01, 0.1, 0.3)},
}
SCHEDULES = tuple(SHAPES)  # each in its default shape
# In view when the range test and the search were made as they are. All others were recorded, or first looked at, when
# both were settled: the judges.
IN_VIEW = (
    "autoencoder",
    "byte_mlp_rmsprop",
    "cnn_bn",
    "denoiser_adam",
    "gru_adam",
    "lenet5_momentum",
    "lenet5_sgd",
    "lstm_momentum",
    "mlp_adamw",
    "mlp_dropout_sgd",
    "regression",
    "resnet_nesterov",
    "row_transformer",
    "transformer_adamw",
)
POINTS = 10  # validations, the last one at the end
SEARCH_SEEDS = (0, 1, 2)  # every cell has them; later seeds are for the truth alone
RAMP_SEEDS = range(1000, 1020)

# The LR of every step of each tool's range test, as it is by default; the README of pytorch-lr-finder has 1e-7 to 100.
OURS = Ramp(1e-5, 10, 300)
RAMPS: dict[str, Array] = {
    "tune_lr": np.array([OURS.lr(step) for step in range(OURS.steps)]),
    "fastai": 1e-7 * (10 / 1e-7) ** (np.arange(100) / 100),
    # The first LR is taken twice as long as any other: the second step has the third LR of an even ramp.
    "lightning": 1e-8 * (1 / 1e-8) ** (np.array([0, *range(2, 101)]) / 100),
    "lr_finder": 1e-7 * (100 / 1e-7) ** (np.arange(100) / 99),
}


def default_shape(lr_schedule: str) -> dict[str, Any]:
    defaults = {parameter.name: parameter.default for parameter in KNOWN[lr_schedule].parameters}
    defaults["final_factor"] = 0.01  # where none of an exponential's parameters is given
    return {name: defaults[name] for name in SHAPES[lr_schedule]}


def cell_name(lr_schedule: str, shape: Mapping[str, object]) -> str:
    """What a landscape calls a schedule: `step` in its default shape, else `step step_size=0.2 gamma=0.1`."""
    default = default_shape(lr_schedule)
    whole = {name: shape.get(name, default[name]) for name in default}
    return " ".join([lr_schedule, *(f"{name}={value:g}" for name, value in whole.items() if whole != default)])


def schedule_and_shape(cell_name: str) -> tuple[str, dict[str, float]]:
    """The other way round; a default shape is {}."""
    lr_schedule, *shape = cell_name.split()
    return lr_schedule, {name: float(value) for name, _, value in (part.partition("=") for part in shape)}


def all_shapes() -> list[str]:
    """Every shape of every schedule, by its name."""
    return [
        cell_name(lr_schedule, dict(zip(shape, values, strict=True)))
        for lr_schedule, shape in SHAPES.items()
        for values in product(*shape.values())
    ]


def curve_fields() -> list[str]:
    """The columns of validation losses: before the first step, and at each tenth of the way."""
    return [f"loss_{point}" for point in range(POINTS + 1)]


@dataclass(frozen=True, eq=False)
class Landscape:
    """What one workload reaches: `curves[lr_schedule, lr][seed]` is the validation loss, shape (POINTS + 1,). Where it
    was loaded with all shapes, each of them counts as an LR schedule here.

    A loss that is no better than before the first step, or not finite, counts as that: nothing was learned. Between the
    LRs that were trained a curve is drawn in log LR that is smooth and never overshoots (Fritsch and Carlson, "Monotone
    piecewise cubic interpolation", 1980): straight lines would make a kink, and a minimum, of every lucky mean.
    """

    name: str
    max_steps: int
    curves: dict[tuple[str, float], dict[int, Array]]

    @cached_property
    def _cells(self) -> dict[str, list[tuple[float, dict[int, Array]]]]:
        """By schedule: its LRs, rising, with the curves of each."""
        by_schedule: dict[str, list[tuple[float, dict[int, Array]]]] = {}
        for (name, lr), seeds in sorted(self.curves.items(), key=lambda cell: cell[0]):
            by_schedule.setdefault(name, []).append((lr, seeds))
        return by_schedule

    @cache  # noqa: B019
    def _smooth(self, lr_schedule: str, seed: int | None) -> PchipInterpolator:
        """The curves over log LR: of one seed, or the mean over all that a cell has."""
        cells = self._cells[lr_schedule]
        chosen = [list(seeds.values()) if seed is None else [seeds.get(seed, seeds[min(seeds)])] for _, seeds in cells]
        return PchipInterpolator(np.log([lr for lr, _ in cells]), [np.mean(curves, axis=0) for curves in chosen])

    def schedules(self) -> list[str]:
        return [name for name in all_shapes() if name in self._cells]

    @property
    def has_shapes(self) -> bool:
        return len(self._cells) > len(SCHEDULES)

    def means(self, lr_schedule: str) -> tuple[Array, Array]:
        """The LRs of a schedule, rising, and the mean of the final losses at each, both of shape (n,)."""
        cells = self._cells[lr_schedule]
        lrs = np.array([lr for lr, _ in cells])
        return lrs, np.array([np.mean([curve[-1] for curve in seeds.values()]) for _, seeds in cells])

    def loss(self, lr_schedule: str, lr: float) -> float:
        """The mean final loss at any LR; beyond those that were trained, at the next."""
        return float(self.curve(lr_schedule, lr)[-1])

    def curve(self, lr_schedule: str, lr: float, seed: int | None = None) -> Array:
        """What a training shows at any LR, with one of SEARCH_SEEDS or as the mean over all: shape (POINTS + 1,)."""
        smooth = self._smooth(lr_schedule, seed)
        curve: Array = smooth(min(max(math.log(lr), smooth.x[0]), smooth.x[-1]))
        return curve

    def seeds_at(self, lr_schedule: str, lr: float) -> int:
        """How many seeds the trained LR has that is nearest."""
        lrs, _ = self.means(lr_schedule)
        return len(self.curves[lr_schedule, float(lrs[np.abs(np.log(lrs / lr)).argmin()])])

    @cached_property
    def noise(self) -> float:
        """The standard deviation of a final loss from seed to seed, as a part of it, near the best."""
        losses = [[curve[-1] for curve in seeds.values()] for (name, lr), seeds in self.curves.items()
                  if len(seeds) > 1 and self.loss(name, lr) < 1.3 * self.lowest]  # fmt: skip
        return float(np.sqrt(np.mean([np.var(np.log(values), ddof=1) for values in losses])))

    @cached_property
    def shared(self) -> float:
        """The part of that variance that a seed has in common among what is trained with it: the same weights to begin
        with and the same batches. The median of the correlations between cells near the best with fifteen seeds."""
        near = [
            [math.log(seeds[seed][-1]) for seed in range(15)]
            for (name, lr), seeds in self.curves.items()
            if len(seeds) >= 15 and self.loss(name, lr) < 1.3 * self.lowest
        ]
        correlations = np.asarray(np.corrcoef(near))
        return float(np.median(correlations[np.triu_indices(len(near), 1)]))

    @cached_property
    def lowest(self) -> float:
        """The lowest mean final loss of all cells."""
        return min(map(self.best, self.schedules()))

    @cached_property
    def luck(self) -> float:
        """How far above `lowest` the best cell is by seeds that it was not chosen by, as a part of it: chosen by a half
        of the seeds, measured by the other, over both halves of a hundred splits. The lowest of many means is a lucky
        one, and no search can be asked to end there."""
        near = [
            seeds for cell, seeds in self.curves.items() if len(seeds) >= 15 and self.loss(*cell) < 1.3 * self.lowest
        ]
        losses = [{seed: curve[-1] for seed, curve in seeds.items()} for seeds in near]
        rng, measured = np.random.default_rng(0), []
        for _ in range(100):
            half = {*rng.permutation(15)[:7], *rng.permutation(range(15, 51))[:18]}  # of those all have, and of more
            one, other = ([np.mean([cell[seed] for seed in cell if (seed in half) == inside]) for cell in losses]
                          for inside in (True, False))  # fmt: skip
            measured += [other[int(np.argmin(one))], one[int(np.argmin(other))]]
        return float(np.mean(measured)) / self.lowest - 1

    def best(self, lr_schedule: str) -> float:
        return float(self.means(lr_schedule)[1].min())

    def best_within(self, lr_schedule: str, low: float, high: float) -> float:
        """The lowest mean final loss between two LRs."""
        lrs, losses = self.means(lr_schedule)
        inside: list[float] = losses[(low <= lrs) & (lrs <= high)].tolist()
        return min(self.loss(lr_schedule, low), self.loss(lr_schedule, high), *inside)


def load(name: str, shapes: bool = False) -> Landscape:
    """Each schedule in its default shape, or in all of them."""
    curves: dict[tuple[str, float], dict[int, Array]] = defaultdict(dict)
    with (FOLDER / f"{name}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if not shapes and row["lr_schedule"] not in SCHEDULES:
                continue
            curve = np.array([float(row[field]) for field in curve_fields()])
            curves[row["lr_schedule"], float(row["lr"])][int(row["seed"])] = np.fmin(curve, curve[0])
            max_steps = int(row["steps"])
    return Landscape(name, max_steps, dict(curves))


def load_ramps(name: str) -> dict[str, Array]:
    """By ramp, the training loss of every step, shape (seeds, steps); NaN once it was no longer finite."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {ramp: file[ramp].astype(np.float64) for ramp in RAMPS if ramp in file}


def names() -> list[str]:
    """Of the landscapes that are there: the ramps come second."""
    return sorted(path.stem for path in FOLDER.glob("*.npz"))
