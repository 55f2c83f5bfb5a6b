"""The optimizer's parameter groups: checked, and as the lines of PyTorch build them that a study ends with."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from tune_lr.errors import InputError
from tune_lr.workloads import Workload, listed_groups


def param_groups(workload: Workload, model: nn.Module, decay_all: bool) -> list[dict[str, Any]]:
    """Return the optimizer's groups; "lr" is a ratio here, 1 where the workload names none.

    Raises InputError for parameters that are not the model's: they would keep from trial to trial what they have
    learned, the workers would not exchange their gradients, and the winner's file would lack them.
    """
    groups = _whole_groups(workload, model)
    if decay_all:
        return groups
    return [
        {**group, "params": params, **settings}
        for group in groups
        for params, settings in (
            ([parameter for parameter in group["params"] if parameter.dim() > 1], {}),
            ([parameter for parameter in group["params"] if parameter.dim() <= 1], {"weight_decay": 0.0}),
        )
        if params
    ]


def _whole_groups(workload: Workload, model: nn.Module) -> list[dict[str, Any]]:
    groups = workload.param_groups(model) if workload.param_groups else [{"params": model.parameters()}]
    whole = [{"lr": 1.0, **group} for group in listed_groups(groups)]
    own = {id(parameter) for parameter in model.parameters()}
    strange = [list(p.shape) for group in whole for p in group["params"] if id(p) not in own]
    if strange:
        raise InputError(
            f"workload: param_groups holds {len(strange)} parameter{'s' if len(strange) > 1 else ''} that "
            f"{'are' if len(strange) > 1 else 'is'} not in the model (shapes {', '.join(map(str, strange[:3]))}), and "
            "so would pass from trial to trial what they have learned; put them into the model, as a submodule of it"
        )
    return whole


def described_groups(workload: Workload, model: nn.Module) -> tuple[Mapping[str, Any], ...]:
    """Return the workload's groups as plain data: the settings of each, and under "params" Python expressions.

    The expressions name the parameters of `model`. Whole submodules stand for their parameters. It is empty where the
    workload leaves all parameters in one group.
    """
    if workload.param_groups is None:
        return ()
    described = []
    for group in _whole_groups(workload, model):
        ids = {id(parameter) for parameter in group["params"]}
        settings = {key: value for key, value in group.items() if key != "params" and _is_plain(value)}
        described.append({**settings, "params": list(_expressions(model, "model", ids, set()))})
    return tuple(described)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _expressions(module: nn.Module, path: str, ids: set[int], done: set[int]) -> Iterator[str]:
    """Yield what a list of exactly these parameters of a module is written with, each once."""
    own = {id(parameter) for parameter in module.parameters()} - done
    if own and own <= ids:
        done |= own
        yield f"*{path}.parameters()"
        return
    for name, parameter in module.named_parameters(recurse=False):
        if id(parameter) in ids and id(parameter) not in done:
            done.add(id(parameter))
            yield f"{path}.{name}"
    for name, child in module.named_children():
        below = f"{path}.{name}" if name.isidentifier() else f"{path}[{_key(module, name)}]"
        yield from _expressions(child, below, ids, done)


def _key(module: nn.Module, name: str) -> str:
    return name if isinstance(module, nn.Sequential | nn.ModuleList) else repr(name)
