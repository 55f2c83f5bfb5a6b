"""Executes a study without Ray, workers or training: losses come from a made-up landscape, all else is real."""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tune_lr.config.load import parse_config
from tune_lr.config.model import Config
from tune_lr.records.observer import Observer
from tune_lr.records.trial import Report, TrialFacts, TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.study import Study

FACTS = TrialFacts(
    batch_size=128,
    steps_per_epoch=31,
    optimizer="SGD",
    cycles_momentum=True,
    metrics=("val_loss", "val_accuracy"),
    device="cpu",
)
CLASSES = {"adamw": "AdamW", "sgd": "SGD"}
BEST_LR = 0.3  # with SGD and batches of 128; see `scale`
DIVERGES_AT = 2.0  # the LR that a ramp does not survive
RAMP_CHUNK = 60  # steps a report of a ramp
# The best LR schedule is best by more than the seeds differ.
OFFSETS = {"cosine": 0.0, "onecycle": 0.02, "step": 0.05, "exponential": 0.08, "cyclic": 0.1, "constant": 0.15}

# A study small enough to be run hundreds of times: rungs at 2 and 4 of 8 steps.
SMALL: dict[str, Any] = {
    "workload": "made_up:workload",
    "max_steps": 8,
    "report_every": 2,
    "num_trials": 5,
    "seed": 7,
    "range_test": {"low": 1e-5, "high": 10.0, "steps": 120, "replicates": 2},
    "sampler": {"name": "random"},
    "pruner": {"name": "asha", "min_steps": 2, "reduction_factor": 2},
    "confirm": {"top": 2, "seeds": 2},
    "optimizer": {"name": "sgd", "momentum": 0.9},
    "parameters": {
        "lr": {"min": "range_test", "max": "range_test"},
        "lr_schedule": {
            "choices": {
                "constant": {},
                "step": {"step_size": {"min": 0.2, "max": 0.5}, "gamma": {"min": 0.1, "max": 0.9}},
                "cosine": {"floor": {"min": 0.0, "max": 0.1}},
            }
        },
    },
}
FIXED_LR = {**SMALL["parameters"], "lr": {"min": 0.01, "max": 1.0}}  # needs no range test

Train = Callable[[TrialSpec, Config], Iterator[Report]]


def config_of(**changes: Any) -> Config:
    return parse_config({**SMALL, **changes})


def open_study(root: Path, config: Config | None = None, **options: Any) -> Study:
    """Opens the study in `root`, as a new driver does; begins it where there is none."""
    directory = StudyDir(root)
    if not directory.study_yaml.exists():
        directory.create({})
    return Study(config or config_of(), directory, **options)


# --- the landscape ------------------------------------------------------------------------------------------


