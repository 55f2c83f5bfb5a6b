"""Who is told what happens in a study: the terminal, and Weights & Biases."""

from typing import Protocol

from tune_lr.lr.bounds import LRBounds
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec


class Observer(Protocol):
    """Is told what happens, after it is on disk. Its methods must neither raise nor take long."""

    def phase_started(self, phase: str, trials: int) -> None:
        """A phase begins with so many trials; 0 where the budget decides how many."""

    def trial_started(self, trial: TrialSpec) -> None:
        """A trial begins, or goes on from a checkpoint: then what is known of it is reported again."""

    def trial_reported(self, trial: TrialSpec, report: Report) -> None:
        """A trial has made some steps."""

    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
        """A trial has ended, in whatever state."""

    def bounds_found(self, bounds: LRBounds, combination: str = "") -> None:
        """The range test has been read; `combination` is "" where no batch size and no optimizer is searched."""

    def notice(self, text: str) -> None:
        """Something has happened that a person should know."""
