"""The confirmation of a study: finalists, seeds, more seeds where they decide, and the pass over the test data."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from parts import Parts, parts_of, searched
from simulated import FIXED_LR, Log, Train, config_of, descend, execute, open_study, train
from tune_lr.config.model import Config
from tune_lr.config.plan import plan
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.confirmation import CONFIRM_SEEDS, TEST, Confirmation, WinnerOnTestData, kept_finalists
from tune_lr.study.spending import BudgetKeeper
from tune_lr.study.study import Study
from whole_studies import (
    ONE_CONFIGURATION,
    TWO_SCHEDULES,
    assert_whole,
    by_number,
    failing,
    of_phase,
    passes_over_test_data,
    remembering,
    run_up_to,
    specs_in,
)


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


# --- the confirmation by itself -------------------------------------------------------------------------------


def confirmation_of(parts: Parts, posterior_values: dict[int, float] | None = None) -> Confirmation:
    budget = BudgetKeeper(parts.config, parts.journal, parts.trials, lambda: 0.0)
    expected = posterior_values or {}
    return Confirmation(parts.config, parts.directory, parts.journal, parts.trials, budget, parts.log, lambda: expected)


def after_the_search(root: Path, config: Config | None = None) -> Parts:
    """Three trials have ended: step is best, then constant, then cosine."""
    parts = parts_of(root, config or config_of(parameters=FIXED_LR))
    for number, (name, loss) in enumerate([("constant", 0.2), ("step", 0.1), ("cosine", 0.3)]):
        parts.add("search", searched(number, 0.1, name), {"val_loss": loss})
    return parts


def test_confirmations_come_seed_by_seed(tmp_path: Path) -> None:
    parts = after_the_search(tmp_path / "s")
    confirmation = confirmation_of(parts)
    asked = []
    while confirmation.missing():
        spec = confirmation.spec(len(parts.trials))
        asked.append((spec.number, spec.lr_schedule, spec.seed))
        parts.add("confirm", spec, {"val_loss": 0.1})
    assert asked == [(3, "step", 1008), (4, "constant", 1008), (5, "step", 1009), (6, "constant", 1009)]


def test_finalists_are_those_that_are_expected_to_be_best(tmp_path: Path) -> None:
    parts = after_the_search(tmp_path / "s", config_of(parameters=FIXED_LR, confirm={"top": 1, "seeds": 1}))
    parts.add("search", searched(3, 0.2, "step"), {"val_loss": 0.12})
    lucky = {1: 0.25, 3: 0.12}  # the best figure of all was luck
    assert [spec.number for spec in confirmation_of(parts, lucky).missing()] == [3]


def test_who_is_confirmed_stays_so_for_whoever_knows_less(tmp_path: Path) -> None:
    one_runner_up = {"top": 1, "runners_up": 1, "seeds": 1}
    parts = after_the_search(tmp_path / "s", config_of(parameters=FIXED_LR, confirm=one_runner_up))
    without = confirmation_of(parts)  # without the ramps nothing is expected of a trial: the figures decide
    assert [spec.lr_schedule for spec in without.missing()] == ["step", "constant"]
    confirmation_of(parts, {0: 0.4}).spec(3)
    assert kept_finalists(parts.journal) == {"2 of 3": [1, 2]}
    without = confirmation_of(parts)
    assert [spec.lr_schedule for spec in without.missing()] == ["step", "cosine"]


def test_there_is_no_pass_over_the_test_data_without_a_winner_or_its_models(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "s")
    assert confirmation_of(parts).test_spec() is None
    parts.add("search", searched(0))
    assert confirmation_of(parts).test_spec() is None  # no confirmation has kept a model
    parts.add("confirm", replace(searched(1), phase="confirm", seed=1008, checkpoint="somewhere"))
    spec = confirmation_of(parts).test_spec()
    assert spec is not None
    assert (spec.number, spec.phase, spec.checkpoints) == (TEST, "test", (str(parts.directory.checkpoint(1)),))


def test_what_the_test_data_shows_is_written_down_once(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "s")
    parts.add("search", searched(0))
    parts.add("confirm", replace(searched(1), phase="confirm", seed=1008))
    confirmation = confirmation_of(parts)
    confirmation.keep_test(Report(0, failure="no memory"))
    assert confirmation.test_result is None
    assert parts.log.of("notice") == ["the winner could not be evaluated on the test data: no memory"]
    confirmation.keep_test(Report(0, test_values=({"test_loss": 0.5},)))
    assert confirmation_of(parts).test_result == WinnerOnTestData(0, ({"test_loss": 0.5},))
    assert confirmation.test_spec() is None
