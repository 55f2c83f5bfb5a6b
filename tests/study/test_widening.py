"""Where the best LR lies at a bound of the range test, the search goes on beyond it, once."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution

from parts import Parts, parts_of, searched
from simulated import SMALL, Log, Train, config_of, descend, execute, flat_ramps, open_study, train
from tune_lr.config.model import Config
from tune_lr.config.parameters import Combination
from tune_lr.lr.bounds import LRBounds
from tune_lr.records.outcome import Widening
from tune_lr.records.phases import PHASES
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.range_test import RangeTest
from tune_lr.study.spending import BudgetKeeper
from tune_lr.study.study import Study
from tune_lr.study.widening import Widener, widened_text
from whole_studies import NO_CONFIRMATION, of_phase, optuna_trials

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
    assert {number: study.trials.row(number) for number in ended} == ended
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


# --- the widener by itself ------------------------------------------------------------------------------------

BOUNDS = LRBounds(0.01, 1.0, 0.1, "ok", "", replicates=1)


def half_way(root: Path, best: float, config: Config = WIDE) -> tuple[Parts, Widener]:
    """Eight of sixteen trials have ended, with LRs from one bound to the other; the one nearest to `best` is best."""
    parts = parts_of(root, config)
    range_test = RangeTest(config, parts.directory, parts.journal, parts.trials, parts.log, PHASES)
    range_test.bounds[Combination()] = BOUNDS
    for number in range(8):
        lr = 0.01 * 100 ** (number / 7)
        loss = abs(math.log10(lr / best))
        ledger = parts.journal.ledger("search")
        drawn_from: dict[str, BaseDistribution] = {"lr": FloatDistribution(0.01, 1.0, log=True)}
        ledger.add_trial(optuna.create_trial(params={"lr": lr}, distributions=drawn_from, value=loss))
        parts.add("search", searched(number, lr), {"val_loss": loss})
    budget = BudgetKeeper(config, parts.journal, parts.trials, lambda: 0.0)
    return parts, Widener(config, parts.directory, parts.journal, parts.trials, budget, range_test, parts.log)


@pytest.mark.parametrize(
    ("best", "low", "high", "trial"), [(1e-5, 0.01 / 10**0.5, 1.0, 0), (1e3, 0.01, 10**0.5, 7), (0.1, None, None, None)]
)
def test_the_range_is_widened_at_the_bound_where_the_best_lr_lies(
    tmp_path: Path, best: float, low: float | None, high: float | None, trial: int | None
) -> None:
    parts, widener = half_way(tmp_path / "s", best)
    widener.look()
    if low is None or high is None:
        assert widener.widened is None
        assert widener.ledger == "search"
        assert "widening" not in parts.journal.ledger("search").user_attrs
        return
    assert widener.widened is not None
    assert (widener.widened.low, widener.widened.high) == pytest.approx((low, high))
    assert (widener.widened.narrower, widener.widened.after, widener.widened.trial) == ((0.01, 1.0), 8, trial)
    assert widener.ledger == "widened"
    assert [frozen.params["lr"] for frozen in parts.journal.trials("widened")] == [
        frozen.params["lr"] for frozen in parts.journal.trials("search")
    ]
    widener.copy_ended()
    assert len(parts.journal.trials("widened")) == 8  # each once


def test_a_new_best_at_a_bound_widens_the_range_whenever_it_comes(tmp_path: Path) -> None:
    parts, widener = half_way(tmp_path / "s", 0.1)
    widener.look()
    assert widener.widened is None
    for number, loss in ((8, 0.5), (9, 0.001)):
        parts.add("search", searched(number, 0.0101), {"val_loss": loss})
        widener.look()
        assert (widener.widened is not None) == (loss < 0.01)
    assert widener.widened is not None
    assert (widener.widened.after, widener.widened.trial) == (10, 9)


def test_the_range_is_not_widened_to_where_the_same_schedule_diverged(tmp_path: Path) -> None:
    parts, widener = half_way(tmp_path / "s", 1e3)
    parts.add("search", searched(8, 0.9), {"val_loss": -1.0})
    parts.add("search", searched(9, 1.0), {}, state="diverged")
    assert parts.trials.row(9).lr_schedule == parts.trials.row(8).lr_schedule
    widener.look()
    assert widener.widened is None


def test_a_study_of_version_0_1_that_has_looked_does_not_look_again(tmp_path: Path) -> None:
    parts, _ = half_way(tmp_path / "s", 1e3)
    parts.journal.ledger("search").set_user_attr("widening", {"after": 8})
    _, again = half_way(tmp_path / "s", 1e3)
    again.look()
    assert again.widened is None


def test_the_next_driver_knows_the_wider_range(tmp_path: Path) -> None:
    _, widener = half_way(tmp_path / "wider", 1e3)
    widener.look()
    _, again = half_way(tmp_path / "wider", 0.1)
    assert again.widened == widener.widened


def test_it_does_not_look_before_half_of_the_search(tmp_path: Path) -> None:
    parts, widener = half_way(tmp_path / "s", 1e3, config_of(**{**WIDE.to_dict(), "num_trials": 17}))
    widener.look()
    assert "widening" not in parts.journal.ledger("search").user_attrs


def test_a_widening_is_read_back_as_it_was_written() -> None:
    widening = Widening(0.01, 3.0, (0.01, 1.0), after=8, trial=7, lr=0.99)
    assert Widening.from_dict(widening.to_dict()) == widening
    assert widened_text(widening).startswith("search: after 8 trials the best, #7, lies at the edge")
