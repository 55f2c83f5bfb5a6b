"""The search phase of a study: fixed configurations, and parameters of every kind."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulated import FIXED_LR, SMALL, config_of, execute, facts, open_study, train
from tune_lr.config.model import Config
from tune_lr.lr.ramp import Ramp
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.curves import read_curve
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.search import fixed_spec
from whole_studies import assert_goes_on, of_phase, without_times

# By the made-up landscape the first is the best of all, the second is hopeless, and the third is no answer.
FIXED = [
    {"lr_schedule": "cosine", "lr": 0.3, "label": "by hand"},
    {"lr_schedule": "constant", "lr": 1e-5},
    {"ramp": {"low": 1e-5, "high": 10.0}, "label": "a ramp"},
]


def test_fixed_configurations_are_trained_to_the_end_beside_the_searched_ones(tmp_path: Path) -> None:
    study = open_study(tmp_path, config_of(fixed=FIXED))
    execute(study)
    fixed = [row for row in study.rows() if row.label]
    assert [row.label for row in fixed] == ["by hand", "constant lr=1e-05", "a ramp"]
    assert {(row.phase, row.state, row.steps) for row in fixed} == {("search", "complete", 8)}
    assert len(of_phase(study, "search")) == 3 + SMALL["num_trials"]
    # The ramp is a trial like the others: it is validated and has a curve in trials/.
    assert read_curve(study.directory.curve(fixed[2].number)).keys() >= {"lr", "val_loss"}
    assert study.verdict().winner.trial == fixed[0].number
    assert "ramp" not in {finalist.lr_schedule for finalist in study.verdict().finalists}


def test_a_study_with_a_fixed_ramp_that_diverged_before_it_was_validated_goes_on(tmp_path: Path) -> None:
    def diverging(spec: TrialSpec, config: Config) -> Iterator[Report]:
        if spec.phase == "search" and spec.ramp:
            return iter([Report(step=1, points=((1, 0.1, math.nan),), over=True, diverged=True, facts=facts(spec))])
        return train(spec, config)

    execute(open_study(tmp_path, config_of(fixed=FIXED)), train=diverging, reports=80)
    study = open_study(tmp_path, config_of(fixed=FIXED))
    assert [(row.state, row.metrics) for row in study.rows() if row.label == "a ramp"] == [("complete", {})]
    execute(study, train=diverging)
    assert study.over
    assert study.verdict().winner.lr_schedule


def test_fixed_configurations_teach_the_sampler_nothing(tmp_path: Path) -> None:
    """They may lie outside the space: the proposals are those of a study without them."""
    drawn = []
    for name, fixed in (("with", FIXED), ("without", [])):
        study = open_study(tmp_path / name, config_of(fixed=fixed, sampler={"name": "tpe"}, num_trials=14))
        execute(study)
        drawn.append([(row.lr_schedule, row.lr) for row in of_phase(study, "search") if not row.label])
    assert drawn[0] == drawn[1]


def test_fixed_configurations_alone_need_no_search(tmp_path: Path) -> None:
    study = open_study(tmp_path, config_of(fixed=FIXED, num_trials=0, parameters=FIXED_LR))
    execute(study)
    assert [row.label for row in of_phase(study, "search")] == ["by hand", "constant lr=1e-05", "a ramp"]
    assert not of_phase(study, "range_test")
    assert study.over


@pytest.mark.parametrize("reports", [11, 13, 18, 22])
def test_a_study_killed_among_its_fixed_configurations_goes_on_as_it_was(tmp_path: Path, reports: int) -> None:
    calm = open_study(tmp_path / "calm", config_of(fixed=FIXED))
    execute(calm)
    execute(open_study(tmp_path / "killed", config_of(fixed=FIXED)), reports=reports)
    study = open_study(tmp_path / "killed", config_of(fixed=FIXED))
    execute(study)
    fixed = [[without_times(row) for row in one.rows() if row.label] for one in (study, calm)]
    assert fixed[0] == fixed[1]
    assert [row.number for row in study.rows()] == [row.number for row in calm.rows()]


@pytest.mark.parametrize("how", [{"value": [0.5, 0.75]}, {"values": [[0.5, 0.75], [2, 4, 6]]}])
def test_a_parameter_may_be_a_list_through_search_confirmation_and_resume(tmp_path: Path, how: dict[str, Any]) -> None:
    choices = {"multistep": {"milestones": how}, "constant": {}}
    config = config_of(parameters={**FIXED_LR, "lr_schedule": {"choices": choices}}, sampler={"name": "tpe"})
    for reports in (3, 6, 9, 20):
        execute(open_study(tmp_path / "s", config), slots=2, reports=reports)
    study = assert_goes_on(tmp_path / "s", config, 2)
    drawn = [row.parameters["multistep.milestones"] for row in study.rows() if row.lr_schedule == "multistep"]
    assert drawn
    assert all(milestones in how.get("values", [how.get("value")]) for milestones in drawn)
    assert all(finalist.confirm_trials for finalist in study.verdict().finalists)


# --- what a fixed configuration trains ------------------------------------------------------------------------


def test_a_fixed_configuration_has_the_studys_own_steps_seed_and_optimizer(tmp_path: Path) -> None:
    kept = {"lr_schedule": "step", "lr": 0.2, "gamma": 0.5, "keep_model": True}
    optimizers: dict[str, Any] = {"choices": {"sgd": {}, "adamw": {}}}
    config = config_of(fixed=[*FIXED, kept], parameters={**FIXED_LR, "optimizer": optimizers})
    directory = StudyDir(tmp_path)
    specs = [fixed_spec(10 + index, config, directory, index) for index in range(4)]
    assert [spec.number for spec in specs] == [10, 11, 12, 13]
    assert {(spec.phase, spec.seed, spec.max_steps, spec.optimizer["name"]) for spec in specs} == {
        ("search", 7, 8, "sgd")
    }
    assert [spec.label for spec in specs[:3]] == ["by hand", "constant lr=1e-05", "a ramp"]
    assert specs[2].ramp == Ramp(1e-5, 10.0, 8)
    assert specs[2].lr == 10.0
    assert specs[3].parameters == {"gamma": 0.5}
    assert [spec.checkpoint for spec in specs] == [None, None, None, str(directory.checkpoint(13))]
