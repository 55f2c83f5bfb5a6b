"""Synthetic, seeded curves of LR range tests."""

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

LRS = np.geomspace(1e-5, 10, 300)
BEST = 0.05
Curve = tuple[np.ndarray, np.ndarray]


def curve(
    *,
    best: float = BEST,
    seed: int = 0,
    noise: float = 0.03,
    lrs: np.ndarray = LRS,
    start: float = 2.3,
    end: float = 0.3,
    after: str = "explodes",
) -> Curve:
    """A plateau, a fall over the decade and a half below `best`, a flat decade around it, then what `after` says."""
    distance = np.log10(lrs / best)
    losses = end + (start - end) / (1 + np.exp(6 * (distance + 1)))
    above = np.clip(distance - 0.5, 0, None)
    if after == "explodes":
        losses = losses + np.expm1(np.minimum(20 * above, 30))  # short of OVERFLOW, whatever it is multiplied by
    elif after == "dies":  # a dead network: back on the plateau
        losses = np.where(above > 0, start + 0.02, losses)
    elif after == "climbs":  # AdamW
        losses = losses + 0.5 * above
    else:
        assert after == "stays"
    return lrs, losses + noise * np.random.default_rng(seed).standard_normal(len(lrs))


def trained(lrs: np.ndarray, seed: int = 0, noise: float = 0.03) -> Curve:
    """A model that falls with the distance it has travelled, the sum of the LRs, and explodes where the LR itself is
    too high; on `LRS` the same as `curve`."""
    travelled, above = np.cumsum(lrs) * math.log(10) / 50, np.clip(np.log10(lrs / BEST) - 0.5, 0, None)
    losses = 0.3 + 2 / (1 + np.exp(6 * (np.log10(travelled / BEST) + 1))) + np.expm1(np.minimum(20 * above, 30))
    return lrs, losses + noise * np.random.default_rng(seed).standard_normal(len(lrs))


def noise_curve(kind: str, seed: int, n: int = 300) -> Curve:
    rng = np.random.default_rng(seed)
    draws: dict[str, Callable[[int], np.ndarray]] = {
        "normal": rng.standard_normal,
        "lognormal": lambda n: rng.lognormal(0, 1, n),
        "chi2": lambda n: rng.chisquare(1, n),
        "t2": lambda n: rng.standard_t(2, n),  # hardly a variance
    }
    return np.geomspace(1e-5, 10, n), draws[kind](n)


def replaced(a_curve: Curve, values: dict[int, float]) -> Curve:
    lrs, losses = a_curve
    losses = losses.copy()
    for place, value in values.items():
        losses[place] = value
    return lrs, losses
