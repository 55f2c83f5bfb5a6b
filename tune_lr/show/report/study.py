"""Read a study directory into what the report shows. Whatever of its files is there is read; nothing is computed."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tune_lr.errors import ResourceError
from tune_lr.lr.bounds import LRBounds
from tune_lr.records.answer import Answer
from tune_lr.records.parameters import BATCH_SIZE, setting
from tune_lr.records.row import RAMP, TrialRow, rank_search
from tune_lr.records.steps import steps_weight
from tune_lr.records.valleys import LadderView
from tune_lr.show.charts.model import Columns
from tune_lr.show.charts.trials import last_value
from tune_lr.store.curves import read_curve
from tune_lr.store.study_dir import StudyDir


@dataclass(frozen=True)
class Settings:
    """What the study's configuration says, as far as the report needs it. A number that it lacks is 0."""

    workload: str
    metric: str  # as files name it: val_loss, val_accuracy
    goal: str  # minimize | maximize
    max_steps: int
    report_every: int
    batch_size: int | None
    ramp_steps: int
    ramp_high: float | None  # the LR at which a ramp ends
    budget: str
    seed: int | None
    space: Mapping[str, Any]  # the whole configuration, as it stands in study.yaml


@dataclass(frozen=True)
class RangeTest:
    """The ramps of one combination of optimizer and batch size, and what was read off them."""

    name: str  # of its chart, and of its picture's file
    combination: str  # "adamw, batch 64"; "" where there is but one
    ramps: Sequence[Columns]
    bounds: LRBounds | None  # None while there is no result


@dataclass(frozen=True)
class WidenedRange:
    """Where the search went on, because its best trial lay at the edge of the bounds."""

    low: float
    high: float
    after: int  # search trials that had ended then
    lr: float  # of the best of them


@dataclass(frozen=True)
class ReportedStudy:
    """What lies in a study directory."""

    name: str
    created: str
    settings: Settings
    packages: Mapping[str, str]  # versions by name
    hardware: Mapping[str, Any]
    range_tests: Sequence[RangeTest]  # the study's own first
    widened: WidenedRange | None
    answer: Answer | None
    ladder: LadderView | None  # where trials have several lengths
    rows: Sequence[TrialRow]
    curves: Mapping[int, Columns]  # of search and confirm trials, by number; only those that have points

    @cached_property
    def searched(self) -> list[TrialRow]:
        """The search phase's trials, without fixed ramps, which are no answer."""
        return [row for row in self.rows if row.phase == "search" and row.lr_schedule != RAMP]

    @cached_property
    def ranked(self) -> list[TrialRow]:
        """The complete search trials, each configuration once, best first."""
        metric = self.settings.metric
        measured = [row for row in self.rows if math.isfinite(last_value(row, metric))]
        return rank_search(measured, metric, self.settings.goal)

    def weight(self, row: TrialRow) -> float:
        """Return how many steps with the study's batch size one of the trial's counts."""
        return steps_weight(row.parameters.get(BATCH_SIZE), self.settings.batch_size)


def read_reported_study(directory: StudyDir) -> ReportedStudy:
    """Read a study directory, finished or not. Raises ResourceError where it is none."""
    record = directory.read_study()
    settings = _settings(record.get("config") or {})
    rows = directory.read_rows() if directory.trials_csv.exists() else []
    curves = {row.number: _columns(directory.curve(row.number)) for row in rows if row.phase != "range_test"}
    return ReportedStudy(
        name=str(record.get("name") or directory.name),
        created=str(record.get("created") or ""),
        settings=settings,
        packages=record.get("packages") or {},
        hardware=record.get("hardware") or {},
        range_tests=_read_range_tests(directory, rows),
        widened=_read_widened(directory),
        answer=directory.read_answer(),
        ladder=_read_ladder(directory),
        rows=rows,
        curves={number: curve for number, curve in curves.items() if curve},
    )


def _settings(config: Mapping[str, Any]) -> Settings:
    metric = config.get("metric") or {}
    name = str(metric.get("name", "val_loss"))
    ramp = config.get("range_test") or {}
    return Settings(
        workload=str(config.get("workload", "")),
        metric=name if name.startswith("val_") else f"val_{name}",
        goal=str(metric.get("goal", "minimize")),
        max_steps=int(config.get("max_steps") or 0),
        report_every=int(config.get("report_every") or 0),
        batch_size=config.get("batch_size"),
        ramp_steps=int(ramp.get("steps") or 0),
        ramp_high=ramp.get("high"),
        budget=str(config.get("budget") or ""),
        seed=config.get("seed"),
        space=config,
    )


def _read_range_tests(directory: StudyDir, rows: Sequence[TrialRow]) -> list[RangeTest]:
    curves = {int(path.stem.split("-")[1]): _columns(path) for path in directory.range_curves()}
    ramps = {number: curve for number, curve in curves.items() if curve}
    record = directory.read_json(directory.bounds_json) if directory.bounds_json.exists() else None
    combinations: list[dict[str, Any]] = (record or {}).get("combinations") or []
    if not combinations:
        return [RangeTest("range_test", "", list(ramps.values()), None if record is None else _bounds(record))]
    settings = {row.number: setting(row.parameters) for row in rows if row.phase == "range_test"}
    tests: list[RangeTest] = []
    for entry in combinations:
        combination = settings.get(entry["ramps"][0], "")
        name = file_name(f"range_test {combination}" if tests else "range_test")
        own = [ramp for number, ramp in ramps.items() if settings.get(number) == combination]
        tests.append(RangeTest(name, combination, own, _bounds(entry)))
    return tests


def _bounds(record: Mapping[str, Any]) -> LRBounds:
    return LRBounds(
        low=record.get("low"),
        high=record.get("high"),
        suggestion=record.get("suggestion"),
        status=str(record.get("status") or ""),
        reason=str(record.get("reason") or ""),
        replicates=int(record.get("replicates") or 0),
    )


def _read_widened(directory: StudyDir) -> WidenedRange | None:
    if not directory.widened_json.exists():
        return None
    record = directory.read_json(directory.widened_json)
    return WidenedRange(record["low"], record["high"], record["after"], record["lr"])


def _read_ladder(directory: StudyDir) -> LadderView | None:
    path = directory.ladder_json
    return LadderView.from_dict(directory.read_json(path)) if path.exists() else None


def _columns(path: Path) -> Columns:
    """Return a curve's columns; empty where the trial has written none."""
    try:
        columns = read_curve(path)
    except ResourceError:
        return {}
    return {name: np.array(values, dtype=float) for name, values in columns.items()} if columns["step"] else {}


def file_name(text: str) -> str:
    """Return a text as the name of a file, safe whatever the text holds."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:80]
