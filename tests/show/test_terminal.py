"""What a person sees: plain lines where there is no terminal, a live screen where there is one."""

import io
import math
import re
from typing import Any

import pytest
from rich.console import Console

from tune_lr.config.hardware import Hardware
from tune_lr.config.load import load_config
from tune_lr.config.model import Config
from tune_lr.config.plan import Plan, plan
from tune_lr.lr.bounds import LRBounds
from tune_lr.lr.ramp import Ramp
from tune_lr.lr.schedules import SCHEDULES
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.show.terminal.plan import show_plan
from tune_lr.show.terminal.progress import Progress
from tune_lr.show.terminal.schedules import show_schedule
from tune_lr.show.terminal.words import sparkline

STEPS = 100
SETTINGS = ["num_trials=48", "range_test.replicates=3", "sampler.name=tpe", "pruner={}"]
SHORT = [*SETTINGS, f"max_steps={STEPS}", "report_every=25"]
PLAN = Plan(ramps=0, ramp_steps=300, trials=4, confirmations=0, max_steps=STEPS)


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config("lenet5_mnist", SHORT)


def plain_console() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=False, width=120), out


def run_trial(progress: Progress, number: int, state: str = "complete", **changes: Any) -> None:
    """A trial of 100 steps that takes ten seconds."""
    trial = TrialSpec(number, "search", 0, STEPS, lr=0.1 / number, lr_schedule="cosine")
    progress.trial_started(trial)
    for step in (50, 100):
        progress.trial_reported(trial, Report(step, metrics={"val_loss": number / step}, seconds=5.0))
    metrics = {"val_loss": number / 100} if state == "complete" else {}
    row = TrialRow(number, "search", state, "cosine", trial.lr, {}, 0, STEPS, metrics)
    progress.trial_ended(trial, TrialRow(**{**vars(row), **changes}))


def test_without_a_terminal_each_trial_is_a_plain_line(config: Config) -> None:
    console, out = plain_console()
    with Progress(console, config, PLAN) as progress:
        progress.phase_started("search", 4)
        run_trial(progress, 1)
        run_trial(progress, 2, "pruned")
        run_trial(progress, 3, "diverged")
        run_trial(progress, 4, "failed", reason="a worker died [3 times]")
        progress.notice("a [note]")
    assert out.getvalue().splitlines() == [
        "search: 4 trials",
        "    1/4 #1   cosine       lr 0.1         100 steps  val_loss 0.01  [30 s left]",
        "    2/4 #2   cosine       lr 0.05        100 steps   pruned  [20 s left]",
        "    3/4 #3   cosine       lr 0.0333      100 steps   diverged  [10 s left]",
        "    4/4 #4   cosine       lr 0.025       100 steps   failed (a worker died [3 times])  [0 s left]",
        "note: a [note]",
    ]
    assert "\x1b" not in out.getvalue()


def times_left(text: str) -> list[int]:
    return [int(n) * (60 if unit == "min" else 1) for n, unit in re.findall(r"\[(\d+) (min|s) left\]", text)]


@pytest.mark.parametrize(("slots", "expected"), [(1, [30, 20, 10, 0]), (2, [15, 10, 5, 0])])
def test_the_time_left_decreases_and_is_shared_by_the_slots(config: Config, slots: int, expected: list[int]) -> None:
    console, out = plain_console()
    progress = Progress(console, config, PLAN)
    progress.cluster_joined(slots, Hardware(nodes=1, cpus=slots, gpus=0))
    progress.phase_started("search", 4)
    for number in range(1, 5):
        run_trial(progress, number)
    assert times_left(out.getvalue()) == expected


def test_the_time_left_counts_the_phases_to_come(config: Config) -> None:
    """3 ramps of 300 steps, then 4 trials and 9 confirmations of 100."""
    console, out = plain_console()
    progress = Progress(console, config, Plan(3, 300, 4, 9, STEPS))
    progress.phase_started("range_test", 3)
    ramp = TrialSpec(0, "range_test", 0, 300, ramp=Ramp(1e-5, 10, 300))
    progress.trial_started(ramp)
    progress.trial_reported(ramp, Report(300, seconds=30.0))
    progress.trial_ended(ramp, TrialRow(0, "range_test", "complete", "", math.nan, {}, 0, 300))
    lines = out.getvalue().splitlines()
    assert lines == ["LR range test: 3 ramps", "    1/3 #0   ramp   300 steps   complete  [3 min left]"]  # 190 s


def test_bounds_are_shown_and_so_is_why_there_are_none(config: Config) -> None:
    console, out = plain_console()
    progress = Progress(console, config, PLAN)
    progress.bounds_found(LRBounds(0.0123, 1.5, 0.3, "ok", "the loss falls", 3))
    progress.bounds_found(LRBounds(None, None, None, "no_descent", "the loss never falls", 3))
    assert out.getvalue().splitlines() == [
        "LR bounds: 0.0123 to 1.5, suggestion 0.3",
        "  the loss falls",
        "no LR bounds (no_descent)",
        "  the loss never falls",
    ]


