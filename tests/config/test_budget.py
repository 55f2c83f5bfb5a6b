"""Budgets: what they buy, that they hold, and that a resumed study keeps to the same one."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulated import FIXED_LR, SMALL, Log, execute, open_study, train
from tune_lr.config.budget import Budget, confirmation_within, parse_budget
from tune_lr.config.load import parse_config
from tune_lr.config.model import UNLIMITED, Config
from tune_lr.config.plan import plan
from tune_lr.errors import InputError
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.study.study import Study

WITHOUT_NUMBER = {name: value for name, value in SMALL.items() if name != "num_trials"}
FULL = SMALL["max_steps"]


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


def budgeted(budget: str, **changes: Any) -> Config:
    return parse_config({**WITHOUT_NUMBER, "parameters": FIXED_LR, "budget": budget, **changes})


def phases(study: Study) -> list[str]:
    return [row.phase for row in study.rows()]


# --- what is written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("12x", Budget(trainings=12)),
        ("7.5x", Budget(trainings=7.5)),
        ("90s", Budget(seconds=90)),
        ("30m", Budget(seconds=1800)),
        ("2h", Budget(seconds=7200)),
    ],
)
def test_a_budget_is_trainings_or_time(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["12", "x", "0x", "-3x", "1d", "1:30", "", "12 trainings", "nan x", "1e3x"])
def test_whatever_else_is_no_budget(text: str) -> None:
    with pytest.raises(InputError, match=r"budget: is no budget \(got .*\); write 12x .*, 90s, 30m or 2h"):
        budgeted(text)


def test_without_a_number_of_trials_the_budget_alone_ends_the_search() -> None:
    assert budgeted("12x").num_trials == UNLIMITED
    assert budgeted("12x", num_trials=7).num_trials == 7
    with pytest.raises(InputError, match="num_trials: is missing"):
        parse_config(WITHOUT_NUMBER)


def test_a_budget_that_buys_no_trial_is_refused_with_the_least_that_would() -> None:
    ramps = {"parameters": SMALL["parameters"]}  # 2 ramps of 120 steps, trainings of 8: 30 trainings and one
    with pytest.raises(InputError, match=r"ramps take up to 240 steps, a training 8; allowed: from 31x up"):
        budgeted("30.9x", **ramps)
    assert plan(budgeted("31x", **ramps)).trials == 1


@pytest.mark.parametrize(
    ("trainings", "top", "seeds"),
    [(99, 3, 3), (9, 3, 3), (8, 2, 3), (6, 2, 3), (5, 2, 2), (4, 2, 2), (3, 2, 1), (2, 2, 1), (1, 1, 1), (0, 0, 0)],
)
def test_a_confirmation_shrinks_to_two_finalists_and_then_to_fewer_seeds(trainings: int, top: int, seeds: int) -> None:
    assert confirmation_within(trainings, 3, 3) == (top, seeds)


def test_the_plan_says_what_a_budget_buys() -> None:
    planned = plan(budgeted("12x", confirm={"top": 3, "seeds": 3}))
    assert (planned.trials, planned.confirmations, planned.steps) == (6, 6, 12 * FULL)
    assert plan(budgeted("12x", num_trials=2)).trials == 2
    assert plan(budgeted("12x"), ["range_test"]).confirmations == 0


# --- trainings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("budget", ["6x", "9.5x", "20x"])
def test_the_search_ends_before_a_trial_would_pass_the_budget(tmp_path: Path, budget: str, slots: int) -> None:
    log = Log()
    study = open_study(tmp_path / "s", budgeted(budget), observers=[log])
    execute(study, slots=slots)
    steps, most = sum(study.trials.steps_by_phase().values()), float(budget[:-1]) * FULL
    assert study.over
    assert steps <= most < steps + 2 * FULL
    assert phases(study).count("confirm") == plan(study.config).confirmations
    assert phases(study).count("search") >= plan(study.config).trials
    assert log.of("phase_started")[0] == ("search", 0)


def test_ramps_count_and_so_does_the_number_of_trials(tmp_path: Path) -> None:
    config = budgeted("45x", parameters=SMALL["parameters"])
    study = open_study(tmp_path / "s", config)
    execute(study)
    assert study.trials.steps_by_phase()["range_test"] > 20 * FULL
    assert sum(study.trials.steps_by_phase().values()) <= 45 * FULL
    few = open_study(tmp_path / "few", budgeted("45x", num_trials=3))
    execute(few)
    assert phases(few).count("search") == 3


@pytest.mark.parametrize("slots", [1, 2])
def test_a_killed_study_keeps_to_its_budget_of_trainings(tmp_path: Path, slots: int) -> None:
    config = budgeted("9x")
    whole = open_study(tmp_path / "whole", config)
    reports = len(execute(whole, slots=slots))
    for cut in range(1, reports, 5):
        root = tmp_path / str(cut)
        execute(open_study(root, config), slots=slots, reports=cut)
        study = open_study(root, config)
        execute(study, slots=slots)
        assert sum(study.trials.steps_by_phase().values()) <= 9 * FULL
        assert [row.number for row in study.rows()] == list(range(len(study.rows())))
        assert phases(study).count("confirm") == 4
        assert phases(study) == sorted(phases(study), reverse=True)
    again = open_study(root, config)
    assert execute(again, slots=slots) == []
    assert again.over


def test_a_larger_budget_goes_on_with_the_search(tmp_path: Path) -> None:
    execute(open_study(tmp_path / "s", budgeted("9x")))
    before = open_study(tmp_path / "s", budgeted("9x")).rows()
    study = open_study(tmp_path / "s", budgeted("20x"))
    execute(study)
    assert study.rows()[: len(before)] == before
    assert phases(study).count("search") > [row.phase for row in before].count("search")
    assert sum(study.trials.steps_by_phase().values()) <= 20 * FULL


# --- time ---------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def training(self, spec: TrialSpec, config: Config) -> Iterator[Report]:
        """A report takes 0.5 s: a whole training 2."""
        for report in train(spec, config):
            self.now += report.seconds
            yield report


@pytest.mark.parametrize("seconds", [12, 20, 31])
def test_time_is_left_for_the_confirmation(tmp_path: Path, seconds: int) -> None:
    clock = Clock()
    study = open_study(tmp_path / "s", budgeted(f"{seconds}s"), clock=clock)
    execute(study, train=clock.training)
    assert phases(study).count("confirm") == (4 if seconds > 16 else 2)  # half of the time: 8 s for 2 x 2 of 2 s
    assert seconds - 4 <= study.elapsed() <= seconds


def test_time_that_was_spent_counts_and_the_time_between_drivers_does_not(tmp_path: Path) -> None:
    config, clock = budgeted("30s"), Clock()
    execute(open_study(tmp_path / "s", config, clock=clock), train=clock.training, reports=20)
    assert clock.now == 1010.0
    clock.now += 3600
    study = open_study(tmp_path / "s", config, clock=clock)
    assert 8 <= study.elapsed() <= 10  # as of the last trial's end
    execute(study, train=clock.training)
    assert 26 <= study.elapsed() <= 30
    assert phases(study).count("confirm") == 4
    again = open_study(tmp_path / "s", config, clock=clock)
    assert execute(again) == []
    assert again.over


def test_a_time_budget_that_is_gone_still_confirms_what_was_found(tmp_path: Path) -> None:
    clock = Clock()
    study = open_study(tmp_path / "s", budgeted("30s"), clock=clock)
    execute(study, train=clock.training, reports=12)
    clock.now += 100  # something else held the machine
    for spec in study.begun():
        study.lost(spec.number)
    execute(study, train=clock.training)
    assert study.over
    assert phases(study).count("confirm") > 0
