"""The curves are torch's own, step by step; the words and numbers that users give are read as documented."""

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from paths import ROOT
from tune_lr.cli.main import main
from tune_lr.config.load import parse_config
from tune_lr.errors import InputError
from tune_lr.lr.parameters import Parameter
from tune_lr.lr.schedule import LRSchedule, check_parameters, make_lr_schedule
from tune_lr.lr.schedules import SCHEDULES
from tune_lr.records.looks import schedule_color

# torch's SequentialLR steps its schedulers in a way that torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")


def in_turn(opt: torch.optim.Optimizer, *parts: Any) -> lr_scheduler.SequentialLR:
    """Schedulers one after another, written as (scheduler, steps, scheduler, steps, ..., scheduler)."""
    return lr_scheduler.SequentialLR(opt, list(parts[::2]), np.cumsum(parts[1::2]).tolist())


# name, parameters, max_steps, peak, and the same schedule as somebody who knows torch writes it
TORCH_TWINS = [
    ("constant", {}, 20, 0.3, lambda opt, **_: lr_scheduler.LambdaLR(opt, lambda step: 1.0)),
    ("step", {}, 100, 0.3, lambda opt, **_: lr_scheduler.StepLR(opt, 34, 0.1)),
    ("step", {"step_size": 7, "gamma": 0.5}, 50, 2.0, lambda opt, **_: lr_scheduler.StepLR(opt, 7, 0.5)),
    ("step", {"step_size": 0.25, "gamma": 1.0}, 9, 0.1, lambda opt, **_: lr_scheduler.StepLR(opt, 2, 1.0)),
    ("exponential", {}, 310, 0.1, lambda opt, **_: lr_scheduler.ExponentialLR(opt, 0.01 ** (1 / 310))),
    ("exponential", {"final_factor": 0.3}, 40, 0.1, lambda opt, **_: lr_scheduler.ExponentialLR(opt, 0.3 ** (1 / 40))),
    ("exponential", {"gamma": 0.9}, 40, 0.1, lambda opt, **_: lr_scheduler.ExponentialLR(opt, 0.9)),
    ("cosine", {}, 310, 0.18, lambda opt, **_: lr_scheduler.CosineAnnealingLR(opt, 310)),
    ("cosine", {"floor": 0.05}, 97, 2.0, lambda opt, **_: lr_scheduler.CosineAnnealingLR(opt, 97, eta_min=0.1)),
    ("onecycle", {}, 310, 0.5, lambda opt, **kw: lr_scheduler.OneCycleLR(opt, 0.5, 310, **kw)),
    (
        "onecycle",
        {"pct_start": 0.15, "div_factor": 10, "final_div_factor": 1e9, "anneal_strategy": "linear"},
        *(97, 0.5),
        lambda opt, **kw: lr_scheduler.OneCycleLR(
            opt, 0.5, 97, pct_start=0.15, div_factor=10, final_div_factor=1e9, anneal_strategy="linear", **kw
        ),
    ),
    (
        "onecycle",
        {"three_phase": True, "pct_start": 0.4, "base_momentum": 0.7, "max_momentum": 0.99},
        *(50, 3.0),
        lambda opt, **kw: lr_scheduler.OneCycleLR(
            opt, 3.0, 50, pct_start=0.4, three_phase=True, **({"base_momentum": 0.7, "max_momentum": 0.99} | kw)
        ),
    ),
    (
        "cyclic",
        {},
        *(100, 1.0),
        lambda opt, **kw: lr_scheduler.CyclicLR(opt, 0.1, 1.0, step_size_up=25, **kw),
    ),
    (
        "cyclic",
        {"floor": 0.01, "step_size_up": 50, "step_size_down": 100},
        *(400, 1.0),
        lambda opt, **kw: lr_scheduler.CyclicLR(opt, base_lr=0.01, max_lr=1, step_size_up=50, step_size_down=100, **kw),
    ),
    (
        "cyclic",
        {"floor": 0, "step_size_up": 3, "mode": "triangular2", "base_momentum": 0.5, "max_momentum": 0.6},
        *(60, 0.2),
        lambda opt, **kw: lr_scheduler.CyclicLR(
            opt, 0.0, 0.2, 3, mode="triangular2", **({"base_momentum": 0.5, "max_momentum": 0.6} | kw)
        ),
    ),
    (
        "cyclic",
        {"step_size_up": 0.1, "step_size_down": 0.05, "mode": "exp_range", "gamma": 0.98},
        *(100, 0.2),
        lambda opt, **kw: lr_scheduler.CyclicLR(opt, 0.02, 0.2, 10, 5, mode="exp_range", gamma=0.98, **kw),
    ),
    ("multistep", {}, 310, 0.3, lambda opt, **_: lr_scheduler.MultiStepLR(opt, [155, 232])),
    (
        "multistep",
        {"milestones": [60, 20, 0.5, 90], "gamma": 0.5},
        *(80, 0.3),
        lambda opt, **_: lr_scheduler.MultiStepLR(opt, [20, 40, 60], 0.5),
    ),
    ("cosine_restarts", {}, 310, 0.2, lambda opt, **_: lr_scheduler.CosineAnnealingWarmRestarts(opt, 45, 2)),
    (
        "cosine_restarts",
        {"t_0": 30, "t_mult": 1, "floor": 0.1},
        *(100, 0.2),
        lambda opt, **_: lr_scheduler.CosineAnnealingWarmRestarts(opt, 30, eta_min=0.02),
    ),
    (
        "cosine_restarts",
        {"t_0": 2, "t_mult": 3},
        *(200, 0.2),
        lambda opt, **_: lr_scheduler.CosineAnnealingWarmRestarts(opt, 2, 3),
    ),
    ("polynomial", {}, 310, 0.2, lambda opt, **_: lr_scheduler.PolynomialLR(opt, 310, 2.0)),
    ("polynomial", {"power": 0.9}, 97, 1e-5, lambda opt, **_: lr_scheduler.PolynomialLR(opt, 97, 0.9)),
    ("linear", {}, 310, 0.2, lambda opt, **_: lr_scheduler.LinearLR(opt, 1.0, 0.0, 310)),
    ("linear", {"floor": 0.1}, 97, 0.2, lambda opt, **_: lr_scheduler.LinearLR(opt, 1.0, 0.1, 97)),
    (
        "inverse_sqrt",
        {},
        *(310, 0.2),
        lambda opt, **_: lr_scheduler.LambdaLR(opt, lambda s: (0.01 + 0.99 * s / 31) if s < 31 else (31 / s) ** 0.5),
    ),
    (
        "inverse_sqrt",
        {"warmup": 4, "warmup_start": 0.2, "timescale": 0.5},
        *(84, 0.2),
        lambda opt, **_: lr_scheduler.LambdaLR(opt, lambda s: 0.2 * (1 + s) if s < 4 else (40 / (36 + s)) ** 0.5),
    ),
    (
        "wsd",
        {},
        *(310, 0.2),
        lambda opt, **_: in_turn(
            opt,
            *(lr_scheduler.LinearLR(opt, 0.01, 1.0, 31), 31),
            *(lr_scheduler.ConstantLR(opt, 1.0, 223), 223),
            lr_scheduler.LinearLR(opt, 1.0, 0.0, 56),
        ),
    ),
    (
        "wsd",
        {"warmup": 10, "warmup_start": 0.1, "decay": 1.0, "floor": 0.25},
        *(50, 0.2),
        lambda opt, **_: in_turn(
            opt, lr_scheduler.LinearLR(opt, 0.1, 1.0, 10), 10, lr_scheduler.LinearLR(opt, 1.0, 0.25, 40)
        ),
    ),
    (
        "flat_cosine",
        {"floor": 0.1},
        *(100, 0.2),
        lambda opt, **_: in_turn(
            opt, lr_scheduler.ConstantLR(opt, 1.0, 72), 72, lr_scheduler.CosineAnnealingLR(opt, 28, eta_min=0.02)
        ),
    ),
    ("plateau", {}, 100, 0.2, lambda opt, **_: lr_scheduler.ReduceLROnPlateau(opt, patience=2)),
    (
        "plateau",
        {"mode": "max", "factor": 0.5, "patience": 0, "threshold_mode": "abs", "cooldown": 2, "floor": 0.3},
        *(97, 0.2),
        lambda opt, **_: lr_scheduler.ReduceLROnPlateau(
            opt, "max", 0.5, 0, threshold_mode="abs", cooldown=2, min_lr=0.06
        ),
    ),
]
# name, parameters, and what follows a warm-up of 10 steps in a budget of 100
WARMED_UP = [
    ("constant", {}, lambda opt: lr_scheduler.ConstantLR(opt, 1.0, 90)),
    ("step", {"step_size": 0.5}, lambda opt: lr_scheduler.StepLR(opt, 45, 0.1)),
    ("exponential", {}, lambda opt: lr_scheduler.ExponentialLR(opt, 0.01 ** (1 / 90))),
    ("cosine", {"floor": 0.05}, lambda opt: lr_scheduler.CosineAnnealingLR(opt, 90, eta_min=0.015)),
    ("multistep", {"milestones": (20, 0.5)}, lambda opt: lr_scheduler.MultiStepLR(opt, [20, 45])),
    ("cosine_restarts", {}, lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, 13, 2)),
    ("polynomial", {"power": 3}, lambda opt: lr_scheduler.PolynomialLR(opt, 90, 3.0)),
    ("linear", {}, lambda opt: lr_scheduler.LinearLR(opt, 1.0, 0.0, 90)),
    ("inverse_sqrt", {}, lambda opt: lr_scheduler.LambdaLR(opt, lambda step: (10 / (10 + step)) ** 0.5)),
    (
        "wsd",
        {"decay": 30, "floor": 0.1},
        lambda opt: lr_scheduler.LambdaLR(opt, lambda step: 1.0 if step < 60 else 1 - 0.9 * (step - 60) / 30),
    ),
    (
        "flat_cosine",
        {"flat": 50},
        lambda opt: lr_scheduler.LambdaLR(
            opt, lambda step: 1.0 if step < 50 else (1 + math.cos(math.pi * (step - 50) / 40)) / 2
        ),
    ),
]
# How each optimizer is made from an LR, and whether it has a momentum that a schedule can move.
OPTIMIZERS: dict[str, tuple[Callable[[float], torch.optim.Optimizer], bool]] = {
    "sgd with momentum": (lambda lr: torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9), True),
    "plain sgd": (lambda lr: torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr), False),
    "adamw": (lambda lr: torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=lr, betas=(0.9, 0.95)), True),
}


