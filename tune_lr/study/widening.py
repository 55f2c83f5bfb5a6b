"""Where the best LR of the search lies at a bound of the range test, the search goes on beyond that bound, once.

It is looked at in the second half of the search, whenever there is a new best trial.

A sampler does not follow a range that moves. So the search then goes on in a ledger of its own, which begins with
copies of the trials before, as if they had been drawn from the wider range.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tune_lr.config.model import Config
from tune_lr.records.observer import Observer
from tune_lr.records.outcome import Widening
from tune_lr.records.row import TrialRow, rank_search
from tune_lr.store.files import write_json
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.journal import SEARCHES, Journal
from tune_lr.study.range_test import RangeTest
from tune_lr.study.search_space import NOTHING_ELSE, lr_interval
from tune_lr.study.spending import BudgetKeeper
from tune_lr.study.trial_book import TrialBook

LOOK_AFTER = 8  # trials of the search that have ended at least, before the best LR is looked at
EDGE = 0.1  # the best LR lies at a bound where it is nearer to it than this share of the range, in decades
WIDENED_BY = 10**0.5  # the factor by which the range then goes on beyond that bound


class Widener:
    """Looks whether the range of the LR is to be widened, and keeps the ledger `widened`.

    A widening stands in the journal, as the attribute `widening` of the ledger `search`. Studies of version 0.1 looked
    only once; where they were not widened then, the attribute says after how many trials. `widened` is None where the
    range has not been widened.
    """

    def __init__(
        self,
        config: Config,
        directory: StudyDir,
        journal: Journal,
        trials: TrialBook,
        budget: BudgetKeeper,
        range_test: RangeTest,
        observer: Observer,
    ) -> None:
        self._config = config
        self._directory = directory
        self._journal = journal
        self._trials = trials
        self._budget = budget
        self._range_test = range_test
        self._observer = observer
        seen: dict[str, Any] | None = journal.ledger("search").user_attrs.get("widening")
        self._is_settled = seen is not None
        self._looked_after = 0  # trials of the search
        self.widened: Widening | None = Widening.from_dict(seen) if seen and "low" in seen else None
        if self.widened:
            journal.open("widened")

    @property
    def ledger(self) -> str:
        """The ledger in which the search goes on."""
        return "widened" if self.widened else "search"

    def look(self) -> None:
        """Look at the LR of the best trial, and widen the range where that LR lies at a bound.

        Never where several combinations of batch size and optimizer have bounds of their own, and with a ladder, which
        proposes LRs beyond the bounds anyway.
        """
        if self._is_settled or self._config.combinations != [NOTHING_ELSE] or self._config.ladder:
            return
        ended = self._trials.ended_in(*SEARCHES)
        if ended < LOOK_AFTER or ended == self._looked_after or not 0.5 <= self._budget.share_of_search() < 1:
            return
        self._looked_after = ended
        widening = self._at_a_bound([row for row in self._trials.rows_of("search") if not row.label])
        if widening is None:
            return
        self._journal.ledger("search").set_user_attr("widening", widening.to_dict())
        self._is_settled = True
        self.widened = widening
        write_json(self._directory.widened_json, widening.to_dict())
        self._journal.open("widened")
        self.copy_ended()
        self._observer.notice(widened_text(widening))

    def copy_ended(self) -> None:
        """Copy the trials that have ended in the narrower range, each once, as if drawn from the wider one."""
        if self.widened is None:
            return
        ledger = self._journal.ledger("widened")
        copied = {frozen.user_attrs.get("copy_of") for frozen in self._journal.trials("widened")}
        wider = FloatDistribution(self.widened.low, self.widened.high, log=True)
        for frozen in self._journal.trials("search"):
            if frozen.state in (TrialState.COMPLETE, TrialState.PRUNED) and frozen.number not in copied:
                ledger.add_trial(_copy(frozen, wider))
        if not self._trials.asked("widened"):  # with the seed of an empty ledger it would begin as the search has begun
            self._journal.renew_sampler("widened")

    def _at_a_bound(self, searched: Sequence[TrialRow]) -> Widening | None:
        """Return the wider range; None where the best LR lies well within, or at a bound that the user has set.

        The wider range does not reach an LR with which the same LR schedule has diverged.
        """
        metric = self._config.metric
        space = self._config.parameters.lr
        bounds = self._range_test.own_bounds
        best = next(iter(rank_search(searched, metric.name, metric.goal)), None)
        if best is None or bounds is None or bounds.low is None or bounds.high is None:
            return None
        low, high = lr_interval(space, (bounds.low, bounds.high))
        side = bound_near(best.lr, low, high)
        if space.min == "range_test" and side == "lower":
            return Widening(low / WIDENED_BY, high, (low, high), len(searched), best.number, best.lr)
        if space.max == "range_test" and side == "upper":
            same = [row for row in searched if row.lr_schedule == best.lr_schedule and row.state == "diverged"]
            wider = min([high * WIDENED_BY, *(row.lr for row in same if row.lr > best.lr)])
            if wider > high:
                return Widening(low, wider, (low, high), len(searched), best.number, best.lr)
        return None


def bound_near(lr: float, low: float, high: float) -> Literal["lower", "upper"] | None:
    """Return at which bound of a range an LR lies; None where it lies well within."""
    position = math.log(lr / low) / math.log(high / low)
    if position < EDGE:
        return "lower"
    return "upper" if position > 1 - EDGE else None


def widened_text(widening: Widening) -> str:
    """Return what was done, for people."""
    low, high = widening.narrower
    return (
        f"search: after {widening.after} trials the best, #{widening.trial}, lies at the edge of what the range "
        f"test found (lr {widening.lr:.3g} in {low:.3g} to {high:.3g}); the search goes on from "
        f"{widening.low:.3g} to {widening.high:.3g}"
    )


def _copy(frozen: FrozenTrial, distribution: FloatDistribution) -> FrozenTrial:
    return create_trial(
        state=frozen.state,
        value=frozen.value,
        params=frozen.params,
        distributions={**frozen.distributions, "lr": distribution},
        intermediate_values=frozen.intermediate_values,
        user_attrs={"copy_of": frozen.number},
    )
