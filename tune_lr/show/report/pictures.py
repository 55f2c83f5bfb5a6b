"""The charts of the report by their names, for the page and as PNG files."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_lr.records.looks import Style, schedule_color
from tune_lr.show.charts.curves import TrialCurve, loss_chart, lr_chart, train_loss_chart, val_loss_chart
from tune_lr.show.charts.drawing import drawing
from tune_lr.show.charts.ladder import predicted_and_observed_chart, valley_chart
from tune_lr.show.charts.model import Chart
from tune_lr.show.charts.png import png, png_row
from tune_lr.show.charts.range_test import range_test_chart
from tune_lr.show.charts.trials import loss_over_lr_chart, timeline_chart
from tune_lr.show.report.overlays import Overlay, Overlays
from tune_lr.show.report.study import ReportedStudy, file_name
from tune_lr.store.study_dir import StudyDir

_POINTS_OF_ALL = 200  # of one curve, where every trial has its own chart
_SUBJECT = "of the best trial of each LR schedule"


@dataclass(frozen=True)
class Charts:
    """Every chart of the page."""

    range_tests: Mapping[str, Chart]  # by name, as all the others
    study: Mapping[str, Chart]
    overlays: Sequence[tuple[Overlay, tuple[Chart, Chart, Chart]]]
    trials: Mapping[int, tuple[Chart, Chart]]  # that open under a trial, by its number: its losses, and its LR

    def drawings(self) -> dict[str, dict[str, Any]]:
        """Return what the page's script draws, by the name of the chart."""
        charts = {**self.range_tests, **self.study}
        for overlay, side_by_side in self.overlays:
            charts |= {f"{overlay.name}-{place}": chart for place, chart in enumerate(side_by_side)}
        return {name: drawing(chart) for name, chart in charts.items()}

    def trial_drawings(self) -> dict[int, list[dict[str, Any]]]:
        """Return what the page's script draws under a trial, by its number."""
        return {number: [drawing(chart) for chart in charts] for number, charts in self.trials.items()}


def charts_of(study: ReportedStudy, overlays: Overlays) -> Charts:
    """Return the charts of a study."""
    settings = study.settings
    best = overlays.schedules
    return Charts(
        range_tests={test.name: range_test_chart(test.ramps, test.bounds) for test in study.range_tests},
        study={
            "timeline": timeline_chart(study.rows),
            "lr_curves": lr_chart(best, _SUBJECT),
            "train_loss": train_loss_chart(best, _SUBJECT),
            "val_loss": val_loss_chart(best, _SUBJECT),
            "loss_over_lr": loss_over_lr_chart(study.rows, settings.metric, settings.goal),
            **_ladder_charts(study),
        },
        overlays=[
            (overlay, (lr_chart(overlay.trials), train_loss_chart(overlay.trials), val_loss_chart(overlay.trials)))
            for overlay in overlays.groups
        ],
        trials=_trial_charts(study),
    )


def _ladder_charts(study: ReportedStudy) -> dict[str, Chart]:
    """Return the charts of trials of several lengths; there are none where all trials are full trainings."""
    if study.ladder is None:
        return {}
    settings = study.settings
    charts = {
        f"ladder-{place}" if place else "ladder": valley_chart(schedule, study.rows, settings.metric, settings.goal)
        for place, schedule in enumerate(study.ladder.schedules)
    }
    if study.ladder.full_trainings:
        charts["full_trainings"] = predicted_and_observed_chart(study.ladder.full_trainings, settings.metric)
    return charts


def _trial_charts(study: ReportedStudy) -> dict[int, tuple[Chart, Chart]]:
    charts = {}
    for row in study.rows:
        if row.number in study.curves:
            trial = TrialCurve(row, study.curves[row.number], "", "", Style(schedule_color(row.lr_schedule)))
            charts[row.number] = (loss_chart(trial, _POINTS_OF_ALL), lr_chart([trial], points=_POINTS_OF_ALL))
    return charts


def write_pictures(directory: StudyDir, charts: Charts) -> None:
    """Write every chart as a PNG file."""
    directory.plots.mkdir(exist_ok=True)
    directory.range_test.mkdir(exist_ok=True)
    for name, chart in charts.range_tests.items():
        replace_file(directory.range_test / f"{name}.png", png(chart))
    for name, chart in charts.study.items():
        replace_file(directory.plots / f"{name}.png", png(chart))
    for overlay, side_by_side in charts.overlays:
        replace_file(directory.plots / f"{file_name(overlay.name)}.png", png_row(side_by_side, overlay.title))


def replace_file(path: Path, content: bytes) -> None:
    """Write a file at once: a reader sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