def momentum_of(optimizer: torch.optim.Optimizer) -> float:
    group = optimizer.param_groups[0]
    momentum: float = group["betas"][0] if "betas" in group else group["momentum"]
    return momentum


def assert_same_curves(schedule: LRSchedule, peak: float, optimizer: Any, scheduler: Any, *, cycled: bool) -> None:
    """Torch's LR and momentum at every step of the budget are the schedule's; else momentum stays as it was."""
    before = 0.0 if "momentum" in optimizer.defaults and optimizer.defaults["momentum"] == 0 else 0.9
    expected, shown = [], []
    for step in range(schedule.max_steps):
        momentum = schedule.momentum(step)
        expected.append((schedule.lr(peak, step), momentum if cycled and momentum is not None else before))
        shown.append((optimizer.param_groups[0]["lr"], momentum_of(optimizer)))
        optimizer.step()
        if SCHEDULES[schedule.name].by_metric:  # as it is drawn: a validation each tenth, none better than the first
            for _ in range((step + 1) * 10 // schedule.max_steps - step * 10 // schedule.max_steps):
                scheduler.step(1.0)
        else:
            scheduler.step()
    # Below 1e-290 floats lose digits, and torch multiplies step by step; its LinearLR loses those of a very low floor.
    lost = 1e-13 * peak if SCHEDULES[schedule.name].torch_class == "LinearLR" else 1e-290
    np.testing.assert_allclose(shown, expected, rtol=1e-9, atol=lost)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(("name", "parameters", "max_steps", "peak", "twin"), TORCH_TWINS)
def test_every_step_shows_the_lr_and_momentum_of_the_torch_class(
    name: str, parameters: dict[str, Any], max_steps: int, peak: float, twin: Any, kind: str
) -> None:
    make_optimizer, cycle = OPTIMIZERS[kind]
    schedule = make_lr_schedule(name, parameters, max_steps)
    optimizer = make_optimizer(peak)
    scheduler = twin(optimizer) if cycle else twin(optimizer, cycle_momentum=False)
    assert_same_curves(schedule, peak, optimizer, scheduler, cycled=cycle)


@pytest.mark.parametrize(("warmup", "start"), [(10, {"warmup_start": 0.2}), (0.1, {})])
@pytest.mark.parametrize(("name", "parameters", "after"), WARMED_UP)
def test_a_warm_up_is_torchs_linear_one_and_the_schedule_runs_over_the_rest(
    name: str, parameters: dict[str, Any], after: Any, warmup: float | int, start: dict[str, float]
) -> None:
    schedule = make_lr_schedule(name, {**parameters, "warmup": warmup, **start}, 100)
    optimizer = OPTIMIZERS["plain sgd"][0](0.3)
    rise = lr_scheduler.LinearLR(optimizer, start.get("warmup_start", 0.01), total_iters=10)
    assert_same_curves(schedule, 0.3, optimizer, in_turn(optimizer, rise, 10, after(optimizer)), cycled=False)


def test_every_schedule_is_compared_with_and_without_a_warm_up() -> None:
    assert {name for name, *_ in TORCH_TWINS} == SCHEDULES.keys()
    assert {name for name, *_ in WARMED_UP} == SCHEDULES.keys() - {"onecycle", "cyclic", "plateau"}
    assert {name for name, spec in SCHEDULES.items() if any(p.name == "warmup" for p in spec.parameters)} == {
        name for name, *_ in WARMED_UP
    }


# name, parameters, the step from which on they are alike, ColossalAI's class and its arguments; over 100 steps.
# Its warm-ups reach the peak one step before they end. LinearWarmupLR alone does as torch's LinearLR does.
COLOSSALAI_TWINS = [
    ("step", {}, 0, "StepLR", {"step_size": 34, "gamma": 0.1}),
    ("exponential", {"gamma": 0.97}, 0, "ExponentialLR", {"gamma": 0.97}),
    ("cosine", {"floor": 0.1}, 0, "CosineAnnealingLR", {"eta_min": 0.03}),
    ("cosine", {"floor": 0.1, "warmup": 10}, 10, "CosineAnnealingWarmupLR", {"warmup_steps": 10, "eta_min": 0.03}),
    ("onecycle", {}, 0, "OneCycleLR", {}),
    ("multistep", {}, 0, "MultiStepLR", {"milestones": [50, 75]}),
    # Its milestones count from the start of the warm-up, torch's from the end.
    (
        "multistep",
        {"milestones": [40, 65], "warmup": 10},
        *(10, "MultiStepWarmupLR"),
        {"milestones": [50, 75], "warmup_steps": 10},
    ),
    # Its end_lr is an absolute 1e-4 where it is not given.
    ("polynomial", {"power": 1.5}, 0, "PolynomialLR", {"end_lr": 0.0, "power": 1.5}),
    ("polynomial", {"warmup": 10}, 10, "PolynomialWarmupLR", {"end_lr": 0.0, "power": 2.0, "warmup_steps": 10}),
    ("linear", {}, 0, "LinearWarmupLR", {}),
    ("linear", {"warmup": 10, "warmup_start": 1 / 11}, 0, "LinearWarmupLR", {"warmup_steps": 10}),
    ("flat_cosine", {}, 0, "FlatAnnealingLR", {}),
    ("flat_cosine", {"floor": 0.1, "warmup": 50}, 50, "FlatAnnealingWarmupLR", {"warmup_steps": 50, "eta_min": 0.03}),
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # ColossalAI calls get_lr() of torch's classes itself
@pytest.mark.parametrize(("name", "parameters", "begin", "class_name", "arguments"), COLOSSALAI_TWINS)
def test_every_step_shows_the_lr_of_the_class_of_colossalai(
    name: str, parameters: dict[str, Any], begin: int, class_name: str, arguments: dict[str, Any]
) -> None:
    from tune_lr.worker import colossal  # noqa: F401 - imports ColossalAI in its own way, in seconds

    theirs = __import__("colossalai.nn.lr_scheduler", fromlist=[class_name])
    optimizer = OPTIMIZERS["sgd with momentum"][0](0.3)
    scheduler = getattr(theirs, class_name)(optimizer, 100, **arguments)
    schedule, shown = make_lr_schedule(name, parameters, 100), []
    for _ in range(100):
        shown.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(shown[begin:], schedule.lrs(0.3)[begin:], rtol=1e-9, atol=1e-15)


def values_of(parameter: Parameter) -> st.SearchStrategy[Any]:
    length = st.floats(0, 1, exclude_min=True) | st.integers(2, 400)
    if parameter.kind == "length":
        values: st.SearchStrategy[Any] = length
    elif parameter.kind == "lengths":
        values = st.lists(length, min_size=1, max_size=4)
    elif parameter.kind == "integer":
        assert parameter.low is not None
        values = st.integers(int(parameter.low), 10)
    elif parameter.kind == "choice":
        values = st.sampled_from(parameter.choices)
    elif parameter.kind == "flag":
        values = st.booleans()
    else:
        values = st.floats(
            *(parameter.low, 1e9 if parameter.high is None else parameter.high),
            exclude_min=parameter.low_open,
            exclude_max=parameter.high_open,
        )
    return values | st.none() if parameter.default is None else values


def is_allowed(drawn: tuple[str, dict[str, Any]]) -> bool:
    try:
        check_parameters(*drawn)
    except ValueError:
        return False
    return True


def parameters_of(name: str) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    known = {parameter.name: values_of(parameter) for parameter in SCHEDULES[name].parameters}
    return st.tuples(st.just(name), st.fixed_dictionaries({}, optional=known)).filter(is_allowed)


any_schedule = st.sampled_from(sorted(SCHEDULES)).flatmap(parameters_of)


@settings(deadline=None, max_examples=150)
@given(any_schedule, st.integers(1, 150), st.floats(1e-7, 100), st.sampled_from(sorted(OPTIMIZERS)))
def test_the_code_rebuilds_every_lr_and_momentum(
    drawn: tuple[str, dict[str, Any]], max_steps: int, peak: float, kind: str
) -> None:
    make_optimizer, cycle = OPTIMIZERS[kind]
    schedule = make_lr_schedule(*drawn, max_steps, steps_per_epoch=7)
    scope: dict[str, Any] = {"optimizer": make_optimizer(peak)}
    exec(schedule.code(peak, cycle_momentum=cycle), scope)
    assert_same_curves(schedule, peak, scope["optimizer"], scope["scheduler"], cycled=cycle)


@settings(deadline=None)
@given(any_schedule, st.integers(1, 10**6), st.data())
def test_the_factor_stays_between_zero_and_the_peak_and_holds_beyond_the_budget(
    drawn: tuple[str, dict[str, Any]], max_steps: int, data: st.DataObject
) -> None:
    if drawn[1].get("mode") == "triangular2":
        max_steps = min(max_steps, 1023)
    schedule = make_lr_schedule(*drawn, max_steps, steps_per_epoch=7)
    step = data.draw(st.integers(0, max_steps))
    assert 0 <= schedule.factor(step) <= 1 + 1e-12
    last = (schedule.factor(max_steps), schedule.momentum(max_steps))
    assert (schedule.factor(max_steps + 1 + step), schedule.momentum(max_steps + 1 + step)) == last


@given(any_schedule, st.integers(1, 1000))
def test_complete_parameters_make_the_same_schedule_again(drawn: tuple[str, dict[str, Any]], max_steps: int) -> None:
    schedule = make_lr_schedule(*drawn, max_steps, steps_per_epoch=7)
    assert set(schedule.parameters) == {parameter.name for parameter in SCHEDULES[drawn[0]].parameters}
    assert make_lr_schedule(drawn[0], schedule.parameters, max_steps, steps_per_epoch=7) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule


@pytest.mark.parametrize(
    ("name", "parameters", "factors"),
    [
        ("constant", {}, {0: 1, 5: 1, 10: 1, 99: 1}),
        ("step", {"step_size": 0.5, "gamma": 0.2}, {0: 1, 4: 1, 5: 0.2, 9: 0.2, 10: 0.04, 99: 0.04}),
        ("exponential", {}, {0: 1, 5: 0.1, 10: 0.01, 99: 0.01}),
        ("exponential", {"gamma": 0.5}, {0: 1, 1: 0.5, 3: 0.125}),
        ("exponential", {"gamma_per_epoch": 0.25}, {0: 1, 2: 0.5, 4: 0.25, 8: 0.0625}),
        ("cosine", {}, {0: 1, 5: 0.5, 10: 0, 99: 0}),
        ("cosine", {"floor": 0.2}, {0: 1, 5: 0.6, 10: 0.2}),
        ("onecycle", {"pct_start": 0.5, "final_div_factor": 4}, {0: 0.04, 2: 0.52, 4: 1, 9: 0.01, 10: 0.01, 99: 0.01}),
        ("cyclic", {"step_size_up": 2, "step_size_down": 3}, {0: 0.1, 1: 0.55, 2: 1, 3: 0.7, 4: 0.4, 5: 0.1, 7: 1}),
        ("cyclic", {"step_size_up": 2, "mode": "triangular2", "floor": 0}, {2: 1, 4: 0, 6: 0.5, 10: 0.25}),
        ("cyclic", {"step_size_up": 0.5, "mode": "exp_range", "floor": 0}, {0: 0, 5: 0.1, 10: 0}),
        ("multistep", {}, {0: 1, 4: 1, 5: 0.1, 7: 0.1, 8: 0.01, 10: 0.01, 99: 0.01}),
        ("multistep", {"milestones": [9, 3], "gamma": 0.5}, {0: 1, 2: 1, 3: 0.5, 8: 0.5, 9: 0.25}),
        ("cosine_restarts", {"t_0": 2}, {0: 1, 1: 0.5, 2: 1, 4: 0.5, 6: 1, 10: 0.5}),
        ("cosine_restarts", {"t_0": 4, "t_mult": 1, "floor": 0.2}, {0: 1, 2: 0.6, 4: 1, 6: 0.6, 8: 1}),
        ("polynomial", {}, {0: 1, 5: 0.25, 8: 0.04, 10: 0, 99: 0}),
        ("linear", {"floor": 0.5}, {0: 1, 5: 0.75, 10: 0.5, 99: 0.5}),
        ("inverse_sqrt", {"warmup": 2}, {0: 0.01, 1: 0.505, 2: 1, 8: 0.5, 10: 0.2**0.5}),
        ("wsd", {"warmup": 2, "decay": 0.5}, {0: 0.01, 1: 0.505, 2: 1, 6: 1, 7: 0.75, 8: 0.5, 9: 0.25, 10: 0}),
        ("flat_cosine", {"flat": 0.6}, {0: 1, 6: 1, 8: 0.5, 10: 0}),
        ("plateau", {}, {0: 1, 3: 1, 4: 0.1, 6: 0.1, 7: 0.01, 10: 0.001}),
        ("plateau", {"patience": 0, "cooldown": 2, "floor": 0.05}, {1: 1, 2: 0.1, 4: 0.1, 5: 0.05, 10: 0.05}),
        ("cosine", {"warmup": 0.2, "warmup_start": 0.5}, {0: 0.5, 1: 0.75, 2: 1, 6: 0.5, 10: 0}),
        ("constant", {"warmup": 20}, {0: 0.01, 10: 0.505, 99: 0.505}),
    ],
)
def test_factors_over_ten_steps(name: str, parameters: dict[str, Any], factors: dict[int, float]) -> None:
    schedule = make_lr_schedule(name, parameters, 10, steps_per_epoch=4)
    assert {step: schedule.factor(step) for step in factors} == pytest.approx(factors, abs=1e-15)


def test_momentum_goes_against_the_lr_in_onecycle_and_cyclic_and_is_absent_elsewhere() -> None:
    onecycle = make_lr_schedule("onecycle", {"pct_start": 0.5}, 10)
    assert [onecycle.momentum(step) for step in (0, 2, 4, 9, 99)] == pytest.approx([0.95, 0.9, 0.85, 0.95, 0.95])
    cyclic = make_lr_schedule("cyclic", {"step_size_up": 2}, 10)
    assert [cyclic.momentum(step) for step in (0, 1, 2, 3, 4)] == pytest.approx([0.9, 0.85, 0.8, 0.85, 0.9])
    assert {name for name, spec in SCHEDULES.items() if spec.cycles_momentum} == {"onecycle", "cyclic"}
    assert all(make_lr_schedule(name, {}, 10).momentum(3) is None for name in ("constant", "step", "cosine"))


@pytest.mark.parametrize(
    ("length", "max_steps", "steps"),
    [
        (0.5, 100, 50),
        (0.5, 1000, 500),
        (1.0, 100, 100),
        (0.001, 100, 1),
        (0.126, 100, 13),
        (2, 100, 2),
        (500, 100, 500),
    ],
)
def test_a_float_is_a_fraction_of_the_budget_and_an_integer_is_steps(
    length: float | int, max_steps: int, steps: int
) -> None:
    schedule = make_lr_schedule("step", {"step_size": length}, max_steps)
    assert schedule.resolved["step_size"] == steps
    assert schedule.parameters["step_size"] == length


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_fractions_carry_over_to_another_budget(name: str) -> None:
    short, long = make_lr_schedule(name, {}, 1000), make_lr_schedule(name, {}, 10000)
    # One-cycle ends at max_steps - 1, so that its points lie up to one step of the short budget apart.
    tolerance = 0.006 if name == "onecycle" else 1e-12
    assert [short.factor(step) for step in range(1000)] == pytest.approx(
        [long.factor(10 * step) for step in range(1000)], abs=tolerance
    )


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("cosin", {}, r"lr_schedule is unknown \(got 'cosin'\); did you mean 'cosine'\?; allowed: constant, step, "),
        (
            "step",
            {"gama": 0.1},
            r"parameter is unknown \(got 'gama'\); did you mean 'gamma'\?; allowed: step_size, gamma, warmup, ",
        ),
        ("constant", {"gamma": 0.1}, r"parameter is unknown \(got 'gamma'\); allowed: warmup, warmup_start$"),
        ("step", {"step_size": 1}, r"step_size is ambiguous.* \(got 1\); write 1\.0 for the whole budget or 2 or more"),
        ("step", {"step_size": 0}, r"step_size is out of range \(got 0\); allowed: a float in \(0, 1\]"),
        ("step", {"step_size": 0.0}, r"step_size is out of range \(got 0\.0\)"),
        ("step", {"step_size": -3}, r"step_size is out of range \(got -3\)"),
        ("step", {"step_size": 30.0}, r"step_size is out of range \(got 30\.0\); .* or an integer from 2 up as steps"),
        ("step", {"step_size": math.nan}, r"step_size is out of range \(got nan\)"),
        ("step", {"step_size": True}, r"step_size is not a length \(got True\)"),
        ("step", {"step_size": None}, r"step_size is not a length \(got None\)"),
        ("step", {"gamma": True}, r"gamma is not a number \(got True\); allowed: a number in \(0, 1\]"),
        ("step", {"gamma": "0.1"}, r"gamma is not a number \(got '0\.1'\)"),
        ("step", {"gamma": 0}, r"gamma is out of range \(got 0\)"),
        ("step", {"gamma": 1.5}, r"gamma is out of range \(got 1\.5\); allowed: a number in \(0, 1\]"),
        ("cosine", {"floor": -0.1}, r"floor is out of range \(got -0\.1\); allowed: a number in \[0, 1\]"),
        ("onecycle", {"div_factor": math.inf}, r"div_factor is out of range \(got inf\)"),
        ("onecycle", {"pct_start": 1.0}, r"pct_start is out of range \(got 1\.0\); allowed: a number in \(0, 1\)"),
        ("onecycle", {"max_momentum": 1}, r"max_momentum is out of range \(got 1\); allowed: a number in \[0, 1\)"),
        ("onecycle", {"anneal_strategy": "linar"}, r"got 'linar'\); did you mean 'linear'\?; allowed: cos, linear"),
        ("onecycle", {"three_phase": 1}, r"three_phase is not a flag \(got 1\); allowed: true or false"),
        ("onecycle", {"three_phase": True, "pct_start": 0.6}, r"got 0\.6\); allowed with three_phase: at most 0\.5"),
        ("onecycle", {"base_momentum": 0.96}, r"base_momentum is above max_momentum \(got 0\.96 > 0\.95\)"),
        ("cyclic", {"max_momentum": 0.7}, r"base_momentum is above max_momentum \(got 0\.8 > 0\.7\)"),
        (
            "cyclic",
            {"gamma": 0.9},
            r"gamma has no effect in mode triangular \(got 0\.9\); allowed: with mode exp_range",
        ),
        (
            "exponential",
            {"gamma": 0.9, "gamma_per_epoch": 0.5},
            r"gamma and gamma_per_epoch contradict each other \(got gamma=0\.9, gamma_per_epoch=0\.5\); allowed: one",
        ),
        (
            "multistep",
            {"milestones": 0.5},
            r"milestones is not a list of lengths \(got 0\.5\); allowed: a list, such as",
        ),
        ("multistep", {"milestones": []}, r"milestones is not a list of lengths \(got \[\]\)"),
        ("multistep", {"milestones": "0.5"}, r"milestones is not a list of lengths \(got '0\.5'\)"),
        ("multistep", {"milestones": [0.5, 1]}, r"milestones is ambiguous.* \(got 1\)"),
        ("multistep", {"milestones": [0.5, 1.5]}, r"milestones is out of range \(got 1\.5\)"),
        ("multistep", {"milestones": [None]}, r"milestones is not a length \(got None\)"),
        (
            "cosine_restarts",
            {"t_mult": 1.5},
            r"t_mult is not an integer \(got 1\.5\); allowed: an integer in \[1, 10\]",
        ),
        ("polynomial", {"power": 0}, r"power is out of range \(got 0\); allowed: a number in \(0, 10\]"),
        ("plateau", {"patience": -1}, r"patience is out of range \(got -1\); allowed: an integer in \[0, inf\)"),
        ("plateau", {"factor": 1.0}, r"factor is out of range \(got 1\.0\); allowed: a number in \(0, 1\)"),
        (
            "plateau",
            {"threshold": 1},
            r"threshold is out of range in threshold_mode rel \(got 1\); allowed: a number in",
        ),
        ("cosine", {"warmup": 1}, r"warmup is ambiguous"),
        (
            "cosine",
            {"warmup": 0.1, "warmup_start": 0},
            r"warmup_start is out of range \(got 0\); allowed: a number in \[1e-06",
        ),
        (
            "cosine",
            {"warmup_start": 0.1},
            r"warmup_start has no effect without warmup \(got 0\.1\); allowed: with warmup",
        ),
        ("onecycle", {"warmup": 0.1}, r"parameter is unknown \(got 'warmup'\)"),
    ],
)
def test_what_is_not_allowed_is_refused_with_the_rule(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_parameters(name, parameters)
    with pytest.raises(InputError, match=message) as raised:
        make_lr_schedule(name, parameters, 100)
    assert str(raised.value).startswith(f"lr_schedule {name}: " if name in SCHEDULES else "lr_schedule is unknown")


def test_gamma_per_epoch_asks_for_the_steps_of_an_epoch() -> None:
    check_parameters("exponential", {"gamma_per_epoch": 0.5})
    with pytest.raises(
        InputError, match=r"^lr_schedule exponential: gamma_per_epoch wants the number of steps in an epoch"
    ):
        make_lr_schedule("exponential", {"gamma_per_epoch": 0.5}, 100)


@pytest.mark.parametrize("max_steps", [0, -1, 1.5, True, None])
def test_a_budget_that_is_no_number_of_steps_is_refused(max_steps: Any) -> None:
    with pytest.raises(InputError, match=r"^max_steps is not a number of steps \(got "):
        make_lr_schedule("constant", {}, max_steps)


def test_a_triangular2_that_overflows_in_torch_is_refused() -> None:
    parameters = {"mode": "triangular2", "step_size_up": 2}
    assert make_lr_schedule("cyclic", parameters, 4095).factor(4094) == pytest.approx(0.1)
    with pytest.raises(InputError, match=r"got 1024 cycles\); allowed: at most 1023"):
        make_lr_schedule("cyclic", parameters, 4096)


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize(("pct_start", "max_steps"), [(0.1, 10), (0.2, 5), (0.05, 20), (0.5, 2)])
def test_a_onecycle_that_rises_for_exactly_one_step_does_not_divide_by_zero(
    pct_start: float, max_steps: int, three_phase: bool
) -> None:
    schedule = make_lr_schedule("onecycle", {"pct_start": pct_start, "three_phase": three_phase}, max_steps)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    with pytest.raises(ZeroDivisionError):  # if torch mends this, so can we
        lr_scheduler.OneCycleLR(optimizer, 0.5, max_steps, pct_start=pct_start, cycle_momentum=False)
    scope = {"optimizer": torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)}
    exec(schedule.code(0.5, cycle_momentum=False), scope)
    assert_same_curves(schedule, 0.5, scope["optimizer"], scope["scheduler"], cycled=False)


