"""How many optimizer steps does a search take to reach the best (LR schedule, LR)?

    python benchmarks/search_efficiency.py [--shapes] [--repetitions 20] [--only NAME ...] [--methods NAME ...]
        [--plot FILE]
    python benchmarks/search_efficiency.py --studies [--shapes] [--repetitions 20]
    python benchmarks/search_efficiency.py --live --only mlp_adamw cnn_bn [--repetitions 8]

Replays searches on `landscapes/`: six schedules in their default shape, or with `--shapes` in 34 shapes, at any LR.
Two questions, kept apart:

**Steps.** Each trial shows its mean over all seeds of the landscape, to all methods and to the judge: how fast does a
method find the lowest place? Counted are optimizer steps, ramps included. What a method would name at each moment is
the best completed trial so far; its regret is its loss / the lowest mean of all cells - 1.

**Whole studies** (`--studies`). Each trial shows one seed of three, as in a real study, and the finalists are confirmed
with fresh seeds: how good is the winner that is named? A fresh seed is the mean times a random factor as wide as the
landscape's seeds differ, the part of it that a seed shares with all that is trained with it the same for all finalists.
The winner is judged by the mean over all seeds; it is within the noise where it lies no more than two standard errors
of that difference above the lowest, and within a seed's where it lies above it by less than one standard deviation
between seeds: to train again changes more.

The lowest of many noisy means is lucky, more so where there are few seeds: `Landscape.luck` says by how much, for each
workload. Where regrets are below that, or one or two percent, they are nothing.
Ours goes through `tune_lr.study`, as in a real study with one slot. Repetitions differ by the sampler's seed and by the
ramps.
"""

import argparse
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, GPSampler, TPESampler

import curve_quality
from landscapes.landscape import (
    IN_VIEW,
    OURS,
    POINTS,
    RAMPS,
    SCHEDULES,
    SEARCH_SEEDS,
    SHAPES,
    Landscape,
    cell_name,
    default_shape,
    load,
    load_ramps,
    names,
)
from peers import valley
from tune_lr.config.load import parse_config
from tune_lr.config.model import Config
from tune_lr.lr import bounds as lr_bounds
from tune_lr.lr.bounds import find_lr_bounds
from tune_lr.lr.divergence import DivergenceDetector
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.study import sampler, search_space
from tune_lr.study.study import Study

Array = NDArray[np.float64]
LOW, HIGH = 1e-5, 10.0
HORIZON = 30  # full trainings that are looked at; of the methods that may need more, 90 and 300
TRIALS = 24  # of a whole study
# The steps a trial took; and its configuration and its last loss, where it was completed.
Trial = tuple[int, tuple[str, float, float] | None]
Method = Callable[[Landscape, dict[str, Array], int], Iterator[Trial]]
Show = Callable[[TrialSpec], Sequence[float] | Array]  # a training's losses, POINTS + 1 of them
Trace = list[tuple[float, float]]  # full trainings so far, and the regret of what would be named

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
IN_MEMORY = Path("/dev/shm")  # studies write and sync a lot


def draw(landscape: Landscape, choose: Callable[[str, Sequence[Any]], Any]) -> str:
    """A schedule and, where the landscape has them, a shape."""
    name = str(choose("lr_schedule", SCHEDULES))
    shape = SHAPES[name] if landscape.has_shapes else {}
    return cell_name(name, {key: float(choose(f"{name}.{key}", values)) for key, values in shape.items()})


def random_search(landscape: Landscape, _ramps: dict[str, Array], repetition: int) -> Iterator[Trial]:
    rng = np.random.default_rng(repetition)
    while True:
        name = draw(landscape, lambda _, values: rng.choice(values))
        lr = float(np.exp(rng.uniform(np.log(LOW), np.log(HIGH))))
        yield landscape.max_steps, (name, lr, landscape.loss(name, lr))


