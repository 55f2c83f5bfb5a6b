"""The PyTorch lines that build an LR schedule. Nothing here imports torch."""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from tune_lr.lr.parameters import Parameters
from tune_lr.lr.spec import ScheduleSpec


class Code(str):
    """Code, where `LRSchedule.code` writes values."""

    __repr__ = str.__str__


def torch_code(spec: ScheduleSpec, resolved: Parameters, max_steps: int, lr: float, *, cycle_momentum: bool) -> str:
    """The PyTorch lines that define `scheduler`, complete with every number, for an `optimizer` built with `lr`.

    `cycle_momentum` says whether one-cycle and cyclic also move momentum. Give False for an optimizer that has
    none: torch would switch plain SGD's momentum on. The lines are for parameter groups that share one LR.
    """
    p = resolved
    arguments = spec.arguments(p, float(lr))
    if spec.cycles_momentum:
        arguments["cycle_momentum"] = cycle_momentum
        if cycle_momentum:
            arguments |= {name: p[name] for name in ("base_momentum", "max_momentum")}
    before: list[tuple[int, str]] = []  # steps, and the scheduler of these steps
    if p["warmup"]:
        rise = {"start_factor": p["warmup_start"], "total_iters": p["warmup"]}
        before.append((p["warmup"], scheduler_call("LinearLR", rise)))
    if p["flat"]:
        before.append((p["flat"], scheduler_call("ConstantLR", {"factor": 1.0, "total_iters": p["flat"]})))
    if before:
        schedulers = [scheduler for _, scheduler in before] + [scheduler_call(spec.torch_class, arguments)]
        listed = "".join(f"        {scheduler},\n" for scheduler in schedulers)
        milestones = list(accumulate(steps for steps, _ in before))
        together = {"schedulers": Code(f"[\n{listed}    ]"), "milestones": milestones}
        scheduler = scheduler_call("SequentialLR", together, "\n")
    else:
        scheduler = scheduler_call(spec.torch_class, arguments, "\n")
    steps = f"step() after every optimizer step, {max_steps} in all"
    return (
        "import torch\n\n"
        f"# `optimizer` was built with lr={float(lr)!r}.\n"
        f"# Call scheduler.{'step(metric) after every validation' if spec.by_metric else steps}.\n"
        f"scheduler = {scheduler}\n"
    )


def scheduler_call(torch_class: str, arguments: Mapping[str, Any], end: str = "") -> str:
    """The call that builds a scheduler: on one line, or with `end` a newline one argument a line."""
    given = ["optimizer", *(f"{name}={value!r}" for name, value in arguments.items())]
    inner = "".join(f"    {one},\n" for one in given) if end else ", ".join(given)
    return f"torch.optim.lr_scheduler.{torch_class}({end}{inner})"
