"""Checks of fields that are right by themselves and do not fit each other."""

import math
from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import Any

from tune_lr.config.ladder import ladder_issues
from tune_lr.config.messages import FieldPath, Issue, shown
from tune_lr.config.model import Config
from tune_lr.config.parameters import Distribution
from tune_lr.config.phases import Fixed, FixedRamp
from tune_lr.config.plugins import batch_divisor, layout, option_issues, plugin_issues
from tune_lr.errors import suggestion
from tune_lr.lr.schedule import check_parameters
from tune_lr.lr.schedules import SCHEDULES

# How many combinations of the ends of a schedule's parameters are checked at most.
MOST_CORNERS = 1000


def contradictions(config: Config) -> list[Issue]:
    """Return what does not fit together in a configuration whose defaults are filled in.

    Issues at the same place keep this order, and a message names the first of them.
    """
    return [
        *_report_issues(config),
        *_trial_issues(config),
        *_range_test_issues(config),
        *_gpu_issues(config),
        *_schedule_issues(config),
        *_fixed_issues(config),
        *_plateau_issues(config),
        *_combination_issues(config),
        *_plugin_issues(config),
        *ladder_issues(config),
    ]


def _report_issues(config: Config) -> Iterator[Issue]:
    """Yield reports that are too rare, and a first rung of the pruner that falls on no report."""
    report_every = config.report_every
    max_steps = config.max_steps
    min_steps = config.pruner.min_steps
    if report_every > max_steps:
        yield Issue(("report_every",), f"must be at most max_steps (got {report_every}, max_steps is {max_steps})")
    elif config.pruner.name != "none" and min_steps is not None:
        path: FieldPath = ("pruner", "min_steps")
        if min_steps % report_every:
            yield Issue(path, f"must be a multiple of report_every (got {min_steps}, report_every is {report_every})")
        elif min_steps >= max_steps:
            advice = "report more often, or write pruner: {name: none}"
            yield Issue(path, f"must be less than max_steps (got {min_steps}, max_steps is {max_steps}); {advice}")


def _trial_issues(config: Config) -> Iterator[Issue]:
    """Yield a search of nothing, a budget that buys no trial, and fewer seeds at most than at first."""
    if config.num_trials and "parameters" not in config.model_fields_set:
        example = "parameters: {lr: {min: range_test, max: range_test}, lr_schedule: {values: [constant, cosine]}}"
        yield Issue(("parameters",), f"is missing; write, for example, {example}")
    if not config.num_trials and not config.fixed:
        yield Issue(("num_trials",), "must be at least 1 where no configuration is fixed (got 0)")
    max_steps = config.max_steps
    ramp_steps = 0
    if config.num_trials and config.parameters.lr.needs_range_test:
        ramp_steps = len(config.combinations) * config.range_test.replicates * config.range_test.steps
    least = ramp_steps + (len(config.fixed) + bool(config.num_trials)) * max_steps
    if not config.ladder and config.spending and (config.spending.steps(max_steps) or least) < least:
        what = f"buys no trial (got {config.budget}): ramps take up to {ramp_steps:,} steps, a training {max_steps:,}"
        yield Issue(("budget",), f"{what}; allowed: from {math.ceil(10 * least / max_steps) / 10:g}x up")
    confirm = config.confirm
    if confirm.most_seeds < confirm.seeds:
        what = f"must be at least seeds (got {confirm.max_seeds}, seeds is {confirm.seeds})"
        yield Issue(("confirm", "max_seeds"), what)


def _range_test_issues(config: Config) -> Iterator[Issue]:
    """Yield a ramp that contradicts itself, and bounds of the LR beyond its ends."""
    ramp = config.range_test
    if not ramp.low < ramp.high:
        yield Issue(("range_test", "low"), f"must be less than high (got {ramp.low}, high is {ramp.high})")
    if ramp.stairs is not None and ramp.mode != "staircase":
        yield Issue(("range_test", "stairs"), f"goes with staircase only (got {ramp.stairs}, mode is {ramp.mode})")
    elif ramp.stairs is not None and ramp.stairs > ramp.steps:
        yield Issue(("range_test", "stairs"), f"must be at most steps (got {ramp.stairs}, steps is {ramp.steps})")
    lr = config.parameters.lr
    if lr.max == "range_test" and isinstance(lr.min, float) and lr.min >= ramp.high:
        yield Issue(("parameters", "lr", "min"), f"must be less than range_test.high (got {lr.min})")
    if lr.min == "range_test" and isinstance(lr.max, float) and lr.max <= ramp.low:
        yield Issue(("parameters", "lr", "max"), f"must be greater than range_test.low (got {lr.max})")


