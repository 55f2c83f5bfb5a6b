"""The convex bound: the fast sums against the plain ones, and what theory says about known schedules."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tune_lr.lr.convex_bound import ConvexBound, convex_bound
from tune_lr.lr.schedule import make_lr_schedule

Array = NDArray[np.float64]


def double_sum(s: Array) -> ConvexBound:
    """Return the bound's terms as the papers write them, term by term."""
    steps = len(s)
    t3 = 0.0
    for k in range(steps - 1):
        t3 += s[k] / s[k + 1 :].sum() * (s[k:] ** 2).sum() / s[k:].sum()
    return ConvexBound(1 / (2 * s.sum()), (s**2).sum() / (2 * s.sum()), t3 / 2)


def terms(bound: ConvexBound) -> list[float]:
    return [bound.t1, bound.t2, bound.t3]


def factors_of(name: str, steps: int, **parameters: object) -> Array:
    schedule = make_lr_schedule(name, parameters, steps)
    return np.array([schedule.factor(step) for step in range(steps)])


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "wsd", "onecycle", "step", "exponential", "cyclic"])
def test_it_equals_the_plain_double_sum(name: str) -> None:
    s = factors_of(name, 240)
    used = s[: np.flatnonzero(s)[-1] + 1]
    np.testing.assert_allclose(terms(convex_bound(s)), terms(double_sum(used)), rtol=1e-10)


def test_it_equals_the_double_sum_on_rough_curves_with_zeros_inside() -> None:
    rng = np.random.default_rng(0)
    for steps in (1, 2, 3, 50):
        s = rng.random(steps) * (rng.random(steps) > 0.3)
        s[-1] = 0.5
        np.testing.assert_allclose(terms(convex_bound(s)), terms(double_sum(s)), rtol=1e-9)


def test_a_place_stands_for_many_steps() -> None:
    rng = np.random.default_rng(1)
    places = rng.random(12) + 0.01
    places[5] = 0.0
    np.testing.assert_allclose(
        terms(convex_bound(places, steps=12 * 30)), terms(double_sum(np.repeat(places, 30))), rtol=1e-10
    )


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "wsd", "onecycle"])
def test_fifty_places_of_a_long_schedule_are_enough(name: str) -> None:
    schedule = make_lr_schedule(name, {}, 50_000)
    exact = convex_bound([schedule.factor(step) for step in range(50_000)])
    coarse = convex_bound(schedule.curve(50), steps=50_000)
    assert coarse.best_peak == pytest.approx(exact.best_peak, rel=0.035)
    assert coarse.quality == pytest.approx(exact.quality, rel=0.035)


def test_linear_decay_is_better_than_a_constant_lr_and_wants_a_higher_peak() -> None:
    constant, linear = (convex_bound(factors_of(name, 10_000)) for name in ("constant", "linear"))
    assert linear.quality < 0.65 * constant.quality
    assert linear.best_peak > 2 * constant.best_peak


def test_the_best_peak_falls_with_the_square_root_of_the_length() -> None:
    short, long = (convex_bound([1 - t for t in np.linspace(0, 0.99, 50)], steps=steps) for steps in (1000, 16_000))
    assert short.best_peak / long.best_peak == pytest.approx(4, rel=0.1)


def test_the_best_peak_is_where_the_bound_is_lowest() -> None:
    bound = convex_bound(factors_of("cosine", 500))
    assert bound.at(bound.best_peak) == pytest.approx(bound.quality)
    assert all(bound.at(bound.best_peak * times) > bound.quality for times in (0.9, 1.1))


def test_a_schedule_at_half_its_peak_is_the_same_schedule() -> None:
    s = factors_of("cosine", 500)
    whole, half = convex_bound(s), convex_bound(s / 2)
    assert half.best_peak == pytest.approx(2 * whole.best_peak)
    assert half.quality == pytest.approx(whole.quality)


def test_steps_at_the_end_without_an_lr_do_not_count() -> None:
    s = factors_of("cosine", 100)
    assert terms(convex_bound([*s, 0.0, 0.0])) == pytest.approx(terms(convex_bound(s)))


@pytest.mark.parametrize("factors", [[], [0.0, 0.0], [1.0, -0.1], [1.0, float("nan")], [[1.0], [0.5]]])
def test_what_is_no_curve_is_refused(factors: list[float]) -> None:
    with pytest.raises(ValueError, match="factors must be"):
        convex_bound(factors)


def test_fewer_steps_than_places_are_refused() -> None:
    with pytest.raises(ValueError, match="at least the number of factors"):
        convex_bound([1.0, 1.0, 1.0], steps=2)
