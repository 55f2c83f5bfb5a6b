"""Who is told what happens in a study: the terminal, and Weights & Biases."""

from tune_lr.lr.bounds import LRBounds
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec


class Observer:
    """Is told what happens, after it is on disk. Its methods must neither raise nor take long.

    A class that inherits from it does nothing at what it does not define.
    """

    def phase_started(self, phase: str, trials: int) -> None:
        """Note that a phase begins with so many trials; 0 where the budget decides how many."""

    def trial_started(self, trial: TrialSpec) -> None:
        """Note that a trial begins, or goes on from a checkpoint: then what is known of it is reported again."""

    def trial_reported(self, trial: TrialSpec, report: Report) -> None:
        """Note that a trial has made some steps."""

    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
        """Note that a trial has ended, in whatever state."""

    def bounds_found(self, bounds: LRBounds, combination: str = "") -> None:
        """Note that the range test was read; `combination` is "" where no batch size and no optimizer is searched."""

    def notice(self, text: str) -> None:
        """Note something that a person should know."""
