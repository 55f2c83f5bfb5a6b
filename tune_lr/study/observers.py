"""Everybody who wants to know what happens in a study, as one observer."""

from collections.abc import Sequence

from tune_lr.lr.bounds import LRBounds
from tune_lr.records.observer import Observer
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec


class Observers(Observer):
    """An Observer that passes every event on to others, in their order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def phase_started(self, phase: str, trials: int) -> None:
        """See `Observer.phase_started`."""
        for observer in self._observers:
            observer.phase_started(phase, trials)

    def trial_started(self, trial: TrialSpec) -> None:
        """See `Observer.trial_started`."""
        for observer in self._observers:
            observer.trial_started(trial)

    def trial_reported(self, trial: TrialSpec, report: Report) -> None:
        """See `Observer.trial_reported`."""
        for observer in self._observers:
            observer.trial_reported(trial, report)

    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
        """See `Observer.trial_ended`."""
        for observer in self._observers:
            observer.trial_ended(trial, row)

    def bounds_found(self, bounds: LRBounds, combination: str = "") -> None:
        """See `Observer.bounds_found`."""
        for observer in self._observers:
            observer.bounds_found(bounds, combination)

    def notice(self, text: str) -> None:
        """See `Observer.notice`."""
        for observer in self._observers:
            observer.notice(text)
