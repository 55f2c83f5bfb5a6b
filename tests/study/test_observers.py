"""Several observers of one study hear the same, and none of them can end it."""

from pathlib import Path

from simulated import Log, config_of, execute, open_study
from tune_lr.lr.bounds import LRBounds
from tune_lr.records.observer import Observer
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.study.observers import Observers


class Raises(Observer):
    """Fails at the end of the second trial."""

    def __init__(self) -> None:
        self.ended = 0

    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
        self.ended += 1
        if self.ended == 2:
            raise RuntimeError("the terminal is gone")


class Listens(Observer):
    def __init__(self) -> None:
        self.ended = 0
        self.notices: list[str] = []

    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None:
        self.ended += 1

    def notice(self, text: str) -> None:
        self.notices.append(text)


def test_an_observer_that_raises_is_told_nothing_more_and_the_study_ends_well(tmp_path: Path) -> None:
    raises, listens = Raises(), Listens()
    study = open_study(tmp_path / "study", config_of(num_trials=4), observers=[raises, listens])
    execute(study)
    assert study.over
    assert study.error is None
    assert raises.ended == 2
    assert listens.ended == len(study.rows()) > 2
    troubles = [notice for notice in listens.notices if "Raises failed" in notice]
    assert troubles == ["Raises failed and is told nothing more (RuntimeError: the terminal is gone)"]


def test_every_event_goes_to_every_observer_in_its_order() -> None:
    heard = [Log(), Log()]
    observers = Observers(heard)
    spec = TrialSpec(3, "search", 0, 8)
    observers.phase_started("search", 5)
    observers.trial_started(spec)
    observers.trial_reported(spec, Report(2))
    observers.trial_ended(spec, TrialRow(3, "search", "complete", "constant", 0.1, {}, 0, 8))
    observers.bounds_found(LRBounds(None, None, None, "no_descent", "", replicates=1))
    observers.notice("a word")
    assert heard[0].events == heard[1].events == [
        ("phase_started", ("search", 5)),
        ("trial_started", 3),
        ("trial_reported", 3),
        ("trial_ended", 3),
        ("bounds_found", "no_descent"),
        ("notice", "a word"),
    ]  # fmt: skip
