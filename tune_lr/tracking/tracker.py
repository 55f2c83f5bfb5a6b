"""Reports every curve to Weights & Biases while a study runs, in a thread: the study waits for nothing of it."""

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from tune_lr.config.model import Config
from tune_lr.errors import TuneLRError, one_line
from tune_lr.records.observer import Observer
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.tracking.key import Mode, check_server, server_url
from tune_lr.tracking.rows import Row, report_rows
from tune_lr.tracking.runs import Runs

# In all, W&B may hold up a study for less than 30 s: its key is asked about before it starts, and the end waits.
CLOSE_TIMEOUT_S = 20.0
KEPT_OFFLINE = "runs were kept offline"
STOPPED = "stopped in Weights & Biases"


class WandbTracker(Observer):
    """An Observer that reports every curve. `close` it at the end; then `trouble` says what went wrong, if anything.

    `stop_trial`, where it is set, is called with a trial's number and a reason when somebody stops its run in W&B.
    """

    def __init__(self, config: Config, directory: StudyDir, study_id: str, mode: Mode) -> None:
        self.trouble = ""
        self.stop_trial: Callable[[int, str], None] | None = None
        self._directory, self._metric = directory, config.metric.name
        self._runs = Runs(config, directory, study_id, mode, stop=self._stop)
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    @property
    def mode(self) -> Mode:
        """The mode in which runs are made now; offline once the server was given up."""
        return self._runs.mode

    def trial_started(self, trial: TrialSpec) -> None:
        """Begin the trial's run."""
        self._events.put(lambda: self._start(trial))

    def trial_reported(self, trial: TrialSpec, report: Report) -> None:
        """Log what the report says."""
        self._events.put(lambda: self._runs.log(trial.number, self._rows(trial, report)))

    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:  # noqa: ARG002  an Observer's
        """End the trial's run."""
        self._events.put(lambda: self._runs.finish(row))

    def study_ended(self, rows: Sequence[TrialRow]) -> None:
        """Sum the study up, where there is a server to do so on. To be called when the derived files are written."""
        self._events.put(lambda: self._summarize(rows))

    def close(self) -> None:
        """Wait until everything is delivered, or on disk, for at most `CLOSE_TIMEOUT_S`."""
        self._events.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self._note(f"no answer within {CLOSE_TIMEOUT_S:.0f} s")

    def _work(self) -> None:
        # Now, not with the first trial: it is quicker while few modules are loaded, and no worker is starting yet.
        import wandb  # noqa: F401  for its import alone

        if self.mode == "online":
            try:
                check_server(KEPT_OFFLINE, "and sync afterwards")
            except TuneLRError as error:
                self._note(str(error))
                self._runs.mode = "offline"
        while (event := self._events.get()) is not None:
            try:
                event()
            except TimeoutError:
                self._note(f"{KEPT_OFFLINE}: {server_url()} no longer answers")
                self._go_offline()
            except Exception as error:  # whatever it is, a study does not end of it
                self._note(f"{type(error).__name__}: {one_line(error)}")
        with suppress(Exception):
            self._runs.close()

    def _rows(self, trial: TrialSpec, report: Report) -> list[Row]:
        predicted_curve = self._directory.read_predicted_curve(trial.number) if report.metrics else None
        return report_rows(trial, report, predicted_curve, self._metric)

    def _note(self, trouble: str) -> None:
        self.trouble = self.trouble or trouble

    def _start(self, trial: TrialSpec) -> None:
        try:
            self._runs.start(trial)
        except Exception as error:
            if self.mode != "online":
                raise
            self._note(f"{KEPT_OFFLINE}: {server_url()} did not take one ({type(error).__name__}: {one_line(error)})")
            self._go_offline()
            self._runs.start(trial)

    def _go_offline(self) -> None:
        with suppress(Exception):
            self._runs.go_offline()

    def _summarize(self, rows: Sequence[TrialRow]) -> None:
        if self.mode != "online":
            return
        self._runs.summarize(rows)
        missing = self._runs.missing(rows)
        if missing:
            self._note(f"{len(missing)} of {len(rows)} runs are not on the server")

    def _stop(self, number: int) -> None:
        if self.stop_trial is not None:
            self.stop_trial(number, STOPPED)
