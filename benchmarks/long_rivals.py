"""Searches for the answer at full length that ours is compared with, replayed on the landscapes of `longrun/`.

Each is a generator. After every training it gives the full trainings spent so far, and the schedule and LR that it
would name. They see one seed of the landscape, as a real search does, and are judged by the mean over all seeds.
`best_of_the_shortest` and `straight_lines` know whole lengths of the landscape, as no search does.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import TPESampler

from longrun.landscape import LENGTHS, POINTS, RAMPS, Landscape, load, load_ramps, lr_curve
from tune_lr.lr.bounds import LRBounds, find_lr_bounds
from tune_lr.lr.divergence import DivergenceDetector
from tune_lr.study.length_model import LRPrior, Observation, Schedule
from tune_lr.study.sampler import LRSampler, Placement
from tune_lr.study.search_space import Suggests, expected_lr, suggested_lr

Array = NDArray[np.float64]
Named = tuple[str, float]  # a schedule and an LR
Trace = Iterator[tuple[float, Named]]

LOW, HIGH = 1e-5, 10.0
FULL = LENGTHS[-1]
REPLICATES = 3  # ramps, as in a study whose trainings are long
UNKNOWN_LR, UNKNOWN_DECADES = 0.01, 1.5  # where the ramps say nothing
# How far the best LR of a training as long as a ramp may lie from the suggestion, in decades.
SUGGESTED, FROM_THE_EDGE = 0.4, 0.8
PLACES = 50
ETA = 3  # of ASHA and Hyperband: a third goes on
RUNGS = (1, 3, POINTS)  # tenths of a training

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class World:
    """A landscape, and what a search is told of it."""

    landscape: Landscape
    ramps: Array  # training losses of the default ramp, (seeds, steps)

    @classmethod
    def load(cls, name: str) -> "World":
        """Return the workload with that name."""
        return cls(load(name), load_ramps(name)["tune_lr"])

    @property
    def steps(self) -> int:
        """Return the optimizer steps of a full training."""
        return self.landscape.steps[FULL]

    @cached_property
    def schedules(self) -> dict[str, Schedule]:
        """Return the schedules by their names in the landscape."""
        middles = (2 * np.arange(PLACES) + 1) * self.steps // (2 * PLACES)
        return {
            name: Schedule(name, tuple(lr_curve(name, self.steps)[middles].tolist()), name.partition("_")[0])
            for name in self.landscape.schedules
        }

    @cached_property
    def start(self) -> float:
        """Return the mean loss before the first step."""
        return float(np.nanmean(self.landscape.val_loss[..., 0]))

    @cached_property
    def lowest(self) -> float:
        """Return the lowest mean loss at full length."""
        return self.landscape.lowest(FULL)[1].loss

    def regret(self, named: Named) -> float:
        """Return by how much a schedule and LR are worse than the best of all, relative to it."""
        return max(self.landscape.mean(named[0], FULL, named[1]) / self.lowest - 1, 0.0)

    def cost_of_lr(self, named: Named) -> float:
        """Return by how much an LR is worse than the best one of its schedule, relative to it."""
        best = self.landscape.best(named[0], FULL).loss
        return max(self.landscape.mean(named[0], FULL, named[1]) / best - 1, 0.0)

    def train(self, name: str, length: int, lr: float, seed: int) -> Observation:
        """Return what one training shows."""
        loss = self.landscape.mean(name, length, lr, seed)
        diverged = loss >= self.start or not math.isfinite(self.curve(name, length, lr, seed)[-1])
        return Observation(self.schedules[name], lr, length / FULL, loss, diverged)

    def curve(self, name: str, length: int, lr: float, seed: int) -> Array:
        """Return the validation losses of the training at the nearest LR that was trained."""
        trained = self.landscape.trained(name, length)
        nearest = trained[np.abs(np.log(self.landscape.lrs[trained] / lr)).argmin()]
        return self.landscape.curve(name, length, int(nearest), seed)

    def ramp_curves(self, repetition: int) -> list[tuple[Array, Array]]:
        """Return the LRs and losses of a few ramps, each up to the step that diverged."""
        rows = self.ramps[np.random.default_rng(repetition).choice(len(self.ramps), REPLICATES, replace=False)]
        ends = [DivergenceDetector().update(row.tolist()) for row in rows]
        steps = [len(row) if end is None else end + 1 for row, end in zip(rows, ends, strict=True)]
        return [(RAMPS["tune_lr"][:n], row[:n]) for n, row in zip(steps, rows, strict=True)]

    def range_test(self, repetition: int) -> tuple[LRBounds, float]:
        """Return what a few ramps say of short trainings, and what they cost in full trainings."""
        curves = self.ramp_curves(repetition)
        return find_lr_bounds(curves), sum(len(lrs) for lrs, _ in curves) / self.steps

    def prior(self, bounds: LRBounds) -> LRPrior:
        """Return what the ramps say of the LR: for a training that is as long as a ramp."""
        length = self.ramps.shape[1] / self.steps
        if bounds.suggestion is None:
            return LRPrior(UNKNOWN_LR, UNKNOWN_DECADES, LOW, HIGH, length)
        return LRPrior(bounds.suggestion, FROM_THE_EDGE if bounds.edge_only else SUGGESTED, LOW, HIGH, length)


Search = Callable[[World, int], Trace]


def random_search(world: World, repetition: int) -> Trace:
    """Full trainings at random; the best is named."""
    rng = np.random.default_rng(repetition)

    def draw() -> Named:
        return str(rng.choice(world.landscape.schedules)), float(np.exp(rng.uniform(np.log(LOW), np.log(HIGH))))

    yield from _best_of(world, repetition, iter(draw, None))


def _best_of(world: World, repetition: int, configurations: Iterator[Named], spent: float = 0.0) -> Trace:
    best, lowest, seed = None, math.inf, repetition % world.landscape.seeds
    for name, lr in configurations:
        spent += 1.0
        loss = world.train(name, FULL, lr, seed).loss
        if best is None or loss < lowest:
            best, lowest = (name, lr), loss
        yield spent, best


def todays_search(world: World, repetition: int) -> Trace:
    """This project's search for short trainings: ramps, and then full trainings that its sampler proposes."""
    bounds, spent = world.range_test(repetition)
    centre, uncertainty = suggested_lr(bounds)
    names = list(world.landscape.schedules)

    def draw(trial: Suggests) -> Named:
        lr = trial.suggest_float("lr", bounds.low or LOW, bounds.high or HIGH, log=True)
        return trial.suggest_categorical("lr_schedule", names), lr

    def place(trial: Suggests) -> Placement:
        name, lr = draw(trial)
        curve = world.schedules[name].curve
        away = math.log10(lr / expected_lr(curve, centre or UNKNOWN_LR))
        return Placement(name, away, uncertainty, curve)

    study, seed = optuna.create_study(sampler=LRSampler(place, repetition)), repetition % world.landscape.seeds
    best, lowest = None, math.inf
    while True:
        trial = study.ask()
        name, lr = draw(trial)
        loss = world.train(name, FULL, lr, seed).loss
        study.tell(trial, loss)
        spent += 1.0
        if best is None or loss < lowest:
            best, lowest = (name, lr), loss
        yield spent, best


