"""Divergence in an LR range test: what is one and what is none, on synthetic, seeded curves."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramp_curves import BEST, LRS, curve, noise_curve, replaced
from tune_lr.lr.divergence import DivergenceDetector


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("step", [0, 2, 20, 299])
def test_a_loss_that_is_not_finite_diverges_at_that_step(bad: float, step: int) -> None:
    assert DivergenceDetector().update(list(replaced(noise_curve("normal", 0), {step: bad})[1])) == step


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["normal", "lognormal", "t2"])
def test_noise_is_not_divergence(kind: str, seed: int) -> None:
    assert DivergenceDetector().update(list(noise_curve(kind, seed)[1])) is None


@pytest.mark.parametrize("place", [5, 60, 150, 200])
@pytest.mark.parametrize("height", [5, 50])
def test_a_spike_is_not_divergence(place: int, height: float) -> None:
    _, losses = replaced(curve(after="stays"), {place: height, place + 1: height / 2})
    assert DivergenceDetector().update(list(losses)) is None


def test_a_loss_that_returns_to_its_plateau_for_a_few_steps_and_then_falls_lower_has_not_diverged() -> None:
    # As LeNet-5 with momentum does short of its edge.
    _, losses = curve(after="stays")
    losses[150:167] = 2.25
    assert DivergenceDetector().update(list(losses)) is None


@pytest.mark.parametrize("after", ["explodes", "dies"])
@pytest.mark.parametrize("offset", [0, -10])
def test_divergence_is_called_after_the_minimum_and_before_the_ramp_ends(after: str, offset: float) -> None:
    _, losses = curve(after=after)
    step = DivergenceDetector().update(list(losses + offset))
    edge = int(np.searchsorted(LRS, BEST * 10**0.5))
    assert step is not None
    assert edge <= step <= edge + 50


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    after=st.sampled_from(["explodes", "dies", "climbs", "stays"]),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=300),
)
def test_the_verdict_does_not_depend_on_the_chunks(seed: int, after: str, sizes: list[int]) -> None:
    losses = list(curve(seed=seed, after=after)[1])
    whole = DivergenceDetector().update(losses)
    for chunks in ([1] * 300, [10] * 30, sizes):
        detector, place = DivergenceDetector(), 0
        for size in chunks:
            seen = detector.update(losses[place : place + size])
            place += size
            # Known as soon as it can be, and kept.
            assert seen == (whole if whole is not None and whole < place else None)
