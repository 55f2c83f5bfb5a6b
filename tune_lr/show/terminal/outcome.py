"""What a study has come to: the answer, the finalists, what it has cost and where everything lies."""

from collections.abc import Mapping, Sequence
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tune_lr.config.budget import SECONDS
from tune_lr.lr.bounds import LRBounds
from tune_lr.records.answer import Answer
from tune_lr.records.outcome import Outcome, Spending
from tune_lr.records.parameters import setting
from tune_lr.records.row import TrialRow, rank_search
from tune_lr.show.terminal.words import TITLES, duration_text, plain_table, sparkline
from tune_lr.store.curves import read_curve
from tune_lr.store.study_dir import StudyDir

LEADERS = 10  # search trials that the report in the terminal shows


def show_outcome(console: Console, outcome: Outcome) -> None:
    """Print the answer, the finalists and where everything lies."""
    directory = StudyDir(outcome.root)
    answer = outcome.answer
    _print_bounds(console, outcome.bounds)
    if outcome.widening is not None:
        wider = outcome.widening
        range_text = f"{wider.low:.3g} to {wider.high:.3g}"
        console.print(f"widened to   {range_text} after {wider.after} trials, the best at their edge", highlight=False)
    if answer is not None:
        _print_answer(console, answer, outcome.rows)
        if not answer.finalists:
            console.print(_untrained_text(directory, answer, outcome.rows), highlight=False, soft_wrap=True)
        for name, text in _ledger(outcome.spending):
            console.print(f"{name:<12} {text}", highlight=False)
    console.print(f"study        {directory.root}", highlight=False, soft_wrap=True)
    if answer is not None:
        console.print(f"best         {directory.best_yaml}", highlight=False, soft_wrap=True)
    console.print(f"report       {directory.report_html}", highlight=False, soft_wrap=True)


def show_report(console: Console, outcome: Outcome) -> None:
    """Print the best search trials with their curves, then the outcome."""
    bounds = next(iter(outcome.bounds.values()), None)
    if bounds is not None and bounds.status != "ok":
        console.print(f"[bold yellow]no LR bounds[/] ({bounds.status}): {escape(bounds.reason)}", highlight=False)
    leaders = rank_search(outcome.rows, outcome.metric, outcome.goal)[:LEADERS]
    if leaders:
        console.print(_leaders_table(leaders, outcome), highlight=False)
    else:
        console.print(outcome.no_answer, markup=False, highlight=False, soft_wrap=True)
    show_outcome(console, outcome)


def _print_predictions(console: Console, answer: Answer) -> None:
    """Print what shorter trainings predict of each LR schedule, apart from all that was trained."""
    table = plain_table()
    for heading in ("LR schedule", "lr", "from", "to", answer.metric, "from", "to", "best"):
        table.add_column(heading, justify="left" if heading == "LR schedule" else "right", no_wrap=True)
    for prediction in answer.predictions:
        table.add_row(
            prediction.lr_schedule,
            *(f"{lr:.3g}" for lr in (prediction.lr, *prediction.lr_interval)),
            *(f"{loss:.3g}" for loss in (prediction.loss, *prediction.loss_interval)),
            f"{100 * prediction.probability_best:.0f} %",
        )
    console.print(
        f"\nPredicted at {answer.max_steps:,} steps, from the trials of all lengths (intervals of 80 %):",
        highlight=False,
    )
    console.print(table, highlight=False)
    if answer.expected_regret is not None:
        best = answer.predictions[0].lr_schedule
        regret = f"{best} is expected to be {answer.expected_regret:.2g} from the best of all, on average"
        console.print(f"The order is not certain: {regret}.", markup=False, highlight=False, soft_wrap=True)


def _print_bounds(console: Console, bounds_of: Mapping[str, LRBounds]) -> None:
    """Print the bounds of each combination of batch size and optimizer that has some, below an empty line."""
    readable = {combination: bounds for combination, bounds in bounds_of.items() if bounds.status == "ok"}
    if readable:
        console.print()
    for combination, bounds in readable.items():
        line = f"LR bounds    {bounds.low:.3g} to {bounds.high:.3g}   {combination}".rstrip()
        console.print(line, markup=False, highlight=False)


