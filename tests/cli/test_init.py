"""`tune-lr init`: what it writes works as it is, by every command that it names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from studies import tune_lr
from tune_lr.cli.commands.init import write_scaffold
from tune_lr.cli.main import main
from tune_lr.store.study_dir import StudyDir

NAMES = ["my_workload.py", "my_space.yaml", "test_my_workload.py"]


def test_what_init_writes_can_be_tested_and_checked(tmp_path: Path) -> None:
    """From another directory, by the commands that `init` prints."""
    done = tune_lr("init", "mine", cwd=tmp_path)
    output, errors = done.communicate(timeout=60)
    assert (done.returncode, errors) == (0, "")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == sorted(NAMES)
    for command in (r"tune-lr (check) (\S+)", r"(pytest) (\S+)"):
        assert re.search(command, output), output

    tested = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "mine/test_my_workload.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert tested.returncode == 0, tested.stdout
    assert "3 passed" in tested.stdout

    checked = tune_lr("check", "mine/my_space.yaml", cwd=tmp_path)
    output, errors = checked.communicate(timeout=60)
    assert (checked.returncode, errors) == (0, "")
    assert "24 trials of at most 200 steps: constant, cosine, linear, wsd, onecycle" in " ".join(output.split())


@pytest.mark.long
def test_what_init_writes_can_be_searched(tmp_path: Path) -> None:
    write_scaffold(tmp_path / "mine")
    searched = tune_lr(
        *("search", "mine/my_space.yaml", "--name=study", "--num-trials=3", "--max-steps=40", "--max-concurrent=1"),
        *("--wandb=disabled", "--set=range_test.replicates=1", "--set=confirm={top: 1, seeds: 2}"),
        cwd=tmp_path,
    )
    output, errors = searched.communicate(timeout=300)
    assert (searched.returncode, errors) == (0, ""), f"{output}\n{errors}"
    rows = StudyDir(tmp_path / "studies" / "study").read_rows()
    assert [row.phase for row in rows] == ["range_test", *["search"] * 3, *["confirm"] * 2]
    assert "absolute_error" in (tmp_path / "studies" / "study" / "best.yaml").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_overwritten(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    expected = f"error: init: {tmp_path / name} exists and is left as it is; give another directory\n"
    assert capsys.readouterr().err == expected
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_an_existing_directory_is_added_to(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2")
    assert [path.name for path in write_scaffold(tmp_path)] == NAMES
    assert len(list(tmp_path.iterdir())) == 4


def test_a_directory_that_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"error: init: '{tmp_path / 'file'}' is a file; give a directory\n"
    assert main(["init", str(tmp_path / "file" / "below")]) == 4
    assert capsys.readouterr().err.startswith(f"error: init: {tmp_path / 'file' / 'below'} cannot be written (")
