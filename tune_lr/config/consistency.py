"""Fields of a configuration that are right by themselves and do not fit each other."""

import math
from collections.abc import Iterator
from itertools import islice, product
from typing import Any

from tune_lr.config.defaults import plateau_mode
from tune_lr.config.messages import FieldPath, Issue, shown
from tune_lr.config.model import Config
from tune_lr.config.plugins import batch_divisor, layout, option_mistakes, plugin_mistakes
from tune_lr.errors import suggestion
from tune_lr.lr.schedule import check_parameters
from tune_lr.lr.schedules import SCHEDULES


def contradictions(config: Config) -> list[Issue]:
    return [
        *_contradictions_(config),
        *_schedule_issues(config),
        *_fixed_issues(config),
        *_plateau_issues(config),
        *_combination_issues(config),
        *_plugin_issues(config),
    ]


def _contradictions_(config: Config) -> Iterator[Issue]:
    """Fields that are right by themselves and do not fit each other."""
    every, steps, ramp, lr = config.report_every, config.max_steps, config.range_test, config.parameters.lr
    if every > steps:
        yield Issue(("report_every",), f"must be at most max_steps (got {every}, max_steps is {steps})")
    elif config.pruner.name != "none" and config.pruner.min_steps is not None:
        first = config.pruner.min_steps
        path: FieldPath = ("pruner", "min_steps")
        if first % every:
            yield Issue(path, f"must be a multiple of report_every (got {first}, report_every is {every})")
        elif first >= steps:
            advice = "report more often, or write pruner: {name: none}"
            yield Issue(path, f"must be less than max_steps (got {first}, max_steps is {steps}); {advice}")
    if config.num_trials and "parameters" not in config.model_fields_set:
        example = "parameters: {lr: {min: range_test, max: range_test}, lr_schedule: {values: [constant, cosine]}}"
        yield Issue(("parameters",), f"is missing; write, for example, {example}")
    if not config.num_trials and not config.fixed:
        yield Issue(("num_trials",), "must be at least 1 where no configuration is fixed (got 0)")
    ramps = len(config.combinations) * ramp.replicates * ramp.steps if config.num_trials and lr.needs_range_test else 0
    least = ramps + (len(config.fixed) + bool(config.num_trials)) * steps
    if config.spending and (config.spending.steps(steps) or least) < least:
        what = f"buys no trial (got {config.budget}): ramps take up to {ramps:,} steps, a training {steps:,}"
        yield Issue(("budget",), f"{what}; allowed: from {math.ceil(10 * least / steps) / 10:g}x up")
    confirm = config.confirm
    if confirm.most_seeds < confirm.seeds:
        what = f"must be at least seeds (got {confirm.max_seeds}, seeds is {confirm.seeds})"
        yield Issue(("confirm", "max_seeds"), what)
    if not ramp.low < ramp.high:
        yield Issue(("range_test", "low"), f"must be less than high (got {ramp.low}, high is {ramp.high})")
    if ramp.stairs is not None and ramp.mode != "staircase":
        yield Issue(("range_test", "stairs"), f"goes with staircase only (got {ramp.stairs}, mode is {ramp.mode})")
    elif ramp.stairs is not None and ramp.stairs > ramp.steps:
        yield Issue(("range_test", "stairs"), f"must be at most steps (got {ramp.stairs}, steps is {ramp.steps})")
    if lr.max == "range_test" and isinstance(lr.min, float) and lr.min >= ramp.high:
        yield Issue(("parameters", "lr", "min"), f"must be less than range_test.high (got {lr.min})")
    if lr.min == "range_test" and isinstance(lr.max, float) and lr.max <= ramp.low:
        yield Issue(("parameters", "lr", "max"), f"must be greater than range_test.low (got {lr.max})")
    gpus = config.scaling.gpus_per_worker
    if gpus > 1 and gpus != int(gpus):
        yield Issue(("scaling", "gpus_per_worker"), f"must be a whole number or less than 1 (got {gpus})")


def _combination_issues(config: Config) -> Iterator[Issue]:
    """A batch size or an optimizer of the study that is not among those that are searched, and batches so large that
    not every report is a step further."""
    sizes, names = config.parameters.batch_size, [name.lower() for name in config.parameters.optimizer]
    base, optimizer = config.batch_size, config.optimizer.name
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
    """What the ColossalAI plugin does not have, or cannot do with these workers, this precision or this optimizer."""
    scaling, training = config.scaling, config.training
    options = scaling.plugin_args
    wrong = [Issue(("scaling", *path), what) for path, what in option_mistakes(scaling.plugin, options)]
    if wrong:
        yield from wrong
        return
    searched = config.parameters.optimizer
    optimizers: dict[FieldPath, str] = {("parameters", "optimizer", "choices", name): name for name in searched if name}
    mistakes = plugin_mistakes(
        scaling.plugin,
        options,
        workers=scaling.workers_per_trial,
        gpus_per_worker=scaling.gpus_per_worker,
        precision=training.precision,
        accumulate=training.accumulate,
        optimizers=optimizers or {("optimizer", "name"): config.optimizer.name},
        decay_all=training.decay_norms_and_biases,
    )
    for path, what in mistakes:
        yield Issue(path, what)
    try:
        shape = layout(scaling.plugin, options, scaling.workers_per_trial)
    except ValueError:
        return  # one of the mistakes
    divisor, name = batch_divisor(shape, options, training.accumulate)
    searched_sizes = enumerate(config.parameters.batch_size or ())
    sizes: dict[FieldPath, int | None] = {("parameters", "batch_size", "values", i): s for i, s in searched_sizes}
    for path, size in (sizes or {("batch_size",): config.batch_size}).items():
        if size is not None and size % divisor:
            yield Issue(path, f"must be a multiple of {name} (got {size})")


