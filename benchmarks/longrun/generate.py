"""Make the ground truth of long trainings: what every LR schedule reaches at every LR, on small workloads of many
kinds and at four lengths, each of which is four times the one before.

    PYTHONPATH=benchmarks .venv/bin/python -m longrun.generate [--minutes 60] [--only digits_mlp_adamw ...] [--verify]

Per workload, `NAME.npz` has the validation loss and the smoothed training loss of every training at each tenth of its
way, and `NAME.ramps.npz` the training losses of LR range tests of 300 and of 1,000 steps; `landscape.py` reads both.

The trainings of one length and one seed run side by side, as one program on one thread (`batched.py`). `--verify`
compares some of these trainings with an ordinary training loop and writes nothing. The LRs come from
`landscape.lr_curve`, the optimizers of the ordinary loop from `tune_lr.worker.optimizers`.

At the shortest length every LR from 1e-5 to 10 is trained. At each longer length every LR schedule has a window of nine
LRs around its best LR of the length before. Where fewer than MARGIN LRs were trained on one side of the best, the
window grows on that side. A file may hold more LRs than this rule asks for. Two seeds of every workload come first, and
the other seeds follow.

The program can be stopped at any moment and goes on where it was; only the trainings that were running begin anew. To
change a workload, delete its files.
"""

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.lr_scheduler import LambdaLR

from longrun.batched import train_rows
from longrun.landscape import (
    FOLDER,
    IN_VIEW,
    JUDGES,
    LENGTHS,
    LRS,
    POINTS,
    RAMP_SEEDS,
    RAMPS,
    SCHEDULES,
    Array,
    Landscape,
    lr_curve,
)
from longrun.workloads import BY_NAME, Work
from tune_lr.worker.optimizers import make_optimizer

UP_TO = int(np.searchsorted(LRS, 11))  # at the shortest length, the LRs with an index below this one are trained
BELOW, ABOVE = 5, 3  # LRs of a window below and above the former best LR, which mostly falls with the length
MARGIN = 2  # LRs that are trained at least on each side of the best
VERIFIED = {"sgd": 0.03, "adam": 0.01, "adamw": 0.01}  # the highest LR that `verify` looks at
FIRST_SEEDS = 2  # seeds of every workload that are trained before any other seed
MORE = 2  # LRs by which a window grows


