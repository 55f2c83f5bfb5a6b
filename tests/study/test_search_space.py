"""What is drawn from a search space: real Optuna trials of a random sampler."""

import math
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import Trial

from simulated import config_of
from tune_lr.config.parameters import LRRange, Parameters
from tune_lr.study.search_space import BESIDE, Draw, draw, lr_interval

BOUNDS = (0.01, 1.0)
FROM_RAMP = {"min": "range_test", "max": "range_test"}
CHOICES: dict[str, dict[str, Any]] = {
    "constant": {},
    "step": {"step_size": {"min": 20, "max": 60}, "gamma": {"min": 0.1, "max": 0.9}},
    "exponential": {"final_factor": {"min": 0.001, "max": 0.3, "distribution": "log_uniform_values"}},
    "onecycle": {"pct_start": {"values": [0.1, 0.25]}, "div_factor": {"value": 10}, "three_phase": {"value": True}},
}


def space(choices: dict[str, Any], lr: dict[str, Any] = FROM_RAMP) -> Parameters:
    return config_of(parameters={"lr": lr, "lr_schedule": {"choices": choices}}).parameters


def draws(of: Parameters, count: int = 60, bounds: tuple[float, float] = BOUNDS) -> Iterator[tuple[Trial, Draw]]:
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    for _ in range(count):
        trial = study.ask()
        yield trial, draw(trial, of, bounds)


def distribution_of(name: str, of: Parameters) -> BaseDistribution:
    return next(trial.distributions[name] for trial, _ in draws(of) if name in trial.distributions)


def test_a_draw_has_the_parameters_of_its_own_schedule_and_no_other() -> None:
    seen = set()
    for _, drawn in draws(space(CHOICES)):
        assert drawn.parameters.keys() == CHOICES[drawn.lr_schedule].keys()
        seen.add(drawn.lr_schedule)
    assert seen == set(CHOICES)


def test_optuna_sees_qualified_names_and_nothing_that_is_fixed() -> None:
    expected = {
        "constant": set(),
        "step": {"step.step_size", "step.gamma"},
        "exponential": {"exponential.final_factor"},
        "onecycle": {"onecycle.pct_start"},
    }
    for trial, drawn in draws(space(CHOICES)):
        assert set(trial.params) == {"lr", "lr_schedule"} | expected[drawn.lr_schedule]
        assert trial.params["lr"] == drawn.lr
        for name in expected[drawn.lr_schedule]:
            assert trial.params[name] == drawn.parameters[name.partition(".")[2]]


def test_arguments_of_the_optimizer_are_drawn_whatever_the_schedule() -> None:
    decay = {"min": 1e-5, "max": 1e-2, "distribution": "log_uniform_values"}
    searched = {"weight_decay": decay, "betas": {"values": [[0.9, 0.99], [0.9, 0.999]]}, "nesterov": {"value": True}}
    lr_schedule = {"choices": CHOICES}
    of = config_of(parameters={"lr": FROM_RAMP, "lr_schedule": lr_schedule, "optimizer": searched}).parameters
    seen = set()
    for trial, drawn in draws(of):
        assert {"optimizer.weight_decay", "optimizer.betas"} <= set(trial.params)
        assert 1e-5 <= drawn.optimizer["weight_decay"] <= 1e-2
        assert drawn.optimizer["nesterov"] is True
        seen.add((drawn.lr_schedule, *drawn.optimizer["betas"]))
    assert seen == {(name, 0.9, beta) for name in CHOICES for beta in (0.99, 0.999)}
    assert distribution_of("optimizer.weight_decay", of) == FloatDistribution(1e-5, 1e-2, log=True)


