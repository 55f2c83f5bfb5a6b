"""The model of short and long trainings: it finds known laws, is honest about what it does not know, and proposes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tune_lr.lr.convex_bound import convex_bound
from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.study.length_model import (
    Fitted,
    Forecast,
    LRPrior,
    Observation,
    Schedule,
    ScheduleForecast,
    fit,
    forecast,
    propose,
)

STEPS = 20_000
LENGTHS = (1 / 64, 1 / 16, 1 / 4)
NAMES = ("constant", "linear", "cosine", "onecycle", "step", "exponential")
SCHEDULES = {name: Schedule(name, make_lr_schedule(name, {}, STEPS).curve(50), name) for name in NAMES}
BOUNDS = {name: convex_bound(schedule.curve, STEPS) for name, schedule in SCHEDULES.items()}
PRIOR = LRPrior(lr=0.01, decades=1.0, low=1e-5, high=10.0)


@dataclass(frozen=True)
class Law:
    """A made-up world: the loss of every schedule at every LR and length, with valleys of another shape than the
    model's, and random deviations from what the model expects."""

    seed: int

    def _drawn(self) -> dict[str, float]:
        rng = np.random.default_rng(self.seed)
        return {
            "floor": rng.choice([0.0, 1.0, 3.0]),
            "scale": rng.choice([0.1, 0.5]),
            "alpha": rng.uniform(0.15, 0.6),
            "beta": rng.uniform(0.0, 0.5),
            "place": rng.uniform(-3, -1),
            "below": 0.8 * np.exp(0.4 * rng.normal()),
            "above": 1.2 * np.exp(0.4 * rng.normal()),
            "noise": 0.015 * np.exp(0.5 * rng.normal()),
            "own": rng.integers(2**31),
        }

    def bottom(self, name: str, length: float) -> tuple[float, float]:
        """log10 of the best LR, and the loss there."""
        world, against = self._drawn(), BOUNDS["constant"]
        own = np.random.default_rng([int(world["own"]), NAMES.index(name)]).normal(size=2)
        place = world["place"] + 1.2 * math.log10(BOUNDS[name].best_peak / against.best_peak) + 0.1 * own[0]
        place -= world["beta"] * math.log10(length)
        above = world["scale"] * (BOUNDS[name].quality / against.quality) ** 0.8 * math.exp(0.08 * own[1])
        return place, world["floor"] + above * length ** -world["alpha"]

    def loss(self, name: str, lr: float, length: float) -> float:
        world, (place, low) = self._drawn(), self.bottom(name, length)
        away = math.log10(lr) - place
        side = world["above"] if away > 0 else world["below"]
        return float(
            world["floor"] + (low - world["floor"]) * math.exp(min(side * math.log(math.cosh(2 * away)) / 2, 4))
        )

    def train(self, name: str, lr: float, length: float, luck: float = 0.0) -> Observation:
        world = self._drawn()
        loss = world["floor"] + (self.loss(name, lr, length) - world["floor"]) * math.exp(world["noise"] * luck)
        return Observation(SCHEDULES[name], lr, length, loss)


def search(law: Law, budget: float = 1.5) -> list[Observation]:
    """Trainings as they are proposed, none of them at full length."""
    luck, spent = np.random.default_rng(law.seed), 0.0
    observations: list[Observation] = []
    while lengths := [length for length in LENGTHS if spent + length <= budget]:
        proposal = propose(fit(observations, PRIOR, STEPS), list(SCHEDULES.values()), lengths)
        observations.append(law.train(proposal.schedule.name, proposal.lr, proposal.length, luck.normal()))
        spent += proposal.length
    return observations


def grid(law: Law, names: Sequence[str] = ("linear", "cosine", "constant")) -> list[Observation]:
    """A few LRs around the best of two lengths."""
    luck = np.random.default_rng(0)
    return [
        law.train(name, 10 ** (law.bottom(name, length)[0] + away), length, luck.normal())
        for name in names
        for length in LENGTHS[1:]
        for away in (-0.5, 0.0, 0.4)
    ]


