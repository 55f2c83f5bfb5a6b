"""The parts of a study that its modules work on, made by hand: a journal on disk, and trials that have ended."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simulated import FACTS, Log, config_of
from tune_lr.config.model import Config
from tune_lr.records.trial import TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.journal import Journal
from tune_lr.study.length_sampler import Proposed
from tune_lr.study.sampler import Placement
from tune_lr.study.search_space import Suggests
from tune_lr.study.trial_book import TrialBook, TrialOutcome

OUTCOME = TrialOutcome(
    state="complete",
    value=1.0,
    steps=8,
    metrics={"val_loss": 1.0},
    duration_s=2.0,
    started=100.0,
    slot=0,
    clock=2.0,
    reason="",
    facts=FACTS,
)


def searched(number: int, lr: float = 0.1, lr_schedule: str = "constant", **changes: Any) -> TrialSpec:
    """Return a trial of the search over 8 steps."""
    return replace(TrialSpec(number, "search", 7, 8, lr=lr, lr_schedule=lr_schedule), **changes)


@dataclass
class Parts:
    """A study that has not begun, in `directory`; `trials` are what `add` makes of it."""

    config: Config
    directory: StudyDir
    journal: Journal
    trials: TrialBook
    log: Log

    def add(self, ledger: str, spec: TrialSpec, metrics: Mapping[str, float] | None = None, **outcome: Any) -> None:
        """Add a trial that has ended as OUTCOME says, but for `metrics` and what else is given."""
        figures = OUTCOME.metrics if metrics is None else metrics
        self.trials.add(ledger, spec)
        self.trials.end(spec.number, replace(OUTCOME, metrics=figures, **outcome))


def parts_of(root: Path, config: Config | None = None) -> Parts:
    """Begin a study in `root`, without a Study."""
    config = config or config_of()
    directory = StudyDir(root)
    if not directory.study_yaml.exists():
        directory.create({})
    journal = Journal(directory, config, _nowhere, _nothing)
    return Parts(config, directory, journal, TrialBook(config), Log())


def _nothing() -> Proposed:
    raise AssertionError("nothing is proposed here")


def _nowhere(trial: Suggests) -> Placement:
    raise AssertionError("nothing is proposed here")