class Trainings:
    """The recorded trainings of one workload, with room for `seeds` seeds; every new training is written at once."""

    def __init__(self, work: Work, seeds: int, folder: Path = FOLDER) -> None:
        self.work = work
        self.path = folder / f"{work.name}.npz"
        shape = (len(SCHEDULES), len(LENGTHS), len(LRS), seeds, POINTS + 1)
        self.val_loss, self.train_loss = (np.full(shape, np.nan, dtype=np.float32) for _ in range(2))
        if self.path.exists():
            with np.load(self.path) as file:
                recorded = file["val_loss"].shape[3]
                self.val_loss[:, :, :, :recorded] = file["val_loss"][:, :, :, :seeds]
                self.train_loss[:, :, :, :recorded] = file["train_loss"][:, :, :, :seeds]

    def landscape(self) -> Landscape:
        """Return the trainings as the reader has them."""
        steps = {length: length * self.work.steps for length in LENGTHS}
        return Landscape(self.work.name, steps, LRS, self.val_loss.astype(float), self.train_loss.astype(float))

    def missing(self, length: int, seed: int) -> NDArray[np.bool_]:
        """Return which trainings are wanted and not recorded; shape (schedules, LRs)."""
        missing = np.isnan(self.val_loss[:, LENGTHS.index(length), :, seed, 0])
        for row, schedule in enumerate(SCHEDULES):
            low, high = self._window(schedule, length)
            missing[row, :low] = False
            missing[row, high:] = False
        return missing

    def _window(self, schedule: str, length: int) -> tuple[int, int]:
        """Return the first index of the LRs that are to be trained, and the index after the last."""
        landscape = self.landscape()
        place = LENGTHS.index(length)
        recorded = ~np.isnan(landscape.val_loss[SCHEDULES.index(schedule), place, :, :, 0])  # shape (LRs, seeds)
        indices = np.flatnonzero(recorded.any(axis=1))
        if len(indices) == 0 and place == 0:
            return 0, UP_TO
        if len(indices) == 0:
            best = landscape.best_index(schedule, LENGTHS[place - 1])
            return max(0, best - BELOW), best + ABOVE + 1
        low = int(indices[0])
        high = int(indices[-1])
        # The window grows only after every seed has the same LRs: the best is that of the mean over the seeds.
        if recorded[indices].all():
            best = landscape.best_index(schedule, length)
            low -= MORE if best - low < MARGIN else 0
            high += MORE if high - best < MARGIN else 0
        return max(0, low), high + 1

    def train(self, length: int, seed: int) -> bool:
        """Train side by side what is missing of a length and a seed, and return whether anything was missing."""
        missing = self.missing(length, seed)
        if not missing.any():
            return False
        began = time.monotonic()
        cells = [(schedule, lr) for schedule, row in enumerate(missing) for lr in np.flatnonzero(row)]
        steps = length * self.work.steps
        shapes = [lr_curve(schedule, steps) for schedule in SCHEDULES]
        curves = train_rows(self.work, seed, np.stack([LRS[lr] * shapes[schedule] for schedule, lr in cells]), POINTS)
        for (schedule, lr), val_loss, train_loss in zip(cells, curves.val_loss, curves.train_loss, strict=True):
            self.val_loss[schedule, LENGTHS.index(length), lr, seed] = val_loss
            self.train_loss[schedule, LENGTHS.index(length), lr, seed] = train_loss
        self.write()
        print(f"{self.work.name} x{length} seed {seed}: {len(cells)} trainings of {steps} steps, "
              f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
        return True

    def write(self) -> None:
        """Write the file of the workload."""
        steps = np.array([length * self.work.steps for length in LENGTHS])
        arrays = {"lrs": LRS, "steps": steps, "val_loss": self.val_loss, "train_loss": self.train_loss}
        write(self.path, arrays)


def write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file of arrays in such a way that a kill leaves either the old file or the new one."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy types only `allow_pickle`
    new.replace(path)


def recorded_seeds(work: Work) -> int:
    """Return how many seeds of a workload are recorded, at least in part."""
    path = FOLDER / f"{work.name}.npz"
    if not path.exists():
        return 0
    with np.load(path) as file:
        return int(file["val_loss"].shape[3])


# --- the ordinary loop


def train_ordinarily(work: Work, seed: int, lrs: Array, points: int = 0) -> tuple[list[float], list[float]]:
    """Train one model with the LR of each step, by torch's optimizer and its LambdaLR.

    Returns the training loss of every step, up to the first that is not finite, and the validation losses before the
    first step and at `points` equal parts of the way.
    """
    torch.manual_seed(seed)
    model = work.model()
    optimizer = make_optimizer(work.optimizer, work.arguments, [{"params": model.parameters()}])
    scheduler = LambdaLR(optimizer, lambda step: float(lrs[min(step, len(lrs) - 1)]))
    validations = {round(point * len(lrs) / points) for point in range(points + 1)} if points else set()
    losses: list[float] = []
    val_losses: list[float] = []

    def validate() -> None:
        with torch.no_grad():
            parts = [float(work.loss(model(inputs), targets)) for inputs, targets in work.data.val_batches()]
        val_losses.append(float(np.mean(parts)))

    for step, (inputs, targets) in zip(range(len(lrs)), work.data.batches(seed), strict=False):
        if step in validations:
            validate()
        loss = work.loss(model(inputs), targets)
        losses.append(float(loss))
        if not math.isfinite(losses[-1]):
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    if points:
        validate()
    return losses, val_losses


def run_ramps(work: Work) -> None:
    """Run the LR range tests of a workload, unless they are recorded."""
    path = FOLDER / f"{work.name}.ramps.npz"
    if path.exists():
        return
    rows = {name: np.full((len(RAMP_SEEDS), len(lrs)), np.nan, dtype=np.float32) for name, lrs in RAMPS.items()}
    for name, lrs in RAMPS.items():
        for row, seed in enumerate(RAMP_SEEDS):
            losses, _ = train_ordinarily(work, seed, lrs)
            if not math.isfinite(losses[-1]):
                losses.pop()
            rows[name][row, : len(losses)] = losses
    write(path, rows)


def verify(work: Work) -> float:
    """Compare trainings that run side by side with the ordinary loop, and print the differences.

    Returns the largest relative difference of two final validation losses. LRs far above the best are left out, because
    rounding grows so fast there that two trainings share only their start.
    """
    steps = work.steps
    shapes = {schedule: lr_curve(schedule, steps) for schedule in SCHEDULES}
    peaks = [lr for lr in LRS[::3] if lr <= VERIFIED[work.optimizer]][-3:]
    cells = [(schedule, lr) for schedule in SCHEDULES for lr in peaks]
    curves = train_rows(work, 0, np.stack([lr * shapes[schedule] for schedule, lr in cells]), POINTS)
    largest = 0.0
    for (schedule, lr), batched in zip(cells, curves.val_loss, strict=True):
        _, ordinary = train_ordinarily(work, 0, lr * shapes[schedule], POINTS)
        difference = abs(batched[-1] / ordinary[-1] - 1)
        print(f"{work.name} {schedule} lr {lr:.4g}: side by side {batched[-1]:.6f}, ordinary {ordinary[-1]:.6f}, "
              f"relative difference {difference:.1e}")  # fmt: skip
        largest = max(largest, difference)
    return largest


def generate(work: Work, seeds: int, ends: float) -> None:
    """Train what is missing of a workload with at least `seeds` seeds; begin nothing after the time `ends`."""
    run_ramps(work)
    trainings = Trainings(work, max(seeds, recorded_seeds(work)))
    for length in LENGTHS:
        trained = True
        while trained:  # a window may have to grow after each round
            trained = False
            for seed in range(trainings.val_loss.shape[3]):
                trained |= time.monotonic() < ends and trainings.train(length, seed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and run what it asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing new after so many minutes")
    parser.add_argument("--only", nargs="+", choices=list(BY_NAME), default=[*IN_VIEW, *JUDGES], metavar="NAME")
    parser.add_argument("--verify", action="store_true", help="compare with an ordinary training loop; write nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    ends = time.monotonic() + 60 * options.minutes
    works = [BY_NAME[name] for name in options.only]
    if options.verify:
        for work in works:
            print(f"{work.name}: {verify(work):.1e} at most")
        return
    for seeds in (FIRST_SEEDS, max(work.seeds for work in works)):
        for work in works:
            generate(work, min(seeds, work.seeds), ends)


if __name__ == "__main__":
    main()
