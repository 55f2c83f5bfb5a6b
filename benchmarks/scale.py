"""What a study of very many trials costs the driver.

    python benchmarks/scale.py [--trials 5000] [--slots 8]    simulated trials: a study without Ray and training
    python benchmarks/scale.py --part ray [--trials 300]      real trials of two steps through Ray, end to end

The simulated study is the default search space, with losses from a formula and reports as often as there. A trial's
cost is the CPU time of all calls that it makes to the study (ask, reports, the last of which tells), the mean of 100
trials up to the number shown; the wall time is beside it. Those 100 the default sampler proposes, the ones before them
are random, to save time: what a proposal costs depends on how many there are. At the end the study is opened again, as
after a kill, its finalists are confirmed and its table is written.
"""

import argparse
import math
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from overhead import TINY
from tune_lr.config.load import load_config
from tune_lr.config.model import Config
from tune_lr.records.trial import Report, TrialFacts, TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.study import Study

FACTS = TrialFacts(128, 31, "SGD", cycles_momentum=True, metrics=("val_loss",))
OFFSETS = {"cosine": 0.0, "onecycle": 0.01, "step": 0.02, "exponential": 0.04, "cyclic": 0.02, "constant": 0.05}
WINDOW = 100  # trials over which a cost is averaged


def train(spec: TrialSpec, config: Config, random: np.random.Generator) -> Iterator[Report]:
    final = 0.1 + OFFSETS[spec.lr_schedule] + 0.1 * math.log10(spec.lr / 0.2) ** 2 + 0.01 * random.normal()
    for step in range(config.report_every, config.max_steps + 1, config.report_every):
        value = final + 2.2 * math.exp(-step / 40)
        points = tuple((s, spec.lr, value) for s in range(step - config.report_every + 1, step + 1))
        yield Report(step, points, {"val_loss": value}, over=step == config.max_steps, facts=FACTS, seconds=1.0)


def simulated(trials: int, slots: int) -> None:
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        directory = StudyDir(Path(folder) / "study")
        directory.create({})
        print("| trials | ask, ms | reports, ms | in all, ms of CPU | in all, ms | MB |\n|---|---|---|---|---|---|")
        for number in [count for count in (100, 500) if count < trials] + [trials]:
            if number > WINDOW:
                costs(directory, random, slots, num_trials=number - WINDOW, sampler="random", top=0)
            ask, told, wall = costs(directory, random, slots, num_trials=number, sampler="gp", top=0)
            figures = [f"{1000 * figure / WINDOW:.1f}" for figure in (ask, told, ask + told, wall)]
            print(f"| {number} | {' | '.join(figures)} | {peak_mb():.0f} |", flush=True)
        print(f"\njournal {directory.journal.stat().st_size / 1e6:.0f} MB, peak of memory {peak_mb():.0f} MB")
        began = time.monotonic()
        study = Study(space(trials, "gp", 3), directory)
        print(f"opened again in {time.monotonic() - began:.1f} s")
        began = time.monotonic()
        execute(study, random, slots)
        print(f"confirmed in {time.monotonic() - began:.1f} s; ", end="")
        began = time.monotonic()
        directory.write_rows(study.rows())
        print(f"trials.csv in {time.monotonic() - began:.1f} s")


def space(num_trials: int, sampler: str, top: int) -> Config:
    changes = ["parameters.lr={min: 0.01, max: 1.0}", f"num_trials={num_trials}", f"sampler.name={sampler}"]
    return load_config("lenet5_mnist", [*changes, f"confirm.top={top}"])


def costs(
    directory: StudyDir, random: np.random.Generator, slots: int, num_trials: int, sampler: str, top: int
) -> tuple[float, float, float]:
    """Goes on up to so many trials; the CPU seconds of asking and of reporting, and the wall seconds of both."""
    study = Study(space(num_trials, sampler, top), directory)
    return execute(study, random, slots)


def execute(study: Study, random: np.random.Generator, slots: int) -> tuple[float, float, float]:
    ask = told = wall = 0.0
    running: list[tuple[TrialSpec, Iterator[Report]]] = []
    while not study.over:
        while len(running) < slots:
            began = time.process_time(), time.monotonic()
            spec = study.next_trial()
            ask, wall = ask + time.process_time() - began[0], wall + time.monotonic() - began[1]
            if spec is None:
                break
            running.append((spec, train(spec, study.config, random)))
        for spec, trial in list(running):
            report = next(trial)
            began = time.process_time(), time.monotonic()
            goes_on = study.report(spec.number, report)
            told, wall = told + time.process_time() - began[0], wall + time.monotonic() - began[1]
            if not goes_on:
                running.remove((spec, trial))
    assert study.error is None
    return ask, told, wall


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


SPACE = """
workload: tiny:make_workload
max_steps: 2
report_every: 2
pruner: {name: none}
confirm: {top: 0}
parameters:
  lr: {min: 1e-3, max: 1e-1}
  lr_schedule: {values: [constant, cosine]}
"""


def through_ray(trials: int) -> None:
    """By the command line's own code; the start of the workers is left out, W&B's process too."""
    from tune_lr.cli.main import main

    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "tiny.py").write_text(TINY)
        Path(scratch, "space.yaml").write_text(f"{SPACE}num_trials: {trials}\n")
        where = ["--out", scratch, "--name", "study", "--wandb", "disabled"]
        assert main(["search", f"{scratch}/space.yaml", *where]) == 0
        rows = StudyDir(Path(scratch) / "study").read_rows()
    ends = sorted(row.started_s + row.duration_s for row in rows)
    quarter = len(ends) // 4
    print(
        f"\n{trials} trials, {os.cpu_count()} CPUs, {1 + max(row.slot for row in rows)} slots, from the first's start"
    )
    print(f"to the last's end: {ends[-1] / trials:.3f} s a trial; ", end="")
    print(
        f"the first quarter {ends[quarter] / quarter:.3f}, the last {(ends[-1] - ends[-quarter]) / (quarter - 1):.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["simulated", "ray"], default="simulated")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--slots", type=int, default=8)
    options = parser.parse_args()
    if options.part == "ray":
        through_ray(options.trials or 300)
    else:
        simulated(options.trials or 5000, options.slots)


if __name__ == "__main__":
    main()
