"""What the tests of studies share."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from simulated import execute, open_study
from tune_lr.store.study_dir import StudyDir
from whole_studies import SHORT, specs_in


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is cut here, and what a killed process wrote is there without fsync. It is most of the time."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def cut_journal(tmp_path: Path) -> Callable[[int], list[bytes]]:
    """A finished study in tmp_path/s, of which the journal's first lines can be kept: killed between any two writes."""
    study = open_study(tmp_path / "s", SHORT)
    execute(study, slots=2)
    assert {row.state for row in study.rows()} == {"complete", "pruned"}
    (tmp_path / "s").rename(tmp_path / "whole")
    lines = (tmp_path / "whole" / "study.journal").read_bytes().splitlines(keepends=True)

    def cut(count: int) -> list[bytes]:
        shutil.rmtree(tmp_path / "s", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "s")
        (tmp_path / "s" / "study.journal").write_bytes(b"".join(lines[:count]))
        directory = StudyDir(tmp_path / "s")
        for number in directory.numbers() - specs_in(tmp_path / "s").keys():  # the files of what began later
            shutil.rmtree(directory.trial(number), ignore_errors=True)
            directory.range_curve(number).unlink(missing_ok=True)
        return lines

    return cut
