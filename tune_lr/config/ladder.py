"""Which lengths the trials of a configuration have, and what does not fit trials of several lengths."""

import math
from collections.abc import Iterator, Mapping

from tune_lr.config.lengths import (
    DEFAULT_BUDGET,
    LEAST_REPORTS,
    SHORTEST,
    length_text,
    steps_of_length,
)
from tune_lr.config.messages import FieldPath, Issue
from tune_lr.config.model import Config
from tune_lr.lr.schedules import SCHEDULES


def report_every_of(length: float, config: Config) -> int:
    """Return after how many steps a trial of that length is validated: at least twice in all."""
    return min(config.report_every, max(1, steps_of_length(length, config.max_steps) // LEAST_REPORTS))


def against_a_ladder(config: Config) -> dict[FieldPath, str]:
    """Return the fields that do not go with a ladder, by their path, and what is wrong with each."""
    searched = config.parameters
    found: dict[FieldPath, str] = {}
    if config.sampler.name != "gp":
        found[("sampler", "name")] = f"must be gp where trials have several lengths (got {config.sampler.name})"
    if config.pruner.name != "none":
        found[("pruner", "name")] = f"must be none where trials have several lengths (got {config.pruner.name})"
    if config.spending and config.spending.seconds is not None:
        what = "must be in full trainings where trials have several lengths"
        found[("budget",)] = f"{what} (got {config.budget}); write, for example, {DEFAULT_BUDGET}"
    for name, several in (("batch_size", searched.batch_size), ("optimizer", any(searched.optimizer))):
        if several:
            what = "cannot be searched together with lengths; fix it, or write lengths: full"
            found[("parameters", name)] = what
    return found


def ladder_issues(config: Config) -> Iterator[Issue]:
    """Yield what does not fit a ladder."""
    if not config.ladder:
        return
    yield from (Issue(path, what) for path, what in against_a_ladder(config).items())
    shortest, full = config.ladder[0], config.max_steps
    steps = steps_of_length(shortest, full)
    if steps < SHORTEST:
        what = f"would be {steps} steps (got {length_text(shortest)} of {full}); allowed: at least {SHORTEST} steps, "
        yield Issue(("lengths", 0), what + f"so from {length_text(-(-SHORTEST * 1000 // full) / 1000)} up")
        return
    yield from _budget_issues(config)
    for path, count in _step_counts(config):
        if count >= steps:
            what = f"does not fit the shortest length, {length_text(shortest)} or {steps} steps (got {count} steps)"
            yield Issue(path, f"{what}; write a fraction of max_steps, or leave out lengths up to {count} steps")


def least_steps(config: Config) -> int:
    """Return the steps of the ramps, the fixed configurations and one trial of each length but the full one."""
    full = config.max_steps
    ramp = config.range_test
    ramp_steps = ramp.replicates * ramp.steps if config.parameters.lr.needs_range_test else 0
    shorter = sum(steps_of_length(length, full) for length in config.ladder[:-1])
    return ramp_steps + len(config.fixed) * full + shorter


def budget_of(steps: float, config: Config) -> str:
    """Return the smallest budget of full trainings, to a hundredth, that holds so many steps: "1.33x"."""
    return f"{math.ceil(100 * steps / config.max_steps) / 100:g}x"


def _budget_issues(config: Config) -> Iterator[Issue]:
    """Yield a budget that does not hold the ramps and one trial of each shorter length."""
    full = config.max_steps
    least = least_steps(config)
    if not config.spending or (config.spending.steps(full) or 0) >= least:
        return
    shorter = sum(steps_of_length(length, full) for length in config.ladder[:-1])
    what = f"buys not one trial of each shorter length (got {config.budget}): they take {shorter:,} steps"
    others = {"ramps up to": least - shorter - len(config.fixed) * full, "fixed ones": len(config.fixed) * full}
    what += "".join(f", {name} {steps:,}" for name, steps in others.items() if steps)
    prediction, training = budget_of(least, config), budget_of(least + full, config)
    what += f"; allowed: from {prediction} up for a prediction, from {training} up with a full training at the end"
    yield Issue(("budget",), what)


def _step_counts(config: Config) -> Iterator[tuple[FieldPath, int]]:
    """Yield the lengths inside the LR schedules that are given in steps, by their path."""
    for name, drawn in config.parameters.lr_schedule.items():
        kinds: Mapping[str, str] = {parameter.name: parameter.kind for parameter in SCHEDULES[name].parameters}
        for key, distribution in drawn.items():
            if kinds.get(key) not in ("length", "lengths"):
                continue
            for place, value in distribution.bounds_or_values().items():
                for count in value if isinstance(value, list | tuple) else [value]:
                    if isinstance(count, int) and not isinstance(count, bool) and count > 1:
                        yield ("parameters", "lr_schedule", "choices", name, key, *place), count
