"""One conditional draw from the search space, and the LR that is expected to be best for what was drawn.

| symbol        | meaning                                                                                | unit    |
|---------------|----------------------------------------------------------------------------------------|---------|
| `lr`          | peak LR of a configuration                                                             | LR      |
| `bounds`      | the range test's (low, high), which stand where the space says `range_test`            | LR      |
| `curve`       | LR / peak LR at PLACES places of a training, spread evenly; shape (PLACES,)            |         |
| `suggestion`  | the range test's suggestion of a constant LR                                           | LR      |
| `uncertainty` | standard deviation of the best LR around the one that is expected                      | decades |
"""

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
# holds: with this factor it found better answers in fewer steps (docs/search.md).
PEAK = 1.4
# Standard deviation of the best LR around the expected one, in decades: by the range test's suggestion; by one that
# follows from the LR at which the ramps diverged, and from nothing else; by none, from the middle of the searched LRs.
SUGGESTED = 0.3
FROM_THE_EDGE = 0.8
UNKNOWN = 3.0
# How far the search goes from a bound that the user wrote, where the range test has found nothing on its right side.
BESIDE = 10**0.5
PLACES = 50  # of a training, at which its LR is looked at
NOTHING_ELSE = Combination()  # neither batch sizes nor optimizers are searched
LOWEST_MEAN = 1e-3  # the mean of a curve counts for no less


class Suggests(Protocol):
    """The part of an Optuna trial that a draw needs."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """Return one of the choices."""

    def suggest_float(self, name: str, low: float, high: float, /, *, log: bool = False) -> float:
        """Return a number from `low` to `high`, uniform on a log scale where `log` says so."""

    def suggest_int(self, name: str, low: int, high: int, /) -> int:
        """Return a whole number from `low` to `high`."""


@dataclass(frozen=True)
class Draw:
    """A configuration that was drawn. Parameters and arguments have their short names, and are only those searched."""

    lr: float  # the peak
    lr_schedule: str
    parameters: dict[str, Any]  # of the LR schedule
    optimizer: dict[str, Any] = field(default_factory=dict)  # arguments, and its `name` where that is searched
    batch_size: int | None = None  # None where it is not searched


def draw_combination(trial: Suggests, space: Parameters) -> Combination:
    """Draw the batch size and the optimizer, as far as they are searched.

    They are drawn before all else, since the bounds of the LR are theirs.
    """
    sizes = list(space.batch_size or [None])
    names = list(space.optimizer)
    size: Any = trial.suggest_categorical(BATCH_SIZE, sizes) if len(sizes) > 1 else sizes[0]
    name: Any = trial.suggest_categorical(f"{OPTIMIZER}name", names) if len(names) > 1 else names[0]
    return Combination(size, name)


def draw(
    trial: Suggests, space: Parameters, bounds: tuple[float, float], combination: Combination = NOTHING_ELSE
) -> Draw:
    """Draw the rest of a configuration; `bounds` are those of its combination of batch size and optimizer.

    There is one `lr` for all schedules: what one of them teaches about it serves the others. So it is for combinations,
    whose bounds differ: there the position between the bounds is drawn, "lr_position" from 0 to 1 on a log scale. The
    parameters of a schedule are drawn only where that schedule is, under qualified names ("step.gamma"), and so are the
    optimizer's ("optimizer.momentum"; where several optimizers are searched, "optimizer.sgd.momentum").
    """
    has_position = combination != NOTHING_ELSE and space.lr.needs_range_test
    lr = _draw_position(trial, space.lr, bounds) if has_position else _draw_lr(trial, space.lr, bounds)
    names = list(space.lr_schedule)
    name = trial.suggest_categorical("lr_schedule", names) if len(names) > 1 else names[0]
    parameters = {key: _draw(trial, f"{name}.{key}", values) for key, values in space.lr_schedule[name].items()}
    prefix = optimizer_prefix(combination.optimizer)
    searched = space.optimizer[combination.optimizer]
    optimizer = {"name": combination.optimizer} if combination.optimizer else {}
    optimizer |= {key: _draw(trial, f"{prefix}{key}", values) for key, values in searched.items()}
    return Draw(lr, name, parameters, optimizer, combination.batch_size)


def suggested_lr(bounds: LRBounds | None) -> tuple[float | None, float]:
    """Return the range test's suggestion, None where there is none, and its uncertainty in decades."""
    if bounds is None or bounds.suggestion is None:
        return None, UNKNOWN
    return bounds.suggestion, FROM_THE_EDGE if bounds.edge_only else SUGGESTED