def test_a_terminal_shows_the_leaders_and_what_runs(config: Config) -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, force_terminal=True, width=120), config, PLAN)
    with progress:
        progress.phase_started("search", 4)
        for number in (3, 1, 2):
            run_trial(progress, number)
        trial = TrialSpec(9, "search", 0, STEPS, lr=0.2, lr_schedule="onecycle")
        progress.trial_started(trial)
        progress.trial_reported(trial, Report(25, metrics={"val_loss": 0.5}, seconds=1.0))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    leaders = [int(number) for number in re.findall(r"new leader: #(\d+)", text)]
    assert leaders == [3, 1]  # 2 is worse than 1
    assert "onecycle lr 0.2" in text
    assert "3/4 trials" in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([1.0], ""),
        ([math.nan, 1.0], ""),
        ([1, 2], "▁█"),
        ([2, 1], "█▁"),
        ([3, 3, 3], "▁▁▁"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([0, math.inf, 7, math.nan, -math.inf], "▁█"),
        ([-1e9, 0, 1e9], "▁▅█"),
        ([1e-9, 2e-9], "▁█"),
    ],
)
def test_a_sparkline_draws_the_lowest_value_at_the_bottom(values: Any, expected: str) -> None:
    assert sparkline(values) == expected


def test_a_long_curve_shows_its_end() -> None:
    assert sparkline([0, *[5] * 99]) == "█" * 24


def test_the_plan_says_trials_steps_and_schedules() -> None:
    config = load_config("lenet5_mnist", [*SHORT, "confirm.max_seeds=5"])
    console, out = plain_console()
    show_plan(console, "first", config, plan(config))
    text = out.getvalue()
    assert text.splitlines()[0] == "first: tune_lr.workloads.lenet5:mnist_5k, sgd"
    assert "3 ramps of 300 steps, LR 1e-05 to 10" in text
    assert "48 trials of at most 100 steps: constant, step, exponential, cosine, onecycle, cyclic" in text
    assert "TPE proposes, the best 1/3 go on from step 25" in text
    text = " ".join(text.split())
    finalists = "the best of 3 LR schedules and 2 runners-up, 3 fresh seeds each"
    assert f"{finalists}, up to 5 where that may tell them apart" in text
    assert f"{3 * 300 + (48 + 25) * 100:,} at most" in text


def test_the_plan_says_what_a_budget_buys() -> None:
    console, out = plain_console()
    config = load_config("lenet5_mnist", [*SHORT, "budget=20x", "num_trials=null"])
    show_plan(console, "first", config, plan(config))
    text = " ".join(out.getvalue().split())
    assert "20x, full trainings of 100 steps, LR range test and confirmation included" in text
    assert "at least 7, as many trials as it buys, each of at most 100 steps" in text  # 9 for ramps, 4 for 2 x 2
    assert "the best of 2 LR schedules, 2 fresh seeds each" in text
    assert "2,000 at most" in text
    console, out = plain_console()
    config = load_config("lenet5_mnist", [*SHORT, "budget=30m"])
    show_plan(console, "first", config, plan(config))
    text = " ".join(out.getvalue().split())
    assert "30m, of time" in text
    assert "as many trials as it buys, at most 48, each of at most 100 steps" in text
    assert "at most to come" not in text
    assert "steps " not in text.split("confirm")[1]


def test_a_search_that_a_budget_ends_counts_no_trials_to_come() -> None:
    config = load_config("lenet5_mnist", [*SHORT, "budget=20x", "num_trials=null"])
    console, out = plain_console()
    with Progress(console, config, plan(config)) as progress:
        progress.phase_started("search", 0)
        run_trial(progress, 1)
    assert out.getvalue().splitlines() == [
        "search: as many trials as the budget buys",
        "    1 #1   cosine       lr 0.1         100 steps  val_loss 0.01  [3 min left]",  # 1,900 steps, ten a second
    ]


def test_the_plan_of_a_range_test_alone_names_no_trials(config: Config) -> None:
    console, out = plain_console()
    show_plan(console, "first", config, plan(config, ["range_test"]))
    assert "3 ramps" in out.getvalue()
    assert "900 at most" in out.getvalue()
    assert "search" not in out.getvalue()
    assert "confirm" not in out.getvalue()


def test_the_plan_leaves_out_what_is_switched_off() -> None:
    config = load_config("lenet5_mnist", ["parameters.lr={min: 0.01, max: 1}", "confirm.top=0", "pruner={name: none}"])
    console, out = plain_console()
    show_plan(console, "first", config, plan(config), slots=2)
    assert "slots" in out.getvalue()
    assert "2 of 1 worker, 1 CPU each" in out.getvalue()
    assert "nothing is pruned" in out.getvalue()
    assert "ramps" not in out.getvalue()
    assert "confirm" not in out.getvalue()


@pytest.mark.parametrize("name", ["[a]/space.yaml", "[/]space.yaml"])
def test_a_name_with_brackets_is_shown_as_it_is(config: Config, name: str) -> None:
    console, out = plain_console()
    show_plan(console, name, config, plan(config))
    assert out.getvalue().startswith(name)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_shown_with_its_parameters_and_its_curve(name: str) -> None:
    console, out = plain_console()
    show_schedule(console, SCHEDULES[name])
    head, curve, *table = out.getvalue().splitlines()
    assert head.startswith(f"{name}  ")
    assert len(curve.strip()) == 24
    assert [line.split()[0] for line in table[1:] if line[2:3].strip()] == [p.name for p in SCHEDULES[name].parameters]
