"""How many optimizer steps does a search take to reach the best (LR schedule, LR)?

    python benchmarks/search_efficiency.py [--repetitions 20] [--only NAME ...]

Replays searches on `landscapes/`: a trial's losses are the means over the seeds that all cells have, between two LRs
that were trained in proportion to log LR: what one seed adds is the confirmation's business. All methods choose among
the same six schedules in their default shape. Counted are optimizer steps, ramps included, confirmations left out. What
a method would name at each moment, the best completed trial so far, is judged by the mean over all seeds, most of which
the search has not seen; regret is that mean / the lowest of all cells - 1. Ours goes through `tune_lr.study`, as in a
real study with one slot. Repetitions differ by the sampler's seed and by the ramps.
"""

import argparse
import math
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray

from landscapes.landscape import OURS, POINTS, RAMPS, SCHEDULES, Landscape, load, load_ramps, names
from peers import valley
from tune_lr.config import parse_config
from tune_lr.lr_range_test import DivergenceDetector
from tune_lr.study import Study
from tune_lr.study_dir import StudyDir
from tune_lr.trial import Report, TrialSpec

Array = NDArray[np.float64]
LOW, HIGH = 1e-5, 10.0
TRIALS = 48
# The steps a trial took; and its configuration and its last loss, where it was completed.
Trial = tuple[int, tuple[str, float, float] | None]
Method = Callable[[Landscape, dict[str, Array], int], Iterator[Trial]]
Trace = list[tuple[int, float]]  # steps so far, and the regret of what would be named


def random_search(landscape: Landscape, ramps: dict[str, Array], repetition: int) -> Iterator[Trial]:
    rng = np.random.default_rng(repetition)
    for _ in range(20 * TRIALS):
        name, lr = str(rng.choice(SCHEDULES)), float(np.exp(rng.uniform(np.log(LOW), np.log(HIGH))))
        yield landscape.max_steps, (name, lr, landscape.curve(name, lr)[-1])


def grid_search(landscape: Landscape, ramps: dict[str, Array], repetition: int) -> Iterator[Trial]:
    """Thirteen LRs, two a decade, in any order."""
    cells = [(name, float(lr)) for name in SCHEDULES for lr in np.geomspace(LOW, HIGH, 13)]
    for i in np.random.default_rng(repetition).permutation(len(cells)):
        yield landscape.max_steps, (*cells[i], landscape.curve(*cells[i])[-1])


def tpe_and_asha(landscape: Landscape, ramps: dict[str, Array], repetition: int) -> Iterator[Trial]:
    """Optuna's default TPE over the wide range, pruned by Ray's ASHA (grace period 1, reduction factor 4); each trial's
    last loss is told as complete, as Ray's OptunaSearch does."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=repetition))
    rungs: dict[int, list[float]] = {1: [], 4: []}
    for _ in range(4 * TRIALS):
        trial = study.ask()
        name, lr = trial.suggest_categorical("lr_schedule", SCHEDULES), trial.suggest_float("lr", LOW, HIGH, log=True)
        curve = landscape.curve(name, lr)
        stop = POINTS
        for point, seen in rungs.items():
            seen.append(curve[point])
            if curve[point] > np.percentile(seen, 25):
                stop = point
                break
        study.tell(trial, curve[stop])
        yield landscape.max_steps * stop // POINTS, (name, lr, curve[-1]) if stop == POINTS else None


def finder_and_onecycle(landscape: Landscape, ramps: dict[str, Array], repetition: int) -> Iterator[Trial]:
    """fastai's default: one ramp, its valley, one training."""
    lr = valley(RAMPS["fastai"], ramps["fastai"][repetition % len(ramps["fastai"])])
    if lr is not None:
        loss = landscape.curve("onecycle", lr)[-1]
        yield 100 + landscape.max_steps, ("onecycle", lr, loss)


