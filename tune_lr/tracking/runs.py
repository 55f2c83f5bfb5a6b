"""The runs of a study in Weights & Biases: group = study, job_type = phase. Group and ids tie them to the study."""

import math
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tune_lr.config.model import Config
from tune_lr.records.parameters import setting, whole_optimizer
from tune_lr.records.row import RAMP, TrialRow
from tune_lr.records.trial import TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.tracking import summary
from tune_lr.tracking.key import Mode, run_folder
from tune_lr.tracking.key import tags as env_tags
from tune_lr.tracking.rows import Row, Thinner, x_axis
from tune_lr.tracking.uploaded import Uploaded, Uploads

# Variables of W&B that speak of one run. A study makes one for each trial, which must not share an id or a name.
ONE_RUN = (
    "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME", "WANDB_JOB_TYPE", "WANDB_RUN_GROUP", "WANDB_SWEEP_ID",
    "WANDB_LAUNCH", "WANDB_FORK_FROM", "WANDB_RESUME_FROM",
)  # fmt: skip
RUN_TIMEOUT_S = 8.0  # for a run to begin, or to be delivered after its end


def run_id(study_id: str, number: int) -> str:
    """Return the id of a trial's run."""
    return f"{study_id}-{number:04d}"


def run_name(trial: TrialSpec) -> str:
    """Return the name of a trial's run: "cosine lr=0.1, batch 64 #7"."""
    drawn = RAMP if trial.phase == "range_test" else f"{trial.lr_schedule} lr={trial.lr:.3g}"
    searched = setting(trial.qualified_parameters())
    return f"{trial.label[:100] or ', '.join(filter(None, [drawn, searched]))} #{trial.number}"


