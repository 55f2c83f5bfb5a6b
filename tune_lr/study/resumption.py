"""Taking up a study from its journal: what has ended is read, and what was interrupted is run again."""

from dataclasses import replace

from optuna.trial import FrozenTrial, TrialState

from tune_lr.config.model import Config
from tune_lr.errors import ResourceError
from tune_lr.records.phases import STATES
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.confirmation import kept_finalists
from tune_lr.study.journal import Journal, outcome_of, spec_of
from tune_lr.study.open_trial import OpenTrial
from tune_lr.study.trial_book import TrialBook


def read_trials(journal: Journal, directory: StudyDir, config: Config) -> TrialBook:
    """Return the trials that have ended.

    Raises KeyError, TypeError or ValueError where a record of the journal is damaged, and ResourceError where it lacks
    trials whose files are there.
    """
    trials = TrialBook(config)
    for ledger in journal.ledgers():
        for frozen in journal.trials(ledger):
            if frozen.state.is_finished() and "copy_of" not in frozen.user_attrs:
                _add_ended(trials, ledger, frozen)
    _check_outcomes(trials, config)
    _check_finalists(trials, journal)
    lost = directory.numbers() - journal.numbers()
    if lost:
        problem = f"knows nothing of trial {min(lost)}, whose files are there; is it cut short?"
        raise ResourceError(f"{directory.journal}: {problem} Put the whole file back")
    return trials


def tell_ended(journal: Journal, trials: TrialBook) -> None:
    """Tell Optuna of the trials that had ended when the driver died between writing that down and telling it."""
    for ledger in journal.ledgers():
        for frozen in journal.trials(ledger):
            if frozen.state == TrialState.RUNNING and "outcome" in frozen.user_attrs:
                journal.end(ledger, frozen.number, outcome_of(frozen.user_attrs))
                _add_ended(trials, ledger, frozen)


def take_up(journal: Journal, trials: TrialBook, directory: StudyDir) -> list[OpenTrial]:
    """Take up the trials that were interrupted, under their numbers, and return them in the order to run them in."""
    taken_up = []
    for ledger in journal.ledgers():
        interrupted = [frozen for frozen in journal.trials(ledger) if not frozen.state.is_finished()]
        for frozen in interrupted:
            if frozen.state == TrialState.RUNNING:
                journal.put_back(frozen)
        # Where there is no spec, the driver died between asking for the trial and writing down what it is. It is the
        # last of its phase: it stays waiting, and the phase's next trial will be this one.
        known = [frozen for frozen in interrupted if "spec" in frozen.user_attrs]
        taken_up += [_ask_again(journal, ledger, frozen, directory) for frozen in known]
    for trial in taken_up:
        trials.add(trial.ledger, trial.spec)
    for number in trials.ended():  # the driver was killed after a trial's end and before its checkpoints were gone
        directory.remove_checkpoints(number)
    return taken_up


def _add_ended(trials: TrialBook, ledger: str, frozen: FrozenTrial) -> None:
    spec = spec_of(frozen.user_attrs)
    trials.add(ledger, spec)
    trials.end(spec.number, outcome_of(frozen.user_attrs))


def _ask_again(journal: Journal, ledger: str, frozen: FrozenTrial, directory: StudyDir) -> OpenTrial:
    trial = journal.ledger(ledger).ask()  # gives the waiting trials in their order
    spec = spec_of(trial.user_attrs)
    if spec.checkpoint:  # the study may have been moved
        spec = replace(spec, checkpoint=str(directory.checkpoint(spec.number)))
    # The last figure may have been written and the pruner not been asked any more.
    reported = max(frozen.intermediate_values, default=0)
    return OpenTrial(spec, trial, ledger, reported=reported, decided=reported - 1)


def _check_outcomes(trials: TrialBook, config: Config) -> None:
    """Raise ValueError where the outcome of a trial is none: a line may be damaged and still be JSON."""
    for row in trials.rows():
        ramp = trials.spec(row.number).ramp  # a ramp may diverge before it is validated, and is then complete
        measured = row.state == "complete" and not ramp
        if row.state not in STATES or (measured and config.metric.name not in row.metrics):
            raise ValueError(f"trial {row.number} is {row.state!r} with {sorted(row.metrics)}")


def _check_finalists(trials: TrialBook, journal: Journal) -> None:
    for finalists in kept_finalists(journal).values():
        for number in finalists:
            if number not in trials or trials.spec(number).phase != "search":
                raise ValueError(f"{number} is no trial of the search, and was to be confirmed")