def ours(landscape: Landscape, ramps: dict[str, Array], repetition: int, **changes: object) -> Iterator[Trial]:
    tenth = landscape.max_steps // POINTS
    config = parse_config(
        {
            "workload": "made_up:workload",
            "max_steps": tenth * POINTS,
            "report_every": tenth,
            "num_trials": TRIALS,
            "seed": repetition,
            "range_test": {"low": OURS.low, "high": OURS.high, "steps": OURS.steps, "replicates": 3},
            "pruner": {"name": "asha", "min_steps": tenth, "reduction_factor": 3},
            "confirm": {"top": 0, "seeds": 1},
            "optimizer": {"name": "sgd"},
            "parameters": {
                "lr": {"min": "range_test", "max": "range_test"},
                "lr_schedule": {"choices": {name: {} for name in SCHEDULES}},
            },
            **changes,
        }
    )
    chosen = iter(np.random.default_rng(repetition).permutation(len(ramps["tune_lr"])))
    with tempfile.TemporaryDirectory() as folder:
        directory = StudyDir(Path(folder) / "study")
        directory.create({})
        study = Study(config, directory)
        while (spec := study.next_trial()) is not None:
            if spec.ramp is not None:
                which = "tune_lr" if spec.ramp.steps == OURS.steps else "tune_lr_slower"
                steps = replay_ramp(study, spec, ramps[which][next(chosen)])
                yield steps, None
                continue
            curve = landscape.curve(spec.lr_schedule, spec.lr)
            for point in range(1, POINTS + 1):
                report = Report(point * tenth, metrics={"val_loss": curve[point]}, over=point == POINTS)
                if not study.report(spec.number, report):
                    break
            last = (spec.lr_schedule, spec.lr, curve[-1]) if point == POINTS else None
            yield landscape.max_steps * point // POINTS, last


def replay_ramp(study: Study, spec: TrialSpec, losses: Array) -> int:
    """Hands in a ramp that was run before, up to its divergence; returns its steps."""
    assert spec.ramp is not None
    end = DivergenceDetector().update(losses.tolist())
    steps = min(spec.ramp.steps, len(losses) if end is None else end + 1)
    points = tuple((step + 1, spec.ramp.lr(step), float(losses[step])) for step in range(steps))
    study.report(spec.number, Report(steps, points, over=True, diverged=end is not None))
    return steps


METHODS: dict[str, Method] = {
    "random": random_search,
    "grid": grid_search,
    "TPE + ASHA, wide": tpe_and_asha,
    "LR finder + one-cycle": finder_and_onecycle,
    "tune-lr": ours,
    "- without the range test": partial(
        ours, parameters={"lr": {"min": LOW, "max": HIGH}, "lr_schedule": {"choices": {name: {} for name in SCHEDULES}}}
    ),
    "- without pruning": partial(ours, pruner={"name": "none"}),
    "- random sampler": partial(ours, sampler={"name": "random"}),
}


def trace(method: Method, landscape: Landscape, ramps: dict[str, Array], repetition: int) -> Trace:
    best = min(landscape.best(name) for name in landscape.schedules())
    steps, lowest, points = 0, math.inf, []
    for cost, completed in method(landscape, ramps, repetition):
        steps += cost
        if completed is not None and completed[2] < lowest:
            lowest = completed[2]
            points.append((steps, landscape.loss(*completed[:2]) / best - 1))
    return points


def floor(landscape: Landscape) -> float:
    """The regret of the best of all cells by the seeds that are searched on: what they do not tell."""
    last = {cell: landscape.curve(*cell)[-1] for cell in landscape.curves}
    return landscape.loss(*min(last, key=last.__getitem__)) / min(map(landscape.best, landscape.schedules())) - 1


def steps_to(points: Trace, regret: float) -> float:
    return next((float(steps) for steps, value in points if value <= regret), math.inf)


def regret_at(points: Trace, steps: float) -> float:
    return next((value for there, value in reversed(points) if there <= steps), math.inf)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares searches on the landscapes, in optimizer steps.")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=names(), default=names(), help="these workloads")
    options = parser.parse_args()
    landscapes = [load(name) for name in options.only]
    print("In full trainings; medians over repetitions, then over workloads (90th: percentile).")
    print(
        f"Who knew every cell would be left with a regret of {100 * np.median(list(map(floor, landscapes))):.1f} %.\n"
    )
    header = ["to 5 %", "to 10 %", "90th to 10 %", "regret at 12", "at 24"]
    print("| method | " + " | ".join(header) + " |\n|" + "---|" * (len(header) + 1))
    for title, method in METHODS.items():
        figures = []
        for landscape in landscapes:
            ramps, full = load_ramps(landscape.name), landscape.max_steps
            traces = [trace(method, landscape, ramps, repetition) for repetition in range(options.repetitions)]
            to5, to10 = ([steps_to(points, regret) / full for points in traces] for regret in (0.05, 0.10))
            at12, at24 = ([regret_at(points, n * full) for points in traces] for n in (12, 24))
            slow = np.percentile(to10, 90, method="higher")
            figures.append([np.median(to5), np.median(to10), slow, np.median(at12), np.median(at24)])
        to5, to10, slow, at12, at24 = np.median(np.array(figures), axis=0)
        print(
            f"| {title} | {to5:.1f} | {to10:.1f} | {slow:.1f} | {100 * at12:.1f} % | {100 * at24:.1f} % |", flush=True
        )


if __name__ == "__main__":
    main()