def grid_search(landscape: Landscape, _ramps: dict[str, Array], repetition: int) -> Iterator[Trial]:
    """Thirteen LRs, two a decade, in any order."""
    cells = [(name, float(lr)) for name in landscape.schedules() for lr in np.geomspace(LOW, HIGH, 13)]
    for i in np.random.default_rng(repetition).permutation(len(cells)):
        yield landscape.max_steps, (*cells[i], landscape.loss(*cells[i]))


def tpe_and_asha(landscape: Landscape, _ramps: dict[str, Array], repetition: int) -> Iterator[Trial]:
    """Optuna's default TPE over the wide range, pruned by Ray's ASHA (grace period 1, reduction factor 4); each trial's
    last loss is told as complete, as Ray's OptunaSearch does."""
    study = optuna.create_study(sampler=TPESampler(seed=repetition))
    rungs: dict[int, list[float]] = {1: [], 4: []}
    while True:
        trial = study.ask()
        name, lr = draw(landscape, trial.suggest_categorical), trial.suggest_float("lr", LOW, HIGH, log=True)
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
        yield len(RAMPS["fastai"]) + landscape.max_steps, ("onecycle", lr, landscape.loss("onecycle", lr))


def optuna_in_bounds(
    landscape: Landscape,
    ramps: dict[str, Array],
    repetition: int,
    sampler: Callable[[int], optuna.samplers.BaseSampler],
) -> Iterator[Trial]:
    """What ours would be with a sampler of Optuna's: the range test's bounds, first each schedule at the LR that is
    expected to be best for it, then what the sampler proposes."""
    lrs = [OURS.lr(step) for step in range(OURS.steps)]
    losses = ramps["tune_lr"][np.random.default_rng(repetition).integers(len(ramps["tune_lr"]))]
    steps = steps_of(losses)
    bounds = find_lr_bounds([(lrs[:steps], losses[:steps])])
    yield steps, None
    low, high = bounds.low or LOW, bounds.high or HIGH
    study = optuna.create_study(sampler=sampler(repetition))
    for name in SCHEDULES if bounds.suggestion else ():
        drawn = search_space.Draw(lr=0.0, lr_schedule=name, parameters={})
        lr = search_space.expected_lr(search_space.lr_curve(drawn, landscape.max_steps, None), bounds.suggestion or 0.0)
        shape = {f"{name}.{key}": value for key, value in default_shape(name).items()}
        study.enqueue_trial({"lr_schedule": name, "lr": min(max(lr, low), high), **shape})
    while True:
        trial = study.ask()
        name, lr = draw(landscape, trial.suggest_categorical), trial.suggest_float("lr", low, high, log=True)
        study.tell(trial, loss := landscape.loss(name, lr))
        yield landscape.max_steps, (name, lr, loss)


def tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=6)


def gp(seed: int) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=6)


# --- ours


def parameters_of(landscape: Landscape, lr: dict[str, object]) -> dict[str, object]:
    shapes = {name: SHAPES[name] if landscape.has_shapes else {} for name in SCHEDULES}
    choices = {name: {key: {"values": list(values)} for key, values in shape.items()} for name, shape in shapes.items()}
    return {"lr": lr, "lr_schedule": {"choices": choices}}


def config_of(landscape: Landscape, repetition: int, trials: int, **changes: object) -> Config:
    tenth = landscape.max_steps // POINTS
    return parse_config(
        {
            "workload": "made_up:workload",
            "max_steps": tenth * POINTS,
            "report_every": tenth,
            "num_trials": trials,
            "seed": repetition,
            "confirm": {"top": 0, "seeds": 1},
            "optimizer": {"name": "sgd"},
            "parameters": parameters_of(landscape, {"min": "range_test", "max": "range_test"}),
            **changes,
        }
    )


