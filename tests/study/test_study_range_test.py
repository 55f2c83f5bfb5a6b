"""The range test of a study: which ramps run, when they are extended, and what follows where there are no bounds."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parts import Parts, parts_of
from simulated import (
    FIXED_LR,
    SMALL,
    Log,
    Train,
    config_of,
    execute,
    flat_ramps,
    noise,
    open_study,
    ramp,
    ramp_loss,
    train,
)
from tune_lr.config.model import Config
from tune_lr.config.parameters import Combination
from tune_lr.errors import NoAnswerError, ResourceError
from tune_lr.lr.bounds import LRBounds
from tune_lr.lr.ramp import Ramp
from tune_lr.records.phases import PHASES
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.study.curves import Curves
from tune_lr.study.range_test import RangeTest, extended_ramp
from tune_lr.study.widening import LOOK_AFTER
from whole_studies import NO_CONFIRMATION, assert_whole, failing, of_phase, run_up_to


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


def test_a_ramp_that_ends_in_divergence_is_complete(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    execute(study)
    ramps = of_phase(study, "range_test")
    assert [row.state for row in ramps] == ["complete"] * 2
    assert all(row.reason.startswith("diverged at step") and row.steps < 120 for row in ramps)


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


SHORT_RAMP = {"low": 1e-4, "high": 10.0, "steps": 60, "replicates": 1}


def level_then_nan(edge: float) -> Train:
    """Ramps whose loss is level, but for noise, and not a number at LRs above `edge`."""

    def trained(spec: TrialSpec, config: Config) -> Iterator[Report]:
        if not spec.ramp:
            return train(spec, config)
        return ramp(spec, lambda lr, seed: math.nan if lr > edge else 5e6 + 1e5 * noise(lr, seed))

    return trained


def test_two_rounds_of_ramps_are_read_together_where_neither_holds_an_answer(tmp_path: Path) -> None:
    """The first round diverges in its first steps; the second, at lower LRs, ends before the LR that diverges."""
    log = Log()
    study = open_study(tmp_path / "s", config_of(num_trials=12, range_test=SHORT_RAMP), observers=[log])
    execute(study, train=level_then_nan(1.2e-3))
    assert [row.lr for row in of_phase(study, "range_test")] == pytest.approx([10.0, 1e-3])
    assert study.bounds is not None
    assert (study.bounds.status, study.bounds.edge_only) == ("ok", True)
    assert study.bounds.high is not None
    assert 1e-3 < study.bounds.high < 2e-3
    searched = of_phase(study, "search")[: LOOK_AFTER - 1]  # the range may be widened afterwards
    assert all(row.lr <= study.bounds.high for row in searched)
    assert not any("NO BOUNDS" in text for text in log.of("notice"))


def test_without_bounds_the_lrs_that_diverged_in_a_ramp_are_not_searched(tmp_path: Path) -> None:
    log = Log()
    study = open_study(tmp_path / "s", config_of(num_trials=12, range_test=SHORT_RAMP), observers=[log])
    execute(study, train=level_then_nan(1e-9))
    assert study.bounds is not None
    assert study.bounds.status == "diverged_at_start"
    lrs = [row.lr for row in of_phase(study, "search")]
    assert max(lrs) <= 1.0001e-8
    assert min(lrs) >= 0.9999e-10
    assert "The search covers 1e-10 to 1e-08; the LRs above it diverged." in log.of("notice")[-1]


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


# --- the range test by itself ---------------------------------------------------------------------------------

TWO_OPTIMIZERS = {
    **SMALL["parameters"],
    "optimizer": {"choices": {"sgd": {"momentum": {"min": 0.8, "max": 0.9}}, "adamw": {}}},
}


def range_test_of(parts: Parts, phases: tuple[str, ...] = PHASES) -> RangeTest:
    return RangeTest(parts.config, parts.directory, parts.journal, parts.trials, parts.log, phases)


def run_ramps(parts: Parts, range_test: RangeTest, loss_of: Callable[[float, int], float]) -> None:
    """Runs the ramps that are to be asked for."""
    curves = Curves(parts.directory)
    for _ in range(range_test.remaining()):
        spec = range_test.spec(len(parts.trials))
        curves.start(spec)
        for report in ramp(spec, loss_of):
            curves.append(spec, report, ())
        parts.add("range_test", spec, metrics={}, steps=report.step)


def test_every_combination_has_its_ramps_with_seeds_of_their_own(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "s", config_of(parameters=TWO_OPTIMIZERS))
    range_test = range_test_of(parts)
    specs = []
    for number in range(range_test.remaining()):
        specs.append(range_test.spec(number))
        parts.add("range_test", specs[-1])
    assert [spec.optimizer for spec in specs] == [{"name": "sgd"}] * 2 + [{"name": "adamw"}] * 2
    assert [spec.seed for spec in specs] == [8, 9, 10, 11]
    assert range_test.remaining() == 0


def test_no_ramp_is_needed_where_the_user_gives_the_lr(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "s", config_of(parameters=FIXED_LR))
    assert range_test_of(parts).ramps() == []
    assert range_test_of(parts).conclude(strict=True)
    assert len(range_test_of(parts, ("range_test",)).ramps()) == 1  # but nothing else was asked for


def test_bounds_are_read_once_all_ramps_have_ended(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "s")
    range_test = range_test_of(parts)
    run_ramps(parts, range_test, ramp_loss)
    assert range_test.own_bounds is None
    assert range_test.search_bounds(Combination()) == (1e-5, 10.0)
    assert range_test.conclude(strict=False)
    assert range_test.own_bounds is not None
    assert range_test.search_bounds(Combination()) == (range_test.own_bounds.low, range_test.own_bounds.high)
    assert parts.log.events == [("bounds_found", "ok")]
    range_test.conclude(strict=False)  # again: nothing is told twice
    assert parts.log.events == [("bounds_found", "ok")]


def test_a_wider_ramp_is_in_the_journal_before_it_runs(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "s")
    range_test = range_test_of(parts)
    run_ramps(parts, range_test, lambda lr, seed: 2.3 - 0.3 * math.log10(lr / 1e-5))
    assert not range_test.conclude(strict=True)
    for again in (range_test, range_test_of(parts)):  # this driver, and the next one
        assert [ramp.high for _, ramp in again.ramps()] == [10.0, 1000.0]
        assert again.remaining() == 2


def test_strict_raises_only_after_the_wider_ramps(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "s")
    range_test = range_test_of(parts)
    run_ramps(parts, range_test, lambda lr, seed: 2.3 - 0.3 * math.log10(lr / 1e-5))
    assert not range_test.conclude(strict=True)
    run_ramps(parts, range_test, lambda lr, seed: 2.3 - 0.3 * math.log10(lr / 1e-5))
    with pytest.raises(NoAnswerError, match=r"^the LR range test abstained \(no_divergence\)"):
        range_test.conclude(strict=True)
    assert not [text for text in parts.log.of("notice") if "NO BOUNDS" in text]
