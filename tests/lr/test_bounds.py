"""Bounds from LR range tests: read from synthetic, seeded curves and from real ones; laws over random curves."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paths import DATA, ROOT
from ramp_curves import BEST, LRS, Curve, curve, noise_curve, replaced, trained
from tune_lr.errors import InputError
from tune_lr.lr.bounds import LRBounds, find_lr_bounds
from tune_lr.lr.divergence import DivergenceDetector
from tune_lr.lr.ramp import Ramp
from tune_lr.lr.ramp_curve import smooth_curve
from tune_lr.lr.training_length import REFERENCE_STEPS
from tune_lr.store.measured_curve import read_curve

LANDSCAPES = ROOT / "benchmarks" / "landscapes"


def answer(bounds: LRBounds) -> tuple[str, list[float]]:
    """All figures of the bounds in one list."""
    intervals = [bounds.low_interval, bounds.high_interval, bounds.suggestion_interval]
    figures = [f for f in (bounds.low, bounds.high, bounds.suggestion) if f is not None]
    figures += [end for interval in intervals if interval is not None for end in interval]
    return bounds.status, figures + list(bounds.fallen_lrs) + list(bounds.divergence_lrs)


def assert_same(first: LRBounds, second: LRBounds, factor: float = 1.0) -> None:
    assert first.status == second.status
    assert answer(second)[1] == pytest.approx([factor * figure for figure in answer(first)[1]], rel=1e-6)


# --- statuses


@pytest.mark.parametrize(
    ("name", "curves", "status", "advice"),
    [
        ("falls and explodes", [curve()], "ok", "search"),
        ("falls and dies", [curve(after="dies")], "ok", "search"),
        ("falls and climbs slowly", [curve(best=0.001, after="climbs")], "ok", "rises again"),
        ("three replicates", [curve(seed=seed) for seed in range(3)], "ok", "search"),
        ("negative losses", [(LRS, curve()[1] - 100)], "ok", "search"),
        ("20 points", [curve(lrs=np.geomspace(1e-5, 10, 20))], "ok", "search"),
        ("falls from the first step", [curve(lrs=np.geomspace(2e-3, 10, 300))], "ok", "search"),
        ("noise as large as the fall", [curve(seed=seed, noise=1.5) for seed in range(3)], "ok", "search"),
        ("NaN right of the basin", [replaced(curve(), {230: math.nan})], "ok", "search"),
        (
            "one replicate of three NaN",
            [curve(), curve(seed=1), replaced(curve(seed=2), {2: math.nan})],
            "ok",
            "search",
        ),
        (
            "still falling at the end",
            [curve(lrs=np.geomspace(1e-5, 5e-3, 300))],
            "no_divergence",
            "raise range_test.high",
        ),
        ("flat at the end", [curve(after="stays")], "no_divergence", "raise range_test.high"),
        ("a constant", [(LRS, np.full(300, 2.3))], "no_descent", "steps or replicates"),
        ("a plateau", [curve(lrs=np.geomspace(1e-8, 1e-5, 300))], "no_descent", "raise range_test.high"),
        (
            "a plateau, then NaN",
            [replaced(noise_curve("normal", 1), {200: math.nan})],
            "ok",
            "alone, search",
        ),
        ("one point", [(LRS[:1], np.array([2.3]))], "no_descent", "steps or replicates"),
        ("NaN at step 0", [replaced(curve(), {0: math.nan})], "diverged_at_start", "lower range_test.low"),
        ("NaN at step 2", [replaced(curve(), {2: math.nan})], "diverged_at_start", "lower range_test.low"),
        ("all NaN, thrice", [(LRS, np.full(300, math.nan))] * 3, "diverged_at_start", "lower range_test.low"),
        ("explodes at once", [curve(lrs=np.geomspace(0.3, 10, 300))], "diverged_at_start", "lower range_test.low"),
        ("rises at once", [(LRS[:20], np.linspace(2, 9, 20))], "diverged_at_start", "lower range_test.low"),
    ],
)
def test_status(name: str, curves: list[Curve], status: str, advice: str) -> None:
    bounds = find_lr_bounds(curves)
    assert bounds.status == status, bounds.reason
    assert advice in bounds.reason
    assert "nan" not in bounds.reason
    assert bounds.replicates == len(curves)
    given_figures = [bounds.low, bounds.high, bounds.suggestion, bounds.low_interval, bounds.suggestion_interval]
    assert all((figure is not None) == (status == "ok") for figure in given_figures)


@pytest.mark.parametrize("kind", ["normal", "lognormal", "chi2"])
def test_pure_noise_abstains_in_nearly_all_curves(kind: str) -> None:
    read = [find_lr_bounds([noise_curve(kind, seed)]).status for seed in range(100)]
    assert read.count("ok") == 0
    assert read.count("no_descent") >= 96


# --- where the bounds lie


@pytest.mark.parametrize("best", [1e-3, 1e-2, 0.1])
@pytest.mark.parametrize("after", ["explodes", "dies"])
@pytest.mark.parametrize("replicates", [1, 3])
def test_the_bounds_hold_the_best_lr_within_a_decade_and_a_half(best: float, after: str, replicates: int) -> None:
    bounds = find_lr_bounds([curve(best=best, after=after, seed=seed) for seed in range(replicates)])
    assert bounds.low is not None
    assert bounds.high is not None
    assert bounds.suggestion is not None
    assert bounds.low < best < bounds.high
    assert 0.2 * best < bounds.suggestion < best
    assert math.log10(bounds.high / bounds.low) <= 1.5


@pytest.mark.parametrize("place", [0, 40, 150, 180, 210])
@pytest.mark.parametrize("height", [-5, 20])
def test_a_spike_moves_the_suggestion_by_less_than_a_tenth_of_a_decade(place: int, height: float) -> None:
    clean, spiked = find_lr_bounds([curve()]), find_lr_bounds([replaced(curve(), {place: height})])
    assert clean.suggestion is not None
    assert spiked.suggestion is not None
    assert abs(math.log10(spiked.suggestion / clean.suggestion)) < 0.1


@pytest.mark.parametrize(
    "ramp",
    [
        *(Ramp(1e-5, 10, steps) for steps in (60, 100, 150, 200, 1000, 3000)),
        Ramp(1e-7, 10, 100),
        Ramp(1e-4, 1, 300, "linear"),
        Ramp(1e-5, 10, 300, "staircase", 30),
        Ramp(1e-5, 10, 3000, "staircase", 30),
    ],
)
def test_how_fast_the_ramp_rises_hardly_moves_the_answer(ramp: Ramp) -> None:
    bounds = find_lr_bounds([trained(np.array([ramp.lr(step) for step in range(ramp.steps)]))])
    reference = find_lr_bounds([trained(LRS)])
    assert bounds.suggestion is not None
    assert reference.suggestion is not None
    assert abs(math.log10(bounds.suggestion / reference.suggestion)) < 0.2


# LeNet-5 on 4,000 digits, batch 128, SGD with momentum 0.9: its best constant LR is 0.18, its best cyclic peak 0.56.
@pytest.mark.parametrize("name", ["staircase", "linear"])
def test_real_curves_of_other_ramps_are_read_rightly(name: str) -> None:
    bounds = find_lr_bounds([read_curve(DATA / f"lenet5_{name}.csv")])
    assert bounds.status == "ok"
    assert bounds.low is not None
    assert bounds.high is not None
    assert bounds.low < 0.18 < 0.56 <= bounds.high
    assert bounds.suggestion is not None
    assert 0.18 / 2.5 < bounds.suggestion < 0.18 * 2.5


# From benchmarks/landscapes: what must lie inside for every one of six schedules to come within 2 % of its best loss.
@pytest.mark.parametrize(
    ("workload", "lowest", "highest"),
    [
        ("lenet5_sgd", 0.46, 1.0),
        ("lenet5_momentum", 0.07, 0.22),
        ("mlp_adamw", 0.0068, 0.032),
        ("cnn_bn", 0.046, 0.1),
        ("transformer_adamw", 0.0047, 0.01),
        ("gru_adam", 0.021, 0.1),
        ("autoencoder", 1.0, 1.5),
    ],
)
def test_bounds_from_real_ramps_hold_the_best_lrs(workload: str, lowest: float, highest: float) -> None:
    with np.load(LANDSCAPES / f"{workload}.npz") as ramps:
        bounds = find_lr_bounds([(LRS, losses) for losses in ramps["tune_lr"][:3]])
    assert bounds.low is not None
    assert bounds.high is not None
    assert bounds.suggestion is not None
    assert bounds.low <= lowest
    assert highest <= bounds.high
    assert math.log10(bounds.high / bounds.low) <= 1.5


@pytest.mark.parametrize(
    "workload", ["lenet5_sgd", "lenet5_momentum", "mlp_adamw", "cnn_bn", "transformer_adamw", "gru_adam"]
)
def test_real_ramps_four_times_as_fast_read_alike(workload: str) -> None:
    with np.load(LANDSCAPES / f"{workload}.npz") as ramps:
        slow = find_lr_bounds([(LRS, losses) for losses in ramps["tune_lr"][:3]]).suggestion
        lrs = 1e-7 * 1e8 ** (np.arange(100) / 100)
        fast = find_lr_bounds([(lrs, losses) for losses in ramps["fastai"][:3]]).suggestion
    assert slow is not None
    assert fast is not None
    assert 0.4 < fast / slow < 2.5


def test_few_steps_at_low_lrs_are_said_to_leave_the_lower_end_unsure() -> None:
    reasons = [find_lr_bounds([curve(lrs=np.geomspace(1e-5, 10, steps))]).reason for steps in (40, 300)]
    assert ["steps had a lower LR, so that the lower end is unsure" in reason for reason in reasons] == [True, False]


def test_the_real_staircase_is_30_stairs_of_31_steps() -> None:
    lrs, losses = read_curve(DATA / "lenet5_staircase.csv")
    ramp = Ramp(1e-5, 1e-5 * 1.5**29, 930, "staircase", 30)
    assert lrs == pytest.approx([ramp.lr(step) for step in range(len(lrs))], rel=1e-5)
    assert len(lrs) > 900
    assert DivergenceDetector().update(losses) == len(losses) - 1


def test_replicates_on_different_lrs_are_pooled() -> None:
    bounds = find_lr_bounds([curve(), curve(seed=1, lrs=np.geomspace(1e-4, 10, 200)), curve(seed=2)])
    assert_close = find_lr_bounds([curve(), curve(seed=1), curve(seed=2)])
    assert bounds.suggestion is not None
    assert assert_close.suggestion is not None
    assert abs(math.log10(bounds.suggestion / assert_close.suggestion)) < 0.1


def test_a_schedule_that_is_lower_on_average_gets_a_higher_peak() -> None:
    bounds = find_lr_bounds([curve()])
    peaks = [bounds.suggestion_for(factor) or 0.0 for factor in (1.0, 0.5, 0.2, 1e-9)]
    assert bounds.suggestion == peaks[0] < peaks[1] < peaks[2] < peaks[3] == bounds.high
    assert find_lr_bounds([noise_curve("normal", 0)]).suggestion_for(0.5) is None


def test_longer_trainings_get_lower_bounds_and_a_wider_interval() -> None:
    short, same, long = (find_lr_bounds([curve()], max_steps) for max_steps in (None, REFERENCE_STEPS, 60_000))
    assert short == same
    falls = [long.low / short.low, long.suggestion / short.suggestion, long.high / short.high]  # type: ignore[operator]
    assert falls == pytest.approx([100**-0.6, 100**-0.4, 100**-0.2])
    assert long.suggestion_interval[0] < short.suggestion_interval[0]  # type: ignore[index]
    assert f"{long.low:.2g} to {long.high:.2g} in trainings of 60,000 steps" in long.reason


def test_bounds_for_a_training_without_steps_are_refused() -> None:
    with pytest.raises(InputError, match=r"max_steps \(got 0\) must be at least 1"):
        find_lr_bounds([curve()], 0)


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.01, math.nan])
def test_a_mean_factor_outside_0_to_1_is_refused(factor: float) -> None:
    with pytest.raises(InputError, match="mean_factor"):
        find_lr_bounds([curve()]).suggestion_for(factor)


def test_where_only_the_edge_is_seen_the_bounds_hang_on_it_and_say_so() -> None:
    # The regression's batches are of 8: its noise hides what the model learns before it diverges.
    with np.load(LANDSCAPES / "regression.npz") as ramps:
        bounds = find_lr_bounds([(LRS, losses) for losses in ramps["tune_lr"][:3]])
    assert bounds.status == "ok"
    assert bounds.edge_only
    assert not bounds.fallen_lrs
    assert bounds.low is not None
    assert bounds.low < 0.01 < 0.046 < (bounds.high or 0.0)
    assert bounds.suggestion_interval == (bounds.low, bounds.high)
    assert bounds.high == np.median(bounds.divergence_lrs)


def test_a_fall_that_noise_hides_shows_in_ramps_four_times_as_long() -> None:
    slower = Ramp(LRS[0], LRS[-1], 4 * len(LRS))
    lrs = np.array([slower.lr(step) for step in range(slower.steps)])
    hidden = [find_lr_bounds([trained(LRS, seed=3 * n + k, noise=1.0) for k in range(3)]) for n in range(10)]
    shown = [find_lr_bounds([trained(lrs, seed=3 * n + k, noise=1.0) for k in range(3)]) for n in range(10)]
    assert [sum(bounds.edge_only for bounds in found) for found in (hidden, shown)] == [10, 0]
    for bounds in hidden + shown:
        assert bounds.low is not None
        assert bounds.high is not None
        assert bounds.low < BEST < bounds.high


def test_intervals_span_the_replicates() -> None:
    bounds = find_lr_bounds([curve(best=best, seed=seed) for seed, best in enumerate([0.03, 0.05, 0.08])])
    assert bounds.low is not None
    assert bounds.suggestion is not None
    assert bounds.suggestion_interval is not None
    least, most = bounds.suggestion_interval
    assert least < bounds.suggestion < most
    assert math.log10(most / least) == pytest.approx(math.log10(0.08 / 0.03), abs=0.1)
    assert len(bounds.fallen_lrs) == len(bounds.divergence_lrs) == 3


# --- laws


RAMPS = {
    "exponential": LRS,
    "linear": np.linspace(1e-5, 10, 300),
    "staircase": np.repeat(np.geomspace(1e-5, 10, 30), 10),
}
curve_sets = st.builds(
    lambda seed, count, noise, after, best, ramp: [
        curve(seed=seed + k, noise=noise, after=after, best=best, lrs=RAMPS[ramp]) for k in range(count)
    ],
    st.integers(0, 10_000),
    st.integers(1, 3),
    st.sampled_from([0.01, 0.1, 1.0]),
    st.sampled_from(["explodes", "dies", "climbs", "stays"]),
    st.floats(1e-3, 0.5),
    st.sampled_from(list(RAMPS)),
)
wild_losses = st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(curves=curve_sets, scale=st.floats(1e-4, 1e4), offset=st.floats(-100, 100))
def test_law_scaling_and_shifting_the_loss_changes_nothing(curves: list[Curve], scale: float, offset: float) -> None:
    moved = [(lrs, scale * (losses + offset)) for lrs, losses in curves]
    assert_same(find_lr_bounds(curves), find_lr_bounds(moved))


@settings(max_examples=40, deadline=None)
@given(curves=curve_sets, factor=st.floats(1e-6, 1e6))
def test_law_scaling_the_lr_scales_the_bounds(curves: list[Curve], factor: float) -> None:
    assert_same(find_lr_bounds(curves), find_lr_bounds([(factor * lrs, losses) for lrs, losses in curves]), factor)


@settings(max_examples=40, deadline=None)
@given(
    curves=curve_sets,
    junk=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=300, max_size=300),
    keep=st.integers(0, 300),
)
def test_law_points_after_divergence_change_nothing(curves: list[Curve], junk: list[float], keep: int) -> None:
    changed = []
    for lrs, losses in curves:
        step = DivergenceDetector().update(list(losses))
        after = len(lrs) if step is None else step + 1
        tail = np.array(junk[: min(keep, len(lrs) - after)])
        changed.append((lrs[: after + len(tail)], np.concatenate([losses[:after], tail])))
    assert find_lr_bounds(changed) == find_lr_bounds(curves)


def assert_sound(bounds: LRBounds) -> None:
    json.dumps(bounds.to_dict(), allow_nan=False)
    if bounds.status != "ok":
        return
    assert bounds.low is not None
    assert bounds.high is not None
    assert bounds.suggestion is not None
    assert 0 < bounds.low <= bounds.suggestion <= bounds.high < math.inf
    for figure, interval in (
        (bounds.low, bounds.low_interval),
        (bounds.suggestion, bounds.suggestion_interval),
        (bounds.high, bounds.high_interval),
    ):
        assert interval is not None
        assert interval[0] <= figure <= interval[1]


@settings(max_examples=40, deadline=None)
@given(curves=curve_sets)
def test_law_low_suggestion_and_high_are_ordered(curves: list[Curve]) -> None:
    assert_sound(find_lr_bounds(curves))


@settings(deadline=None)
@given(curves=st.lists(wild_losses, min_size=1, max_size=4), stairs=st.booleans())
def test_law_no_losses_whatever_give_a_nan_or_a_crash(curves: list[list[float]], stairs: bool) -> None:
    lrs = np.repeat(np.geomspace(1e-4, 1, 12), 5) if stairs else np.geomspace(1e-5, 10, 60)
    assert_sound(find_lr_bounds([(lrs[: len(losses)], losses) for losses in curves]))


# --- records, pictures, refusals


@pytest.mark.parametrize("curves", [[curve()], [curve(), curve(seed=1)], [noise_curve("normal", 0)]])
def test_bounds_survive_json(curves: list[Curve]) -> None:
    bounds = find_lr_bounds(curves)
    assert LRBounds.from_dict(json.loads(json.dumps(bounds.to_dict(), allow_nan=False))) == bounds


def test_bounds_with_a_wrong_key_are_refused() -> None:
    data = find_lr_bounds([curve()]).to_dict()
    with pytest.raises(InputError, match="hihg"):
        LRBounds.from_dict({**data, "hihg": 1})
    del data["status"]
    with pytest.raises(InputError, match="status"):
        LRBounds.from_dict(data)


@pytest.mark.parametrize("steps", [1, 2, 20, 300, 2000])
def test_the_smoothed_curve_has_the_curve_s_length_and_ends_at_divergence(steps: int) -> None:
    lrs, losses = curve(lrs=np.geomspace(1e-5, 10, steps))
    smoothed = smooth_curve(lrs, losses)
    step = DivergenceDetector().update(list(losses))
    assert smoothed.shape == (steps,)
    assert np.isfinite(smoothed[:step]).all()
    assert step is None or np.isnan(smoothed[step:]).all()


def test_the_smoothed_curve_is_closer_to_the_truth_than_the_noisy_one() -> None:
    (lrs, noisy), (_, truth) = curve(after="stays", noise=0.2), curve(after="stays", noise=0)
    assert np.abs(smooth_curve(lrs, noisy) - truth).mean() < 0.4 * np.abs(noisy - truth).mean()


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ([], "at least one"),
        ([([], [])], "not empty"),
        ([([0.1, 0.2], [1.0])], "equally long"),
        ([([[0.1, 0.2]], [[1.0, 2.0]])], "1-D"),
        ([([0.0, 0.1], [1.0, 2.0])], "step 0 .got 0.0. must be positive"),
        ([([0.1, math.nan], [1.0, 2.0])], "step 1 .got nan. must be positive"),
        (
            [([0.1, 0.2], [1, 2]), ([0.1, 0.2, 0.15], [1, 2, 3])],
            "curve 1: LR of step 2 .got 0.15 after 0.2. must not fall",
        ),
    ],
)
def test_curves_that_contradict_themselves_are_refused(curves: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_lr_bounds(curves)