def _gpu_issues(config: Config) -> Iterator[Issue]:
    gpus = config.scaling.gpus_per_worker
    if gpus > 1 and gpus != int(gpus):
        yield Issue(("scaling", "gpus_per_worker"), f"must be a whole number or less than 1 (got {gpus})")


def _schedule_issues(config: Config) -> Iterator[Issue]:
    """Yield parameters that a searched LR schedule does not have, values that it refuses, alone or together."""
    for name, distributions in config.parameters.lr_schedule.items():
        path: FieldPath = ("parameters", "lr_schedule", "choices", name)
        issues = list(_parameter_issues(name, distributions, path))
        yield from issues
        if not issues:
            yield from _corner_issues(name, distributions, path)


def _parameter_issues(name: str, distributions: Mapping[str, Distribution], path: FieldPath) -> Iterator[Issue]:
    """Yield unknown parameters of the LR schedule `name`, and the first value of each parameter that it refuses."""
    known = {parameter.name: parameter for parameter in SCHEDULES[name].parameters}
    for key, distribution in distributions.items():
        if key not in known:
            yield Issue((*path, key), _no_parameter(name, key))
            continue
        for place, value in distribution.bounds_or_values().items():
            try:
                known[key].check(value)
            except ValueError as error:
                what = str(error).removeprefix(f"{key} ").replace(repr(value), shown(value))
                yield Issue((*path, key, *place), what)
                break


def _corner_issues(name: str, distributions: Mapping[str, Distribution], path: FieldPath) -> Iterator[Issue]:
    """Yield the first combination of ends and values that the LR schedule `name` refuses."""
    corners = product(*(distribution.bounds_or_values().values() for distribution in distributions.values()))
    for values in islice(corners, MOST_CORNERS):
        try:
            check_parameters(name, dict(zip(distributions, values, strict=True)))
        except ValueError as error:
            yield Issue(path, str(error))
            return


def _no_parameter(schedule: str, key: str) -> str:
    known = [parameter.name for parameter in SCHEDULES[schedule].parameters]
    return f"is no parameter of {schedule}{suggestion(key, known)}; allowed: {', '.join(known) or 'none'}"


def _fixed_issues(config: Config) -> Iterator[Issue]:
    """Yield fixed configurations that are there twice, or neither an LR schedule with its LR nor a ramp."""
    names = [fixed.name for fixed in config.fixed]
    for i, fixed in enumerate(config.fixed):
        path: FieldPath = ("fixed", i)
        if names.index(fixed.name) < i:
            yield Issue((*path, "label"), f"is there twice (got {shown(fixed.name)}); give each configuration its own")
        if fixed.ramp is not None:
            yield from _fixed_ramp_issues(fixed, fixed.ramp, config.max_steps, path)
        else:
            yield from _fixed_schedule_issues(fixed, path)


def _fixed_ramp_issues(fixed: Fixed, ramp: FixedRamp, max_steps: int, path: FieldPath) -> Iterator[Issue]:
    excluded = [key for key in ("lr_schedule", "lr") if getattr(fixed, key) is not None]
    first = next(iter([*excluded, *fixed.parameters]), None)
    if first is not None:
        yield Issue((*path, first), f"does not go with ramp{suggestion(first, ['label', 'ramp'])}")
    if not ramp.low < ramp.high:
        yield Issue((*path, "ramp", "low"), f"must be less than high (got {ramp.low}, high is {ramp.high})")
    if (ramp.mode == "staircase") != (ramp.stairs is not None):
        yield Issue((*path, "ramp", "stairs"), f"goes with mode staircase, and only so (mode is {ramp.mode})")
    elif ramp.stairs is not None and ramp.stairs > max_steps:
        yield Issue((*path, "ramp", "stairs"), f"must be at most max_steps (got {ramp.stairs})")