def tpe_and_asha(world: World, repetition: int) -> Trace:
    """Optuna's TPE over all LRs, stopped by ASHA at a tenth and three tenths of a full training."""
    study = optuna.create_study(sampler=TPESampler(seed=repetition))
    seed, spent = repetition % world.landscape.seeds, 0.0
    rungs: dict[int, list[float]] = {rung: [] for rung in RUNGS}
    best: tuple[int, float, Named] | None = None
    while True:
        trial = study.ask()
        named = (
            trial.suggest_categorical("lr_schedule", world.landscape.schedules),
            trial.suggest_float("lr", LOW, HIGH, log=True),
        )
        curve = np.minimum(np.nan_to_num(world.curve(named[0], FULL, named[1], seed), posinf=np.inf), world.start)
        before = 0
        for rung in RUNGS:
            spent += (rung - before) / POINTS
            before, loss = rung, float(curve[rung])
            rungs[rung].append(loss)
            if best is None or (-rung, loss) < best[:2]:
                best = (-rung, loss, named)
            if loss > np.percentile(rungs[rung], 100 / ETA):
                break
        study.tell(trial, loss)
        assert best is not None  # every trial reaches the first rung
        yield spent, best[2]


def hyperband(world: World, repetition: int) -> Trace:
    """Hyperband (Li et al. 2018) with random configurations, brackets that begin at a tenth, at three tenths and at a
    full training, and a third that goes on each time."""
    rng, seed, spent = np.random.default_rng(repetition), repetition % world.landscape.seeds, 0.0
    best: tuple[int, float, Named] | None = None
    while True:
        for first in range(len(RUNGS)):
            count = math.ceil(len(RUNGS) * ETA ** (len(RUNGS) - 1 - first) / (len(RUNGS) - first))
            alive: list[Named] = [
                (str(rng.choice(world.landscape.schedules)), float(np.exp(rng.uniform(np.log(LOW), np.log(HIGH)))))
                for _ in range(count)
            ]
            before = 0
            for rung in RUNGS[first:]:
                losses = []
                for named in alive:
                    spent += (rung - before) / POINTS
                    curve = world.curve(named[0], FULL, named[1], seed)
                    losses.append(min(float(np.nan_to_num(curve[rung], nan=np.inf)), world.start))
                    if best is None or (-rung, losses[-1]) < best[:2]:
                        best = (-rung, losses[-1], named)
                    yield spent, best[2]
                before = rung
                alive = [alive[i] for i in np.argsort(losses, kind="stable")[: max(1, len(alive) // ETA)]]


def best_of_the_shortest(world: World) -> dict[str, float]:
    """Return the best LR of each schedule at the shortest length, by all that is recorded there."""
    return {name: world.landscape.best(name, LENGTHS[0]).lr for name in world.landscape.schedules}


def straight_lines(world: World) -> tuple[dict[str, float], str]:
    """Return what one would name who knew the landscape up to a quarter of the length: for each schedule the LR on the
    straight line through the best ones, in logarithms; and the schedule that is best at a quarter."""
    known = LENGTHS[:-1]
    u = np.log([length / FULL for length in known])
    landscape = world.landscape
    lrs = {
        name: float(np.exp(np.polyfit(u, np.log([landscape.best(name, length).lr for length in known]), 1)[1]))
        for name in landscape.schedules
    }
    return lrs, landscape.lowest(known[-1])[0]


RIVALS: dict[str, Search] = {
    "today's search": todays_search,
    "random search": random_search,
    "TPE + ASHA": tpe_and_asha,
    "Hyperband": hyperband,
}
