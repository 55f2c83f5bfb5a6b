"""Whole studies, executed by tests/simulated.py: what runs, what is told, and what survives a killed driver."""

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from simulated import (
    FIXED_LR,
    SMALL,
    Log,
    Train,
    config_of,
    descend,
    ends_at_once,
    execute,
    facts,
    flat_ramps,
    noise,
    open_study,
    ramp,
    ramp_loss,
    train,
)
from tune_lr.config.model import Config
from tune_lr.config.plan import plan
from tune_lr.errors import InputError, NoAnswerError, ResourceError
from tune_lr.lr.bounds import LRBounds
from tune_lr.lr.ramp import Ramp
from tune_lr.records.phases import PHASES
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.confirmation import CONFIRM_SEEDS, TEST
from tune_lr.study.open_trial import PENALTY
from tune_lr.study.range_test import extended_ramp
from tune_lr.study.study import Study

NO_CONFIRMATION = {"top": 0, "seeds": 1}
ONE_CONFIGURATION = {"lr": {"value": 0.1}, "lr_schedule": {"value": "constant"}}


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is cut here, and what a killed process wrote is there without fsync. It is most of the time."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def optuna_study(root: Path, phase: str) -> optuna.Study:
    """Read from the journal, past tune-lr."""
    storage = JournalStorage(JournalFileBackend(str(root / "study.journal")))
    return optuna.load_study(study_name=phase, storage=storage)


def trials_by_phase(root: Path) -> dict[str, list[FrozenTrial]]:
    storage = JournalStorage(JournalFileBackend(str(root / "study.journal")))
    names = [study.study_name for study in storage.get_all_studies()]
    return {name: storage.get_all_trials(storage.get_study_id_from_name(name)) for name in names}


def optuna_trials(root: Path, phase: str) -> list[FrozenTrial]:
    return trials_by_phase(root).get(phase, [])


def specs_in(root: Path) -> dict[int, dict[str, Any]]:
    """What every trial in the journal trains, by number."""
    trials = [trial for trials in trials_by_phase(root).values() for trial in trials if "spec" in trial.user_attrs]
    return {trial.user_attrs["spec"]["number"]: trial.user_attrs["spec"] for trial in trials}


def of_phase(study: Study, phase: str) -> list[TrialRow]:
    return [row for row in study.rows() if row.phase == phase]


def without_times(row: TrialRow) -> TrialRow:
    return replace(row, duration_s=0.0, started_s=0.0, slot=0)


def by_number(values: dict[int, float]) -> Train:
    """Trials of the search whose loss is a constant that their number says; 1.0 where it says nothing."""

    def trained(spec: TrialSpec, config: Config) -> Iterator[Report]:
        if spec.phase == "search":
            return descend(spec, config, lambda step: values.get(spec.number, 1.0))
        return train(spec, config)

    return trained


def failing(*numbers: int, how: Callable[[], Iterator[Report]] = lambda: ends_at_once(failure="died 3 times")) -> Train:
    return lambda spec, config: how() if spec.number in numbers else train(spec, config)


def assert_whole(study: Study) -> None:
    """What holds at the end of every study, whatever happened on the way."""
    rows, root, config = study.rows(), study.directory.root, study.config
    assert study.over
    assert not study.stopped
    assert [row.number for row in rows] == list(range(len(rows)))
    numbers: dict[str, list[int]] = {phase: [] for phase in PHASES}
    for trials in trials_by_phase(root).values():
        assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
        for trial in trials:
            if "spec" in trial.user_attrs:  # no copy
                numbers[trial.user_attrs["spec"]["phase"]].append(trial.user_attrs["spec"]["number"])
    for phase in PHASES:
        assert sorted(numbers[phase]) == [row.number for row in rows if row.phase == phase]
    assert len(of_phase(study, "search")) == config.num_trials
    complete = [row for row in of_phase(study, "search") if row.state == "complete"]
    different = {(row.lr, row.lr_schedule, str(row.parameters)) for row in complete}
    assert len(of_phase(study, "confirm")) == min(len(different), config.confirm.finalists) * config.confirm.seeds
    for row in rows:
        curve = study.directory.range_curve if row.phase == "range_test" else study.directory.curve
        assert study.directory.read_curve(curve(row.number))["step"] == list(range(1, row.steps + 1))
    if config.confirm.top:
        assert study.test_result is not None
        assert study.test_result.trial == study.verdict().winner.trial


def run_up_to(study: Study, phase: str) -> TrialSpec:
    """Runs all that comes before `phase`; returns its first trial, just issued."""
    while (spec := study.next_trial()) is not None and spec.phase != phase:
        for report in train(spec, study.config):
            if not study.report(spec.number, report):
                break
    assert spec is not None
    return spec


# --- a study from its start to its end ----------------------------------------------------------------------


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


