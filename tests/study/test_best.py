"""best.yaml: its figures are the verdict's, and its code builds in plain PyTorch what was trained here."""

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch

from simulated import FACTS, FIXED_LR, Train, config_of, descend, ends_at_once, execute, open_study, train
from tune_lr.config.model import Config
from tune_lr.errors import NoAnswerError
from tune_lr.final_training import final_training
from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.lr.schedules import SCHEDULES
from tune_lr.records.answer import Answer
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.session import create
from tune_lr.store.files import read_yaml, write_yaml
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.answer import answer_of
from tune_lr.study.study import Study

STEPS = 124  # four epochs of the simulated workload
SPACES: dict[str, dict[str, Any]] = {
    "constant": {},
    "step": {"step_size": {"min": 0.1, "max": 0.5}, "gamma": {"min": 0.1, "max": 0.9}},
    "exponential": {"gamma_per_epoch": {"min": 0.3, "max": 0.9}},
    "cosine": {"floor": {"min": 0.0, "max": 0.1}},
    "onecycle": {"pct_start": {"min": 0.1, "max": 0.5}, "three_phase": {"values": [True, False]}},
    "cyclic": {"step_size_up": {"min": 0.05, "max": 0.25}, "floor": {"min": 0.01, "max": 0.3}},
    "multistep": {"milestones": {"values": [[0.5, 0.75], [0.25, 0.5, 100]]}, "warmup": {"min": 5, "max": 20}},
    "cosine_restarts": {"t_0": {"min": 0.1, "max": 0.5}, "t_mult": {"min": 1, "max": 3}},
    "polynomial": {"power": {"min": 0.5, "max": 3.0}},
    "linear": {"warmup": {"min": 0.05, "max": 0.2}},
    "inverse_sqrt": {"timescale": {"min": 10, "max": 60}},
    "wsd": {"decay": {"min": 0.1, "max": 0.5}, "floor": {"min": 0.01, "max": 0.1}},
    "flat_cosine": {"flat": {"min": 0.2, "max": 0.8}, "warmup": {"value": 0.1}},
    "plateau": {"factor": {"min": 0.1, "max": 0.5}, "patience": {"values": [0, 1, 2]}},
}


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


def finished(root: Path, trained: Train = train, **changes: Any) -> Study:
    study = open_study(root, config_of(**{"parameters": FIXED_LR, **changes}))
    execute(study, train=trained)
    return study


def test_what_was_searched_of_the_optimizer_is_part_of_the_answer(tmp_path: Path) -> None:
    """Of its figures, of the code, of the confirmations and of a final training."""
    decay = {"min": 1e-5, "max": 1e-2, "distribution": "log_uniform_values"}
    searched = {"weight_decay": decay, "momentum": {"values": [0.8, 0.95]}}
    config = config_of(
        parameters={**FIXED_LR, "optimizer": searched},
        optimizer={"name": "sgd", "momentum": 0.9, "nesterov": True},
    )
    directory = StudyDir(tmp_path / "s")
    create(config, directory, [])
    study = Study(config, directory)
    execute(study)
    best = answer_of(study).to_dict()
    rows = {row.number: row for row in study.rows()}
    assert len({row.parameters["optimizer.weight_decay"] for row in rows.values() if row.phase == "search"}) == 5
    won = {name: rows[best["trial"]].parameters[f"optimizer.{name}"] for name in searched}
    assert best["optimizer"] == {"name": "sgd", "nesterov": True, **won}
    assert {name: best["parameters"][f"optimizer.{name}"] for name in searched} == won
    for number in best["confirm_trials"]:
        assert rows[number].parameters == rows[best["trial"]].parameters
    optimizer, _ = run(best["code"])
    assert {name: optimizer.param_groups[0][name] for name in searched} == pytest.approx(won)

    write_yaml(directory.best_yaml, best)
    directory.write_rows(study.rows())
    for training in (final_training(directory, None), final_training(directory, best["trial"])):
        final = training.config
        assert final.optimizer.args == {"nesterov": True, **won}
        assert not [name for name in final.fixed[0].parameters if name.startswith("optimizer")]


def with_facts(**facts: Any) -> Train:
    def trained(spec: TrialSpec, config: Config) -> Iterator[Report]:
        for report in train(spec, config):
            yield Report(**{**vars(report), "facts": replace(FACTS, **facts) if report.facts else None})

    return trained


