"""The Python API: what the command line does, as functions, records and pandas frames."""

import json
import math
from pathlib import Path

import pytest
from safetensors.torch import load_file

import toy
import tune_lr
from finished_study import Finished
from studies import TOY
from tune_lr.config.load import load_config, parse_config
from tune_lr.errors import InputError, NoAnswerError, ResourceError
from tune_lr.final_training import final_training, training_name
from tune_lr.session import create
from tune_lr.store.files import read_yaml
from tune_lr.store.study_dir import StudyDir


def test_a_study_of_digits_and_its_final_training_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in study but for its sizes; its workload is a function in a module of one's own."""
    monkeypatch.chdir(Path(toy.__file__).parent)
    settings = {
        **{"num_trials": 4, "max_steps": 54, "report_every": 18, "pruner": {"name": "asha", "reduction_factor": 2}},
        **{"range_test.steps": 120, "range_test.replicates": 1, "confirm": {"top": 1, "seeds": 2}},
        "scaling.max_concurrent": 1,
    }
    space = {**load_config("digits").to_dict(), "workload": toy.digits}
    result = tune_lr.search(space, name="mine", out=tmp_path, settings=settings, wandb="disabled")
    assert result.path == tmp_path / "mine"
    assert result.best is not None
    assert result.bounds is not None
    assert result.bounds.status == "ok"
    assert list(result.trials["phase"]) == ["range_test"] + ["search"] * 4 + ["confirm"] * 2
    assert list(result.trials["number"]) == [row.number for row in result.rows] == list(range(7))
    assert list(result.curve(0).columns) == ["step", "lr", "loss"]
    assert result.best["test"]["accuracy"] > 0.8

    twice = {"max_steps": 108, "seed": 5}
    model = tune_lr.train(result.path, settings=twice, wandb="disabled")
    trained = tune_lr.read_study(tmp_path / "mine-train")
    assert model == trained.path / "trials" / "0000" / "checkpoint" / "model.safetensors"
    only = trained.rows[0]
    assert (len(trained.rows), only.steps, only.seed, only.state) == (1, twice["max_steps"], 5, "complete")
    assert (only.lr_schedule, only.lr) == (result.best["lr_schedule"], result.best["lr"])
    assert only.label == f"mine #{result.best['trial']}"
    # The weights are those that the last validation measured.
    workload = toy.digits()
    network = workload.model()
    network.load_state_dict(load_file(model))
    inputs, targets = workload.val_data[:]
    loss = workload.criterion(network(inputs), [inputs, targets])
    assert loss.item() == pytest.approx(only.metrics["val_loss"], rel=1e-5)
    assert trained.best is not None
    assert trained.best["test"]["accuracy"] > 0.8


def test_a_finished_study_as_frames(finished: Finished) -> None:
    study = tune_lr.read_study(finished.directory.root)
    assert study.best == read_yaml(finished.directory.best_yaml)
    for row in study.rows:
        curve = study.curve(row.number)
        assert len(curve) == row.steps or row.phase == "range_test"
    trained = [row for row in study.rows if row.phase != "range_test"]
    assert study.curves["number"].unique().tolist() == [row.number for row in trained]
    last = study.curves.groupby("number")["val_loss"].last()
    for row in trained:
        assert row.state == "diverged" or math.isclose(last[row.number], row.metrics["val_loss"])
    assert set(study.trials.columns) >= {"number", "phase", "state", "lr_schedule", "lr", "val_loss", "val_accuracy"}
    with pytest.raises(InputError, match=r"no trial with a curve of that number \(got 99\)"):
        study.curve(99)


def test_what_a_final_training_trains(finished: Finished) -> None:
    study = tune_lr.read_study(finished.directory.root)
    assert study.best is not None
    config = final_training(finished.directory, None, ["max_steps=620", "report_every=62"]).config
    (winner,) = config.fixed
    assert (winner.lr_schedule, winner.lr) == (study.best["lr_schedule"], study.best["lr"])
    assert winner.parameters == study.best["parameters"]
    assert winner.keep_model
    assert (config.max_steps, config.num_trials, config.confirm.top, config.pruner.name) == (620, 0, 0, "none")
    before = finished.directory.read_study()["config"]
    assert config.to_dict()["optimizer"] == before["optimizer"]
    other = next(row for row in study.rows if row.phase == "search" and row.number != study.best["trial"])
    (chosen,) = final_training(finished.directory, other.number).config.fixed
    assert (chosen.lr_schedule, chosen.lr) == (other.lr_schedule, other.lr)
    assert {f"{chosen.lr_schedule}.{name}": value for name, value in chosen.parameters.items()} == other.parameters
    assert training_name(finished.directory) == "study-train"
    for number in (0, 99):  # a ramp, and none
        with pytest.raises(InputError, match=rf"--trial: is no trial of the search .* \(got {number}\)"):
            final_training(finished.directory, number)


def test_what_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"is .* a study directory"):
        tune_lr.read_study(tmp_path)
    with pytest.raises(InputError, match=r"<python> num_trials: must be at least 0 \(got -1\)"):
        tune_lr.search({**TOY, "num_trials": -1}, out=tmp_path)
    with pytest.raises(InputError, match="--set num_trials=0"):
        tune_lr.search(TOY, out=tmp_path, settings={"num_trials": 0})
    with pytest.raises(InputError, match="the top of a module"):
        tune_lr.search({**TOY, "workload": lambda: toy.regression()}, out=tmp_path)
    with pytest.raises(InputError, match="not a study name"):
        tune_lr.range_test(TOY, name="../x", out=tmp_path)
    directory = StudyDir(tmp_path / "empty")
    create(parse_config(TOY), directory, [])
    with pytest.raises(NoAnswerError, match="has no winner"):
        tune_lr.train(directory.root)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_the_mapping_given_is_not_changed(tmp_path: Path) -> None:
    before = json.dumps(TOY)
    with pytest.raises(InputError):
        tune_lr.search(TOY, out=tmp_path, settings={"range_test.steps": 1})
    assert json.dumps(TOY) == before
