"""Reads the trainings of a 124M-parameter language model and asks what its short ones say about its long ones.

The file lists 147 trainings of Schaipp et al., "The surprising agreement between convex optimization theory and
learning-rate scheduling for large model training" (ICML 2025), at 15,000 to 50,000 steps. It is not part of this
project. Columns: schedule, cooldown (a fraction of the steps), cooldown_shape, floor (a fraction of the peak),
warmup_steps, steps, lr, val_loss, run.
"""

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tune_lr.study.length_gain import expected_gains
from tune_lr.study.length_model import LRPrior, Observation, Schedule, fit, forecast

STEPS = 50_000
SHORT = 15_000  # the longest training that may be used
PLACES = 50
LRS = (1e-4, 5e-4, 1e-3, 2e-3)  # every schedule was trained with these at full length
# What is known of the LR beforehand: AdamW's usual one, give or take; and others, that an answer should not hang on.
PRIORS = (3e-4, 1e-3, 3e-3)
DECADES = 0.5


@dataclass(frozen=True)
class Answer:
    """What was named after some trainings.

    Regrets are relative to the best: of the pick among all that was trained at full length, and of each schedule's LR
    among its own. `inside` says of each schedule whether the loss lay in its 80 % interval.
    """

    spent: float
    pick: tuple[str, float]
    regret: float
    of_lrs: dict[str, float]
    inside: dict[str, bool]


@dataclass(frozen=True)
class Recorded:
    """The mean loss of every (schedule, steps, LR) that was trained."""

    schedules: dict[str, Schedule]
    losses: dict[tuple[str, int, float], float]

    def at_full_length(self, name: str) -> dict[float, float]:
        """Return the losses of a schedule at full length, by LR."""
        return {lr: loss for (one, steps, lr), loss in self.losses.items() if (one, steps) == (name, STEPS)}


def read(path: Path) -> Recorded:
    """Return what the file holds. Raises OSError where it cannot be read."""
    schedules: dict[str, Schedule] = {}
    losses: dict[tuple[str, int, float], list[float]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name = "-".join(filter(None, (row["schedule"], row["cooldown"], row["cooldown_shape"], row["floor"])))
            schedules[name] = Schedule(name, curve(row), row["schedule"])
            losses[name, int(row["steps"]), float(row["lr"])].append(float(row["val_loss"]))
    return Recorded(schedules, {key: float(np.mean(values)) for key, values in losses.items()})


def curve(row: dict[str, str]) -> tuple[float, ...]:
    """Return LR / peak LR at places of a full training."""
    step, warmup = (2 * np.arange(PLACES) + 1) * STEPS / (2 * PLACES), float(row["warmup_steps"])
    factors = np.minimum(1.0, (step + 1) / warmup)
    if row["schedule"] == "cosine":
        floor, done = float(row["floor"]), np.clip((step - warmup) / (STEPS - warmup), 0, 1)
        factors *= floor + (1 - floor) * (1 + np.cos(np.pi * done)) / 2
    elif row["schedule"] == "wsd":
        cooldown = float(row["cooldown"]) * STEPS
        done = np.clip((step - (STEPS - cooldown)) / cooldown, 0, 1)
        factors *= 1 - (np.sqrt(done) if row["cooldown_shape"] == "sqrt" else done)
    return tuple(float(factor) for factor in factors)


def answer(recorded: Recorded, lr: float, budget: float, seed: int) -> Answer:
    """Return what the model names after the trainings that it proposes among those recorded, SHORT steps and fewer."""
    prior = LRPrior(lr, DECADES, min(LRS), max(LRS))
    candidates = [
        Observation(recorded.schedules[name], lr, steps / STEPS, loss)
        for (name, steps, lr), loss in sorted(recorded.losses.items())
        if steps <= SHORT
    ]
    wanted = [one for name, one in recorded.schedules.items() if recorded.at_full_length(name)]
    trained: list[Observation] = []
    spent = 0.0
    while affordable := [one for one in candidates if spent + one.length <= budget and one not in trained]:
        gains = expected_gains(fit(trained, prior, STEPS, seed), wanted, affordable, [])
        trained.append(affordable[int(np.argmax(gains / np.array([one.length for one in affordable])))])
        spent += trained[-1].length
    found = forecast(fit(trained, prior, STEPS, seed), wanted, LRS)
    lowest = min(min(recorded.at_full_length(one.name).values()) for one in wanted)
    of_lrs, inside = {}, {}
    for one in found.schedules:
        losses = recorded.at_full_length(one.schedule.name)
        of_lrs[one.schedule.name] = losses[one.lr] / min(losses.values()) - 1
        inside[one.schedule.name] = one.loss_interval[0] <= losses[one.lr] <= one.loss_interval[1]
    first = found.schedules[0]
    regret = recorded.at_full_length(first.schedule.name)[first.lr] / lowest - 1
    return Answer(spent, (first.schedule.name, first.lr), regret, of_lrs, inside)


def report(path: Path, seeds: int = 4) -> None:
    """Print what is named after at most one full training, for several priors and seeds."""
    if not path.is_file():
        print(f"The 124M model's trainings are left out: there is no file {path}; give its place with --llama.")
        return
    recorded = read(path)
    answers = [answer(recorded, lr, 1.0, seed) for lr in PRIORS for seed in range(seeds)]
    regrets = [100 * one.regret for one in answers]
    costs = [100 * cost for one in answers for cost in one.of_lrs.values()]
    inside = [held for one in answers for held in one.inside.values()]
    print(
        f"\nThe 124M model, {len(answers)} answers from at most {max(one.spent for one in answers):.1f} full trainings:"
    )
    print(f"  the pick above the best of all: median {np.median(regrets):.3f} %, worst {max(regrets):.3f} %")
    within = 100 * np.mean([cost <= 0.1 for cost in costs])
    print(f"  each schedule's LR above its best: median {np.median(costs):.3f} %, worst {max(costs):.3f} %; ", end="")
    print(f"within 0.1 % in {within:.0f} of 100")
    print(f"  80 % intervals of the loss hold it in {100 * np.mean(inside):.0f} of 100")
