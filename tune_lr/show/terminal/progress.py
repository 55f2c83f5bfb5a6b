"""The progress of a running study: one live screen in a terminal, plain lines anywhere else."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune_lr.config.hardware import Hardware
from tune_lr.config.model import Config
from tune_lr.config.plan import Plan
from tune_lr.lr.bounds import LRBounds
from tune_lr.records.observer import Observer
from tune_lr.records.parameters import setting
from tune_lr.records.phases import PHASES
from tune_lr.records.row import TrialRow, rank_search
from tune_lr.records.steps import steps_weight
from tune_lr.records.time_left import PhaseLeft, seconds_left, steps_left, usual_steps
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.show.terminal.words import TITLES, count_text, duration_text, expected_text, plain_table, sparkline

if TYPE_CHECKING:
    from tune_lr.records.predicted_curve import PredictedCurve

LEADERS = 5  # search trials that the live screen shows
_NOUNS = {"range_test": "ramp", "search": "trial", "confirm": "trial"}


class Progress(Observer):
    """Shows the phases, the time left and the leaders, and every trial that ends.

    Steps are counted with the study's own batch size. `spent_s` and `spent_steps` are what drivers before this one
    have spent; whoever runs the study sets them.
    """

    def __init__(self, console: Console, config: Config, plan: Plan) -> None:
        self.spent_s = 0.0
        self.spent_steps = 0
        self._console = console
        self._live: Live | None = None
        self._lock = threading.Lock()  # rich draws from a thread of its own
        self._plan = plan
        self._metric = config.metric
        self._batch_size = config.batch_size
        self._gpus_per_worker = config.scaling.gpus_per_worker
        self._slots = 1
        self._started = time.monotonic()
        # What this driver's trials have taken together.
        self._seconds = 0.0
        self._steps = 0.0
        # The phase that runs; "" while the workers start.
        self._phase = ""
        self._total = 0  # 0 where the budget decides
        self._steps_of_ended: list[float] = []
        # Trials of all phases.
        self._rows: list[TrialRow] = []
        self._curves: dict[int, list[float]] = {}
        # What short trials predict of a trial's curve: where that is read, and what was read, by number.
        self.read_predicted_curve: Callable[[int], PredictedCurve | None] = lambda _: None
        self._predicted_curves: dict[int, PredictedCurve] = {}
        self._running: dict[int, tuple[TrialSpec, int]] = {}  # with the step that each has reached

    def __enter__(self) -> "Progress":
        if self._console.is_interactive:
            self._live = Live(get_renderable=self._screen, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def cluster_joined(self, slots: int, hardware: Hardware) -> None:
        """Print what the study runs on, and what is odd about it."""
        self._slots = slots
        declared = f"{hardware.nodes} node(s) with {hardware.cpus:g} CPUs and {hardware.gpus:g} GPUs"
        self._console.print(f"{slots} slot(s) on {declared}", highlight=False)
        if not slots:
            self.notice("no node has room for a trial now; the study waits for one")
        if hardware.gpus and not self._gpus_per_worker:
            self.notice("the cluster has GPUs and none is used; see --gpus-per-worker")

    # --- Observer -------------------------------------------------------------------------------------------

    def phase_started(self, phase: str, trials: int) -> None:
        """Print the phase; its trials are counted from now on. A phase may be started again with more trials."""
        with self._lock:
            if phase != self._phase:
                self._steps_of_ended = []
            self._phase = phase
            self._total = trials
        trials_text = count_text(trials, _NOUNS[phase]) if trials else "as many trials as the budget buys"
        self._console.print(f"[bold]{TITLES[phase]}[/]: {trials_text}")

    def trial_started(self, trial: TrialSpec) -> None:
        """Show the trial among those that run."""
        with self._lock:
            self._running[trial.number] = (trial, 0)
            self._curves[trial.number] = []
            predicted_curve = self.read_predicted_curve(trial.number)
            if predicted_curve is not None:
                self._predicted_curves[trial.number] = predicted_curve

    def trial_reported(self, trial: TrialSpec, report: Report) -> None:
        """Count the steps that the trial has made, and prolong its curve."""
        with self._lock:
            _, before = self._running.get(trial.number, (trial, 0))
            self._running[trial.number] = (trial, report.step)
            self._seconds += report.seconds
            self._steps += self._comparable(trial, max(0, report.step - before))
            if self._metric.name in report.metrics:
                self._curves.setdefault(trial.number, []).append(report.metrics[self._metric.name])

    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
        """Print the trial; on a live screen only where it is the new leader."""
        with self._lock:
            self._running.pop(trial.number, None)
            self._steps_of_ended.append(self._comparable(trial, row.steps))
            self._rows.append(row)
            leaders = self._leaders()
            total = f"/{self._total}" if self._total else ""
            description = self._describe(trial, row)
            line = f"  {len(self._steps_of_ended):>3}{total} {description}"
        if self._live is None:
            left = self._time_left()
            line += f"  [{left} left]" if left else ""
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif leaders and leaders[0].number == row.number:
            self._console.print(f"  new leader: {description}", markup=False, highlight=False)

    def bounds_found(self, bounds: LRBounds, combination: str = "") -> None:
        """Print the bounds, or that there are none, and why."""
        subject = f" of {escape(combination)}" if combination else ""
        if bounds.status == "ok":
            low, high = f"{bounds.low:.3g}", f"{bounds.high:.3g}"
            text = f"[bold]LR bounds{subject}: {low} to {high}[/], suggestion {bounds.suggestion:.3g}"
        else:
            text = f"[bold yellow]no LR bounds{subject}[/] ({bounds.status})"
        self._console.print(f"{text}\n  {escape(bounds.reason)}", highlight=False)

    def notice(self, text: str) -> None:
        """Print a note, in one line where it is not for a screen: logs are searched by lines."""
        self._console.print(Text(f"note: {text}", style="yellow"), soft_wrap=self._live is None)

    # --- figures --------------------------------------------------------------------------------------------

    def _comparable(self, trial: TrialSpec, steps: int) -> float:
        """Return as how many steps with the study's own batch size a trial's steps count."""
        return steps * steps_weight(trial.batch_size, self._batch_size)

    def _leaders(self) -> list[TrialRow]:
        return rank_search(self._rows, self._metric.name, self._metric.goal)[:LEADERS]

    def _time_left(self) -> str:
        """Return the time left in words; "" while nothing is known of it."""
        if not self._steps or not self._phase:
            return ""
        budget = self._plan.budget
        if budget is not None and budget.seconds is not None:
            elapsed = time.monotonic() - self._started
            return duration_text(max(0.0, budget.seconds - self.spent_s - elapsed))
        if budget is not None and self._phase != "confirm":
            steps = self._plan.steps - self.spent_steps - self._steps
        else:
            steps = steps_left(self._phases_left())
        return duration_text(seconds_left(steps, self._seconds, self._steps, self._slots))

    def _phases_left(self) -> list[PhaseLeft]:
        """Return what is left of this phase and of those that follow it."""
        plan = self._plan
        trials = {"search": plan.trials, "confirm": plan.confirmations}
        full = {"range_test": plan.ramp_steps, "search": plan.trial_steps}.get(self._phase, plan.max_steps)
        running = sum(self._comparable(trial, step) for trial, step in self._running.values())
        to_come = self._total - len(self._steps_of_ended)
        later = PHASES[PHASES.index(self._phase) + 1 :]
        return [
            PhaseLeft(to_come, usual_steps(self._steps_of_ended, full), running),
            *(PhaseLeft(trials[phase], plan.max_steps) for phase in later),
        ]

    def _share_done(self) -> float:
        """Return the share of the phase that is over; of the budget, where that decides how many trials there are."""
        budget = self._plan.budget
        if self._total or budget is None:
            return len(self._steps_of_ended) / max(1, self._total)
        if budget.seconds is not None:
            return min(1.0, (self.spent_s + time.monotonic() - self._started) / budget.seconds)
        return min(1.0, (self.spent_steps + self._steps) / max(1, self._plan.steps))

    # --- drawing --------------------------------------------------------------------------------------------

    def _describe(self, trial: TrialSpec, row: TrialRow) -> str:
        """Return a trial that has ended in one line."""
        configuration = "ramp" if trial.ramp else f"{trial.lr_schedule:<12} lr {trial.lr:<9.3g}"
        searched = setting(trial.qualified_parameters())
        if trial.label:
            configuration = f"{trial.label:<25}"
        elif searched:
            configuration += f" {searched:<18}"
        metric = self._metric.name
        figure = f"{metric} {row.metrics[metric]:.4g}" if metric in row.metrics else ""
        state = "" if row.state == "complete" and not trial.ramp else f" {row.state}"
        reason = f" ({row.reason})" if row.state == "failed" else ""
        return f"#{row.number:<4}{configuration} {row.steps:>5} steps  {figure}{state}{reason}".rstrip()

    def _screen(self) -> RenderableType:
        """Return the live screen: the leaders, the trials that run, and how far the phase is."""
        with self._lock:
            if not self._phase:
                return Text(f"starting workers … {time.monotonic() - self._started:.0f} s", style="dim")
            leaders = self._leaders() if self._phase != "range_test" else []
            return Group(
                *([self._leaders_table(leaders)] if leaders else []),
                *(self._running_line(trial, step) for trial, step in self._running.values()),
                self._bar(),
            )

    def _leaders_table(self, leaders: Sequence[TrialRow]) -> Table:
        table = plain_table()
        table.add_column("#", justify="right")
        table.add_column("LR schedule")
        table.add_column("lr", justify="right")
        table.add_column(self._metric.name, justify="right")
        table.add_column("")
        table.add_column("")
        for row in leaders:
            table.add_row(
                str(row.number),
                row.lr_schedule,
                f"{row.lr:.3g}",
                f"{row.metrics[self._metric.name]:.4g}",
                sparkline(self._curves.get(row.number, [])),
                escape(setting(row.parameters)),
            )
        return table

    def _running_line(self, trial: TrialSpec, step: int) -> Text:
        configuration = "ramp" if trial.ramp else f"{trial.lr_schedule} lr {trial.lr:.3g}"
        name = trial.label or f"{configuration} {setting(trial.qualified_parameters())}".rstrip()
        curve = sparkline(self._curves.get(trial.number, []))
        line = f"  #{trial.number:<4}{name:<28} {step:>5}/{trial.max_steps} {curve}"
        predicted_curve = self._predicted_curves.get(trial.number)
        expected = predicted_curve.at(step) if predicted_curve else None
        values = self._curves.get(trial.number, [])
        if expected is not None and values:
            line += f" {values[-1]:.4g}, predicted {expected_text(expected)}"
        return Text(line, style="dim")

    def _bar(self) -> Table:
        bar = Table.grid(padding=(0, 2, 0, 0))
        left = self._time_left()
        waiting = f"workers start, {time.monotonic() - self._started:.0f} s"
        counted = bool(self._total) or self._plan.budget is None
        noun = f"{_NOUNS[self._phase]}{'' if self._total == 1 else 's'}"
        bar.add_row(
            Text(TITLES[self._phase], style="bold"),
            ProgressBar(total=1.0, completed=self._share_done(), width=30),
            f"{len(self._steps_of_ended)}{f'/{self._total}' if counted else ''} {noun}",
            (f"{left} left" if left else "") if self._steps else waiting,
        )
        return bar