def test_the_ramps_bounds_hold_every_drawn_lr(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", config_of(num_trials=20, confirm=NO_CONFIRMATION))
    execute(study)
    assert study.bounds is not None
    assert study.bounds.status == "ok"
    assert study.bounds.low is not None
    assert study.bounds.high is not None
    assert study.config.range_test.low < study.bounds.low < study.bounds.high < study.config.range_test.high
    assert all(study.bounds.low <= row.lr <= study.bounds.high for row in of_phase(study, "search"))
    assert json.loads((tmp_path / "s" / "bounds.json").read_text()) == study.bounds.to_dict()


@pytest.mark.parametrize("lr", [{"min": 0.01, "max": 1.0}, {"value": 0.1}, {"values": [0.1, 0.2]}])
def test_an_lr_given_as_numbers_needs_no_range_test(tmp_path: Path, lr: dict[str, Any]) -> None:
    study = open_study(tmp_path / "s", config_of(parameters={**FIXED_LR, "lr": lr}))
    execute(study)
    assert of_phase(study, "range_test") == []
    assert study.bounds is None
    assert_whole(study)


def test_a_range_test_alone_ends_after_its_ramps(tmp_path: Path) -> None:
    log = Log()
    study = open_study(tmp_path / "s", phases=("range_test",), observers=[log])
    execute(study)
    assert [row.phase for row in study.rows()] == ["range_test"] * 2
    assert study.over
    assert study.error is None
    assert log.of("bounds_found") == ["ok"]


def test_a_range_test_alone_runs_also_where_the_space_gives_the_lr(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", config_of(parameters=FIXED_LR), phases=("range_test",))
    execute(study)
    assert len(study.rows()) == 2
    assert study.bounds is not None
    assert study.bounds.status == "ok"


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
            assert directory.read_curve(path)["step"][-1] == report.step

        def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
            ended = optuna_trials(tmp_path / "s", trial.phase)[-1]
            assert ended.state.is_finished()
            assert ended.user_attrs["outcome"]["state"] == row.state
            super().trial_ended(trial, row)

    reader = Reader()
    study = open_study(tmp_path / "s", observers=[reader])
    execute(study)
    assert reader.of("trial_ended") == [row.number for row in study.rows()]


def test_a_curve_holds_validation_only_where_a_report_was(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", config_of(parameters=FIXED_LR, pruner={"name": "none"}))
    execute(study)
    curve = study.directory.read_curve(study.directory.curve(0))
    assert list(curve) == ["step", "lr", "train_loss", "val_loss", "val_accuracy"]
    assert [math.isnan(value) for value in curve["val_loss"]] == [True, False] * 4
    assert curve["val_loss"][-1] == study.rows()[0].metrics["val_loss"]


# --- how trials end -----------------------------------------------------------------------------------------


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


def test_a_ramp_that_ends_in_divergence_is_complete(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    execute(study)
    ramps = of_phase(study, "range_test")
    assert [row.state for row in ramps] == ["complete"] * 2
    assert all(row.reason.startswith("diverged at step") and row.steps < 120 for row in ramps)


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
    execute(study, train=lambda spec, config: ends_at_once(failure="died 3 times"))
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


# --- the range test -----------------------------------------------------------------------------------------


def diverging_at(edge: float) -> Train:
    """Ramps that fall from the start on and explode at `edge`."""

    def trained(spec: TrialSpec, config: Config) -> Iterator[Report]:
        if not spec.ramp:
            return train(spec, config)

        def loss(lr: float, seed: int) -> float:
            falling = 2.3 - 2.0 / (1 + (edge / 100 / lr) ** 1.5)
            return math.nan if lr > edge else falling + 0.002 * noise(lr, seed)

        return ramp(spec, loss)

    return trained


def test_a_ramp_without_divergence_is_extended_once_and_may_then_answer(tmp_path: Path) -> None:
    log = Log()
    study = open_study(tmp_path / "s", observers=[log])
    execute(study, train=diverging_at(100.0))
    ramps = of_phase(study, "range_test")
    assert [(row.number, row.lr, row.seed) for row in ramps] == [(0, 10, 8), (1, 10, 9), (2, 1000, 10), (3, 1000, 11)]
    assert study.bounds is not None
    assert study.bounds.status == "ok"
    assert study.bounds.high is not None
    assert study.bounds.high > 10
    assert log.of("bounds_found") == ["ok"]
    assert len(log.of("notice")) == 1
    assert "It runs again from 1e-05 to 1000" in log.of("notice")[0]
    assert log.of("phase_started")[:2] == [("range_test", 2), ("range_test", 4)]
    assert_whole(study)


def test_a_ramp_that_never_diverges_is_extended_once_and_then_its_own_range_is_searched_loudly(tmp_path: Path) -> None:
    log = Log()
    study = open_study(tmp_path / "s", config_of(num_trials=12), observers=[log])
    execute(study, train=flat_ramps)
    assert len(of_phase(study, "range_test")) == 4
    assert study.bounds is not None
    assert study.bounds.status == "no_divergence"
    assert study.bounds.low is None
    assert log.of("bounds_found") == ["no_divergence"]
    assert "NO BOUNDS (no_divergence)" in log.of("notice")[-1]
    assert "1e-05 to 10" in log.of("notice")[-1]
    lrs = [row.lr for row in of_phase(study, "search")]
    assert all(1e-5 <= lr <= 10 for lr in lrs)
    assert max(lrs) / min(lrs) > 1e3
    assert_whole(study)


def test_where_noise_hides_the_fall_the_bounds_are_those_of_the_edge(tmp_path: Path) -> None:
    def noisy(spec: TrialSpec, config: Config) -> Iterator[Report]:
        if not spec.ramp:
            return train(spec, config)
        return ramp(spec, lambda lr, seed: math.nan if lr > 1.0 else 2.3 + noise(lr, seed))

    log = Log()
    study = open_study(tmp_path / "s", observers=[log])
    execute(study, train=noisy)
    assert [row.steps for row in of_phase(study, "range_test")] == [101, 101]
    assert log.of("bounds_found") == ["ok"]
    assert study.bounds is not None
    assert study.bounds.edge_only
    assert study.bounds.high == pytest.approx(1.0, rel=0.15)
    assert_whole(study)


@pytest.mark.parametrize("killed_after", range(1, 12, 2))
def test_a_study_killed_around_the_extended_ramp_extends_it_once(tmp_path: Path, killed_after: int) -> None:
    execute(open_study(tmp_path / "s"), train=flat_ramps, reports=killed_after)
    study = open_study(tmp_path / "s")
    execute(study, train=flat_ramps)
    assert [row.lr for row in of_phase(study, "range_test")] == [10, 10, 1000, 1000]
    assert_whole(study)


def test_strict_ends_without_an_answer_where_the_range_test_abstains(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", strict=True)
    execute(study, train=flat_ramps)
    assert isinstance(study.error, NoAnswerError)
    assert "no_divergence" in str(study.error)
    assert study.stopped
    assert of_phase(study, "search") == []
    assert len(study.rows()) == 4


def test_a_range_test_whose_ramps_all_failed_ends_the_study_and_says_why(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    execute(study, train=failing(0, 1))
    assert isinstance(study.error, NoAnswerError)
    assert "died 3 times" in str(study.error)
    assert of_phase(study, "search") == []
    assert study.bounds is None


def test_one_failed_ramp_leaves_the_answer_to_the_others(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    execute(study, train=failing(0))
    assert study.bounds is not None
    assert study.bounds.status == "ok"
    assert study.bounds.replicates == 1


@pytest.mark.parametrize(
    ("status", "low", "high", "steps"),
    [
        ("no_divergence", 1e-5, 1000.0, 400),  # two decades more
        ("diverged_at_start", 1e-9, 1e-4, 300),  # lower; never fewer steps
        ("no_descent", 1e-6, 100.0, 400),  # one decade more at both ends
    ],
)
def test_a_ramp_is_extended_to_where_the_answer_may_lie(status: str, low: float, high: float, steps: int) -> None:
    bounds = LRBounds(None, None, None, status, "", replicates=3)
    ramp = extended_ramp(Ramp(1e-5, 10.0, 300), bounds)
    assert (ramp.low, ramp.high) == pytest.approx((low, high))
    assert abs(ramp.steps - steps) <= 1
    assert ramp.mode == "exponential"


# --- seeds, confirmation, test ------------------------------------------------------------------------------


def test_search_trials_share_one_seed_and_confirmations_are_fresh_and_paired(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", config_of(num_trials=8, confirm={"top": 3, "seeds": 2}))
    execute(study)
    assert {row.seed for row in of_phase(study, "search")} == {7}
    ramps = [row.seed for row in of_phase(study, "range_test")]
    confirm = [row.seed for row in of_phase(study, "confirm")]
    assert len(set(ramps)) == 2
    assert {7} | set(ramps) == {7, 8, 9}
    assert confirm == [7 + CONFIRM_SEEDS] * 3 + [8 + CONFIRM_SEEDS] * 3  # seed by seed
    assert {finalist.seeds for finalist in study.verdict().finalists} == {(1008, 1009)}


def test_each_finalist_is_confirmed_as_it_was_searched(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    execute(study)
    specs = specs_in(tmp_path / "s")
    for finalist in study.verdict().finalists:
        searched = specs[finalist.trial]
        for number in finalist.confirm_trials:
            same = ("lr", "lr_schedule", "parameters", "max_steps")
            assert [specs[number][name] for name in same] == [searched[name] for name in same]
            assert specs[number]["checkpoint"] == str(study.directory.checkpoint(number))
        assert searched["checkpoint"] is None


def test_finalists_are_different_configurations(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", config_of(parameters=ONE_CONFIGURATION, confirm={"top": 3, "seeds": 2}))
    execute(study, train=by_number({2: 0.5}))
    assert len(study.verdict().finalists) == 1
    assert len(of_phase(study, "confirm")) == 2
    assert study.verdict().winner.trial == 2


def test_the_runners_up_are_confirmed_whatever_their_schedule(tmp_path: Path) -> None:
    confirm = {"top": 1, "runners_up": 2, "seeds": 2}
    study = open_study(tmp_path / "s", config_of(parameters=TWO_SCHEDULES, num_trials=8, confirm=confirm))
    execute(study)
    assert_whole(study)
    assert study.total("confirm") == plan(study.config).confirmations == 6
    assert len({finalist.trial for finalist in study.verdict().finalists}) == 3


def test_who_reads_the_journal_alone_knows_who_is_confirmed(tmp_path: Path) -> None:
    for seed in range(8):
        study = open_study(tmp_path / f"{seed}", config_of(num_trials=12, seed=seed, confirm={"top": 2, "seeds": 2}))
        execute(study)
        (tmp_path / f"copy{seed}").mkdir()
        journal = StudyDir(tmp_path / f"copy{seed}").journal
        journal.parent.mkdir(exist_ok=True)
        shutil.copy(study.directory.journal, journal)
        reader = Study(study.config, StudyDir(tmp_path / f"copy{seed}"))
        assert reader.bounds is None
        assert reader.total("confirm") == study.total("confirm") == 4


def passes_over_test_data(trained: list[TrialSpec]) -> list[TrialSpec]:
    return [spec for spec in trained if spec.phase == "test"]


def remembering(seen: list[TrialSpec], inner: Train = train) -> Train:
    def trained(spec: TrialSpec, config: Config) -> Iterator[Report]:
        seen.append(spec)
        return inner(spec, config)

    return trained


def test_the_test_data_is_touched_once_and_for_the_winner_alone(tmp_path: Path) -> None:
    seen: list[TrialSpec] = []
    study = open_study(tmp_path / "s")
    execute(study, train=remembering(seen))
    winner = study.verdict().winner
    (test,) = passes_over_test_data(seen)
    assert seen[-1] == test
    assert test.number == TEST
    assert (test.lr, test.lr_schedule) == (winner.lr, winner.lr_schedule)
    assert test.checkpoints == tuple(str(study.directory.checkpoint(n)) for n in winner.confirm_trials)
    assert study.test_result is not None
    assert study.test_result.trial == winner.trial
    assert len(study.test_result.values) == 2
    assert TEST not in [row.number for row in study.rows()]

    again = open_study(tmp_path / "s")
    execute(again, train=remembering(seen))
    assert len(passes_over_test_data(seen)) == 1
    assert again.over
    assert again.test_result == study.test_result


def test_a_test_whose_slot_was_lost_is_issued_again(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    spec = run_up_to(study, "test")
    study.lost(spec.number)
    assert study.next_trial() == spec
    assert study.next_trial() is None
    assert not study.report(TEST, next(train(spec, study.config)))
    assert study.over
    assert study.test_result is not None


def test_a_winner_that_cannot_be_tested_is_a_notice(tmp_path: Path) -> None:
    log = Log()
    study = open_study(tmp_path / "s", observers=[log])
    execute(study, train=failing(TEST))
    assert study.over
    assert study.error is None
    assert study.test_result is None
    assert log.of("notice") == ["the winner could not be evaluated on the test data: died 3 times"]


# --- more seeds ---------------------------------------------------------------------------------------------

TWO_SCHEDULES = {"lr": {"min": 0.01, "max": 1.0}, "lr_schedule": {"values": ["constant", "step"]}}
UP_TO_SIX = config_of(parameters=TWO_SCHEDULES, num_trials=6, confirm={"top": 2, "seeds": 3, "max_seeds": 6})


def apart_by(difference: float) -> Train:
    """`step` is worse by that, and by 0.01 more or less with every other seed: not to be told apart at three seeds."""

    def trained(spec: TrialSpec, config: Config) -> Iterator[Report]:
        if spec.phase not in ("search", "confirm"):
            return train(spec, config)
        index = spec.seed - config.seed - CONFIRM_SEEDS
        value = 0.3 + (spec.lr_schedule == "step") * (difference + 0.01 * ((index % 3) - 1))
        return descend(spec, config, lambda step: value)

    return trained


def seeds_of(study: Study) -> list[int]:
    return [row.seed - study.config.seed - CONFIRM_SEEDS for row in of_phase(study, "confirm")]


@pytest.mark.parametrize(("difference", "seeds"), [(0.02, 6), (0.002, 3), (0.2, 3)])
def test_more_seeds_are_trained_only_where_they_would_decide(tmp_path: Path, difference: float, seeds: int) -> None:
    log = Log()
    study = open_study(tmp_path / "s", UP_TO_SIX, observers=[log])
    execute(study, slots=3, train=apart_by(difference))
    assert sorted(seeds_of(study)) == sorted([*range(seeds)] * 2)
    verdict = study.verdict()
    assert verdict.winner.lr_schedule == "constant"
    assert len(verdict.winner.seeds) == seeds
    assert bool(verdict.tied) is (difference == 0.002)
    notices = [text for text in log.of("notice") if "More seeds" in text]
    assert len(notices) == (seeds == 6)
    assert all("cannot be told apart at 3 seeds" in text for text in notices)
    assert study.over
    assert study.test_result is not None


@pytest.mark.parametrize("slots", [1, 3])
def test_a_driver_killed_among_more_seeds_trains_each_of_them_once(tmp_path: Path, slots: int) -> None:
    whole = open_study(tmp_path / "whole", UP_TO_SIX)
    reports = len(execute(whole, slots=slots, train=apart_by(0.02)))
    for cut in range(reports - 38, reports, 9):
        root = tmp_path / str(cut)
        execute(open_study(root, UP_TO_SIX), slots=slots, train=apart_by(0.02), reports=cut)
        study = open_study(root, UP_TO_SIX)
        execute(study, slots=slots, train=apart_by(0.02))
        assert sorted(seeds_of(study)) == sorted([*range(6)] * 2)
        assert [row.number for row in study.rows()] == list(range(len(study.rows())))
        assert study.verdict().sentence == whole.verdict().sentence


# --- the best LR at the edge --------------------------------------------------------------------------------

WIDE = config_of(num_trials=16, sampler={"name": "tpe"}, pruner={"name": "none"}, confirm=NO_CONFIRMATION)


def best_at(best: float) -> Train:
    """Ramps as ever; a search whose lowest loss lies at that LR."""

    def trained(spec: TrialSpec, config: Config) -> Iterator[Report]:
        if spec.phase != "search":
            return train(spec, config)
        return descend(spec, config, lambda step: 0.1 + math.log10(spec.lr / best) ** 2 + 2 / (step + 1))

    return trained


def lrs_of_search(study: Study) -> list[float]:
    return [row.lr for row in of_phase(study, "search")]


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize(("best", "side"), [(1e-6, -1), (1e3, 1)])
def test_where_the_best_lr_lies_at_a_bound_the_search_goes_on_beyond_it(
    tmp_path: Path, best: float, side: int, slots: int
) -> None:
    log = Log()
    study = open_study(tmp_path / "s", WIDE, observers=[log])
    execute(study, slots=slots, train=best_at(best))
    assert study.bounds is not None
    assert study.bounds.low is not None
    assert study.bounds.high is not None
    low, high = study.bounds.low, study.bounds.high
    wider = (low / 10**0.5, high) if side < 0 else (low, high * 10**0.5)
    assert study.widened is not None
    assert (study.widened.low, study.widened.high) == pytest.approx(wider)
    assert study.directory.read_json(study.directory.widened_json) == study.widened.to_dict()
    assert sum("the search goes on from" in text for text in log.of("notice")) == 1
    drawn, after = lrs_of_search(study), study.widened.after
    assert len(drawn) == 16
    assert after == 8
    assert all(low <= lr <= high for lr in drawn[:after])
    assert sum(not low <= lr <= high for lr in drawn[after + slots - 1 :]) >= 3
    assert all(wider[0] <= lr <= wider[1] for lr in drawn)
    assert study.over
    assert [row.number for row in study.rows()] == list(range(len(study.rows())))


@pytest.mark.parametrize(
    ("how", "best"),
    [
        ({}, 0.1),  # within
        ({"parameters": SMALL["parameters"] | {"lr": {"min": 0.01, "max": 1.0}}}, 1e3),  # the user's own numbers
        ({"parameters": SMALL["parameters"] | {"lr": {"min": "range_test", "max": 1.0}}}, 1e3),
        ({"parameters": SMALL["parameters"] | {"lr": {"values": [0.01, 1.0]}}}, 1e3),
    ],
)
def test_no_other_range_moves(tmp_path: Path, how: dict[str, Any], best: float) -> None:
    study = open_study(tmp_path / "s", config_of(**{**WIDE.to_dict(), **how}))
    execute(study, train=best_at(best))
    assert study.widened is None
    assert not study.directory.widened_json.exists()
    assert optuna_trials(tmp_path / "s", "widened") == []
    assert len(of_phase(study, "search")) == 16


def test_where_the_range_test_abstained_its_own_range_stands(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", WIDE)
    execute(study, train=lambda spec, config: (flat_ramps if spec.ramp else best_at(1e-9))(spec, config))
    assert study.bounds is not None
    assert study.bounds.status != "ok"
    assert study.widened is None


def assert_goes_on_widened(root: Path, slots: int) -> None:
    ended = {row.number: row for row in open_study(root, WIDE, resume=False).rows()}
    study = open_study(root, WIDE)
    again = execute(study, slots=slots, train=best_at(1e3))
    assert not ended.keys() & {number for number, _ in again}
    assert {number: study.row(number) for number in ended} == ended
    assert [row.number for row in study.rows()] == list(range(2 + 16))
    assert study.widened is not None
    searched, widened = optuna_trials(root, "search"), optuna_trials(root, "widened")
    finished = [trial.number for trial in searched if trial.state.is_finished()]
    assert (
        sorted(trial.user_attrs.get("copy_of", -1) for trial in widened if "spec" not in trial.user_attrs) == finished
    )
    assert len(finished) + sum("spec" in trial.user_attrs for trial in widened) == 16
    assert study._search.posterior_values().keys() == {
        row.number for row in of_phase(study, "search") if row.state == "complete"
    }
    drawn_from = [trial.distributions["lr"] for trial in widened]
    ranges = {(lr.low, lr.high) for lr in drawn_from if isinstance(lr, FloatDistribution)}
    assert all(isinstance(lr, FloatDistribution) for lr in drawn_from)
    assert ranges == {(study.widened.low, study.widened.high)}


def test_a_driver_killed_around_the_widening_loses_no_trial_and_repeats_none(tmp_path: Path) -> None:
    whole = open_study(tmp_path / "whole", WIDE)
    reports = len(execute(whole, slots=3, train=best_at(1e3)))
    for cut in range(reports // 2 - 3, reports // 2 + 9, 4):
        root = tmp_path / str(cut)
        execute(open_study(root, WIDE), slots=3, train=best_at(1e3), reports=cut)
        assert_goes_on_widened(root, 3)


def test_a_driver_killed_in_the_middle_of_widening_goes_on_with_it(tmp_path: Path) -> None:
    root = tmp_path / "s"
    study = open_study(root, WIDE)
    for _ in range(2 + 8):
        spec = study.next_trial()
        assert spec is not None
        for report in best_at(1e3)(spec, study.config):
            if not study.report(spec.number, report):
                break
    before = len(study.directory.journal.read_bytes().splitlines())
    assert study.widened is None
    asked = study.next_trial()
    assert asked is not None
    assert study.widened is not None
    shutil.rmtree(study.directory.trial(asked.number))  # its folder comes after what is cut off below
    lines = study.directory.journal.read_bytes().splitlines(keepends=True)
    for kept in (before + 1, before + 2, before + 4, len(lines) - 4):
        copy = tmp_path / str(kept)
        shutil.copytree(root, copy)
        StudyDir(copy).journal.write_bytes(b"".join(lines[:kept]))
        assert_goes_on_widened(copy, 1)


# --- extended -----------------------------------------------------------------------------------------------


def test_a_longer_study_runs_the_new_trials_and_lets_the_finished_ones_stand(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", config_of(parameters=FIXED_LR))
    execute(study, train=by_number({0: 0.5, 1: 0.4}))
    before = study.rows()
    seen: list[TrialSpec] = []
    longer = open_study(tmp_path / "s", config_of(parameters=FIXED_LR, num_trials=8))
    execute(longer, train=remembering(seen, by_number({n: 9.0 + n for n in range(99)})))
    assert [without_times(row) for row in longer.rows()[: len(before)]] == [without_times(row) for row in before]
    # The new ones are worse: the same finalists, who were confirmed and tested.
    assert [spec.phase for spec in seen] == ["search"] * 3
    assert [spec.number for spec in seen] == [9, 10, 11]
    assert_whole(longer)


def test_a_longer_study_confirms_only_what_is_new_among_the_finalists(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", config_of(parameters=FIXED_LR))
    execute(study, train=by_number({0: 0.5, 1: 0.4}))
    seen: list[TrialSpec] = []
    longer = open_study(tmp_path / "s", config_of(parameters=FIXED_LR, num_trials=6))
    execute(longer, train=remembering(seen, by_number({9: 0.1})))
    assert [(spec.number, spec.phase) for spec in seen[:3]] == [(9, "search"), (10, "confirm"), (11, "confirm")]
    assert {spec.lr for spec in seen[:3]} == {longer.rows()[9].lr}
    winner = longer.verdict().winner
    assert longer.test_result is not None
    assert longer.test_result.trial == winner.trial
    assert len(passes_over_test_data(seen)) == (winner.trial == 9)


# --- killed and gone on with --------------------------------------------------------------------------------


def assert_goes_on(root: Path, config: Config, slots: int, inner: Train = train) -> Study:
    """Opens a study that was killed, runs it to its end, and checks what a kill must not cost."""
    before = {
        trial.user_attrs["spec"]["number"]: trial
        for trials in trials_by_phase(root).values()
        for trial in trials
        if "spec" in trial.user_attrs
    }
    # Whose outcome is written down has ended, although Optuna may not have been told any more.
    finished = {number for number, trial in before.items() if "outcome" in trial.user_attrs}
    study = open_study(root, config)
    rows = {row.number: row for row in study.rows()}
    assert rows.keys() == finished
    handed_in = execute(study, slots=slots, train=inner)
    assert_whole(study)
    assert not finished & {number for number, _ in handed_in}
    assert {number: study.row(number) for number in finished} == rows
    after = {t.user_attrs["spec"]["number"]: t for trials in trials_by_phase(root).values() for t in trials}
    for number, trial in before.items():
        assert after[number].user_attrs["spec"] == trial.user_attrs["spec"]
        assert after[number].params == trial.params
        assert trial.intermediate_values.items() <= after[number].intermediate_values.items()
        assert not trial.state.is_finished() or after[number] == trial
    return study


@pytest.mark.parametrize(("killed_after", "slots"), [*((n, 1) for n in range(36)), *((n, 3) for n in range(1, 36, 3))])
def test_a_study_killed_after_any_report_goes_on_where_it_stood(tmp_path: Path, killed_after: int, slots: int) -> None:
    config = config_of(seed=killed_after)
    execute(open_study(tmp_path / "s", config), slots=slots, reports=killed_after)
    assert_goes_on(tmp_path / "s", config, slots)


@pytest.mark.parametrize("seed", range(3))
def test_a_study_killed_again_and_again_ends_like_any_other(tmp_path: Path, seed: int) -> None:
    config = config_of(seed=seed, sampler={"name": "tpe"})
    for reports in (3, 7, 0, 5, 4, 9):
        execute(open_study(tmp_path / "s", config), slots=2, reports=reports)
    assert_goes_on(tmp_path / "s", config, 2)


def test_with_one_slot_a_killed_study_ends_with_the_rows_of_one_that_was_not(tmp_path: Path) -> None:
    # Nothing is left to chance: one configuration, losses by number. Trials 2 and 4 are pruned.
    config = config_of(parameters=ONE_CONFIGURATION)
    trained = by_number({0: 3.0, 1: 2.0, 2: 4.0, 3: 1.0, 4: 5.0})
    whole = open_study(tmp_path / "whole", config)
    reports = len(execute(whole, train=trained))
    assert [row.state for row in whole.rows()][:5] == ["complete", "complete", "pruned", "complete", "pruned"]
    for killed_after in range(reports + 1):
        root = tmp_path / f"killed-{killed_after}"
        execute(open_study(root, config), train=trained, reports=killed_after)
        study = assert_goes_on(root, config, 1, trained)
        assert [without_times(row) for row in study.rows()] == [without_times(row) for row in whole.rows()]
        assert study.test_result == whole.test_result
        for row in whole.rows():
            assert study.directory.curve(row.number).read_text() == whole.directory.curve(row.number).read_text()


# Short, and with an end of every kind: complete, pruned and confirmed.
SHORT = config_of(num_trials=6, range_test=SMALL["range_test"] | {"replicates": 1}, confirm={"top": 2, "seeds": 1})


@pytest.fixture
def cut_journal(tmp_path: Path) -> Callable[[int], list[bytes]]:
    """A finished study in tmp_path/s, of which the journal's first lines can be kept: killed between any two writes."""
    study = open_study(tmp_path / "s", SHORT)
    execute(study, slots=2)
    assert {row.state for row in study.rows()} == {"complete", "pruned"}
    (tmp_path / "s").rename(tmp_path / "whole")
    lines = (tmp_path / "whole" / "study.journal").read_bytes().splitlines(keepends=True)

    def cut(count: int) -> list[bytes]:
        shutil.rmtree(tmp_path / "s", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "s")
        (tmp_path / "s" / "study.journal").write_bytes(b"".join(lines[:count]))
        directory = StudyDir(tmp_path / "s")
        for number in directory.numbers() - specs_in(tmp_path / "s").keys():  # the files of what began later
            shutil.rmtree(directory.trial(number), ignore_errors=True)
            directory.range_curve(number).unlink(missing_ok=True)
        return lines

    return cut


def has_undrawn_trial(root: Path) -> bool:
    """Whether the driver died after it asked Optuna for a trial of the search and before it wrote down what it is."""
    return any("spec" not in trial.user_attrs for trial in optuna_trials(root, "search"))


@pytest.mark.parametrize("part", range(4))
def test_a_study_killed_between_any_two_writes_of_its_journal_goes_on(
    tmp_path: Path, cut_journal: Callable[[int], list[bytes]], part: int
) -> None:
    for count in range(part, len(cut_journal(0)) + 1, 4):
        cut_journal(count)
        if not has_undrawn_trial(tmp_path / "s"):  # those have a test of their own below
            assert_goes_on(tmp_path / "s", SHORT, 2)


def test_a_study_killed_while_it_drew_a_trial_goes_on_and_draws_inside_the_bounds(
    tmp_path: Path, cut_journal: Callable[[int], list[bytes]]
) -> None:
    for count in range(3, len(cut_journal(0)) + 1):
        cut_journal(count)
        if has_undrawn_trial(tmp_path / "s"):
            study = assert_goes_on(tmp_path / "s", SHORT, 1)
            assert study.bounds is not None
            assert study.bounds.low is not None
            assert study.bounds.high is not None
            assert all(study.bounds.low <= row.lr <= study.bounds.high for row in of_phase(study, "search"))


def test_a_trial_that_was_asked_for_and_not_yet_written_down_gets_its_number_and_parameters(tmp_path: Path) -> None:
    config = config_of(parameters=FIXED_LR)
    study = open_study(tmp_path / "s", config)
    execute(study, reports=6)
    known = specs_in(tmp_path / "s")
    study.journal.ledger("search").ask()
    again = assert_goes_on(tmp_path / "s", config, 1)
    assert len(again.rows()) > len(known)
    assert all(specs_in(tmp_path / "s")[n] == known[n] for n in known)


@pytest.mark.parametrize("written", ["the report"])
def test_a_trial_killed_while_a_rung_was_decided_is_pruned_there_by_the_next_driver(
    tmp_path: Path, written: str
) -> None:
    config = config_of(parameters=ONE_CONFIGURATION, num_trials=2, confirm=NO_CONFIRMATION)
    trained = by_number({0: 1.0, 1: 2.0})
    study = open_study(tmp_path / "s", config)
    execute(study, train=trained)
    assert (study.rows()[1].state, study.rows()[1].steps) == ("pruned", 2)
    journal = tmp_path / "s" / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    # The last four: intermediate value, rung, outcome, PRUNED.
    journal.write_bytes(b"".join(lines[: -3 if written == "the report" else -2]))
    again = open_study(tmp_path / "s", config)
    execute(again, train=trained)
    assert (again.rows()[1].state, again.rows()[1].steps) == ("pruned", 2)


def test_a_phase_is_announced_before_a_trial_of_it_that_is_taken_up(tmp_path: Path) -> None:
    config = config_of(parameters=FIXED_LR, num_trials=1, confirm=NO_CONFIRMATION)
    execute(open_study(tmp_path / "s", config), reports=1)
    log = Log()
    execute(open_study(tmp_path / "s", config, observers=[log]))
    assert log.events[:2] == [("phase_started", ("search", 1)), ("trial_started", 0)]


def test_a_killed_study_can_be_gone_on_with_in_another_place(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    spec = run_up_to(study, "confirm")
    (tmp_path / "s").rename(tmp_path / "elsewhere")
    taken_up = open_study(tmp_path / "elsewhere").next_trial()
    assert taken_up is not None
    assert taken_up.number == spec.number
    assert taken_up.checkpoint == str(StudyDir(tmp_path / "elsewhere").checkpoint(spec.number))


def test_a_killed_test_pass_is_all_that_is_left_to_run(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    spec = run_up_to(study, "test")
    seen: list[TrialSpec] = []
    again = open_study(tmp_path / "s")
    execute(again, train=remembering(seen))
    assert seen == [spec]
    assert again.test_result is not None


def test_reading_a_killed_study_takes_nothing_up(tmp_path: Path) -> None:
    execute(open_study(tmp_path / "s"), slots=2, reports=11)
    before = [optuna_trials(tmp_path / "s", phase) for phase in PHASES]
    reader = open_study(tmp_path / "s", resume=False)
    assert reader.read_bounds() is not None
    assert reader.rows()
    assert [optuna_trials(tmp_path / "s", phase) for phase in PHASES] == before
    assert TrialState.RUNNING in [trial.state for trial in before[1]]


# --- the journal --------------------------------------------------------------------------------------------


def test_a_torn_last_line_is_cut_wherever_it_was_torn(tmp_path: Path) -> None:
    config = config_of(parameters=FIXED_LR)
    execute(open_study(tmp_path / "s", config), reports=2)
    journal = tmp_path / "s" / "study.journal"
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in range(1, len(lines[-1])):
        journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
        study = open_study(tmp_path / "s", config)
        assert journal.read_bytes().startswith(b"".join(lines[:-1]))
        first = study.next_trial()
        assert first is not None
        assert first.number == 0
        for line in journal.read_bytes().splitlines():
            json.loads(line)
        assert optuna_trials(tmp_path / "s", "search")[0].state == TrialState.RUNNING


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_study_with_a_torn_journal_runs_to_its_end(
    tmp_path: Path, cut_journal: Callable[[int], list[bytes]], kept: int
) -> None:
    for count in range(3, len(cut_journal(0)), 9):
        lines = cut_journal(count)
        if has_undrawn_trial(tmp_path / "s"):
            continue
        with (tmp_path / "s" / "study.journal").open("ab") as journal:
            journal.write(lines[count][:kept])
        assert_goes_on(tmp_path / "s", SHORT, 1)


@pytest.mark.timeout(20)  # Optuna would wait for 30 s
@pytest.mark.parametrize("kind", ["symlink", "file"])
def test_a_lock_that_a_killed_driver_left_on_the_journal_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    execute(open_study(tmp_path / "s"), reports=9)
    lock = tmp_path / "s" / "study.journal.lock"
    lock.symlink_to(tmp_path / "s" / "study.journal") if kind == "symlink" else lock.touch()
    assert_goes_on(tmp_path / "s", config_of(), 1)
    assert os.path.lexists(lock)  # it is not the driver's, and it is in nobody's way


def test_a_trial_whose_outcome_is_written_down_is_not_run_again(
    tmp_path: Path, cut_journal: Callable[[int], list[bytes]]
) -> None:
    lines, ends = cut_journal(0), 0
    for count, line in enumerate(lines, start=1):
        if b'"outcome"' in line:
            cut_journal(count)
            *_, last = (trial for trials in trials_by_phase(tmp_path / "s").values() for trial in trials
                        if "outcome" in trial.user_attrs and trial.state == TrialState.RUNNING)  # fmt: skip
            study = assert_goes_on(tmp_path / "s", SHORT, 1)
            row = study.row(last.user_attrs["spec"]["number"])
            assert row.state == last.user_attrs["outcome"]["state"]
            ends += 1
    assert ends > 8


def test_a_journal_that_has_lost_whole_lines_is_refused(
    tmp_path: Path, cut_journal: Callable[[int], list[bytes]]
) -> None:
    whole = cut_journal(10**6)
    journal = tmp_path / "s" / "study.journal"
    for lost in (b"".join(whole[: len(whole) // 2]), b"".join(whole[:6]), b"", None):
        journal.unlink() if lost is None else journal.write_bytes(lost)
        with pytest.raises(ResourceError, match=f"^{journal}: (knows nothing of trial|missing or empty)"):
            open_study(tmp_path / "s", SHORT)
        assert (journal.read_bytes() if journal.exists() else None) == lost


def test_a_ramp_whose_curve_was_cut_ends_the_study_instead_of_moving_the_bounds(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    run_up_to(study, "search")
    curve = tmp_path / "s" / "range_test" / "curve-1.csv"
    whole = curve.read_bytes()
    for damaged in (whole[:2000], b"", b"\xff" * 40, b"step,lr,loss\n1,a,b\n", None):
        curve.unlink() if damaged is None else curve.write_bytes(damaged)
        again = open_study(tmp_path / "s")
        while again.next_trial() is not None:
            pass
        assert isinstance(again.error, ResourceError)
        assert str(curve) in str(again.error)
        assert again.stopped
    curve.write_bytes(whole)
    execute(open_study(tmp_path / "s"))


def test_what_the_storage_refuses_ends_the_study_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_study(tmp_path / "s")
    spec = run_up_to(study, "search")

    def refuses(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(study.directory.curve(spec.number)))

    monkeypatch.setattr(study.directory, "append_curve", refuses)
    report = next(train(spec, study.config))
    assert not study.report(spec.number, report)
    assert study.stopped
    assert isinstance(study.error, ResourceError)
    assert re.fullmatch(r"/\S+/curve.csv: cannot be read or written \(No space left on device\); .*", str(study.error))
    assert_goes_on(tmp_path / "s", config_of(), 1)


def test_an_empty_journal_is_a_study_that_has_not_begun(tmp_path: Path) -> None:
    StudyDir(tmp_path / "s").create({})
    (tmp_path / "s" / "study.journal").touch()
    study = open_study(tmp_path / "s")
    assert study.rows() == []
    assert not study.over
    execute(study)
    assert_whole(study)


def broken(path: Path, content: bytes | None) -> None:
    StudyDir(path).create({})
    (path / "study.journal").write_bytes(content) if content is not None else (path / "study.journal").mkdir()


@pytest.mark.parametrize("content", [b"this is\nno journal\n", b"\xff\xfe\n\x00\n", b"{}\n"])
def test_a_file_that_is_no_journal_is_one_line_for_the_user(tmp_path: Path, content: bytes) -> None:
    broken(tmp_path / "s", content)
    with pytest.raises(ResourceError, match="cannot be read as an Optuna journal") as error:
        open_study(tmp_path / "s")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [None, b"[1]\n", b"no journal, one line\n"], ids=["a directory", "a list", "a line"]
)
def test_also_these_are_no_journals_and_one_line_for_the_user(tmp_path: Path, content: bytes | None) -> None:
    broken(tmp_path / "s", content)
    with pytest.raises(ResourceError):
        open_study(tmp_path / "s")


def test_the_ramps_reports_are_those_of_the_landscape(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    execute(study)
    curve = study.directory.read_curve(study.directory.range_curve(0))
    assert list(curve) == ["step", "lr", "loss"]
    assert math.isnan(curve["loss"][-1])
    expected = [ramp_loss(lr, 8) for lr in curve["lr"][:-1]]
    assert curve["loss"][:-1] == expected


def test_a_trial_that_somebody_stops_ends_alone(tmp_path: Path) -> None:
    study = open_study(tmp_path, config_of(pruner={"name": "none"}))
    execute(study, reports=11)  # in the middle of trial 3
    study = open_study(tmp_path, config_of(pruner={"name": "none"}))
    study.stop_trial(3, "stopped in Weights & Biases")
    execute(study)
    stopped = study.row(3)
    assert (stopped.state, stopped.steps, stopped.reason) == ("pruned", 2, "stopped in Weights & Biases")
    others = [row for row in of_phase(study, "search") if row.number != 3]
    assert {row.state for row in others} == {"complete"}
    assert len(others) == SMALL["num_trials"] - 1


# --- fixed configurations -----------------------------------------------------------------------------------

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
    assert study.directory.read_curve(study.directory.curve(fixed[2].number)).keys() >= {"lr", "val_loss"}
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


# --- a parameter that is a list -----------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "damage", [('"metrics"', '"mgtrics"'), ('"complete"', '"comqlete"'), ('"val_loss"', '"val_lnss"')]
)
def test_a_journal_that_is_json_and_no_outcome_is_refused(tmp_path: Path, damage: tuple[str, str]) -> None:
    execute(open_study(tmp_path / "s"), reports=60)
    journal = StudyDir(tmp_path / "s").journal
    lines = journal.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if '"state":"complete"' in line and '"metrics":{"val_loss"' in line)
    journal.write_text("".join([*lines[:at], lines[at].replace(*damage), *lines[at + 1 :]]))
    with pytest.raises(ResourceError, match="cannot be read as an Optuna journal"):
        open_study(tmp_path / "s")


@pytest.mark.parametrize("damage", ["[99, 2]", "[0, 2]", "7"], ids=["unknown", "a ramp", "no list"])
def test_a_journal_that_names_others_to_be_confirmed_than_trials_is_refused(tmp_path: Path, damage: str) -> None:
    execute(open_study(tmp_path / "s"))
    journal = StudyDir(tmp_path / "s").journal
    whole = journal.read_text()
    damaged = re.sub(r'("finalists": ?\{"[^"]*": ?)\[[^]]*\]', rf"\g<1>{damage}", whole)
    assert damaged != whole
    journal.write_text(damaged)
    with pytest.raises(ResourceError, match="cannot be read as an Optuna journal"):
        open_study(tmp_path / "s")
