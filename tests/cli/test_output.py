"""Output that cannot be written, or not with these characters or this width, neither ends a command nor cuts words."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from paths import DATA, SUPPORT
from tune_lr.lr.schedules import SCHEDULES
from tune_lr.records.outcome import Outcome
from tune_lr.run import report
from tune_lr.show.output import SafeStream, safe_console
from tune_lr.show.terminal.outcome import show_report
from tune_lr.show.terminal.schedules import show_schedule
from tune_lr.show.terminal.status import show_status
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.status import read_status

FULL = Path("/dev/full")
# One short training and nothing else: the least that starts Ray and workers.
SPACE: dict[str, Any] = {
    "workload": "toy:regression",
    "max_steps": 10,
    "report_every": 5,
    "num_trials": 0,
    "confirm": {"top": 0},
    "optimizer": {"name": "sgd"},
    "fixed": [{"label": "größer", "lr_schedule": "cosine", "lr": 0.05}],
}
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would change the output, and then `changes`."""
    names = ("PYTHONIOENCODING", "PYTHONUTF8", "LC_ALL", "LANG", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "TERM")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, "WANDB_MODE": "disabled", "TERM": "xterm", **changes}


def shell(line: str, folder: Path, **changes: str) -> "subprocess.CompletedProcess[str]":
    """Run a line of bash in which `tune-lr` is the command; its exit code is the one of tune-lr in a pipe."""
    command = f'set -o pipefail; tune-lr() {{ {sys.executable} -m tune_lr.cli "$@"; }}; {line}'
    paths = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(SUPPORT)]))
    changes.setdefault("PYTHONPATH", paths)
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(**changes), capture_output=True, encoding="utf-8",
        errors="replace", check=False,
    )  # fmt: skip


# --- studies: the exit code is the study's ------------------------------------------------------------------


@pytest.mark.long
def test_a_closed_pipe_and_an_ascii_terminal_do_not_end_a_study(tmp_path: Path) -> None:
    """`| head -1` closes the pipe after the first line of the plan. The YAML is in UTF-8, the locale is not."""
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SPACE, allow_unicode=True), encoding="utf-8")
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = shell("tune-lr search s.yaml --name a | head -1", tmp_path, **plain)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a: toy:regression, sgd\n"
    assert done.stderr == ""
    (row,) = StudyDir(tmp_path / "studies/a").read_rows()
    assert (row.label, row.state, row.steps) == ("größer", "complete", 10)
    # What the study wrote is read in the same locale, and shown with the characters that there are.
    shown = shell("tune-lr report --terminal studies/a", tmp_path, **plain)
    assert shown.returncode == 0, shown.stderr
    assert "gr??er" in shown.stdout or "gr?er" in shown.stdout


