"""The search with trials of several lengths: what was learned from them, what comes next, and what is predicted.

Short trials are complete short trainings. The model of `length_model` carries over what they show to the full length.
The budget decides when the search ends; where it holds a full training after the short ones, that is the last trial.
"""

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tune_lr.config.ladder import report_every_of
from tune_lr.config.lengths import steps_of_length
from tune_lr.config.model import Config
from tune_lr.config.plan import ends_at_full_length, steps_for_the_ladder
from tune_lr.records.answer import Prediction
from tune_lr.records.interval import Interval
from tune_lr.records.parameters import LENGTH
from tune_lr.records.phases import sign_of
from tune_lr.records.trial import TrialSpec
from tune_lr.study.journal import Journal
from tune_lr.study.length_model import Fitted, Forecast, LRPrior, Observation, Schedule, fit, forecast, propose
from tune_lr.study.length_sampler import Proposed
from tune_lr.study.range_test import RangeTest
from tune_lr.study.search_space import NOTHING_ELSE, Draw, draw, lr_curve, lr_interval, middle
from tune_lr.study.spending import BudgetKeeper
from tune_lr.study.trial_book import TrialBook

# How far the best LR of a training as long as a ramp may lie from the suggestion, one standard deviation in decades:
# from one that the fall of the ramps gives, and from one that follows from their divergence alone.
SUGGESTED, FROM_THE_EDGE = 0.4, 0.8
UNKNOWN = 1.5  # where the ramps say nothing: from the middle of the LRs that are searched
# A schedule whose parameters are searched is tried with the middle of each, and with so many drawn sets; a proposal
# compares every set at every length, so there are fewer where there are many schedules.
DRAWN_SETS, MOST_SETS = 2, 24


@dataclass(frozen=True)
class Candidate:
    """A schedule with its parameters, and with those of the optimizer that are searched, under Optuna's names."""

    schedule: Schedule  # with the curve of a full training
    draw: Draw  # its LR is not looked at
    values: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]