def _print_answer(console: Console, answer: Answer, rows: Sequence[TrialRow]) -> None:
    console.print()
    if answer.finalists:
        console.print(_finalists_table(answer, rows), highlight=False)
    if answer.predictions:
        _print_predictions(console, answer)
    console.print(f"\n[bold green]{escape(answer.verdict)}[/]", highlight=False, soft_wrap=True)
    for note in answer.notes:
        console.print(f"[yellow]{escape(note)}[/]", highlight=False, soft_wrap=True)
    if answer.test:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in answer.test.items())
        console.print(f"On the test data: {figures}", highlight=False)
    console.print()
    console.print(answer.code.rstrip(), markup=False, highlight=False, soft_wrap=True)
    console.print()


def _untrained_text(directory: StudyDir, answer: Answer, rows: Sequence[TrialRow]) -> str:
    """Return what is to be done about an answer that is only predicted, and what that costs."""
    searched = [row for row in rows if row.phase == "search"]
    seconds = answer.max_steps * sum(row.duration_s for row in searched) / max(1, sum(row.steps for row in searched))
    return (
        f"predicted    nothing was trained at full length; one full training costs {answer.max_steps:,} steps, about "
        f"{duration_text(seconds)} as the trials went\n"
        f"             tune-lr train {directory.root}"
    )


def _leaders_table(leaders: Sequence[TrialRow], outcome: Outcome) -> Table:
    directory = StudyDir(outcome.root)
    table = plain_table()
    for heading in ("trial", "LR schedule", "lr", outcome.metric, "", ""):
        table.add_column(heading, justify="left" if heading in ("LR schedule", "") else "right")
    for row in leaders:
        path = directory.curve(row.number)
        values = read_curve(path)[outcome.metric] if path.exists() else []
        table.add_row(
            f"#{row.number}",
            row.lr_schedule,
            f"{row.lr:.3g}",
            f"{row.metrics[outcome.metric]:.4g}",
            sparkline(values),
            escape(row.label or setting(row.parameters)),
        )
    return table


def _finalists_table(answer: Answer, rows: Sequence[TrialRow]) -> Table:
    """Return the finalists, then the best trial of each LR schedule that was not confirmed."""
    table = plain_table()
    settings = [setting(finalist.parameters) for finalist in answer.finalists]
    with_settings = any(settings)
    headings = ["", "LR schedule", *["with"] * with_settings, "lr", "searched", "mean"]
    for heading in [*headings, "95 % interval", "seeds", "trial"]:
        justify: Literal["left", "right"] = "left" if heading in ("", "LR schedule", "with") else "right"
        table.add_column(heading, justify=justify, no_wrap=heading != "with")
    searched = {row.number: row.metrics[answer.metric] for row in rows if answer.metric in row.metrics}
    distinguishable = [True, *(difference.distinguishable for difference in answer.differences)]
    for place, finalist in enumerate(answer.finalists):
        interval = finalist.interval
        table.add_row(
            f"{place + 1}." if distinguishable[place] else "=",
            finalist.lr_schedule,
            *[escape(settings[place])] * with_settings,
            f"{finalist.lr:.3g}",
            f"{searched[finalist.trial]:.4g}",
            f"{finalist.mean:.4g}",
            f"{interval.low:.3g} to {interval.high:.3g}" if interval else "-",
            str(len(finalist.seeds)),
            f"#{finalist.trial}",
        )
    for best in answer.unconfirmed:
        cells = (f"{best.lr:.3g}", f"{best.value:.4g}", "-", "-", "-", f"#{best.trial}")
        table.add_row("", best.lr_schedule, *cells, style="dim")
    return table


def _ledger(spending: Spending) -> list[tuple[str, str]]:
    """Return what the study has spent and what it has spared, by the names of the lines."""
    steps = sum(spending.steps.values())
    parts = ", ".join(f"{TITLES[phase]} {count:,}" for phase, count in spending.steps.items() if count)
    lines = [("steps", f"{steps:,}, as many as {spending.full_trainings} full trainings: {parts}")]
    reasons = {"by pruning": spending.saved["pruned"], "by ending what diverged": spending.saved["diverged"]}
    saved = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
    if saved:
        lines.append(("saved", saved))
    if spending.budget:
        unit = spending.budget.strip()[-1]
        used = spending.full_trainings if unit == "x" else round(spending.elapsed_s / SECONDS[unit], 1)
        lines.append(("budget", f"{used:g}{unit} of {spending.budget} used"))
    return lines
