"""`status` reads a study that somebody else is writing and touches nothing; `stop` ends its driver from anywhere."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from paths import SUPPORT
from simulated import SMALL, execute
from tune_lr import run as search
from tune_lr.cli.main import main
from tune_lr.config.load import parse_config
from tune_lr.errors import Interrupted, ResourceError
from tune_lr.interrupts import interruptible, stoppable
from tune_lr.records.status import PhaseStatus
from tune_lr.session import create
from tune_lr.store.curves import read_curve
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.status import read_status, stop
from tune_lr.study.study import Study


@pytest.fixture
def directory(tmp_path: Path) -> StudyDir:
    """A study that was made and not begun: 2 ramps, 5 trials, 2 x 2 confirmations."""
    directory = StudyDir(tmp_path / "study")
    create(parse_config(SMALL), directory, [str(SUPPORT)])
    return directory


def contents(directory: StudyDir) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in directory.root.rglob("*") if path.is_file()}


def test_a_study_that_has_not_begun_is_all_to_come(directory: StudyDir) -> None:
    before = contents(directory)
    status = read_status(directory)
    assert (status.state, status.driver, status.phase, status.leader) == ("stopped", None, "range_test", None)
    assert [phase.to_come for phase in status.phases.values()] == [2, 5, 4]
    assert status.steps_to_come == 2 * 120 + 5 * 8 + 4 * 8
    assert contents(directory) == before


def test_a_running_study_is_read_beside_its_driver(directory: StudyDir) -> None:
    with directory.lock():
        study = Study(parse_config(SMALL), directory)
        execute(study, slots=2, reports=14)
        before = contents(directory)
        status = read_status(directory)
        assert contents(directory) == before
    rows, begun = study.rows(), study.trials.begun()
    assert status.state == "running"
    assert status.driver == f"process {os.getpid()} on {os.uname().nodename}"
    assert status.phase == "search"
    assert status.phases["range_test"] == PhaseStatus(2, 0, 0, 0, 0, 0)
    searched = [row.state for row in rows if row.phase == "search"]
    assert searched
    assert begun
    counts = status.phases["search"]
    assert (counts.complete, counts.pruned) == (searched.count("complete"), searched.count("pruned"))
    assert (counts.running, counts.to_come) == (len(begun), 5 - len(searched) - len(begun))
    assert [trial.number for trial in status.running] == [spec.number for spec in begun]
    for trial in status.running:
        assert trial.step == len(read_curve(directory.curve(trial.number))["step"])
    assert status.bounds is not None
    assert status.bounds["status"] == "ok"
    assert status.left_s is not None
    assert status.left_s > 0
    # The next driver goes on as if nobody had looked.
    study = Study(parse_config(SMALL), directory)
    execute(study, slots=2)
    assert study.over
    assert [row.number for row in study.rows()] == list(range(2 + 5 + 4))


def test_half_a_line_is_neither_read_nor_mended(directory: StudyDir) -> None:
    execute(Study(parse_config(SMALL), directory), slots=2, reports=14)
    whole = read_status(directory)
    with directory.journal.open("ab") as file:
        file.write(b'{"op_code":5,"worker')
    before = contents(directory)
    assert read_status(directory).phases == whole.phases
    assert contents(directory) == before
    assert (whole.state, whole.driver, whole.left_s) == ("stopped", None, None)
    assert whole.phases["search"].running  # interrupted: they run again


def test_a_finished_study_says_what_it_has_come_to(directory: StudyDir, capsys: pytest.CaptureFixture[str]) -> None:
    study = Study(parse_config(SMALL), directory)
    execute(study)
    assert read_status(directory).state == "stopped"  # its report is not written yet
    outcome = search.finish(study)
    assert outcome.answer is not None
    before = contents(directory)
    assert main(["status", str(directory.root), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["state"], status["phase"], status["running"]) == ("finished", "finish", [])
    assert status["verdict"] == outcome.answer.verdict
    assert status["leader"]["trial"] == outcome.answer.winner.trial
    assert status["leader"]["value"] == outcome.answer.winner.mean
    assert status["steps"] == sum(row.steps for row in study.rows())
    assert status["steps_to_come"] == 0
    assert main(["status", str(directory.root)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("study: finished\n")
    assert outcome.answer.winner.lr_schedule in shown
    assert contents(directory) == before


def test_status_imports_neither_torch_nor_ray(directory: StudyDir) -> None:
    code = (
        "import sys; from tune_lr.cli.main import main; code = main(sys.argv[1:]); "
        "print([name for name in ('torch', 'ray', 'wandb') if name in sys.modules], code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "status", str(directory.root)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[] 0"


@pytest.mark.parametrize("command", ["status", "stop"])
def test_what_is_no_study_ends_with_4(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path / "nowhere")]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("a study directory?")
    assert not (tmp_path / "nowhere").exists()


def test_a_broken_journal_is_named_by_its_own_path(directory: StudyDir) -> None:
    directory.journal.write_text("nonsense\n")
    with pytest.raises(ResourceError, match=f"^{directory.journal}: cannot be read as an Optuna journal"):
        read_status(directory)


def test_somebody_who_looks_does_not_keep_a_driver_out(directory: StudyDir) -> None:
    directory.lock_file.touch()
    with directory.lock_file.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        letting_go = threading.Timer(0.1, fcntl.flock, (looking, fcntl.LOCK_UN))
        letting_go.start()
        with directory.lock():
            assert directory.driver() is not None
        letting_go.join()
    assert directory.driver() is None


# --- stop -------------------------------------------------------------------------------------------------------------

DRIVER = """\
import sys, threading
from pathlib import Path
from simulated import SMALL
from tune_lr.config.load import parse_config
from tune_lr.errors import Interrupted
from tune_lr.interrupts import interruptible, stoppable
from tune_lr.study.study import Study
from tune_lr.store.study_dir import StudyDir
directory = StudyDir(sys.argv[1])
with directory.lock():
    study = Study(parse_config(SMALL), directory)
    try:
        with interruptible(directory, study.interrupt), stoppable(directory, study.interrupt):
            print("running", flush=True)
            while not study.stopped:
                threading.Event().wait(0.1)
    except Interrupted as end:
        sys.exit(end.exit_code)
