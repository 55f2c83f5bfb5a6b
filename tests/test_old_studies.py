"""Studies that tune-lr 0.1.0 has made, one finished and one killed on its way: they are read, and they go on.

They are in data/studies_0_1: the digits of scikit-learn, two slots, 8 and 12 trials. What is derived and not needed to
go on (pictures, the report, the runs of W&B) is left out there.
"""

import math
import shutil
from pathlib import Path

import pytest
import yaml

import tune_lr
from paths import DATA
from studies import tune_lr as command
from tune_lr.lr.training_length import REFERENCE_STEPS
from tune_lr.run import report
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.status import read_status

OLD = DATA / "studies_0_1"
CONFIRMATIONS = 4  # two finalists, two seeds


@pytest.fixture
def finished(tmp_path: Path) -> StudyDir:
    return copy_of("finished", tmp_path)


@pytest.fixture
def interrupted(tmp_path: Path) -> StudyDir:
    return copy_of("interrupted", tmp_path)


def copy_of(name: str, folder: Path) -> StudyDir:
    shutil.copytree(OLD / name, folder / name)
    return StudyDir(folder / name)


def go_on(directory: StudyDir, *options: str) -> str:
    process = command("resume", str(directory.root), "--wandb=disabled", *options, cwd=directory.root.parent)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, f"{output}\n{errors}"
    return output


def content(directory: StudyDir) -> dict[str, bytes]:
    """What stands in the study directory of the trials and of the answer."""
    files = [*directory.trials.rglob("*"), *directory.range_curves(), directory.best_yaml, directory.trials_csv]
    return {str(path.relative_to(directory.root)): path.read_bytes() for path in files if path.is_file()}


def test_a_finished_study_is_read(finished: StudyDir) -> None:
    result = tune_lr.read_study(finished.root)
    assert result.best == yaml.safe_load(finished.best_yaml.read_text())
    assert result.answer is not None
    assert result.answer.winner.lr_schedule == "cosine"
    assert result.answer.winner.values == (0.14950025002161663, 0.12993484149376552)
    assert result.bounds is not None
    assert result.bounds.status == "ok"
    assert [row.number for row in result.rows] == list(range(14))
    assert list(result.trials["number"]) == list(range(14))
    assert set(result.curves["number"]) == set(range(2, 14))
    assert list(result.curve(0).columns) == ["step", "lr", "loss"]


def test_a_finished_study_is_reported_with_the_same_answer(finished: StudyDir) -> None:
    before = content(finished)
    outcome = report(finished)
    assert content(finished) == before  # best.yaml and trials.csv were written anew, from the journal and the curves
    assert outcome.answer == finished.read_answer()
    assert outcome.spending.steps == {"range_test": 256, "search": 440, "confirm": 240}
    assert "cosine at lr 0.234" in finished.report_html.read_text()


def test_a_finished_study_that_is_resumed_stays_as_it_is(finished: StudyDir) -> None:
    report(finished)
    before, journal = content(finished), finished.journal.read_bytes()
    output = go_on(finished)
    assert "cosine at lr 0.234 reaches val_loss 0.1397" in output
    assert content(finished) == before
    assert finished.journal.read_bytes() == journal


def test_a_finished_study_is_extended(finished: StudyDir) -> None:
    old = {row.number: row for row in finished.read_rows()}
    go_on(finished, "--num-trials=10")
    rows = finished.read_rows()
    assert [row for row in rows if row.number in old] == list(old.values())
    searched = [row for row in rows if row.phase == "search"]
    assert len(searched) == 10
    assert {row.number for row in searched} - old.keys() == {14, 15}
    answer = finished.read_answer()
    assert answer is not None
    assert len(answer.finalists) == 2
    assert all(len(finalist.seeds) == 2 for finalist in answer.finalists)
    assert answer.winner.mean <= 0.13971754575769108 or answer.winner.trial == 8  # no worse than before
    assert answer.test is not None


def test_how_the_studies_stand(finished: StudyDir, interrupted: StudyDir) -> None:
    report(finished)
    ended = read_status(finished)
    assert (ended.state, ended.phase, ended.running) == ("finished", "finish", ())
    assert ended.leader is not None
    assert (ended.leader.trial, ended.leader.seeds) == (8, 2)
    stopped = read_status(interrupted)
    assert (stopped.state, stopped.phase) == ("stopped", "search")
    search = stopped.phases["search"]
    assert (search.complete, search.running, search.to_come) == (4, 2, 6)
    assert [trial.number for trial in stopped.running] == [6, 7]


def test_an_interrupted_study_is_read_and_reported(interrupted: StudyDir) -> None:
    result = tune_lr.read_study(interrupted.root)  # writes the derived files, of which there were none
    assert [row.number for row in result.rows] == list(range(6))
    assert result.answer is not None
    assert result.answer.winner.trial == 4
    assert result.answer.winner.confirm_trials == ()
    assert result.answer.winner.interval is None


def test_an_interrupted_study_goes_on_and_finishes(interrupted: StudyDir) -> None:
    ended = report(interrupted).rows
    before = content(interrupted)
    go_on(interrupted)
    rows = interrupted.read_rows()
    assert [row.number for row in rows] == list(range(2 + 12 + CONFIRMATIONS))
    assert tuple(rows[:6]) == ended  # nothing that had ended was run again
    curves = {path: data for path, data in before.items() if path.endswith("curve.csv") and "0006" not in path}
    assert curves
    assert {path: content(interrupted)[path] for path in curves} == curves
    answer = interrupted.read_answer()
    assert answer is not None
    assert len(answer.finalists) == 2
    assert answer.winner.interval is not None
    assert math.isfinite(answer.winner.mean)
    # What was interrupted trains what it would have trained.
    assert (rows[6].lr_schedule, rows[6].lr) == ("onecycle", 0.33291880508845567)
    assert (rows[7].lr_schedule, rows[7].lr) == ("constant", 0.10031744984949716)


def test_the_bounds_of_an_old_study_stay_those_of_short_trainings(finished: StudyDir) -> None:
    study_yaml = finished.study_yaml
    study_yaml.write_text(study_yaml.read_text().replace("max_steps: 60\n", "max_steps: 60000\n"))
    assert finished.read_record().config.range_test.training_steps == REFERENCE_STEPS
