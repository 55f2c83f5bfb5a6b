"""Weights & Biases: one run a trial, written by a process of its own, and one run that sums the study up.

The study directory is the record; this is a copy for people to look at. So it never waits, never raises, and what it
cannot deliver is said once, at the end, with the line that delivers it: `sync` makes the runs from the study directory,
whatever became of them before. Group = study, job_type = phase.
"""

import base64
import configparser
import http.client
import json
import math
import netrc
import os
import pickle
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, cast
from urllib.parse import urlparse

from tune_lr.config.models import Config
from tune_lr.errors import InputError, ResourceError, TuneLRError, one_line
from tune_lr.lr.bounds import LRBounds
from tune_lr.lr.ramp import Ramp
from tune_lr.records.parameters import BATCH_SIZE, setting, short_name, split_parameters, whole_optimizer
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.study_dir import StudyDir

# In all, W&B may hold up a study for less than 30 s: its key is asked about before it starts, and the end waits.
ASK_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 20.0
RUN_TIMEOUT_S = 8.0  # for a run to begin, or to be delivered after its end
# A run has every point up to this many steps. Beyond, it is thinned to about as many: see Thinner.
MAX_POINTS = 5_000
UPLOADED = "uploaded.jsonl"  # in the study's wandb/: the runs that a server has taken whole
KEPT_OFFLINE = "runs were kept offline"
STOPPED = "stopped in Weights & Biases"

Mode = Literal["online", "offline", "disabled"]
Row = dict[str, Any]  # what is logged at one step

os.environ.setdefault("WANDB_SILENT", "true")  # with it, a server that refuses is noticed in 2 s instead of 12
# Figures about itself that wandb takes at each call of `log`: a quarter of what the call costs.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


# --- the server and the key -------------------------------------------------------------------------------------


def server_url() -> str:
    """Where W&B is, as wandb finds it: the environment, then `wandb login --host`, then the public server."""
    settings = configparser.ConfigParser(interpolation=None)
    folder = os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")
    with suppress(configparser.Error, UnicodeDecodeError):
        settings.read(os.path.expanduser(os.path.join(folder, "settings")))
    chosen = os.environ.get("WANDB_BASE_URL") or settings.get("default", "base_url", fallback="")
    return (chosen or "https://api.wandb.ai").rstrip("/")


