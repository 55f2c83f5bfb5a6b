"""A search with trials of several lengths, simulated: what is trained, what it costs, and what is the answer."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from ladders import FULL, ladder_config
from simulated import FIXED_LR, config_of, execute, open_study, train_long
from tune_lr.cli.exit_codes import exit_code_of
from tune_lr.config.load import parse_config
from tune_lr.config.model import Config
from tune_lr.config.plan import ends_at_full_length, plan, planned_confirmation, steps_for_the_ladder
from tune_lr.errors import InputError
from tune_lr.final_training import final_training
from tune_lr.records.answer import Answer
from tune_lr.run import report
from tune_lr.session import create
from tune_lr.show.terminal.outcome import show_outcome
from tune_lr.show.terminal.plan import show_plan
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.answer import answer_of
from tune_lr.study.study import Study


def finished(path: Path, config: Config, **options: Any) -> Study:
    study = open_study(path, config)
    execute(study, train=train_long, **options)
    assert study.over
    assert study.error is None
    return study


def test_short_trials_come_first_and_a_full_training_last_within_the_budget(tmp_path: Path) -> None:
    study = finished(tmp_path / "study", ladder_config())
    rows = study.rows()
    assert sum(row.steps for row in rows) <= 3 * FULL
    assert {row.steps for row in rows} <= {FULL // 16, FULL // 4, FULL}
    assert sum(row.length < 1 for row in rows) >= 4
    assert rows[-1].length == 1
    assert rows[-1].steps == FULL
    checkpoints = [spec.number for spec in study.trials.specs("search") if spec.checkpoint]
    assert checkpoints == [rows[-1].number]  # its weights are kept


def test_only_full_trainings_are_the_answer(tmp_path: Path) -> None:
    study = finished(tmp_path / "study", ladder_config())
    by_number = {row.number: row for row in study.rows()}
    verdict = study.verdict()
    assert all(by_number[finalist.trial].length == 1 for finalist in verdict.finalists)


def test_every_schedule_is_predicted_and_predictions_are_kept_apart_from_what_was_trained(tmp_path: Path) -> None:
    study = finished(tmp_path / "study", ladder_config())
    answer = answer_of(study)
    assert answer.claim == "trained_once"
    assert {one.lr_schedule for one in answer.predictions} == {"constant", "step", "cosine"}
    assert sum(one.probability_best for one in answer.predictions) == pytest.approx(1.0)
    assert answer.winner.lr_schedule == answer.predictions[0].lr_schedule == "cosine"
    for one in answer.predictions:
        assert one.lr_interval.low < one.lr < one.lr_interval.high
        assert one.loss_interval.low < one.loss < one.loss_interval.high
    assert Answer.from_dict(answer.to_dict()).predictions == answer.predictions


def predicted_only(root: Path) -> Config:
    """Run a study in `root` whose budget holds no full training, and return its configuration."""
    config = ladder_config(budget="0.8x")
    create(config, StudyDir(root), [])
    finished(root, config)
    return config


def test_without_room_for_a_full_training_the_answer_is_a_prediction(tmp_path: Path) -> None:
    predicted_only(tmp_path / "study")
    outcome = report(StudyDir(tmp_path / "study"))
    answer = outcome.answer
    assert answer is not None
    assert exit_code_of(outcome) == 0
    assert max(row.length for row in outcome.rows) == 1 / 4
    assert sum(row.steps for row in outcome.rows) <= 0.8 * FULL
    assert answer.claim == "predicted"
    assert answer.chosen == answer.predictions[0]
    assert answer.chosen.lr_schedule == "cosine"
    assert answer.expected_regret is not None
    assert answer.expected_regret >= 0
    assert answer.max_steps == FULL
    assert "No training of that length was completed" in answer.verdict
    assert f"T_max={FULL}" in answer.code


def test_a_prediction_stands_in_best_yaml_without_a_figure_of_its_own(tmp_path: Path) -> None:
    predicted_only(tmp_path / "study")
    answer = report(StudyDir(tmp_path / "study")).answer
    assert answer is not None
    written = yaml.safe_load((tmp_path / "study" / "best.yaml").read_text())
    trained = answer_of(finished(tmp_path / "trained", ladder_config())).to_dict()
    assert set(written) == set(trained)
    assert written["lr_schedule"] == written["predicted"][0]["lr_schedule"]
    assert written["lr"] == written["predicted"][0]["lr"]
    assert [written[name] for name in ("mean", "interval", "trial", "runner_up", "test")] == [None] * 5
    assert [written[name] for name in ("seeds", "values", "finalists", "families")] == [[]] * 4
    assert Answer.from_dict(written) == answer


def test_a_prediction_says_everywhere_that_nothing_was_trained_in_full(tmp_path: Path) -> None:
    config = predicted_only(tmp_path / "study")
    directory = StudyDir(tmp_path / "study")
    outcome = report(directory)
    console = Console(record=True, width=100, file=StringIO())
    show_outcome(console, outcome)
    show_plan(console, "study", config, plan(config))
    shown = " ".join(console.export_text().split())
    assert "nothing was trained at full length; one full training costs 640 steps" in shown
    assert "tune-lr train" in shown
    assert "nothing is trained at full length, so the answer is a prediction" in shown
    assert "from 1.32x up the study runs one" in shown
    assert "about 5 of 1/16, 2 of 1/4 are expected (an estimate)" in shown
    page = directory.report_html.read_text()
    assert "(predicted)" in page
    assert "This is a prediction from shorter trainings" in page


def test_what_is_predicted_can_be_trained_at_full_length(tmp_path: Path) -> None:
    predicted_only(tmp_path / "study")
    directory = StudyDir(tmp_path / "study")
    answer = report(directory).answer
    assert answer is not None
    config = final_training(directory, None).config
    assert config.lengths == "full"
    assert config.max_steps == FULL
    assert (config.fixed[0].lr_schedule, config.fixed[0].lr) == (answer.chosen.lr_schedule, answer.chosen.lr)
    assert config.fixed[0].label == "study predicted"


@pytest.mark.parametrize("budget", ["0.8x", "2x", "4x"])
def test_the_plan_says_about_how_many_trials_of_each_length_there_will_be(tmp_path: Path, budget: str) -> None:
    config = ladder_config(budget=budget)
    planned = plan(config)
    lengths = [row.length for row in finished(tmp_path / "study", config).rows()]
    assert sum(each.trials * each.steps for each in planned.lengths) <= 1.25 * float(budget[:-1]) * FULL
    for each in planned.lengths[:-1]:
        assert lengths.count(each.length) / 3 <= each.trials <= 3 * max(1, lengths.count(each.length))
    assert planned.lengths[-1].trials == min(1, lengths.count(1.0))
    assert planned.trials == sum(each.trials for each in planned.lengths)


def test_a_plan_of_several_lengths_keeps_to_the_number_of_trials() -> None:
    assert plan(ladder_config(num_trials=6)).trials <= 6


def test_a_larger_budget_turns_the_prediction_into_a_training(tmp_path: Path) -> None:
    predicted_only(tmp_path / "study")
    study = finished(tmp_path / "study", ladder_config(budget="3x"))
    assert answer_of(study).claim == "trained_once"
    assert study.rows()[-1].length == 1


def test_a_confirmation_leaves_room_for_the_ladder_and_its_full_training() -> None:
    config = ladder_config(budget="2x", confirm={"top": 2, "seeds": 2})
    assert ends_at_full_length(config, steps_for_the_ladder(config, 0))
    config = ladder_config(budget="4x", confirm={"top": 2, "seeds": 2})
    assert planned_confirmation(config, 0) == (2, 1)


def test_no_lr_lies_outside_what_the_user_wrote(tmp_path: Path) -> None:
    parameters = {**FIXED_LR, "lr": {"min": 0.02, "max": 0.05}}
    study = finished(tmp_path / "study", ladder_config(parameters=parameters))
    assert all(0.02 <= row.lr <= 0.05 for row in study.rows())


@pytest.mark.parametrize("reports", [1, 5, 9, 14])
def test_a_study_that_is_killed_on_the_ladder_goes_on_as_if_it_had_not_been(tmp_path: Path, reports: int) -> None:
    config = ladder_config()
    whole = finished(tmp_path / "whole", config)
    execute(open_study(tmp_path / "killed", config), train=train_long, reports=reports)
    gone_on = finished(tmp_path / "killed", config)
    expected = [(row.lr_schedule, row.lr, row.length, row.metrics) for row in whole.rows()]
    assert [(row.lr_schedule, row.lr, row.length, row.metrics) for row in gone_on.rows()] == expected


def test_two_slots_keep_the_budget_too(tmp_path: Path) -> None:
    study = finished(tmp_path / "study", ladder_config(), slots=2)
    assert sum(row.steps for row in study.rows()) <= 3 * FULL
    assert sum(row.length == 1 for row in study.rows()) >= 1


def test_without_lengths_every_trial_is_a_full_training(tmp_path: Path) -> None:
    config = config_of(
        num_trials=3, max_steps=4000, report_every=400, parameters=FIXED_LR, confirm={"top": 0}, pruner={"name": "none"}
    )
    assert config.lengths == "full"
    study = open_study(tmp_path / "study", config)
    execute(study)
    assert all(row.length == 1 and "length" not in row.parameters for row in study.rows())


SPACE: dict[str, Any] = {
    "workload": "toy:regression",
    "max_steps": 640,
    "report_every": 40,
    "num_trials": 50,
    "budget": "2x",
    "lengths": ["1/16", "1/4", 1],
    "parameters": FIXED_LR,
}


def test_lengths_may_be_written_as_fractions() -> None:
    assert parse_config(SPACE).ladder == (1 / 16, 1 / 4, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lengths": ["1/64", 1]},
            r"lengths\[?\.?0\]?: would be 10 steps \(got 1/64 of 640\); allowed: at least 20 steps",
        ),
        ({"lengths": [0.5, 0.25, 1]}, "must be longer than the one before"),
        ({"lengths": [0.25, 0.5]}, "must be 1, the full length, since it is the last"),
        ({"lengths": ["a quarter", 1]}, "is no fraction of max_steps"),
        ({"lengths": "short"}, "allowed: auto, full, or fractions of max_steps"),
        (
            {"budget": "0.3x"},
            "buys not one trial of each shorter length .* allowed: from 0.32x up for a prediction, from 1.32x up with",
        ),
        ({"budget": "30m"}, "must be in full trainings where trials have several lengths"),
        ({"pruner": {"name": "asha"}}, "must be none where trials have several lengths"),
        ({"sampler": {"name": "tpe"}}, "must be gp where trials have several lengths"),
        (
            {"parameters": {**FIXED_LR, "lr_schedule": {"choices": {"step": {"step_size": {"value": 100}}}}}},
            "does not fit the shortest length, 1/16 or 40 steps",
        ),
    ],
)
def test_what_does_not_fit_a_ladder_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_config({**SPACE, **changes})
