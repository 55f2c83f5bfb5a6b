"""torch's optimizers by name, their arguments checked."""

import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch.optim import Optimizer

from tune_lr.errors import InputError, suggestion

_CLASSES = {
    name.lower(): value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, Optimizer) and value is not Optimizer
}
# LBFGS calls the loss several times a step; SparseAdam takes sparse gradients only.
_UNSUITED = ("lbfgs", "sparseadam")


def make_optimizer(name: str, arguments: Mapping[str, Any], groups: list[dict[str, Any]]) -> Optimizer:
    """Builds torch's optimizer of that name, in any case ("sgd", "AdamW"). A group's own settings win.

    Raises InputError for an unknown name, an unknown argument or a value that the optimizer refuses.
    """
    known = sorted(set(_CLASSES) - set(_UNSUITED))
    cls: Any = _CLASSES.get(name.lower())
    if cls is None or name.lower() in _UNSUITED:
        hint = suggestion(name.lower(), known)
        raise InputError(f"optimizer.name: no such optimizer (got {name!r}){hint}; known: {', '.join(known)}")
    allowed = [key for key in inspect.signature(cls).parameters if key not in ("params", "lr")]
    for key in arguments:
        if key not in allowed:
            hint = suggestion(key, allowed)
            raise InputError(f"optimizer.{key}: {cls.__name__} has no such argument{hint}; it has {', '.join(allowed)}")
    converted: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()
    }
    try:
        return cast(Optimizer, cls(groups, lr=1.0, **converted))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"optimizer: {cls.__name__} refuses its arguments: {error} (got {dict(arguments)!r})"
        ) from None


def cycles_momentum(optimizer: Optimizer) -> bool:
    """Whether a schedule that cycles momentum may: torch's own would switch it on in plain SGD, which changes the
    optimizer that the user asked for."""
    defaults = optimizer.defaults
    return bool(defaults.get("momentum")) or "betas" in defaults
