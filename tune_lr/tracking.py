"""Weights & Biases: one run a trial, written by a thread of the driver.

The study directory is the record; this is a copy for people to look at. So it never waits, never raises, and what it
cannot deliver is said once, at the end, with the line that delivers it. Group = study, job_type = phase.
"""

import math
import netrc
import os
import queue
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, cast
from urllib.parse import urlparse

from tune_lr.config import Config
from tune_lr.errors import InputError, one_line
from tune_lr.lr_range_test import LRBounds
from tune_lr.study_dir import StudyDir, TrialRow
from tune_lr.trial import Report, TrialSpec

# In all, W&B may hold up the end of a study for this long.
CLOSE_TIMEOUT_S = 30.0
INIT_TIMEOUT_S = 10.0

Mode = Literal["online", "offline", "disabled"]

os.environ.setdefault("WANDB_SILENT", "true")  # with it, a server that refuses is noticed in 2 s instead of 12


def has_key() -> bool:
    """Whether a W&B key is configured, as far as can be told without importing wandb."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    # Given a path, Python leaves out a check of the file's mode that wandb does not make either.
    for path in filter(None, (os.environ.get("NETRC"), "~/.netrc", "~/_netrc")):
        with suppress(OSError, netrc.NetrcParseError):
            return netrc.netrc(os.path.expanduser(path)).authenticators(host) is not None
    return False


def choose_mode(asked: str | None) -> Mode:
    """online, offline or disabled. Raises InputError where online was asked for and there is no key."""
    if asked == "online" and not has_key():
        raise InputError(
            "--wandb: online needs a key and none is configured; set WANDB_API_KEY, or use --wandb offline"
        )
    if asked in ("offline", "disabled"):
        return cast(Mode, asked)
    return "online" if has_key() else "offline"


class WandbTracker:
    """An Observer that reports every curve. `close` it at the end; then `trouble` says what went wrong, if anything."""

    def __init__(self, config: Config, directory: StudyDir, study_id: str, mode: Mode) -> None:
        self.mode: Mode = mode
        self.trouble = ""
        self._config, self._directory, self._study_id = config, directory, study_id
        self._runs: dict[int, Any] = {}
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def trial_started(self, trial: TrialSpec) -> None:
        self._events.put(lambda: self._start(trial))

    def trial_reported(self, trial: TrialSpec, report: Report) -> None:
        self._events.put(lambda: self._log(trial, report))

    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
        self._events.put(lambda: self._finish(row))

    def phase_started(self, phase: str, trials: int) -> None: ...

    def bounds_found(self, bounds: LRBounds) -> None: ...

    def notice(self, text: str) -> None: ...

    def close(self) -> None:
        """Waits until everything is delivered, or on disk, for at most `CLOSE_TIMEOUT_S`."""
        self._events.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self._note(f"no answer within {CLOSE_TIMEOUT_S:.0f} s")

    @property
    def sync_command(self) -> str:
        return f"wandb sync {self._directory.wandb}/offline-run-*"

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                event()
            except Exception as error:  # whatever it is, a study does not end of it
                self._note(f"{type(error).__name__}: {one_line(error)}")
        import wandb

        for run in self._runs.values():
            with suppress(Exception):
                run.finish(exit_code=1)
        with suppress(Exception):
            wandb.teardown()

    def _note(self, trouble: str) -> None:
        self.trouble = self.trouble or trouble

    def _start(self, trial: TrialSpec) -> None:
        run_id = f"{self._study_id}-{trial.number:04d}"
        self._forget(trial.number, run_id)
        name = f"ramp #{trial.number}" if trial.ramp else f"{trial.lr_schedule} lr={trial.lr:.3g} #{trial.number}"
        arguments = {
            "project": self._config.wandb.project,
            "entity": self._config.wandb.entity,
            "group": self._directory.name,
            "job_type": trial.phase,
            "name": name,
            "id": run_id,
            "tags": [trial.phase, *([trial.lr_schedule] if trial.lr_schedule else [])],
            "config": self._run_config(trial),
        }
        try:
            run = self._init(arguments)
        except Exception as error:
            if self.mode != "online":
                raise
            self._note(f"the server could not be reached, runs were kept offline ({type(error).__name__})")
            self._go_offline()
            run = self._init(arguments)
        step = "range/lr" if trial.ramp else "train/step"
        run.define_metric(step, hidden=True)
        for group in ("range",) if trial.ramp else ("train", "val"):
            run.define_metric(f"{group}/*", step_metric=step)
        self._runs[trial.number] = run

    def _init(self, arguments: Mapping[str, Any]) -> Any:
        import wandb

        settings = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            init_timeout=INIT_TIMEOUT_S,
            finish_timeout=INIT_TIMEOUT_S,
        )
        return wandb.init(
            dir=str(self._directory.root), mode=self.mode, reinit="create_new", settings=settings, **arguments
        )

    def _go_offline(self) -> None:
        """For the rest of the study. W&B's service holds on to the id of a run that failed to start, and is ended."""
        import wandb

        self.mode = "offline"
        for run in self._runs.values():
            run.finish()
        self._runs.clear()
        wandb.teardown()

    def _forget(self, number: int, run_id: str) -> None:
        """A trial that begins again leaves no half run behind."""
        run = self._runs.pop(number, None)
        if run is not None:
            run.finish(exit_code=1)
        for stale in self._directory.wandb.glob(f"*run-*-{run_id}"):
            shutil.rmtree(stale, ignore_errors=True)

    def _run_config(self, trial: TrialSpec) -> dict[str, Any]:
        config = self._config
        shared = {"phase": trial.phase, "number": trial.number, "seed": trial.seed, "max_steps": trial.max_steps}
        optimizer = {"optimizer": config.optimizer.name, **config.optimizer.args}
        if trial.ramp:
            return {**shared, **optimizer, "range_test.low": trial.ramp.low, "range_test.high": trial.ramp.high}
        return {**shared, **optimizer, "lr": trial.lr, "lr_schedule": trial.lr_schedule, **trial.qualified_parameters()}

    def _log(self, trial: TrialSpec, report: Report) -> None:
        run = self._runs[trial.number]
        for step, lr, loss in report.points:
            if trial.ramp:
                run.log({"range/lr": lr, "range/step": step, "range/loss": loss})
                continue
            row = {"train/step": step, "train/lr": lr, "train/loss": loss}
            if step == report.step:
                row |= {f"val/{name.removeprefix('val_')}": value for name, value in report.metrics.items()}
            run.log(row)

    def _finish(self, row: TrialRow) -> None:
        run = self._runs.pop(row.number)
        run.tags = (*run.tags, row.state)
        run.summary["state"] = row.state
        run.summary["steps"] = row.steps
        run.summary.update({name: value for name, value in row.metrics.items() if math.isfinite(value)})
        run.finish(exit_code=1 if row.state == "failed" else 0)
