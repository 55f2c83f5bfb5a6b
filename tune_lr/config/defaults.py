"""Defaults that follow from other fields of a configuration."""

from typing import Any

from tune_lr.config.lengths import DEFAULT_BUDGET
from tune_lr.config.model import Config
from tune_lr.config.parameters import Distribution
from tune_lr.config.phases import MOST_REPLICATES, Confirm
from tune_lr.config.training import Optimizer
from tune_lr.lr.training_length import REFERENCE_STEPS

# The ramps of a ladder whose number is not said take at most this part of a full training: what they show is shown by
# short trainings too.
RAMPS_OF_A_LADDER = 0.1
# The stairs of a staircase that does not say them: five a decade over six decades.
STAIRS = 30


def with_defaults(config: Config) -> Config:
    """Return the configuration with the fields filled in that were left out and follow from others."""
    for fill_in in (
        _with_base,
        _with_min_steps,
        _with_lengths,
        _with_replicates,
        _with_stairs,
        _with_training_steps,
        _with_plateau_mode,
    ):
        config = fill_in(config)
    return config


def _with_base(config: Config) -> Config:
    """Fill in the batch size and the optimizer that the study's own figures are of, where these are searched.

    They are the first ones of those searched. The study's steps, ramps and fixed configurations are of them.
    """
    sizes = config.parameters.batch_size
    first_optimizer = next(iter(config.parameters.optimizer))
    update: dict[str, Any] = {}
    if sizes and config.batch_size is None:
        update["batch_size"] = sizes[0]
    if first_optimizer and "optimizer" not in config.model_fields_set:
        update["optimizer"] = Optimizer(name=first_optimizer)
    return config.model_copy(update=update)


def _with_min_steps(config: Config) -> Config:
    """Fill in the first rung: the report at or after `max_steps / reduction_factor**2`."""
    pruner = config.pruner
    if pruner.name == "none" or pruner.min_steps is not None:
        return config
    reports = max(1, -(-config.max_steps // (config.report_every * pruner.reduction_factor**2)))
    pruner = pruner.model_copy(update={"min_steps": reports * config.report_every})
    return config.model_copy(update={"pruner": pruner})


def _with_lengths(config: Config) -> Config:
    """Turn "auto" into "full", and fill in what follows from a ladder.

    That is a budget, and no confirmation but one that is written: a confirmation takes full trainings, and a single one
    of these may be all that the budget holds.
    """
    update: dict[str, Any] = {}
    lengths = config.lengths
    if lengths == "auto":
        lengths = "full"
        update["lengths"] = lengths
    if lengths != "full":
        if config.budget is None:
            update["budget"] = DEFAULT_BUDGET
        if "confirm" not in config.model_fields_set:
            update["confirm"] = Confirm(top=0)
    return config.model_copy(update=update)


def _with_replicates(config: Config) -> Config:
    """Fill in as many ramps as together take no longer than one training, of a ladder than a tenth of one.

    One ramp is read nearly as well as three (docs/search.md), so only those have more to whom they cost little.
    """
    ramp = config.range_test
    if "replicates" in ramp.model_fields_set:
        return config
    share = RAMPS_OF_A_LADDER if config.ladder else 1.0
    affordable = max(1, int(share * config.max_steps) // ramp.steps)
    ramp = ramp.model_copy(update={"replicates": min(MOST_REPLICATES, affordable)})
    return config.model_copy(update={"range_test": ramp})


def _with_stairs(config: Config) -> Config:
    ramp = config.range_test
    if ramp.mode != "staircase" or ramp.stairs is not None:
        return config
    ramp = ramp.model_copy(update={"stairs": min(STAIRS, ramp.steps)})
    return config.model_copy(update={"range_test": ramp})


def _with_training_steps(config: Config) -> Config:
    """Fill in the length of the trainings that the LR bounds are for."""
    ramp = config.range_test
    if ramp.training_steps is not None:
        return config
    steps = min(config.max_steps, REFERENCE_STEPS) if config.ladder else config.max_steps
    return config.model_copy(update={"range_test": ramp.model_copy(update={"training_steps": steps})})


def _with_plateau_mode(config: Config) -> Config:
    """Fill in the mode of a `plateau` that does not say it, where the metric is maximized."""
    mode = config.metric.plateau_mode
    choices = config.parameters.lr_schedule
    if mode == "min":  # This is the default already.
        return config
    fixed = tuple(
        each.model_copy(update={"mode": mode})
        if each.lr_schedule == "plateau" and "mode" not in each.parameters
        else each
        for each in config.fixed
    )
    if "plateau" in choices:
        choices = {**choices, "plateau": {"mode": Distribution(value=mode), **choices["plateau"]}}
    parameters = config.parameters.model_copy(update={"lr_schedule": choices})
    return config.model_copy(update={"parameters": parameters, "fixed": fixed})
