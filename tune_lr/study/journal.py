"""What a study keeps in Optuna: one journal file, and in it a ledger for each phase.

A ledger is an Optuna study of its own, so that ramps and lucky seeds never teach the sampler. Fixed configurations
belong to the phase `search` and have a ledger of their own, since they may lie outside the space. A sampler does not
follow a range that moves: where the range of the LR is widened, the search goes on in the ledger `widened`, which
begins with copies of the trials before.

The journal is the record of a study. Each trial has its `spec` (what it trains) among its attributes and, when it has
ended, its `outcome`; a copy has `copy_of`, the number of its original in the ledger `search`, instead of both.
"""

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from tune_lr.config.model import Config
from tune_lr.errors import ResourceError, one_line
from tune_lr.records.trial import TrialFacts, TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.length_sampler import LengthSampler, Propose
from tune_lr.study.pruner import make_pruner
from tune_lr.study.sampler import LRSampler, Place
from tune_lr.study.trial_book import TrialOutcome

LEDGERS = ("range_test", "fixed", "search", "widened", "confirm")
SEARCHES = ("search", "widened")  # the ledgers that propose and prune

optuna.logging.set_verbosity(optuna.logging.WARNING)


def ledgers_of(phase: str) -> tuple[str, ...]:
    """Return the ledgers that hold the trials of a phase, in the order in which they are filled."""
    return ("fixed", *SEARCHES) if phase == "search" else (phase,)


class Journal:
    """The journal of one study, opened or begun. Whoever opens it holds the lock of the study.

    `place` is what the project's own sampler asks about each configuration; see `sampler.Place`. `propose` gives the
    next trial of a search whose trials have several lengths. `facts` is what the workers that answered first know.
    Raises ResourceError where the file is no journal, or is missing although there are trials.
    """

    def __init__(self, directory: StudyDir, config: Config, place: Place, propose: Propose) -> None:
        self._path = directory.journal
        self._config = config
        self._place = place
        self._propose = propose
        self._storage = _open_storage(directory)
        self._ledgers: dict[str, optuna.Study] = {}
        for name in LEDGERS:
            if name != "widened":
                self.open(name)
        if "widened" in optuna.get_all_study_names(self._storage):
            self.open("widened")
        with self.damage_reported():
            facts = self._ledgers["search"].user_attrs.get("facts")
            self.facts = TrialFacts.from_dict(facts) if facts else None

    def open(self, name: str) -> None:
        """Open a ledger, or begin it."""
        pruner = make_pruner(self._config) if name in SEARCHES else NopPruner()
        if name in optuna.get_all_study_names(self._storage):
            ledger = optuna.load_study(study_name=name, storage=self._storage, pruner=pruner)
        else:
            direction = "minimize" if name == "range_test" else self._config.metric.goal
            ledger = optuna.create_study(study_name=name, storage=self._storage, direction=direction, pruner=pruner)
        self._ledgers[name] = ledger
        if name in SEARCHES:
            self.renew_sampler(name)
        else:
            ledger.sampler = RandomSampler(seed=0)

    def renew_sampler(self, name: str) -> None:
        """Give a ledger of the search a sampler that takes account of how many trials the ledger has.

        The same seed again would propose the first trials again.
        """
        ledger = self._ledgers[name]
        if self._config.ladder:
            ledger.sampler = LengthSampler(self._propose, self._config.seed)
        else:
            ledger.sampler = _make_sampler(self._config, len(ledger.trials), self._place)

    def ledger(self, name: str) -> optuna.Study:
        """Return an open ledger."""
        return self._ledgers[name]

    def ledgers(self) -> tuple[str, ...]:
        """Return the names of the open ledgers."""
        return tuple(self._ledgers)

    def trials(self, name: str) -> list[FrozenTrial]:
        """Return the trials of a ledger in their order. They must not be changed."""
        return self._ledgers[name].get_trials(deepcopy=False)

    def numbers(self) -> set[int]:
        """Return the numbers of all trials in the journal."""
        trials = [frozen for name in self._ledgers for frozen in self.trials(name)]
        return {number_of(frozen.user_attrs) for frozen in trials if "spec" in frozen.user_attrs}

    def keep_facts(self, facts: TrialFacts) -> None:
        """Write down what the workers of a trial know; the names of the metrics are the same for all trials."""
        self.facts = facts
        self._ledgers["search"].set_user_attr("facts", facts.to_dict())

    def end(self, name: str, trial: Trial | int, outcome: TrialOutcome) -> None:
        """Tell a ledger how one of its trials ended; `trial` may be the trial's number in that ledger."""
        states = {"failed": TrialState.FAIL, "pruned": TrialState.PRUNED}
        self._ledgers[name].tell(trial, outcome.value, state=states.get(outcome.state))

    def put_back(self, frozen: FrozenTrial) -> None:
        """Set an interrupted trial back to waiting: it keeps its number and its values, and is the next to be asked."""
        # Optuna's public API has no way back from RUNNING.
        self._storage.set_trial_state_values(frozen._trial_id, TrialState.WAITING)

    @contextmanager
    def damage_reported(self) -> Iterator[None]:
        """Turn the errors that damaged records cause into a ResourceError that names the journal.

        A line may be damaged and still be JSON.
        """
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unreadable(self._path, error) from None