def test_the_code_of_a_cyclic_schedule_reads_as_torch_documents_it() -> None:
    schedule = make_lr_schedule("cyclic", {"floor": 0.01, "step_size_up": 50, "step_size_down": 100}, 300)
    assert schedule.code(1, cycle_momentum=False) == (
        "import torch\n\n"
        "# `optimizer` was built with lr=1.0.\n"
        "# Call scheduler.step() after every optimizer step, 300 in all.\n"
        "scheduler = torch.optim.lr_scheduler.CyclicLR(\n"
        "    optimizer,\n"
        "    base_lr=0.01,\n"
        "    max_lr=1.0,\n"
        "    step_size_up=50,\n"
        "    step_size_down=100,\n"
        "    mode='triangular',\n"
        "    cycle_momentum=False,\n"
        ")\n"
    )


def test_numpy_numbers_are_read_as_numbers_and_written_as_pythons() -> None:
    given_numpy = make_lr_schedule("step", {"step_size": np.int64(3), "gamma": np.float64(0.5)}, np.int64(9))  # type: ignore[arg-type]
    assert given_numpy == make_lr_schedule("step", {"step_size": 3, "gamma": 0.5}, 9)
    assert "np." not in given_numpy.code(np.float64(0.1), cycle_momentum=False)


def test_the_curve_is_the_lr_of_every_step() -> None:
    schedule = make_lr_schedule("step", {"step_size": 2, "gamma": 0.5}, 5)
    np.testing.assert_array_equal(schedule.lrs(8.0), [8, 8, 4, 4, 2])


