"""What is proposed next: whole studies on the made-up landscape of simulated.py, and the laws of the process."""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from simulated import (
    BEST_LR,
    DIVERGES_AT,
    FIXED_LR,
    SMALL,
    config_of,
    descend,
    execute,
    loss,
    noise,
    open_study,
    ramp,
    ramp_loss,
    train,
)
from tune_lr.config.model import Config
from tune_lr.records.row import rank_search
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.study.sampler import (
    MOST_BEST,
    MOST_LATEST,
    WORST,
    LRSampler,
    Placement,
    Point,
    _scaled,
    expected_improvement,
    posterior_values,
    quality,
)
from tune_lr.study.search_space import (
    FROM_THE_EDGE,
    PEAK,
    SUGGESTED,
    UNKNOWN,
    Draw,
    Suggests,
    expected_lr,
    lr_curve,
    suggested_lr,
)

SIX: dict[str, dict[str, Any]] = {
    name: {} for name in ("constant", "step", "exponential", "cosine", "onecycle", "cyclic")
}
WIDE = {"lr": {"min": 1e-5, "max": 10.0}, "lr_schedule": {"choices": SIX}}
RANGE_TEST = {"lr": SMALL["parameters"]["lr"], "lr_schedule": {"choices": SIX}}
SEARCH: dict[str, Any] = {
    "sampler": {"name": "gp"},
    "pruner": {"name": "none"},
    "confirm": {"top": 0, "seeds": 1},
    "parameters": RANGE_TEST,
    "num_trials": 14,
}


Figure = Callable[[float], float]


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


def proposals(root: Path, slots: int = 1, of: Figure | None = None, **changes: Any) -> list[TrialSpec]:
    """The search trials of a study, in their order; `of` changes every figure."""

    def changed(spec: TrialSpec, config: Config) -> Iterator[Report]:
        if of is None:
            return train(spec, config)
        if spec.ramp is not None:
            return ramp(spec, ramp_loss)
        return descend(spec, config, lambda step: of(loss(spec.lr, spec.lr_schedule, step, spec.seed)))

    study = open_study(root, config_of(**{**SEARCH, **changes}))
    execute(study, slots=slots, train=changed)
    return [study.trials.spec(row.number) for row in study.rows() if row.phase == "search"]


def distance(spec: TrialSpec) -> float:
    return abs(math.log10(spec.lr / BEST_LR))


def loss_of(specs: list[TrialSpec]) -> float:
    return min(loss(spec.lr, spec.lr_schedule, 8, spec.seed) for spec in specs)


@pytest.mark.parametrize("parameters", [FIXED_LR, WIDE], ids=["over two decades", "over six decades"])
def test_it_comes_closer_than_a_random_search_of_as_many_trials(tmp_path: Path, parameters: dict[str, Any]) -> None:
    ours, random = [], []
    for seed in range(3):
        settings: dict[str, Any] = {"parameters": parameters | {"lr_schedule": {"choices": SIX}}, "seed": seed}
        ours.append(loss_of(proposals(tmp_path / f"ours{seed}", **settings)))
        random.append(loss_of(proposals(tmp_path / f"random{seed}", **settings, sampler={"name": "random"})))
    assert np.mean(ours) < np.mean(random)


def test_no_schedule_is_left_out(tmp_path: Path) -> None:
    assert {spec.lr_schedule for spec in proposals(tmp_path, num_trials=16)} == set(SIX)


def test_slots_are_not_given_the_same_thing_twice(tmp_path: Path) -> None:
    specs = proposals(tmp_path, slots=6, num_trials=6)
    pairs = [(a, b) for a in specs for b in specs if a.number < b.number and a.lr_schedule == b.lr_schedule]
    assert all(abs(math.log10(a.lr / b.lr)) >= 0.05 for a, b in pairs)
    assert len({spec.lr_schedule for spec in specs}) >= 4


@pytest.mark.parametrize("of", [lambda x: 100 * x, lambda x: x / 1000 - 50], ids=["a hundredfold", "shifted"])
def test_the_scale_and_the_offset_of_the_metric_make_no_difference(tmp_path: Path, of: Figure) -> None:
    drawn = [[(s.lr_schedule, s.lr) for s in proposals(tmp_path / n, of=f)] for n, f in (("a", None), ("b", of))]
    assert drawn[0][0] == drawn[1][0]
    assert [name for name, _ in drawn[0]] == [name for name, _ in drawn[1]]
    assert np.log([lr for _, lr in drawn[0]]) == pytest.approx(np.log([lr for _, lr in drawn[1]]), abs=1e-6)


