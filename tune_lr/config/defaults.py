"""Defaults that follow from other fields of a configuration."""

from typing import Any

from tune_lr.config.model import Config
from tune_lr.config.parameters import Distribution
from tune_lr.config.phases import MOST_REPLICATES
from tune_lr.config.training import Optimizer


def with_defaults(config: Config) -> Config:
    return with_plateau_mode(with_stairs(with_replicates(with_min_steps(with_base(config)))))


# Of a staircase in the LR range test, where nothing else is said: five a decade over six decades.
STAIRS = 30


def with_base(config: Config) -> Config:
    """The batch size and the optimizer that the study's steps, ramps and fixed configurations are of, where they are
    searched and not said: the first ones."""
    sizes, names = config.parameters.batch_size, list(config.parameters.optimizer)
    update: dict[str, Any] = {}
    if sizes and config.batch_size is None:
        update["batch_size"] = sizes[0]
    if names[0] and "optimizer" not in config.model_fields_set:
        update["optimizer"] = Optimizer(name=names[0])
    return config.model_copy(update=update)


def with_min_steps(config: Config) -> Config:
    pruner = config.pruner
    if pruner.name == "none" or pruner.min_steps is not None:
        return config
    reports = max(1, -(-config.max_steps // (config.report_every * pruner.reduction_factor**2)))
    pruner = pruner.model_copy(update={"min_steps": reports * config.report_every})
    return config.model_copy(update={"pruner": pruner})


def with_replicates(config: Config) -> Config:
    """One ramp is read nearly as well as three (docs/search.md): more are for those to whom they cost little."""
    ramp = config.range_test
    if "replicates" in ramp.model_fields_set:
        return config
    affordable = max(1, config.max_steps // ramp.steps)
    ramp = ramp.model_copy(update={"replicates": min(MOST_REPLICATES, affordable)})
    return config.model_copy(update={"range_test": ramp})


def with_stairs(config: Config) -> Config:
    ramp = config.range_test
    if ramp.mode != "staircase" or ramp.stairs is not None:
        return config
    ramp = ramp.model_copy(update={"stairs": min(STAIRS, ramp.steps)})
    return config.model_copy(update={"range_test": ramp})


def plateau_mode(config: Config) -> str:
    return "max" if config.metric.goal == "maximize" else "min"


def with_plateau_mode(config: Config) -> Config:
    """Where the metric is maximized, a `plateau` that does not say its mode gets it."""
    mode, choices = plateau_mode(config), config.parameters.lr_schedule
    if mode == "min":  # the default
        return config
    fixed = tuple(
        one.model_copy(update={"mode": mode}) if one.lr_schedule == "plateau" and "mode" not in one.parameters else one
        for one in config.fixed
    )
    if "plateau" in choices:
        choices = {**choices, "plateau": {"mode": Distribution(value=mode), **choices["plateau"]}}
    parameters = config.parameters.model_copy(update={"lr_schedule": choices})
    return config.model_copy(update={"parameters": parameters, "fixed": fixed})
