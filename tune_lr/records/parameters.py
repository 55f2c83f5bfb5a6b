"""The names of searched parameters in trials.csv, Optuna and W&B: step.gamma, optimizer.weight_decay, batch_size."""

from collections.abc import Mapping
from typing import Any

OPTIMIZER = "optimizer."  # what the qualified name of an optimizer's argument begins with
BATCH_SIZE = "batch_size"  # the qualified name of a batch size that is searched
LENGTH = "length"  # the qualified name of a trial's length, a fraction of max_steps, where trials have several
WITHOUT_OWNER = (BATCH_SIZE, LENGTH)  # these belong neither to an LR schedule nor to the optimizer


def split_parameters(qualified: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the LR schedule's parameters and the optimizer's, both unqualified.

    The optimizer's have its `name` among them where that is searched.
    """
    optimizer = {name.rpartition(".")[2]: v for name, v in qualified.items() if name.startswith(OPTIMIZER)}
    others = {name: v for name, v in qualified.items() if not name.startswith(OPTIMIZER) and name not in WITHOUT_OWNER}
    return {name.partition(".")[2]: v for name, v in others.items()}, optimizer


def optimizer_prefix(name: str) -> str:
    """Return what the qualified names of an optimizer's arguments begin with: "optimizer.adamw.".

    It is "optimizer." where no other optimizer is searched (`name` is "").
    """
    return f"{OPTIMIZER}{name}." if name else OPTIMIZER


def short_name(qualified: str) -> str:
    """Return a parameter's name beside its LR schedule: gamma, weight_decay, adamw.weight_decay, optimizer."""
    return "optimizer" if qualified == f"{OPTIMIZER}name" else qualified.partition(".")[2] or qualified


def setting(qualified: Mapping[str, Any]) -> str:
    """Return the optimizer and the batch size, as far as they are searched: "adamw, batch 64"; "" where neither is."""
    name, size = qualified.get(f"{OPTIMIZER}name"), qualified.get(BATCH_SIZE)
    return ", ".join([*([str(name)] if name else []), *([f"batch {size}"] if size else [])])


def whole_optimizer(base: Mapping[str, Any], searched: Mapping[str, Any]) -> dict[str, Any]:
    """Return the optimizer of a trial, its `name` and its arguments.

    What was `searched` lies over what the study says of `base`, where that is the same optimizer.
    """
    same = searched.get("name", base["name"]).lower() == base["name"].lower()
    return {**base, **searched} if same else dict(searched)
