"""What holds of every simulated study, and what its journal says, read past tune-lr."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from simulated import SMALL, Train, config_of, descend, ends_at_once, execute, open_study, train
from tune_lr.config.model import Config
from tune_lr.records.phases import PHASES
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.curves import read_curve
from tune_lr.study.study import Study

NO_CONFIRMATION = {"top": 0, "seeds": 1}

ONE_CONFIGURATION = {"lr": {"value": 0.1}, "lr_schedule": {"value": "constant"}}


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
        assert read_curve(curve(row.number))["step"] == list(range(1, row.steps + 1))
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


def passes_over_test_data(trained: list[TrialSpec]) -> list[TrialSpec]:
    return [spec for spec in trained if spec.phase == "test"]


def remembering(seen: list[TrialSpec], inner: Train = train) -> Train:
    def trained(spec: TrialSpec, config: Config) -> Iterator[Report]:
        seen.append(spec)
        return inner(spec, config)

    return trained


TWO_SCHEDULES = {"lr": {"min": 0.01, "max": 1.0}, "lr_schedule": {"values": ["constant", "step"]}}


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
    assert {number: study.trials.row(number) for number in finished} == rows
    after = {t.user_attrs["spec"]["number"]: t for trials in trials_by_phase(root).values() for t in trials}
    for number, trial in before.items():
        assert after[number].user_attrs["spec"] == trial.user_attrs["spec"]
        assert after[number].params == trial.params
        assert trial.intermediate_values.items() <= after[number].intermediate_values.items()
        assert not trial.state.is_finished() or after[number] == trial
    return study


# Short, and with an end of every kind: complete, pruned and confirmed.
SHORT = config_of(num_trials=6, range_test=SMALL["range_test"] | {"replicates": 1}, confirm={"top": 2, "seeds": 1})


def has_undrawn_trial(root: Path) -> bool:
    """Whether the driver died after it asked Optuna for a trial of the search and before it wrote down what it is."""
    return any("spec" not in trial.user_attrs for trial in optuna_trials(root, "search"))
