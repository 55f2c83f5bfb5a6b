"""A study keeps to its budget of trainings or of time, also where it is killed and gone on with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parts import Parts, parts_of, searched
from simulated import FIXED_LR, SMALL, Log, config_of, execute, open_study, train
from tune_lr.config.load import parse_config
from tune_lr.config.model import Config
from tune_lr.config.plan import plan
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.study.spending import BudgetKeeper
from tune_lr.study.study import Study

WITHOUT_NUMBER = {name: value for name, value in SMALL.items() if name != "num_trials"}
FULL = SMALL["max_steps"]


def budgeted(budget: str, **changes: Any) -> Config:
    return parse_config({**WITHOUT_NUMBER, "parameters": FIXED_LR, "budget": budget, **changes})


def phases(study: Study) -> list[str]:
    return [row.phase for row in study.rows()]


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
    for spec in study.trials.begun():
        study.lost(spec.number)
    execute(study, train=clock.training)
    assert study.over
    assert phases(study).count("confirm") > 0


# --- the keeper of a budget by itself -------------------------------------------------------------------------


class Held:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def keeper_of(parts: Parts, clock: Held | None = None) -> BudgetKeeper:
    return BudgetKeeper(parts.config, parts.journal, parts.trials, clock or Held())


def test_a_budget_of_trainings_counts_what_has_ended_and_what_runs(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "s", budgeted("4x"))
    keeper = keeper_of(parts)
    assert keeper.holds(4)
    assert not keeper.holds(2, 3)
    parts.add("search", searched(0), steps=FULL)
    parts.trials.add("search", searched(1))  # has not ended, and may take a whole training
    assert keeper.holds(1, 1)
    assert not keeper.holds(1, 2)


def test_a_trial_of_a_ladder_counts_by_its_length_and_not_as_a_full_training(tmp_path: Path) -> None:
    ladder = {"max_steps": 640, "lengths": [1 / 16, 1 / 4, 1], "pruner": {"name": "none"}, "confirm": {"top": 0}}
    parts = parts_of(tmp_path / "s", budgeted("0.5x", **ladder, sampler={"name": "gp"}))
    keeper = keeper_of(parts)
    assert keeper.holds_a_trial()
    parts.add("search", searched(0), steps=280)
    assert keeper.holds_a_trial()  # the 40 steps that are left are a trial of the shortest length
    parts.add("search", searched(1), steps=1)
    assert not keeper.holds_a_trial()


def test_a_budget_of_time_counts_rounds_of_as_many_trainings_as_there_are_slots(tmp_path: Path) -> None:
    clock = Held()
    parts = parts_of(tmp_path / "s", budgeted("20s"))
    keeper = keeper_of(parts, clock)
    assert keeper.holds(100)  # how long a training takes is not known yet
    for number, slot in enumerate((0, 1)):
        parts.add("search", searched(number), steps=FULL, duration_s=4.0, slot=slot)
    clock.now = 8.0
    assert keeper.holds(1, 4)  # 4 s and 2 x 4 s
    assert not keeper.holds(3, 4)


def test_drivers_before_this_one_have_spent_what_their_last_trial_says(tmp_path: Path) -> None:
    clock = Held()
    clock.now = 500.0
    parts = parts_of(tmp_path / "s", budgeted("20s"))
    parts.add("search", searched(0), clock=7.0)
    keeper = keeper_of(parts, clock)
    assert keeper.elapsed() == 7.0
    clock.now = 503.0
    parts.add("search", searched(1), clock=10.0)  # ended under this driver, and is not counted twice
    assert keeper.elapsed() == 10.0


def test_a_confirmation_takes_at_most_half_of_the_budget(tmp_path: Path) -> None:
    assert keeper_of(parts_of(tmp_path / "all", config_of())).confirmation() == (2, 2)
    assert keeper_of(parts_of(tmp_path / "half", budgeted("9x"))).confirmation() == (2, 2)
    assert keeper_of(parts_of(tmp_path / "less", budgeted("5x"))).confirmation() == (2, 1)


def test_a_search_that_its_budget_has_ended_stays_so_for_the_next_driver(tmp_path: Path) -> None:
    keeper = keeper_of(parts_of(tmp_path / "s", budgeted("5x")))
    assert not keeper.is_closed()
    keeper.close()
    again = keeper_of(parts_of(tmp_path / "s", budgeted("5x")))
    assert again.is_closed()
    assert again.confirmation() == (2, 1)
    assert not keeper_of(parts_of(tmp_path / "s", budgeted("9x"))).is_closed()


def test_the_share_of_the_search_is_that_of_its_trials_or_of_its_budget(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "s", config_of(num_trials=4))
    keeper = keeper_of(parts)
    assert keeper.share_of_search() == 0.0
    parts.add("fixed", searched(0, label="by hand"))  # is none that the search asks for
    assert keeper.share_of_search() == 0.0
    parts.add("search", searched(1))
    assert keeper.share_of_search() == 0.25
    parts = parts_of(tmp_path / "budget", budgeted("8x"))  # of which the confirmation takes 4
    parts.add("search", searched(0), steps=FULL)
    assert keeper_of(parts).share_of_search() == 0.25