def test_what_jumps_and_never_slopes_is_piecewise() -> None:
    drawn = {name: make_lr_schedule(name, {}, 400).lrs(1.0) for name in SCHEDULES}
    jumps = {name for name, lrs in drawn.items() if 2 <= len(set(lrs)) <= 10}
    assert {name for name, spec in SCHEDULES.items() if spec.piecewise} == jumps == {"step", "multistep", "plateau"}


@pytest.mark.parametrize("max_steps", [99, 308, 309, 310, 311, 1000])
@pytest.mark.parametrize(
    "parameters", [{}, {"t_0": 0.25, "t_mult": 1}, {"t_0": 0.1, "t_mult": 1}, {"t_0": 0.25, "t_mult": 3}]
)
def test_whole_cycles_do_not_end_in_a_restart(parameters: dict[str, Any], max_steps: int) -> None:
    lrs = make_lr_schedule("cosine_restarts", parameters, max_steps).lrs(1.0)
    assert np.count_nonzero(np.diff(lrs) > 0) < {0.1: 10, 0.25: 4}.get(parameters.get("t_0", 0.143), 3)
    assert lrs[-1] < lrs[-2]


def test_a_step_before_the_first_is_refused() -> None:
    schedule = make_lr_schedule("onecycle", {}, 10)
    for read in (schedule.factor, schedule.momentum):
        with pytest.raises(ValueError, match=r"step is negative \(got -1\)"):
            read(-1)