def run(code: str) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Executes the lines as somebody does who pastes them below a model."""
    names: dict[str, Any] = {"model": torch.nn.Linear(2, 1)}
    exec(code, names)
    return names["optimizer"], names["scheduler"]


def momentum_of(optimizer: torch.optim.Optimizer) -> float:
    group = optimizer.param_groups[0]
    return float(group["betas"][0] if "betas" in group else group["momentum"])


OPTIMIZERS: dict[str, tuple[dict[str, Any], str, bool]] = {
    "sgd with momentum": ({"name": "sgd", "momentum": 0.9, "nesterov": True}, "SGD", True),
    "plain sgd": ({"name": "sgd"}, "SGD", False),
    "adamw": ({"name": "adamw", "betas": [0.8, 0.95], "weight_decay": 0.1}, "AdamW", True),
}


def test_every_schedule_is_tried() -> None:
    assert SPACES.keys() == SCHEDULES.keys()


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")  # torch's own SequentialLR
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", SPACES)
def test_the_code_gives_the_lr_and_momentum_of_every_step(tmp_path: Path, name: str, optimizer: str) -> None:
    arguments, class_name, cycles = OPTIMIZERS[optimizer]
    study = finished(
        tmp_path / "s", with_facts(optimizer=class_name, cycles_momentum=cycles), optimizer=arguments,
        num_trials=1, max_steps=STEPS, report_every=62, pruner={"name": "none"}, confirm={"top": 0, "seeds": 1},
        parameters={"lr": {"min": 0.01, "max": 1.0}, "lr_schedule": {"choices": {name: SPACES[name]}}},
    )  # fmt: skip
    study.directory.write_answer(answer_of(study))
    best = read_yaml(study.directory.best_yaml)
    schedule = make_lr_schedule(name, best["parameters"], STEPS, steps_per_epoch=FACTS.steps_per_epoch)
    built, scheduler = run(best["code"])
    assert type(built).__name__ == class_name
    for key, value in arguments.items():
        if key not in ("name", "momentum", "betas"):
            assert built.param_groups[0][key] == value
    assert optimizer != "adamw" or built.param_groups[0]["betas"][1] == 0.95
    at_start = {"plain sgd": 0.0, "adamw": 0.8}.get(optimizer, 0.9)
    shown, expected = [], []
    for step in range(STEPS):
        momentum = schedule.momentum(step) if cycles else None
        shown.append((built.param_groups[0]["lr"], momentum_of(built)))
        expected.append((schedule.lr(best["lr"], step), at_start if momentum is None else momentum))
        built.step()
        if SCHEDULES[name].by_metric:  # as it is drawn: ten validations, none better than the first
            for _ in range((step + 1) * 10 // STEPS - step * 10 // STEPS):
                scheduler.step(1.0)  # type: ignore[arg-type]  # ReduceLROnPlateau takes the metric
        else:
            scheduler.step()
    np.testing.assert_allclose(shown, expected, rtol=1e-9)


def test_the_figures_are_those_of_the_verdict(tmp_path: Path) -> None:
    study = finished(tmp_path / "s")
    best, verdict = answer_of(study).to_dict(), study.verdict()
    winner, second = verdict.finalists
    assert (best["lr_schedule"], best["lr"], best["trial"]) == (winner.lr_schedule, winner.lr, winner.trial)
    assert best["mean"] == fmean(winner.values)
    assert best["interval"] == list(winner.interval or ())
    assert best["seeds"] == [1008, 1009]
    assert best["values"] == list(winner.values)
    assert all("." not in name for name in best["parameters"])
    assert best["verdict"] == verdict.sentence
    assert best["metric"] == {"name": "val_loss", "goal": "minimize"}
    assert best["optimizer"] == {"name": "sgd", "momentum": 0.9}
    assert (best["batch_size"], best["max_steps"]) == (128, 8)
    assert [finalist["trial"] for finalist in best["finalists"]] == [winner.trial, second.trial]
    assert best["runner_up"] == best["finalists"][1]
    assert best["runner_up"]["difference"] == verdict.differences[0].mean
    assert best["runner_up"]["difference_interval"] == list(verdict.differences[0].interval or ())
    assert best["runner_up"]["distinguishable"] is not bool(verdict.tied)


def test_every_lr_schedule_has_its_best_trial(tmp_path: Path) -> None:
    study = finished(tmp_path / "s", num_trials=12)
    families, rows = answer_of(study).to_dict()["families"], [row for row in study.rows() if row.phase == "search"]
    assert [one["value"] for one in families] == sorted(one["value"] for one in families)
    for one in families:
        own = [row for row in rows if row.lr_schedule == one["lr_schedule"]]
        best = min((row for row in own if row.state == "complete"), key=lambda row: row.metrics["val_loss"])
        assert (one["trial"], one["lr"], one["trials"]) == (best.number, best.lr, len(own))
    assert {one["lr_schedule"] for one in families} == {row.lr_schedule for row in rows if row.state == "complete"}


def test_the_steps_are_counted_by_phase(tmp_path: Path) -> None:
    study = finished(tmp_path / "s", parameters=config_of().to_dict()["parameters"])
    steps = answer_of(study).to_dict()["steps"]
    by_phase = {
        phase: sum(row.steps for row in study.rows() if row.phase == phase)
        for phase in ("range_test", "search", "confirm")
    }
    assert steps == {**by_phase, "full_trainings": round(sum(by_phase.values()) / 8, 1)}
    assert all(by_phase.values())


def test_the_test_figures_are_means_over_the_winners_seeds(tmp_path: Path) -> None:
    assert answer_of(finished(tmp_path / "s")).to_dict()["test"] == pytest.approx({"loss": 1.0, "accuracy": 0.85})


def test_without_test_data_there_are_no_test_figures(tmp_path: Path) -> None:
    def untested(spec: TrialSpec, config: Config) -> Iterator[Report]:
        return ends_at_once(facts=None) if spec.phase == "test" else train(spec, config)

    study = finished(tmp_path / "s", untested)
    assert study.test_result is not None
    assert study.test_result.values == ()
    assert answer_of(study).to_dict()["test"] is None


def test_test_figures_of_a_former_winner_are_not_the_new_ones(tmp_path: Path) -> None:
    finished(tmp_path / "s")

    def better(spec: TrialSpec, config: Config) -> Iterator[Report]:
        return descend(spec, config, lambda step: 0.01)

    study = open_study(tmp_path / "s", config_of(parameters=FIXED_LR, num_trials=6))
    reports = len(execute(study, train=better, reports=12))  # the new trial and its two confirmations
    assert reports == 12
    assert study.verdict().winner.trial == 9
    assert study.test_result is not None
    assert answer_of(study).to_dict()["test"] is None


def test_a_single_finalist_has_no_runner_up(tmp_path: Path) -> None:
    best = answer_of(finished(tmp_path / "s", confirm={"top": 1, "seeds": 2})).to_dict()
    assert best["runner_up"] is None
    assert len(best["finalists"]) == 1
    assert "no other finalist" in best["verdict"]


def test_without_confirmation_the_searchs_best_stands_with_one_seed(tmp_path: Path) -> None:
    best = answer_of(finished(tmp_path / "s", confirm={"top": 0, "seeds": 1})).to_dict()
    assert (best["interval"], best["runner_up"], best["test"]) == (None, None, None)
    assert best["seeds"] == [7]
    assert best["confirm_trials"] == []
    assert "nothing was confirmed" in best["verdict"]


@pytest.mark.parametrize(("best", "side"), [(1e-3, "lower"), (10.0, "upper"), (0.1, "")])
def test_a_winner_at_a_bound_of_the_lrs_is_said(tmp_path: Path, best: float, side: str) -> None:
    def trained(spec: TrialSpec, config: Config) -> Iterator[Report]:
        return descend(spec, config, lambda step: 0.1 + math.log10(spec.lr / best) ** 2 + 2 / (step + 1))

    study = open_study(tmp_path / "s", config_of(num_trials=16, parameters=FIXED_LR))
    execute(study, train=trained)
    answer = answer_of(study)
    said = f"lies at the {side} bound of the LRs that were searched (0.01 to 1)"
    assert [said in note for note in answer.notes] == [True] * bool(side)
    assert Answer.from_dict(answer.to_dict()) == answer


def test_without_a_completed_trial_there_is_no_best(tmp_path: Path) -> None:
    study = finished(tmp_path / "s", lambda spec, config: ends_at_once(diverged=True))
    with pytest.raises(NoAnswerError):
        answer_of(study).to_dict()


def test_best_yaml_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    study = finished(tmp_path / "s", sampler={"name": "tpe"})
    best = answer_of(study).to_dict()
    write_yaml(study.directory.best_yaml, best)
    assert read_yaml(study.directory.best_yaml) == best
    assert "code: |\n" in study.directory.best_yaml.read_text()


def test_a_study_that_is_opened_again_gives_the_same_best(tmp_path: Path) -> None:
    study = finished(tmp_path / "s")
    assert answer_of(open_study(tmp_path / "s", study.config, resume=False)).to_dict() == answer_of(study).to_dict()
