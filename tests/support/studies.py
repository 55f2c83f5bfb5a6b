"""Runs whole studies for the tests: in this process, or as a person does, by the command line."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna

from paths import SUPPORT
from tune_lr import run as search
from tune_lr.config.load import parse_config
from tune_lr.records.observer import Observer
from tune_lr.records.outcome import Outcome
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.session import create
from tune_lr.store.study_dir import StudyDir

TOY: dict[str, Any] = {
    "workload": "toy:regression",
    "max_steps": 40,
    "report_every": 10,
    "num_trials": 8,
    "range_test": {"low": 1e-4, "high": 100.0, "steps": 240, "replicates": 2},
    "pruner": {"name": "asha", "min_steps": 10, "reduction_factor": 2},
    "confirm": {"top": 2, "seeds": 2},
    "optimizer": {"name": "sgd"},
    "parameters": {
        "lr": {"min": "range_test", "max": "range_test"},
        "lr_schedule": {"choices": {"constant": {}, "step": {"gamma": {"min": 0.1, "max": 0.9}}, "onecycle": {}}},
    },
}


class Recorder(Observer):
    """An Observer that keeps everything; `on_report` may interfere."""

    def __init__(self, on_report: Any = None) -> None:
        self.reports: list[tuple[TrialSpec, Report]] = []
        self.notices: list[str] = []
        self.rows: list[TrialRow] = []
        self._on_report = on_report

    def trial_reported(self, trial: TrialSpec, report: Report) -> None:
        self.reports.append((trial, report))
        if self._on_report:
            self._on_report(trial, report)

    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
        self.rows.append(row)

    def notice(self, text: str) -> None:
        self.notices.append(text)

    @property
    def device(self) -> str:
        """Where the trials were trained, as their workers say: "cuda" or "cpu"."""
        return next(str(report.facts.device) for _, report in self.reports if report.facts)

    @property
    def workers(self) -> set[str]:
        return {report.worker for _, report in self.reports}


def toy(**changes: Any) -> dict[str, Any]:
    return {**TOY, **changes}


def run_study(
    root: Path, space: Mapping[str, Any], recorder: Recorder | None = None, address: str | None = None
) -> Outcome:
    """Makes a study in `root` and runs it in this process."""
    config, directory = parse_config(space), StudyDir(root)
    create(config, directory, [str(SUPPORT)])
    return search.run(directory, address=address, observers=[recorder] if recorder else [])


def tune_lr(*arguments: str, cwd: Path, **environment: str) -> "subprocess.Popen[str]":
    """The command, as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tune_lr.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "WANDB_API_KEY": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def ray_node(command: Sequence[str | Path], environment: Mapping[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """What `ray start --block` starts, from when it is up until it has ended."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    with process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                break
        else:
            raise AssertionError("".join(said))
        try:
            yield process
        finally:
            process.terminate()
            process.communicate()


def finished_and_running(journal: Path) -> tuple[int, int]:
    """How many trials of all phases have ended, and how many are in progress, as another process reads it."""
    if not journal.exists():
        return 0, 0
    try:
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
        trials = [t for study in storage.get_all_studies() for t in storage.get_all_trials(study._study_id)]
    except (KeyError, ValueError):  # caught in the middle of a line
        return 0, 0
    ended = sum(trial.state.is_finished() for trial in trials)
    return ended, len(trials) - ended


def end_when(process: "subprocess.Popen[str]", journal: Path, finished: int, number: int = signal.SIGKILL) -> None:
    """Signals a driver at a moment when enough trials have ended and one is in progress."""
    while process.poll() is None:
        ended, running = finished_and_running(journal)
        if ended >= finished and running:
            process.send_signal(number)
            return
        time.sleep(0.2)  # Ray's workers are niced: a busy loop here would starve them
    output, errors = process.communicate()
    raise AssertionError(f"the study ended before it could be interrupted:\n{output}\n{errors}")


def curves(directory: StudyDir, numbers: Sequence[int]) -> list[str]:
    return [directory.curve(number).read_text() for number in numbers]