# --- what a user reads and writes -------------------------------------------------------------------------------------


def config_with(lr_schedule: dict[str, Any]) -> dict[str, Any]:
    return {
        "workload": "made_up:workload",
        "max_steps": 100,
        "report_every": 10,
        "num_trials": 1,
        "pruner": {"name": "none"},
        "parameters": {"lr": {"value": 0.1}, "lr_schedule": {"choices": lr_schedule}},
    }


def test_a_list_of_milestones_is_one_value_in_yaml() -> None:
    config = parse_config(config_with({"multistep": {"milestones": {"value": [0.5, 80]}}}))
    assert parse_config(config.to_dict()) == config
    value = config.parameters.lr_schedule["multistep"]["milestones"].value
    assert make_lr_schedule("multistep", {"milestones": value}, 100).resolved["milestones"] == (50, 80)
    for wrong in ({"values": [0.5, 0.75]}, {"min": 0.2, "max": 0.5}):
        with pytest.raises(InputError, match=r"is not a list of lengths \(got 0\.[25]\); allowed: a list, such as"):
            parse_config(config_with({"multistep": {"milestones": wrong}}))


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_may_stand_in_a_search_space_without_a_word_more(name: str) -> None:
    config = parse_config(config_with({name: {}}))
    assert config.parameters.lr_schedule == {name: {}}


