"""Everybody who wants to know what happens in a study, as one observer."""

from collections.abc import Callable, Sequence

from tune_lr.errors import one_line
from tune_lr.lr.bounds import LRBounds
from tune_lr.records.observer import Observer
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec


class Observers(Observer):
    """An Observer that passes every event on to others, in their order.

    An observer that raises is told nothing more, and the others get a notice: whoever only looks on cannot end a study.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)

    def phase_started(self, phase: str, trials: int) -> None:
        """See `Observer.phase_started`."""
        self._tell(lambda observer: observer.phase_started(phase, trials))

    def trial_started(self, trial: TrialSpec) -> None:
        """See `Observer.trial_started`."""
        self._tell(lambda observer: observer.trial_started(trial))

    def trial_reported(self, trial: TrialSpec, report: Report) -> None:
        """See `Observer.trial_reported`."""
        self._tell(lambda observer: observer.trial_reported(trial, report))

    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
        """See `Observer.trial_ended`."""
        self._tell(lambda observer: observer.trial_ended(trial, row))

    def bounds_found(self, bounds: LRBounds, combination: str = "") -> None:
        """See `Observer.bounds_found`."""
        self._tell(lambda observer: observer.bounds_found(bounds, combination))

    def notice(self, text: str) -> None:
        """See `Observer.notice`."""
        self._tell(lambda observer: observer.notice(text))

    def _tell(self, event: Callable[[Observer], None]) -> None:
        troubles = []
        for observer in tuple(self._observers):
            try:
                event(observer)
            except Exception as error:  # whatever it is, the study goes on
                self._observers.remove(observer)
                name = type(observer).__name__
                troubles.append(f"{name} failed and is told nothing more ({type(error).__name__}: {one_line(error)})")
        for trouble in troubles:
            self.notice(trouble)
