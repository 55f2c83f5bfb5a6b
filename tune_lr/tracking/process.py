"""A WandbTracker in a process of its own: in the driver's process it took a third of its CPU time.

The driver writes pickled events to the process and reads its answers: ("stop", number, reason) for a run that somebody
stops in W&B, and at the end ("ended", mode, trouble).
"""

import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import IO, Any, cast

from tune_lr.config.model import Config
from tune_lr.records.observer import Observer
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.tracking.key import Mode
from tune_lr.tracking.runs import RUN_TIMEOUT_S
from tune_lr.tracking.tracker import CLOSE_TIMEOUT_S, WandbTracker

NICENESS = 10  # training comes first


class WandbProcess(Observer):
    """An Observer that hands every event to a WandbTracker in a process of its own, to be used as that one is.

    A driver that is killed loses nothing of what it has handed over: the process then ends its runs and itself.
    """

    def __init__(self, config: Config, directory: StudyDir, study_id: str, mode: Mode) -> None:
        self.mode, self.trouble = mode, ""
        self.stop_trial: Callable[[int, str], None] | None = None
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._events.put((config, directory, study_id, mode))
        self._ended = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from tune_lr.tracking.process import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the driver, which then closes it
        )
        self._threads = [
            threading.Thread(target=self._send, name="wandb-send", daemon=True),
            threading.Thread(target=self._receive, name="wandb-receive", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def trial_started(self, trial: TrialSpec) -> None:
        """Begin the trial's run."""
        self._events.put(("trial_started", trial))

    def trial_reported(self, trial: TrialSpec, report: Report) -> None:
        """Log what the report says."""
        self._events.put(("trial_reported", trial, report))

    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
        """End the trial's run."""
        self._events.put(("trial_ended", trial, row))

    def study_ended(self, rows: Sequence[TrialRow]) -> None:
        """Sum the study up. To be called when the derived files are written."""
        self._events.put(("study_ended", rows))

    def close(self) -> None:
        """Wait until everything is delivered, or on disk, for at most `CLOSE_TIMEOUT_S`, and end the process."""
        self._events.put(None)
        if not self._ended.wait(CLOSE_TIMEOUT_S):
            self.trouble = f"no answer within {CLOSE_TIMEOUT_S:.0f} s"
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0 if self.trouble else RUN_TIMEOUT_S)
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what it did not take any more
                cast("IO[bytes]", pipe).close()

    def _send(self) -> None:
        """Hand the events to the process: a thread, since a study does not wait for a pipe."""
        pipe, event = cast("IO[bytes]", self._process.stdin), object()
        while event is not None:
            event = self._events.get()
            with suppress(OSError):  # the process has gone; _receive says so
                pickle.dump(event, pipe)
                pipe.flush()

    def _receive(self) -> None:
        """Read the process's answers to the last one."""
        try:
            while (answer := pickle.load(cast("IO[bytes]", self._process.stdout)))[0] == "stop":
                if self.stop_trial is not None:
                    self.stop_trial(*answer[1:])
            _, self.mode, self.trouble = answer
        except (OSError, EOFError, pickle.UnpicklingError):
            self.trouble = "its process has ended before the study"
        self._ended.set()


def serve() -> None:
    """Be the other end of a WandbProcess: read events from the standard input, write answers to the output."""
    os.nice(NICENESS)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed is no answer
    writing = threading.Lock()

    def tell(*answer: Any) -> None:
        with writing, suppress(OSError):  # the driver has gone
            pickle.dump(answer, answers)
            answers.flush()

    tracker = WandbTracker(*pickle.load(sys.stdin.buffer))
    tracker.stop_trial = partial(tell, "stop")
    with suppress(EOFError):  # the driver has gone
        while (event := pickle.load(sys.stdin.buffer)) is not None:
            method, *arguments = event
            getattr(tracker, method)(*arguments)
    tracker.close()
    tell("ended", tracker.mode, tracker.trouble)