def test_each_parameter_is_drawn_as_it_says() -> None:
    for _, drawn in draws(space(CHOICES)):
        parameters = drawn.parameters
        if drawn.lr_schedule == "step":
            assert type(parameters["step_size"]) is int
            assert 20 <= parameters["step_size"] <= 60
            assert type(parameters["gamma"]) is float
            assert 0.1 <= parameters["gamma"] <= 0.9
        elif drawn.lr_schedule == "exponential":
            assert 0.001 <= parameters["final_factor"] <= 0.3
        elif drawn.lr_schedule == "onecycle":
            assert parameters["pct_start"] in (0.1, 0.25)
            assert (parameters["div_factor"], parameters["three_phase"]) == (10, True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lr", FloatDistribution(*BOUNDS, log=True)),
        ("lr_schedule", CategoricalDistribution(tuple(CHOICES))),
        ("step.step_size", IntDistribution(20, 60)),
        ("step.gamma", FloatDistribution(0.1, 0.9)),
        ("exponential.final_factor", FloatDistribution(0.001, 0.3, log=True)),
        ("onecycle.pct_start", CategoricalDistribution((0.1, 0.25))),
    ],
)
def test_optuna_is_given_the_distribution_that_the_space_names(name: str, expected: BaseDistribution) -> None:
    assert distribution_of(name, space(CHOICES)) == expected


def test_a_list_is_one_value_fixed_or_chosen_from_several() -> None:
    one, several = [0.5, 0.75], [[0.5, 0.75], [20, 60, 80]]
    of = space({"multistep": {"milestones": {"value": one}}})
    assert [drawn.parameters for _, drawn in draws(of, count=2)] == [{"milestones": one}] * 2
    of = space({"multistep": {"milestones": {"values": several}}})
    seen = [drawn.parameters["milestones"] for _, drawn in draws(of, count=20)]
    assert all(milestones in seen for milestones in several)
    assert all(milestones in several for milestones in seen)


def test_one_lr_distribution_serves_all_schedules() -> None:
    distributions = {(drawn.lr_schedule, repr(trial.distributions["lr"])) for trial, drawn in draws(space(CHOICES))}
    assert len(distributions) == len(CHOICES)  # one each, and the same
    assert len({distribution for _, distribution in distributions}) == 1


def test_a_single_schedule_is_not_a_choice() -> None:
    for trial, drawn in draws(space({"cosine": {}}), count=3):
        assert drawn.lr_schedule == "cosine"
        assert drawn.parameters == {}
        assert set(trial.params) == {"lr"}


def test_whole_bounds_include_both_ends() -> None:
    of = space({"step": {"step_size": {"min": 20, "max": 22}}})
    assert {drawn.parameters["step_size"] for _, drawn in draws(of)} == {20, 21, 22}


@pytest.mark.parametrize(
    ("lr", "interval"),
    [
        (FROM_RAMP, (0.01, 1.0)),
        ({"min": 0.1, "max": "range_test"}, (0.1, 1.0)),
        ({"min": "range_test", "max": 0.5}, (0.01, 0.5)),
        ({"min": 1e-3, "max": 1e-2}, (1e-3, 1e-2)),
        # a number beyond the bound that was found is still a limit
        ({"min": 3.0, "max": "range_test"}, (3.0, 3.0 * BESIDE)),
        ({"min": "range_test", "max": 0.001}, (0.001 / BESIDE, 0.001)),
    ],
)
def test_the_bounds_stand_where_the_space_says_range_test(lr: dict[str, Any], interval: tuple[float, float]) -> None:
    of = space({"constant": {}}, lr)
    assert lr_interval(of.lr, BOUNDS) == interval
    lrs = [drawn.lr for _, drawn in draws(of)]
    assert interval[0] <= min(lrs)
    assert max(lrs) <= interval[1]


def test_the_lr_is_drawn_evenly_over_its_decades() -> None:
    decades = [math.floor(math.log10(drawn.lr)) for _, drawn in draws(space({"constant": {}}), 300, (1e-4, 1.0))]
    assert all(50 <= decades.count(decade) <= 100 for decade in (-4, -3, -2, -1))


def test_a_fixed_lr_is_no_parameter() -> None:
    for trial, drawn in draws(space({"constant": {}}, {"value": 0.3}), count=3):
        assert drawn == Draw(0.3, "constant", {})
        assert trial.params == {}


def test_an_lr_given_as_a_list_is_one_of_it() -> None:
    of = space({"constant": {}}, {"values": [0.1, 0.3]})
    assert {drawn.lr for _, drawn in draws(of)} == {0.1, 0.3}


def test_an_interval_of_numbers_needs_no_bounds() -> None:
    assert lr_interval(LRRange.model_validate({"min": 0.1, "max": 0.2}), (math.nan, math.nan)) == (0.1, 0.2)
