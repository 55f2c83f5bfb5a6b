"""The LR schedules that cycle: onecycle and cyclic. They move the momentum (Adam: beta1) against the LR."""

import math
from typing import Any

from tune_lr.lr.parameters import (
    Parameter,
    Parameters,
    decay_parameter,
    floor_parameter,
    fraction_parameter,
    length_parameter,
    momentum_parameters,
)
from tune_lr.lr.spec import ScheduleSpec

# --- onecycle


def _check_momenta(p: Parameters) -> None:
    if p["base_momentum"] > p["max_momentum"]:
        raise ValueError(
            f"base_momentum is above max_momentum (got {p['base_momentum']:g} > {p['max_momentum']:g}); "
            "allowed: base_momentum <= max_momentum"
        )


def _onecycle_reconcile(p: Parameters) -> Parameters:
    _check_momenta(p)
    if p["three_phase"] and p["pct_start"] > 0.5:
        raise ValueError(
            f"pct_start leaves no room for the way down (got {p['pct_start']:g}); allowed with three_phase: at most 0.5"
        )
    return p


def _onecycle_resolve(p: Parameters, max_steps: int, _steps_per_epoch: int | None) -> Parameters:
    # A rise of exactly one step makes torch's OneCycleLR divide by zero; a rise that is longer by a hair does not.
    if p["pct_start"] * max_steps == 1:
        return {**p, "pct_start": p["pct_start"] * (1 + 1e-12)}
    return p


def _onecycle(p: Parameters, step: int, start: float, top: float, end: float) -> float:
    """From `start` to `top`, and down to `end`; with three_phase back to `start` in between."""
    last = p["max_steps"] - 1
    rise = p["pct_start"] * p["max_steps"]
    if p["three_phase"]:
        phases = [(rise - 1, start, top), (2 * rise - 2, top, start), (last, start, end)]
    else:
        phases = [(rise - 1, start, top), (last, top, end)]
    # One step further torch leaves the curve: a linear one-cycle would show a negative LR.
    step = min(step, last)
    begin = 0.0
    for until, left, right in phases:  # noqa: B007 - used after the loop
        if step <= until:
            break
        begin = until
    done = (step - begin) / (until - begin)
    if p["anneal_strategy"] == "linear":
        return float((right - left) * done + left)
    return float(right + (left - right) / 2 * (math.cos(math.pi * done) + 1))


def _onecycle_lr(p: Parameters, peak: float, step: int) -> float:
    start = peak / p["div_factor"]
    return _onecycle(p, step, start, peak, start / p["final_div_factor"])


def _onecycle_momentum(p: Parameters, step: int) -> float:
    return _onecycle(p, step, p["max_momentum"], p["base_momentum"], p["max_momentum"])


def _onecycle_arguments(p: Parameters, lr: float) -> dict[str, Any]:
    shape = ("pct_start", "anneal_strategy", "div_factor", "final_div_factor", "three_phase")
    return {"max_lr": lr, "total_steps": p["max_steps"], **{name: p[name] for name in shape}}


ONECYCLE = ScheduleSpec(
    name="onecycle",
    doc="rises to the peak, then falls far below the start; momentum goes the other way (Smith & Topin 2019)",
    parameters=(
        fraction_parameter("pct_start", 0.3, "fraction of max_steps spent rising", low_open=True, high_open=True),
        Parameter("div_factor", 25.0, "number", "peak / LR at the start", 1.0, 1e12),
        Parameter("final_div_factor", 1e4, "number", "LR at the start / LR at the end", 1.0, 1e12),
        Parameter("anneal_strategy", "cos", "choice", "shape of rise and fall", choices=("cos", "linear")),
        Parameter("three_phase", False, "flag", "fall to the start as fast as it rose, then to the end"),
        *momentum_parameters(0.85, 0.95),
    ),
    torch_class="OneCycleLR",
    reconcile=_onecycle_reconcile,
    resolve=_onecycle_resolve,
    lr=_onecycle_lr,
    momentum=_onecycle_momentum,
    arguments=_onecycle_arguments,
)


# --- cyclic


_MODES = ("triangular", "triangular2", "exp_range")


def _cyclic_reconcile(p: Parameters) -> Parameters:
    _check_momenta(p)
    if p["gamma"] is not None and p["mode"] != "exp_range":
        raise ValueError(f"gamma has no effect in mode {p['mode']} (got {p['gamma']:g}); allowed: with mode exp_range")
    return p


def _cyclic_resolve(p: Parameters, max_steps: int, _steps_per_epoch: int | None) -> Parameters:
    down = p["step_size_up"] if p["step_size_down"] is None else p["step_size_down"]
    cycles = max_steps // (p["step_size_up"] + down)
    if p["mode"] == "triangular2" and cycles >= 1024:
        # torch computes 2.0 ** cycles, which overflows.
        raise ValueError(f"triangular2 halves the LR's range too often (got {cycles} cycles); allowed: at most 1023")
    gamma = 0.01 ** (1 / max_steps) if p["gamma"] is None else p["gamma"]
    return {**p, "step_size_down": down, "gamma": gamma}


def _cyclic_height(p: Parameters, step: int) -> float:
    """How far up, from 0 (floor) to 1 (peak)."""
    length = p["step_size_up"] + p["step_size_down"]
    rise = p["step_size_up"] / length
    # In floats, as torch has it: whole steps are rounded otherwise, which shows where momentum falls to 0.
    cycle = math.floor(1 + step / length)
    position = 1 + step / length - cycle
    height = position / rise if position <= rise else (position - 1) / (rise - 1)
    scale = {"triangular": 1.0, "triangular2": 0.5 ** (cycle - 1), "exp_range": p["gamma"] ** step}[p["mode"]]
    return float(height * scale)


def _cyclic_lr(p: Parameters, peak: float, step: int) -> float:
    floor = p["floor"] * peak
    return float(floor + (peak - floor) * _cyclic_height(p, step))


def _cyclic_momentum(p: Parameters, step: int) -> float:
    return float(p["max_momentum"] - (p["max_momentum"] - p["base_momentum"]) * _cyclic_height(p, step))


def _cyclic_arguments(p: Parameters, lr: float) -> dict[str, Any]:
    shape = ("step_size_up", "step_size_down", "mode") + (("gamma",) if p["mode"] == "exp_range" else ())
    return {"base_lr": p["floor"] * lr, "max_lr": lr, **{name: p[name] for name in shape}}


CYCLIC = ScheduleSpec(
    name="cyclic",
    # The default 0.25: two whole cycles, so that training ends at the floor, where Smith advises to stop.
    doc="between floor and peak, up and down; momentum goes the other way (Smith 2017)",
    parameters=(
        floor_parameter(0.1),
        length_parameter("step_size_up", 0.25, "length of a rise"),
        length_parameter("step_size_down", None, "length of a fall, step_size_up where absent"),
        Parameter("mode", "triangular", "choice", "peaks alike, halved each cycle, or falling", choices=_MODES),
        decay_parameter(
            "gamma", None, "exp_range: factor per step on the height above the floor; absent: 0.01 at max_steps"
        ),
        *momentum_parameters(0.8, 0.9),
    ),
    torch_class="CyclicLR",
    reconcile=_cyclic_reconcile,
    resolve=_cyclic_resolve,
    lr=_cyclic_lr,
    momentum=_cyclic_momentum,
    arguments=_cyclic_arguments,
)
