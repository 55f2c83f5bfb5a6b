"""The PyTorch lines that build an LR schedule. Nothing here imports torch."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from tune_lr.lr.parameters import Parameters
from tune_lr.lr.spec import ScheduleSpec


class Code(str):
    """A value that is written into the lines as it stands, without quotes."""

    __repr__ = str.__str__


# Arguments of torch's classes that take a list, one value a group.
_BY_GROUP = ("max_lr", "base_lr", "min_lr")


def torch_code(
    spec: ScheduleSpec,
    p: Parameters,
    max_steps: int,
    lr: float,
    *,
    cycle_momentum: bool,
    ratios: Sequence[float] = (),
) -> str:
    """Return the PyTorch lines that define `scheduler`, complete with every number.

    `p` are the resolved parameters of the schedule, `max_steps` is the whole budget, and `lr` that of the optimizer.
    `ratios` are those of its groups' LRs to it. See `LRSchedule.code`.
    """
    torch_class, arguments, function = spec.torch_class, spec.arguments(p, float(lr)), ""
    if any(ratio != 1.0 for ratio in ratios):
        torch_class, arguments, function = _for_groups(spec, p, float(lr), ratios)
    if spec.cycles_momentum:
        arguments["cycle_momentum"] = cycle_momentum
        if cycle_momentum:
            arguments |= {name: p[name] for name in ("base_momentum", "max_momentum")}
    first_parts = _warmup_and_flat(p)
    if first_parts:
        schedulers = [call for _, call in first_parts] + [_scheduler_call(torch_class, arguments)]
        listed = "".join(f"        {call},\n" for call in schedulers)
        milestones = list(accumulate(steps for steps, _ in first_parts))
        sequence = {"schedulers": Code(f"[\n{listed}    ]"), "milestones": milestones}
        scheduler = _scheduler_call("SequentialLR", sequence, argument_per_line=True)
    else:
        scheduler = _scheduler_call(torch_class, arguments, argument_per_line=True)
    steps = f"step() after every optimizer step, {max_steps} in all"
    return (
        f"import torch\n\n{function}"
        f"# `optimizer` was built with lr={float(lr)!r}.\n"
        f"# Call scheduler.{'step(metric) after every validation' if spec.by_metric else steps}.\n"
        f"scheduler = {scheduler}\n"
    )


def _for_groups(
    spec: ScheduleSpec, p: Parameters, lr: float, ratios: Sequence[float]
) -> tuple[str, dict[str, Any], str]:
    """Return torch's class and its arguments for groups with other LRs, whose ratios the schedule keeps.

    Where an argument is an LR, it becomes a list, one value a group. The floor of torch's two cosines is one LR for all
    groups, so above 0 they are written as a factor of each group's own LR. The third value are the lines of that
    function, or "".
    """
    arguments = spec.arguments(p, lr)
    if arguments.get("eta_min"):
        lines = ["import math\n", "", "def factor(step):"]
        length = arguments.get("T_max")
        if length is None:
            length = "length"
            lines += [
                f"    length = {arguments['T_0']}",
                "    while step >= length:",
                f"        step, length = step - length, length * {arguments['T_mult']}",
            ]
        height = f"(1 + math.cos(math.pi * step / {length})) / 2"
        lines += [f"    return {p['floor']} + (1 - {p['floor']}) * {height}", "\n"]
        return "LambdaLR", {"lr_lambda": Code("factor")}, "\n".join(lines)
    for name in _BY_GROUP:
        if name in arguments:
            arguments[name] = [arguments[name] * ratio for ratio in ratios]
    return spec.torch_class, arguments, ""


def groups_code(groups: Sequence[Mapping[str, Any]], lr: float, *, decay_all: bool) -> str:
    """Return the lines that define `groups` for an optimizer of `model`; "" where one group of all parameters is meant.

    A group's "lr" is its ratio to `lr`, and its "params" are Python expressions. Without `decay_all`, norms and biases
    have no weight decay.
    """
    if not groups and decay_all:
        return ""
    lines = []
    for group in groups or ({"params": ["*model.parameters()"]},):
        settings = {key: value for key, value in group.items() if key not in ("params", "lr")}
        if groups:
            settings = {"lr": group.get("lr", 1.0) * lr, **settings}
        given = "".join(f', "{key}": {value!r}' for key, value in settings.items())
        lines.append(f'    {{"params": [{", ".join(group["params"])}]{given}}},\n')
    text = f"groups = [\n{''.join(lines)}]\n"
    if decay_all:
        return text
    return text + (
        "groups = [\n"
        '    {**group, "params": params, **settings}\n'
        "    for group in groups\n"
        "    for params, settings in (\n"
        '        ([p for p in group["params"] if p.dim() > 1], {}),\n'
        '        ([p for p in group["params"] if p.dim() <= 1], {"weight_decay": 0.0}),\n'
        "    )\n"
        "]\n"
    )


def _warmup_and_flat(p: Parameters) -> list[tuple[int, str]]:
    """Return the parts of a schedule before its own torch class: how many steps each takes, and its scheduler."""
    parts = []
    if p["warmup"]:
        rise = {"start_factor": p["warmup_start"], "total_iters": p["warmup"]}
        parts.append((p["warmup"], _scheduler_call("LinearLR", rise)))
    if p["flat"]:
        parts.append((p["flat"], _scheduler_call("ConstantLR", {"factor": 1.0, "total_iters": p["flat"]})))
    return parts


def _scheduler_call(torch_class: str, arguments: Mapping[str, Any], *, argument_per_line: bool = False) -> str:
    """Return the call that builds a scheduler, on one line or with a line for each argument."""
    given = ["optimizer", *(f"{name}={value!r}" for name, value in arguments.items())]
    if argument_per_line:
        lines = "".join(f"    {argument},\n" for argument in given)
        return f"torch.optim.lr_scheduler.{torch_class}(\n{lines})"
    return f"torch.optim.lr_scheduler.{torch_class}({', '.join(given)})"
