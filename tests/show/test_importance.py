"""How much of the differences between trials a parameter explains."""

from collections.abc import Callable

import numpy as np
import pytest

from tune_lr.records.row import TrialRow
from tune_lr.show.report.importance import importances


def explained(rows: list[TrialRow], goal: str = "minimize") -> dict[tuple[str, str], float]:
    return {(i.parameter, i.schedule): i.share for i in importances(rows, "val_loss", goal)}


def drawn_trials(count: int, loss: Callable[[str, float, float], float], seed: int = 0) -> list[TrialRow]:
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        name, lr, gamma = str(random.choice(["step", "cosine"])), float(10 ** random.uniform(-3, 0)), random.uniform()
        parameters = {"step.gamma": float(gamma)} if name == "step" else {}
        value = loss(name, lr, gamma) + random.normal(0, 0.01)
        rows.append(TrialRow(number, "search", "complete", name, lr, parameters, 0, 10, {"val_loss": float(value)}))
    return rows


def test_importance_finds_what_made_the_difference() -> None:
    by_lr = explained(drawn_trials(80, lambda name, lr, gamma: np.log10(lr / 0.03) ** 2))  # no straight line finds this
    assert by_lr["lr", ""] > 0.8
    assert by_lr["lr_schedule", ""] < 0.15
    assert by_lr["gamma", "step"] < 0.3
    by_name = explained(drawn_trials(80, lambda name, lr, gamma: float(name == "step")))
    assert by_name["lr_schedule", ""] > 0.7
    assert by_name["lr", ""] < 0.15
    by_gamma = explained(drawn_trials(80, lambda name, lr, gamma: gamma))
    assert by_gamma["gamma", "step"] > 0.8
    assert by_gamma["lr", "step"] < 0.3


def test_importance_of_nothing_is_nothing() -> None:
    shares = [explained(drawn_trials(40, lambda *_: 0.0, seed))["lr", ""] for seed in range(20)]
    assert np.mean(shares) < 0.1
    assert importances(drawn_trials(7, lambda name, lr, gamma: lr), "val_loss", "minimize") == []


def test_importance_counts_what_diverged_as_last_and_what_was_pruned_before_it() -> None:
    rows = [
        TrialRow(number, "search", state, "cosine", lr, {}, 0, 10, {} if state == "diverged" else {"val_loss": 0.5})
        for number, (state, lr) in enumerate([("complete", 0.01), ("pruned", 0.1), ("diverged", 1.0)] * 4)
    ]
    assert explained(rows)["lr", ""] == pytest.approx(1.0)
    assert explained(rows, "maximize")["lr", ""] == pytest.approx(1.0)