class Ladder:
    """Decides the search of a study whose trials have several lengths. It reads the other parts and changes none."""

    def __init__(
        self, config: Config, journal: Journal, trials: TrialBook, budget: BudgetKeeper, range_test: RangeTest
    ) -> None:
        self._config = config
        self._journal = journal
        self._trials = trials
        self._budget = budget
        self._range_test = range_test
        self._forecast: tuple[tuple[int, ...], Forecast] | None = None  # the last one, and the trials that it rests on

    # --- what comes next ------------------------------------------------------------------------------------

    def remaining(self) -> int:
        """Return 1 where a trial can be asked for now, else 0."""
        if self._lengths_to_come():
            return 1
        waits = any(spec.phase == "search" for spec in self._trials.begun())
        return int(self.final_is_next() and not waits)

    def final_is_next(self) -> bool:
        """Return whether all that is to come is the full training of the best that is predicted."""
        return self._keeps_final() and not self._lengths_to_come() and self._numbers_left() > 0

    def propose(self) -> Proposed:
        """Return the next trial: the one that gains most for its cost, or at the end the best that is predicted."""
        if self.final_is_next():
            best = self.forecast().schedules[0]
            return self._as_parameters(best.schedule, best.lr, 1.0)
        schedules = [candidate.schedule for candidate in self.candidates]
        # A trial that was interrupted before it was written down may be drawn when the budget has no room any more.
        lengths = self._lengths_to_come() or self._config.ladder[:1]
        fitted = self.fitted()
        running = [self._observation(spec, math.nan) for spec in self._trials.begun() if spec.length is not None]
        proposal = propose(fitted, schedules, lengths, running)
        return self._as_parameters(proposal.schedule, proposal.lr, proposal.length)

    def trained_for(self, length: float) -> tuple[int, int]:
        """Return the steps of a trial of that length, and after how many of them it is validated."""
        return steps_of_length(length, self._config.max_steps), report_every_of(length, self._config)

    def _lengths_to_come(self) -> tuple[float, ...]:
        """Return the lengths of which another trial may be proposed. A full training at the end is kept room for."""
        if self._final_asked():
            return ()
        final = self._keeps_final()
        if self._numbers_left() <= final:
            return ()
        room = self._budget.steps_left() - final * self._config.max_steps
        lengths = self._config.ladder if final else self._config.ladder[:-1]
        return tuple(length for length in lengths if steps_of_length(length, self._config.max_steps) <= room)

    def _keeps_final(self) -> bool:
        if self._final_asked() or self._budget.steps_left() < self._config.max_steps:
            return False
        before = sum(self._trials.outcome(spec.number).steps for spec in self._before())
        ramp_steps = math.ceil(self._trials.weighted_steps("range_test"))
        return ends_at_full_length(self._config, steps_for_the_ladder(self._config, ramp_steps) - before)

    def _final_asked(self) -> bool:
        """Return whether the last trial was asked for. With a larger budget there is another one."""
        return any(spec.checkpoint for spec in self._searched()[len(self._before()) :])

    def _before(self) -> list[TrialSpec]:
        """Return the trials that another budget has paid for."""
        return self._searched()[: self._budget.trials_before()]

    def _searched(self) -> list[TrialSpec]:
        return [spec for spec in self._trials.specs("search") if spec.length is not None]

    def _numbers_left(self) -> int:
        return self._config.num_trials - len(self._searched())

    # --- what is known --------------------------------------------------------------------------------------

    def forecast(self) -> Forecast:
        """Return what is expected of every schedule at full length, by the trials that have ended."""
        numbers = tuple(self._trials.ended())
        if self._forecast is None or self._forecast[0] != numbers:
            fitted = self.fitted()
            schedules = [candidate.schedule for candidate in self.candidates]
            lr = self._config.parameters.lr
            lrs = [lr.value] if lr.value is not None else lr.values
            self._forecast = numbers, forecast(fitted, schedules, lrs)
        return self._forecast[1]

    def predictions(self) -> tuple[Prediction, ...]:
        """Return what is predicted of each LR schedule, with the best of its parameters, the best schedule first."""
        if not self.has_observations():
            return ()
        sign = sign_of(self._config.metric.goal)
        best: dict[str, Prediction] = {}
        forecasts = self.forecast().schedules
        shares: dict[str, float] = {}
        for schedule_forecast in forecasts:
            family = schedule_forecast.schedule.family
            shares[family] = shares.get(family, 0.0) + schedule_forecast.probability_best
        for schedule_forecast in forecasts:
            family = schedule_forecast.schedule.family
            low, high = sorted(sign * end for end in schedule_forecast.loss_interval)
            prediction = Prediction(
                lr_schedule=family,
                parameters=qualified_parameters(self.candidate_of(schedule_forecast.schedule).draw),
                lr=schedule_forecast.lr,
                lr_interval=Interval(*schedule_forecast.lr_interval),
                loss=sign * schedule_forecast.loss,
                loss_interval=Interval(low, high),
                probability_best=shares[family],
            )
            best.setdefault(family, prediction)
        return tuple(best.values())

    def expected_regret(self) -> float | None:
        """Return by how much the best that is predicted is expected to be worse than the best of all, in the metric."""
        return self.forecast().expected_regret if self.has_observations() else None

    def has_observations(self, short: bool = False) -> bool:
        """Return whether a trial (with `short` one below full length) was completed: there is something to go by."""
        return any(not observation.diverged for observation in self.observations(short).values())

    def fitted(self, short: bool = False) -> Fitted:
        """Return what is known by the trials that have ended; with `short` by those below full length alone."""
        return fit(list(self.observations(short).values()), self.prior, self._config.max_steps, self._config.seed)

    def schedule_at(self, candidate: Candidate, length: float) -> Schedule:
        """Return a candidate's schedule with the curve of a training of that length."""
        return self._schedule(candidate.draw, steps_of_length(length, self._config.max_steps))

    def schedule_of(self, spec: TrialSpec) -> Schedule:
        """Return the schedule that a trial trains, with the curve of its own length."""
        drawn = Draw(spec.lr, spec.lr_schedule, dict(spec.parameters), dict(spec.optimizer))
        return self._schedule(drawn, spec.max_steps)

    def candidate_of(self, schedule: Schedule) -> Candidate:
        """Return the candidate with that schedule."""
        return next(candidate for candidate in self.candidates if candidate.schedule.name == schedule.name)

    @property
    def lr_bounds(self) -> tuple[float, float]:
        """The LRs that may be proposed: all that the ramps cover, within what the user wrote.

        The bounds of the range test are for trainings of a few hundred steps; longer ones may want other LRs.
        """
        ramp, found = self._config.range_test, self._range_test.own_bounds
        ends = [end for end in (found.low, found.high) if end is not None] if found else []
        return min([ramp.low, *ends]), max([ramp.high, *ends])

    @property
    def prior(self) -> LRPrior:
        """What is known of the LR before any trial."""
        space = self._config.parameters.lr
        choices = [space.value] if space.value is not None else space.values
        low, high = (min(choices), max(choices)) if choices else lr_interval(space, self.lr_bounds)
        found = self._range_test.own_bounds
        if found is None or found.suggestion is None:
            return LRPrior(middle(space, self.lr_bounds), UNKNOWN, low, high)
        decades = FROM_THE_EDGE if found.edge_only else SUGGESTED
        return LRPrior(found.suggestion, decades, low, high, self._config.range_test.steps / self._config.max_steps)

    def observations(self, short: bool = False) -> dict[int, Observation]:
        """Return what the trials that have ended show, by number; with `short` those below full length alone."""
        metric = self._config.metric
        observations: dict[int, Observation] = {}
        for spec in self._searched():
            if spec.number not in self._trials.ended() or (short and spec.length == 1):
                continue
            outcome = self._trials.outcome(spec.number)
            if outcome.state == "complete":
                loss = sign_of(metric.goal) * outcome.metrics[metric.name]
                observations[spec.number] = self._observation(spec, loss)
            elif outcome.state == "diverged":
                observations[spec.number] = self._observation(spec, math.nan, diverged=True)
        return observations

    def _observation(self, spec: TrialSpec, loss: float, diverged: bool = False) -> Observation:
        return Observation(self.schedule_of(spec), spec.lr, spec.length or 1.0, loss, diverged)

    def _schedule(self, drawn: Draw, max_steps: int) -> Schedule:
        name = json.dumps([drawn.lr_schedule, drawn.parameters, drawn.optimizer], sort_keys=True)
        searched = self._config.parameters.optimizer.get("", {})
        others = tuple(how.position_of(drawn.optimizer[key]) for key, how in searched.items() if how.value is None)
        facts = self._journal.facts
        curve = lr_curve(drawn, max_steps, facts.steps_per_epoch if facts else None)
        return Schedule(name, curve, drawn.lr_schedule, others)

    # --- what is compared -----------------------------------------------------------------------------------

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The schedules that are compared. They are the same throughout a study, so that forecasts can be compared."""
        space = self._config.parameters
        sets = min(DRAWN_SETS, max(0, MOST_SETS // len(space.lr_schedule) - 1))
        rng = random.Random(f"{self._config.seed} candidates")
        found: dict[str, Candidate] = {}
        for name in space.lr_schedule:
            for source in (None, *([rng] * sets)):
                candidate = self._candidate(name, source)
                found.setdefault(candidate.schedule.name, candidate)
        return tuple(found.values())

    def _candidate(self, lr_schedule: str, rng: random.Random | None) -> Candidate:
        chooser = _Chooser({"lr_schedule": lr_schedule}, rng)
        drawn = draw(chooser, self._config.parameters, self.lr_bounds, NOTHING_ELSE)
        schedule = self._schedule(drawn, self._config.max_steps)
        return Candidate(schedule, drawn, chooser.values, chooser.distributions)

    def _as_parameters(self, schedule: Schedule, lr: float, length: float) -> Proposed:
        candidate, space = self.candidate_of(schedule), self._config.parameters.lr
        values = {**candidate.values, LENGTH: length}
        if space.values is not None:
            values["lr"] = min(space.values, key=lambda value: abs(math.log(value / lr)))
        elif space.value is None:
            low, high = lr_interval(space, self.lr_bounds)
            values["lr"] = min(max(lr, low), high)
        lengths = CategoricalDistribution(self._config.ladder)
        return Proposed(values, {**candidate.distributions, LENGTH: lengths})


def qualified_parameters(drawn: Draw) -> dict[str, Any]:
    """Return what a draw has searched of the schedule and the optimizer, by names as in trials.csv: step.gamma."""
    spec = TrialSpec(
        number=0,
        phase="search",
        seed=0,
        max_steps=0,
        lr_schedule=drawn.lr_schedule,
        parameters=drawn.parameters,
        optimizer=drawn.optimizer,
    )
    return spec.qualified_parameters()


@dataclass
class _Chooser:
    """Answers what `draw` asks for: with what is `given`, else at random, and without `rng` with the middle."""

    given: Mapping[str, Any]
    rng: random.Random | None
    values: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        value = self.rng.choice(choices) if self.rng else choices[(len(choices) - 1) // 2]
        return self._keep(name, self.given.get(name, value), CategoricalDistribution(choices))

    def suggest_float(self, name: str, low: float, high: float, /, *, log: bool = False) -> float:
        place = self.rng.random() if self.rng else 0.5
        value = low * (high / low) ** place if log else low + (high - low) * place
        return float(self._keep(name, min(max(value, low), high), FloatDistribution(low, high, log=log)))

    def suggest_int(self, name: str, low: int, high: int, /) -> int:
        value = self.rng.randint(low, high) if self.rng else (low + high) // 2
        return int(self._keep(name, value, IntDistribution(low, high)))

    def _keep(self, name: str, value: Any, distribution: BaseDistribution) -> Any:
        self.values[name], self.distributions[name] = value, distribution
        return value
