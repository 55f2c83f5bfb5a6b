"""The search phase of a study: the fixed configurations, and what is drawn from the search space."""

import math
from collections.abc import Sequence
from dataclasses import replace

from optuna.trial import TrialState

from tune_lr.config.model import Config
from tune_lr.config.parameters import Combination
from tune_lr.errors import NoAnswerError
from tune_lr.lr.ramp import Ramp
from tune_lr.records.answer import Prediction
from tune_lr.records.parameters import LENGTH
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.journal import SEARCHES, Journal, number_of
from tune_lr.study.ladder import Ladder
from tune_lr.study.range_test import RangeTest
from tune_lr.study.sampler import Placement, posterior_values
from tune_lr.study.search_space import (
    Draw,
    Suggests,
    draw,
    draw_combination,
    expected_lr,
    lr_curve,
    lr_interval,
    middle,
    suggested_lr,
)
from tune_lr.study.spending import BudgetKeeper
from tune_lr.study.trial_book import TrialBook
from tune_lr.study.widening import Widener

ALIKE = 3  # trials that fail for the same reason, before any other has ended, end the study


def failed_alike(rows: Sequence[TrialRow]) -> NoAnswerError | None:
    """Return the error that ends a study of which no trial was more than begun, all for one reason; else None."""
    trained = [row for row in rows if row.phase != "range_test"]
    reasons = {row.reason for row in trained}
    if len(trained) < ALIKE or len(reasons) > 1 or any(row.state != "failed" for row in trained):
        return None
    return NoAnswerError(f"the first {len(trained)} trials failed for the same reason: {reasons.pop()}")


class Search:
    """Says what the trials of the search train, inside the bounds of the range test or the wider ones.

    All search trials share the study's seed, so that they are compared in pairs.
    """

    def __init__(
        self,
        config: Config,
        directory: StudyDir,
        journal: Journal,
        trials: TrialBook,
        budget: BudgetKeeper,
        range_test: RangeTest,
        widener: Widener,
        ladder: Ladder | None,
    ) -> None:
        self._config = config
        self._directory = directory
        self._ladder = ladder
        self._journal = journal
        self._trials = trials
        self._budget = budget
        self._range_test = range_test
        self._widener = widener

    def remaining(self, ledger: str) -> int:
        """Return how many trials of a ledger of the search are still to be asked for."""
        if ledger == "fixed":
            return max(0, len(self._config.fixed) - self._trials.asked("fixed"))
        if ledger != self._widener.ledger or self._budget.is_closed():
            return 0
        if self._ladder is not None:
            return self._ladder.remaining()
        asked = self._trials.asked(*SEARCHES)
        return max(0, self._config.num_trials - asked) if not asked or self._budget.holds_a_trial() else 0

    def spec(self, number: int, trial: Suggests) -> TrialSpec:
        """Return what a trial of Optuna's trains, as the trial of that number."""
        _, drawn = self._draw(trial)
        max_steps = self._config.steps_of(self._config.max_steps, drawn.batch_size)
        spec = TrialSpec(number, "search", self._config.seed, max_steps, **vars(drawn))
        if self._ladder is None:
            return spec
        length = float(trial.suggest_categorical(LENGTH, self._config.ladder))
        max_steps, report_every = self._ladder.trained_for(length)
        keeps_model = self._ladder.final_is_next()
        checkpoint = str(self._directory.checkpoint(number)) if keeps_model else None
        return replace(spec, max_steps=max_steps, length=length, report_every=report_every, checkpoint=checkpoint)

    def place(self, trial: Suggests) -> Placement:
        """Return where a configuration stands for the sampler; see `sampler.Place`."""
        combination, drawn = self._draw(trial)
        config = self._config
        suggestion, uncertainty = suggested_lr(self._range_test.bounds.get(combination))
        centre = suggestion or middle(config.parameters.lr, self._bounds(combination))
        max_steps = config.steps_of(config.max_steps, drawn.batch_size)
        facts = self._journal.facts
        curve = lr_curve(drawn, max_steps, facts.steps_per_epoch if facts else None)
        decades = math.log10(drawn.lr / expected_lr(curve, centre))
        return Placement(drawn.lr_schedule, decades, uncertainty, curve)

    def predictions(self) -> tuple[Prediction, ...]:
        """Return what is predicted of each LR schedule at full length; empty where all trials are full trainings."""
        return () if self._ladder is None else self._ladder.predictions()

    def posterior_values(self) -> dict[int, float]:
        """Return what is expected of each completed trial (`sampler.posterior_values`), by the trial's number.

        It is empty where trials have several lengths: their figures cannot be compared.
        """
        if self._ladder is not None:
            return {}
        name = self._widener.ledger
        originals = self._journal.trials("search")
        numbers = {}
        for frozen in self._journal.trials(name):
            if frozen.state == TrialState.COMPLETE:
                copied = "copy_of" in frozen.user_attrs
                original = originals[frozen.user_attrs["copy_of"]] if copied else frozen
                numbers[frozen.number] = number_of(original.user_attrs)
        values = posterior_values(self._journal.ledger(name), self.place)
        return {numbers[number]: value for number, value in values.items()}

    def _draw(self, trial: Suggests) -> tuple[Combination, Draw]:
        space = self._config.parameters
        combination = draw_combination(trial, space)
        return combination, draw(trial, space, self._bounds(combination), combination)

    def searched_lrs(self, combination: Combination) -> tuple[float, float] | None:
        """Return the lowest and the highest LR that the search may draw; None where it has no choice."""
        space = self._config.parameters.lr
        if space.value is not None:
            return None
        if space.values is not None:
            return (min(space.values), max(space.values)) if len(space.values) > 1 else None
        return lr_interval(space, self._bounds(combination))

    def _bounds(self, combination: Combination) -> tuple[float, float]:
        if self._ladder is not None:
            return self._ladder.lr_bounds
        widened = self._widener.widened
        return (widened.low, widened.high) if widened else self._range_test.search_bounds(combination)


def fixed_spec(number: int, config: Config, directory: StudyDir, index: int) -> TrialSpec:
    """Return the fixed configuration of that index as the trial of that number.

    It has the batch size and the optimizer that the study itself names.
    """
    fixed = config.fixed[index]
    own = config.combinations[0]
    spec = TrialSpec(
        number,
        "search",
        config.seed,
        config.max_steps,
        label=fixed.name,
        optimizer={"name": own.optimizer} if own.optimizer else {},
        batch_size=own.batch_size,
        checkpoint=str(directory.checkpoint(number)) if fixed.keep_model else None,
    )
    if fixed.ramp is not None:
        ramp = Ramp(fixed.ramp.low, fixed.ramp.high, config.max_steps, fixed.ramp.mode, fixed.ramp.stairs)
        return replace(spec, lr=ramp.high, ramp=ramp)
    assert fixed.lr is not None
    assert fixed.lr_schedule is not None
    return replace(spec, lr=fixed.lr, lr_schedule=fixed.lr_schedule, parameters=fixed.parameters)
