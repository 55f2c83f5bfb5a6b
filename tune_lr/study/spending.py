"""What a study may spend: whether its budget holds another trial, and how large a confirmation it leaves room for."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from tune_lr.config.budget import confirmation_within
from tune_lr.config.lengths import steps_of_length
from tune_lr.config.model import Config
from tune_lr.config.plan import planned_confirmation
from tune_lr.records.phases import PHASES
from tune_lr.study.journal import SEARCHES, Journal
from tune_lr.study.trial_book import TrialBook


class ConfirmationSize(NamedTuple):
    """How many finalists are confirmed, and with how many seeds each at first."""

    finalists: int
    seeds: int


class BudgetKeeper:
    """Holds a study to its budget.

    It counts from when it was made: to be made when the trials that have ended are known. That the budget has ended the
    search stands in the journal, as the attribute `closed` of the ledger `search`, so that what a resumed study finds
    left of the budget is not spent on the search again.
    """

    def __init__(self, config: Config, journal: Journal, trials: TrialBook, clock: Callable[[], float]) -> None:
        self._config = config
        self._journal = journal
        self._trials = trials
        self._clock = clock
        self._began = clock()
        self._before = trials.clock(*PHASES)  # seconds that the drivers before have run
        self._closed: dict[str, Any] = journal.ledger("search").user_attrs.get("closed", {})

    def elapsed(self) -> float:
        """Return how many seconds all drivers of this study have run; of one that was killed, those up to the last end
        of a trial count."""
        return self._before + self._clock() - self._began

    # --- the search -----------------------------------------------------------------------------------------

    def is_closed(self) -> bool:
        """Return whether this budget has ended the search. With another budget the search goes on."""
        return bool(self._closed) and self._closed["budget"] == self._config.budget

    def close(self) -> None:
        """Write down that the budget has ended the search, and how large the confirmation is."""
        self._closed = {"budget": self._config.budget, "confirm": list(self.confirmation())}
        if self._config.ladder:
            self._closed["trials"] = self._trials.asked(*SEARCHES)
        self._journal.ledger("search").set_user_attr("closed", self._closed)

    def holds_a_trial(self) -> bool:
        """Return whether the budget holds one more search trial, and the confirmation after it.

        With a ladder that is a trial of the shortest length.
        """
        if self._config.ladder:
            return self.steps_left() >= steps_of_length(self._config.ladder[0], self._config.max_steps)
        finalists, seeds = self.confirmation()
        return self.holds(1, finalists * seeds)

    def holds(self, *groups: int) -> bool:
        """Return whether the budget holds so many more full trainings, beside what runs now.

        The trainings of one group run side by side, as far as there are slots, and the groups one after another.
        """
        budget = self._config.spending
        full = self._config.max_steps
        if budget is None:
            return True
        if budget.seconds is not None:
            rounds = sum(math.ceil(trainings / self._trials.slots()) for trainings in groups)
            return self.elapsed() + rounds * self._full_training_s() <= budget.seconds
        return self._spent_or_running() + sum(groups) * full <= (budget.steps(full) or 0)

    def steps_left(self) -> float:
        """Return the steps of a budget of trainings that are neither spent, nor running, nor kept for a confirmation.

        It is infinite without such a budget.
        """
        full = self._config.max_steps
        steps = self._config.spending.steps(full) if self._config.spending else None
        if steps is None:
            return math.inf
        finalists, seeds = self.confirmation()
        return steps - self._spent_or_running() - finalists * seeds * full

    def trials_before(self) -> int:
        """Return how many trials the search had when another budget ended it; 0 where none did."""
        before: int = self._closed.get("trials", 0)
        return before

    def _spent_or_running(self) -> float:
        spent = sum(self._trials.weighted_steps(phase) for phase in PHASES)
        return spent + sum(spec.max_steps * self._trials.weight(spec) for spec in self._trials.begun())

    def share_of_search(self) -> float:
        """Return how much of the search is over, from 0 to 1, by the number of trials or by the budget."""
        ended = self._trials.ended_in(*SEARCHES)
        if not ended:
            return 0.0
        budget = self._config.spending
        full = self._config.max_steps
        finalists, seeds = self.confirmation()
        shares = [ended / max(1, self._config.num_trials)]
        if budget is not None and budget.seconds is not None:
            rounds = math.ceil(finalists * seeds / self._trials.slots())
            began = self._ramps_until()
            until = budget.seconds - rounds * self._full_training_s()
            shares.append((self.elapsed() - began) / max(1e-9, until - began))
        elif budget is not None:
            room = (budget.steps(full) or 0) - self._trials.weighted_steps("range_test") - finalists * seeds * full
            shares.append(self._trials.weighted_steps("search") / max(1, room))
        return min(1.0, max(shares))

    # --- the confirmation -----------------------------------------------------------------------------------

    def confirmation(self) -> ConfirmationSize:
        """Return how large the confirmation is. Within a budget it takes at most half of what the range test left."""
        wanted = ConfirmationSize(self._config.confirm.finalists, self._config.confirm.seeds)
        budget = self._config.spending
        if budget is None:
            return wanted
        if self.is_closed():
            return ConfirmationSize(*self._closed["confirm"])
        if budget.seconds is None:
            ramp_steps = math.ceil(self._trials.weighted_steps("range_test"))
            return ConfirmationSize(*planned_confirmation(self._config, ramp_steps))
        full_s = self._full_training_s()
        if not full_s:
            return wanted
        rounds = int((budget.seconds - self._ramps_until()) / 2 / full_s)
        return ConfirmationSize(*confirmation_within(max(0, rounds) * self._trials.slots(), *wanted))

    # --- time -----------------------------------------------------------------------------------------------

    def _full_training_s(self) -> float:
        """Return how many seconds a full training takes, as trainings have gone so far; before them, as ramps have."""
        trained = [phase for phase in ("search", "confirm") if self._trials.weighted_steps(phase)] or ["range_test"]
        steps = sum(self._trials.weighted_steps(phase) for phase in trained)
        seconds = sum(self._trials.seconds(phase) for phase in trained)
        return self._config.max_steps * seconds / steps if steps else 0.0

    def _ramps_until(self) -> float:
        """Return when the last ramp ended, in seconds of the drivers' clock."""
        return self._trials.clock("range_test")
