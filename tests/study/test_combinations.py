"""Batch sizes and optimizers that are searched: each combination with a range test and bounds of its own, all of them
compared at equal samples. Whole studies, executed by tests/simulated.py."""

import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from simulated import FIXED_LR, SMALL, Log, config_of, execute, open_study, ramp, train
from tune_lr.config.load import parse_config
from tune_lr.config.model import Config
from tune_lr.config.parameters import Combination
from tune_lr.config.plan import plan
from tune_lr.config.task import make_task
from tune_lr.errors import InputError, NoAnswerError
from tune_lr.final_training import final_training
from tune_lr.lr.bounds import find_lr_bounds
from tune_lr.records.phases import PHASES
from tune_lr.records.row import TrialRow
from tune_lr.records.steps import equal_steps, steps_covered
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.run import finish
from tune_lr.session import create
from tune_lr.show.terminal.outcome import show_outcome
from tune_lr.show.terminal.plan import show_plan
from tune_lr.store.curves import read_curve
from tune_lr.store.files import write_yaml
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.answer import answer_of
from tune_lr.study.status import read_status
from tune_lr.study.study import Study
from tune_lr.tracking.rows import curve_rows, report_rows, x_axis
from tune_lr.tracking.runs import run_name

SIZES = {"values": [128, 64, 256]}
OPTIMIZERS = {
    "choices": {
        "sgd": {"momentum": {"min": 0.8, "max": 0.99}},
        "adamw": {"weight_decay": {"min": 1e-4, "max": 1e-2, "distribution": "log_uniform_values"}},
    }
}
BOTH = {**SMALL["parameters"], "batch_size": SIZES, "optimizer": OPTIMIZERS}
COMBINATIONS = [Combination(size, name) for name in ("sgd", "adamw") for size in (128, 64, 256)]


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


def both(**changes: Any) -> Config:
    return config_of(**{"parameters": BOTH, "batch_size": 128, "num_trials": 24, **changes})


def whole_study(root: Path, config: Config, **options: Any) -> Study:
    create(config, StudyDir(root), [])
    study = Study(config, StudyDir(root), **options)
    execute(study, slots=2)
    return study


def of_phase(study: Study, phase: str) -> list[TrialRow]:
    return [row for row in study.rows() if row.phase == phase]


def all_specs(study: Study) -> list[TrialSpec]:
    return [spec for phase in PHASES for spec in study.trials.specs(phase)]


def specs(study: Study, phase: str) -> list[dict[str, Any]]:
    trials = study.journal.trials(phase)
    return [trial.user_attrs["spec"] for trial in trials]


def combination_of(row: TrialRow) -> Combination:
    return Combination(row.parameters["batch_size"], row.parameters["optimizer.name"])


# --- equal samples --------------------------------------------------------------------------------------------------


