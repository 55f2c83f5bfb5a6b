"""Whoever looks on cannot end a study."""

from pathlib import Path

from simulated import config_of, execute, open_study
from tune_lr.records.observer import Observer
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import TrialSpec


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