def lr_curve(drawn: Draw, max_steps: int, steps_per_epoch: int | None) -> tuple[float, ...]:
    """Return the curve of a configuration that trains `max_steps`.

    Where `steps_per_epoch` is not known yet, the whole training is taken for one epoch.
    """
    parameters = json.dumps(drawn.parameters, sort_keys=True)
    return _lr_curve(drawn.lr_schedule, parameters, max_steps, steps_per_epoch or max_steps)


@lru_cache(maxsize=10_000)
def _lr_curve(name: str, parameters: str, max_steps: int, steps_per_epoch: int) -> tuple[float, ...]:
    try:
        return make_lr_schedule(name, json.loads(parameters), max_steps, steps_per_epoch=steps_per_epoch).curve(PLACES)
    except InputError:  # the worker that trains it will say so
        return (1.0,) * PLACES


def expected_lr(curve: Sequence[float], suggestion: float) -> float:
    """Return the peak LR that is expected to be best for a schedule with that curve.

    The lower the mean of the curve, the higher that peak (`bounds.peak_multiplier`).
    """
    return suggestion * PEAK * peak_multiplier(max(fmean(curve), LOWEST_MEAN))


def middle(space: LRRange, bounds: tuple[float, float]) -> float:
    """Return the LR in the middle of those that are searched, on a log scale."""
    if space.value is not None:
        return float(space.value)
    low, high = (min(space.values), max(space.values)) if space.values else lr_interval(space, bounds)
    return math.sqrt(low * high)


def lr_interval(space: LRRange, bounds: tuple[float, float]) -> tuple[float, float]:
    """Return the interval that `lr` is drawn from."""
    low = bounds[0] if space.min == "range_test" else float(space.min or 0.0)
    high = bounds[1] if space.max == "range_test" else float(space.max or 0.0)
    if low < high or (space.min != "range_test" and space.max != "range_test"):
        return min(low, high), max(low, high)
    # What the range test found lies beyond the number that the user wrote. That number is a limit.
    return (low, low * BESIDE) if space.max == "range_test" else (high / BESIDE, high)


def _draw_lr(trial: Suggests, space: LRRange, bounds: tuple[float, float]) -> float:
    if space.value is not None:
        return float(space.value)
    if space.values is not None:
        return float(trial.suggest_categorical("lr", list(space.values)))
    return trial.suggest_float("lr", *lr_interval(space, bounds), log=True)


def _draw_position(trial: Suggests, space: LRRange, bounds: tuple[float, float]) -> float:
    low, high = lr_interval(space, bounds)
    position = trial.suggest_float("lr_position", 0.0, 1.0)
    return float(low * (high / low) ** position)


def _draw(trial: Suggests, name: str, values: Distribution) -> Any:
    """Draw one parameter under its qualified name."""
    if values.value is not None:
        return values.value
    if values.values is not None and any(isinstance(value, list) for value in values.values):
        # Optuna's choices are numbers and words: of lists it warns at every draw. They go by their text.
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in values.values]))
    if values.values is not None:
        return trial.suggest_categorical(name, list(values.values))
    assert values.min is not None
    assert values.max is not None
    if values.distribution == "int_uniform":
        return trial.suggest_int(name, int(values.min), int(values.max))
    return trial.suggest_float(name, values.min, values.max, log=values.distribution == "log_uniform_values")