def noise(*key: Any) -> float:
    """The same number in [-1, 1) for the same key, on every machine and in every process."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "big") / 2**31 - 1


def loss(lr: float, lr_schedule: str, step: float, seed: int) -> float:
    """Falls with the steps, is lowest at BEST_LR, and differs a little from seed to seed."""
    distance = math.log10(lr / BEST_LR)
    floor = 0.1 + OFFSETS.get(lr_schedule, 0.2) + 0.4 * distance**2
    return floor + 2.2 * math.exp(-step / 3) + 0.005 * noise(lr, lr_schedule, seed)


def ramp_loss(lr: float, seed: int) -> float:
    """A plateau, a descent around 0.01, and an explosion at DIVERGES_AT."""
    if lr > DIVERGES_AT:
        return math.nan
    falling: float = 2.3 - 2.0 / (1 + (0.01 / lr) ** 1.5)
    return falling + 0.002 * noise(lr, seed)


def train(spec: TrialSpec, config: Config) -> Iterator[Report]:
    """What a slot reports of a trial."""
    if spec.phase == "test":
        values = tuple({"test_loss": 0.5 + i, "test_accuracy": 0.9 - i / 10} for i in range(len(spec.checkpoints)))
        yield Report(step=0, over=True, test_values=values)
    elif spec.phase == "range_test":
        yield from ramp(spec, lambda lr, seed: ramp_loss(lr / scale(spec), seed))
    else:
        lr, name, batches = spec.lr / scale(spec), spec.lr_schedule or "constant", (spec.batch_size or 128) / 128
        yield from descend(spec, config, lambda step: loss(lr, name, step * batches, spec.seed))


def scale(spec: TrialSpec) -> float:
    """How far this batch size and this optimizer move all LRs."""
    return (spec.batch_size or 128) / 128 * (0.01 if spec.optimizer.get("name") == "adamw" else 1.0)


def facts(spec: TrialSpec) -> TrialFacts:
    size, name = spec.batch_size or 128, spec.optimizer.get("name", "sgd")
    return replace(FACTS, batch_size=size, steps_per_epoch=31 * 128 // size, optimizer=CLASSES[name])


def ramp(spec: TrialSpec, loss_of: Callable[[float, int], float]) -> Iterator[Report]:
    assert spec.ramp is not None
    points: list[tuple[int, float, float]] = []
    for step in range(1, spec.ramp.steps + 1):
        lr = spec.ramp.lr(step - 1)
        points.append((step, lr, loss_of(lr, spec.seed)))
        diverged, over = not math.isfinite(points[-1][2]), step == spec.ramp.steps
        if diverged or over or step % RAMP_CHUNK == 0:
            yield Report(step, tuple(points), over=over or diverged, diverged=diverged, facts=facts(spec), seconds=0.5)
            points = []
        if diverged:
            return


def descend(spec: TrialSpec, config: Config, loss_of: Callable[[int], float]) -> Iterator[Report]:
    every, size = spec.report_every or config.report_every, spec.batch_size
    ends = [config.steps_of(step, size) for step in range(0, config.max_steps + 1, every)] if size else []
    for before, step in pairwise(ends or [*range(0, spec.max_steps, every), spec.max_steps]):
        points = tuple((s, spec.lr, loss_of(s)) for s in range(before + 1, step + 1))
        value = loss_of(step)
        metrics = {"val_loss": value, "val_accuracy": 1 / (1 + value)}
        yield Report(step, points, metrics, over=step == spec.max_steps, facts=facts(spec), seconds=0.5)


def long_loss(lr: float, lr_schedule: str, steps: int, full: int) -> float:
    """Return the final loss of a training of so many steps: a valley whose bottom moves to lower LRs with the length.

    The order of the LR schedules is that of OFFSETS at every length.
    """
    length = steps / full
    bottom = math.log10(BEST_LR / 3) - 0.3 * math.log10(length)
    height = (0.1 + OFFSETS.get(lr_schedule, 0.2)) * length**-0.3
    return float(1.0 + height * (1 + 1.5 * (math.log10(lr) - bottom) ** 2))


def train_long(spec: TrialSpec, config: Config) -> Iterator[Report]:
    """Return what a slot reports of a trial of any length; LRs above DIVERGES_AT diverge at the third step."""
    if spec.phase in ("test", "range_test"):
        yield from train(spec, config)
    elif spec.lr > DIVERGES_AT:
        yield Report(step=3, over=True, diverged=True, facts=facts(spec))
    else:
        final = long_loss(spec.lr, spec.lr_schedule, spec.max_steps, config.max_steps)
        final += 0.002 * noise(spec.lr, spec.lr_schedule, spec.seed)
        yield from descend(spec, config, lambda step: final * (2 - step / spec.max_steps))


def ends_at_once(**how: Any) -> Iterator[Report]:
    """One report that ends the trial: `failure`, `diverged`, `mistake`."""
    yield Report(step=how.pop("step", 1), over=True, facts=how.pop("facts", FACTS), **how)


def flat_ramps(spec: TrialSpec, config: Config) -> Iterator[Report]:
    """Ramps that fall and never diverge, whatever the LR."""
    if spec.ramp:
        return ramp(spec, lambda lr, seed: 2.3 - 0.3 * math.log10(lr / 1e-5) + 0.002 * noise(lr, seed))
    return train(spec, config)


# --- the executor -------------------------------------------------------------------------------------------


def execute(study: Study, *, slots: int = 1, train: Train = train, reports: int | None = None) -> list[tuple[int, int]]:
    """Runs the study to its end, or drops it after so many `reports`, as a killed driver does.

    Returns (trial's number, step) of every report handed in.
    """
    running: dict[str, tuple[TrialSpec, Iterator[Report]]] = {}
    handed_in: list[tuple[int, int]] = []
    while True:
        for slot in (f"host:slot{i}" for i in range(slots)):
            if slot not in running and (spec := study.next_trial()) is not None:
                running[slot] = spec, train(spec, study.config)
        if not running:
            assert study.over or study.stopped, "nothing runs, nothing is next, and the study is not over"
            return handed_in
        for slot, (spec, trial) in list(running.items()):
            if len(handed_in) == reports:
                return handed_in
            report = next(trial)
            handed_in.append((spec.number, report.step))
            if not study.report(spec.number, Report(**{**vars(report), "slot": slot})):
                del running[slot]


class Log(Observer):
    """An observer that keeps every event as (name, number or argument)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def phase_started(self, phase: str, trials: int) -> None:
        self.events.append(("phase_started", (phase, trials)))

    def trial_started(self, trial: TrialSpec) -> None:
        self.events.append(("trial_started", trial.number))

    def trial_reported(self, trial: TrialSpec, report: Report) -> None:
        self.events.append(("trial_reported", trial.number))

    def trial_ended(self, trial: TrialSpec, row: Any) -> None:
        self.events.append(("trial_ended", trial.number))

    def bounds_found(self, bounds: Any, combination: str = "") -> None:
        self.events.append(("bounds_found", bounds.status))

    def notice(self, text: str) -> None:
        self.events.append(("notice", text))

    def of(self, name: str) -> list[Any]:
        return [argument for event, argument in self.events if event == name]
