"""Whole studies, executed by tests/support/simulated.py: what runs, what is told, and how trials end."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from simulated import FIXED_LR, SMALL, Log, config_of, ends_at_once, execute, open_study, train
from tune_lr.config.model import Config
from tune_lr.errors import InputError, NoAnswerError, ResourceError
from tune_lr.records.phases import PHASES
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.curves import read_curve
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.open_trial import PENALTY
from whole_studies import (
    NO_CONFIRMATION,
    assert_goes_on,
    assert_whole,
    failing,
    of_phase,
    optuna_study,
    optuna_trials,
    run_up_to,
    without_times,
)


@pytest.mark.parametrize("sampler", ["gp", "random", "tpe"])
@pytest.mark.parametrize("slots", [1, 2, 5])
def test_a_whole_study_numbers_every_trial_once_and_leaves_nothing_running(
    tmp_path: Path, slots: int, sampler: str
) -> None:
    study = open_study(tmp_path / "s", config_of(sampler={"name": sampler}, num_trials=14))
    execute(study, slots=slots)
    assert_whole(study)
    assert [row.phase for row in study.rows()] == sorted((r.phase for r in study.rows()), key=PHASES.index)


def test_each_phase_is_an_optuna_study_of_its_own_in_one_journal(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    execute(study)
    for phase in PHASES:
        specs = [trial.user_attrs["spec"]["phase"] for trial in optuna_trials(tmp_path / "s", phase)]
        assert specs
        assert set(specs) == {phase}
    assert len(optuna_trials(tmp_path / "s", "search")) == study.config.num_trials


def test_only_the_search_has_parameters_and_intermediate_values(tmp_path: Path) -> None:
    execute(open_study(tmp_path / "s"))
    for phase in ("range_test", "confirm"):
        for trial in optuna_trials(tmp_path / "s", phase):
            assert trial.params == {}
            assert trial.intermediate_values == {}
    for trial in optuna_trials(tmp_path / "s", "search"):
        qualified = {name for name in trial.params if "." in name}
        assert all(name.startswith(f"{trial.params['lr_schedule']}.") for name in qualified)
        assert trial.params.keys() - qualified == {"lr", "lr_schedule"}


def test_without_confirmation_the_study_ends_with_the_search_and_touches_no_test_data(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", config_of(confirm=NO_CONFIRMATION))
    execute(study)
    assert of_phase(study, "confirm") == []
    assert study.test_result is None
    assert study.over


@pytest.mark.parametrize("sampler", ["gp", "random", "tpe"])
def test_the_same_seed_and_one_slot_give_the_same_study_twice(tmp_path: Path, sampler: str) -> None:
    config = config_of(sampler={"name": sampler}, num_trials=14)
    studies = [open_study(tmp_path / name, config) for name in ("a", "b")]
    other = open_study(tmp_path / "c", config_of(sampler={"name": sampler}, num_trials=14, seed=8))
    for study in (*studies, other):
        execute(study)
    rows = [[without_times(row) for row in study.rows()] for study in (*studies, other)]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]
    curves = [(tmp_path / name / "trials" / "0003" / "curve.csv").read_text() for name in ("a", "b")]
    assert curves[0] == curves[1]


def test_observers_are_told_everything_in_its_order(tmp_path: Path) -> None:
    log = Log()
    config = config_of(
        num_trials=1, pruner={"name": "none"}, confirm={"top": 1, "seeds": 1}, max_steps=4,
        range_test=SMALL["range_test"] | {"replicates": 1},
    )  # fmt: skip
    execute(open_study(tmp_path / "s", config, observers=[log]))

    def trial(number: int, reports: int) -> list[tuple[str, Any]]:
        reported = [("trial_reported", number)] * reports
        return [("trial_started", number), *reported, ("trial_ended", number)]

    assert log.events == [
        ("phase_started", ("range_test", 1)),
        *trial(0, 2),
        ("bounds_found", "ok"),
        ("phase_started", ("search", 1)),
        *trial(1, 2),
        ("phase_started", ("confirm", 1)),
        *trial(2, 2),
    ]


def test_what_an_observer_hears_of_is_on_disk_already(tmp_path: Path) -> None:
    class Reader(Log):
        def trial_reported(self, trial: TrialSpec, report: Report) -> None:
            directory = StudyDir(tmp_path / "s")
            path = directory.range_curve(trial.number) if trial.ramp else directory.curve(trial.number)
            assert read_curve(path)["step"][-1] == report.step

        def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
            ended = optuna_trials(tmp_path / "s", trial.phase)[-1]
            assert ended.state.is_finished()
            assert ended.user_attrs["outcome"]["state"] == row.state
            super().trial_ended(trial, row)

    reader = Reader()
    study = open_study(tmp_path / "s", observers=[reader])
    execute(study)
    assert reader.of("trial_ended") == [row.number for row in study.rows()]


@pytest.mark.parametrize(
    ("metric", "penalty"),
    [({"name": "val_loss", "goal": "minimize"}, PENALTY), ({"name": "val_accuracy", "goal": "maximize"}, -PENALTY)],
)
def test_a_diverged_trial_is_told_as_finite_and_worst_and_marked(
    tmp_path: Path, metric: dict[str, str], penalty: float
) -> None:
    study = open_study(tmp_path / "s", config_of(parameters=FIXED_LR, metric=metric))
    execute(study, train=failing(1, how=lambda: ends_at_once(diverged=True, step=3, points=((3, 0.1, math.nan),))))
    row, told = study.rows()[1], optuna_trials(tmp_path / "s", "search")[1]
    assert (row.state, row.steps, row.reason) == ("diverged", 3, "diverged at step 3")
    assert told.state == TrialState.COMPLETE
    assert told.value == penalty
    assert math.isfinite(penalty)
    assert optuna_study(tmp_path / "s", "search").best_trial.number != 1
    assert 1 not in [finalist.trial for finalist in study.verdict().finalists]


def test_a_failed_trial_is_told_as_failed_and_the_others_go_on(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    execute(study, train=failing(3))
    row = study.rows()[3]
    assert (row.state, row.reason) == ("failed", "died 3 times")
    assert [t.state for t in optuna_trials(tmp_path / "s", "search")].count(TrialState.FAIL) == 1
    assert len(study.rows()) == 11
    assert study.verdict().winner.trial != 3


def test_a_study_whose_trials_all_failed_ends_without_an_answer(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", config_of(parameters=FIXED_LR))
    execute(study, train=lambda spec, config: ends_at_once(failure=f"died 3 times in trial {spec.number}"))
    assert study.over
    assert [row.state for row in study.rows()] == ["failed"] * 5
    with pytest.raises(NoAnswerError, match="no trial of the search was completed"):
        study.verdict()


def test_a_first_trial_that_fails_before_any_worker_answered_is_a_failed_trial(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", config_of(parameters=FIXED_LR))
    execute(study, train=failing(0, how=lambda: ends_at_once(failure="died 3 times", facts=None, step=0)))
    assert study.rows()[0].state == "failed"


def test_a_mistake_of_the_users_stops_the_study(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    execute(study, train=lambda spec, config: ends_at_once(mistake="workload: there is no module made_up"))
    assert study.stopped
    assert isinstance(study.error, InputError)
    assert "made_up" in str(study.error)
    assert study.next_trial() is None


def test_a_repaired_worker_group_is_a_notice_and_the_trial_goes_on(tmp_path: Path) -> None:
    def repaired(spec: TrialSpec, config: Config) -> Iterator[Report]:
        for report in train(spec, config):
            yield replace(report, notices=("a worker was lost",) if (spec.number, report.step) == (2, 4) else ())

    log = Log()
    study = open_study(tmp_path / "s", observers=[log])
    execute(study, train=repaired)
    assert len(log.of("notice")) == 1
    assert "trial 2: a worker was lost" in log.of("notice")[0]
    assert_whole(study)


@pytest.mark.parametrize("seen", [0, 1, 3])
def test_a_trial_whose_slot_was_lost_is_issued_again_under_its_number(tmp_path: Path, seen: int) -> None:
    study = open_study(tmp_path / "s", config_of(parameters=FIXED_LR))
    first = study.next_trial()
    assert first is not None
    reports = train(first, study.config)
    for _ in range(seen):
        assert study.report(first.number, next(reports))
    study.lost(first.number)
    assert study.next_trial() == first
    study.lost(first.number)  # once more, before it began
    execute(study)
    assert_whole(study)
    assert set(optuna_trials(tmp_path / "s", "search")[0].intermediate_values) == {2, 4, 6, 8}


def test_an_interrupted_study_starts_nothing_more_and_can_be_gone_on_with(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    execute(study, reports=10)
    study.interrupt()
    assert study.stopped
    assert study.error is None
    assert study.next_trial() is None
    again = open_study(tmp_path / "s")
    execute(again)
    assert_whole(again)


def test_what_the_storage_refuses_ends_the_study_in_one_line(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    spec = run_up_to(study, "search")
    in_the_way = study.directory.curve(spec.number)
    in_the_way.mkdir()
    assert not study.report(spec.number, next(train(spec, study.config)))
    assert study.stopped
    assert isinstance(study.error, ResourceError)
    assert re.fullmatch(r"/\S+/curve.csv: cannot be read or written \(Is a directory\); .*", str(study.error))
    in_the_way.rmdir()
    assert_goes_on(tmp_path / "s", config_of(), 1)


def test_a_trial_that_somebody_stops_ends_alone(tmp_path: Path) -> None:
    study = open_study(tmp_path, config_of(pruner={"name": "none"}))
    execute(study, reports=11)  # in the middle of trial 3
    study = open_study(tmp_path, config_of(pruner={"name": "none"}))
    study.stop_trial(3, "stopped in Weights & Biases")
    execute(study)
    stopped = study.trials.row(3)
    assert (stopped.state, stopped.steps, stopped.reason) == ("pruned", 2, "stopped in Weights & Biases")
    others = [row for row in of_phase(study, "search") if row.number != 3]
    assert {row.state for row in others} == {"complete"}
    assert len(others) == SMALL["num_trials"] - 1


# --- one reason for all ---------------------------------------------------------------------------------------


def test_the_same_reason_in_the_first_trials_ends_the_study(tmp_path: Path) -> None:
    def fail(spec: TrialSpec, config: Config) -> Iterator[Report]:
        return train(spec, config) if spec.ramp else ends_at_once(failure="ValueError: the tokenizer is missing")

    study = open_study(tmp_path / "s")
    execute(study, train=fail)
    assert len([row for row in study.rows() if row.phase == "search"]) == 3
    assert isinstance(study.error, NoAnswerError)
    assert str(study.error) == "the first 3 trials failed for the same reason: ValueError: the tokenizer is missing"


def test_trials_that_fail_for_other_reasons_or_later_do_not_end_the_study(tmp_path: Path) -> None:
    def fail(spec: TrialSpec, config: Config) -> Iterator[Report]:
        return ends_at_once(failure=f"died with {spec.number}") if spec.phase == "search" else train(spec, config)

    study = open_study(tmp_path / "s")
    execute(study, train=fail)
    assert study.error is None
    assert study.over