def schedules_in(path: Path) -> set[str]:
    """Those whose colours are in a picture."""
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(np.int32) @ (1 << 16, 1 << 8, 1)
    found = set(np.unique(pixels).tolist())
    return {name for name in SCHEDULES if int(schedule_color(name)[1:], 16) in found}


def test_the_picture_has_a_curve_for_every_schedule_or_for_those_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything, some = tmp_path / "all.png", tmp_path / "some.PNG"
    assert main(["schedules", "--png", str(everything)]) == 0
    assert main(["schedules", "wsd", "step", "--png", str(some)]) == 0
    assert capsys.readouterr().out == f"{everything}\n{some}\n"
    assert schedules_in(everything) == SCHEDULES.keys()
    assert schedules_in(some) == {"wsd", "step"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--png", "wsd"], 2, "error: --png: not the name of a PNG file (got 'wsd'); write NAME.png\n"),
        (["--png", "no/such/a.png"], 4, "error: --png: no/such/a.png cannot be written (No such file or directory)"),
    ],
)
def test_a_picture_that_cannot_be_written_is_refused_in_one_line(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schedules", "step", *arguments]) == code
    assert capsys.readouterr().err.startswith(message)


def tables() -> str:
    """The tables of docs/lr_schedules.md."""
    lines = ["| LR schedule | shape | equals |", "|---|---|---|"]
    for name, spec in SCHEDULES.items():
        lines.append(f"| `{name}` | {spec.doc} | {', then '.join(f'`{one}`' for one in spec.torch_classes)} |")
    for name, spec in SCHEDULES.items():
        lines += ["", f"### {name}", "", "| parameter | default | allowed | |", "|---|---|---|---|"]
        lines += [f"| `{p.name}` | {p.default_text()} | {p.range()} | {p.doc} |" for p in spec.parameters]
    return "\n".join(lines) + "\n"


def test_the_tables_of_the_documentation_are_what_the_code_says() -> None:
    text = (ROOT / "docs" / "lr_schedules.md").read_text()
    assert text.endswith(f"<!-- tables -->\n\n{tables()}")
