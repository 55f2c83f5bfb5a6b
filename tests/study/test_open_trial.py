"""A trial in somebody's hands: what it adds up, what Optuna is told of it, and how it ends."""

import math
from dataclasses import replace

import optuna
import pytest
from optuna.pruners import ThresholdPruner

from parts import searched
from simulated import FACTS, config_of
from tune_lr.lr.ramp import Ramp
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.study.open_trial import PENALTY, OpenTrial, comparable_step

CONFIG = config_of(batch_size=128)
MAXIMIZED = config_of(metric={"name": "val_accuracy", "goal": "maximize"})
FIRST = Report(2, ((1, 0.1, 3.0), (2, 0.1, 2.0)), {"val_loss": 2.5}, seconds=1.5, facts=FACTS)
SECOND = Report(4, ((3, 0.1, math.nan), (4, 0.1, 2.2)), seconds=0.5)


def open_trial(spec: TrialSpec | None = None, upper: float = math.inf) -> OpenTrial:
    """A trial that Optuna prunes where a figure is above `upper`."""
    study = optuna.create_study(pruner=ThresholdPruner(upper=upper))
    return OpenTrial(spec or searched(3), study.ask(), "search")


def test_reports_add_up() -> None:
    trial = open_trial()
    trial.add(FIRST)
    began = trial.started
    trial.add(SECOND)
    assert (trial.seconds, trial.metrics, trial.facts, trial.lowest_loss) == (2.0, {"val_loss": 2.5}, FACTS, 2.0)
    assert trial.started == began


def test_a_trial_that_begins_anew_keeps_what_optuna_knows() -> None:
    trial = open_trial()
    trial.add(FIRST)
    trial.should_prune(FIRST, CONFIG)
    again = trial.begun_anew()
    assert (again.reported, again.decided) == (2, 2)
    assert (again.started, again.seconds, again.metrics, again.lowest_loss) == (None, 0.0, {}, math.inf)


def test_optuna_is_told_and_asked_once_a_step() -> None:
    trial = open_trial(upper=2.0)
    assert trial.should_prune(FIRST, CONFIG)
    assert not trial.should_prune(FIRST, CONFIG)  # the same figure again, after the trial was run again
    assert not trial.should_prune(SECOND, CONFIG)  # no validation
    assert not trial.should_prune(replace(FIRST, step=8, over=True), CONFIG)  # it has ended by itself
    told = trial.trial.study.trials[0]
    assert told.intermediate_values == {2: 2.5, 8: 2.5}


@pytest.mark.parametrize(
    ("batch_size", "max_steps", "steps"),
    [
        (None, 8, {2: 2, 4: 4, 8: 8}),
        (64, 16, {4: 2, 8: 4, 12: 6, 16: 8}),
        (192, 5, {1: 2, 3: 4, 5: 8}),  # reports come where 2, 4, 6 and 8 steps with batches of 128 would be, rounded
    ],
)
def test_steps_are_compared_at_equal_samples(batch_size: int | None, max_steps: int, steps: dict[int, int]) -> None:
    spec = searched(3, batch_size=batch_size, max_steps=max_steps)
    assert {step: comparable_step(spec, step, CONFIG) for step in steps} == steps


@pytest.mark.parametrize(("config", "penalty"), [(CONFIG, PENALTY), (MAXIMIZED, -PENALTY)])
def test_a_diverged_trial_has_a_finite_value_worse_than_any_figure(config: object, penalty: float) -> None:
    trial = open_trial()
    trial.add(FIRST)
    outcome = trial.outcome("diverged", "diverged at step 4", SECOND, config, slot=1, clock=12.3456)  # type: ignore[arg-type]
    assert (outcome.value, outcome.steps, outcome.slot, outcome.clock) == (penalty, 4, 1, 12.346)
    assert (outcome.metrics, outcome.facts, outcome.duration_s) == ({"val_loss": 2.5}, FACTS, 1.5)


def test_what_a_complete_trial_is_told_as() -> None:
    trial = open_trial()
    ramp = open_trial(TrialSpec(0, "range_test", 8, 120, ramp=Ramp(1e-5, 10.0, 120)))
    for one in (trial, ramp):
        one.add(FIRST)
    assert trial.outcome("complete", "", FIRST, CONFIG, 0, 0.0).value == 2.5  # its metric
    assert ramp.outcome("complete", "", FIRST, CONFIG, 0, 0.0).value == 2.0  # its lowest training loss
    assert trial.outcome("failed", "why", FIRST, CONFIG, 0, 0.0).value is None