def replay(config: Config, ramps: dict[str, Array], show: Show) -> Iterator[tuple[Study, TrialSpec, int, float]]:
    """Runs a study. Gives, after each trial, the trial, the steps it took and, where it was completed, its last loss,
    else NaN."""
    chosen = iter(np.random.default_rng(config.seed).permutation(len(ramps["tune_lr"])))
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        directory = StudyDir(Path(folder) / "study")
        directory.create({})
        study = Study(config, directory)
        while (spec := study.next_trial()) is not None:
            if spec.phase == "test":
                study.report(spec.number, Report(step=0, over=True))
                continue
            if spec.ramp is not None:
                yield study, spec, replay_ramp(study, spec, ramps, next(chosen)), math.nan
                continue
            curve = show(spec)
            for point in range(1, POINTS + 1):
                step = point * config.max_steps // POINTS
                if not study.report(spec.number, report_of(step, curve[point], over=point == POINTS)):
                    break
            yield study, spec, config.max_steps * point // POINTS, curve[-1] if point == POINTS else math.nan


def recorded(landscape: Landscape, study_seed: int, seed: int | None) -> Show:
    """`seed` is the one that search trials show; None: the mean. Confirmations are made up."""

    def show(spec: TrialSpec) -> Array:
        name = cell_name(spec.lr_schedule, spec.parameters)
        if spec.phase == "search":
            return landscape.curve(name, spec.lr, seed)
        own, shared = (np.random.default_rng([study_seed, spec.seed, *of]).normal() for of in ([spec.number], []))
        off = math.sqrt(1 - landscape.shared) * own + math.sqrt(landscape.shared) * shared
        return landscape.curve(name, spec.lr) * math.exp(landscape.noise * off)

    return show


def report_of(step: int, loss: float, over: bool) -> Report:
    return Report(step, metrics={"val_loss": float(loss)}, over=over)