def test_a_metric_is_maximized(tmp_path: Path) -> None:
    specs = proposals(tmp_path, metric={"name": "val_accuracy", "goal": "maximize"})
    assert np.median([distance(spec) for spec in specs[-5:]]) < np.median([distance(spec) for spec in specs[:5]])
    assert loss_of(specs) < 0.3


def test_a_trial_that_diverged_does_not_hide_what_the_others_show(tmp_path: Path) -> None:
    def diverges(spec: TrialSpec, config: Config) -> Iterator[Report]:
        if spec.phase == "search" and spec.lr > 1.2 * BEST_LR:
            return iter([Report(2, ((1, spec.lr, 1.0), (2, spec.lr, math.inf)), over=True, diverged=True)])
        return train(spec, config)

    study = open_study(tmp_path, config_of(**{**SEARCH, "parameters": WIDE, "num_trials": 20}))
    execute(study, train=diverges)
    rows = [row for row in study.rows() if row.state == "complete"]
    assert min(abs(math.log10(row.lr / BEST_LR)) for row in rows) < 0.25


def test_a_driver_that_takes_over_proposes_what_the_first_would_have(tmp_path: Path) -> None:
    config = config_of(**SEARCH)
    calm, killed = open_study(tmp_path / "calm", config), open_study(tmp_path / "killed", config)
    execute(calm)
    execute(killed, reports=29)
    again = open_study(tmp_path / "killed", config)
    execute(again)
    assert [(row.lr_schedule, row.lr) for row in again.rows()] == [(row.lr_schedule, row.lr) for row in calm.rows()]


@pytest.mark.parametrize(("best", "next_one"), [(1, 2), (5, 4)])
def test_choices_that_are_numbers_are_neighbours_by_their_order(best: int, next_one: int) -> None:
    choices = [1, 2, 3, 4, 5]

    def place(trial: Suggests) -> Placement:
        trial.suggest_categorical("width", choices)
        return placed(0.0)

    study = optuna.create_study(sampler=LRSampler(place, seed=0))
    for width in (1, 3, 5):
        distributions: dict[str, BaseDistribution] = {"width": CategoricalDistribution(choices)}
        study.add_trial(
            optuna.create_trial(params={"width": width}, distributions=distributions, value=float(abs(width - best)))
        )
    assert study.ask(distributions).params["width"] == next_one


def test_pruned_trials_are_learned_from(tmp_path: Path) -> None:
    pruner = {"name": "asha", "min_steps": 2, "reduction_factor": 2}
    study = open_study(tmp_path, config_of(**{**SEARCH, "pruner": pruner, "num_trials": 24}))
    execute(study)
    rows = [row for row in study.rows() if row.phase == "search"]
    assert {row.state for row in rows} == {"complete", "pruned"}
    pairs = [(a, b) for a in rows for b in rows if a.number < b.number and a.lr_schedule == b.lr_schedule]
    assert all(abs(math.log10(a.lr / b.lr)) >= 0.05 for a, b in pairs)


# --- what is believed of a trial --------------------------------------------------------------------------------------


def place_at_lr(trial: Suggests) -> Placement:
    return placed(math.log10(trial.suggest_float("lr", 0.01, 100.0, log=True)))


def completed(values: dict[float, float], direction: Literal["minimize", "maximize"] = "minimize") -> optuna.Study:
    """By decades from the LR that is expected to be best."""
    study = optuna.create_study(direction=direction)
    lrs: dict[str, BaseDistribution] = {"lr": FloatDistribution(0.01, 100.0, log=True)}
    for decades, value in values.items():
        study.add_trial(optuna.create_trial(params={"lr": 10**decades}, distributions=lrs, value=value))
    return study


VALLEY = {decades: 2.0 + decades**2 for decades in (-0.8, -0.5, -0.3, -0.1, 0.0, 0.1, 0.3, 0.5, 0.8)}


def test_one_lucky_seed_on_the_side_of_the_valley_is_not_believed() -> None:
    lucky = {**VALLEY, 0.7: 1.99}
    values = list(posterior_values(completed(lucky), place_at_lr).values())
    assert abs(list(lucky)[values.index(min(values))]) <= 0.1


def test_a_trial_that_was_far_worse_than_its_neighbours_is_not_believed_as_good_as_they_are() -> None:
    values = list(posterior_values(completed({**VALLEY, 0.02: 2.9}), place_at_lr).values())
    assert values[-1] > max(values[2:7])