"""


def test_stop_ends_a_driver_as_sigterm_does(directory: StudyDir, capsys: pytest.CaptureFixture[str]) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(directory.root)],
        cwd=SUPPORT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "running\n"
        assert main(["stop", str(directory.root)]) == 0
        # It has let go of the study when `stop` returns, and ends by itself.
        with directory.lock():
            pass
        assert driver.wait(timeout=30) == 128 + signal.SIGTERM
    assert capsys.readouterr().out == (
        f"stopped (process {driver.pid} on {os.uname().nodename}); go on with: tune-lr resume {directory.root}\n"
    )
    assert not directory.stop_file.exists()
    assert main(["stop", str(directory.root)]) == 0
    assert capsys.readouterr().out == f"nothing runs in {directory.root}\n"


def test_stop_does_not_end_the_program_that_runs_a_study_in_a_thread(directory: StudyDir) -> None:
    ended: list[str] = []

    def drive() -> None:
        interrupted = threading.Event()
        try:
            with interruptible(directory, interrupted.set), stoppable(directory, interrupted.set):
                assert interrupted.wait(30)
        except Interrupted as end:
            ended.append(str(end))

    thread = threading.Thread(target=drive)
    thread.start()
    directory.stop_file.touch()
    thread.join(30)
    assert ended == [f"interrupted; go on with: tune-lr resume {directory.root}"]
    assert not directory.stop_file.exists()


def test_a_driver_that_does_not_stop_is_named_after_a_while(directory: StudyDir) -> None:
    with directory.lock(), pytest.raises(ResourceError, match=f"process {os.getpid()} on .* was asked to stop"):
        stop(directory, limit_s=0.3)
