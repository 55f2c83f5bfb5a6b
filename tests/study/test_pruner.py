"""Which trials of the search are stopped early, and what Optuna is told of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from simulated import FIXED_LR, config_of, descend, execute, open_study, train
from tune_lr.config.model import Config
from tune_lr.records.trial import Report, TrialSpec
from whole_studies import NO_CONFIRMATION, by_number, of_phase, optuna_trials


def test_a_pruned_trial_is_told_as_pruned_with_its_last_intermediate_value(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", config_of(parameters=FIXED_LR))
    execute(study, train=by_number({0: 1.0, 1: 2.0}))
    row, told = study.rows()[1], optuna_trials(tmp_path / "s", "search")[1]
    assert (row.state, row.steps, row.metrics["val_loss"]) == ("pruned", 2, 2.0)
    assert told.state == TrialState.PRUNED
    assert told.value == 2.0
    assert told.intermediate_values == {2: 2.0}


# loss of each trial in turn (constant over its steps), and the step that it reaches: at a rung, the trial that is among
# the best third of those seen there (or the best, of fewer than six) goes on.
RUNGS = [(5, 310), (4, 310), (6, 62), (3, 310), (3.5, 62), (3.2, 186), (2, 310), (3.1, 62), (2.5, 310)]


@pytest.mark.parametrize("metric", [{"name": "val_loss"}, {"name": "val_accuracy", "goal": "maximize"}])
def test_trials_are_pruned_at_the_rungs_and_nowhere_else(tmp_path: Path, metric: dict[str, str]) -> None:
    config = config_of(
        parameters={**FIXED_LR, "lr_schedule": {"value": "constant"}}, metric=metric,
        max_steps=310, report_every=31, num_trials=len(RUNGS),
        pruner={"name": "asha", "min_steps": 62, "reduction_factor": 3}, confirm=NO_CONFIRMATION,
    )  # fmt: skip
    study = open_study(tmp_path / "s", config)
    execute(study, train=by_number({number: value for number, (value, _) in enumerate(RUNGS)}))
    assert [row.steps for row in study.rows()] == [steps for _, steps in RUNGS]
    assert [row.state for row in study.rows()] == ["complete" if s == 310 else "pruned" for _, s in RUNGS]
    for trial in optuna_trials(tmp_path / "s", "search"):
        assert set(trial.intermediate_values) == set(range(31, trial.user_attrs["outcome"]["steps"] + 1, 31))


def test_a_trial_competes_at_a_rung_with_its_own_lr_schedule_only(tmp_path: Path) -> None:
    """A schedule that looks worse early is not judged by one that looks better there."""
    config = config_of(parameters=FIXED_LR, num_trials=24, confirm=NO_CONFIRMATION)
    study = open_study(tmp_path / "s", config)
    names = {"constant": 1.0, "cosine": 2.0}

    def better_and_better(spec: TrialSpec, config: Config) -> Iterator[Report]:
        return descend(spec, config, lambda step: names.get(spec.lr_schedule, 3.0) - spec.number / 1e3)

    execute(study, train=better_and_better)
    # Each trial is better than all before it of its schedule, and so goes on, whatever the other schedules reach.
    assert {row.state for row in study.rows()} == {"complete"}
    assert len({row.lr_schedule for row in study.rows()}) > 1


def test_pruner_none_trains_every_trial_to_its_end(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", config_of(parameters=FIXED_LR, pruner={"name": "none"}))
    execute(study, train=by_number({n: 1.0 + n for n in range(5)}))
    assert {row.state for row in study.rows()} == {"complete"}


def test_confirmations_are_never_pruned(tmp_path: Path) -> None:
    def worse_and_worse(spec: TrialSpec, config: Config) -> Iterator[Report]:
        if spec.phase == "confirm":
            return descend(spec, config, lambda step: 100.0 + spec.number)
        return train(spec, config)

    study = open_study(tmp_path / "s", config_of(parameters=FIXED_LR))
    execute(study, train=worse_and_worse)
    assert {(row.state, row.steps) for row in of_phase(study, "confirm")} == {("complete", 8)}