def test_where_there_is_no_luck_the_best_is_believed_the_best() -> None:
    values = posterior_values(completed(VALLEY), place_at_lr)
    assert min(values, key=values.__getitem__) == list(VALLEY).index(0.0)


def test_of_what_is_maximized_the_opposite_is_believed() -> None:
    values = posterior_values(completed(VALLEY), place_at_lr)
    negated = completed({decades: -value for decades, value in VALLEY.items()}, "maximize")
    assert posterior_values(negated, place_at_lr) == pytest.approx({number: -value for number, value in values.items()})


def test_nothing_is_believed_of_an_empty_study() -> None:
    assert posterior_values(completed({}), place_at_lr) == {}


def test_a_lucky_trial_does_not_become_the_finalist(tmp_path: Path) -> None:
    settings = {**SEARCH, "sampler": {"name": "random"}, "num_trials": 24, "confirm": {"top": 1, "seeds": 1}}
    specs = proposals(tmp_path / "before", **settings)
    lucky = max((spec for spec in specs if spec.lr < BEST_LR), key=distance)

    def train_with_luck(spec: TrialSpec, config: Config) -> Iterator[Report]:
        if spec.phase == "search" and spec.number == lucky.number:
            return descend(spec, config, lambda step: 0.2)  # less than any other reaches
        return train(spec, config)

    study = open_study(tmp_path / "lucky", config_of(**settings))
    execute(study, train=train_with_luck)
    first = rank_search(study.rows(), "val_loss", "minimize")[0]
    assert first.number == lucky.number
    assert study.verdict().winner.trial != lucky.number
    assert abs(math.log10(study.verdict().winner.lr / BEST_LR)) < distance(lucky) / 2


# --- the process ------------------------------------------------------------------------------------------------------


def placed(decades: float, name: str = "cosine", uncertainty: float = SUGGESTED, **shape: Any) -> Placement:
    return Placement(name, decades, uncertainty, lr_curve(Draw(0.0, name, shape), 310, None))


def point(decades: float, name: str = "cosine", others: dict[str, float | str] | None = None, **shape: Any) -> Point:
    return Point(placed(decades, name, **shape), others or {})


def test_before_any_trial_the_expected_lr_is_proposed() -> None:
    candidates = [point(decades) for decades in (-0.7, -0.2, 0.05, 0.4)]
    assert np.argmax(expected_improvement([], np.empty(0), candidates)) == 2


def test_what_is_much_worse_with_one_schedule_is_expected_to_be_so_with_another_at_the_same_lr() -> None:
    seen = [point(0.0), point(0.3), point(-0.3)]
    figures = np.array([0.0, 0.5, 0.1])
    higher, lower = expected_improvement(seen, figures, [point(0.3, "step"), point(-0.3, "step")])
    assert lower > higher


def test_nothing_is_gained_where_a_trial_has_been() -> None:
    seen = [point(0.0), point(0.2, "step", gamma=0.3), point(0.1, "onecycle", {"onecycle.cycle_momentum": 0.0})]
    there = [point(0.01), point(0.2, "step", gamma=0.301), point(0.1, "onecycle", {"onecycle.cycle_momentum": 0.0})]
    new = [
        point(0.01, "onecycle"),
        point(0.2, "step", gamma=0.6),
        point(0.0, "linear", floor=0.01),
        point(0.1, "onecycle", {"onecycle.cycle_momentum": 1.0}),  # which its LR does not show
    ]
    gains = expected_improvement(seen, np.array([0.0, 0.05, 0.1]), [*there, *new])
    assert list(gains[:3]) == [0.0, 0.0, 0.0]
    assert min(gains[3:]) > 0


def test_a_schedule_is_taken_to_be_as_good_as_those_with_a_similar_curve() -> None:
    seen = [point(0.0, "cosine"), point(0.0, "step", gamma=0.6, step_size=0.5)]
    like_cosine, like_step = point(0.1, "linear"), point(0.1, "step", gamma=0.55, step_size=0.5)
    cosine_is_better = expected_improvement(seen, np.array([0.0, 0.2]), [like_cosine, like_step])
    step_is_better = expected_improvement(seen, np.array([0.2, 0.0]), [like_cosine, like_step])
    assert cosine_is_better[0] > step_is_better[0]
    assert step_is_better[1] > cosine_is_better[1]


