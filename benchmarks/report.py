"""The report of a large study: how long it takes to make, how big it is, how long it takes to open.

    python benchmarks/report.py [--trials 500] [--points 1000] [--out DIR]

The study is made up, in the study directory's own formats: ramps, searched trials of every LR schedule (some pruned,
some diverged), fixed configurations and confirmations. `make_s` is the time of `write_report`, pictures included, in a
process that has imported what it needs. `open_s` is from the navigation to two frames after the page has loaded, in
headless Chromium (its start apart), the median of five; the page draws all charts before it counts as loaded.
"""

import argparse
import json
import math
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tune_lr.records.looks import SCHEDULES
from tune_lr.records.row import TrialRow
from tune_lr.store.curves import CURVE_COLUMNS, RANGE_CURVE_COLUMNS, append_points, start_curve
from tune_lr.store.files import write_json
from tune_lr.store.study_dir import StudyDir

REPORTS = 20  # validations of a full trial
RAMPS, FINALISTS, SEEDS, FIXED_OF_EACH = 3, 3, 3, 2
TO_REACH = {"make_s": 20.0, "megabytes": 10.0, "open_s": 3.0}


def make_study(root: Path, trials: int, points: int) -> StudyDir:
    """A study of so many trials in all, each with a curve of so many points unless it was stopped."""
    random = np.random.default_rng(0)
    study = StudyDir(root)
    config: dict[str, Any] = {
        "workload": "made_up:workload", "metric": {"name": "val_loss", "goal": "minimize"}, "max_steps": points,
        "report_every": points // REPORTS, "num_trials": trials, "seed": 0,
        "confirm": {"top": FINALISTS, "seeds": SEEDS},
        "range_test": {"low": 1e-5, "high": 10.0, "steps": points, "replicates": RAMPS},
    }  # fmt: skip
    study.create({"name": study.name, "created": "2026-01-15T10:12:44+00:00", "config": config})
    bounds = {"low": 0.01, "high": 1.2, "suggestion": 0.2, "status": "ok", "reason": "", "replicates": RAMPS}
    write_json(study.bounds_json, bounds)
    kinds = ["range_test"] * RAMPS
    kinds += ["fixed"] * FIXED_OF_EACH * len(SCHEDULES)
    kinds += ["search"] * (trials - len(kinds) - FINALISTS * SEEDS)
    kinds += ["confirm"] * FINALISTS * SEEDS
    rows, clock = [], 0.0
    for number, kind in enumerate(kinds):
        row = (
            _ramp(study, number, points, random)
            if kind == "range_test"
            else _trial(study, number, kind, points, random)
        )
        rows.append(TrialRow(**{**vars(row), "started_s": clock, "slot": number % 8, "duration_s": row.steps * 0.01}))
        clock += row.steps * 0.01 / 8
    study.write_rows(rows)
    return study


def _ramp(study: StudyDir, number: int, points: int, random: np.random.Generator) -> TrialRow:
    lrs = np.geomspace(1e-5, 10.0, points)
    losses = (
        2.3 - 2 / (1 + (0.05 / lrs) ** 1.5) + 20 * np.clip(np.log10(lrs), 0, None) ** 2 + random.normal(0, 0.05, points)
    )
    start_curve(study.range_curve(number), RANGE_CURVE_COLUMNS)
    append_points(study.range_curve(number), zip(range(1, points + 1), lrs.tolist(), losses.tolist(), strict=True))
    return TrialRow(number, "range_test", "complete", "ramp", 10.0, {}, number, points)


def _trial(study: StudyDir, number: int, kind: str, points: int, random: np.random.Generator) -> TrialRow:
    place = number % len(SCHEDULES)
    name, lr = SCHEDULES[place], float(10 ** random.uniform(-2, 0.1))
    state = (
        str(random.choice(["complete", "pruned", "diverged"], p=[0.6, 0.3, 0.1])) if kind == "search" else "complete"
    )
    steps = {"complete": points, "pruned": points * int(random.integers(4, 19)) // REPORTS}.get(state, points // 9)
    t = np.arange(steps) / points
    factor = np.clip((1 - t) ** (0.3 * place) * (0.6 + 0.4 * np.cos(0.5 * place * math.pi * t)), 0, None)
    goal = 0.1 + 0.05 * (math.log10(lr) + 0.8 + 0.02 * place) ** 2
    losses = (goal + 2.2 * np.exp(-9 * t * min(1.0, 4 * lr))) * np.exp(random.normal(0, 0.15, steps))
    every = points // REPORTS
    validated = np.full(steps, np.nan)
    validated[every - 1 :: every] = goal + 2.2 * np.exp(-9 * t[every - 1 :: every]) + random.normal(0, 0.002)
    study.start_trial(number, {})
    start_curve(study.curve(number), [*CURVE_COLUMNS, "val_loss"])
    cells = ([None if math.isnan(value) else value for value in column] for column in
             (range(1, steps + 1), (lr * factor).tolist(), losses.tolist(), validated.tolist()))  # fmt: skip
    append_points(study.curve(number), zip(*cells, strict=True))
    measured = validated[np.isfinite(validated)]
    metrics = {"val_loss": float(measured[-1])} if len(measured) else {}
    label = f"{name} number {number}" if kind == "fixed" else ""
    parameters = {f"{name}.gamma": float(random.uniform(0.1, 0.9))}
    phase = "confirm" if kind == "confirm" else "search"
    return TrialRow(number, phase, state, name, lr, parameters, 0, steps, metrics, label=label)


def opening_seconds(page: Path, times: int = 5) -> float:
    from playwright.sync_api import sync_playwright

    seconds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), chromium_sandbox=False)
        browser.new_page().goto("about:blank")
        for _ in range(times):
            context = browser.new_context()
            tab = context.new_page()
            began = time.monotonic()
            tab.goto(page.as_uri())
            tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            seconds.append(time.monotonic() - began)
            assert tab.locator(".chart svg").count() == tab.locator(".chart").count() > 0
            context.close()
        browser.close()
    return median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="keep the study there")
    options = parser.parse_args()
    from tune_lr.show.report import write_report

    with tempfile.TemporaryDirectory() as temporary:
        study = make_study((options.out or Path(temporary)) / "study", options.trials, options.points)
        began = time.monotonic()
        write_report(study)
        figures = {"make_s": time.monotonic() - began, "megabytes": study.report_html.stat().st_size / 1e6}
        if shutil.which("chromium"):
            figures["open_s"] = opening_seconds(study.report_html)
    for name, figure in figures.items():
        print(f"{name:<10} {figure:6.2f}   to reach: below {TO_REACH[name]:g}")
    print(json.dumps({name: round(figure, 3) for name, figure in figures.items()}))


if __name__ == "__main__":
    main()
