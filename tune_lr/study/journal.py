"""What a study keeps in Optuna: one journal, in it a ledger for each phase, its sampler and its pruner."""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from tune_lr.config.model import Config
from tune_lr.errors import ResourceError, one_line
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.sampler import LRSampler, Place

# The Optuna studies in the journal. Fixed configurations belong to the phase `search`, and to an Optuna study of their
# own: they may lie outside the space. A sampler does not follow a range that moves: where it is widened, the search
# goes on in a ledger of its own, with copies of the trials before.
LEDGERS = ("range_test", "fixed", "search", "widened", "confirm")
SEARCHES = ("search", "widened")  # those that propose and prune; the second one begins where the LR's range was widened


def open_journal(directory: StudyDir) -> JournalStorage:
    """Opens the journal, or begins one. A driver that was killed may have left half a line, onto which the next one
    would be written, and its lock, which would be waited for: nobody else writes, since the study is locked."""
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
        path.with_name(path.name + ".lock").unlink(missing_ok=True)
        return JournalStorage(JournalFileBackend(str(path)))
    except ResourceError:
        raise
    except OSError as error:
        raise directory.trouble(error) from None
    except Exception as error:  # Optuna's reader trusts what it reads
        raise no_journal(path, error) from None


def no_journal(path: Path, error: Exception) -> ResourceError:
    """What is raised for a journal that cannot be read, for whatever reason."""
    what = f"{type(error).__name__}: {one_line(error)}"
    return ResourceError(f"{path}: cannot be read as an Optuna journal ({what}); put the whole file back")


def open_ledger(ledger: str, config: Config, storage: JournalStorage, place: Place) -> optuna.Study:
    """Opens a phase's ledger, or begins it."""
    searching = ledger in SEARCHES
    pruner = _pruner(config) if searching else NopPruner()
    if ledger in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=ledger, storage=storage, pruner=pruner)
    else:
        goal = "minimize" if ledger == "range_test" else config.metric.goal
        study = optuna.create_study(study_name=ledger, storage=storage, direction=goal, pruner=pruner)
    # The same seed again would propose the first trials again.
    study.sampler = make_sampler(config, len(study.trials), place) if searching else RandomSampler(seed=0)
    return study


def tell_ledger(study: optuna.Study, trial: Trial | int, outcome: Mapping[str, Any]) -> None:
    """Of a trial that has ended, by what the study has written down of it."""
    states = {"failed": TrialState.FAIL, "pruned": TrialState.PRUNED}
    study.tell(trial, outcome["value"], state=states.get(outcome["state"]))


def make_sampler(config: Config, trials: int, place: Place) -> BaseSampler:
    """For a ledger that has so many trials already."""
    if config.sampler.name == "gp":
        return LRSampler(place, config.seed)
    seed = config.seed + trials
    if config.sampler.name == "random":
        return RandomSampler(seed=seed)
    # Measured on conditional spaces: the steadiest of TPE's forms with one LR shared by all schedules.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


class ScheduleHalving(BasePruner):
    """Asynchronous successive halving (Li et al. 2020) among trials of the same LR schedule.

    At a rung a trial goes on if it is the best, or among the best 1/`reduction_factor`, of those of its schedule that
    have been there. Across schedules a rung would compare unlike things: one that decays early looks better there than
    it ends, one that warms up looks worse. Rungs are `first_rung` times the powers of `reduction_factor`. There is no
    state but the reported values themselves, so a resumed study decides as one that was never stopped.
    """

    def __init__(self, first_rung: int, reduction_factor: int, max_steps: int) -> None:
        self._reduction_factor = reduction_factor
        self._rungs = set()
        while first_rung < max_steps:
            self._rungs.add(first_rung)
            first_rung *= reduction_factor

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        step = trial.last_step
        if step not in self._rungs:
            return False
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        name = _schedule_of(trial)
        values = sorted(
            sign * other.intermediate_values[step]
            for other in study.get_trials(deepcopy=False)
            if step in other.intermediate_values and _schedule_of(other) == name
        )
        going_on = max(1, len(values) // self._reduction_factor)
        return sign * trial.intermediate_values[step] > values[going_on - 1]


def _schedule_of(trial: FrozenTrial) -> str:
    """Of a space with a single schedule, which is not drawn, all trials are alike."""
    return str(trial.params.get("lr_schedule", ""))


def _pruner(config: Config) -> BasePruner:
    pruner = config.pruner
    if pruner.name == "none":
        return NopPruner()
    return ScheduleHalving(pruner.min_steps or config.report_every, pruner.reduction_factor, config.max_steps)
