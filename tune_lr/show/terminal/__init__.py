"""What a person sees while a study runs: one live screen in a terminal, plain lines anywhere else."""

import math
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune_lr.config.budget import SECONDS
from tune_lr.config.hardware import Hardware, Node
from tune_lr.config.model import UNLIMITED, Config
from tune_lr.config.optimizers import range_test_caveat
from tune_lr.config.plan import Plan, planned_confirmation
from tune_lr.config.training import Scaling
from tune_lr.lr.bounds import LRBounds
from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.lr.spec import ScheduleSpec
from tune_lr.records.answer import Answer
from tune_lr.records.observer import Observer
from tune_lr.records.outcome import Outcome, Spending
from tune_lr.records.parameters import setting
from tune_lr.records.row import TrialRow, rank_search
from tune_lr.records.status import Status
from tune_lr.records.steps import steps_weight
from tune_lr.records.time_left import PhaseLeft, seconds_left, steps_left, usual_steps
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.study_dir import StudyDir

LEADERS, LEADERS_REPORTED = 5, 10
TITLES = {"range_test": "LR range test", "search": "search", "confirm": "confirm"}
UNITS = {"range_test": "ramp", "search": "trial", "confirm": "trial"}
SPARKS = "▁▂▃▄▅▆▇█"


class Progress(Observer):
    """An Observer that shows the phases, the time left and the leaders."""

    def __init__(self, console: Console, config: Config, plan: Plan) -> None:
        self._console, self._plan = console, plan
        self._metric, self._sign = config.metric.name, -1.0 if config.metric.goal == "maximize" else 1.0
        self._batch_size = config.batch_size
        self._full_steps = {"range_test": plan.ramp_steps, "search": plan.max_steps, "confirm": plan.max_steps}
        self._lock = threading.Lock()  # rich draws from a thread of its own
        self._phase, self._total, self._ended = "", 0, 0
        self._slots, self._gpus_per_worker = 1, config.scaling.gpus_per_worker
        self._seconds, self._steps = 0.0, 0.0  # the steps, here and below, are of the study's batch size
        self._steps_of_ended: list[float] = []
        self._rows: list[TrialRow] = []
        self._curves: dict[int, list[float]] = {}
        self._running: dict[int, tuple[TrialSpec, int]] = {}
        self._started = time.monotonic()
        self._live: Live | None = None
        self.spent_s, self.spent_steps = 0.0, 0  # by drivers before this one

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._screen, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def cluster_joined(self, slots: int, hardware: Hardware) -> None:
        self._slots = slots
        where = f"{hardware.nodes} node(s) with {hardware.cpus:g} CPUs and {hardware.gpus:g} GPUs"
        self._console.print(f"{slots} slot(s) on {where}", highlight=False)
        if not slots:
            self.notice("no node has room for a trial now; the study waits for one")
        if hardware.gpus and not self._gpus_per_worker:
            self.notice("the cluster has GPUs and none is used; see --gpus-per-worker")

    # --- Observer -------------------------------------------------------------------------------------------

    def phase_started(self, phase: str, trials: int) -> None:
        with self._lock:
            same = phase == self._phase
            self._phase, self._total = phase, trials
            if not same:
                self._ended, self._steps_of_ended = 0, []
        plural = "s" * (trials != 1)
        how_many = f"{trials} {UNITS[phase]}{plural}" if trials else "as many trials as the budget buys"
        self._console.print(f"[bold]{TITLES[phase]}[/]: {how_many}")

    def trial_started(self, trial: TrialSpec) -> None:
        with self._lock:
            self._running[trial.number] = (trial, 0)
            self._curves[trial.number] = []

    def trial_reported(self, trial: TrialSpec, report: Report) -> None:
        with self._lock:
            before = self._running.get(trial.number, (trial, 0))[1]
            self._running[trial.number] = (trial, report.step)
            self._seconds += report.seconds
            self._steps += max(0, report.step - before) * steps_weight(trial.batch_size, self._batch_size)
            if self._metric in report.metrics:
                self._curves.setdefault(trial.number, []).append(report.metrics[self._metric])

    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
        with self._lock:
            self._running.pop(trial.number, None)
            self._ended += 1
            self._steps_of_ended.append(row.steps * steps_weight(trial.batch_size, self._batch_size))
            self._rows.append(row)
            leader = self._leaders(row.phase)[:1]
            line = f"  {self._ended:>3}{f'/{self._total}' if self._total else ''} {self._describe(trial, row)}"
        if self._live is None:
            left = self._time_left()
            self._console.print(
                line + (f"  [{left} left]" if left else ""), markup=False, highlight=False, soft_wrap=True
            )
        elif leader and leader[0].number == row.number and row.phase == "search":
            self._console.print(f"  new leader: {self._describe(trial, row)}", markup=False, highlight=False)

    def bounds_found(self, bounds: LRBounds, combination: str = "") -> None:
        of = f" of {escape(combination)}" if combination else ""
        if bounds.status == "ok":
            assert bounds.low is not None
            assert bounds.high is not None
            assert bounds.suggestion is not None
            text = f"[bold]LR bounds{of}: {bounds.low:.3g} to {bounds.high:.3g}[/], suggestion {bounds.suggestion:.3g}"
        else:
            text = f"[bold yellow]no LR bounds{of}[/] ({bounds.status})"
        self._console.print(f"{text}\n  {escape(bounds.reason)}", highlight=False)

    def notice(self, text: str) -> None:
        self._console.print(Text(f"note: {text}", style="yellow"))

    # --- drawing --------------------------------------------------------------------------------------------

    def _describe(self, trial: TrialSpec, row: TrialRow) -> str:
        drawn = "ramp" if trial.ramp else f"{trial.lr_schedule:<12} lr {trial.lr:<9.3g}"
        beside = setting(trial.qualified_parameters())
        what = f"{trial.label:<25}" if trial.label else drawn + (f" {beside:<18}" if beside else "")
        figure = f"{self._metric} {row.metrics[self._metric]:.4g}" if self._metric in row.metrics else ""
        state = "" if row.state == "complete" and not trial.ramp else f" {row.state}"
        reason = f" ({row.reason})" if row.state == "failed" else ""
        return f"#{row.number:<4}{what} {row.steps:>5} steps  {figure}{state}{reason}".rstrip()

    def _leaders(self, phase: str) -> list[TrialRow]:
        rows = [r for r in self._rows if r.phase == phase and r.state == "complete" and self._metric in r.metrics]
        return sorted(rows, key=lambda row: self._sign * row.metrics[self._metric])[:LEADERS]

    def _time_left(self) -> str:
        """From the steps that are left, as many as trials have taken so far, and the seconds a step has taken."""
        if not self._steps or not self._phase:
            return ""
        budget = self._plan.budget
        if budget is not None and budget.seconds is not None:
            left = budget.seconds - self.spent_s - (time.monotonic() - self._started)
            return _duration(max(0.0, left))
        if budget is not None and self._phase != "confirm":
            left_steps = self._plan.steps - self.spent_steps - self._steps
            return _duration(seconds_left(left_steps, self._seconds, self._steps, self._slots))
        later = {"range_test": ("search", "confirm"), "search": ("confirm",), "confirm": ()}[self._phase]
        trials = {"search": self._plan.trials, "confirm": self._plan.confirmations}
        usual = usual_steps(self._steps_of_ended, self._full_steps[self._phase])
        running = sum(s * steps_weight(trial.batch_size, self._batch_size) for trial, s in self._running.values())
        phases = [PhaseLeft(self._total - self._ended, usual, running)]
        phases += [PhaseLeft(trials[phase], self._full_steps[phase]) for phase in later]
        return _duration(seconds_left(steps_left(phases), self._seconds, self._steps, self._slots))

    def _progress(self) -> tuple[float, str]:
        """The share of the phase that is over, and "/12" where its trials are counted; else it is the budget's."""
        budget = self._plan.budget
        if self._total or budget is None:
            return self._ended / max(1, self._total), f"/{self._total}"
        if budget.seconds is not None:
            return min(1.0, (self.spent_s + time.monotonic() - self._started) / budget.seconds), ""
        return min(1.0, (self.spent_steps + self._steps) / max(1, self._plan.steps)), ""

    def _screen(self) -> RenderableType:
        with self._lock:
            parts: list[RenderableType] = []
            if not self._phase:
                return Text(f"starting workers … {time.monotonic() - self._started:.0f} s", style="dim")
            leaders = self._leaders("search") if self._phase != "range_test" else []
            if leaders:
                table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
                for name, side in (
                    ("#", "right"),
                    ("LR schedule", "left"),
                    ("lr", "right"),
                    (self._metric, "right"),
                    ("", "left"),
                    ("", "left"),
                ):
                    table.add_column(name, justify=side)  # type: ignore[arg-type]
                for row in leaders:
                    curve = sparkline(self._curves.get(row.number, []))
                    figure, beside = f"{row.metrics[self._metric]:.4g}", escape(setting(row.parameters))
                    table.add_row(str(row.number), row.lr_schedule, f"{row.lr:.3g}", figure, curve, beside)
                parts.append(table)
            for trial, step in self._running.values():
                drawn = "ramp" if trial.ramp else f"{trial.lr_schedule} lr {trial.lr:.3g}"
                what = trial.label or f"{drawn} {setting(trial.qualified_parameters())}".rstrip()
                curve = sparkline(self._curves.get(trial.number, []))
                parts.append(Text(f"  #{trial.number:<4}{what:<28} {step:>5}/{trial.max_steps} {curve}", style="dim"))
            left = self._time_left()
            bar = Table.grid(padding=(0, 2, 0, 0))
            starting = "" if self._steps else f"workers start, {time.monotonic() - self._started:.0f} s"
            share, of = self._progress()
            bar.add_row(
                Text(TITLES[self._phase], style="bold"),
                ProgressBar(total=1.0, completed=share, width=30),
                f"{self._ended}{of} {UNITS[self._phase]}{'s' * (self._total != 1)}",
                starting or (f"{left} left" if left else ""),
            )
            parts.append(bar)
            return Group(*parts)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{math.ceil(seconds)} s"