def write_spec(trial: Trial, spec: TrialSpec) -> None:
    """Write into the journal what a trial trains."""
    trial.set_user_attr("spec", spec.to_dict())


def spec_of(attributes: Mapping[str, Any]) -> TrialSpec:
    """Return what a trial trains, by its attributes. Raises KeyError where that was not written yet."""
    return TrialSpec.from_dict(attributes["spec"])


def number_of(attributes: Mapping[str, Any]) -> int:
    """Return the number of a trial in its study, by its attributes. Raises KeyError where that was not written yet."""
    number: int = attributes["spec"]["number"]
    return number


def write_outcome(trial: Trial, outcome: TrialOutcome) -> None:
    """Write into the journal how a trial ended."""
    trial.set_user_attr("outcome", outcome.to_dict())


def outcome_of(attributes: Mapping[str, Any]) -> TrialOutcome:
    """Return how a trial ended, by its attributes. Raises KeyError where that was not written yet."""
    return TrialOutcome.from_dict(attributes["outcome"])


class _StudyIsLocked(JournalFileOpenLock):
    """Stands for the lock on the journal's file, which Optuna wants to hold while it writes.

    The driver holds the lock of the whole study, so nobody else writes. The kernel releases that lock when a driver is
    killed; a lock file of Optuna's would stay behind, and the next driver would wait for it.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _open_storage(directory: StudyDir) -> JournalStorage:
    """Open the journal's file, or begin it. A driver that was killed may have left half a line at the end, onto which
    the next one would be written: it is cut off."""
    path = directory.journal
    try:
        if path.exists():
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            for number, line in enumerate(data[:whole].splitlines(), start=1):
                if not isinstance(json.loads(line), dict):
                    raise ValueError(f"line {number} is no record")
            if whole < len(data):
                os.truncate(path, whole)
        if not (path.exists() and path.stat().st_size) and directory.has_points():
            raise ResourceError(f"{path}: missing or empty, and there are trials already; put the file back")
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_StudyIsLocked(str(path))))
    except ResourceError:
        raise
    except OSError as error:
        raise directory.trouble(error) from None
    except Exception as error:  # Optuna's reader trusts what it reads
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ResourceError:
    what = f"{type(error).__name__}: {one_line(error)}"
    return ResourceError(f"{path}: cannot be read as an Optuna journal ({what}); put the whole file back")


def _make_sampler(config: Config, trials: int, place: Place) -> BaseSampler:
    """Return the sampler that the configuration names, for a ledger that has so many trials already."""
    if config.sampler.name == "gp":
        return LRSampler(place, config.seed)
    seed = config.seed + trials
    if config.sampler.name == "random":
        return RandomSampler(seed=seed)
    # Measured on conditional spaces: the steadiest of TPE's forms with one LR shared by all schedules.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)
