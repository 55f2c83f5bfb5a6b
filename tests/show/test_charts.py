"""What charts are made of: thinned curves, ticks and numbers."""

import numpy as np
import pytest

from tune_lr.show.charts.model import Axis, thin
from tune_lr.show.charts.png import log_ticks
from tune_lr.show.text import number_text


@pytest.mark.parametrize("limit", [4, 50, 200])
def test_thinning_keeps_the_extremes_and_the_ends(limit: int) -> None:
    random = np.random.default_rng(limit)
    steps, losses = np.arange(5000.0), random.normal(size=5000)
    losses[1234], losses[3333], losses[77] = 90.0, -80.0, np.nan
    x, y = thin(steps, losses, limit)
    assert len(x) == len(y) <= limit
    assert y.max() == 90.0
    assert y.min() == -80.0
    assert x[0] == 0
    assert x[-1] == 4999
    assert (np.diff(x) > 0).all()
    np.testing.assert_array_equal(losses[x.astype(int)], y)  # its own points, no means


def test_a_short_curve_is_not_thinned() -> None:
    x, y = thin([0, 1, 2, 3], [1.0, np.nan, np.inf, 2.0], 200)
    assert x.tolist() == [0, 3]
    assert y.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("low", "high"), [(0.11, 0.13), (0.107, 0.19), (0.95, 1.06), (0.1, 0.23), (0.04, 0.18), (1e-5, 10.0), (1e-12, 1.0)]
)
def test_an_axis_has_a_few_ticks_whatever_it_spans(low: float, high: float) -> None:
    ticks = log_ticks(Axis("val_loss", low, high, log=True))
    assert 3 <= len(ticks) <= 10
    assert low <= ticks[0]
    assert ticks[-1] <= high


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.31, "0.31"), (1e-5, "1e-5"), (0.00012345, "0.000123"), (12400, "12400"), (1.5e9, "1.5e9"), (1.0, "1"),
     (0.0, "0"), (float("nan"), "–"), (2.5e-10, "2.5e-10")],
)  # fmt: skip
def test_numbers_read_well(value: float, text: str) -> None:
    assert number_text(value) == text
