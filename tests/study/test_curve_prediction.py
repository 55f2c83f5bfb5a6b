"""The curve of a full training, predicted from those of short ones, and the notice where the real one leaves it."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ladders import FULL, ladder_config
from simulated import Log, execute, open_study, train_long
from tune_lr.config.model import Config
from tune_lr.config.plan import plan
from tune_lr.final_training import final_training, predicted_training
from tune_lr.records.predicted_curve import PredictedCurve
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.run import report
from tune_lr.session import create
from tune_lr.show.terminal.progress import Progress
from tune_lr.show.terminal.status import show_status
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.curve_prediction import CurveWatch
from tune_lr.study.status import read_status
from tune_lr.study.study import Study
from tune_lr.tracking.rows import report_rows

METRIC = "val_loss"
CURVE = PredictedCurve((100, 200), (2.0, 1.0), (1.9, 0.8), (2.2, 1.1))


def watched(root: Path, config: Config, log: Log) -> Study:
    """Return a study whose curves are watched, as `run` opens it."""
    directory = StudyDir(root)
    if not directory.study_yaml.exists():
        create(config, directory, [])
    watch = CurveWatch(directory, [log])
    study = open_study(root, config, observers=[watch, log])
    watch.study = study
    return study


def spoiled(spec: TrialSpec, config: Config) -> Iterator[Report]:
    """Yield what a slot reports where a full training goes wrong in its middle."""
    for each in train_long(spec, config):
        wrong = spec.length == 1 and each.step > FULL // 2
        metrics = {name: value * (2 if wrong else 1) for name, value in each.metrics.items()}
        yield Report(**{**vars(each), "metrics": metrics})


def test_the_predicted_curve_holds_the_real_one(tmp_path: Path) -> None:
    log = Log()
    study = watched(tmp_path / "study", ladder_config(), log)
    execute(study, train=train_long)
    last = study.rows()[-1]
    curve = study.directory.read_predicted_curve(last.number)
    assert curve is not None
    assert curve.steps[0] <= FULL / 4
    assert curve.steps[-1] == FULL
    assert list(curve.values) == sorted(curve.values, reverse=True)
    final = last.metrics[METRIC]
    for step in curve.steps:
        real = final * (2 - step / FULL)  # as simulated.train_long falls
        expected = curve.at(step)
        assert expected is not None
        assert expected.low < real < expected.high
        assert abs(expected.value / real - 1) < 0.1
        assert curve.side(step, real) is None
    assert not [text for text in log.of("notice") if "band" in text]


def test_a_full_training_that_goes_wrong_is_told_once(tmp_path: Path) -> None:
    log = Log()
    study = watched(tmp_path / "study", ladder_config(), log)
    execute(study, train=spoiled)
    notices = [text for text in log.of("notice") if "band" in text]
    assert len(notices) == 1
    last = study.rows()[-1].number
    assert notices[0].startswith(f"trial {last}: {METRIC}")
    assert "above the band that shorter trainings predict" in notices[0]
    assert f"at step {FULL // 2 + 40:,}" in notices[0]


def test_a_study_that_is_gone_on_with_keeps_the_curve_that_was_predicted(tmp_path: Path) -> None:
    config = ladder_config()
    whole = watched(tmp_path / "whole", config, Log())
    reports = execute(whole, train=train_long)
    last = whole.rows()[-1].number
    execute(watched(tmp_path / "study", config, Log()), train=train_long, reports=len(reports) - 3)
    before = StudyDir(tmp_path / "study").read_predicted_curve(last)
    execute(watched(tmp_path / "study", config, Log()), train=train_long)
    assert before is not None
    assert StudyDir(tmp_path / "study").read_predicted_curve(last) == before


def test_status_shows_what_is_predicted_beside_what_is_reached(tmp_path: Path) -> None:
    config = ladder_config()
    whole = watched(tmp_path / "whole", config, Log())
    reports = execute(whole, train=train_long)
    execute(watched(tmp_path / "study", config, Log()), train=train_long, reports=len(reports) - 3)
    status = read_status(StudyDir(tmp_path / "study"))
    assert status.running[0].expected is not None
    console = Console(record=True, width=120, file=StringIO())
    show_status(console, status)
    assert "predicted" in console.export_text()
    assert status.to_dict()["running"][0]["value"] == status.running[0].value


def test_the_terminal_shows_it_while_the_trial_runs() -> None:
    config = ladder_config()
    console = Console(record=True, width=140, file=StringIO())
    progress = Progress(console, config, plan(config))
    progress.read_predicted_curve = lambda number: CURVE if number == 3 else None
    trial = TrialSpec(3, "search", 0, 200, lr=0.1, lr_schedule="cosine")
    progress.trial_started(trial)
    progress.trial_reported(trial, Report(100, ((100, 0.1, 2.1),), {METRIC: 2.05}))
    line = progress._running_line(trial, 100).plain
    assert "2.05, predicted 2 (1.9 to 2.2)" in line


def test_weights_and_biases_gets_the_prediction_beside_the_metric() -> None:
    trial = TrialSpec(3, "search", 0, 200, lr=0.1, lr_schedule="cosine")
    made = Report(150, ((149, 0.1, 1.7), (150, 0.1, 1.6)), {METRIC: 1.5})
    first, last = report_rows(trial, made, CURVE, METRIC)
    assert "val/loss_predicted" not in first
    expected = {"val/loss": 1.5, "val/loss_predicted": 1.5, "val/loss_low": 1.35, "val/loss_high": 1.65}
    assert {name: last[name] for name in expected} == pytest.approx(expected)


def test_a_figure_is_far_out_where_it_is_twice_as_far_as_the_end_of_the_band() -> None:
    assert CURVE.side(100, 2.39) is None
    assert CURVE.side(100, 2.41) == "above"
    assert CURVE.side(200, 0.61) is None
    assert CURVE.side(200, 0.59) == "below"
    assert CURVE.side(50, 99.0) is None  # before the first place nothing is known
    assert PredictedCurve.from_dict(CURVE.to_dict()) == CURVE


def test_the_final_training_of_another_study_has_its_curve_from_the_first_one(tmp_path: Path) -> None:
    config = ladder_config(budget="0.8x")
    study = watched(tmp_path / "study", config, Log())
    execute(study, train=train_long)
    directory = StudyDir(tmp_path / "study")
    answer = report(directory).answer
    assert answer is not None
    curve = predicted_training(directory, None, final_training(directory, None).config)
    assert curve is not None
    assert curve.values[-1] == pytest.approx(answer.predictions[0].loss, rel=0.02)
    longer = final_training(directory, None, ["max_steps=1280"]).config
    assert predicted_training(directory, None, longer) is None
