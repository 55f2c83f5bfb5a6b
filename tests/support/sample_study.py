"""Write a small study directory that looks like a real one, without training anything."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tune_lr.records.row import TrialRow
from tune_lr.store.curves import CURVE_COLUMNS, RANGE_CURVE_COLUMNS, append_points, start_curve
from tune_lr.store.files import write_json, write_yaml
from tune_lr.store.study_dir import StudyDir

STEPS, REPORT_EVERY = 310, 31

SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "step": lambda t: 0.3 ** int(t / 0.3),
    "exponential": lambda t: 0.02**t,
    "cosine": lambda t: 0.5 + 0.5 * math.cos(math.pi * t),
    "onecycle": lambda t: t / 0.3 * 0.96 + 0.04 if t < 0.3 else 0.5 + 0.5 * math.cos(math.pi * (t - 0.3) / 0.7),
    "cyclic": lambda t: 1 - abs((t / 0.125) % 2 - 1) * 0.9,
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "constant": {},
    "step": {"step_size": 0.3, "gamma": 0.3},
    "exponential": {"final_factor": 0.02},
    "cosine": {"floor": 0.0},
    "onecycle": {"pct_start": 0.3},
    "cyclic": {"cycle": 0.25, "floor": 0.1},
}
# lr_schedule, lr, state, steps
SEARCH = [
    ("onecycle", 0.31, "complete", 310),
    ("cosine", 0.12, "complete", 310),
    ("step", 0.21, "complete", 310),
    ("exponential", 0.18, "complete", 310),
    ("constant", 0.05, "complete", 310),
    ("cyclic", 0.26, "pruned", 186),
    ("cyclic", 0.021, "pruned", 62),
    ("constant", 1.4, "diverged", 17),
    ("onecycle", 0.042, "complete", 310),
    ("cosine", 0.9, "diverged", 48),
    ("step", 0.016, "pruned", 93),
    ("exponential", 0.5, "failed", 31),
]
CONFIRM = [("onecycle", 0.31, 1), ("onecycle", 0.31, 2), ("cosine", 0.12, 1), ("cosine", 0.12, 2)]
CODE = """\
import torch

optimizer = torch.optim.SGD(model.parameters(), lr=0.31, momentum=0.9)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.31, total_steps=310, pct_start=0.3)
for batch in loader:
    ...
    optimizer.step()
    scheduler.step()
