"""The ramp of an LR range test: its LR at every step, and what it refuses."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_lr.errors import InputError
from tune_lr.lr.ramp import Ramp


@pytest.mark.parametrize(
    ("ramp", "expected"),
    [
        (Ramp(0.001, 10, 5), [0.001, 0.01, 0.1, 1, 10]),
        (Ramp(0.001, 10, 5, "exponential"), [0.001, 0.01, 0.1, 1, 10]),
        (Ramp(1, 3, 5, "linear"), [1, 1.5, 2, 2.5, 3]),
        (Ramp(0.01, 1, 6, "staircase", 3), [0.01, 0.01, 0.1, 0.1, 1, 1]),
        (Ramp(0.01, 1, 7, "staircase", 3), [0.01, 0.01, 0.01, 0.1, 0.1, 1, 1]),
        (Ramp(0.01, 1, 4, "staircase", 2), [0.01, 0.01, 1, 1]),
        (Ramp(0.01, 1, 3, "staircase", 3), [0.01, 0.1, 1]),
        (Ramp(0.1, 0.2, 2), [0.1, 0.2]),
    ],
)
def test_ramp_at_every_step(ramp: Ramp, expected: list[float]) -> None:
    assert [ramp.lr(step) for step in range(ramp.steps)] == pytest.approx(expected, rel=1e-12)


def test_the_exponential_ramp_is_the_base_2_one_at_every_step() -> None:
    # 2 ** (log2 low + (log2 high - log2 low) * batch / batches), over 30 epochs of 31 batches. It stops one batch short
    # of `high`: the ramp that takes the same steps has one more.
    low, high, batches = math.log2(1e-5), math.log2(10), 30 * 31
    ramp = Ramp(1e-5, 10, batches + 1)
    shown = [ramp.lr(batch) for batch in range(batches)]
    assert shown == pytest.approx([2 ** (low + (high - low) * batch / batches) for batch in range(batches)], rel=1e-12)


def test_a_staircase_multiplies_between_epochs_and_holds_within() -> None:
    epochs, batches = 30, 31
    ramp = Ramp(1e-5, 1e-5 * 1.5 ** (epochs - 1), epochs * batches, "staircase", epochs)
    shown = [ramp.lr(step) for step in range(ramp.steps)]
    assert shown == pytest.approx([1e-5 * 1.5 ** (step // batches) for step in range(ramp.steps)], rel=1e-12)
    assert len(set(shown)) == epochs


@given(
    low=st.floats(1e-9, 1),
    ratio=st.floats(1.001, 1e8),
    steps=st.integers(2, 200),
    mode=st.sampled_from(["exponential", "linear", "staircase"]),
)
def test_a_ramp_meets_its_ends_exactly_and_never_falls(low: float, ratio: float, steps: int, mode: str) -> None:
    ramp = Ramp(low, low * ratio, steps, mode, stairs=max(2, steps // 3) if mode == "staircase" else None)
    lrs = [ramp.lr(step) for step in range(steps)]
    assert (lrs[0], lrs[-1]) == (ramp.low, ramp.high)
    assert all(a <= b * (1 + 1e-12) for a, b in itertools.pairwise(lrs))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 10), "0 < low < high"),
        ((1, 1, 10), "0 < low < high"),
        ((1, math.inf, 10), "0 < low < high"),
        ((math.nan, 1, 10), "0 < low < high"),
        ((0.1, 1, 1), "at least 2"),
        ((0.1, 1, 10, "cosine"), "'cosine'.*exponential, linear, staircase"),
        ((0.1, 1, 10, "staircase"), "got None"),
        ((0.1, 1, 10, "staircase", 11), "got 11"),
        ((0.1, 1, 10, "staircase", 1), "got 1"),
        ((0.1, 1, 10, "linear", 3), "belongs to mode staircase"),
    ],
)
def test_a_ramp_that_contradicts_itself_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Ramp(*arguments)


@pytest.mark.parametrize("step", [-1, 5])
def test_a_step_outside_the_ramp_is_refused(step: int) -> None:
    with pytest.raises(InputError, match="0 to 4"):
        Ramp(0.1, 1, 5).lr(step)
