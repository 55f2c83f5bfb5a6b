"""A study: its phases, decided by Optuna and remembered in its journal. Knows nothing of Ray.

    range_test   K ramps -> LRBounds, for each combination of batch size and optimizer that is searched; extended once
                 where they hold no answer
    search       the fixed configurations, and N trials proposed and pruned by Optuna
    confirm      the best k configurations, each with n fresh seeds
    test         one pass over the test data, for the winner

Whoever executes the trials asks for `next_trial` and hands in every `report`; the answer says whether the trial goes
on. What is told here is on disk before the call returns: curves first, then the journal.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from optuna.trial import Trial

from tune_lr.config.model import Config
from tune_lr.config.parameters import Combination
from tune_lr.errors import InputError, TuneLRError
from tune_lr.lr.bounds import LRBounds
from tune_lr.records.answer import Prediction, Verdict
from tune_lr.records.observer import Observer
from tune_lr.records.outcome import Widening
from tune_lr.records.phases import PHASES
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.confirmation import Confirmation, WinnerOnTestData
from tune_lr.study.curves import Curves
from tune_lr.study.journal import SEARCHES, Journal, ledgers_of, write_outcome, write_spec
from tune_lr.study.ladder import Ladder
from tune_lr.study.observers import Observers
from tune_lr.study.open_trial import OpenTrial
from tune_lr.study.range_test import RangeTest
from tune_lr.study.resumption import read_trials, take_up, tell_ended
from tune_lr.study.search import Search, failed_alike, fixed_spec
from tune_lr.study.spending import BudgetKeeper
from tune_lr.study.widening import Widener


class Study:
    """One study, opened or gone on with. It coordinates what the other modules of this package decide.

    `phases` may be range_test alone. With `strict` a study without bounds ends. With `resume` false the study is only
    read. `clock` counts seconds. `over` is true when nothing is left to run; `stopped`, when nothing may go on, and
    then `error` says why (None: somebody asked). Raises ResourceError where the journal cannot be read.
    """

    def __init__(
        self,
        config: Config,
        directory: StudyDir,
        *,
        observers: Sequence[Observer] = (),
        phases: Sequence[str] = PHASES,
        strict: bool = False,
        resume: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.directory = directory
        self.over = False
        self.stopped = False
        self.error: TuneLRError | None = None
        self._phases = tuple(phases)
        self._strict = strict
        self._observer = Observers(observers)
        self._curves = Curves(directory)
        self._open: dict[int, OpenTrial] = {}  # by number
        self._again: deque[TrialSpec] = deque()  # trials that were interrupted or lost, to be issued again
        self._test: TrialSpec | None = None  # the pass over the test data, once it was issued
        self._slots: dict[str, int] = {}  # the number of each slot, by its name
        self._to_stop: dict[int, str] = {}  # why somebody wants a trial to end, by its number
        self._announced = ("", 0)  # the last phase that was announced, and its number of trials

        self.journal = Journal(
            directory, config, lambda trial: self._search.place(trial), lambda: self._proposing_ladder().propose()
        )
        with self.journal.damage_reported():
            self.trials = read_trials(self.journal, directory, config)
            if resume:
                tell_ended(self.journal, self.trials)
            self._build(clock)
            if resume:
                self._take_up()

    def _build(self, clock: Callable[[], float]) -> None:
        """Make the parts of the study, each of the ones before."""
        config, directory, journal, trials = self.config, self.directory, self.journal, self.trials
        observer = self._observer
        self._range_test = RangeTest(config, directory, journal, trials, observer, self._phases)
        self._budget = BudgetKeeper(config, journal, trials, clock)
        self._widener = Widener(config, directory, journal, trials, self._budget, self._range_test, observer)
        self.ladder = Ladder(config, journal, trials, self._budget, self._range_test) if config.ladder else None
        self._search = Search(
            config, directory, journal, trials, self._budget, self._range_test, self._widener, self.ladder
        )
        self._confirmation = Confirmation(
            config, directory, journal, trials, self._budget, observer, self._search.posterior_values
        )

    def _proposing_ladder(self) -> Ladder:
        assert self.ladder is not None, "only a search with trials of several lengths asks it for proposals"
        return self.ladder

    def _take_up(self) -> None:
        for trial in take_up(self.journal, self.trials, self.directory):
            self._open[trial.spec.number] = trial
            self._again.append(trial.spec)
        self._widener.copy_ended()

    # --- what runs next -------------------------------------------------------------------------------------

    def next_trial(self) -> TrialSpec | None:
        """Return the next trial to run; None where results have to be waited for, or the study is over."""
        if self.stopped or self.over:
            return None
        try:
            return self._begin_next()
        except (OSError, TuneLRError) as error:
            self._stop(self.directory.trouble(error) if isinstance(error, OSError) else error)
            return None

    def _begin_next(self) -> TrialSpec | None:
        again = bool(self._again)
        spec = self._again.popleft() if again else self._next()
        if spec is None or spec.phase == "test":
            return spec
        trial = self._open[spec.number].begun_anew()
        self._open[spec.number] = trial
        known, notices = self._curves.take_up(spec) if again else ([], [])
        for notice in notices:
            self._observer.notice(notice)
        if not known:
            self._curves.start(spec)
        self._announce(spec.phase)
        self._observer.trial_started(spec)
        for report in known:
            trial.add(report)
            self._observer.trial_reported(spec, report)
        return replace(spec, resume=known[-1].step if known else 0)

    def _next(self) -> TrialSpec | None:
        for phase in self._phases:
            if phase == "search":
                self._widener.look()
            for ledger in ledgers_of(phase):
                if self._remaining(ledger):
                    return self._ask(ledger)
            if any(trial.spec.phase == phase for trial in self._open.values()):
                return None
            if phase == "search" and self.config.budget and not self._budget.is_closed():
                self._budget.close()
            if phase == "range_test" and not self._range_test.conclude(self._strict):
                return self._next()
        return self._next_test()

    def _remaining(self, ledger: str) -> int:
        """Return how many trials of a ledger are still to be asked for."""
        if self.stopped:
            return 0
        if ledger == "range_test":
            return self._range_test.remaining()
        if ledger == "fixed" or ledger in SEARCHES:
            return self._search.remaining(ledger)
        return len(self._confirmation.missing())

    def _ask(self, ledger: str) -> TrialSpec:
        """Ask Optuna for a trial, number it, say what it trains and write that into the journal."""
        trial = self.journal.ledger(ledger).ask()
        spec = self._specify(ledger, len(self.trials), trial)
        write_spec(trial, spec)
        self.trials.add(ledger, spec)
        self._open[spec.number] = OpenTrial(spec, trial, ledger)
        return spec

    def _specify(self, ledger: str, number: int, trial: Trial) -> TrialSpec:
        if ledger == "range_test":
            return self._range_test.spec(number)
        if ledger == "fixed":
            return fixed_spec(number, self.config, self.directory, self.trials.asked("fixed"))
        if ledger in SEARCHES:
            return self._search.spec(number, trial)
        return self._confirmation.spec(number)

    def _next_test(self) -> TrialSpec | None:
        if self._test is not None:
            return None
        self._test = self._confirmation.test_spec() if "confirm" in self._phases else None
        self.over = self._test is None
        return self._test

    # --- what comes back ------------------------------------------------------------------------------------

    def report(self, number: int, report: Report) -> bool:
        """Take in a trial's report; return whether the trial goes on."""
        if self.stopped:
            return False
        try:
            return self._take(number, report)
        except OSError as error:
            return self._stop(self.directory.trouble(error))

    def _take(self, number: int, report: Report) -> bool:
        if report.mistake:
            return self._stop(InputError(report.mistake))
        if self._test is not None and number == self._test.number:
            self._confirmation.keep_test(report)
            self.over = True
            return False
        trial = self._open[number]
        known = self.journal.facts
        if report.facts and (known is None or known.metrics != report.facts.metrics):
            known = report.facts
            self.journal.keep_facts(known)
        for text in report.notices:
            self._observer.notice(f"trial {number}: {text}")
        trial.add(report)
        self._curves.append(trial.spec, report, known.metrics if known else ())
        self._observer.trial_reported(trial.spec, report)
        return self._goes_on(trial, report)

    def _goes_on(self, trial: OpenTrial, report: Report) -> bool:
        """Return whether a trial goes on after its report; end it where it does not."""
        number = trial.spec.number
        if report.failure:
            return self._end(trial, report, "failed", report.failure)
        if report.diverged:
            # A ramp is there to diverge.
            state = "complete" if trial.spec.ramp else "diverged"
            return self._end(trial, report, state, f"diverged at step {report.step}")
        if trial.ledger in SEARCHES and trial.should_prune(report, self.config):
            return self._end(trial, report, "pruned", f"not among the best at step {report.step}")
        if report.over:
            return self._end(trial, report, "complete", "")
        if number in self._to_stop:
            return self._end(trial, report, "pruned", self._to_stop[number])
        return True

    def _end(self, trial: OpenTrial, report: Report, state: str, reason: str) -> bool:
        number = trial.spec.number
        slot = self._slots.setdefault(report.slot, len(self._slots))
        outcome = trial.outcome(state, reason, report, self.config, slot, self.elapsed())
        write_outcome(trial.trial, outcome)
        self.journal.end(trial.ledger, trial.trial, outcome)
        if trial.ledger == "search":
            self._widener.copy_ended()
        del self._open[number]
        self.trials.end(number, outcome)
        self.directory.remove_checkpoints(number)
        self._observer.trial_ended(trial.spec, self.trials.row(number))
        if state == "failed" and (error := failed_alike(self.trials.rows())):
            self._stop(error)
        return False

    def lost(self, number: int) -> None:
        """Issue a trial again, under its number: its slot is gone."""
        if self._test is not None and number == self._test.number:
            self._again.append(self._test)
        elif number in self._open:
            self._again.append(self._open[number].spec)
        self._observer.notice(f"trial {number}: its slot was lost; it runs again")

    def stop_trial(self, number: int, reason: str) -> None:
        """End that trial alone, as pruned, at its next report. May be called from any thread."""
        self._to_stop[number] = reason

    def interrupt(self) -> None:
        """Start and take in nothing more; what was running is run again by the next driver."""
        self.stopped = True

    def _stop(self, error: TuneLRError) -> bool:
        self.error = error
        self.stopped = True
        return False

    def _announce(self, phase: str) -> None:
        trials = 0 if phase == "search" and self.config.budget else self.total(phase)
        if self._announced != (phase, trials):
            self._announced = (phase, trials)
            self._observer.phase_started(phase, trials)

    # --- what there is --------------------------------------------------------------------------------------

    @property
    def all_bounds(self) -> Mapping[Combination, LRBounds]:
        """The bounds of every combination of batch size and optimizer; empty where they are not known (yet)."""
        return self._range_test.bounds

    @property
    def bounds(self) -> LRBounds | None:
        """The bounds of the study's own batch size and optimizer; None where they are not known (yet)."""
        return self._range_test.own_bounds

    def read_bounds(self) -> Mapping[Combination, LRBounds]:
        """Read the bounds off the ramps that have ended and write bounds.json."""
        return self._range_test.read_bounds()

    @property
    def widened(self) -> Widening | None:
        """The wider range of the LR; None where it has not been widened."""
        return self._widener.widened

    def predictions(self) -> tuple[Prediction, ...]:
        """Return what shorter trainings predict of each LR schedule; empty where all trials are full trainings."""
        return self._search.predictions()

    def searched_lrs(self, combination: Combination) -> tuple[float, float] | None:
        """Return the lowest and the highest LR that the search may draw; None where it has no choice."""
        return self._search.searched_lrs(combination)

    @property
    def test_result(self) -> WinnerOnTestData | None:
        """What the pass over the test data has found; None where there was none."""
        return self._confirmation.test_result

    def verdict(self) -> Verdict:
        """Return who has won so far. Raises NoAnswerError where no trial of the search was completed."""
        return self._confirmation.verdict()

    def elapsed(self) -> float:
        """Return how many seconds all drivers of this study have run."""
        return self._budget.elapsed()

    def rows(self) -> list[TrialRow]:
        """Return a row for every trial that has ended, by number."""
        return self.trials.rows()

    def total(self, phase: str) -> int:
        """Return how many trials a phase has, those to come included.

        Of the confirmation that is known after the search; of a search that a budget ends, it is as many as would come
        if the search went on as before.
        """
        ledgers = ledgers_of(phase)
        asked = self.trials.asked(*ledgers)
        to_come = sum(self._remaining(ledger) for ledger in ledgers)
        if phase == "search" and self.config.budget and to_come:
            return max(asked + 1, round(asked / max(0.01, self._budget.share_of_search())))
        return asked + to_come
