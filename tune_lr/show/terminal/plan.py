"""The plan of a study, as `tune-lr check` and `tune-lr search` print it before anything runs."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tune_lr.config.hardware import Node
from tune_lr.config.ladder import budget_of, least_steps
from tune_lr.config.lengths import length_text
from tune_lr.config.model import UNLIMITED, Config
from tune_lr.config.optimizers import range_test_caveat
from tune_lr.config.plan import Plan, ends_at_full_length, planned_confirmation, steps_for_the_ladder
from tune_lr.config.training import Scaling
from tune_lr.show.terminal.words import count_text, plain_table

_Line = tuple[str, str]  # what it is about, and the text


def show_plan(console: Console, name: str, config: Config, plan: Plan, slots: int | None = None) -> None:
    """Print what will run. `slots` are those of a cluster that is known."""
    table = Table.grid(padding=(0, 2, 0, 0))
    lines = [
        _slots_line(config, slots),
        *_budget_lines(config, plan),
        *_range_test_lines(config, plan),
        *_fixed_lines(config, plan),
        *_length_lines(config, plan),
        *_search_lines(config, plan),
        *_confirm_lines(config, plan),
        *_metric_lines(config, plan),
        *_steps_lines(config, plan),
    ]
    for line in lines:
        table.add_row(*line)
    optimizers = [name or config.optimizer.name for name in config.parameters.optimizer]
    console.print(f"[bold]{escape(name)}[/]: {config.workload}, {escape(', '.join(optimizers))}", highlight=False)
    console.print(table, highlight=False)
    for optimizer in optimizers if plan.ramps else []:
        caveat = range_test_caveat(optimizer)
        if caveat:
            console.print(Text(f"note: {caveat}", style="yellow"))


def show_fit(
    console: Console, scaling: Scaling, nodes: Sequence[Node], free: tuple[float, float], slots: int, plan: Plan
) -> None:
    """Print what a slot takes beside the nodes that could hold it. `free` are the CPUs and GPUs that are free now."""
    table = plain_table()
    for heading in ("node", "has", f"holds workers of {scaling.cpus_per_worker} CPU{_gpus_text(scaling)}"):
        table.add_column(heading)
    for node in nodes:
        name = node.name if node.present else f"{node.name} (to be started)"
        table.add_row(escape(name), str(node), str(node.holds(scaling)))
    console.print()
    console.print(table, highlight=False)
    held = sum(node.holds(scaling) for node in nodes)
    used = slots * scaling.workers_per_trial
    console.print(f"{held} workers in all, {used} of them used by {slots} slot(s)", highlight=False)
    console.print(f"free now: {free[0]:g} CPU and {free[1]:g} GPU", highlight=False)
    busy = min(slots, max(plan.ramps, plan.trials, plan.confirmations))
    if busy and not (plan.budget and plan.budget.seconds):
        console.print(
            f"steps at most, one after another in a slot: {math.ceil(plan.steps / busy):,} "
            "(times the seconds of one step; validation comes on top, pruning takes away)",
            highlight=False,
            soft_wrap=True,
        )


def _gpus_text(scaling: Scaling) -> str:
    return f" and {scaling.gpus_per_worker:g} GPU" if scaling.gpus_per_worker else ""


def _slots_line(config: Config, slots: int | None) -> _Line:
    scaling = config.scaling
    workers = count_text(scaling.workers_per_trial, "worker")
    each = f"{workers}, {scaling.cpus_per_worker} CPU{_gpus_text(scaling)} each"
    if slots is None:
        return "slot", f"{each}; as many slots as fit"
    return "slots", f"{slots} of {each}"


def _budget_lines(config: Config, plan: Plan) -> list[_Line]:
    if plan.budget is None:
        return []
    unit = "of time" if plan.budget.trainings is None else f"full trainings of {plan.max_steps} steps"
    return [("budget", f"{config.budget}, {unit}, LR range test and confirmation included")]


def _range_test_lines(config: Config, plan: Plan) -> list[_Line]:
    if not plan.ramps:
        return []
    ramp = config.range_test
    shape = {"exponential": "", "linear": ", linear", "staircase": f", {ramp.stairs} stairs"}[ramp.mode]
    combined = _combined_text(config)
    each = f", {ramp.replicates} for each of {combined}" if combined else ""
    ramps = f"{count_text(plan.ramps, 'ramp')} of {ramp.steps} steps"
    return [("LR range test", f"{ramps}, LR {ramp.low:g} to {ramp.high:g}{shape}{each}")]


def _fixed_lines(config: Config, plan: Plan) -> list[_Line]:
    if not (plan.trials and config.fixed):
        return []
    configurations = count_text(len(config.fixed), "configuration")
    return [("fixed", f"{configurations} of {plan.max_steps} steps, none pruned")]


def _search_lines(config: Config, plan: Plan) -> list[_Line]:
    if not (plan.trials and config.num_trials):
        return []
    schedules = ", ".join(config.parameters.lr_schedule)
    lines = [("search", f"{_trials_text(config, plan)} of at most {plan.max_steps} steps: {schedules}")]
    batch_sizes = config.parameters.batch_size
    combined = _combined_text(config)
    if combined:
        lines.append(("", f"with {combined}" + (", compared at equal samples" if batch_sizes else "")))
    if batch_sizes:
        steps = ", ".join(f"{config.steps_of(plan.max_steps, size)} of {size}" for size in batch_sizes)
        lines.append(("", f"steps of a full trial with batches of each size: {steps}"))
    pruner = config.pruner
    rule = f"the best 1/{pruner.reduction_factor} go on from step {pruner.min_steps}"
    if pruner.name == "none":
        rule = "nothing is pruned"
    return [*lines, ("", f"{config.sampler.name.upper()} proposes, {rule}")]


def _length_lines(config: Config, plan: Plan) -> list[_Line]:
    """Say which lengths the trials have, what each costs, and when there is an answer."""
    if not (plan.trials and config.num_trials):
        return []
    full = config.max_steps
    if not plan.lengths:
        return []
    ramp_steps = plan.ramps * plan.ramp_steps
    short = [planned for planned in plan.lengths if planned.length < 1]
    counts = ", ".join(f"{planned.trials} of {length_text(planned.length)}" for planned in short)
    costs = ", ".join(f"{length_text(planned.length)}: {planned.steps:,} steps" for planned in plan.lengths)
    trained = sum(planned.trials * planned.steps for planned in short) / full
    first = ramp_steps + short[0].trials * short[0].steps
    last = "the last trial is a full training of the best that is predicted; its weights are kept"
    if not ends_at_full_length(config, steps_for_the_ladder(config, ramp_steps)):
        enough = budget_of(least_steps(config) + full, config)
        last = "nothing is trained at full length, so the answer is a prediction; "
        last += f"a full training costs {full:,} steps, and from {enough} up the study runs one"
    return [
        ("lengths", costs),
        (
            "",
            f"about {counts} are expected (an estimate), {trained:.2g}x in all; ramps: up to {ramp_steps / full:.2g}x",
        ),
        ("", "short trials are complete short trainings, and predict the full one"),
        ("", f"a usable prediction stands after about {first:,} steps ({first / full:.2g}x); later ones are sharper"),
        ("", last),
    ]


def _trials_text(config: Config, plan: Plan) -> str:
    if plan.budget is None:
        return f"{config.num_trials} trials"
    least = "" if plan.budget.trainings is None or config.ladder else f"at least {plan.trials - len(config.fixed)}, "
    most = "" if config.num_trials == UNLIMITED else f", at most {config.num_trials}"
    return f"{least}as many trials as it buys{most}, each"


def _confirm_lines(config: Config, plan: Plan) -> list[_Line]:
    if not plan.confirmations:
        return []
    confirm = config.confirm
    finalists, seeds = planned_confirmation(config, plan.ramps * plan.ramp_steps)
    runners_up = max(0, finalists - confirm.top)
    text = f"the best of {finalists - runners_up} LR schedules"
    if runners_up:
        text += f" and {runners_up} runner{'' if runners_up == 1 else 's'}-up"
    text += f", {seeds} fresh seeds each"
    if confirm.most_seeds > confirm.seeds:
        text += f", up to {confirm.max_seeds} where that may tell them apart"
    if plan.budget and plan.budget.seconds:
        text += ", fewer where that would take over half of the time"
    return [("confirm", text)]


def _metric_lines(config: Config, plan: Plan) -> list[_Line]:
    """Say by what trials are compared, and in which direction."""
    if not (plan.trials or plan.confirmations):
        return []
    better = {"minimize": "lower", "maximize": "higher"}[config.metric.goal]
    return [("metric", f"{config.metric.name}, the {better} the better ({config.metric.goal})")]


def _steps_lines(config: Config, plan: Plan) -> list[_Line]:
    if plan.budget is not None and plan.budget.trainings is None:
        return []
    unit = f" with batches of {config.batch_size}, or as many samples" if config.parameters.batch_size else ""
    return [("steps", f"{plan.steps:,} at most{unit}; the time left is shown from the first steps on")]


def _combined_text(config: Config) -> str:
    """Return the optimizers and batch sizes that are searched: "sgd, adamw x batches of 64, 128"; "" for neither."""
    names = ", ".join(name for name in config.parameters.optimizer if name)
    sizes = ", ".join(map(str, config.parameters.batch_size or ()))
    parts = (names, f"batches of {sizes}" if sizes else "")
    return " x ".join(part for part in parts if part)