"""
CONFIG: dict[str, Any] = {
    "workload": "tune_lr.workloads.lenet5:mnist_5k",
    "workload_args": {},
    "batch_size": 128,
    "metric": {"name": "val_loss", "goal": "minimize"},
    "max_steps": STEPS,
    "report_every": REPORT_EVERY,
    "num_trials": len(SEARCH),
    "seed": 0,
    "range_test": {"low": 1e-5, "high": 10.0, "steps": 300, "replicates": 3, "mode": "exponential"},
    "sampler": {"name": "tpe"},
    "pruner": {"name": "asha", "min_steps": 62, "reduction_factor": 3},
    "confirm": {"top": 2, "seeds": 2},
    "optimizer": {"name": "sgd", "momentum": 0.9},
    "parameters": {
        "lr": {"min": "range_test", "max": "range_test"},
        "lr_schedule": {"choices": {name: {} for name in SHAPES}},
    },
    "scaling": {"workers_per_trial": 1, "gpus_per_worker": 0, "cpus_per_worker": 1, "plugin": "ddp"},
    "wandb": {"project": "tune-lr", "entity": None},
}
FIRST_SEARCH = 3  # trials 0 to 2 are the ramps
FIRST_CONFIRM = FIRST_SEARCH + len(SEARCH)


# label, lr_schedule, lr, parameters
FIXED: list[tuple[str, str, float, dict[str, Any]]] = [
    ("gamma 0.3", "step", 0.2, {"step_size": 0.3, "gamma": 0.3}),
    ("gamma 0.5", "step", 0.2, {"step_size": 0.3, "gamma": 0.5}),
    ("gamma 0.8", "step", 0.2, {"step_size": 0.3, "gamma": 0.8}),
    ("peak 0.1", "onecycle", 0.1, {"pct_start": 0.3}),
    ("peak 0.4", "onecycle", 0.4, {"pct_start": 0.3}),
]
FIRST_FIXED = FIRST_CONFIRM + len(CONFIRM)


def write_sample_study(root: Path, best: bool = True, bounds: bool = True, fixed: bool = False) -> StudyDir:
    """Write a study; `fixed` adds the trials of the configurations in FIXED to the searched ones."""
    study = StudyDir(root)
    study.create(
        {
            "name": study.name,
            "id": "0a1b2c3d",
            "python_path": [],
            "phases": ["range_test", "search", "confirm"],
            "created": "2026-01-15T10:12:44+00:00",
            "config": CONFIG,
            "packages": {"tune-lr": "0.1.0", "torch": "2.5.1", "colossalai": "0.5.0", "ray": "2.60.0"},
            "hardware": {"nodes": 1, "cpus": 2, "gpus": 0, "gpu_type": None},
        }
    )
    rows = [_ramp(study, number) for number in range(3)]
    for number, (name, lr, state, steps) in enumerate(SEARCH, FIRST_SEARCH):
        rows.append(_trial(study, number, "search", name, lr, state, steps, seed=0))
    for number, (name, lr, seed) in enumerate(CONFIRM, FIRST_CONFIRM):
        rows.append(_trial(study, number, "confirm", name, lr, "complete", STEPS, seed))
    if fixed:
        for number, (label, name, lr, parameters) in enumerate(FIXED, FIRST_FIXED):
            row = _trial(study, number, "search", name, lr, "complete", STEPS, seed=0, parameters=parameters)
            rows.append(replace(row, label=label))
    rows = _timed(rows)
    study.write_rows(rows)
    if bounds:
        write_json(
            study.bounds_json,
            {
                "low": 0.011, "high": 1.2, "suggestion": 0.24, "status": "ok", "replicates": 3,
                "reason": "the loss falls from 0.011 on and diverges beyond 1.2",
            },
        )  # fmt: skip
    if best:
        write_yaml(study.best_yaml, _best(rows))
    return study


def _timed(rows: list[TrialRow]) -> list[TrialRow]:
    """Return the rows on two slots, each on the slot that is free first; a phase begins when the last one has ended."""
    free, timed = [0.0, 0.0], []
    for phase in ("range_test", "search", "confirm"):
        for row in (row for row in rows if row.phase == phase):
            slot = free.index(min(free))
            timed.append(replace(row, slot=slot, started_s=round(free[slot], 3)))
            free[slot] += row.duration_s + 0.1
        free = [max(free)] * 2
    return sorted(timed, key=lambda row: row.number)


def _ramp(study: StudyDir, number: int) -> TrialRow:
    random = np.random.default_rng(number)
    start_curve(study.range_curve(number), RANGE_CURVE_COLUMNS)
    steps, points = 270 - 4 * number, []
    for step in range(steps):
        lr = 1e-5 * 10 ** (6 * step / 299)
        fall = 2.05 / (1 + (0.06 / lr) ** 1.7)
        burst = 0.6 * max(0.0, math.log10(lr / 0.9)) ** 2 * 8
        points.append((step, lr, 2.31 - fall + burst + float(random.normal(0, 0.05 + 0.1 * fall / 2))))
    append_points(study.range_curve(number), points)
    return TrialRow(number, "range_test", "complete", "ramp", 10.0, {}, number, steps, {}, 2.1)


def _trial(
    study: StudyDir,
    number: int,
    phase: str,
    name: str,
    lr: float,
    state: str,
    steps: int,
    seed: int,
    parameters: dict[str, Any] | None = None,
) -> TrialRow:
    parameters = PARAMETERS[name] if parameters is None else parameters
    random = np.random.default_rng([seed, number])
    gamma = parameters.get("gamma")
    shape = SHAPES[name] if gamma is None else lambda t: gamma ** int(t / 0.3)
    factor = [shape(step / STEPS) for step in range(STEPS)]
    progress = np.cumsum(np.minimum(np.array(factor) * lr, 0.5))
    columns = (*CURVE_COLUMNS, "val_loss", "val_accuracy")
    study.start_trial(number, {"lr_schedule": name, "lr": lr, **parameters})
    start_curve(study.curve(number), columns)
    points, metrics = [], {}
    for step in range(steps):
        noise = 0.03 * lr * factor[step] / 0.3
        loss = 0.05 + 2.25 / (1 + 1.1 * progress[step]) + 1.5 * noise
        if state == "diverged" and step > steps - 10:
            loss *= 1.6 ** (step - steps + 10)
        train = float(loss * math.exp(random.normal(0, 0.12)))
        point: list[float | None] = [step, lr * factor[step], train, None, None]
        if (step + 1) % REPORT_EVERY == 0:
            validated = float(loss * 1.04 + abs(random.normal(0, 0.003)))
            point[3:] = [validated, max(0.1, 1 - validated * 0.3)]
            metrics = {"val_loss": validated, "val_accuracy": max(0.1, 1 - validated * 0.3)}
        points.append(point)
    append_points(study.curve(number), points)
    reasons = {"diverged": "loss 64.1 at step 48", "failed": "worker died three times", "pruned": "rung 62"}
    qualified = {f"{name}.{key}": value for key, value in parameters.items()}
    return TrialRow(
        number,
        phase,
        state,
        name,
        lr,
        qualified,
        seed,
        steps,
        metrics,
        steps * 0.0093,
        reason=reasons.get(state, ""),
    )


def _best(rows: list[TrialRow]) -> dict[str, Any]:
    finalists: list[dict[str, Any]] = []
    for (name, lr), trial in {("onecycle", 0.31): FIRST_SEARCH, ("cosine", 0.12): FIRST_SEARCH + 1}.items():
        own = [row for row in rows if row.phase == "confirm" and row.lr_schedule == name]
        values = [row.metrics["val_loss"] for row in own]
        mean, half = float(np.mean(values)), 12.706 * float(np.std(values, ddof=1)) / math.sqrt(2)
        finalists.append(
            {
                "lr_schedule": name, "lr": lr, "parameters": PARAMETERS[name], "trial": trial, "mean": mean,
                "interval": [mean - half, mean + half], "values": values, "seeds": [row.seed for row in own],
                "confirm_trials": [row.number for row in own],
            }
        )  # fmt: skip
    winner, second = finalists
    difference = winner["mean"] - second["mean"]
    told_apart = {
        "difference": difference,
        "difference_interval": [difference - 0.01, difference + 0.01],
        "distinguishable": True,
    }
    second |= told_apart
    return {
        **{name: winner[name] for name in ("lr_schedule", "lr", "parameters")},
        "optimizer": CONFIG["optimizer"],
        "batch_size": 128,
        "max_steps": STEPS,
        "metric": CONFIG["metric"],
        **{name: winner[name] for name in ("mean", "interval")},
        "seeds": [1, 2],
        **{name: winner[name] for name in ("values", "trial", "confirm_trials")},
        "runner_up": {
            **{name: second[name] for name in ("lr_schedule", "lr", "parameters", "mean", "interval", "trial")},
            **told_apart,
        },
        "finalists": finalists,
        "families": [
            {
                "lr_schedule": finalist["lr_schedule"],
                "lr": finalist["lr"],
                "value": finalist["mean"],
                "trial": finalist["trial"],
                "trials": 2,
            }
            for finalist in finalists
        ],
        "verdict": "onecycle at lr 0.31 is better than cosine at lr 0.12 on both seeds.",
        "test": {"loss": 0.0912, "accuracy": 0.9725},
        "steps": {
            "range_test": sum(row.steps for row in rows if row.phase == "range_test"),
            "search": sum(row.steps for row in rows if row.phase == "search"),
            "confirm": sum(row.steps for row in rows if row.phase == "confirm"),
            "full_trainings": round(sum(row.steps for row in rows) / STEPS, 1),
        },
        "code": CODE,
    }
