"""Read the landscapes of long trainings that `generate.py` made: validation losses over (LR schedule, length, LR,
seed), and the curves of LR range tests.

| symbol | meaning | unit | shape |
|---|---|---|---|
| lrs | the grid of peak LRs, rising by a factor of 2 | | (L,) |
| steps | the optimizer steps of a training of each length | steps | (4,) |
| val_loss | validation loss before the first step and after each tenth of a training | loss | (9, 4, L, seeds, 11) |
| train_loss | loss of the first batch, and the mean over the batches of each tenth | loss | (9, 4, L, seeds, 11) |

The axes of both arrays are: LR schedule, length, LR, seed, tenth of the training. A cell is NaN where nothing was
trained, and inf from the point on at which the training had diverged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from tune_lr.lr.ramp import Ramp
from tune_lr.lr.schedule import make_lr_schedule

Array = NDArray[np.float64]

FOLDER = Path(__file__).parent
# A method is chosen by looking at these.
IN_VIEW = (
    "regression_momentum",
    "digits_mlp_adamw",
    "teacher_online_adam",
    "mnist_conv_momentum",
    "python_transformer_adamw",
    "denoiser_batch256_momentum",
)
# These judge a method that is settled. Nobody looks at their losses before.
JUDGES = (
    "friedman_adamw",
    "wrong_labels_momentum",
    "markov_online_momentum",
    "autoencoder_batch256_adam",
    "digits_conv_adamw",
    "docs_transformer_adamw",
)
# By the name in the files: the LR schedules in their default shapes, and wsd with three lengths of its linear cooldown.
# None has a warm-up, and one-cycle does not move the momentum: the schedules differ by their LRs alone.
COOLDOWNS: Mapping[str, float] = {"wsd_10": 0.1, "wsd_20": 0.2, "wsd_50": 0.5}  # fractions of a training
SCHEDULES = ("constant", "linear", "cosine", *COOLDOWNS, "onecycle", "step", "exponential")
LENGTHS = (1, 4, 16, 64)  # in steps of the shortest training of a workload
LRS: Array = np.array([float(f"{1e-5 * 2**k:.4g}") for k in range(24)])  # 1e-5 to 84
POINTS = 10  # tenths of a training
RAMP_SEEDS = range(1000, 1010)
# The product's default LR range test, and the same over more steps.
RAMPS: Mapping[str, Array] = {
    name: np.array([ramp.lr(step) for step in range(ramp.steps)])
    for name, ramp in {"tune_lr": Ramp(1e-5, 10, 300), "tune_lr_1000": Ramp(1e-5, 10, 1000)}.items()
}


def lr_curve(schedule: str, steps: int) -> Array:
    """Return the LR of every step of an LR schedule whose peak is 1; shape (steps,)."""
    if schedule in COOLDOWNS:
        cooldown = round(COOLDOWNS[schedule] * steps)
        return np.minimum(1.0, (steps - np.arange(steps)) / cooldown)
    return make_lr_schedule(schedule, {}, steps).lrs(1.0)


@dataclass(frozen=True)
class Best:
    """The best LR of an LR schedule at a length, and its loss: the bottom of a parabola in log LR."""

    lr: float
    loss: float


@dataclass(frozen=True, eq=False)
class Landscape:
    """The losses of one workload at every LR schedule, length, LR and seed.

    `schedule` is one of SCHEDULES and `length` one of LENGTHS. A loss that is not finite or above that before the
    first step counts as the loss before the first step: nothing was learned.
    """

    name: str
    steps: Mapping[int, int]  # length -> optimizer steps
    lrs: Array
    val_loss: Array
    train_loss: Array

    @property
    def seeds(self) -> int:
        """Return the number of seeds."""
        return int(self.val_loss.shape[3])

    @property
    def schedules(self) -> list[str]:
        """Return the LR schedules, in the order of the files."""
        return list(SCHEDULES)

    @property
    def lengths(self) -> list[int]:
        """Return the lengths that are recorded for every LR schedule and seed."""
        return [length for i, length in enumerate(LENGTHS) if self._trained[:, i].any(axis=-1).all()]

    def cost(self, length: int) -> float:
        """Return what a training of that length costs, in full trainings."""
        return self.steps[length] / self.steps[LENGTHS[-1]]

    def trained(self, schedule: str, length: int) -> NDArray[np.intp]:
        """Return the indices of the LRs that were trained with every seed, rising; shape (n,)."""
        return np.flatnonzero(self._trained[self._place(schedule, length)])

    def loss(self, schedule: str, length: int, lr_index: int, seed: int) -> float:
        """Return the final validation loss of one training; NaN where it was not trained."""
        return float(self._final[self._place(schedule, length)][lr_index, seed])

    def curve(self, schedule: str, length: int, lr_index: int, seed: int) -> Array:
        """Return the validation losses of one training at each tenth, inf once it diverged; shape (POINTS + 1,)."""
        losses: Array = self.val_loss[self._place(schedule, length)][lr_index, seed]
        return losses

    def training_curve(self, schedule: str, length: int, lr_index: int, seed: int) -> Array:
        """Return the loss of the first batch and the mean training loss of each tenth; shape (POINTS + 1,)."""
        losses: Array = self.train_loss[self._place(schedule, length)][lr_index, seed]
        return losses

    def means(self, schedule: str, length: int) -> tuple[Array, Array]:
        """Return the LRs that were trained, rising, and the mean final loss over the seeds; both of shape (n,)."""
        place = self.trained(schedule, length)
        means: Array = self._final[self._place(schedule, length)][place].mean(axis=-1)
        return self.lrs[place], means

    def mean(self, schedule: str, length: int, lr: float, seed: int | None = None) -> float:
        """Return the mean final loss over the seeds, or the loss of one seed, at any LR.

        Between the LRs that were trained the curve is smooth in log LR and never overshoots (Fritsch and Carlson,
        "Monotone piecewise cubic interpolation", 1980). Beyond them a shorter training stands in, but never with a
        lower loss than at the end of what was trained: below the lowest LR one whose LRs have the same sum, at an LR
        that is higher by as much as it is shorter; above the highest LR one at the same LR. At the shortest length,
        where LRs from 1e-5 to 10 were trained, the loss beyond is that of the nearest trained LR.
        """
        place = self.trained(schedule, length)
        losses = self._final_at(schedule, length, seed)[place]
        low, high = float(self.lrs[place[0]]), float(self.lrs[place[-1]])
        shorter = self.lengths.index(length) - 1
        if shorter >= 0 and not low <= lr <= high:
            previous = self.lengths[shorter]
            factor = self.steps[length] / self.steps[previous] if lr < low else 1.0
            end = float(losses[0] if lr < low else losses[-1])
            return max(end, self.mean(schedule, previous, factor * lr, seed))
        log_lrs = np.log(self.lrs[place])
        return float(PchipInterpolator(log_lrs, losses)(np.clip(np.log(lr), log_lrs[0], log_lrs[-1])))

    def best_index(self, schedule: str, length: int) -> int:
        """Return the index of the LR with the lowest mean final loss."""
        place = self.trained(schedule, length)
        return int(place[self.means(schedule, length)[1].argmin()])

    def best(self, schedule: str, length: int) -> Best:
        """Return the lowest mean final loss of an LR schedule at a length, and its LR.

        A parabola in log LR goes through the lowest mean and its two neighbours. The higher neighbour counts as at most
        three times as far above the lowest as the other one, since at an edge of divergence the valley is no parabola.
        Where the lowest lies at an end of what was trained, it is the answer itself.
        """
        lrs, losses = self.means(schedule, length)
        i = int(losses.argmin())
        if i in (0, len(lrs) - 1):
            return Best(float(lrs[i]), float(losses[i]))
        below, above = losses[i - 1] - losses[i], losses[i + 1] - losses[i]
        below, above = min(below, 3 * above), min(above, 3 * below)
        if below + above == 0:
            return Best(float(lrs[i]), float(losses[i]))
        shift = (below - above) / (2 * (below + above))  # in steps of the grid
        bottom = losses[i] - (below - above) ** 2 / (8 * (below + above))
        return Best(float(lrs[i] * (lrs[i + 1] / lrs[i]) ** shift), float(bottom))

    def lowest(self, length: int) -> tuple[str, Best]:
        """Return the best LR schedule of a length, and its best."""
        bests = {schedule: self.best(schedule, length) for schedule in self.schedules}
        schedule = min(bests, key=lambda name: bests[name].loss)
        return schedule, bests[schedule]

    def noise(self, length: int) -> float:
        """Return the standard deviation of a final loss from seed to seed, relative to the loss, near the best.

        It is pooled over the cells whose mean lies within 30 % of the lowest of the length.
        """
        losses = np.concatenate([
            self._final[self._place(schedule, length)][self.trained(schedule, length)] for schedule in self.schedules
        ])  # fmt: skip
        means = losses.mean(axis=-1)
        near = np.log(losses[means < 1.3 * means.min()])
        return float(np.sqrt(near.var(axis=-1, ddof=1).mean()))

    def bottom_is_inside(self, schedule: str, length: int, margin: int = 1) -> bool:
        """Say whether at least `margin` trained LRs lie on each side of the lowest mean final loss."""
        losses = self.means(schedule, length)[1]
        lowest = int(losses.argmin())
        return margin <= lowest < len(losses) - margin

    @cached_property
    def _final(self) -> Array:
        """Return final losses, at most those before the first step; shape (schedules, lengths, LRs, seeds)."""
        start = np.fmax.reduce(self.val_loss[..., 0], axis=(0, 1, 2))  # by seed; NaN where nothing was trained
        final = self.val_loss[..., -1]
        bounded: Array = np.where(np.isnan(final), np.nan, np.fmin(np.nan_to_num(final, nan=np.inf), start))
        return bounded

    @cached_property
    def _trained(self) -> NDArray[np.bool_]:
        """Return whether every seed was trained; shape (schedules, lengths, LRs)."""
        trained: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(self._final), axis=-1)
        return trained

    def _final_at(self, schedule: str, length: int, seed: int | None) -> Array:
        """Return the final losses at all LRs, of one seed or as the mean over the seeds; shape (L,)."""
        final = self._final[self._place(schedule, length)]
        losses: Array = final.mean(axis=-1) if seed is None else final[:, seed]
        return losses

    def _place(self, schedule: str, length: int) -> tuple[int, int]:
        """Return the indices of an LR schedule and a length in the arrays."""
        return self.schedules.index(schedule), LENGTHS.index(length)


def load(name: str, folder: Path = FOLDER) -> Landscape:
    """Read the trainings of a workload. A seed that lacks a training of the first one is left out.

    Raises FileNotFoundError where nothing is recorded.
    """
    with np.load(folder / f"{name}.npz") as file:
        steps = {length: int(count) for length, count in zip(LENGTHS, file["steps"], strict=True)}
        lrs, val_loss, train_loss = (file[key].astype(np.float64) for key in ("lrs", "val_loss", "train_loss"))
    trained = ~np.isnan(val_loss[..., 0])
    whole = np.flatnonzero((trained >= trained[..., :1]).all(axis=(0, 1, 2)))
    return Landscape(name, steps, lrs, val_loss[:, :, :, whole], train_loss[:, :, :, whole])


def load_ramps(name: str, folder: Path = FOLDER) -> dict[str, Array]:
    """Read by ramp the training loss of every step, shape (seeds, steps); NaN once it was no longer finite."""
    with np.load(folder / f"{name}.ramps.npz") as file:
        return {ramp: file[ramp].astype(np.float64) for ramp in RAMPS}


def names(among: Sequence[str] = IN_VIEW, folder: Path = FOLDER) -> list[str]:
    """Return the workloads whose trainings of every length are recorded, with two seeds at least."""
    landscapes = [load(name, folder) for name in among if (folder / f"{name}.npz").exists()]
    return [each.name for each in landscapes if each.lengths == list(LENGTHS) and each.seeds > 1]