def _fixed_schedule_issues(fixed: Fixed, path: FieldPath) -> Iterator[Issue]:
    name = fixed.lr_schedule
    if name is None or fixed.lr is None:
        missing = "lr_schedule" if name is None else "lr"
        yield Issue(path, f"{missing} is missing; write {{lr_schedule: cosine, lr: 0.1}} or {{ramp: ...}}")
        return
    if name not in SCHEDULES:
        what = f"is no LR schedule (got {shown(name)}){suggestion(name, SCHEDULES)}; allowed: {', '.join(SCHEDULES)}"
        yield Issue((*path, "lr_schedule"), what)
        return
    known = [parameter.name for parameter in SCHEDULES[name].parameters]
    unknown = next((key for key in fixed.parameters if key not in known), None)
    if unknown is not None:
        yield Issue((*path, unknown), _no_parameter(name, unknown))
        return
    try:
        check_parameters(name, fixed.parameters)
    except ValueError as error:
        yield Issue(path, str(error))


def _plateau_issues(config: Config) -> Iterator[Issue]:
    """Yield every `plateau` that waits for the metric to go the wrong way."""
    mode = config.metric.plateau_mode
    goal = config.metric.goal
    path: FieldPath = ("parameters", "lr_schedule", "choices", "plateau", "mode")
    distribution = config.parameters.lr_schedule.get("plateau", {}).get("mode")
    given: list[tuple[FieldPath, Any]] = []
    if distribution is not None:
        given += [((*path, *place), value) for place, value in distribution.bounds_or_values().items()]
    for i, fixed in enumerate(config.fixed):
        if fixed.lr_schedule == "plateau" and "mode" in fixed.parameters:
            given.append((("fixed", i, "mode"), fixed.parameters["mode"]))
    for place, value in given:
        if value != mode:
            yield Issue(place, f"must be {mode} (got {shown(value)}, metric.goal is {goal}); or leave it out")


def _combination_issues(config: Config) -> Iterator[Issue]:
    """Yield a batch size or an optimizer of the study that is not searched, where others are, and too large batches.

    A batch is too large if a report would be less than a step further.
    """
    sizes = config.parameters.batch_size
    names = [name.lower() for name in config.parameters.optimizer]
    base = config.batch_size
    optimizer = config.optimizer.name
    if names[0] and optimizer.lower() not in names:
        allowed = ", ".join(config.parameters.optimizer)
        yield Issue(("optimizer", "name"), f"must be one of parameters.optimizer (got {shown(optimizer)}): {allowed}")
    if not sizes or base is None:
        return
    if base not in sizes:
        what = f"must be one of parameters.batch_size (got {base}): {', '.join(map(str, sizes))}"
        yield Issue(("batch_size",), what)
    for i, size in enumerate(sizes):
        if config.report_every * base < size:
            most = f"report_every {config.report_every} x batch_size {base}, or a report would be less than a step"
            yield Issue(("parameters", "batch_size", "values", i), f"must be at most {most} (got {size})")


def _plugin_issues(config: Config) -> Iterator[Issue]:
    """Yield what the ColossalAI plugin does not have, or cannot do with these workers, precision or optimizer."""
    scaling = config.scaling
    training = config.training
    wrong_options = list(option_issues(scaling.plugin, scaling.plugin_args))
    if wrong_options:
        yield from wrong_options
        return
    searched = config.parameters.optimizer
    optimizers: dict[FieldPath, str] = {("parameters", "optimizer", "choices", name): name for name in searched if name}
    yield from plugin_issues(
        scaling.plugin,
        scaling.plugin_args,
        workers=scaling.workers_per_trial,
        gpus_per_worker=scaling.gpus_per_worker,
        precision=training.precision,
        accumulate=training.accumulate,
        optimizers=optimizers or {("optimizer", "name"): config.optimizer.name},
        decay_all=training.decay_norms_and_biases,
    )
    try:
        shape = layout(scaling.plugin_args, scaling.workers_per_trial)
    except ValueError:
        return  # `plugin_issues` has named it.
    divisor, name = batch_divisor(shape, scaling.plugin_args, training.accumulate)
    searched_sizes = enumerate(config.parameters.batch_size or ())
    sizes: dict[FieldPath, int | None] = {("parameters", "batch_size", "values", i): s for i, s in searched_sizes}
    for path, size in (sizes or {("batch_size",): config.batch_size}).items():
        if size is not None and size % divisor:
            yield Issue(path, f"must be a multiple of {name} (got {size})")