def sparkline(values: Iterable[float]) -> str:
    """A curve in one line of text, its lowest value at the bottom."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((value - low) * scale)] for value in finite[-24:])


def show_plan(
    console: Console, name: str, config: Config, plan: Plan, slots: int | None = None, where: str = ""
) -> None:
    """What will run, before it runs."""
    sizes, combined = config.parameters.batch_size, _combined(config)
    table = Table.grid(padding=(0, 2, 0, 0))
    scaling = config.scaling
    workers = f"{scaling.workers_per_trial} worker{'s' * (scaling.workers_per_trial > 1)}"
    gpus = f" and {scaling.gpus_per_worker:g} GPU" if scaling.gpus_per_worker else ""
    if slots is not None:
        table.add_row("slots", f"{slots} of {workers}, {scaling.cpus_per_worker} CPU{gpus} each{where}")
    else:
        table.add_row("slot", f"{workers}, {scaling.cpus_per_worker} CPU{gpus} each; as many slots as fit")
    if plan.budget is not None:
        of = f"full trainings of {plan.max_steps} steps" if plan.budget.trainings is not None else "of time"
        table.add_row("budget", f"{config.budget}, {of}, LR range test and confirmation included")
    if plan.ramps:
        ramp = config.range_test
        shape = {"exponential": "", "linear": ", linear", "staircase": f", {ramp.stairs} stairs"}[ramp.mode]
        each = f", {ramp.replicates} for each of {combined}" if combined else ""
        ramps = f"{plan.ramps} ramp{'s' * (plan.ramps != 1)} of {ramp.steps} steps"
        table.add_row("LR range test", f"{ramps}, LR {ramp.low:g} to {ramp.high:g}{shape}{each}")
    if plan.trials and config.fixed:
        s = "s" * (len(config.fixed) > 1)
        table.add_row("fixed", f"{len(config.fixed)} configuration{s} of {plan.max_steps} steps, none pruned")
    if plan.trials and config.num_trials:
        schedules = ", ".join(config.parameters.lr_schedule)
        how_many = f"{config.num_trials} trials"
        if plan.budget is not None:
            most = "" if config.num_trials == UNLIMITED else f", at most {config.num_trials}"
            least = "" if plan.budget.trainings is None else f"at least {plan.trials - len(config.fixed)}, "
            how_many = f"{least}as many trials as it buys{most}, each"
        table.add_row("search", f"{how_many} of at most {plan.max_steps} steps: {schedules}")
        pruner = config.pruner
        rule = (
            "nothing is pruned"
            if pruner.name == "none"
            else f"the best 1/{pruner.reduction_factor} go on from step {pruner.min_steps}"
        )
        if combined:
            table.add_row("", f"with {combined}" + (", compared at equal samples" if sizes else ""))
        if sizes:
            steps = ", ".join(f"{config.steps_of(plan.max_steps, size)} of {size}" for size in sizes)
            table.add_row("", f"steps of a full trial with batches of each size: {steps}")
        table.add_row("", f"{config.sampler.name.upper()} proposes, {rule}")
    if plan.confirmations:
        confirm = config.confirm
        more = (
            f", up to {confirm.max_seeds} where that may tell them apart" if confirm.most_seeds > confirm.seeds else ""
        )
        finalists, seeds = planned_confirmation(config, plan.ramps * plan.ramp_steps)
        runners_up = max(0, finalists - confirm.top)
        beside = f" and {runners_up} runner{'s' * (runners_up > 1)}-up" if runners_up else ""
        who = f"the best of {finalists - runners_up} LR schedules{beside}"
        less = ", fewer where that would take over half of the time" if plan.budget and plan.budget.seconds else ""
        table.add_row("confirm", f"{who}, {seeds} fresh seeds each{more}{less}")
    unit = f" with batches of {config.batch_size}, or as many samples" if sizes else ""
    if plan.budget is None or plan.budget.trainings is not None:
        table.add_row("steps", f"{plan.steps:,} at most{unit}; the time left is shown from the first steps on")
    optimizers = [name or config.optimizer.name for name in config.parameters.optimizer]
    console.print(f"[bold]{escape(name)}[/]: {config.workload}, {escape(', '.join(optimizers))}", highlight=False)
    console.print(table, highlight=False)
    for caveat in filter(None, map(range_test_caveat, optimizers if plan.ramps else [])):
        console.print(Text(f"note: {caveat}", style="yellow"))


def _combined(config: Config) -> str:
    """The optimizers and batch sizes that are searched: "sgd, adamw x batches of 64, 128"; "" where neither is."""
    sizes, names = config.parameters.batch_size, [name for name in config.parameters.optimizer if name]
    return " x ".join(filter(None, [", ".join(names), f"batches of {', '.join(map(str, sizes))}" if sizes else ""]))


def show_fit(
    console: Console, scaling: Scaling, nodes: Sequence[Node], free: tuple[float, float], slots: int, plan: Plan
) -> None:
    """A slot's bundles beside the nodes that could hold them. `free` are CPUs and GPUs."""
    gpus = f" and {scaling.gpus_per_worker:g} GPU" if scaling.gpus_per_worker else ""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("node", "has", f"holds workers of {scaling.cpus_per_worker} CPU{gpus}"):
        table.add_column(name)
    for node in nodes:
        name = node.name if node.present else f"{node.name} (to be started)"
        table.add_row(escape(name), str(node), str(node.holds(scaling)))
    console.print()
    console.print(table, highlight=False)
    held, used = sum(node.holds(scaling) for node in nodes), slots * scaling.workers_per_trial
    console.print(f"{held} workers in all, {used} of them used by {slots} slot(s)", highlight=False)
    console.print(f"free now: {free[0]:g} CPU and {free[1]:g} GPU", highlight=False)
    busy = min(slots, max(plan.ramps, plan.trials, plan.confirmations))
    if busy and not (plan.budget and plan.budget.seconds):
        console.print(
            f"steps at most, one after another in a slot: {math.ceil(plan.steps / busy):,} "
            "(times the seconds of one step; validation comes on top, pruning takes away)",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def show_outcome(console: Console, outcome: Outcome) -> None:
    """Print the answer, the leaderboard and where everything lies."""
    directory, answer = StudyDir(outcome.root), outcome.answer
    found = [(of, bounds) for of, bounds in outcome.bounds.items() if bounds.status == "ok"]
    for place, (combination, bounds) in enumerate(found):
        of = f"   {combination}".rstrip()
        line = f"LR bounds    {bounds.low:.3g} to {bounds.high:.3g}{of}"
        console.print("\n" * (place == 0) + line, markup=False, highlight=False)
    if outcome.widening is not None:
        wider = outcome.widening
        where = f"{wider.low:.3g} to {wider.high:.3g} after {wider.after} trials, the best at their edge"
        console.print(f"widened to   {where}", highlight=False)
    if answer is not None:
        console.print()
        console.print(_finalists_table(answer, outcome.rows), highlight=False)
        console.print(f"\n[bold green]{escape(answer.verdict)}[/]", highlight=False, soft_wrap=True)
        if answer.test:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in answer.test.items())
            console.print(f"On the test data: {figures}", highlight=False)
        console.print()
        console.print(answer.code.rstrip(), markup=False, highlight=False, soft_wrap=True)
        console.print()
        for name, text in _ledger(outcome.spending):
            console.print(f"{name:<12} {text}", highlight=False)
    console.print(f"study        {directory.root}", highlight=False, soft_wrap=True)
    if answer is not None:
        console.print(f"best         {directory.best_yaml}", highlight=False, soft_wrap=True)
    console.print(f"report       {directory.report_html}", highlight=False, soft_wrap=True)