def answer(observations: Sequence[Observation], prior: LRPrior = PRIOR) -> Forecast:
    return forecast(fit(observations, prior, STEPS), list(SCHEDULES.values()))


def of(found: Forecast, name: str) -> ScheduleForecast:
    return next(one for one in found.schedules if one.schedule.name == name)


def test_it_finds_the_law_of_made_up_worlds_at_one_and_a_half_trainings() -> None:
    regrets, costs, inside = [], [], []
    for law in map(Law, range(5)):
        found = answer(search(law))
        lowest = min(law.bottom(name, 1.0)[1] for name in NAMES)
        regrets.append(law.loss(found.schedules[0].schedule.name, found.schedules[0].lr, 1.0) / lowest - 1)
        for one in found.schedules:
            place, low = law.bottom(one.schedule.name, 1.0)
            reached = law.loss(one.schedule.name, one.lr, 1.0)
            costs.append(reached / low - 1)
            inside.append(one.lr_interval[0] <= 10**place <= one.lr_interval[1])
            inside.append(one.loss_interval[0] <= reached <= one.loss_interval[1])
    assert np.median(regrets) < 0.01
    assert max(regrets) < 0.06
    assert np.median(costs) < 0.01
    # 80 % intervals; the world's deviations are somewhat smaller than what the model allows for.
    assert 0.65 <= np.mean(inside) <= 0.98


def test_forecasts_are_in_order_and_their_probabilities_sum_to_one() -> None:
    found = answer(grid(Law(3)))
    assert sum(one.probability_best for one in found.schedules) == pytest.approx(1.0)
    assert {one.schedule.name for one in found.schedules} == set(NAMES)
    assert found.expected_regret >= 0
    for one in found.schedules:
        assert one.lr_interval[0] < one.lr_interval[1]
        assert one.loss_interval[0] <= one.loss <= one.loss_interval[1]


def test_a_longer_training_moves_the_answer_down_where_the_best_lr_falls() -> None:
    law = replace(Law(0), seed=next(seed for seed in range(50) if Law(seed)._drawn()["beta"] > 0.35))
    found = of(answer(grid(law)), "linear")
    assert found.lr < 0.8 * 10 ** law.bottom("linear", LENGTHS[-1])[0]
    assert found.loss < min(one.loss for one in grid(law))


def test_a_training_that_diverged_moves_the_answer_down() -> None:
    few = [Law(1).train("linear", 10 ** (Law(1).bottom("linear", 1 / 16)[0] - 1 + 0.3 * i), 1 / 16) for i in range(2)]
    before = of(answer(few), "linear")
    lr = before.lr
    after = of(answer([*few, Observation(SCHEDULES["linear"], lr, 1 / 16, math.inf, diverged=True)]), "linear")
    assert after.lr < before.lr
    assert after.lr_interval[1] < before.lr_interval[1]


def test_a_diverged_training_far_above_says_nothing() -> None:
    law = Law(2)
    before = of(answer(grid(law)), "linear")
    far = Observation(SCHEDULES["linear"], 9.0, 1 / 16, math.nan, diverged=True)
    after = of(answer([*grid(law), far]), "linear")
    assert after.lr == pytest.approx(before.lr, rel=0.15)


def test_an_absurd_loss_does_not_spoil_the_forecast() -> None:
    law = Law(4)
    before = of(answer(grid(law)), "linear")
    absurd = replace(law.train("cosine", 5.0, 1 / 16), loss=1e12)
    after = of(answer([*grid(law), absurd]), "linear")
    assert 0.5 < after.lr / before.lr < 2
    assert after.loss == pytest.approx(before.loss, rel=0.05)


@pytest.mark.parametrize("change", [lambda y: 1000 * y, lambda y: y - 50, lambda y: 1e-6 * y - 3])
def test_the_scale_and_the_sign_of_the_losses_do_not_matter(change: Callable[[float], float]) -> None:
    observations = grid(Law(5))
    before, after = answer(observations), answer([replace(one, loss=change(one.loss)) for one in observations])
    for name in NAMES:
        assert of(after, name).lr == pytest.approx(of(before, name).lr, rel=0.1)
        unit = change(1.0) - change(0.0)
        assert (of(after, name).loss - change(of(before, name).loss)) / unit == pytest.approx(0.0, abs=0.01)
        assert of(after, name).probability_best == pytest.approx(of(before, name).probability_best, abs=0.05)


