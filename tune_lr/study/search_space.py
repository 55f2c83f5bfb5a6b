"""One conditional draw from the search space, inside the bounds that the range test found."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import fmean
from typing import Any, Protocol

from tune_lr.config.parameters import Combination, Distribution, LRRange, Parameters
from tune_lr.errors import InputError
from tune_lr.lr.bounds import LRBounds, peak_multiplier
from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.records.parameters import BATCH_SIZE, OPTIMIZER, optimizer_prefix

# The search expects the best peak somewhat above what the range test suggests, which errs on the side where training
# holds: so it found better answers in fewer steps (docs/search.md).
PEAK = 1.4
# How far off that may be, one standard deviation in decades: by the range test's suggestion; by one that follows from
# the LR at which the ramps diverged, and from nothing else; and by none, from the middle of the LRs that are searched.
SUGGESTED, FROM_THE_EDGE, UNKNOWN = 0.3, 0.8, 3.0
PLACES = 50  # of a training, at which its LR is looked at
NOTHING_ELSE = Combination()  # neither batch sizes nor optimizers are searched


class Suggests(Protocol):
    """What a draw needs of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any: ...
    def suggest_float(self, name: str, low: float, high: float, /, *, log: bool = False) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, /) -> int: ...


@dataclass(frozen=True)
class Draw:
    """A configuration: the peak LR, the LR schedule and its parameters, arguments of the optimizer and its `name`; both
    unqualified, and only those of the space. `batch_size` None: not in the space."""

    lr: float
    lr_schedule: str
    parameters: dict[str, Any]
    optimizer: dict[str, Any] = field(default_factory=dict)
    batch_size: int | None = None


def draw_combination(trial: Suggests, space: Parameters) -> Combination:
    """The batch size and the optimizer, as far as they are searched. To be drawn before all else: the bounds are
    theirs."""
    sizes, names = list(space.batch_size or [None]), list(space.optimizer)
    size: Any = trial.suggest_categorical(BATCH_SIZE, sizes) if len(sizes) > 1 else sizes[0]
    name: Any = trial.suggest_categorical(f"{OPTIMIZER}name", names) if len(names) > 1 else names[0]
    return Combination(size, name)


def draw(
    trial: Suggests, space: Parameters, bounds: tuple[float, float], combination: Combination = NOTHING_ELSE
) -> Draw:
    """Draws from `space`; `bounds` (low, high), which are the combination's own, stand where it says `range_test`.

    One `lr` for all schedules: what one of them teaches about it serves the others. So it is for combinations, whose
    bounds differ: there the place between the bounds is drawn, "lr_position" from 0 to 1 on a log scale. A schedule's
    parameters are drawn only where that schedule is, under qualified names ("step.gamma"), and so are the optimizer's
    ("optimizer.momentum"; where several optimizers are searched, "optimizer.sgd.momentum").
    """
    placed = combination != NOTHING_ELSE and space.lr.needs_range_test
    lr = (_draw_position if placed else _draw_lr)(trial, space.lr, bounds)
    names = list(space.lr_schedule)
    name = trial.suggest_categorical("lr_schedule", names) if len(names) > 1 else names[0]
    parameters = {key: _draw(trial, f"{name}.{key}", how) for key, how in space.lr_schedule[name].items()}
    chosen = {"name": combination.optimizer} if combination.optimizer else {}
    prefix, searched = optimizer_prefix(combination.optimizer), space.optimizer[combination.optimizer]
    optimizer = {key: _draw(trial, f"{prefix}{key}", how) for key, how in searched.items()}
    return Draw(lr, name, parameters, chosen | optimizer, combination.batch_size)


def suggested_lr(bounds: LRBounds | None) -> tuple[float | None, float]:
    """The range test's suggestion, and its standard deviation in decades."""
    if bounds is None or bounds.suggestion is None:
        return None, UNKNOWN
    return bounds.suggestion, FROM_THE_EDGE if bounds.edge_only else SUGGESTED


def lr_curve(drawn: Draw, max_steps: int, steps_per_epoch: int | None) -> tuple[float, ...]:
    """LR / peak LR of a configuration, at PLACES places of the training."""
    parameters = json.dumps(drawn.parameters, sort_keys=True)
    return _lr_curve(drawn.lr_schedule, parameters, max_steps, steps_per_epoch or max_steps)


@lru_cache(maxsize=10_000)
def _lr_curve(name: str, parameters: str, max_steps: int, steps_per_epoch: int) -> tuple[float, ...]:
    try:
        return make_lr_schedule(name, json.loads(parameters), max_steps, steps_per_epoch=steps_per_epoch).curve(PLACES)
    except InputError:  # the worker that trains it will say so
        return (1.0,) * PLACES


def expected_lr(curve: Sequence[float], suggestion: float) -> float:
    """The peak that is expected to be best for what `lr_curve` returns, given the range test's suggestion."""
    return suggestion * PEAK * peak_multiplier(max(fmean(curve), 1e-3))


def middle(space: LRRange, bounds: tuple[float, float]) -> float:
    """The LR in the middle of those that are searched, on a log scale."""
    if space.value is not None:
        return float(space.value)
    low, high = (min(space.values), max(space.values)) if space.values else lr_interval(space, bounds)
    return math.sqrt(low * high)


def lr_interval(space: LRRange, bounds: tuple[float, float]) -> tuple[float, float]:
    """The interval that `lr` is drawn from."""
    low = bounds[0] if space.min == "range_test" else float(space.min or 0.0)
    high = bounds[1] if space.max == "range_test" else float(space.max or 0.0)
    return min(low, high), max(low, high)


def _draw_lr(trial: Suggests, how: LRRange, bounds: tuple[float, float]) -> float:
    if how.value is not None:
        return float(how.value)
    if how.values is not None:
        return float(trial.suggest_categorical("lr", list(how.values)))
    return trial.suggest_float("lr", *lr_interval(how, bounds), log=True)


def _draw_position(trial: Suggests, how: LRRange, bounds: tuple[float, float]) -> float:
    low, high = lr_interval(how, bounds)
    return float(low * (high / low) ** trial.suggest_float("lr_position", 0.0, 1.0))


def _draw(trial: Suggests, name: str, how: Distribution) -> Any:
    if how.value is not None:
        return how.value
    if how.values is not None and any(isinstance(value, list) for value in how.values):
        # Optuna's choices are numbers and words: of lists it warns at every draw. They go by their text.
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in how.values]))
    if how.values is not None:
        return trial.suggest_categorical(name, list(how.values))
    assert how.min is not None
    assert how.max is not None
    if how.distribution == "int_uniform":
        return trial.suggest_int(name, int(how.min), int(how.max))
    return trial.suggest_float(name, how.min, how.max, log=how.distribution == "log_uniform_values")