def _fixed_issues(config: Config) -> Iterator[Issue]:
    """Fixed configurations that are neither an LR schedule with its LR nor a ramp, or not in order, or there twice."""
    names = [fixed.name for fixed in config.fixed]
    for i, fixed in enumerate(config.fixed):
        path: FieldPath = ("fixed", i)
        ramp, name = fixed.ramp, fixed.lr_schedule
        if names.index(fixed.name) < i:
            yield Issue((*path, "label"), f"is there twice (got {shown(fixed.name)}); give each configuration its own")
        if ramp is not None:
            beside = [key for key in ("lr_schedule", "lr") if getattr(fixed, key) is not None]
            if beside or fixed.parameters:
                first = (*beside, *fixed.parameters)[0]
                yield Issue((*path, first), f"does not go with ramp{suggestion(first, ['label', 'ramp'])}")
            if not ramp.low < ramp.high:
                yield Issue((*path, "ramp", "low"), f"must be less than high (got {ramp.low}, high is {ramp.high})")
            if (ramp.mode == "staircase") != (ramp.stairs is not None):
                yield Issue((*path, "ramp", "stairs"), f"goes with mode staircase, and only so (mode is {ramp.mode})")
            elif ramp.stairs is not None and ramp.stairs > config.max_steps:
                yield Issue((*path, "ramp", "stairs"), f"must be at most max_steps (got {ramp.stairs})")
        elif name is None or fixed.lr is None:
            missing = "lr_schedule" if name is None else "lr"
            yield Issue(path, f"{missing} is missing; write {{lr_schedule: cosine, lr: 0.1}} or {{ramp: ...}}")
        elif name not in SCHEDULES:
            what = f"is no LR schedule (got {shown(name)}){suggestion(name, SCHEDULES)}; allowed: "
            yield Issue((*path, "lr_schedule"), what + ", ".join(SCHEDULES))
        else:
            known = {parameter.name: parameter for parameter in SCHEDULES[name].parameters}
            unknown = next((key for key in fixed.parameters if key not in known), None)
            if unknown is not None:
                what = f"is no parameter of {name}{suggestion(unknown, known)}; allowed: {', '.join(known) or 'none'}"
                yield Issue((*path, unknown), what)
                continue
            try:
                check_parameters(name, fixed.parameters)
            except ValueError as error:
                yield Issue(path, str(error))


def _schedule_issues(config: Config) -> Iterator[Issue]:
    """Parameters that an LR schedule does not have, values that it refuses, and values that it refuses together."""
    for name, drawn in config.parameters.lr_schedule.items():
        path: FieldPath = ("parameters", "lr_schedule", "choices", name)
        known = {parameter.name: parameter for parameter in SCHEDULES[name].parameters}
        found = False
        for key, distribution in drawn.items():
            if key not in known:
                what = f"is no parameter of {name}{suggestion(key, known)}; allowed: {', '.join(known) or 'none'}"
                yield Issue((*path, key), what)
                found = True
                continue
            for place, value in distribution.bounds_or_values().items():
                try:
                    known[key].check(value)
                except ValueError as error:
                    what = str(error).removeprefix(f"{key} ").replace(repr(value), shown(value))
                    yield Issue((*path, key, *place), what)
                    found = True
                    break
        corners = product(*(distribution.bounds_or_values().values() for distribution in drawn.values()))
        for values in islice(corners, 0 if found else 1000):
            try:
                check_parameters(name, dict(zip(drawn, values, strict=True)))
            except ValueError as error:
                yield Issue(path, str(error))
                break


def _plateau_issues(config: Config) -> Iterator[Issue]:
    """A `plateau` that waits for the metric to go the wrong way."""
    mode, goal = plateau_mode(config), config.metric.goal
    path: FieldPath = ("parameters", "lr_schedule", "choices", "plateau", "mode")
    drawn = config.parameters.lr_schedule.get("plateau", {}).get("mode")
    given: list[tuple[FieldPath, Any]] = []
    if drawn is not None:
        given += [((*path, *place), value) for place, value in drawn.bounds_or_values().items()]
    for i, one in enumerate(config.fixed):
        if one.lr_schedule == "plateau" and "mode" in one.parameters:
            given.append((("fixed", i, "mode"), one.parameters["mode"]))
    for place, value in given:
        if value != mode:
            yield Issue(place, f"must be {mode} (got {shown(value)}, metric.goal is {goal}); or leave it out")