def test_the_order_of_the_trainings_does_not_matter() -> None:
    observations = grid(Law(6))
    assert of(answer(observations[::-1]), "cosine").lr == pytest.approx(of(answer(observations), "cosine").lr, rel=0.06)


def test_lrs_in_another_unit_give_the_answer_in_that_unit() -> None:
    observations = grid(Law(7))
    prior = replace(PRIOR, lr=PRIOR.lr / 10, low=PRIOR.low / 10, high=PRIOR.high / 10)
    tenth = [replace(one, lr=one.lr / 10) for one in observations]
    assert of(answer(tenth, prior), "linear").lr == pytest.approx(of(answer(observations), "linear").lr / 10, rel=0.06)


def test_only_lrs_that_are_allowed_are_named() -> None:
    lrs = [1e-3, 3e-3, 1e-2]
    found = forecast(fit(grid(Law(1)), PRIOR, STEPS), list(SCHEDULES.values()), lrs)
    assert {one.lr for one in found.schedules} <= set(lrs)
    narrow = replace(PRIOR, lr=3e-4, low=1e-4, high=4e-4)
    assert all(1e-4 <= one.lr <= 4.001e-4 for one in answer(grid(Law(1)), narrow).schedules)


def test_without_a_training_it_answers_by_what_is_expected() -> None:
    found = answer([])
    assert of(found, "linear").lr > of(found, "constant").lr
    assert of(found, "constant").lr_interval[0] < PRIOR.lr < of(found, "constant").lr_interval[1]


def test_more_trainings_narrow_the_interval() -> None:
    law = Law(3)
    few, many = (of(answer(grid(law, names)), "linear") for names in (("linear",), ("linear", "cosine", "step")))
    width = [math.log(one.lr_interval[1] / one.lr_interval[0]) for one in (few, many, of(answer([]), "linear"))]
    assert width[1] < width[0] < width[2]


def fitted_to(law: Law) -> Fitted:
    return fit(grid(law), PRIOR, STEPS)


def test_a_proposal_is_one_of_what_is_allowed_and_the_same_each_time() -> None:
    first, second = (propose(fitted_to(Law(2)), list(SCHEDULES.values()), [1 / 16, 1 / 4]) for _ in range(2))
    assert first == second
    assert first.length in (1 / 16, 1 / 4)
    assert PRIOR.low <= first.lr <= PRIOR.high
    assert first.gain > 0


def test_a_training_that_is_running_is_not_proposed_again() -> None:
    fitted, schedules = fitted_to(Law(2)), list(SCHEDULES.values())
    first = propose(fitted, schedules, LENGTHS)
    running = Observation(first.schedule, first.lr, first.length, math.nan)
    second = propose(fitted, schedules, LENGTHS, [running])
    assert (second.schedule, second.length) != (first.schedule, first.length) or second.lr != first.lr


def test_what_each_training_costs_besides_its_length_makes_proposals_longer() -> None:
    fitted, schedules = fitted_to(Law(2)), list(SCHEDULES.values())
    assert propose(fitted, schedules, LENGTHS, overhead=10.0).length >= propose(fitted, schedules, LENGTHS).length
    assert propose(fitted, schedules, LENGTHS, overhead=10.0).length == LENGTHS[-1]


def test_other_parameters_keep_what_they_taught_apart() -> None:
    law = Law(6)
    here, there = (replace(SCHEDULES["linear"], others=(value,)) for value in (0.0, 1.0))
    good = [replace(one, schedule=here) for one in grid(law, ["linear"])]
    # With the other setting of the parameter the best LR is three times lower and the loss is higher.
    worse = [replace(one, schedule=there, lr=one.lr / 3, loss=1.1 * one.loss) for one in grid(law, ["linear"])]
    found = forecast(fit([*good, *worse], PRIOR, STEPS), [here, there])
    assert found.schedules[0].schedule == here
    assert found.schedules[0].lr > 1.7 * found.schedules[1].lr
