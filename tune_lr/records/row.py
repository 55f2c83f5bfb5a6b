"""One trial that has ended, as a row of trials.csv, and the ranking of such rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tune_lr.records.parameters import LENGTH
from tune_lr.records.phases import sign_of

RAMP = "ramp"  # stands where others have an LR schedule


@dataclass(frozen=True)
class TrialRow:
    """One row of trials.csv.

    `parameters` are qualified by their schedule ("step.gamma") or "optimizer"; a batch size that is searched is among
    them ("batch_size"). `metrics` are the last validation's figures by
    their names in files ("val_loss", "val_accuracy"); a trial that was never validated has none. `duration_s`
    counts training and validation, in seconds; `started_s` is seconds since the study's first trial started.
    """

    number: int
    phase: str  # range_test | search | confirm
    state: str  # complete | pruned | diverged | failed
    lr_schedule: str
    lr: float
    parameters: Mapping[str, Any]
    seed: int
    steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    duration_s: float = 0.0
    started_s: float = 0.0
    slot: int = 0
    reason: str = ""
    label: str = ""  # of a fixed configuration

    @property
    def length(self) -> float:
        """The length of the trial's training, a fraction of `max_steps`; 1 where all trials are full trainings."""
        return float(self.parameters.get(LENGTH, 1.0))


class Configuration(NamedTuple):
    """What a trial trains, whatever its seed. Parameters are JSON text, since one of them may be a list."""

    lr_schedule: str
    lr: float
    parameters: str


def configuration_of(row: TrialRow) -> Configuration:
    """Return the configuration that a row's trial has trained."""
    return Configuration(row.lr_schedule, row.lr, json.dumps(row.parameters, sort_keys=True))


def rank_search(rows: Sequence[TrialRow], metric: str, goal: str) -> list[TrialRow]:
    """Return the search trials that trained to the end, each configuration once, best first.

    Only full trainings are ranked, since shorter ones are not comparable with them. A ramp trains no LR schedule, so it
    is left out. Ties go to the lower number.
    """
    searched = [row for row in rows if row.phase == "search" and row.lr_schedule != RAMP and row.length == 1]
    complete = [row for row in searched if row.state == "complete" and metric in row.metrics]
    ranked = sorted(complete, key=lambda row: (sign_of(goal) * row.metrics[metric], row.number))
    unique: dict[Configuration, TrialRow] = {}
    for row in ranked:
        unique.setdefault(configuration_of(row), row)
    return list(unique.values())


def best_of_each_schedule(ranked: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the first row of each LR schedule, in the order of `ranked`, whose best row comes first."""
    best: dict[str, TrialRow] = {}
    for row in ranked:
        best.setdefault(row.lr_schedule, row)
    return list(best.values())
