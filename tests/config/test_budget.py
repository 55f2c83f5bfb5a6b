"""Budgets: how they are written, and what they buy."""

from typing import Any

import pytest

from simulated import FIXED_LR, SMALL
from tune_lr.config.budget import Budget, confirmation_within, parse_budget
from tune_lr.config.load import parse_config
from tune_lr.config.model import UNLIMITED, Config
from tune_lr.config.plan import plan
from tune_lr.errors import InputError

WITHOUT_NUMBER = {name: value for name, value in SMALL.items() if name != "num_trials"}
FULL = SMALL["max_steps"]


def budgeted(budget: str, **changes: Any) -> Config:
    return parse_config({**WITHOUT_NUMBER, "parameters": FIXED_LR, "budget": budget, **changes})


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
