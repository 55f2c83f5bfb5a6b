"""Studies that are extended, killed and gone on with: nothing is lost, and nothing that has ended runs again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import Trial, TrialState

from parts import OUTCOME, Parts, parts_of, searched
from simulated import FIXED_LR, Log, config_of, execute, open_study
from tune_lr.records.phases import PHASES
from tune_lr.records.trial import TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.journal import write_outcome, write_spec
from tune_lr.study.resumption import read_trials, take_up, tell_ended
from whole_studies import (
    NO_CONFIRMATION,
    ONE_CONFIGURATION,
    SHORT,
    assert_goes_on,
    assert_whole,
    by_number,
    has_undrawn_trial,
    of_phase,
    optuna_trials,
    passes_over_test_data,
    remembering,
    run_up_to,
    specs_in,
    trials_by_phase,
    without_times,
)


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
            row = study.trials.row(last.user_attrs["spec"]["number"])
            assert row.state == last.user_attrs["outcome"]["state"]
            ends += 1
    assert ends > 8


# --- reading and taking up by themselves ----------------------------------------------------------------------


def asked(parts: Parts, ledger: str, spec: TrialSpec) -> Trial:
    trial = parts.journal.ledger(ledger).ask()
    write_spec(trial, spec)
    return trial


def test_only_what_has_ended_is_read(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "s")
    first = asked(parts, "fixed", searched(0, label="by hand"))
    write_outcome(first, OUTCOME)
    parts.journal.end("fixed", first, OUTCOME)
    asked(parts, "fixed", searched(1, label="other"))
    trials = read_trials(parts.journal, parts.directory, parts.config)
    assert trials.ended() == [0]
    assert len(trials) == 1
    assert trials.outcome(0) == OUTCOME


def test_a_trial_whose_end_optuna_does_not_know_ends_first(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "s")
    write_outcome(asked(parts, "fixed", searched(0)), OUTCOME)
    trials = read_trials(parts.journal, parts.directory, parts.config)
    assert trials.ended() == []
    tell_ended(parts.journal, trials)
    assert trials.ended() == [0]
    assert parts.journal.trials("fixed")[0].state == TrialState.COMPLETE
    assert take_up(parts.journal, trials, parts.directory) == []


def test_interrupted_trials_are_taken_up_ledger_by_ledger_with_what_optuna_knows(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "s")
    later = asked(parts, "confirm", replace(searched(3), phase="confirm", checkpoint="/elsewhere/trials/0003"))
    earlier = asked(parts, "fixed", searched(1))
    earlier.report(2.5, 4)
    later.study.ask()  # asked for and never written down: it stays waiting
    trials = read_trials(parts.journal, parts.directory, parts.config)
    taken_up = take_up(parts.journal, trials, parts.directory)
    assert [(trial.ledger, trial.spec.number) for trial in taken_up] == [("fixed", 1), ("confirm", 3)]
    assert (taken_up[0].reported, taken_up[0].decided) == (4, 3)
    assert taken_up[1].spec.checkpoint == str(parts.directory.checkpoint(3))  # the study may have been moved
    assert [spec.number for spec in trials.begun()] == [1, 3]
    assert parts.journal.trials("confirm")[1].state == TrialState.WAITING