def _finalists_table(answer: Answer, rows: Sequence[TrialRow]) -> Table:
    """The finalists, then the best trial of each LR schedule that was not confirmed."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    with_settings = any(setting(finalist.parameters) for finalist in answer.finalists)
    columns = ["", "LR schedule", *["with"] * with_settings, "lr", "searched", "mean"]
    for name in [*columns, "95 % interval", "seeds", "trial"]:
        justify: Literal["left", "right"] = "left" if name in ("", "LR schedule", "with") else "right"
        table.add_column(name, justify=justify, no_wrap=name != "with")
    searched = {row.number: row.metrics[answer.metric] for row in rows if answer.metric in row.metrics}
    distinguishable = [True, *(difference.distinguishable for difference in answer.differences)]
    for place, finalist in enumerate(answer.finalists, start=1):
        interval = finalist.interval
        table.add_row(
            f"{place}." if distinguishable[place - 1] else "=",
            finalist.lr_schedule,
            *[escape(setting(finalist.parameters))] * with_settings,
            f"{finalist.lr:.3g}",
            f"{searched[finalist.trial]:.4g}",
            f"{finalist.mean:.4g}",
            f"{interval.low:.3g} to {interval.high:.3g}" if interval else "-",
            str(len(finalist.seeds)),
            f"#{finalist.trial}",
        )
    for best in answer.unconfirmed:
        shown = (f"{best.lr:.3g}", f"{best.value:.4g}", "-", "-", "-", f"#{best.trial}")
        table.add_row("", best.lr_schedule, *shown, style="dim")
    return table


def _ledger(spending: Spending) -> list[tuple[str, str]]:
    """What the study has spent, and on what."""
    steps, saved = spending.steps, spending.saved
    parts = ", ".join(f"{TITLES[phase]} {taken:,}" for phase, taken in steps.items() if taken)
    total = f"{sum(steps.values()):,}, as many as {spending.full_trainings} full trainings: {parts}"
    lines = [("steps", total)]
    spared = {"by pruning": saved["pruned"], "by ending what diverged": saved["diverged"]}
    if any(spared.values()):
        lines.append(("saved", ", ".join(f"{number:,} {how}" for how, number in spared.items() if number)))
    if spending.budget:
        unit = spending.budget.strip()[-1]
        used = spending.full_trainings if unit == "x" else round(spending.elapsed_s / SECONDS[unit], 1)
        lines.append(("budget", f"{used:g}{unit} of {spending.budget} used"))
    return lines


def show_status(console: Console, status: Status) -> None:
    """How a study stands."""
    who = f", driven by {status.driver}" if status.driver else ""
    console.print(f"[bold]{escape(status.name)}[/]: {status.state}{escape(who)}", highlight=False)
    table = Table(box=None, padding=(0, 1, 0, 1), header_style="dim")
    waiting = "running" if status.driver else "interrupted"
    for name in ("phase", "complete", "pruned", "diverged", "failed", waiting, "to come"):
        table.add_column(name, justify="left" if name == "phase" else "right")
    for phase, counts in status.phases.items():
        here = "bold" if phase == status.phase else ""
        table.add_row(TITLES[phase], *(str(count) for count in vars(counts).values()), style=here)
    console.print(table, highlight=False)
    for trial in status.running:
        what = f"#{trial.number:<4}{trial.label:<12} lr {trial.lr:<9.3g}"
        console.print(f"  {what} {trial.step:>5}/{trial.max_steps} steps", markup=False, highlight=False)
    for bounds in (status.bounds or {}).get("combinations", [status.bounds] if status.bounds else []):
        of = f"   {bounds['optimizer']}, batch {bounds['batch_size']}" if "optimizer" in bounds else ""
        none = bounds.get("low") is None
        found = f"none ({bounds.get('status')})" if none else f"{bounds['low']:.3g} to {bounds['high']:.3g}"
        console.print(f"LR bounds    {found}{of}", markup=False, highlight=False)
    if status.leader is not None:
        leader = status.leader
        how = f"mean of {leader.seeds} seeds" if leader.seeds else "of the search, not confirmed"
        figure = f"{status.metric} {leader.value:.4g} ({how})"
        beside = f" with {setting(leader.parameters)}".removesuffix(" with ")
        console.print(
            f"leader       {leader.lr_schedule} at lr {leader.lr:.3g}{beside}: {figure}, #{leader.trial}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    if status.verdict:
        console.print(f"verdict      {status.verdict}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"steps        {status.steps:,}, and {status.steps_to_come:,} at most to come", highlight=False)
    left = "" if status.left_s is None else f", about {_duration(status.left_s)} left"
    console.print(
        f"time         {_duration(status.elapsed_s)} since it was created{left}; "
        f"{_duration(status.trained_s)} of training in all slots",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if status.state == "stopped":
        console.print(f"go on with   tune-lr resume {status.directory}", markup=False, highlight=False, soft_wrap=True)


def show_report(console: Console, outcome: Outcome) -> None:
    """Print the best search trials with their curves, then the answer."""
    directory, metric = StudyDir(outcome.root), outcome.metric
    bounds = next(iter(outcome.bounds.values()), None)
    if bounds is not None and bounds.status != "ok":
        console.print(f"[bold yellow]no LR bounds[/] ({bounds.status}): {escape(bounds.reason)}", highlight=False)
    rows = rank_search(outcome.rows, metric, outcome.goal)[:LEADERS_REPORTED]
    if rows:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("trial", "LR schedule", "lr", metric, "", ""):
            table.add_column(name, justify="left" if name in ("LR schedule", "") else "right")
        for row in rows:
            path = directory.curve(row.number)
            values = directory.read_curve(path)[metric] if path.exists() else []
            table.add_row(
                f"#{row.number}",
                row.lr_schedule,
                f"{row.lr:.3g}",
                f"{row.metrics[metric]:.4g}",
                sparkline(values),
                escape(row.label or setting(row.parameters)),
            )
        console.print(table, highlight=False)
    else:
        console.print(outcome.no_answer, markup=False, highlight=False, soft_wrap=True)
    show_outcome(console, outcome)


def show_schedule(console: Console, spec: ScheduleSpec) -> None:
    """An LR schedule's parameters, its curve with the defaults, from 0 to the peak, and what it equals in PyTorch."""
    console.print(f"[bold]{spec.name}[/]  {spec.doc}", highlight=False)
    lrs = make_lr_schedule(spec.name, {}, 96).lrs(1.0)[::4]
    console.print(f"  {''.join(SPARKS[round(lr * (len(SPARKS) - 1))] for lr in lrs.tolist())}", highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
    for name in ("parameter", "default", "allowed", ""):
        table.add_column(name)
    for parameter in spec.parameters:
        table.add_row(parameter.name, parameter.default_text(), escape(parameter.range()), parameter.doc)
    console.print(table, highlight=False)
    classes = ", then ".join(spec.torch_classes)
    console.print(f"    in torch.optim.lr_scheduler: {classes}\n", highlight=False, style="dim")
