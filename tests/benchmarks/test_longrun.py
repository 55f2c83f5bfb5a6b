"""The ground truth of long trainings: many trainings side by side against an ordinary loop, and the reader."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from longrun.batched import parents_and_forks, train_rows
from longrun.generate import Trainings, train_ordinarily
from longrun.landscape import (
    FOLDER,
    IN_VIEW,
    JUDGES,
    LENGTHS,
    LRS,
    POINTS,
    SCHEDULES,
    Landscape,
    load,
    load_ramps,
    lr_curve,
    names,
)
from longrun.workloads import BY_NAME, Work, cross_entropy, mlp, plain_digits

STEPS = 40
BOTTOM = np.log(0.01)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As `generate.py` has it: the operations are too small for two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "lr"), [("regression_momentum", 0.02), ("digits_mlp_adamw", 0.005), ("mnist_conv_momentum", 0.02)]
)
def test_trainings_side_by_side_equal_an_ordinary_loop(name: str, lr: float) -> None:
    work = BY_NAME[name]
    lrs = np.stack([peak * lr_curve(schedule, STEPS) for schedule in SCHEDULES for peak in (lr / 4, lr)])
    curves = train_rows(work, 3, lrs, POINTS)
    for row in (0, 3, 9, 11, 13, 15):  # among them cooldowns and steps, which part from the constant LR
        losses, val_losses = train_ordinarily(work, 3, lrs[row], POINTS)
        np.testing.assert_allclose(curves.val_loss[row], val_losses, rtol=1e-4)
        np.testing.assert_allclose(curves.train_loss[row, 0], losses[0], rtol=1e-5)
        np.testing.assert_allclose(curves.train_loss[row, 1:], np.reshape(losses, (POINTS, -1)).mean(1), rtol=1e-4)


def test_a_row_that_diverges_is_inf_and_leaves_the_others_alone() -> None:
    work = BY_NAME["regression_momentum"]
    lrs = np.stack([lr * lr_curve(schedule, STEPS) for lr in (50.0, 0.01) for schedule in ("constant", "wsd_20")])
    curves = train_rows(work, 0, lrs, POINTS)
    assert np.isfinite(curves.val_loss[:, 0]).all()
    assert np.isinf(curves.val_loss[:2, -1]).all()  # the second parts from the first after that has diverged
    np.testing.assert_array_equal(curves.val_loss[:2], train_rows(work, 0, lrs[:2], POINTS).val_loss)
    np.testing.assert_allclose(curves.val_loss[2:], train_rows(work, 0, lrs[2:], POINTS).val_loss, rtol=1e-5)


def test_rows_that_agree_are_trained_once_up_to_where_they_part() -> None:
    lrs = np.stack([lr_curve(schedule, 100) for schedule in ("constant", "linear", "wsd_50", "wsd_10", "step")])
    parents, forks = parents_and_forks(np.concatenate([lrs, 2 * lrs]))
    assert parents.tolist() == [-1, 0, 0, 0, 0, -1, 5, 5, 5, 5]
    assert forks.tolist() == [-1, 1, 51, 91, 34, -1, 1, 51, 91, 34]


def tiny() -> Work:
    return Work(
        name="tiny", make_data=plain_digits, model=lambda: mlp(64, 10), loss=cross_entropy, optimizer="sgd",
        arguments={"momentum": 0.9}, steps=10,
    )  # fmt: skip


def test_trainings_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    trainings = Trainings(tiny(), 2, tmp_path)
    assert trainings.train(1, 0)
    again = Trainings(tiny(), 2, tmp_path)
    assert not again.missing(1, 0).any()
    assert not again.train(1, 0)
    assert again.missing(1, 1).sum() == len(SCHEDULES) * (LRS < 11).sum()
    landscape = load("tiny", tmp_path)
    assert (landscape.seeds, landscape.lengths) == (1, [1])  # the second seed is missing
    assert again.train(1, 1)
    assert load("tiny", tmp_path).seeds == 2
    assert Trainings(tiny(), 3, tmp_path).missing(1, 2).all(axis=0).sum() == (LRS < 11).sum()


def valley(length: int, lr: float) -> float:
    """A valley whose bottom, 1, lies at an LR that falls with the root of the length."""
    return float(1 + 0.1 * (np.log(lr) - BOTTOM + np.log(length) / 2) ** 2)


@pytest.fixture
def landscape() -> Landscape:
    """The valley for every LR schedule, with seeds 10 % above and below it, and a training that diverged."""
    shape = (len(SCHEDULES), len(LENGTHS), len(LRS), 2, POINTS + 1)
    val_loss = np.full(shape, np.nan)
    for place, length in enumerate(LENGTHS):
        for lr in range(4, 20):
            for seed, factor in enumerate((0.9, 1.1)):
                val_loss[:, place, lr, seed] = np.linspace(30, factor * valley(length, LRS[lr]), POINTS + 1)
    val_loss[:, :, 19, 1, 5:] = np.inf
    return Landscape("valley", {length: 100 * length for length in LENGTHS}, LRS, val_loss, val_loss)


def test_the_best_is_the_bottom_of_the_valley(landscape: Landscape) -> None:
    for length in LENGTHS:
        best = landscape.best("cosine", length)
        assert best.loss == pytest.approx(1, abs=1e-3)
        assert best.lr == pytest.approx(np.exp(BOTTOM) / length**0.5, rel=0.01)
        assert landscape.bottom_is_inside("cosine", length)
    assert landscape.lowest(16) == ("constant", landscape.best("constant", 16))


def test_an_edge_of_divergence_makes_no_deeper_valley(landscape: Landscape) -> None:
    lowest = int(landscape.means("step", 4)[1].argmin()) + 4
    landscape.val_loss[SCHEDULES.index("step"), 1, lowest + 1 :, :, -1] = np.inf
    nearer = landscape.loss("step", 4, lowest - 1, 0) - landscape.loss("step", 4, lowest, 0)
    best = landscape.best("step", 4)
    assert landscape.lrs[lowest - 1] < best.lr < landscape.lrs[lowest]
    assert 0 <= landscape.mean("step", 4, float(landscape.lrs[lowest])) - best.loss <= nearer


def test_losses_between_and_beyond_the_trained_lrs(landscape: Landscape) -> None:
    lr = float(LRS[9])
    landscape.val_loss[SCHEDULES.index("cosine"), 2, 15:] = np.nan
    assert landscape.mean("linear", 16, lr) == pytest.approx(valley(16, lr))
    assert landscape.mean("linear", 16, lr, seed=1) == pytest.approx(1.1 * valley(16, lr))
    assert valley(16, 2**0.5 * lr) == pytest.approx(landscape.mean("linear", 16, 2**0.5 * lr), rel=0.01)
    assert landscape.mean("linear", 16, 1e3) == pytest.approx(landscape.mean("linear", 16, float(LRS[19])))
    # Below what was trained, a shorter training at a higher LR; above it, one at the same LR.
    assert landscape.mean("linear", 16, LRS[2]) == pytest.approx(valley(4, LRS[4]), rel=0.01)
    assert landscape.mean("cosine", 16, LRS[15]) == pytest.approx(max(valley(16, LRS[14]), valley(4, LRS[15])))
    assert landscape.mean("linear", 1, 1e-9) == landscape.mean("linear", 1, float(LRS[4]))


def test_what_diverged_counts_as_nothing_learned(landscape: Landscape) -> None:
    assert landscape.loss("linear", 1, 19, 1) == 30
    assert np.isnan(landscape.loss("linear", 1, 20, 1))
    assert landscape.curve("linear", 1, 19, 1)[-1] == np.inf


def test_noise_and_cost(landscape: Landscape) -> None:
    assert landscape.noise(4) == pytest.approx(np.log(1.1 / 0.9) / 2**0.5)
    assert [landscape.cost(length) for length in LENGTHS] == [1 / 64, 1 / 16, 1 / 4, 1]


def test_the_split_covers_every_workload_once() -> None:
    assert [*IN_VIEW, *JUDGES] == list(BY_NAME)


@pytest.mark.parametrize("name", names((*IN_VIEW, *JUDGES)))
def test_what_is_recorded_holds_the_best_of_every_schedule(name: str) -> None:
    landscape = load(name)
    ramps = load_ramps(name)
    assert landscape.steps == {length: length * BY_NAME[name].steps for length in LENGTHS}
    assert all(landscape.bottom_is_inside(schedule, length) for schedule in SCHEDULES for length in LENGTHS)
    assert [losses.shape[1] for losses in ramps.values()] == [300, 1000]
    assert (FOLDER / f"{name}.npz").stat().st_size < 500_000
