"""The curves of a study on disk: what reports add to them, and what is read back of an interrupted trial."""

import math
from pathlib import Path

from parts import parts_of, searched
from simulated import FIXED_LR, config_of, execute, open_study, ramp_loss
from tune_lr.lr.ramp import Ramp
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.checkpoints import Checkpoint
from tune_lr.store.curves import read_curve
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.curves import Curves, curve_path


def test_a_curve_holds_validation_only_where_a_report_was(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s", config_of(parameters=FIXED_LR, pruner={"name": "none"}))
    execute(study)
    curve = read_curve(study.directory.curve(0))
    assert list(curve) == ["step", "lr", "train_loss", "val_loss", "val_accuracy"]
    assert [math.isnan(value) for value in curve["val_loss"]] == [True, False] * 4
    assert curve["val_loss"][-1] == study.rows()[0].metrics["val_loss"]


def test_the_ramps_reports_are_those_of_the_landscape(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s")
    execute(study)
    curve = read_curve(study.directory.range_curve(0))
    assert list(curve) == ["step", "lr", "loss"]
    assert math.isnan(curve["loss"][-1])
    expected = [ramp_loss(lr, 8) for lr in curve["lr"][:-1]]
    assert curve["loss"][:-1] == expected


# --- the curves by themselves ---------------------------------------------------------------------------------

METRICS = ("val_loss", "val_accuracy")
REPORTS = [
    Report(2, ((1, 0.1, 3.0), (2, 0.2, 2.5)), {"val_loss": 2.4, "val_accuracy": 0.3}, seconds=1.0),
    Report(3, ((3, 0.3, 2.0),), seconds=0.5),  # a checkpoint between two validations
    Report(4, ((4, 0.4, 1.5),), {"val_loss": 1.4, "val_accuracy": 0.5}, seconds=0.5),
]


def written(root: Path, spec: TrialSpec) -> Curves:
    curves = Curves(parts_of(root).directory)
    curves.start(spec)
    for report in REPORTS:
        curves.append(spec, report, METRICS)
    return curves


def test_a_trial_that_goes_on_has_reported_what_its_curve_has_up_to_its_checkpoint(tmp_path: Path) -> None:
    spec = searched(3)
    curves = written(tmp_path / "s", spec)
    directory = StudyDir(tmp_path / "s")
    directory.write_checkpoint(3, Checkpoint(3, 1.25, {"rank0": b"state"}), keep=2)
    reports, notices = curves.take_up(spec)
    assert [(report.step, report.points, report.metrics) for report in reports] == [
        (report.step, report.points, report.metrics) for report in REPORTS[:2]
    ]
    assert [report.seconds for report in reports] == [1.25, 0.0]  # a curve does not say how long its steps took
    assert notices == ["trial 3: goes on from its checkpoint at step 3"]
    assert read_curve(curve_path(directory, spec))["step"] == [1, 2, 3]


def test_without_a_checkpoint_that_goes_with_its_curve_a_trial_begins_anew(tmp_path: Path) -> None:
    spec = searched(3)
    curves = written(tmp_path / "s", spec)
    directory = StudyDir(tmp_path / "s")
    assert curves.take_up(spec) == ([], [])
    directory.write_checkpoint(3, Checkpoint(9, 1.25, {"rank0": b"state"}), keep=2)  # of a step that has no point
    assert curves.take_up(spec) == ([], [])
    damaged = directory.checkpoints_of(3) / "step-000002"
    directory.write_checkpoint(3, Checkpoint(2, 1.0, {"rank0": b"state"}), keep=2)
    (damaged / "rank0").write_bytes(b"other")
    reports, notices = curves.take_up(spec)
    assert reports == []
    assert notices == ["trial 3: its checkpoint at step 2 is damaged (rank0 is not what was written)"]
    assert read_curve(curve_path(directory, spec))["step"] == [1, 2, 3, 4]
    curve_path(directory, spec).unlink()
    assert curves.take_up(spec) == ([], [])


def test_a_ramp_has_no_folder_and_no_validations(tmp_path: Path) -> None:
    spec = TrialSpec(0, "range_test", 8, 120, ramp=Ramp(1e-5, 10.0, 120))
    written(tmp_path / "s", spec)
    directory = StudyDir(tmp_path / "s")
    curve = read_curve(directory.range_curve(0))
    assert curve == {"step": [1, 2, 3, 4], "lr": [0.1, 0.2, 0.3, 0.4], "loss": [3.0, 2.5, 2.0, 1.5]}
    assert not directory.trial(0).exists()


def test_a_trial_that_begins_anew_has_no_curve_of_before(tmp_path: Path) -> None:
    curves = written(tmp_path / "s", searched(3))
    curves.start(searched(3))
    assert not curve_path(StudyDir(tmp_path / "s"), searched(3)).exists()
    assert StudyDir(tmp_path / "s").read_json(tmp_path / "s" / "trials" / "0003" / "params.json")["lr"] == 0.1