def test_a_schedule_that_is_near_zero_for_most_of_the_training_is_expected_to_be_worse() -> None:
    falls = [placed(0.0, "exponential", final_factor=end).curve for end in (0.1, 0.01, 0.0001)]
    slow, fast, fastest = quality(np.array(falls))
    assert slow < fast < fastest


@pytest.mark.parametrize("bottom", [-0.4, 0.4])
def test_where_the_valley_lies_is_learned_from_the_slope(bottom: float) -> None:
    seen = [point(decades) for decades in (-0.1, 0.0, 0.1)]
    figures = np.array([(place - bottom) ** 2 for place in (-0.1, 0.0, 0.1)])
    candidates = [point(decades) for decades in np.linspace(-0.8, 0.8, 33)]
    gains = expected_improvement(seen, figures - figures.min(), candidates)
    assert np.linspace(-0.8, 0.8, 33)[gains.argmax()] == pytest.approx(bottom, abs=0.25)


def test_of_another_optimizer_less_is_taken_for_granted() -> None:
    seen = [point(0.0, others={"optimizer.name": "sgd"}), point(0.3, others={"optimizer.name": "sgd"})]
    candidates = [point(0.32, others={"optimizer.name": name}) for name in ("sgd", "adam")]
    same, other = expected_improvement(seen, np.array([0.0, 0.4]), candidates)
    assert other > same


def test_a_trial_that_is_still_trained_makes_its_neighbours_less_worth_trying() -> None:
    seen, figures, near = [point(0.0), point(0.3)], np.array([0.0, 0.2]), [point(-0.15, "step")]
    alone = expected_improvement(seen, figures, near)
    assert expected_improvement([*seen, point(-0.2, "step")], figures, near) < alone


def test_gains_are_finite_and_not_negative_for_any_figures() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 30, MOST_BEST + MOST_LATEST):
        seen = [point(float(rng.normal()), str(rng.choice(list(SIX)))) for _ in range(n)]
        figures = np.where(rng.random(n) < 0.3, 0.5, rng.random(n) / 2)
        gains = expected_improvement(seen, figures - figures.min(), [*seen[:5], point(0.6)])
        assert np.isfinite(gains).all()
        assert (gains >= 0).all()


# --- the expected LR --------------------------------------------------------------------------------------------------


def test_the_longer_a_schedule_stays_below_its_peak_the_higher_that_is_expected_to_be() -> None:
    def peak(name: str, **parameters: Any) -> float:
        return expected_lr(lr_curve(Draw(0.0, name, parameters), 310, None), 0.1)

    assert peak("constant") == pytest.approx(0.1 * PEAK)
    assert peak("constant") < peak("cosine") < peak("exponential", final_factor=0.01)
    assert peak("exponential", final_factor=0.1) < peak("exponential", final_factor=0.001)
    assert peak("cosine") == pytest.approx(expected_lr(lr_curve(Draw(0.0, "cosine", {}), 5000, None), 0.1), rel=0.02)
    assert peak("exponential", gamma_per_epoch=0.9) > 0


def test_a_suggestion_that_follows_from_the_divergence_alone_is_trusted_less(tmp_path: Path) -> None:
    def noise_and_an_end(spec: TrialSpec, config: Config) -> Iterator[Report]:
        if spec.ramp is None:
            return train(spec, config)
        return ramp(spec, lambda lr, seed: math.nan if lr > DIVERGES_AT else 2.3 + 0.1 * noise(lr, seed))

    study = open_study(tmp_path, config_of(**SEARCH))
    execute(study, train=noise_and_an_end)
    assert study.bounds is not None
    assert study.bounds.edge_only
    assert suggested_lr(study.bounds) == (study.bounds.suggestion, FROM_THE_EDGE)
    assert suggested_lr(replace(study.bounds, edge_only=False)) == (study.bounds.suggestion, SUGGESTED)
    assert suggested_lr(replace(study.bounds, suggestion=None)) == suggested_lr(None) == (None, UNKNOWN)
    first = next(row for row in study.rows() if row.phase == "search")
    assert DIVERGES_AT / 200 < first.lr < DIVERGES_AT


def test_losses_are_told_apart_where_most_trials_have_diverged() -> None:
    """With more than two thirds of 1e30 among the losses, the unit was 1e30, and all that trained looked alike."""
    losses = [1.0, 1.2, 2.0, *[1e30] * 9]
    scaled = _scaled(losses, losses)
    assert scaled[0] == 0.0
    assert 0.0 < scaled[1] < scaled[2] < WORST
    assert (scaled[3:] == WORST).all()
