"""Optimizers by name: torch's and ColossalAI's, their arguments checked, and what has to be known of each.

Importing this module loads no torch, since `best` and `terminal` ask it too. ColossalAI is loaded when one of its own
is made.
"""

import inspect
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tune_lr.errors import InputError, one_line, suggestion

if TYPE_CHECKING:
    from torch.optim import Optimizer

# ColossalAI's, by the names of their classes. Its Adafactor is not among them: torch's has the name, and ColossalAI's
# drops the LR that it is given.
COLOSSALAI = ("CAME", "GaLoreAdafactor", "GaLoreAdamW", "Lamb", "Lars")
# ColossalAI's that need kernels which it builds where there is CUDA, and what to take instead. Each of them raised on a
# CPU when it was tried with colossalai 0.5.0, CPUAdam too.
CUDA_ONLY = {"CPUAdam": "adamw", "FusedAdam": "adamw", "FusedLAMB": "lamb", "FusedSGD": "sgd", "HybridAdam": "adamw"}
_SHARDED = "takes the shards of ColossalAI's tensor parallelism, which sets it up by itself"
# Those that cannot serve here, and why.
REFUSED = {
    "LBFGS": "evaluates the loss several times a step, and here a step evaluates it once",
    "SparseAdam": "takes sparse gradients only",
    "Rprop": "reads the LR at its first step only, so that all LR schedules would be the same",
    "GaLoreAdamW8bit": "passes bitsandbytes an argument that it no longer has",
    "DistGaloreAwamW": _SHARDED,
    "DistributedAdaFactor": _SHARDED,
    "DistributedCAME": _SHARDED,
    "DistributedLamb": _SHARDED,
}
# Those that an LR range test does not suit, and why.
_UNSUITED_TO_RAMPS = {
    "adagrad": "Adagrad's own LR falls with every step, so that a ramp of few steps says too little about a full run",
    "adafactor": "Adafactor holds its LR below 1/sqrt(step), so that a ramp may never reach the LR that diverges",
}


def range_test_caveat(name: str) -> str | None:
    """Why an LR range test says little with the optimizer of that name, in one sentence; None where it suits."""
    why = _UNSUITED_TO_RAMPS.get(name.lower())
    return f"{why}; distrust its bounds, or give parameters.lr numbers" if why else None


def colossalai_class(name: str) -> str | None:
    """Which of ColossalAI's classes that name means, if any. A class may call itself otherwise: GaLoreAdamW's name is
    AdamW."""
    return next((key for key in (*COLOSSALAI, *CUDA_ONLY) if key.lower() == name.lower()), None)


def make_optimizer(name: str, arguments: Mapping[str, Any], groups: list[dict[str, Any]]) -> "Optimizer":
    """Builds the optimizer of that name, in any case ("sgd", "AdamW", "LAMB"). A group's own settings win.

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
    return "" if number or isinstance(value, bool) else "a number, true or false"