@needs_full
@pytest.mark.long
def test_a_full_disk_behind_the_output_does_not_end_a_study(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SPACE, allow_unicode=True), encoding="utf-8")
    done = shell("tune-lr search s.yaml --name a > /dev/full", tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line == "note: the standard output cannot be written (No space left on device); nothing more goes to it"
    (row,) = StudyDir(tmp_path / "studies/a").read_rows()
    assert row.state == "complete"
    both = shell("tune-lr search s.yaml --name b > /dev/full 2>&1", tmp_path)
    assert both.returncode == 0
    closed = shell("tune-lr search s.yaml --name c >&- 2>&- <&-", tmp_path)
    assert closed.returncode == 0
    # Nothing that was printed has been written into a file of the study.
    assert StudyDir(tmp_path / "studies/c").read_rows()[0].state == "complete"


# --- other commands: what they print is their result --------------------------------------------------------


@pytest.mark.parametrize("command", ["schedules", "check s.yaml"])
def test_a_reader_that_has_read_enough_is_no_error(command: str, tmp_path: Path) -> None:
    prepare(tmp_path)
    done = shell(f"tune-lr {command} | head -1 > /dev/null", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@needs_full
@pytest.mark.parametrize("command", ["schedules", "check s.yaml"])
def test_a_result_that_cannot_be_written_is_an_error_in_one_line(command: str, tmp_path: Path) -> None:
    prepare(tmp_path)
    done = shell(f"tune-lr {command} > /dev/full", tmp_path)
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert "No space left on device" in line
    assert shell(f"tune-lr {command} > /dev/full 2>&1", tmp_path).returncode == 4


@needs_full
def test_an_error_that_cannot_be_written_keeps_its_exit_code(tmp_path: Path) -> None:
    assert shell("tune-lr check nowhere.yaml 2> /dev/full", tmp_path).returncode == 2
    assert shell("tune-lr check nowhere.yaml 2>&-", tmp_path).returncode == 2


def test_without_standard_streams_a_command_ends_as_it_would(tmp_path: Path) -> None:
    prepare(tmp_path)
    assert shell("tune-lr check s.yaml <&- >&- 2>&-", tmp_path).returncode == 0


def prepare(folder: Path) -> None:
    (folder / "s.yaml").write_text(yaml.safe_dump(SPACE, allow_unicode=True), encoding="utf-8")
    subprocess.run(["cp", "-r", DATA / "studies_0_1/finished", folder / "old"], check=True)


# --- characters, colours and widths -------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_characters_that_the_output_lacks_are_replaced(encoding: str, tmp_path: Path) -> None:
    done = shell("tune-lr schedules cosine", tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "##" in done.stdout, "the curve is drawn with signs that every encoding has"
    assert "?" not in done.stdout


def test_utf8_is_left_as_it_is(tmp_path: Path) -> None:
    assert "█" in shell("tune-lr schedules cosine", tmp_path, PYTHONIOENCODING="utf-8").stdout


@pytest.mark.parametrize(
    ("changes", "colours", "screen"),
    [({}, False, False), ({"FORCE_COLOR": "1"}, True, False), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
     ({"FORCE_COLOR": "1", "TERM": "dumb"}, False, False)],
)  # fmt: skip
def test_a_file_gets_colours_where_they_are_asked_for_and_never_a_live_screen(
    changes: dict[str, str], colours: bool, screen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **changes}.items():
        monkeypatch.setenv(name, value)
    out = io.StringIO()
    console = safe_console(out)
    console.print("[red]word[/]")
    assert ("\x1b[31m" in out.getvalue()) == colours
    assert console.is_interactive == screen


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("finished")
    prepare(folder)
    return report(StudyDir(folder / "old"))


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_name_is_cut_in_a_narrow_terminal(width: int, finished: Outcome) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width)
    for spec in SCHEDULES.values():
        show_schedule(console, spec)
        assert all(parameter.name in out.getvalue() for parameter in spec.parameters)
    show_status(console, read_status(StudyDir(finished.root)))
    show_report(console, finished)
    text = out.getvalue()
    assert "…" not in text
    for word in ("interrupted", "onecycle", "-0.0283 to 0.404", "LR schedule"):
        assert word in text


@pytest.mark.parametrize("width", ["0", "1", "-3", "wide", ""])
def test_a_width_that_is_none_is_no_error(width: str, tmp_path: Path) -> None:
    done = shell("tune-lr schedules step", tmp_path, COLUMNS=width)
    assert (done.returncode, done.stderr) == (0, "")


# --- the stream itself --------------------------------------------------------------------------------------


class Failing(io.StringIO):
    """Fails at the second write, and would take the third."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        if self.writes == 2:
            raise self.error
        return super().write(text)


def test_a_stream_that_fails_is_switched_off_with_one_word() -> None:
    failures: list[OSError] = []
    failing = Failing(OSError(28, "No space left on device"))
    stream = SafeStream(failing, failures.append)
    for text in ("a", "b", "c", "d"):
        assert stream.write(text) == 1
        stream.flush()
    assert failing.getvalue() == "a"
    assert failing.writes == 2
    assert failures == [failing.error]


def test_a_pipe_that_is_full_for_a_moment_is_written_to_again() -> None:
    failing = Failing(BlockingIOError(11, "Resource temporarily unavailable"))
    stream = SafeStream(failing)
    for text in ("a", "b", "c"):
        stream.write(text)
    assert failing.getvalue() == "ac"
    assert stream.failure is None


def test_a_stream_that_somebody_has_closed_is_no_error() -> None:
    closed = io.StringIO()
    closed.close()
    console = safe_console(closed)
    console.print("a word")