def replay_ramp(study: Study, spec: TrialSpec, ramps: dict[str, Array], which: int) -> int:
    """Hands in a ramp that was run before, up to its divergence; returns its steps. A ramp that is wider than the one
    that was run takes from it what was run at the same LR; below that nothing happens but the noise of its start."""
    assert spec.ramp is not None
    lrs = [spec.ramp.lr(step) for step in range(spec.ramp.steps)]
    losses, ran = ramps["tune_lr"][which], np.log(RAMPS["tune_lr"])
    at = np.searchsorted(ran, np.log(lrs) - 1e-9).clip(0, len(ran) - 1)
    below = np.flatnonzero(np.log(lrs) < ran[0] - 1e-9)
    at[below] = np.random.default_rng(0).integers(len(ran) // 6, size=len(below))  # a decade
    steps = steps_of(losses[at])
    points = tuple((step + 1, lrs[step], float(losses[at[step]])) for step in range(steps))
    study.report(spec.number, Report(steps, points, over=True, diverged=steps < len(lrs)))
    return steps


def steps_of(losses: Array) -> int:
    """How many steps a ramp takes until it is stopped."""
    end = DivergenceDetector().update(losses.tolist())
    return len(losses) if end is None else end + 1


def ours(landscape: Landscape, ramps: dict[str, Array], repetition: int, **changes: object) -> Iterator[Trial]:
    config = config_of(landscape, repetition, HORIZON * 2, **changes)
    for _, spec, steps, loss in replay(config, ramps, recorded(landscape, repetition, None)):
        yield steps, None if math.isnan(loss) else (spec.lr_schedule, spec.lr, loss)


def ours_without_a_range_test(landscape: Landscape, ramps: dict[str, Array], repetition: int) -> Iterator[Trial]:
    yield from ours(landscape, ramps, repetition, parameters=parameters_of(landscape, {"min": LOW, "max": HIGH}))


@contextmanager
def constants(module: ModuleType, **values: object) -> Iterator[None]:
    """Others than a module's own, for a while."""
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def ours_with(
    landscape: Landscape, ramps: dict[str, Array], repetition: int, module: ModuleType = sampler, **values: object
) -> Iterator[Trial]:
    """Ours, with other constants."""
    with constants(module, **values):
        yield from ours(landscape, ramps, repetition)


METHODS: dict[str, Method] = {
    "random": random_search,
    "grid": grid_search,
    "TPE + ASHA, wide": tpe_and_asha,
    "LR finder + one-cycle": finder_and_onecycle,
    "tune-lr": ours,
    "- three ramps": partial(ours, range_test={"replicates": 3}),
    "- without the range test": ours_without_a_range_test,
    "- one LR expected for all": partial(ours_with, module=lr_bounds, PACE=0.0),
    "- one valley, at the LR expected": partial(ours_with, FARTHEST=0.0, CURVATURE=(1.0,), ASYMMETRY=(1.0,)),
    "- nothing expected of a curve": partial(ours_with, QUALITY=(0.0,) * 7),
    "- curves not compared": partial(ours_with, CURVE_SCALE=math.inf, OTHER_SCHEDULE=0.0, HIDDEN=0.6),
    "- no turn for the untried": partial(ours_with, UNTRIED_EVERY=10_000),
    "- random sampler": partial(ours, sampler={"name": "random"}),
    "- TPE": partial(ours, sampler={"name": "tpe"}),
    "- Optuna's TPE, first at the LRs expected": partial(optuna_in_bounds, sampler=tpe),
    "- Optuna's GP, first at the LRs expected": partial(optuna_in_bounds, sampler=gp),
    "- pruned at 10, 30, 90 %": partial(ours, pruner={"name": "asha", "reduction_factor": 3}),
}


def trace(method: Method, landscape: Landscape, ramps: dict[str, Array], repetition: int, horizon: float) -> Trace:
    """Up to `horizon` full trainings."""
    trainings, lowest = 0.0, math.inf
    points: Trace = []
    for steps, completed in method(landscape, ramps, repetition):
        trainings += steps / landscape.max_steps
        if trainings > horizon:
            break
        if completed is not None and completed[2] < lowest:
            lowest = completed[2]
            points.append((trainings, lowest / landscape.lowest - 1))
    return points


def traces(job: tuple[str, str, bool, int]) -> list[Trace]:
    """Of one method on one workload, in a process of its own."""
    title, workload, shapes, repetitions = job
    horizon = HORIZON * {"random": 10, "grid": 10, "TPE + ASHA, wide": 3}.get(title, 1)
    landscape, ramps = load(workload, shapes), load_ramps(workload)
    sampler.QUALITY = curve_quality.fit(without=workload)
    return [trace(METHODS[title], landscape, ramps, repetition, horizon) for repetition in range(repetitions)]


def trainings_to(points: Trace, regret: float) -> float:
    return next((there for there, value in points if value <= regret), math.inf)


def regret_at(points: Trace, trainings: float) -> float:
    return next((value for there, value in reversed(points) if there <= trainings), math.inf)


def unprefixed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name.partition(".")[2]: value for name, value in parameters.items()}


@dataclass(frozen=True)
class Ended:
    """How a whole study ended: trainings in all; LR schedules tried; the regret of the winner that is named, and
    whether that is within the noise of the means over all seeds, and within that of one seed."""

    trainings: float
    schedules: int
    regret: float
    within_the_noise: bool
    within_a_seeds: bool


def whole_study(landscape: Landscape, ramps: dict[str, Array], repetition: int, **changes: object) -> Ended:
    config = config_of(landscape, repetition, TRIALS, **{"confirm": {}, **changes})
    total, schedules = 0, set()
    show = recorded(landscape, repetition, repetition % len(SEARCH_SEEDS))
    for study, spec, steps, _ in replay(config, ramps, show):  # noqa: B007
        total += steps
        schedules |= {spec.lr_schedule} if spec.ramp is None else set()
    winner = study.verdict().winner
    name = cell_name(winner.lr_schedule, unprefixed(winner.parameters))
    regret = landscape.loss(name, winner.lr) / landscape.lowest - 1
    best_name = min(landscape.schedules(), key=landscape.best)
    lrs, losses = landscape.means(best_name)
    seeds = landscape.seeds_at(name, winner.lr), landscape.seeds_at(best_name, lrs[losses.argmin()])
    error = landscape.noise * math.sqrt(sum(1 / n for n in seeds))
    trainings = total / landscape.max_steps
    return Ended(trainings, len(schedules), regret, regret <= 2 * error, regret <= landscape.noise)


