"""What the report shows of a ladder: valleys, bottoms, full trainings beside their predictions, and the charts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladders import LADDER, ladder_config
from simulated import execute, open_study, train_long
from tune_lr.records.valleys import LadderView
from tune_lr.run import report
from tune_lr.session import create
from tune_lr.show.charts.ladder import predicted_and_observed_chart, valley_chart
from tune_lr.show.charts.png import png
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.ladder_view import ladder_view
from tune_lr.study.study import Study

METRIC = "val_loss"


def ladder_study(root: Path, budget: str = "3x", **changes: Any) -> Study:
    config = ladder_config(budget=budget, **changes)
    create(config, StudyDir(root), [])
    study = open_study(root, config)
    execute(study, train=train_long)
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return ladder_study(tmp_path_factory.mktemp("view") / "study")


@pytest.fixture(scope="module")
def view(study: Study) -> LadderView:
    found = ladder_view(study)
    assert found is not None
    return found


def test_the_bottom_moves_from_length_to_length_as_it_does_in_truth(view: LadderView) -> None:
    best = view.schedules[0]
    assert best.lr_schedule == "cosine"
    assert [valley.length for valley in best.valleys] == LADDER
    for valley in best.valleys:
        true_bottom = 0.1 * valley.length**-0.3  # see simulated.long_loss
        assert 1 / 2.5 < valley.lr / true_bottom < 2.5
        assert valley.lr_interval.low < valley.lr < valley.lr_interval.high
    lrs = [valley.lr for valley in best.valleys]
    assert lrs == sorted(lrs, reverse=True)


def test_a_valley_lies_in_its_band_and_is_lowest_near_its_bottom(view: LadderView) -> None:
    for schedule in view.schedules:
        for valley in schedule.valleys:
            assert all(
                low <= loss <= high for low, loss, high in zip(valley.low, valley.losses, valley.high, strict=True)
            )
            assert abs(np.log10(valley.lrs[int(np.argmin(valley.losses))] / valley.lr)) < 0.3


def test_a_full_training_is_predicted_by_the_short_ones_alone(study: Study, view: LadderView) -> None:
    last = study.rows()[-1]
    assert [entry.trial for entry in view.full_trainings] == [last.number]
    entry = view.full_trainings[0]
    assert entry.observed == last.metrics[METRIC]
    assert entry.predicted != entry.observed
    assert entry.interval.low < entry.predicted < entry.interval.high


def test_the_view_is_kept_in_the_study_directory_and_drawn_in_the_report(study: Study, view: LadderView) -> None:
    report(study.directory)
    assert LadderView.from_dict(study.directory.read_json(study.directory.ladder_json)) == view
    page = study.directory.report_html.read_text()
    assert 'data-chart="ladder"' in page
    assert 'data-chart="full_trainings"' in page
    assert (study.directory.plots / "ladder.png").exists()


def test_every_training_has_a_dot_and_every_length_a_colour(study: Study, view: LadderView) -> None:
    schedule = view.schedules[0]
    chart = valley_chart(schedule, study.rows(), METRIC, "minimize")
    trained = [row for row in study.rows() if row.lr_schedule == schedule.lr_schedule]
    dots = [series for series in chart.series if not series.joined]
    assert sum(len(series.x) for series in dots) == len(trained)
    assert all(chart.y.low <= y <= chart.y.high for series in dots for y in series.y)
    lines = [series for series in chart.series if series.legend and series.legend != "bottom"]
    assert [line.legend for line in lines] == ["1/16", "1/4", "full"]
    assert len({line.style.color for line in lines}) == 3


def test_a_length_without_a_training_is_dashed(tmp_path: Path) -> None:
    predicted = ladder_study(tmp_path / "study", budget="0.8x")
    view = ladder_view(predicted)
    assert view is not None
    assert view.full_trainings == ()
    chart = valley_chart(view.schedules[0], predicted.rows(), METRIC, "minimize")
    dashes = {series.legend: series.style.dash for series in chart.series if series.legend}
    assert dashes["full"] == "dash"
    assert dashes["1/16"] == "solid"


def test_a_metric_that_is_maximized_has_its_hills_the_right_way_up(tmp_path: Path) -> None:
    study = ladder_study(tmp_path / "study", budget="2x", metric={"name": "val_accuracy", "goal": "maximize"})
    view = ladder_view(study)
    assert view is not None
    valley = view.schedules[0].valleys[0]
    assert max(valley.losses) == pytest.approx(valley.loss, abs=0.02)
    assert 0 < valley.loss < 1
    picture = png(predicted_and_observed_chart(view.full_trainings, "val_accuracy"))
    assert picture.startswith(b"\x89PNG")


def test_a_study_of_full_trainings_has_no_view(tmp_path: Path) -> None:
    study = ladder_study(tmp_path / "study", budget="6x", lengths="full")
    assert ladder_view(study) is None