def find_key() -> str | None:
    """The W&B key that is configured, as far as can be told without importing wandb."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    # Given a path, Python leaves out a check of the file's mode that wandb does not make either.
    for path in filter(None, (os.environ.get("NETRC"), "~/.netrc", "~/_netrc")):
        with suppress(OSError, netrc.NetrcParseError):
            login = netrc.netrc(os.path.expanduser(path)).authenticators(urlparse(server_url()).netloc)
            return login[2] if login else None
    return None


def has_key() -> bool:
    return find_key() is not None


def choose_mode(asked: str | None) -> Mode:
    """online, offline or disabled. Raises InputError where online was asked for and there is no key, or a wrong one."""
    if asked == "online":
        if not has_key():
            raise InputError(
                "--wandb: online needs a key and none is configured; set WANDB_API_KEY, or use --wandb offline"
            )
        with suppress(ResourceError):  # it may answer later; until then, nothing is lost
            check_server("--wandb", "or use --wandb offline")
    if asked in ("offline", "disabled"):
        return cast("Mode", asked)
    return "online" if has_key() else "offline"


def check_server(what: str, otherwise: str) -> None:
    """Asks the server whether it knows the key, for `ASK_TIMEOUT_S` at most.

    Raises InputError where there is no key or the server refuses it, ResourceError where there is no answer.
    `what` begins the message; `otherwise` is what else can be done.
    """
    key, url = find_key(), server_url()
    if key is None:
        raise InputError(f"{what}: needs a W&B key and none is configured; set WANDB_API_KEY, {otherwise}")
    request = urllib.request.Request(
        f"{url}/graphql",
        data=json.dumps({"query": "query Viewer { viewer { id } }"}).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": "Basic " + base64.b64encode(f"api:{key}".encode()).decode(),
        },
    )
    refused = InputError(f"{what}: {url} refuses the key that is configured; set another WANDB_API_KEY, {otherwise}")
    try:
        with urllib.request.urlopen(request, timeout=ASK_TIMEOUT_S) as response:
            answer = json.load(response)
        known = answer["data"]["viewer"] is not None
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            raise refused from None
        raise ResourceError(f"{what}: {url} answers with HTTP {error.code}; try again later, {otherwise}") from None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        why = one_line(getattr(error, "reason", error)) or type(error).__name__
        raise ResourceError(f"{what}: {url} gives no answer ({why}); try again later, {otherwise}") from None
    if not known:
        raise refused


def default_entity() -> str:
    """Under whose name the server keeps the runs of this key. To be asked after `check_server`."""
    import wandb

    return str(wandb.Api(timeout=round(RUN_TIMEOUT_S)).default_entity)


# --- runs -------------------------------------------------------------------------------------------------------


def run_id(study_id: str, number: int) -> str:
    return f"{study_id}-{number:04d}"


def run_name(trial: TrialSpec) -> str:
    drawn = "ramp" if trial.phase == "range_test" else f"{trial.lr_schedule} lr={trial.lr:.3g}"
    beside = setting(trial.qualified_parameters())
    return f"{trial.label[:100] or ', '.join(filter(None, [drawn, beside]))} #{trial.number}"


def x_axis(config: Config) -> str:
    """Over which curves are comparable: steps are not where batch sizes differ."""
    return "train/samples" if config.parameters.batch_size else "train/step"


class Thinner:
    """Bounds the points of a very long run, honestly: points of the curve itself, never means of them.

    Up to `MAX_POINTS` steps nothing is left out. Beyond, the steps are cut into stretches of equal length, and of each
    stretch stay the point with the lowest and the one with the highest loss, every validation and every loss that is
    not finite; so do the curve's first and last point. Rows come out in their order, a stretch late.
    """

    def __init__(self, max_steps: int, step: str, loss: str) -> None:
        self._every = 1 if max_steps <= MAX_POINTS else math.ceil(max_steps / (MAX_POINTS // 2))
        self._step, self._loss = step, loss
        self._stretch: list[Row] = []

    def add(self, rows: Iterable[Row]) -> Iterator[Row]:
        """What can be logged now that `rows` are there."""
        if self._every == 1:
            yield from rows
            return
        for row in rows:
            if row[self._step] == 1:
                yield row
                continue
            if self._stretch and row[self._step] // self._every != self._stretch[-1][self._step] // self._every:
                yield from self._take()
            self._stretch.append(row)

    def end(self) -> Iterator[Row]:
        """What is left."""
        last = self._stretch[-1:]
        rows = self._take()
        yield from rows
        if rows[-1:] != last:
            yield from last

    def _take(self) -> list[Row]:
        rows, self._stretch = self._stretch, []
        losses = [row[self._loss] for row in rows]
        finite = [loss for loss in losses if math.isfinite(loss)]
        extremes = {losses.index(pick(finite)) for pick in (min, max) if finite}
        return [
            row
            for i, (row, loss) in enumerate(zip(rows, losses, strict=True))
            if i in extremes or not math.isfinite(loss) or any(name.startswith("val/") for name in row)
        ]


class Runs:
    """Makes a study's runs, in this thread. Whatever goes wrong is raised as wandb raises it.

    `folder` is where wandb makes its own folder; the study directory, if it is not said otherwise. `stop` is called, in
    a thread of wandb's, with the number of a trial whose run somebody stops in W&B.
    """

    def __init__(
        self,
        config: Config,
        directory: StudyDir,
        study_id: str,
        mode: Mode,
        *,
        folder: Path | None = None,
        stop: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.mode: Mode = mode
        self._config, self._directory, self._study_id = config, directory, study_id
        self._folder, self._stop = folder or directory.root, stop
        self._open: dict[int, tuple[Any, Thinner]] = {}
        self._left: set[int] = set()

    def start(self, trial: TrialSpec) -> None:
        ident = run_id(self._study_id, trial.number)
        self._forget(trial.number, ident)
        tags = [trial.phase, *([trial.lr_schedule] if trial.lr_schedule else []), *(["fixed"] if trial.label else [])]
        run = self._init(
            id=ident,
            name=run_name(trial),
            job_type=trial.phase,
            tags=tags,
            config=self._run_config(trial),
            stop=lambda: self._stop(trial.number),  # a function: wandb copies its settings deeply
        )
        ramp = trial.phase == "range_test"
        x = "range/lr" if ramp else x_axis(self._config)
        for axis in {x} if ramp else {x, "train/step"}:
            run.define_metric(axis, hidden=True)
        for group in ("range",) if ramp else ("train", "val"):
            run.define_metric(f"{group}/*", step_metric=x)
        thinner = Thinner(trial.max_steps, *(("range/step", "range/loss") if ramp else ("train/step", "train/loss")))
        self._open[trial.number] = run, thinner

    def log(self, number: int, rows: Iterable[Row]) -> None:
        if number in self._left:
            return
        run, thinner = self._open[number]
        for row in thinner.add(rows):
            run.log(row)

    def finish(self, row: TrialRow) -> None:
        """Ends the run and waits until it is on the server, or on disk. Raises TimeoutError where that takes long."""
        if row.number in self._left:
            return
        run, thinner = self._open.pop(row.number)
        for rest in thinner.end():
            run.log(rest)
        run.tags = (*run.tags, row.state)
        summary: Row = {"state": row.state, "steps": row.steps, "duration_s": row.duration_s}
        if row.state == "diverged":  # its last validation is of a time before that, and no result
            summary |= {"diverged": True, "diverged_at": row.steps}
        else:
            summary |= {name: value for name, value in row.metrics.items() if math.isfinite(value)}
        run.summary.update(summary | ({"reason": row.reason} if row.reason else {}))
        run.finish(exit_code=1 if row.state == "failed" else 0)
        self._remember(run_id(self._study_id, row.number), row.state, row.steps)

    def summarize(self, rows: Sequence[TrialRow]) -> None:
        """One run that sums the study up, made anew from what stands in the study directory."""
        import wandb

        directory = self._directory
        bounds = directory.read_json(directory.bounds_json) if directory.bounds_json.exists() else {}
        best = directory.read_yaml(directory.best_yaml) if directory.best_yaml.exists() else {}
        run = self._init(
            id=self._summary_id,
            name=f"{directory.name} summary",
            job_type="summary",
            tags=["summary"],
            config=self._study_config(),
            stop=lambda: None,
        )
        try:
            run.summary.update(_summary_of(rows, bounds, best))
            metric, goal = self._config.metric.name, self._config.metric.goal
            leaderboard = _leaderboard(rows, metric, goal)
            logged: Row = {"leaderboard": _table(leaderboard), "best_of_family": _table(_best_of_family(leaderboard))}
            if directory.range_test_png.exists():
                logged["range_test"] = wandb.Image(str(directory.range_test_png), caption=bounds.get("reason") or "")
            run.log(logged)
            artifact = wandb.Artifact(f"study-{directory.name}", type="study")
            for path in (directory.best_yaml, directory.report_html, directory.trials_csv, directory.study_yaml):
                if path.exists():
                    artifact.add_file(str(path))
            run.log_artifact(artifact)
        finally:
            run.finish()
        self._remember(self._summary_id, "summary", len(rows))

    def missing(self, rows: Sequence[TrialRow]) -> list[TrialRow]:
        """The trials that have ended and whose runs this server has not taken whole."""
        there = set(self._remembered())
        return [row for row in rows if (run_id(self._study_id, row.number), row.state, row.steps) not in there]

    def has_summary(self, rows: Sequence[TrialRow]) -> bool:
        return (self._summary_id, "summary", len(rows)) in set(self._remembered())

    def go_offline(self) -> None:
        """From here on. Runs that have begun are left as they are. W&B's service holds on to the id of a run that
        failed to start, and to whatever it could not deliver, and is ended."""
        import wandb

        self.mode = "offline"
        self._left |= set(self._open)
        self._end_all()
        wandb.teardown()

    def close(self) -> None:
        """Ends what is still open."""
        import wandb

        self._end_all()
        wandb.teardown()

    def _end_all(self) -> None:
        """Ends the runs whose trials have not; all at once, since each may wait for `RUN_TIMEOUT_S`."""

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
        self._left.discard(number)
        run, _ = self._open.pop(number, (None, None))
        if run is not None:
            run.finish(exit_code=1)
        for stale in (self._folder / "wandb").glob(f"*run-*-{ident}"):
            shutil.rmtree(stale, ignore_errors=True)

    def _study_config(self) -> Row:
        config = self._config
        names = ("workload", "batch_size", "max_steps", "report_every", "num_trials", "seed")
        metric = {"metric": config.metric.name, "goal": config.metric.goal}
        optimizer = {"optimizer": config.optimizer.name, **config.optimizer.args}
        return {name: getattr(config, name) for name in names} | metric | optimizer

    def _run_config(self, trial: TrialSpec) -> Row:
        config = self._config
        shared = {"phase": trial.phase, "number": trial.number, "seed": trial.seed, "max_steps": trial.max_steps}
        optimizer = whole_optimizer({"name": config.optimizer.name, **config.optimizer.args}, trial.optimizer)
        optimizer = {"optimizer": optimizer.pop("name"), **optimizer}
        if trial.phase == "range_test":
            assert trial.ramp is not None
            ramp = {"range_test.low": trial.ramp.low, "range_test.high": trial.ramp.high}
            return {**shared, **optimizer, **ramp, **trial.qualified_parameters()}
        schedule = {"lr": trial.lr, "lr_schedule": trial.lr_schedule or "ramp", **trial.qualified_parameters()}
        return {**shared, **optimizer, **schedule, **({"label": trial.label} if trial.label else {})}

    @property
    def _summary_id(self) -> str:
        return f"{self._study_id}-summary"

    def _remember(self, ident: str, state: str, steps: int) -> None:
        """Writes down that the server has the run."""
        if self.mode != "online":
            return
        entry = {"server": server_url(), "run": ident, "state": state, "steps": steps}
        with open(self._directory.wandb / UPLOADED, "a") as file:
            file.write(json.dumps(entry) + "\n")

    def _remembered(self) -> Iterator[tuple[str, str, int]]:
        """Of each run that this server has: its id, and the state and the steps of its trial."""
        with suppress(FileNotFoundError):
            for line in (self._directory.wandb / UPLOADED).read_text().splitlines():
                with suppress(ValueError, KeyError):  # cut short by a kill: that run is sent again
                    entry = json.loads(line)
                    if entry["server"] == server_url():
                        yield entry["run"], entry["state"], entry["steps"]


def report_rows(trial: TrialSpec, report: Report) -> list[Row]:
    """What is logged of a report: a row a step."""
    if trial.phase == "range_test":
        return [{"range/lr": lr, "range/step": step, "range/loss": loss} for step, lr, loss in report.points]
    rows = [_row(trial, step, lr, loss) for step, lr, loss in report.points]
    if rows and rows[-1]["train/step"] == report.step:
        rows[-1] |= {f"val/{name.removeprefix('val_')}": value for name, value in report.metrics.items()}
    return rows


def _row(trial: TrialSpec, step: int, lr: float, loss: float) -> Row:
    row: Row = {"train/step": step, "train/lr": lr, "train/loss": loss}
    return {**row, "train/samples": step * trial.batch_size} if trial.batch_size else row


def curve_rows(trial: TrialSpec, curve: Mapping[str, Sequence[float]]) -> list[Row]:
    """The same rows, from a curve on disk."""
    steps = [int(step) for step in curve["step"]]
    if "loss" in curve:
        points = zip(curve["lr"], steps, curve["loss"], strict=True)
        return [{"range/lr": lr, "range/step": step, "range/loss": loss} for lr, step, loss in points]
    metrics = [name for name in curve if name.startswith("val_")]
    rows = []
    for i, step in enumerate(steps):
        row = _row(trial, step, curve["lr"][i], curve["train_loss"][i])
        measured = {name: curve[name][i] for name in metrics if not math.isnan(curve[name][i])}
        rows.append(row | {f"val/{name.removeprefix('val_')}": value for name, value in measured.items()})
    return rows


# --- while a study runs -----------------------------------------------------------------------------------------


class WandbTracker:
    """An Observer that reports every curve. `close` it at the end; then `trouble` says what went wrong, if anything.

    `stop_trial`, where it is set, is called with a trial's number and a reason when somebody stops its run in W&B.
    """

    def __init__(self, config: Config, directory: StudyDir, study_id: str, mode: Mode) -> None:
        self.trouble = ""
        self.stop_trial: Callable[[int, str], None] | None = None
        self._directory = directory
        self._runs = Runs(config, directory, study_id, mode, stop=self._stop)
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    @property
    def mode(self) -> Mode:
        return self._runs.mode

    def trial_started(self, trial: TrialSpec) -> None:
        self._events.put(lambda: self._start(trial))

    def trial_reported(self, trial: TrialSpec, report: Report) -> None:
        self._events.put(lambda: self._runs.log(trial.number, report_rows(trial, report)))

    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
        self._events.put(lambda: self._runs.finish(row))

    def phase_started(self, phase: str, trials: int) -> None: ...

    def bounds_found(self, bounds: LRBounds, combination: str = "") -> None: ...

    def notice(self, text: str) -> None: ...

    def study_ended(self, rows: Sequence[TrialRow]) -> None:
        """To be called when the derived files are written: sums the study up, where there is a server to do so on."""
        self._events.put(lambda: self._summarize(rows))

    def close(self) -> None:
        """Waits until everything is delivered, or on disk, for at most `CLOSE_TIMEOUT_S`."""
        self._events.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self._note(f"no answer within {CLOSE_TIMEOUT_S:.0f} s")

    @property
    def sync_command(self) -> str:
        return f"tune-lr sync {self._directory.root}"

    def _work(self) -> None:
        # Now, not with the first trial: it is quicker while few modules are loaded, and no worker is starting yet.
        import wandb  # noqa: F401

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


class WandbProcess:
    """A WandbTracker in a process of its own, to be used alike: in the driver's, it took a third of its CPU time.

    A driver that is killed loses nothing of what it has told: the process then ends its runs and itself.
    """

    def __init__(self, config: Config, directory: StudyDir, study_id: str, mode: Mode) -> None:
        self.mode, self.trouble = mode, ""
        self.stop_trial: Callable[[int, str], None] | None = None
        self._directory = directory
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._events.put((config, directory, study_id, mode))
        self._ended = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from tune_lr.tracking.tracking import serve; serve()"],
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
        self._events.put(("trial_started", trial))

    def trial_reported(self, trial: TrialSpec, report: Report) -> None:
        self._events.put(("trial_reported", trial, report))

    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
        self._events.put(("trial_ended", trial, row))

    def phase_started(self, phase: str, trials: int) -> None: ...

    def bounds_found(self, bounds: LRBounds, combination: str = "") -> None: ...

    def notice(self, text: str) -> None: ...

    def study_ended(self, rows: Sequence[TrialRow]) -> None:
        self._events.put(("study_ended", rows))

    def close(self) -> None:
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

    @property
    def sync_command(self) -> str:
        return f"tune-lr sync {self._directory.root}"

    def _send(self) -> None:
        """What is told, to the process: a thread, since a study does not wait for a pipe."""
        pipe, event = cast("IO[bytes]", self._process.stdin), object()
        while event is not None:
            event = self._events.get()
            with suppress(OSError):  # it has gone; _receive says so
                pickle.dump(event, pipe)
                pipe.flush()

    def _receive(self) -> None:
        """What the process tells: runs that somebody stops, and at last how it went."""
        try:
            while (told := pickle.load(cast("IO[bytes]", self._process.stdout)))[0] == "stop":
                if self.stop_trial is not None:
                    self.stop_trial(*told[1:])
            _, self.mode, self.trouble = told
        except (OSError, EOFError, pickle.UnpicklingError):
            self.trouble = "its process has ended before the study"
        self._ended.set()


def serve() -> None:
    """The other end of a WandbProcess."""
    os.nice(10)  # training comes first
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed is no answer
    writing = threading.Lock()

    def tell(*what: Any) -> None:
        with writing, suppress(OSError):  # the driver has gone
            pickle.dump(what, answers)
            answers.flush()

    tracker = WandbTracker(*pickle.load(sys.stdin.buffer))
    tracker.stop_trial = partial(tell, "stop")
    with suppress(EOFError):  # the driver has gone
        while (event := pickle.load(sys.stdin.buffer)) is not None:
            getattr(tracker, event[0])(*event[1:])
    tracker.close()
    tell("ended", tracker.mode, tracker.trouble)


# --- afterwards -------------------------------------------------------------------------------------------------


def sync(
    config: Config, directory: StudyDir, study_id: str, rows: Sequence[TrialRow], told: Callable[[str], None]
) -> int:
    """Makes the runs that the server has not, from the study directory, and sums the study up; returns their number.

    `told` is given each run's name as it arrives. Interrupted, it goes on where it stopped: what has arrived is written
    down. Raises InputError and ResourceError.
    """
    otherwise = "and run this line again"
    check_server("sync", otherwise)
    directory.wandb.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tune-lr-") as scratch:
        runs = Runs(config, directory, study_id, "online", folder=Path(scratch))
        missing = runs.missing(rows)
        try:
            for row in missing:
                trial, curve = _read_trial(config, directory, row)
                runs.start(trial)
                runs.log(row.number, curve)
                runs.finish(row)
                told(run_name(trial))
            if missing or not runs.has_summary(rows):
                runs.summarize(rows)
        except Exception as error:  # wandb has many
            what = f"{type(error).__name__}: {one_line(error)}"
            raise ResourceError(f"sync: {server_url()} did not take everything ({what}); {otherwise}") from None
        finally:
            with suppress(Exception):
                runs.close()
    return len(missing)


def _read_trial(config: Config, directory: StudyDir, row: TrialRow) -> tuple[TrialSpec, list[Row]]:
    """What was trained, and its curve, as they stand in the study directory."""
    path = directory.range_curve(row.number) if row.phase == "range_test" else directory.curve(row.number)
    curve = directory.read_curve(path) if path.exists() else {}  # one that failed at once has none
    if row.phase != "range_test":
        trial = TrialSpec.from_dict(directory.read_json(directory.trial(row.number) / "params.json"))
        return trial, curve_rows(trial, curve) if curve else []
    how = config.range_test
    # A ramp that was extended begins or ends elsewhere than the configuration's.
    lrs = curve["lr"] if curve else []
    ramp = Ramp(how.low, how.high, how.steps, how.mode, how.stairs).over(lrs[0] if lrs else how.low, row.lr)
    trial = TrialSpec(row.number, row.phase, row.seed, ramp.steps, ramp=ramp)
    optimizer, batch_size = split_parameters(row.parameters)[1], row.parameters.get(BATCH_SIZE)
    trial = replace(trial, optimizer=optimizer, batch_size=batch_size)
    return trial, curve_rows(trial, curve) if curve else []


# --- the run that sums a study up -------------------------------------------------------------------------------


def _leaderboard(rows: Sequence[TrialRow], metric: str, goal: str) -> list[TrialRow]:
    """Search and confirmation, what was completed first and the best of it first."""
    sign = -1.0 if goal == "maximize" else 1.0
    states = ("complete", "pruned", "diverged", "failed")
    trained = [row for row in rows if row.phase != "range_test"]
    return sorted(
        trained, key=lambda row: (states.index(row.state), sign * row.metrics.get(metric, sign * math.inf), row.number)
    )


def _best_of_family(leaderboard: Sequence[TrialRow]) -> list[TrialRow]:
    """The best search trial of each LR schedule."""
    best: dict[str, TrialRow] = {}
    for row in leaderboard:
        if row.phase == "search" and row.state in ("complete", "pruned"):
            best.setdefault(row.lr_schedule, row)
    return list(best.values())


def _table(rows: Sequence[TrialRow]) -> Any:
    import wandb

    metrics = sorted({name for row in rows for name in row.metrics}, key=lambda name: (name != "val_loss", name))
    columns: list[str | int] = ["trial", "lr_schedule", "lr", "parameters", "phase", "state"]
    columns += [*metrics, "steps", "seed", "duration_s"]
    data = []
    for row in rows:
        parameters = " ".join(f"{short_name(name)}={value}" for name, value in row.parameters.items())
        figures = [row.metrics.get(name) for name in metrics]
        data.append(
            [row.number, row.lr_schedule, row.lr, parameters, row.phase, row.state, *figures, row.steps, row.seed,
             row.duration_s]
        )  # fmt: skip
    return wandb.Table(columns=columns, data=data, allow_mixed_types=True)


def _summary_of(rows: Sequence[TrialRow], bounds: Mapping[str, Any], best: Mapping[str, Any]) -> Row:
    counts = {f"trials/{state}": sum(row.state == state for row in rows) for state in {row.state for row in rows}}
    found = {f"bounds/{name}": bounds.get(name) for name in ("low", "high", "suggestion", "status")} if bounds else {}
    for one in bounds.get("combinations", []):
        where = f"bounds/{one['optimizer']} {one['batch_size']}"
        found |= {f"{where}/{name}": one[name] for name in ("low", "high", "suggestion", "status")}
    names = ("lr_schedule", "lr", "mean", "interval", "verdict", "code")
    answer = {f"best/{name}": best[name] for name in names if name in best}
    return counts | found | answer
