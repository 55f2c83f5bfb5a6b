"""Reads the landscapes that `generate.py` made: final losses over (LR schedule, LR), and curves of LR range tests."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tune_lr.lr_range_test import Ramp

Array = NDArray[np.float64]

FOLDER = Path(__file__).parent
SCHEDULES = ("constant", "step", "exponential", "cosine", "onecycle", "cyclic")  # in their default shape
POINTS = 10  # validations, the last one at the end
SEARCH_SEEDS = (0, 1, 2)  # every cell has them; later seeds are for the truth alone
RAMP_SEEDS = range(1000, 1020)

# The LR of every step of each tool's range test, as it is by default; the README of pytorch-lr-finder has 1e-7 to 100.
OURS = Ramp(1e-5, 10, 300)
RAMPS: dict[str, Array] = {
    "tune_lr": np.array([OURS.lr(step) for step in range(OURS.steps)]),
    # What a study runs where the first ramps show the edge alone; recorded for the workloads where they do.
    "tune_lr_slower": np.array([OURS.slower().lr(step) for step in range(OURS.slower().steps)]),
    "fastai": 1e-7 * (10 / 1e-7) ** (np.arange(100) / 100),
    # The first LR is taken twice as long as any other: the second step has the third LR of an even ramp.
    "lightning": 1e-8 * (1 / 1e-8) ** (np.array([0, *range(2, 101)]) / 100),
    "lr_finder": 1e-7 * (100 / 1e-7) ** (np.arange(100) / 99),
}


def curve_fields() -> list[str]:
    """The columns of validation losses: before the first step, and at each tenth of the way."""
    return [f"loss_{point}" for point in range(POINTS + 1)]


@dataclass(frozen=True)
class Landscape:
    """What one workload reaches: `curves[lr_schedule, lr][seed]` is the validation loss, shape (POINTS + 1,).

    A loss that is no better than before the first step, or not finite, counts as that: nothing was learned.
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

    @cached_property
    def _shared(self) -> dict[str, tuple[Array, Array]]:
        """By schedule: log LRs, shape (n,), and curves, shape (n, POINTS + 1), the mean over SEARCH_SEEDS."""
        shared: dict[str, tuple[Array, Array]] = {}
        for name, cells in self._cells.items():
            curves = [np.mean([seeds[seed] for seed in SEARCH_SEEDS if seed in seeds], axis=0) for _, seeds in cells]
            shared[name] = np.log([lr for lr, _ in cells]), np.array(curves)
        return shared

    def schedules(self) -> list[str]:
        return [name for name in SCHEDULES if name in self._cells]

    def means(self, lr_schedule: str) -> tuple[Array, Array]:
        """The LRs of a schedule, rising, and the mean of the final losses at each, both of shape (n,)."""
        cells = self._cells[lr_schedule]
        lrs = np.array([lr for lr, _ in cells])
        return lrs, np.array([np.mean([curve[-1] for curve in seeds.values()]) for _, seeds in cells])

    def loss(self, lr_schedule: str, lr: float) -> float:
        """The mean final loss at any LR: linear in log LR between the LRs that were trained, beyond them the next."""
        lrs, losses = self.means(lr_schedule)
        return float(np.interp(np.log(lr), np.log(lrs), losses))

    def curve(self, lr_schedule: str, lr: float) -> Array:
        """What a training shows, at any LR, as the mean over the seeds that all cells have: shape (POINTS + 1,)."""
        log_lrs, curves = self._shared[lr_schedule]
        return np.array([np.interp(np.log(lr), log_lrs, losses) for losses in curves.T])

    def best(self, lr_schedule: str) -> float:
        return float(self.means(lr_schedule)[1].min())

    def best_within(self, lr_schedule: str, low: float, high: float) -> float:
        """The lowest mean final loss between two LRs."""
        lrs, losses = self.means(lr_schedule)
        inside = losses[(low <= lrs) & (lrs <= high)]
        return min([self.loss(lr_schedule, low), self.loss(lr_schedule, high), *inside])


def load(name: str) -> Landscape:
    curves: dict[tuple[str, float], dict[int, Array]] = defaultdict(dict)
    with open(FOLDER / f"{name}.csv", newline="") as file:
        for row in csv.DictReader(file):
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
