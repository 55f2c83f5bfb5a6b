"""LR schedules as pure functions of the step: from a name and parameters to the LR (and momentum) of every step.

A schedule is one entry of `SCHEDULES`. To add one, write its formula and its `ScheduleSpec` here, and put it into the
table at the end. Its name and its colour in pictures go into `records.looks`. (onecycle and cyclic are in `cyclical`,
since they are long.) Every function computes what the class of the same shape in `torch.optim.lr_scheduler` computes,
in the same order of operations, so that training here and training with the PyTorch lines of `LRSchedule.code` give the
same curve. Nothing here imports torch.

The LR of a trial is its peak. A schedule scales it and never exceeds it. A `warmup` takes the LR linearly up to the
peak, and the schedule then runs over the steps that remain: its lengths count from the end of the warm-up, as with
torch's SequentialLR, and fractions are of those steps. Two schedules have no warm-up because they rise by themselves
(onecycle, cyclic), and one because SequentialLR refuses its class, ReduceLROnPlateau (plateau).

Notation

    symbol          meaning                                                       unit   shape
    p               parameters by name, lengths in steps (see `ScheduleSpec`)     -      -
    peak, lr        LR that the schedule scales                                   LR     ()
    step            index of a step after warm-up and flat part, from 0           steps  ()
    p["max_steps"]  steps after warm-up and flat part                             steps  ()
    p["floor"]      lowest LR / peak                                              1      ()
    floor           lowest LR                                                     LR     ()
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from tune_lr.lr.cyclical import CYCLIC, ONECYCLE
from tune_lr.lr.parameters import (
    Parameter,
    Parameters,
    decay_parameter,
    floor_parameter,
    fraction_parameter,
    length_parameter,
    warmup_parameters,
)
from tune_lr.lr.spec import ScheduleSpec
from tune_lr.lr.torch_code import Code

# --- constant


CONSTANT = ScheduleSpec(
    name="constant",
    doc="the peak LR at every step",
    parameters=warmup_parameters(),
    torch_class="ConstantLR",
    lr=lambda _p, peak, _step: float(peak),
    arguments=lambda p, _lr: {"factor": 1.0, "total_iters": p["max_steps"]},
)


# --- step


def _step_lr(p: Parameters, peak: float, step: int) -> float:
    return float(peak * p["gamma"] ** (step // p["step_size"]))


STEP = ScheduleSpec(
    name="step",
    # The defaults are how ResNets were trained. With 0.33 a fourth plateau would follow, a few steps long.
    doc="plateaus, each lower by gamma; by default three, at 1, 0.1 and 0.01 of the peak (He et al. 2016)",
    parameters=(
        length_parameter("step_size", 0.34, "length of a plateau"),
        decay_parameter("gamma", 0.1, "factor from plateau to plateau"),
        *warmup_parameters(),
    ),
    torch_class="StepLR",
    piecewise=True,
    lr=_step_lr,
    arguments=lambda p, _lr: {"step_size": p["step_size"], "gamma": p["gamma"]},
)


# --- exponential


def _exponential_reconcile(p: Parameters) -> Parameters:
    given = [name for name in ("final_factor", "gamma", "gamma_per_epoch") if p[name] is not None]
    if len(given) > 1:
        raise ValueError(
            f"{' and '.join(given)} contradict each other (got {', '.join(f'{name}={p[name]:g}' for name in given)}); "
            "allowed: one of final_factor, gamma, gamma_per_epoch"
        )
    return p if given else {**p, "final_factor": 0.01}


def _exponential_resolve(p: Parameters, max_steps: int, steps_per_epoch: int | None) -> Parameters:
    if p["final_factor"] is not None:
        return {**p, "gamma": p["final_factor"] ** (1 / max_steps)}
    if p["gamma_per_epoch"] is not None:
        if steps_per_epoch is None:
            raise ValueError(
                f"gamma_per_epoch wants the number of steps in an epoch (got {p['gamma_per_epoch']:g} without one); "
                "give steps_per_epoch, or final_factor or gamma in its place"
            )
        return {**p, "gamma": p["gamma_per_epoch"] ** (1 / steps_per_epoch)}
    return p


def _exponential_lr(p: Parameters, peak: float, step: int) -> float:
    return float(peak * p["gamma"] ** step)


EXPONENTIAL = ScheduleSpec(
    name="exponential",
    doc="falls by the same factor at every step; give one of its parameters",
    parameters=(
        decay_parameter("final_factor", None, "LR at max_steps / peak; 0.01 where none of the three is given"),
        decay_parameter("gamma", None, "factor from step to step"),
        decay_parameter("gamma_per_epoch", None, "factor from epoch to epoch, spread evenly over the steps"),
        *warmup_parameters(),
    ),
    torch_class="ExponentialLR",
    reconcile=_exponential_reconcile,
    resolve=_exponential_resolve,
    lr=_exponential_lr,
    arguments=lambda p, _lr: {"gamma": p["gamma"]},
)


# --- cosine


def _cosine_lr(p: Parameters, peak: float, step: int) -> float:
    floor = p["floor"] * peak
    return float(floor + (peak - floor) * (1 + math.cos(math.pi * step / p["max_steps"])) / 2)


def _cosine_arguments(p: Parameters, lr: float) -> dict[str, Any]:
    return {"T_max": p["max_steps"], "eta_min": p["floor"] * lr}


COSINE = ScheduleSpec(
    name="cosine",
    doc="falls from the peak to the floor along half a cosine (Loshchilov & Hutter 2017), without restarts",
    parameters=(floor_parameter(0.0), *warmup_parameters()),
    torch_class="CosineAnnealingLR",
    lr=_cosine_lr,
    arguments=_cosine_arguments,
)


# --- multistep


def _multistep_lr(p: Parameters, peak: float, step: int) -> float:
    # Milestones that coincide, as fractions of a small budget may, count each: so they do in torch.
    return float(peak * p["gamma"] ** bisect_right(p["milestones"], step))


MULTISTEP = ScheduleSpec(
    name="multistep",
    doc="falls by gamma at each milestone; by default at half and at three quarters (He et al. 2016)",
    parameters=(
        Parameter(
            "milestones",
            (0.5, 0.75),
            "lengths",
            "where it falls: a list of fractions of max_steps, or of steps",
        ),
        decay_parameter("gamma", 0.1, "factor at each milestone"),
        *warmup_parameters(),
    ),
    torch_class="MultiStepLR",
    piecewise=True,
    lr=_multistep_lr,
    arguments=lambda p, _lr: {"milestones": list(p["milestones"]), "gamma": p["gamma"]},
)


# --- cosine_restarts


def _cosine_restarts_lr(p: Parameters, peak: float, step: int) -> float:
    floor, length = p["floor"] * peak, p["t_0"]
    while step >= length:
        if p["t_mult"] == 1:
            step %= length
        else:
            step, length = step - length, length * p["t_mult"]
    return float(floor + (peak - floor) * (1 + math.cos(math.pi * step / length)) / 2)


COSINE_RESTARTS = ScheduleSpec(
    name="cosine_restarts",
    doc="half a cosine again and again, each time from the peak (Loshchilov & Hutter 2017)",
    parameters=(
        # 1 + 2 + 4 of these are the whole. Rounded down, a last restart would end training at the peak.
        length_parameter("t_0", 0.143, "length of the first cycle", rounded_up=True),
        Parameter("t_mult", 2, "integer", "how many times longer each cycle is than the last", 1, 10),
        floor_parameter(0.0),
        *warmup_parameters(),
    ),
    torch_class="CosineAnnealingWarmRestarts",
    lr=_cosine_restarts_lr,
    arguments=lambda p, lr: {"T_0": p["t_0"], "T_mult": p["t_mult"], "eta_min": p["floor"] * lr},
)


# --- polynomial


def _polynomial_lr(p: Parameters, peak: float, step: int) -> float:
    return float(peak * (1 - step / p["max_steps"]) ** p["power"])


POLYNOMIAL = ScheduleSpec(
    name="polynomial",
    doc="falls to 0 as a power of the steps that are left; by default the square (You et al. 2017)",
    parameters=(
        Parameter("power", 2.0, "number", "of the steps that are left; 1 is a straight line", 0.0, 10.0, low_open=True),
        *warmup_parameters(),
    ),
    torch_class="PolynomialLR",
    lr=_polynomial_lr,
    arguments=lambda p, _lr: {"total_iters": p["max_steps"], "power": p["power"]},
)


# --- linear


def _linear_lr(p: Parameters, peak: float, step: int) -> float:
    return float(peak * (1 + (p["floor"] - 1) * step / p["max_steps"]))


def _linear_arguments(p: Parameters, _lr: float) -> dict[str, Any]:
    return {"start_factor": 1.0, "end_factor": p["floor"], "total_iters": p["max_steps"]}


LINEAR = ScheduleSpec(
    name="linear",
    doc="falls from the peak to the floor in a straight line",
    parameters=(floor_parameter(0.0), *warmup_parameters()),
    torch_class="LinearLR",
    lr=_linear_lr,
    arguments=_linear_arguments,
)


# --- inverse_sqrt


def _inverse_sqrt_resolve(p: Parameters, _max_steps: int, _steps_per_epoch: int | None) -> Parameters:
    return {**p, "timescale": p["warmup"] if p["timescale"] is None else p["timescale"]}


def _inverse_sqrt_lr(p: Parameters, peak: float, step: int) -> float:
    return float(peak * (p["timescale"] / (p["timescale"] + step)) ** 0.5)


def _inverse_sqrt_arguments(p: Parameters, _lr: float) -> dict[str, Any]:
    return {"lr_lambda": Code(f"lambda step: ({p['timescale']} / ({p['timescale']} + step)) ** 0.5")}


INVERSE_SQRT = ScheduleSpec(
    name="inverse_sqrt",
    doc="rises to the peak, then falls with the square root of the step (Vaswani et al. 2017)",
    parameters=(
        length_parameter("timescale", None, "length of the fall to 0.71 of the peak, warmup where absent"),
        *warmup_parameters(0.1),
    ),
    torch_class="LambdaLR",
    resolve=_inverse_sqrt_resolve,
    lr=_inverse_sqrt_lr,
    arguments=_inverse_sqrt_arguments,
)


# --- wsd


WSD = ScheduleSpec(
    name="wsd",
    doc="warm-up, stable, decay: rises, stays at the peak, falls in a straight line (Hu et al. 2024)",
    parameters=(
        length_parameter("decay", 0.2, "length of the fall"),
        floor_parameter(0.0),
        *warmup_parameters(0.1),
    ),
    torch_class="LinearLR",
    flat=lambda p, max_steps: max(0, max_steps - p["decay"]),
    lr=_linear_lr,
    arguments=_linear_arguments,
)


# --- flat_cosine


FLAT_COSINE = ScheduleSpec(
    name="flat_cosine",
    doc="stays at the peak, then falls to the floor along half a cosine",
    parameters=(length_parameter("flat", 0.72, "length of the stay"), floor_parameter(0.0), *warmup_parameters()),
    torch_class="CosineAnnealingLR",
    flat=lambda p, _max_steps: int(p["flat"]),
    lr=_cosine_lr,
    arguments=_cosine_arguments,
)


# --- plateau


_VALIDATIONS = 10  # in the budget, where a plateau is drawn


def _plateau_reconcile(p: Parameters) -> Parameters:
    if p["threshold_mode"] == "rel" and p["threshold"] >= 1:
        raise ValueError(
            f"threshold is out of range in threshold_mode rel (got {p['threshold']:g}); allowed: a number in [0, 1)"
        )
    return p


def _plateau_lr(p: Parameters, peak: float, step: int) -> float:
    """As if every validation after the first were no better: the LR falls as early and as often as it can."""
    worse = step * _VALIDATIONS // p["max_steps"] - 1
    first = p["patience"] + 1
    drops = 0 if worse < first else 1 + (worse - first) // (first + p["cooldown"])
    return float(max(peak * p["factor"] ** drops, p["floor"] * peak))


def _plateau_arguments(p: Parameters, lr: float) -> dict[str, Any]:
    shape = ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown")
    # torch's own eps, 1e-8, would end the fall of a small LR early.
    return {**{name: p[name] for name in shape}, "min_lr": p["floor"] * lr, "eps": 0.0}


PLATEAU = ScheduleSpec(
    name="plateau",
    doc="falls by a factor where validations stop improving; drawn as if none improved after the first",
    parameters=(
        Parameter("mode", "min", "choice", "how the metric improves: as metric.goal says", choices=("min", "max")),
        fraction_parameter("factor", 0.1, "factor of each fall", low_open=True, high_open=True),
        # torch's own 10 are a whole trial here.
        Parameter("patience", 2, "integer", "validations that may be no better before the LR falls", 0),
        Parameter("threshold", 1e-4, "number", "an improvement smaller than this is none", 0.0),
        Parameter("threshold_mode", "rel", "choice", "relative to the best, or absolute", choices=("rel", "abs")),
        Parameter("cooldown", 0, "integer", "validations after a fall that do not count", 0),
        floor_parameter(0.0),
    ),
    torch_class="ReduceLROnPlateau",
    piecewise=True,
    by_metric=True,
    reconcile=_plateau_reconcile,
    lr=_plateau_lr,
    arguments=_plateau_arguments,
)


# --- all


SCHEDULES: Mapping[str, ScheduleSpec] = {
    spec.name: spec
    for spec in (
        CONSTANT,
        STEP,
        EXPONENTIAL,
        COSINE,
        ONECYCLE,
        CYCLIC,
        MULTISTEP,
        COSINE_RESTARTS,
        POLYNOMIAL,
        LINEAR,
        INVERSE_SQRT,
        WSD,
        FLAT_COSINE,
        PLATEAU,
    )
}
