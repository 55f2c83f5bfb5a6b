"""How long a study still takes."""

import pytest

from tune_lr.records.time_left import PhaseLeft, seconds_left, steps_left, usual_steps


def test_a_trial_takes_what_those_before_it_took() -> None:
    assert usual_steps([4, 8, 6], 310) == 6
    assert usual_steps([], 310) == 310


def test_what_runs_now_is_part_done() -> None:
    assert steps_left([PhaseLeft(3, 10.0, done=4.0), PhaseLeft(2, 100.0)]) == 26 + 200


def test_a_trial_that_takes_more_than_the_usual_takes_nothing_from_later_phases() -> None:
    assert steps_left([PhaseLeft(1, 10.0, done=25.0), PhaseLeft(2, 100.0)]) == 200


@pytest.mark.parametrize(("slots", "seconds"), [(0, 50.0), (1, 50.0), (4, 12.5)])
def test_slots_share_the_steps(slots: int, seconds: float) -> None:
    assert seconds_left(100, seconds=20.0, steps_done=40.0, slots=slots) == seconds


def test_nothing_is_left_of_a_budget_that_is_overdrawn() -> None:
    assert seconds_left(-5, seconds=20.0, steps_done=40.0, slots=1) == 0.0
