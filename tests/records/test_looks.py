"""How LR schedules look: every one has a colour, and all can be told apart, also by people who see fewer colours."""

from itertools import combinations

import numpy as np
import pytest

from tune_lr.lr.schedules import SCHEDULES as LR_SCHEDULES
from tune_lr.records.looks import SCHEDULES, schedule_color, schedule_style, told_apart


def test_every_schedule_has_a_colour() -> None:
    assert set(SCHEDULES) == set(LR_SCHEDULES)
    assert len({schedule_color(name) for name in SCHEDULES}) == len(SCHEDULES)


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB; and Ottosson's OKLab 2020.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


TO_CONES = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip


TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip


def linear(color: str) -> np.ndarray:
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(color: str, background: str) -> float:
    low, high = sorted(float(linear(shade) @ (0.2126, 0.7152, 0.0722)) for shade in (color, background))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("sight", SIGHT)
def test_no_two_schedules_look_alike(sight: str) -> None:
    """A difference of 0.02 in OKLab is just seen; lines and small markers need several times as much."""
    seen = {
        name: TO_LAB @ np.cbrt(TO_CONES @ np.clip(SIGHT[sight] @ linear(schedule_color(name)), 0, 1))
        for name in SCHEDULES
    }
    near = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in combinations(SCHEDULES, 2)}
    assert min(near.values()) > (0.1 if sight == "normal" else 0.06), min(near, key=lambda pair: near[pair])


def test_schedules_have_markers_of_their_own_among_those_with_the_same_dash() -> None:
    looks = {(schedule_style(name).dash, schedule_style(name).symbol) for name in SCHEDULES}
    assert len(looks) == len(SCHEDULES)
    assert schedule_style("somebody's own") == schedule_style("somebody's own")
    assert schedule_style("somebody's own").dash == "dot"


@pytest.mark.parametrize("page", ["#ffffff", "#14171b"])
def test_colours_and_shades_show_on_light_and_on_dark(page: str) -> None:
    shades = [style.color for name in SCHEDULES for style in told_apart([name] * 5)]
    assert min(contrast(color, page) for color in [*shades, *map(schedule_color, SCHEDULES)]) > 2


def test_curves_of_one_schedule_get_looks_of_their_own_and_others_keep_theirs() -> None:
    styles = told_apart(["step", "cosine", "step", "step", "step", "step"])
    assert styles[1] == schedule_style("cosine")
    assert len({style.color for style in styles}) == 6
    assert [style.dash for style in styles[2:5]] == ["dash", "dot", "dashdot"]
