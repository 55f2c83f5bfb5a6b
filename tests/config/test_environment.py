"""What the environment, and values from Python, bring into a configuration."""

from typing import Any

import numpy as np
import pytest

from tune_lr.config.load import overrides_of, parse_config
from tune_lr.errors import InputError

SPACE: dict[str, Any] = {
    "workload": "toy:regression",
    "max_steps": 40,
    "report_every": 10,
    "num_trials": 4,
    "parameters": {"lr": {"min": 0.01, "max": 0.1}, "lr_schedule": {"value": "constant"}},
}


def test_wandbs_project_and_entity_stand_where_the_yaml_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_ENTITY", "us")
    assert (parse_config(SPACE).wandb.project, parse_config(SPACE).wandb.entity) == ("mine", "us")
    written = {**SPACE, "wandb": {"project": "theirs", "entity": "them"}}
    assert (parse_config(written).wandb.project, parse_config(written).wandb.entity) == ("theirs", "them")


def test_a_project_of_the_environment_is_checked_as_a_written_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "a/b")
    with pytest.raises(InputError, match="is no W&B project"):
        parse_config(SPACE)


def test_settings_may_be_numpys() -> None:
    settings = {"num_trials": np.int64(3), "parameters.lr.max": np.float32(0.5), "seed": np.array(7)}
    config = parse_config(SPACE, overrides=overrides_of(settings))
    assert (config.num_trials, config.parameters.lr.max, config.seed) == (3, 0.5, 7)


def test_a_setting_that_is_no_plain_value_is_refused_by_its_type() -> None:
    with pytest.raises(InputError, match=r"^settings: .* is a set; allowed are numbers, text, lists and mappings$"):
        overrides_of({"seed": {1}})


@pytest.mark.parametrize(
    "name",
    ["val_acc", "val_accuracy", "val_macro_f1", "val_auc", "val_top5", "val_bleu", "val_acc1", "val_F1",
     "val_macroF1", "val_balancedAccuracy", "val_mIoU", "val_map50", "val_prAUC", "val_r2", "val_mcc", "val_psnr"],
)  # fmt: skip
def test_a_score_without_a_goal_is_asked_about(name: str) -> None:
    with pytest.raises(InputError, match=r"metric\.goal: is missing, and .* write goal: maximize, or goal: minimize"):
        parse_config({**SPACE, "metric": {"name": name}})
    for goal in ("maximize", "minimize"):
        assert parse_config({**SPACE, "metric": {"name": name, "goal": goal}}).metric.goal == goal


@pytest.mark.parametrize(
    "name",
    ["val_loss", "val_perplexity", "val_mae", "val_accumulated_error", "val_wer", "val_fid",
     "val_nll", "val_eer", "val_bpb", "val_ece", "val_mape", "val_hinge", "val_top1_error",
     "val_accuracy_error", "val_rmse"],
)  # fmt: skip
def test_what_sounds_like_no_score_is_minimized(name: str) -> None:
    assert parse_config({**SPACE, "metric": {"name": name}}).metric.goal == "minimize"


def test_a_warm_up_of_0_is_none() -> None:
    choices = {"cosine": {"warmup": {"value": 0}}}
    parameters = {**SPACE["parameters"], "lr_schedule": {"choices": choices}}
    assert parse_config({**SPACE, "parameters": parameters}).parameters.lr_schedule.keys() == {"cosine"}
