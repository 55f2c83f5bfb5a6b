"""Who wins, and how sure one can be: rows of trials in, expected decisions out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from tune_lr.errors import NoAnswerError
from tune_lr.records.row import TrialRow, rank_search
from tune_lr.study.verdict import choose_finalists, judge, mean_interval

METRIC, GOAL = "val_loss", "minimize"
# Student's t, 97.5 %, with 1 and 2 degrees of freedom, from a printed table
T1, T2 = 12.7062, 4.30265


def row(number: int, phase: str, lr: float, seed: int, value: float | None, state: str = "complete") -> TrialRow:
    metrics = {} if value is None else {METRIC: value}
    return TrialRow(number, phase, state, "step", lr, {"step.gamma": 0.5}, seed, 310, metrics)


def rows_of(searched: dict[float, float], confirmed: Mapping[float, Sequence[float]]) -> list[TrialRow]:
    """LR -> value in the search; LR -> values in the confirmation, by seed."""
    rows = [row(number, "search", lr, 0, value) for number, (lr, value) in enumerate(searched.items())]
    for lr, values in confirmed.items():
        rows += [row(len(rows) + i, "confirm", lr, 1001 + i, value) for i, value in enumerate(values)]
    return rows


# --- the interval -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "interval"),
    [
        ([1.0, 3.0], (2 - T1, 2 + T1)),  # deviation sqrt(2), error 1
        ([1.0, 2.0, 3.0], (2 - T2 / math.sqrt(3), 2 + T2 / math.sqrt(3))),  # deviation 1
        ([0.5, 0.5, 0.5], (0.5, 0.5)),
    ],
)
def test_the_interval_is_students(values: list[float], interval: tuple[float, float]) -> None:
    assert mean_interval(values) == pytest.approx(interval, rel=1e-5)


@pytest.mark.parametrize("values", [[], [0.3]])
def test_fewer_than_two_values_have_no_interval(values: list[float]) -> None:
    assert mean_interval(values) is None


# --- the ranking of the search ------------------------------------------------------------------------------


@pytest.mark.parametrize(("goal", "order"), [("minimize", [1, 2, 0]), ("maximize", [0, 2, 1])])
def test_the_search_is_ranked_by_the_metric_in_its_direction(goal: str, order: list[int]) -> None:
    rows = rows_of({0.1: 3.0, 0.2: 1.0, 0.3: 2.0}, {})
    assert [row.number for row in rank_search(rows, METRIC, goal)] == order


def test_only_trials_of_the_search_that_were_completed_are_ranked_each_configuration_once() -> None:
    rows = [
        row(0, "search", 0.1, 0, 0.1, "pruned"),
        row(1, "search", 0.2, 0, 0.2, "diverged"),
        row(2, "search", 0.3, 0, None, "failed"),
        row(3, "search", 0.4, 0, 0.9),
        row(4, "search", 0.4, 0, 0.9),
        row(5, "search", 0.5, 0, None),
        row(6, "confirm", 0.6, 1001, 0.1),
        row(7, "search", 0.7, 0, 0.8),
    ]
    assert [row.number for row in rank_search(rows, METRIC, GOAL)] == [7, 3]


def test_finalists_are_the_best_of_the_best_lr_schedules_and_then_the_next_best_of_any() -> None:
    names = ["cyclic", "cyclic", "cosine", "cyclic", "step", "cosine"]
    rows = [replace(row(i, "search", 0.1 + i, 0, i / 10), lr_schedule=name) for i, name in enumerate(names)]

    def chosen(top: int, finalists: int) -> list[int]:
        return [one.number for one in choose_finalists(rows, METRIC, GOAL, top, finalists)]

    assert [chosen(top, top) for top in (1, 2, 3, 5)] == [[0], [0, 2], [0, 2, 4], [0, 2, 4, 1, 3]]
    assert chosen(9, 9) == [0, 2, 4, 1, 3, 5]
    assert [chosen(top, 4) for top in (1, 2, 3)] == [[0, 1, 2, 3], [0, 2, 1, 3], [0, 2, 4, 1]]
    assert chosen(3, 2) == [0, 2]  # as many as a budget leaves


@pytest.mark.parametrize(("goal", "sign"), [("minimize", 1), ("maximize", -1)])
def test_what_is_believed_says_which_trial_stands_for_its_schedule_and_which_others_come_but_not_which_schedules(
    goal: str, sign: int
) -> None:
    names = ["cyclic", "cyclic", "cosine", "step", "cyclic"]
    rows = [replace(row(i, "search", 0.1 + i, 0, sign * i / 10), lr_schedule=name) for i, name in enumerate(names)]
    believed = {0: sign * 0.25, 1: sign * 0.15, 2: sign * 0.05, 4: sign * 0.17}  # nothing of the third, a fixed trial

    def chosen(top: int, finalists: int) -> list[int]:
        return [one.number for one in choose_finalists(rows, METRIC, goal, top, finalists, believed)]

    assert (chosen(1, 1), chosen(3, 3), chosen(3, 5)) == ([1], [1, 2, 3], [1, 2, 3, 4, 0])
    assert (chosen(1, 2), chosen(2, 4)) == ([1, 2], [1, 2, 4, 0])


# --- the winner ---------------------------------------------------------------------------------------------

TWO = {0.1: 0.40, 0.2: 0.41}


@pytest.mark.parametrize(
    ("goal", "confirmed", "winner"),
    [
        # by the mean over seeds, whatever the search had said
        ("minimize", {0.1: [0.5, 0.5], 0.2: [0.4, 0.4]}, 0.2),
        ("minimize", {0.1: [0.4, 0.4], 0.2: [0.5, 0.5]}, 0.1),
        ("maximize", {0.1: [0.5, 0.5], 0.2: [0.4, 0.4]}, 0.1),
        ("maximize", {0.1: [0.4, 0.4], 0.2: [0.5, 0.5]}, 0.2),
        # the better mean, not the better best seed
        ("minimize", {0.1: [0.1, 0.9], 0.2: [0.4, 0.4]}, 0.2),
        # alike: as the search ranked them
        ("minimize", {0.1: [0.4, 0.5], 0.2: [0.5, 0.4]}, 0.1),
    ],
)
def test_the_winner_has_the_best_mean(goal: str, confirmed: dict[float, list[float]], winner: float) -> None:
    assert judge(rows_of(TWO, confirmed), METRIC, goal).winner.lr == winner


def test_a_finalist_knows_its_trials_seeds_and_figures() -> None:
    winner = judge(rows_of(TWO, {0.1: [0.3, 0.5], 0.2: [0.6, 0.6]}), METRIC, GOAL).winner
    assert (winner.trial, winner.confirm_trials, winner.seeds, winner.values) == (0, (2, 3), (1001, 1002), (0.3, 0.5))
    assert winner.mean == pytest.approx(0.4)
    assert winner.interval == pytest.approx((0.4 - T1 * 0.1, 0.4 + T1 * 0.1), rel=1e-5)
    assert winner.label == "step at lr 0.1"
    assert winner.parameters == {"step.gamma": 0.5}


def test_confirmations_are_paired_by_seed_in_whatever_order_they_ended() -> None:
    rows = rows_of(TWO, {})
    rows += [row(2, "confirm", 0.1, 1002, 0.2), row(3, "confirm", 0.2, 1001, 0.5)]
    rows += [row(4, "confirm", 0.2, 1002, 0.3), row(5, "confirm", 0.1, 1001, 0.4)]
    verdict = judge(rows, METRIC, GOAL)
    assert [finalist.values for finalist in verdict.finalists] == [(0.4, 0.2), (0.5, 0.3)]
    assert verdict.differences[0].mean == pytest.approx(-0.1)


@pytest.mark.parametrize("state", ["diverged", "failed"])
def test_a_finalist_that_does_not_survive_a_seed_loses(state: str) -> None:
    rows = rows_of(TWO, {0.1: [0.1, 0.1], 0.2: [0.9, 0.9]})
    rows.append(row(99, "confirm", 0.1, 1003, None, state))
    rows.append(row(100, "confirm", 0.2, 1003, 0.9))
    verdict = judge(rows, METRIC, GOAL)
    assert [finalist.lr for finalist in verdict.finalists] == [0.2]
    assert "no other finalist" in verdict.sentence


def test_finalists_with_fewer_seeds_wait() -> None:
    verdict = judge(rows_of(TWO, {0.1: [0.5, 0.5], 0.2: [0.1]}), METRIC, GOAL)
    assert [finalist.lr for finalist in verdict.finalists] == [0.1]


def test_where_every_finalist_diverged_under_a_fresh_seed_one_that_did_not_wins() -> None:
    rows = rows_of({0.1: 0.4, 0.2: 0.5, 0.3: 0.6}, {})
    rows += [row(3, "confirm", 0.1, 1001, None, "diverged"), row(4, "confirm", 0.2, 1001, None, "diverged")]
    verdict = judge(rows, METRIC, GOAL)
    assert verdict.winner.lr == 0.3
    assert "nothing was confirmed" in verdict.sentence


def test_without_confirmation_the_search_alone_decides_and_the_verdict_says_so() -> None:
    verdict = judge(rows_of({0.1: 0.5, 0.2: 0.4}, {}), METRIC, GOAL)
    assert (verdict.winner.lr, verdict.winner.confirm_trials, verdict.winner.seeds) == (0.2, (), (0,))
    assert verdict.winner.interval is None
    assert verdict.differences == ()
    assert "with one seed; nothing was confirmed" in verdict.sentence


@pytest.mark.parametrize("states", [[], ["diverged", "pruned"], ["failed"]])
def test_a_search_without_a_completed_trial_is_no_answer(states: list[str]) -> None:
    rows = [row(number, "search", 0.1, 0, None, state) for number, state in enumerate(states)]
    with pytest.raises(NoAnswerError, match=", ".join(states) or "none was started"):
        judge(rows, METRIC, GOAL)


# --- how sure -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("winner", "second", "difference", "half", "distinguishable"),
    [
        # pairs -0.1, -0.1: no noise in the difference, however noisy each is
        ([0.2, 0.6], [0.3, 0.7], -0.1, 0.0, True),
        # pairs 0.1, -0.3: mean -0.1, error 0.2
        ([0.4, 0.2], [0.3, 0.5], -0.1, T1 * 0.2, False),
        # pairs -0.10, -0.11, -0.12: deviation 0.01
        ([0.20, 0.20, 0.20], [0.30, 0.31, 0.32], -0.11, T2 * 0.01 / math.sqrt(3), True),
        # pairs -0.1, -0.2, 0.0: deviation 0.1
        ([0.2, 0.2, 0.2], [0.3, 0.4, 0.2], -0.1, T2 * 0.1 / math.sqrt(3), False),
    ],
)
def test_the_difference_is_paired_and_its_interval_decides(
    winner: list[float], second: list[float], difference: float, half: float, distinguishable: bool
) -> None:
    verdict = judge(rows_of(TWO, {0.1: winner, 0.2: second}), METRIC, GOAL)
    assert verdict.winner.lr == 0.1
    assert verdict.differences[0].mean == pytest.approx(difference)
    assert verdict.differences[0].interval == pytest.approx((difference - half, difference + half), rel=1e-5, abs=1e-9)
    assert verdict.tied == (() if distinguishable else verdict.finalists[1:])
    if distinguishable:
        assert f"better than step at lr 0.2 ({sum(second) / len(second):.4g}) beyond the noise" in verdict.sentence
    else:
        assert f"cannot be told apart at {len(winner)} seeds" in verdict.sentence


def test_a_better_winner_where_more_is_better_has_a_positive_difference() -> None:
    verdict = judge(rows_of(TWO, {0.1: [0.90, 0.91, 0.92], 0.2: [0.80, 0.81, 0.82]}), METRIC, "maximize")
    assert verdict.winner.lr == 0.1
    assert verdict.differences[0].mean == pytest.approx(0.1)
    assert not verdict.tied


def test_one_fresh_seed_tells_nothing_apart() -> None:
    verdict = judge(rows_of(TWO, {0.1: [0.1], 0.2: [0.9]}), METRIC, GOAL)
    assert verdict.differences[0].mean == pytest.approx(-0.8)
    assert verdict.differences[0].interval is None
    assert verdict.tied
    assert "one seed cannot tell it from step at lr 0.2" in verdict.sentence


def test_the_runner_up_is_the_second_best_of_many() -> None:
    verdict = judge(rows_of({0.1: 1, 0.2: 2, 0.3: 3}, {0.1: [0.5] * 2, 0.2: [0.1] * 2, 0.3: [0.2] * 2}), METRIC, GOAL)
    assert [finalist.lr for finalist in verdict.finalists] == [0.2, 0.3, 0.1]
    assert verdict.differences[0].mean == pytest.approx(-0.1)


THREE = {0.1: 1.0, 0.2: 2.0, 0.3: 3.0}


def test_all_finalists_that_cannot_be_told_from_the_winner_are_named() -> None:
    verdict = judge(rows_of(THREE, {0.1: [0.2, 0.3], 0.2: [0.3, 0.25], 0.3: [1.5, 1.6]}), METRIC, GOAL)
    assert [finalist.lr for finalist in verdict.tied] == [0.2]
    assert "it and step at lr 0.2 (0.275) cannot be told apart at 2 seeds" in verdict.sentence
    verdict = judge(rows_of(THREE, {0.1: [0.2, 0.3], 0.2: [0.3, 0.25], 0.3: [0.3, 0.26]}), METRIC, GOAL)
    assert "it, step at lr 0.2 (0.275) and step at lr 0.3 (0.28) cannot be told apart" in verdict.sentence


WIDE = {0.1: [0.20, 0.22, 0.21], 0.2: [0.30, 0.33, 0.35], 0.3: [0.50, 0.62, 0.59]}


def width(values: dict[float, list[float]], seeds: int = 0, max_seeds: int = 0, other: int = 0) -> float:
    interval = judge(rows_of(THREE, values), METRIC, GOAL, seeds, max_seeds).differences[other].interval
    assert interval is not None
    return interval[1] - interval[0]


def test_the_noise_of_a_difference_is_that_of_all_finalists_or_of_its_own_pairs_where_that_is_larger() -> None:
    """By least squares: each figure is what its finalist and its seed add, and what is left is noise."""
    figures = np.array(list(WIDE.values()))
    made_of = [[*(np.arange(3) == row), *(np.arange(3) == seed)] for row in range(3) for seed in range(3)]
    left = figures.ravel() - np.array(made_of, float) @ np.linalg.lstsq(np.array(made_of, float), figures.ravel())[0]
    shared = math.sqrt(2 * (left**2).sum() / 4)
    own = [float(np.std(figures[0] - figures[i], ddof=1)) for i in (1, 2)]
    assert own[0] < shared < own[1]
    # Student's t with 4 degrees of freedom at 1 - 0.025 / 3
    assert width(WIDE) == pytest.approx(2 * 3.96079 * shared / math.sqrt(3), rel=1e-4)
    assert width(WIDE, other=1) == pytest.approx(2 * 3.96079 * own[1] / math.sqrt(3), rel=1e-4)


def test_intervals_are_wider_where_they_may_be_looked_at_twice() -> None:
    pair = {lr: WIDE[lr] for lr in (0.1, 0.2)}
    # Student's t with 2 degrees of freedom at 97.5 and at 98.75 %, from a printed table
    assert width(pair, 3, 6) / width(pair) == pytest.approx(6.20535 / T2, rel=1e-4)


# --- more seeds ---------------------------------------------------------------------------------------------

CLOSE = {0.1: [0.30, 0.31, 0.32], 0.2: [0.33, 0.35, 0.39], 0.3: [0.90, 0.91, 0.92]}  # 0.2: 0.03, 0.04, 0.07 behind


def test_more_seeds_are_for_those_between_whom_they_would_decide() -> None:
    assert judge(rows_of(THREE, CLOSE), METRIC, GOAL, 3, 3).contenders == ()
    verdict = judge(rows_of(THREE, CLOSE), METRIC, GOAL, 3, 6)
    assert [finalist.lr for finalist in verdict.tied] == [0.2]
    assert verdict.contenders == (0, 1)
    alike = CLOSE | {0.2: [0.31, 0.30, 0.33]}
    assert judge(rows_of(THREE, alike), METRIC, GOAL, 3, 6).contenders == ()  # six would not tell them apart either
    assert judge(rows_of(TWO, {0.1: [0.1], 0.2: [0.9]}), METRIC, GOAL, 1, 6).contenders == ()  # no noise is known


def test_with_more_seeds_contenders_are_compared_on_all_and_the_others_stay_told_apart() -> None:
    more = CLOSE | {0.1: [*CLOSE[0.1], 0.31, 0.30, 0.32], 0.2: [*CLOSE[0.2], 0.35, 0.36, 0.36]}
    verdict = judge(rows_of(THREE, more), METRIC, GOAL, 3, 6)
    assert [(finalist.lr, len(finalist.seeds)) for finalist in verdict.finalists] == [(0.1, 6), (0.2, 6), (0.3, 3)]
    assert verdict.tied == ()
    assert "beyond the noise of 6 seeds" in verdict.sentence
    # on the way there: the seeds that both have
    verdict = judge(rows_of(THREE, more | {0.2: more[0.2][:4]}), METRIC, GOAL, 3, 6)
    assert [len(finalist.seeds) for finalist in verdict.finalists] == [4, 4, 3]
    assert verdict.contenders == (0, 1)


# --- confirmations that end out of order, or are stopped ----------------------------------------------------


@pytest.mark.parametrize("seeds", [((1001, 1003), (1002, 1003)), ((1001,), (1002,))])
def test_confirmations_that_end_out_of_order_are_compared_on_the_seeds_that_both_have(
    seeds: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    rows = [row(0, "search", 0.1, 0, 0.3), row(1, "search", 0.2, 0, 0.4)]
    for lr, ended in zip((0.1, 0.2), seeds, strict=True):
        rows += [row(len(rows) + i, "confirm", lr, seed, lr + seed / 1e4) for i, seed in enumerate(ended)]
    verdict = judge(rows, METRIC, "minimize", 3)
    assert len(verdict.finalists) == 2
    both = set(seeds[0]) & set(seeds[1])
    if both:
        sign = 1 if verdict.winner.lr == 0.1 else -1
        assert verdict.differences[0].mean == pytest.approx(-0.1 * sign)


def test_a_confirmation_that_somebody_stopped_says_nothing_of_its_finalist() -> None:
    rows = rows_of({0.1: 0.3, 0.2: 0.4}, {0.1: [0.3, 0.31], 0.2: [0.4, 0.41]})
    stopped = row(len(rows), "confirm", 0.1, 1003, None, state="pruned")
    assert judge([*rows, stopped], METRIC, "minimize") == judge(rows, METRIC, "minimize")
    diverged = replace(stopped, state="diverged")
    assert judge([*rows, diverged], METRIC, "minimize").winner.lr == 0.2


def test_the_advice_fits_how_the_trials_ended() -> None:
    failed = replace(row(0, "search", 0.1, 0, None, state="failed"), reason="ValueError: no")
    diverged = row(1, "search", 0.1, 0, None, state="diverged")
    for rows, said, unsaid in (
        ([failed], "(failed); trial 0 failed: ValueError: no", "lower the LRs"),
        ([diverged], "(diverged); lower the LRs", "failed"),
        ([], "(none was started)", "lower the LRs"),
    ):
        with pytest.raises(NoAnswerError) as caught:
            judge(rows, METRIC, "minimize")
        assert said in str(caught.value)
        assert unsaid not in str(caught.value)
