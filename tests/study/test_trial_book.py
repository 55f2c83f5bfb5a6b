"""The trials of a study and their outcomes, and what is computed from them."""

from dataclasses import replace
from pathlib import Path

from parts import OUTCOME, Parts, parts_of, searched
from simulated import config_of
from tune_lr.lr.ramp import Ramp
from tune_lr.records.trial import TrialSpec
from tune_lr.study.trial_book import TrialOutcome

RAMP = Ramp(1e-5, 10.0, 120)
RAMP_TRIAL = TrialSpec(0, "range_test", 8, 120, ramp=RAMP)


def three_trials(root: Path) -> Parts:
    """A ramp, a pruned trial with half the batch size, and one that has not ended."""
    parts = parts_of(root, config_of(batch_size=128))
    parts.add("range_test", RAMP_TRIAL, steps=90, started=50.0, clock=4.5, duration_s=4.0)
    parts.add("search", searched(1, batch_size=64, max_steps=16), state="pruned", steps=4, slot=2, clock=6.5)
    parts.trials.add("fixed", searched(2, label="by hand"))
    return parts


def test_an_outcome_is_read_back_as_it_was_written() -> None:
    for outcome in (OUTCOME, replace(OUTCOME, state="failed", value=None, metrics={}, facts=None)):
        assert TrialOutcome.from_dict(outcome.to_dict()) == outcome


def test_an_outcome_of_an_older_study_has_neither_clock_nor_facts() -> None:
    older = {key: value for key, value in OUTCOME.to_dict().items() if key not in ("clock", "facts")}
    assert TrialOutcome.from_dict(older) == replace(OUTCOME, clock=0.0, facts=None)


def test_what_was_asked_for_and_what_has_ended_are_counted_by_ledger(tmp_path: Path) -> None:
    trials = three_trials(tmp_path / "s").trials
    assert len(trials) == 3
    assert trials.asked("search", "widened") == 1
    assert trials.asked("fixed") == 1
    assert trials.ended_in("fixed", "search") == 1
    assert [spec.number for spec in trials.begun()] == [2]
    assert [spec.number for spec in trials.specs("search")] == [1, 2]
    assert trials.ended() == [0, 1]


def test_a_row_says_what_was_trained_and_how_it_ended(tmp_path: Path) -> None:
    trials = three_trials(tmp_path / "s").trials
    ramp, pruned = trials.rows()
    assert (ramp.lr_schedule, ramp.lr, ramp.state, ramp.steps) == ("ramp", 10.0, "complete", 90)
    assert (pruned.lr_schedule, pruned.parameters, pruned.state, pruned.slot) == (
        "constant", {"batch_size": 64}, "pruned", 2
    )  # fmt: skip
    assert (ramp.started_s, pruned.started_s) == (0.0, 50.0)
    assert trials.rows_of("search") == [trials.row(1)] == [pruned]


def test_steps_of_another_batch_size_count_by_their_samples(tmp_path: Path) -> None:
    trials = three_trials(tmp_path / "s").trials
    assert trials.steps_by_phase() == {"range_test": 90, "search": 4, "confirm": 0}
    assert trials.weighted_steps("search") == trials.weighted_steps_of(1) == 2.0
    assert trials.full_trainings() == 92 / 8


def test_steps_are_saved_by_ends_before_the_last_step(tmp_path: Path) -> None:
    parts = three_trials(tmp_path / "s")
    parts.add("search", searched(3), state="diverged", steps=3)
    parts.add("search", searched(4), state="failed", steps=1)
    assert parts.trials.steps_saved() == {"pruned": 12, "diverged": 30 + 5}


def test_time_and_slots_are_those_of_the_trials_that_have_ended(tmp_path: Path) -> None:
    trials = three_trials(tmp_path / "s").trials
    assert trials.seconds("range_test") == 4.0
    assert trials.seconds("confirm") == 0.0
    assert trials.clock("range_test") == 4.5
    assert trials.clock("range_test", "search", "confirm") == 6.5
    assert trials.slots() == 3
    nothing = parts_of(tmp_path / "empty").trials
    assert (nothing.slots(), nothing.clock("search"), nothing.rows()) == (1, 0.0, [])
