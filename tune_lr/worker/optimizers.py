"""Builds optimizers by name, torch's and ColossalAI's, with their arguments checked.

A name such as "my_module:Lion" is a class of the user's own. ColossalAI is imported only when one of its own optimizers
is built.
"""

import importlib
import inspect
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tune_lr.config.optimizers import COLOSSALAI, CUDA_ONLY, REFUSED, colossalai_class
from tune_lr.errors import InputError, one_line, suggestion

if TYPE_CHECKING:
    from torch.optim import Optimizer


def make_optimizer(name: str, arguments: Mapping[str, Any], groups: list[dict[str, Any]]) -> "Optimizer":
    """Build the optimizer of that name, in any case ("sgd", "AdamW", "LAMB"), or the class of "my_module:Lion".

    A group's own settings win.

    Raises InputError for a name that is unknown or cannot serve here, and for an argument that is unknown, of another
    type than its default, or refused by the optimizer.
    """
    cls = _class(name)
    title = colossalai_class(name) or cls.__name__
    settings = {parameter.name: parameter.default for parameter in _settings(cls)}
    for key, value in arguments.items():
        if key not in settings:
            hint, known = suggestion(key, settings), ", ".join(settings)
            raise InputError(f"optimizer.{key}: {title} has no such argument{hint}; it has {known}")
        wanted = _wanted(value, settings[key])
        if wanted:
            raise InputError(f"optimizer.{key}: must be {wanted} for {title} (got {value!r})")
    converted = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # GaLoreAdamW recommends torch's AdamW
            optimizer: Optimizer = cls(groups, lr=1.0, **converted)
    except Exception as error:
        why = one_line(error) or "a value is out of its range"  # a bare assertion says nothing
        raise InputError(f"optimizer: {title} refuses its arguments: {why} (got {dict(arguments)!r})") from None
    return optimizer


def cycles_momentum(optimizer: "Optimizer") -> bool:
    """Whether a schedule that cycles momentum may: torch's own would switch it on in plain SGD, which changes the
    optimizer that the user asked for."""
    defaults = optimizer.defaults
    return bool(defaults.get("momentum")) or "betas" in defaults


def _class(name: str) -> Any:
    import torch
    from torch.optim import Optimizer

    if ":" in name:
        return _own_class(name)
    classes = {
        key.lower(): value
        for key, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, Optimizer) and value is not Optimizer and key not in REFUSED
    }
    colossal = colossalai_class(name)
    if colossal in CUDA_ONLY and not torch.cuda.is_available():
        what = f"ColossalAI's {colossal} needs kernels for CUDA, and this worker has no GPU"
        raise InputError(f"optimizer.name: {what} (got {name!r}); use {CUDA_ONLY[colossal]}")
    if colossal:
        from tune_lr.worker.colossal import optimizer_class

        return optimizer_class(colossal)
    if name.lower() in classes:
        return classes[name.lower()]
    for key, why in REFUSED.items():
        if name.lower() == key.lower():
            raise InputError(f"optimizer.name: {key} {why} (got {name!r}); use another one")
    known = sorted([*classes, *(key.lower() for key in COLOSSALAI)])
    hint = suggestion(name.lower(), known)
    raise InputError(f"optimizer.name: no such optimizer (got {name!r}){hint}; known: {', '.join(known)}")


def _own_class(name: str) -> Any:
    """Return the class of the user's own that "module:Class" names. Raise InputError where that is no optimizer."""
    from torch.optim import Optimizer

    from tune_lr.workloads import without_exit

    module_name, _, class_name = name.partition(":")
    try:
        module = without_exit(lambda: importlib.import_module(module_name), f"importing {module_name}")
    except InputError:
        raise
    except Exception as error:
        what = f"importing {module_name} raised {type(error).__name__}: {one_line(error)}"
        raise InputError(f"optimizer.name: {what} (got {name!r})") from error
    cls = getattr(module, class_name, None)
    if not (inspect.isclass(cls) and issubclass(cls, Optimizer)):
        known = [key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, Optimizer)]
        hint = suggestion(class_name, known)
        raise InputError(
            f"optimizer.name: {module_name} has no class {class_name!r} that is a torch.optim.Optimizer{hint}"
            f" (got {name!r})"
        )
    if "lr" not in inspect.signature(cls).parameters:
        raise InputError(f"optimizer.name: {class_name} takes no argument lr, which an LR schedule sets (got {name!r})")
    return cls


def _settings(cls: type) -> list[inspect.Parameter]:
    """The arguments that a user may set: all but the parameters, which come first, and the LR."""
    parameters = list(inspect.signature(cls).parameters.values())[1:]
    return [p for p in parameters if p.name != "lr" and p.kind is not inspect.Parameter.VAR_KEYWORD]


def _wanted(value: Any, default: Any) -> str:
    """What a value has to be where the default is this one, in words; "" where it is. None says nothing of the type."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(default, int | float):
        return "" if number else "a number"
    if isinstance(default, tuple):
        right = isinstance(value, list | tuple) and len(value) == len(default)
        return "" if right else f"a list of {len(default)} numbers"
    if isinstance(default, str):
        return "" if isinstance(value, str) else "text"
    return "" if number or isinstance(value, bool) else "a number, true or false"