class Runs:
    """Makes a study's runs, in this thread. Whatever goes wrong is raised as wandb raises it.

    `folder` is where wandb makes its own folder; by default it is WANDB_DIR, or else the study directory. `stop` is
    called, in a thread of wandb's, with the number of a trial whose run somebody stops in W&B. W&B's variables that
    speak of one run are taken out of this process's environment.
    """

    def __init__(
        self,
        config: Config,
        directory: StudyDir,
        study_id: str,
        mode: Mode,
        *,
        folder: Path | None = None,
        stop: Callable[[int], None] | None = None,
    ) -> None:
        for name in ONE_RUN:
            os.environ.pop(name, None)
        self.mode: Mode = mode
        self._config, self._directory, self._study_id = config, directory, study_id
        self._folder, self._stop = folder or run_folder(directory.root), stop
        self._uploads = Uploads(directory.wandb)
        self._open: dict[int, tuple[Any, Thinner]] = {}
        self._abandoned: set[int] = set()  # runs that had begun when the server was given up

    def start(self, trial: TrialSpec) -> None:
        """Begin a trial's run. A run of it that is left from before is discarded."""
        number, ident = trial.number, run_id(self._study_id, trial.number)
        self._forget(number, ident)
        tags = [
            trial.phase,
            *([trial.lr_schedule] if trial.lr_schedule else []),
            *(["fixed"] if trial.label else []),
            *env_tags(),
        ]
        run = self._init(
            id=ident,
            name=run_name(trial),
            job_type=trial.phase,
            tags=tags,
            config=self._run_config(trial),
            stop=lambda: self._stop(number) if self._stop else None,  # a function: wandb copies its settings deeply
        )
        ramp = trial.phase == "range_test"
        x = "range/lr" if ramp else x_axis(self._config)
        for axis in {x} if ramp else {x, "train/step"}:
            run.define_metric(axis, hidden=True)
        for group in ("range",) if ramp else ("train", "val"):
            run.define_metric(f"{group}/*", step_metric=x)
        thinner = Thinner(trial.max_steps, *(("range/step", "range/loss") if ramp else ("train/step", "train/loss")))
        self._open[number] = run, thinner

    def log(self, number: int, rows: Iterable[Row]) -> None:
        """Log rows of a trial's curve."""
        if number in self._abandoned:
            return
        run, thinner = self._open[number]
        for row in thinner.add(rows):
            run.log(row)

    def finish(self, row: TrialRow) -> None:
        """End a trial's run and wait until it is on the server, or on disk.

        Raises TimeoutError where that takes longer than `RUN_TIMEOUT_S`.
        """
        if row.number in self._abandoned:
            return
        run, thinner = self._open.pop(row.number)
        for rest in thinner.end():
            run.log(rest)
        run.tags = (*run.tags, row.state)
        figures: Row = {"state": row.state, "steps": row.steps, "duration_s": row.duration_s}
        if row.state == "diverged":  # its last validation is of a time before that, and no result
            figures |= {"diverged": True, "diverged_at": row.steps}
        else:
            figures |= {name: value for name, value in row.metrics.items() if math.isfinite(value)}
        run.summary.update(figures | ({"reason": row.reason} if row.reason else {}))
        run.finish(exit_code=1 if row.state == "failed" else 0)
        self._remember(self._uploaded(row))

    def summarize(self, rows: Sequence[TrialRow]) -> None:
        """Make the run that sums the study up, from what stands in the study directory."""
        directory, metric = self._directory, self._config.metric
        bounds = directory.read_json(directory.bounds_json) if directory.bounds_json.exists() else {}
        answer = directory.read_answer()
        run = self._init(
            id=self._summary_id,
            name=f"{directory.name} summary",
            job_type="summary",
            tags=["summary", *env_tags()],
            config=self._study_config(),
            stop=lambda: None,
        )
        try:
            run.summary.update(summary.figures(rows, bounds, answer))
            run.log(self._tables(summary.leaderboard(rows, metric.name, metric.goal), bounds.get("reason") or ""))
            run.log_artifact(self._artifact())
        finally:
            run.finish()
        self._remember(self._summary(rows))

    def missing(self, rows: Sequence[TrialRow]) -> list[TrialRow]:
        """Return the trials that have ended and whose runs this server has not taken whole."""
        uploaded = set(self._uploads)
        return [row for row in rows if self._uploaded(row) not in uploaded]

    def has_summary(self, rows: Sequence[TrialRow]) -> bool:
        """Return whether this server has the run that sums up these trials."""
        return self._summary(rows) in set(self._uploads)

    def go_offline(self) -> None:
        """Keep every run on disk from here on. Runs that have begun are left as they are.

        W&B's service holds on to the id of a run that failed to start, and to whatever it could not deliver: it is
        ended.
        """
        self.mode = "offline"
        self._abandoned |= set(self._open)
        self.close()

    def close(self) -> None:
        """End what is still open, and W&B's service."""
        import wandb

        self._end_all()
        wandb.teardown()

    def _end_all(self) -> None:
        """End the runs whose trials have not; all at once, since each may wait for `RUN_TIMEOUT_S`."""

        def end(run: Any, thinner: Thinner) -> None:
            with suppress(Exception):
                for row in thinner.end():
                    run.log(row)
                run.finish(exit_code=1)

        threads = [threading.Thread(target=end, args=entry, daemon=True) for entry in self._open.values()]
        self._open.clear()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _init(self, *, stop: Callable[[], None], **arguments: Any) -> Any:
        import wandb

        settings = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            init_timeout=RUN_TIMEOUT_S,
            finish_timeout=RUN_TIMEOUT_S,
            finish_timeout_raises=True,
            stop_fn=stop,  # else W&B interrupts this process, and with it the study
        )
        return wandb.init(
            dir=str(self._folder),
            mode=self.mode,
            reinit="create_new",
            settings=settings,
            project=self._config.wandb.project,
            entity=self._config.wandb.entity,
            group=self._directory.name,
            **arguments,
        )

    def _forget(self, number: int, ident: str) -> None:
        """A trial that begins again leaves no half run behind."""
        self._abandoned.discard(number)
        run, _ = self._open.pop(number, (None, None))
        if run is not None:
            run.finish(exit_code=1)
        for stale in (self._folder / "wandb").glob(f"*run-*-{ident}"):
            shutil.rmtree(stale, ignore_errors=True)

    def _tables(self, leaderboard: Sequence[TrialRow], caption: str) -> Row:
        import wandb

        best = summary.best_of_families(leaderboard)
        logged: Row = {"leaderboard": summary.table(leaderboard), "best_of_family": summary.table(best)}
        if self._directory.range_test_png.exists():
            logged["range_test"] = wandb.Image(str(self._directory.range_test_png), caption=caption)
        return logged

    def _artifact(self) -> Any:
        import wandb

        directory = self._directory
        artifact = wandb.Artifact(f"study-{directory.name}", type="study")
        for path in (directory.best_yaml, directory.report_html, directory.trials_csv, directory.study_yaml):
            if path.exists():
                artifact.add_file(str(path))
        return artifact

    def _study_config(self) -> Row:
        config = self._config
        names = ("workload", "batch_size", "max_steps", "report_every", "num_trials", "seed")
        metric = {"metric": config.metric.name, "goal": config.metric.goal}
        optimizer = {"optimizer": config.optimizer.name, **config.optimizer.args}
        return {name: getattr(config, name) for name in names} | metric | optimizer

    def _run_config(self, trial: TrialSpec) -> Row:
        config = self._config
        shared = {"phase": trial.phase, "number": trial.number, "seed": trial.seed, "max_steps": trial.max_steps}
        arguments = whole_optimizer({"name": config.optimizer.name, **config.optimizer.args}, trial.optimizer)
        optimizer = {"optimizer": arguments.pop("name"), **arguments}
        if trial.phase == "range_test":
            assert trial.ramp is not None
            ramp = {"range_test.low": trial.ramp.low, "range_test.high": trial.ramp.high}
            return {**shared, **optimizer, **ramp, **trial.qualified_parameters()}
        schedule = {"lr": trial.lr, "lr_schedule": trial.lr_schedule or RAMP, **trial.qualified_parameters()}
        return {**shared, **optimizer, **schedule, **({"label": trial.label} if trial.label else {})}

    @property
    def _summary_id(self) -> str:
        return f"{self._study_id}-summary"

    def _uploaded(self, row: TrialRow) -> Uploaded:
        return Uploaded(run_id(self._study_id, row.number), row.state, row.steps)

    def _summary(self, rows: Sequence[TrialRow]) -> Uploaded:
        return Uploaded(self._summary_id, "summary", len(rows))

    def _remember(self, run: Uploaded) -> None:
        if self.mode == "online":
            self._uploads.add(run)
