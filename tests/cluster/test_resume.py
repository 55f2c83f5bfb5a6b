"""A driver that is killed or interrupted while work is finished and in progress, and what the next one does."""

import signal
from pathlib import Path

import pytest

from studies import end_when, finished_and_running, tune_lr
from tune_lr.store.curves import read_curve
from tune_lr.store.study_dir import StudyDir

SETTINGS = ["max_steps=124", "report_every=31", "pruner={name: none}", "confirm={top: 1, seeds: 2}"]
SETTINGS += ["range_test={steps: 100, replicates: 2}", "checkpoints.every_steps=20"]
COMMAND = ["--num-trials=4", "--wandb=offline", *(f"--set={setting}" for setting in SETTINGS)]


def test_after_a_killed_driver_nothing_finished_runs_again(tmp_path: Path) -> None:
    directory = StudyDir(tmp_path / "studies" / "study")
    with tune_lr("search", "--name=study", *COMMAND, cwd=tmp_path) as process:
        end_when(process, directory.journal, finished=3)
        process.communicate(timeout=60)
    ended, running = finished_and_running(directory.journal)
    assert ended >= 3
    assert running
    stamps = {path: path.stat().st_mtime_ns for path in directory.root.glob("*/**/*.csv")}
    # Half a line at the journal's end, as a kill in the middle of writing leaves it.
    with directory.journal.open("ab") as file:
        file.write(b'{"op_code":5,"worker')

    process = tune_lr("resume", str(directory.root), "--wandb=offline", cwd=tmp_path)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, f"{output}\n{errors}"
    rows = directory.read_rows()
    assert [row.number for row in rows] == list(range(2 + 4 + 2))  # each once
    assert finished_and_running(directory.journal) == (len(rows), 0)
    untouched = [path for path, stamp in stamps.items() if path.stat().st_mtime_ns == stamp]
    assert len(untouched) >= ended  # the curves of what was finished were never opened again
    for row in rows[2:]:
        steps = read_curve(directory.curve(row.number))["step"]
        assert steps == [float(step) for step in range(1, row.steps + 1)]
    # One whole run a trial in W&B, none of the interrupted ones.
    runs = [path.name.rsplit("-", 1)[1] for path in directory.wandb.glob("offline-run-*")]
    assert sorted(runs) == [f"{row.number:04d}" for row in rows]


@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_driver_says_how_to_go_on(tmp_path: Path, number: int, code: int) -> None:
    directory = StudyDir(tmp_path / "studies" / "study")
    process = tune_lr("search", "--name=study", *COMMAND, cwd=tmp_path)
    end_when(process, directory.journal, 3, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors.splitlines()[-1] == f"error: interrupted; go on with: tune-lr resume {directory.root}"
    assert finished_and_running(directory.journal)[0] >= 3
