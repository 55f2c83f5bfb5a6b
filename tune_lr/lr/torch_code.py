"""The PyTorch lines that build an LR schedule. Nothing here imports torch."""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from tune_lr.lr.parameters import Parameters
from tune_lr.lr.spec import ScheduleSpec


class Code(str):
    """A value that is written into the lines as it stands, without quotes."""

    __repr__ = str.__str__


def torch_code(spec: ScheduleSpec, p: Parameters, max_steps: int, lr: float, *, cycle_momentum: bool) -> str:
    """Return the PyTorch lines that define `scheduler`, complete with every number.

    `p` are the resolved parameters of the schedule, `max_steps` is the whole budget, and `lr` that of the optimizer.
    See `LRSchedule.code`.
    """
    arguments = spec.arguments(p, float(lr))
    if spec.cycles_momentum:
        arguments["cycle_momentum"] = cycle_momentum
        if cycle_momentum:
            arguments |= {name: p[name] for name in ("base_momentum", "max_momentum")}
    first_parts = _warmup_and_flat(p)
    if first_parts:
        schedulers = [call for _, call in first_parts] + [_scheduler_call(spec.torch_class, arguments)]
        listed = "".join(f"        {call},\n" for call in schedulers)
        milestones = list(accumulate(steps for steps, _ in first_parts))
        sequence = {"schedulers": Code(f"[\n{listed}    ]"), "milestones": milestones}
        scheduler = _scheduler_call("SequentialLR", sequence, argument_per_line=True)
    else:
        scheduler = _scheduler_call(spec.torch_class, arguments, argument_per_line=True)
    steps = f"step() after every optimizer step, {max_steps} in all"
    return (
        "import torch\n\n"
        f"# `optimizer` was built with lr={float(lr)!r}.\n"
        f"# Call scheduler.{'step(metric) after every validation' if spec.by_metric else steps}.\n"
        f"scheduler = {scheduler}\n"
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