@given(st.data())
def test_reports_come_at_equal_samples_and_are_told_apart(data: st.DataObject) -> None:
    """To half a step, each a step further than the one before, and each found again from its step."""
    base, other = data.draw(st.integers(1, 5000)), data.draw(st.integers(1, 5000))
    every = data.draw(st.integers(-(-other // base), -(-other // base) + 100))
    reports = [equal_steps(k * every, base, other) for k in range(20)]
    assert all(abs(step * other - k * every * base) <= other / 2 for k, step in enumerate(reports))
    assert reports[0] == 0
    assert all(a < b for a, b in itertools.pairwise(reports))
    for k, step in enumerate(reports):
        assert steps_covered(step, base, other) // every == k
        assert k == 0 or steps_covered(step - 1, base, other) // every == k - 1


# --- what a space says ----------------------------------------------------------------------------------------------


def test_what_is_left_out_is_the_first_that_is_searched() -> None:
    config = config_of(parameters=BOTH)
    bare = parse_config({key: value for key, value in {**SMALL, "parameters": BOTH}.items() if key != "optimizer"})
    assert (config.batch_size, config.optimizer.name) == (128, "sgd")
    assert (bare.batch_size, bare.optimizer.name, bare.optimizer.args) == (128, "sgd", {})
    assert config.combinations == COMBINATIONS
    assert both(optimizer={"name": "AdamW"}).combinations[0] == Combination(128, "adamw")
    assert parse_config(both().to_dict()) == both()


def test_a_space_without_them_has_one_combination_without_a_name() -> None:
    assert config_of().combinations == [Combination()]
    assert str(Combination()) == ""
    flat = config_of(parameters={**FIXED_LR, "optimizer": {"momentum": {"values": [0.8, 0.9]}}})
    assert flat.combinations == [Combination()]
    assert flat.to_dict()["parameters"]["optimizer"] == {"momentum": {"values": [0.8, 0.9]}}


ERRORS = [
    ({}, {"batch_size": 100}, "batch_size: must be one of parameters.batch_size (got 100): 128, 64, 256"),
    ({}, {"optimizer": {"name": "lamb"}}, "optimizer.name: must be one of parameters.optimizer (got 'lamb'): sgd, ada"),
    ({}, {"scaling": {"workers_per_trial": 3}}, "parameters.batch_size.values.0: must be a multiple of scaling.worker"),
    (
        {"batch_size": {"values": [128, 257]}},
        {},
        "batch_size.values.1: must be at most report_every 2 x batch_size 128",
    ),
    ({"batch_size": {"min": 64, "max": 256}}, {}, "batch_size: names no batch sizes (got {'min': 64, 'max': 256}); ea"),
    ({"batch_size": {"values": [64, 64]}}, {}, "parameters.batch_size.values.1: is given twice (got 64)"),
    ({"batch_size": {"values": [64, 0]}}, {}, "parameters.batch_size.values.1: must be at least 1 (got 0)"),
    ({"optimizer": {"choices": ["sgd"]}}, {}, "parameters.optimizer: names no optimizers (got {'choices': ['sgd']})"),
    ({"optimizer": {"choices": {"sgd": {}, "SGD": {}}}}, {}, "optimizer.choices.SGD: is given twice (got 'SGD')"),
    ({"optimizer": {"values": ["sgd", 3]}}, {}, "parameters.optimizer.values.1: is no optimizer (got 3)"),
    (
        {"optimizer": {"choices": {"sgd": {"momentum": 0.9}}}},
        {},
        "parameters.optimizer.choices.sgd.momentum: must say how it is drawn (got 0.9); write {value: 0.9}",
    ),
    (
        {"optimizer": {"choices": {"sgd": {"lr": {"value": 1}}}}},
        {},
        "parameters.optimizer.choices.sgd.lr: is set by parameters.lr",
    ),
]


@pytest.mark.parametrize(("parameters", "changes", "expected"), ERRORS)
def test_a_mistake_is_one_line(parameters: dict[str, Any], changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        both(**{"parameters": {**BOTH, **parameters}, **changes})
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_optimizer_is_tried_before_a_trial_starts_at_both_ends() -> None:
    searched = make_task(both()).optimizers_to_try
    assert [one["name"] for one in searched] == ["sgd", "sgd", "adamw", "adamw"]
    assert [one["momentum"] for one in searched[:2]] == [0.8, 0.99]
    names = make_task(both(parameters={**BOTH, "optimizer": {"values": ["adam", "sgd"]}})).optimizers_to_try
    assert names == ({"name": "adam"}, {"name": "sgd"})


def test_the_plan_counts_every_combinations_ramps_and_samples() -> None:
    planned = plan(both())
    assert planned.ramps == 2 * 6
    assert planned.ramp_steps == 140
    assert planned.steps == 12 * 140 + (24 + 4) * 8


# --- the range test -------------------------------------------------------------------------------------------------


def test_each_combination_has_ramps_and_bounds_of_its_own(tmp_path: Path) -> None:
    log = Log()
    study = whole_study(tmp_path / "s", both(), observers=[log])
    ramps = of_phase(study, "range_test")
    own = study.config.combinations[0]
    assert own == Combination(128, "sgd")
    assert [combination_of(row) for row in ramps[:2]] == [own, own]
    assert Counter(map(combination_of, ramps)) == dict.fromkeys(COMBINATIONS, 2)
    assert log.of("bounds_found") == ["ok"] * 6
    assert log.of("phase_started")[0] == ("range_test", 12)
    found = json.loads((tmp_path / "s" / "bounds.json").read_text())
    combinations = found.pop("combinations")
    assert study.bounds is not None
    assert found == study.bounds.to_dict()
    assert study.directory.read_bounds() == study.bounds
    for entry, combination in zip(combinations, study.config.combinations, strict=True):
        assert Combination(entry["batch_size"], entry["optimizer"]) == combination
        assert entry["ramps"] == [row.number for row in ramps if combination_of(row) == combination]
        curves = [read_curve(study.directory.range_curve(number)) for number in entry["ramps"]]
        assert entry["low"] == find_lr_bounds([(curve["lr"], curve["loss"]) for curve in curves]).low
        assert combination.batch_size is not None
        moved = combination.batch_size / 128 * (0.01 if combination.optimizer == "adamw" else 1.0)
        assert entry["high"] == pytest.approx(moved * found["high"], rel=0.25)


def test_a_ramp_takes_what_the_optimizer_says_else_the_middle_of_what_is_searched(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", both(), phases=("range_test",))
    execute(study)
    for spec in specs(study, "range_test"):
        if spec["optimizer"]["name"] == "sgd":  # the study's own, with momentum 0.9
            assert spec["optimizer"] == {"name": "sgd"}
        else:
            assert spec["optimizer"] == {"name": "adamw", "weight_decay": pytest.approx(1e-3)}
        assert spec["max_steps"] == 120


def flat_with_adamw(spec: TrialSpec, config: Config) -> Iterator[Report]:
    if spec.phase == "range_test" and spec.optimizer["name"] == "adamw":
        return ramp(spec, lambda lr, seed: 2.3)
    return train(spec, config)


@pytest.mark.parametrize("killed_after", [None, *range(1, 40, 3)])
def test_only_the_ramps_without_an_answer_are_extended_once(tmp_path: Path, killed_after: int | None) -> None:
    config = both(parameters={**BOTH, "batch_size": None}, batch_size=None, num_trials=12)
    if killed_after is not None:
        execute(open_study(tmp_path / "s", config), train=flat_with_adamw, reports=killed_after)
    log = Log()
    study = open_study(tmp_path / "s", config, observers=[log])
    execute(study, train=flat_with_adamw, slots=2)
    assert [(row.parameters["optimizer.name"], row.lr) for row in of_phase(study, "range_test")] == [
        ("sgd", 10), ("sgd", 10), ("adamw", 10), ("adamw", 10), ("adamw", 100), ("adamw", 100)
    ]  # fmt: skip
    assert {str(of): bounds.status for of, bounds in study.all_bounds.items()} == {"sgd": "ok", "adamw": "no_descent"}
    assert any("range test of adamw: NO BOUNDS (no_descent)" in text for text in log.of("notice"))
    assert study.bounds is not None
    assert study.bounds.low is not None
    assert study.bounds.high is not None
    for row in of_phase(study, "search"):
        sgd = row.parameters["optimizer.name"] == "sgd"
        low, high = (study.bounds.low, study.bounds.high) if sgd else (1e-5, 10)
        assert low <= row.lr <= high


def test_strict_names_the_combination_that_has_no_bounds(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", both(parameters={**BOTH, "batch_size": None}, batch_size=None), strict=True)
    execute(study, train=flat_with_adamw)
    assert isinstance(study.error, NoAnswerError)
    assert str(study.error).startswith("the LR range test of adamw abstained (no_descent)")


# --- search, confirmation, answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_each_trial_is_drawn_inside_its_own_bounds_and_sees_as_many_samples(tmp_path: Path, sampler: str) -> None:
    study = whole_study(tmp_path / "s", both(sampler={"name": sampler}))
    rows = of_phase(study, "search")
    assert {combination_of(row) for row in rows} == set(COMBINATIONS)
    for row, spec in zip(rows, specs(study, "search"), strict=True):
        bounds = study.all_bounds[combination_of(row)]
        assert bounds.low is not None
        assert bounds.high is not None
        assert bounds.low <= row.lr <= bounds.high
        size = row.parameters["batch_size"]
        assert spec["max_steps"] == {64: 16, 128: 8, 256: 4}[size]
        own = {"sgd": "optimizer.sgd.momentum", "adamw": "optimizer.adamw.weight_decay"}[
            row.parameters["optimizer.name"]
        ]
        assert [name for name in row.parameters if name.count(".") == 2] == [own]
        params = study.directory.read_json(study.directory.trial(row.number) / "params.json")
        assert (params["lr"], params["batch_size"]) == (row.lr, size)
    positions = [trial.params["lr_position"] for trial in study.journal.trials("search")]
    assert min(positions) < 0.3
    assert max(positions) > 0.7


def test_rungs_compare_trials_at_equal_samples(tmp_path: Path) -> None:
    study = whole_study(tmp_path / "s", both(num_trials=40))
    trials = study.journal.trials("search")
    seen = set()
    for trial, row in zip(trials, of_phase(study, "search"), strict=True):
        at = set(trial.intermediate_values)
        assert at in ({2}, {2, 4}, {2, 4, 6, 8})
        assert row.steps == study.config.steps_of(max(at), row.parameters["batch_size"])
        seen.add((row.state, len(at)))
    assert {("pruned", 1), ("complete", 4)} <= seen


def test_the_answer_has_its_batch_size_its_steps_and_its_whole_optimizer(tmp_path: Path) -> None:
    """In best.yaml, in its code, in the confirmations and in a final training. The landscape's best is far from 128."""

    def with_adamw_and_256(spec: TrialSpec, config: Config) -> Iterator[Report]:
        worse = 1.0 * (spec.batch_size != 256) + 2.0 * (spec.optimizer["name"] != "adamw")
        for report in train(spec, config):
            metrics = {name: value + worse for name, value in report.metrics.items()}
            yield Report(**{**vars(report), "metrics": metrics})

    directory = StudyDir(tmp_path / "s")
    create(both(optimizer={"name": "sgd", "nesterov": True, "momentum": 0.9}), directory, [])
    study = Study(both(optimizer={"name": "sgd", "nesterov": True, "momentum": 0.9}), directory)
    execute(study, train=with_adamw_and_256)
    best = answer_of(study).to_dict()
    decay = best["parameters"]["optimizer.adamw.weight_decay"]
    assert best["optimizer"] == {"name": "adamw", "weight_decay": decay}
    assert 1e-4 <= decay <= 1e-2
    assert (best["batch_size"], best["parameters"]["batch_size"], best["max_steps"]) == (256, 256, 4)
    assert best["verdict"].startswith(f"{best['lr_schedule']} at lr {best['lr']:.3g} with adamw, batch 256 reaches")
    assert "torch.optim.AdamW(" in best["code"]
    assert "nesterov" not in best["code"]
    rows = {row.number: row for row in study.rows()}
    for number in best["confirm_trials"]:
        assert rows[number].parameters == rows[best["trial"]].parameters
        assert rows[number].steps == 4
    samples = sum(row.steps * row.parameters["batch_size"] for row in rows.values())
    assert best["steps"]["full_trainings"] == round(samples / (8 * 128), 1)
    write_yaml(directory.best_yaml, best)
    for trial in (None, best["trial"], best["confirm_trials"][0]):
        final = final_training(directory, trial).config
        assert (final.batch_size, final.max_steps, final.report_every) == (256, 4, 1)
        assert (final.optimizer.name, final.optimizer.args) == ("adamw", {"weight_decay": decay})
        assert final.combinations == [Combination()]
        assert final.fixed[0].parameters.keys() <= {
            "floor",
            "step_size",
            "gamma",
        }
    other = next(row for row in of_phase(study, "search") if row.parameters["optimizer.name"] == "sgd")
    args = final_training(directory, other.number).config.optimizer.args
    assert args == {"nesterov": True, "momentum": other.parameters["optimizer.sgd.momentum"]}


def test_fixed_configurations_have_the_studys_own_batch_size_and_optimizer(tmp_path: Path) -> None:
    fixed = [{"lr_schedule": "cosine", "lr": 0.1}, {"label": "up", "ramp": {"low": 1e-5, "high": 1.0}}]
    study = whole_study(tmp_path / "s", both(fixed=fixed, num_trials=4))
    first, second = specs(study, "fixed")
    for spec in (first, second):
        assert (spec["batch_size"], spec["optimizer"], spec["max_steps"]) == (128, {"name": "sgd"}, 8)
    assert combination_of(of_phase(study, "search")[0]) == Combination(128, "sgd")


def test_an_lr_in_numbers_needs_no_range_test_and_is_drawn_as_it_stands(tmp_path: Path) -> None:
    study = whole_study(tmp_path / "s", both(parameters={**BOTH, "lr": {"min": 0.01, "max": 1.0}}))
    assert of_phase(study, "range_test") == []
    assert study.bounds is None
    for trial, row in zip(study.journal.trials("search"), of_phase(study, "search"), strict=True):
        assert trial.params["lr"] == row.lr


# --- killed and gone on with ----------------------------------------------------------------------------------------


def test_a_killed_study_goes_on_with_what_was_drawn_and_every_ramp_runs_once(tmp_path: Path) -> None:
    sizes = {**BOTH, "batch_size": {"values": [128, 192]}}
    config = both(num_trials=6, confirm={"top": 1, "seeds": 1}, parameters=sizes)
    reports = len(execute(open_study(tmp_path / "whole", config)))
    for killed_after in range(0, reports + 1, 2):
        root = tmp_path / f"killed-{killed_after}"
        execute(open_study(root, config), reports=killed_after)
        again = open_study(root, config)
        known = {spec.number: spec for spec in all_specs(again)}
        execute(again, slots=2)
        assert again.over
        assert {number: again.trials.spec(number) for number in known} == known
        rows = again.rows()
        assert [row.phase for row in rows] == ["range_test"] * 8 + ["search"] * 6 + ["confirm"]
        assert Counter(map(combination_of, rows[:8])) == dict.fromkeys(config.combinations, 2)
        for row in rows[8:]:
            curve = read_curve(again.directory.curve(row.number))
            assert curve["step"] == list(range(1, row.steps + 1))


def test_a_trial_of_an_older_study_is_read() -> None:
    spec = TrialSpec(3, "search", 0, 8, lr=0.1, lr_schedule="cosine", optimizer={"momentum": 0.8})
    older = {key: value for key, value in spec.to_dict().items() if key != "batch_size"}
    assert TrialSpec.from_dict(older) == spec
    assert spec.qualified_parameters() == {"optimizer.momentum": 0.8}


# --- what people see ------------------------------------------------------------------------------------------------


def test_what_is_derived_tells_combinations_apart(tmp_path: Path) -> None:
    """The report has a chart for each range test, and curves over samples; trials.csv gives back what was trained."""
    study = whole_study(tmp_path / "s", both(parameters={**BOTH, "batch_size": {"values": [128, 64]}}, num_trials=6))
    finish(study)
    pictures = {path.name for path in study.directory.range_test.glob("*.png")}
    others = {f"range_test_{name}.png" for name in ("sgd__batch_64", "adamw__batch_128", "adamw__batch_64")}
    assert pictures == {"range_test.png", *others}
    page = study.directory.report_html.read_text()
    assert "LR range test of adamw, batch 64: loss over the ramped LR" in page
    assert '"title":"samples"' in page
    assert "optimizer adamw" in page
    assert "batch_size 64" in page
    rows = study.directory.read_rows()
    assert [row.parameters for row in rows] == [dict(row.parameters) for row in study.rows()]
    status = read_status(study.directory)
    assert status.steps == sum(row.steps for row in rows)
    assert status.steps_to_come == 0
    shown = StringIO()
    show_outcome(Console(file=shown, width=200), finish(study))
    assert f"{study.all_bounds[Combination(64, 'adamw')].high:.3g}   adamw, batch 64" in shown.getvalue()


def test_the_plan_says_what_is_combined() -> None:
    shown = StringIO()
    show_plan(Console(file=shown, width=200), "x", both(), plan(both()))
    assert (
        "12 ramps of 120 steps, LR 1e-05 to 10, 2 for each of sgd, adamw x batches of 128, 64, 256" in shown.getvalue()
    )
    assert "steps of a full trial with batches of each size: 8 of 128, 16 of 64, 4 of 256" in shown.getvalue()
    assert "1,904 at most with batches of 128, or as many samples" in shown.getvalue()


def test_in_wandb_curves_are_over_samples_whether_told_or_synced() -> None:
    spec = TrialSpec(1, "search", 0, 16, lr=0.1, lr_schedule="cosine", optimizer={"name": "adamw"}, batch_size=64)
    rows = report_rows(spec, Report(2, ((1, 0.1, 2.0), (2, 0.1, 1.5)), {"val_loss": 1.0}))
    assert [row["train/samples"] for row in rows] == [64, 128]
    assert rows == curve_rows(
        spec, {"step": [1, 2], "lr": [0.1, 0.1], "train_loss": [2.0, 1.5], "val_loss": [math.nan, 1.0]}
    )
    assert run_name(spec) == "cosine lr=0.1, adamw, batch 64 #1"
    assert (x_axis(both()), x_axis(config_of())) == ("train/samples", "train/step")


def test_optuna_sees_the_arguments_of_the_chosen_optimizer_alone(tmp_path: Path) -> None:
    study = whole_study(tmp_path / "s", both())
    journal = optuna.storages.journal.JournalFileBackend(str(study.directory.journal))
    trials = optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(journal)).trials
    names = {"batch_size", "optimizer.name", "lr_position", "lr_schedule"}
    for trial in trials:
        own = f"optimizer.{trial.params['optimizer.name']}."
        assert names <= trial.params.keys()
        assert all(name in names or name.startswith((own, trial.params["lr_schedule"])) for name in trial.params)
