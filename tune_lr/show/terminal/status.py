"""How a study stands, as `tune-lr status` prints it."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tune_lr.records.parameters import setting
from tune_lr.records.status import Leader, Running, Status
from tune_lr.show.terminal.words import TITLES, duration_text, expected_text, plain_table


def show_status(console: Console, status: Status) -> None:
    """Print how a study stands."""
    driver = f", driven by {status.driver}" if status.driver else ""
    console.print(f"[bold]{escape(status.name)}[/]: {status.state}{escape(driver)}", highlight=False)
    console.print(_phases_table(status), highlight=False)
    for trial in status.running:
        configuration = f"#{trial.number:<4}{trial.label:<12} lr {trial.lr:<9.3g}"
        line = f"  {configuration} {trial.step:>5}/{trial.max_steps} steps{_expected_text(trial)}"
        console.print(line, markup=False, highlight=False)
    for line in _bounds_lines(status.bounds):
        console.print(line, markup=False, highlight=False)
    if status.leader is not None:
        line = f"leader       {_leader_text(status.leader, status.metric)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if status.verdict:
        console.print(f"verdict      {status.verdict}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"steps        {status.steps:,}, and {status.steps_to_come:,} at most to come", highlight=False)
    left = "" if status.left_s is None else f", about {duration_text(status.left_s)} left"
    console.print(
        f"time         {duration_text(status.elapsed_s)} since it was created{left}; "
        f"{duration_text(status.trained_s)} of training in all slots",
        highlight=False,
        soft_wrap=True,
    )
    if status.state == "stopped":
        console.print(f"go on with   tune-lr resume {status.directory}", markup=False, highlight=False, soft_wrap=True)


def _expected_text(trial: Running) -> str:
    """Return the last figure of a full training beside what shorter ones predict there; "" where nothing does."""
    if trial.expected is None or trial.value is None:
        return ""
    return f"   {trial.value:.4g}, predicted {expected_text(trial.expected)}"


def _phases_table(status: Status) -> Table:
    table = plain_table(right_padding=1, left_padding=1)
    unended = "running" if status.driver else "interrupted"
    for heading in ("phase", "complete", "pruned", "diverged", "failed", unended, "to come"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    for phase, counts in status.phases.items():
        style = "bold" if phase == status.phase else ""
        table.add_row(TITLES[phase], *(str(count) for count in vars(counts).values()), style=style)
    return table


def _bounds_lines(bounds: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield a line for each combination of optimizer and batch size in bounds.json."""
    if not bounds:
        return
    for entry in bounds.get("combinations", [bounds]):
        combination = f"   {entry['optimizer']}, batch {entry['batch_size']}" if "optimizer" in entry else ""
        if entry.get("low") is None:
            yield f"LR bounds    none ({entry.get('status')}){combination}"
        else:
            yield f"LR bounds    {entry['low']:.3g} to {entry['high']:.3g}{combination}"


def _leader_text(leader: Leader, metric: str) -> str:
    source = f"mean of {leader.seeds} seeds" if leader.seeds else "of the search, not confirmed"
    searched = setting(leader.parameters)
    configuration = f"{leader.lr_schedule} at lr {leader.lr:.3g}{' with ' if searched else ''}{searched}"
    return f"{configuration}: {metric} {leader.value:.4g} ({source}), #{leader.trial}"