def whole_study_with(landscape: Landscape, ramps: dict[str, Array], repetition: int, **values: object) -> Ended:
    """With other constants of the sampler."""
    with constants(sampler, **values):
        return whole_study(landscape, ramps, repetition)


# --- tables


def percent(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else "-"


def compare(
    workloads: Sequence[str], shapes: bool, methods: Sequence[str], repetitions: int
) -> dict[str, list[list[Trace]]]:
    """By method and workload: the traces. Prints the tables."""
    header = ["to 10 %", "to 5 %", "to 2 %", "regret at 8", "at 12", "worst at 12", "at 24", "worst at 24"]
    print(
        f"In full trainings; medians over {repetitions} repetitions, then over workloads (worst: of the workloads).\n"
    )
    print("| method | " + " | ".join(header) + " |\n|" + "---|" * (len(header) + 1))
    jobs = [(title, workload, shapes, repetitions) for title in methods for workload in workloads]
    found: dict[str, list[list[Trace]]] = {title: [] for title in methods}
    with Pool() as pool:
        for job, done in zip(jobs, pool.imap(traces, jobs), strict=True):
            title = job[0]
            found[title].append(done)
            if len(found[title]) == len(workloads):
                print(f"| {title} | {' | '.join(row(found[title]))} |", flush=True)
    for group, inside in groups(workloads):
        print(f"\nOf the workloads {group}:\n\n| method | {' | '.join(header)} |\n|{'---|' * (len(header) + 1)}")
        for title, of_all in found.items():
            print(f"| {title} | {' | '.join(row([of_all[i] for i in inside]))} |")
    print("\nRegret after 12 full trainings, median (5th to 95th percentile); and by how much the 0 is a lucky one:\n")
    print(f"| workload | {' | '.join(methods)} | luck |\n|{'---|' * (len(methods) + 2)}")
    for i, name in enumerate(workloads):
        cells = []
        for of_all in found.values():
            regrets = [min(1e9, regret_at(points, 12)) for points in of_all[i]]
            low, middle, high = np.percentile(regrets, [5, 50, 95])
            cells.append(f"{percent(middle)} ({100 * low:.0f} to {100 * high:.0f})" if high < 1e9 else "-")
        print(f"| {name} | {' | '.join(cells)} | {percent(load(name, shapes).luck)} |")
    return found


def groups(workloads: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Those that were in view when the search was made and those that judge it, by their places."""
    made_on = [i for i, name in enumerate(workloads) if name in IN_VIEW]
    judges = [i for i in range(len(workloads)) if i not in made_on]
    return [(title, inside) for title, inside in (("in view", made_on), ("that judge", judges)) if inside]


def row(of_all: list[list[Trace]]) -> list[str]:
    reached = [np.median([[trainings_to(p, r) for p in one] for one in of_all], axis=1) for r in (0.10, 0.05, 0.02)]
    regrets = {n: np.median([[regret_at(p, n) for p in one] for one in of_all], axis=1) for n in (8, 12, 24)}
    cells = [f"{np.median(values):.1f}" for values in reached] + [percent(float(np.median(regrets[8])))]
    for n in (12, 24):
        cells += [percent(float(np.median(regrets[n]))), percent(float(np.max(regrets[n])))]
    return cells


STUDIES: dict[str, Callable[[Landscape, dict[str, Array], int], Ended]] = {
    f"tune-lr, {TRIALS} trials": whole_study,
    "- no runners-up": partial(whole_study, confirm={"top": 3}),
    "- finalists by their one seed": partial(whole_study_with, SEED_NOISE=1e-3),
    "- no turn for the untried": partial(whole_study_with, UNTRIED_EVERY=10_000),
    "- random sampler": partial(whole_study, sampler={"name": "random"}),
    "- TPE": partial(whole_study, sampler={"name": "tpe"}),
    "- pruned at 10, 30, 90 %": partial(whole_study, pruner={"name": "asha", "reduction_factor": 3}),
    "- not confirmed": partial(whole_study, confirm={"top": 0, "seeds": 1}),
    "+ up to six seeds": partial(whole_study, confirm={"max_seeds": 6}),
    "+ ten finalists, twenty seeds": partial(whole_study, confirm={"runners_up": 7, "seeds": 20}),
}


def whole_studies(job: tuple[str, str, bool, int]) -> list[Ended]:
    """Of one kind on one workload, in a process of its own."""
    title, workload, shapes, repetitions = job
    landscape, ramps = load(workload, shapes), load_ramps(workload)
    sampler.QUALITY = curve_quality.fit(without=workload)
    return [STUDIES[title](landscape, ramps, repetition) for repetition in range(repetitions)]


def studies(workloads: Sequence[str], shapes: bool, repetitions: int) -> None:
    print(f"Whole studies with one seed and a confirmation; {repetitions} repetitions.\n")
    columns = ["trainings in all", "schedules tried, fewest", "median regret", "90th percentile", "within the noise"]
    header = [*columns, "worst workload", "within a seed's"]
    found: dict[str, list[list[Ended]]] = {}
    with Pool() as pool:
        jobs = [(title, workload, shapes, repetitions) for title in STUDIES for workload in workloads]
        done = pool.imap(whole_studies, jobs)
        for title in STUDIES:
            found[title] = [next(done) for _ in workloads]
            print(title, file=sys.stderr, flush=True)
    for group, inside in groups(workloads):
        print(f"\nOf the workloads {group}:\n\n| study | {' | '.join(header)} |\n{'|---' * (len(header) + 1)}|")
        for title, of_all in found.items():
            print(f"| {title} | {' | '.join(study_row([of_all[i] for i in inside], [workloads[i] for i in inside]))} |")


def study_row(of_all: list[list[Ended]], workloads: list[str]) -> list[str]:
    flat = [ended for one in of_all for ended in one]
    regrets, schedules = [ended.regret for ended in flat], [ended.schedules for ended in flat]
    within = [float(np.mean([ended.within_the_noise for ended in one])) for one in of_all]
    return [
        f"{np.median([ended.trainings for ended in flat]):.1f}",
        f"{np.median(schedules):.0f}, {min(schedules)}",
        percent(float(np.median(regrets))),
        percent(float(np.percentile(regrets, 90))),
        f"{100 * np.mean(within):.0f} %",
        f"{workloads[int(np.argmin(within))]}, {100 * min(within):.0f} %",
        f"{100 * np.mean([ended.within_a_seeds for ended in flat]):.0f} %",
    ]


def live(workloads: Sequence[str], repetitions: int) -> None:
    """Do the replays tell the truth? The same whole studies, with every trial trained and replayed."""
    print(f"Whole studies over all shapes; {repetitions} repetitions. Regret of the winner, median (quartiles).\n")
    print("| workload | study | trained | replayed | trainings in all, trained | replayed |\n|---|---|---|---|---|---|")
    with Pool() as pool:
        jobs = [(title, workload, repetitions) for workload in workloads for title in LIVE]
        for (title, workload, _), (trained, replayed) in zip(jobs, pool.imap(live_studies, jobs), strict=True):
            regrets, costs = zip(*(zip(*found, strict=True) for found in (trained, replayed)), strict=True)
            middles = [np.percentile(regret, [25, 50, 75]) for regret in regrets]
            shown = [f"{percent(mid)} ({100 * low:.1f} to {100 * high:.1f})" for low, mid, high in middles]
            spent = [f"{np.median(cost):.1f}" for cost in costs]
            print(f"| {workload} | {title} | {' | '.join(shown + spent)} |", flush=True)


LIVE: dict[str, dict[str, object]] = {
    f"tune-lr, {TRIALS} trials": {},
    "- random sampler": {"sampler": {"name": "random"}},
    "- TPE": {"sampler": {"name": "tpe"}},
}
Studies = list[tuple[float, float]]  # the regret of the winner, and the trainings in all


def live_studies(job: tuple[str, str, int]) -> tuple[Studies, Studies]:
    """Of one kind on one workload, in a process of its own: trained, and replayed."""
    title, workload, repetitions = job
    import torch

    from landscapes.generate import WORKLOADS, train_cell

    torch.set_num_threads(1)
    landscape, ramps = load(workload, shapes=True), load_ramps(workload)
    work = next(one for one in WORKLOADS if one.name == workload)
    sampler.QUALITY = curve_quality.fit(without=workload)

    def show(spec: TrialSpec) -> list[float]:
        curve = train_cell(work, spec.lr_schedule, spec.lr, spec.seed, spec.parameters)
        return [min(loss, curve[0]) for loss in curve]

    trained, replayed = [], []
    for repetition in range(repetitions):
        config = config_of(landscape, repetition, TRIALS, **{"confirm": {}, **LIVE[title]})
        spent = 0
        for study, _, steps, _ in replay(config, ramps, show):  # noqa: B007
            spent += steps
        won = study.verdict().winner
        shape = unprefixed(won.parameters)
        fresh = [train_cell(work, won.lr_schedule, won.lr, 10_000 + seed, shape)[-1] for seed in range(8)]
        trained.append((float(np.mean(fresh)) / landscape.lowest - 1, spent / landscape.max_steps))
        ended = whole_study(landscape, ramps, repetition, **LIVE[title])
        replayed.append((ended.regret, ended.trainings))
    return trained, replayed


def plot(found: dict[str, list[list[Trace]]], path: Path) -> None:
    """The median regret of the median workload over the trainings spent."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    trainings = np.arange(1, HORIZON + 1, 0.25)
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for title, of_all in found.items():
        if title.startswith("-"):
            continue
        regrets = np.array([[[min(9.0, regret_at(p, n)) for n in trainings] for p in one] for one in of_all])
        middle = 100 * np.median(np.median(regrets, axis=1), axis=0)
        beyond = f" ({middle[-1]:.0f} %)" if middle[-1] > 60 else ""
        axes.plot(trainings, middle, label=f"{title}{beyond}", linewidth=2.5 if title == "tune-lr" else 1.2)
    axes.set(xscale="log", xlabel="full trainings spent, ramps included", ylabel="above the best, %", ylim=(0, 60))
    axes.set_xlim(1, HORIZON)
    axes.set_xticks([1, 2, 4, 8, 12, 24], ["1", "2", "4", "8", "12", "24"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares searches on the landscapes, in optimizer steps.")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--shapes", action="store_true", help="search over shapes of the LR schedules too")
    parser.add_argument("--only", nargs="+", choices=names(), default=names(), help="these workloads")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="these methods")
    parser.add_argument("--plot", type=Path, help="write a picture of the methods that are no variants of ours")
    parser.add_argument("--studies", action="store_true", help="whole studies with one seed and a confirmation")
    parser.add_argument("--live", action="store_true", help="whole studies, trained and replayed")
    options = parser.parse_args()
    os.nice(10)
    if options.live:
        live(options.only, options.repetitions)
        return
    if options.studies:
        studies(options.only, options.shapes, options.repetitions)
        return
    found = compare(options.only, options.shapes, options.methods, options.repetitions)
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
