"""A study: its phases, decided by Optuna and remembered in its journal. Knows nothing of Ray.

    range_test   K ramps -> LRBounds, for each combination of batch size and optimizer that is searched; extended once
                 where they hold no answer
    search       the fixed configurations, and N trials proposed and pruned by Optuna
    confirm      the best k configurations, each with n fresh seeds
    test         one pass over the test data, for the winner

Whoever executes the trials asks for `next_trial` and hands in every `report`; the answer says whether the trial goes
on. Each phase is an Optuna study of its own in one journal, so that ramps and lucky seeds never teach the sampler.
What is told here is on disk before the call returns: curves first, then the journal.
"""

import json
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import Trial, TrialState, create_trial

from tune_lr.config.budget import confirmation_within
from tune_lr.config.model import Config
from tune_lr.config.parameters import Combination
from tune_lr.config.plan import needs_range_test, planned_confirmation
from tune_lr.errors import InputError, NoAnswerError, ResourceError, TuneLRError
from tune_lr.lr.bounds import LRBounds, find_lr_bounds
from tune_lr.lr.ramp import Ramp
from tune_lr.records.answer import Verdict
from tune_lr.records.observer import Observer
from tune_lr.records.phases import PHASES, STATES
from tune_lr.records.row import TrialRow, rank_search
from tune_lr.records.steps import steps_covered, steps_weight
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.study_dir import CURVE_COLUMNS, RANGE_CURVE_COLUMNS, Checkpoint, StudyDir
from tune_lr.study.journal import LEDGERS, SEARCHES, make_sampler, no_journal, open_journal, open_ledger, tell_ledger
from tune_lr.study.sampler import Placement, believed
from tune_lr.study.search_space import (
    NOTHING_ELSE,
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
from tune_lr.study.verdict import choose_finalists, judge

# What a diverged trial is told as: finite, and worse than any figure that a metric takes.
PENALTY = 1e30
# All search trials share the study's seed. Ramps and confirmations are fresh, and never meet each other's.
RAMP_SEEDS, CONFIRM_SEEDS = 1, 1001
# Half-way, and after so many trials at least, the best LR is looked at: nearer to a bound than this share of the range,
# in decades, it has the range go on beyond that bound by this factor.
LOOK_AFTER, EDGE, WIDENED_BY = 8, 0.1, 10**0.5
TEST = -1  # the number of the pass over the test data, which is no trial


optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class _Open:
    """A trial in somebody's hands."""

    spec: TrialSpec
    trial: Trial
    ledger: str
    started: float | None = None  # its training; while its workers start, nothing has
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    lowest: float = math.inf  # training loss
    reported: int = 0  # the last step whose figure Optuna knows; with the study's batch size, as the next
    decided: int = 0  # the last step at which the pruner was asked

    def add(self, report: Report) -> None:
        self.started = self.started or time.time() - report.seconds
        self.seconds += report.seconds
        self.metrics = report.metrics or self.metrics
        self.facts = report.facts or self.facts
        self.lowest = min([self.lowest, *(loss for _, _, loss in report.points if math.isfinite(loss))])


class Study:
    """One study, opened or gone on with.

    `phases` may be range_test alone. With `resume` false it is only read. `over` is true when nothing is left to run;
    `stopped`, when nothing may go on, and then `error` says why (None: somebody asked).
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
        self.config, self.directory = config, directory
        self.over, self.stopped = False, False
        self.error: TuneLRError | None = None
        self.all_bounds: dict[Combination, LRBounds] = {}
        self.facts: dict[str, Any] = {}
        self._observers, self._phases, self._strict = tuple(observers), tuple(phases), strict
        self._storage = open_journal(directory)
        known = [ledger for ledger in LEDGERS if ledger != "widened"]
        self._optuna = {ledger: open_ledger(ledger, config, self._storage, self._place) for ledger in known}
        self._widening: dict[str, Any] | None = self._optuna["search"].user_attrs.get("widening")  # when it was looked
        self._open: dict[int, _Open] = {}
        self._again: deque[TrialSpec] = deque()
        self._specs: dict[int, TrialSpec] = {}
        self._outcomes: dict[int, dict[str, Any]] = {}
        self._asked: dict[str, int] = dict.fromkeys(LEDGERS, 0)
        self._slots: dict[str, int] = {}
        self._to_stop: dict[int, str] = {}
        self._test: TrialSpec | None = None
        self._finalists: list[int] | None = None  # so far
        self._announced = ("", 0)
        self._first = math.inf  # when the first trial started
        # By phase, of the trials that have ended, by their samples.
        self._steps: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._most_slots = 1
        self._clock, self._began = clock, clock()
        self._before, self._ramps_until = 0.0, 0.0  # seconds: see elapsed
        self._closed: dict[str, Any] = self._optuna["search"].user_attrs.get("closed", {})
        try:
            if self.widened:
                self._optuna["widened"] = open_ledger("widened", config, self._storage, self._place)
            self._load()
            self._check_outcomes()
            lost = directory.numbers() - self._numbers()
            if lost:
                what = f"knows nothing of trial {min(lost)}, whose files are there; is it cut short?"
                raise ResourceError(f"{directory.journal}: {what} Put the whole file back")
            if resume:
                self._take_up()
            self._before = max((outcome.get("clock", 0.0) for outcome in self._outcomes.values()), default=0.0)
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # what was read is no study's
            raise no_journal(directory.journal, error) from None

    # --- what runs next -------------------------------------------------------------------------------------

    def next_trial(self) -> TrialSpec | None:
        """The next trial to run; None where results have to be waited for, or the study is over."""
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
        entry = self._open[spec.number]
        entry = _Open(spec, entry.trial, entry.ledger, reported=entry.reported, decided=entry.decided)
        self._open[spec.number] = entry
        known = self._known(spec) if again else []
        if not known:
            self._start_curve(spec)
        self._announce(spec.phase)
        self._tell("trial_started", spec)
        for report in known:
            entry.add(report)
            self._tell("trial_reported", spec, report)
        return replace(spec, resume=known[-1].step if known else 0)

    def _known(self, spec: TrialSpec) -> list[Report]:
        """What a trial that runs again has reported up to the checkpoint from which it goes on, as its curve has it.
        The curve is cut back to there. Empty where there is no checkpoint: it begins anew."""
        path = self._curve(spec)
        columns = RANGE_CURVE_COLUMNS if spec.phase == "range_test" else CURVE_COLUMNS
        try:
            curve = self.directory.read_curve(path)
            if not set(columns) <= curve.keys():
                return []
        except ResourceError:  # none, or none that can be read
            return []
        checkpoint, refused = self.directory.newest_checkpoint(spec.number, len(curve["step"]))
        for what in refused:
            self._tell("notice", f"trial {spec.number}: {what}")
        if checkpoint is None or curve["step"][: checkpoint.step] != list(range(1, checkpoint.step + 1)):
            return []
        self.directory.cut_curve(path, checkpoint.step)
        self._tell("notice", f"trial {spec.number}: goes on from its checkpoint at step {checkpoint.step}")
        return _reports(curve, checkpoint)

    def _next(self) -> TrialSpec | None:
        for phase in self._phases:
            if phase == "search":
                self._look_at_the_edges()
            for ledger in ("fixed", *SEARCHES) if phase == "search" else (phase,):
                if self._remaining(ledger):
                    return self._specify(ledger, self._optuna[ledger].ask())
            if any(entry.spec.phase == phase for entry in self._open.values()):
                return None
            if phase == "search" and self.config.budget and not self._is_closed():
                self._close_search()
            if phase == "range_test" and not self._conclude_range_test():
                return self._next()
        return self._next_test()

    def _remaining(self, ledger: str) -> int:
        """How many trials of a ledger are still to be asked for."""
        if self.stopped:
            return 0
        if ledger == "range_test":
            return self.config.range_test.replicates * len(self._ramps()) - self._asked[ledger]
        if ledger == "fixed":
            return max(0, len(self.config.fixed) - self._asked[ledger])
        if ledger in SEARCHES:
            going_on = "widened" if "widened" in self._optuna else "search"
            asked = sum(self._asked[ledger] for ledger in SEARCHES)
            more = ledger == going_on and not self._is_closed() and (not asked or self._affords_a_trial())
            return max(0, self.config.num_trials - asked) if more else 0
        return len(self._missing_confirmations())

    def _specify(self, ledger: str, trial: Trial) -> TrialSpec:
        """Numbers an Optuna trial, says what it trains and writes that into the journal."""
        number = sum(self._asked.values())
        index = self._asked[ledger]
        self._asked[ledger] += 1
        seed, max_steps = self.config.seed, self.config.max_steps
        if ledger == "range_test":
            combination, ramp = self._ramps()[index // self.config.range_test.replicates]
            spec = TrialSpec(number, ledger, seed + RAMP_SEEDS + index, ramp.steps, ramp=ramp)
            optimizer = _ramp_optimizer(self.config, combination.optimizer)
            spec = replace(spec, batch_size=combination.batch_size, optimizer=optimizer)
        elif ledger == "fixed":
            spec = _fixed_spec(number, self.config, index)
            if self.config.fixed[index].keep_model:
                spec = replace(spec, checkpoint=str(self.directory.checkpoint(number)))
        elif ledger in SEARCHES:
            _, drawn = self._draw(trial)
            max_steps = self.config.steps_of(max_steps, drawn.batch_size)
            spec = TrialSpec(number, "search", seed, max_steps, **vars(drawn))
        else:
            first, (finalists, seeds) = self._missing_confirmations()[0], self._confirmation()
            self._keep_finalists(finalists)
            spec = replace(first, number=number, checkpoint=str(self.directory.checkpoint(number)))
            later = self.config.seed + CONFIRM_SEEDS + seeds
            if spec.seed >= later > max(one.seed for one in self._specs.values() if one.phase == "confirm"):
                self._tell("notice", f"confirm: {self.verdict().sentence} More seeds may do it.")
        trial.set_user_attr("spec", spec.to_dict())
        self._specs[number] = spec
        self._open[number] = _Open(spec, trial, ledger)
        return spec

    def _draw(self, trial: Suggests) -> tuple[Combination, Draw]:
        space = self.config.parameters
        combination = draw_combination(trial, space)
        return combination, draw(trial, space, self._search_bounds(combination), combination)

    def _place(self, trial: Suggests) -> Placement:
        """See `sampler.Place`."""
        (combination, drawn), config = self._draw(trial), self.config
        suggestion, uncertainty = suggested_lr(self.all_bounds.get(combination))
        centre = suggestion or middle(config.parameters.lr, self._search_bounds(combination))
        max_steps = config.steps_of(config.max_steps, drawn.batch_size)
        curve = lr_curve(drawn, max_steps, self.facts.get("steps_per_epoch"))
        return Placement(drawn.lr_schedule, math.log10(drawn.lr / expected_lr(curve, centre)), uncertainty, curve)

    # --- what comes back ------------------------------------------------------------------------------------

    def report(self, number: int, report: Report) -> bool:
        """Takes a trial's report; returns whether it goes on."""
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
            return self._end_test(report)
        entry = self._open[number]
        spec = entry.spec
        if report.facts and self.facts.get("metrics") != report.facts["metrics"]:
            self.facts = dict(report.facts)
            self._optuna["search"].set_user_attr("facts", self.facts)
        for text in report.notices:
            self._tell("notice", f"trial {number}: {text}")
        entry.add(report)
        self._append_curve(spec, report)
        self._tell("trial_reported", spec, report)
        if report.failure:
            return self._end(entry, report, "failed", report.failure)
        if report.diverged:
            # A ramp is there to diverge.
            state = "complete" if spec.ramp else "diverged"
            return self._end(entry, report, state, f"diverged at step {report.step}")
        if entry.ledger in SEARCHES and self._should_prune(entry, report):
            return self._end(entry, report, "pruned", f"not among the best at step {report.step}")
        if report.over:
            return self._end(entry, report, "complete", "")
        if number in self._to_stop:
            return self._end(entry, report, "pruned", self._to_stop[number])
        return True

    def lost(self, number: int) -> None:
        """The trial's slot is gone: it is issued again, under its number."""
        if self._test is not None and number == self._test.number:
            self._again.append(self._test)
        elif number in self._open:
            self._again.append(self._open[number].spec)
        self._tell("notice", f"trial {number}: its slot was lost; it runs again")

    def stop_trial(self, number: int, reason: str) -> None:
        """Ends that trial alone, as pruned, at its next report. May be called from any thread."""
        self._to_stop[number] = reason

    def interrupt(self) -> None:
        """Nothing more is started or taken; what was running is run again by the next driver."""
        self.stopped = True

    def _stop(self, error: TuneLRError) -> bool:
        self.error, self.stopped = error, True
        return False

    def _should_prune(self, entry: _Open, report: Report) -> bool:
        """Tells Optuna and asks its pruner, each once a step: a trial that is run again reports again what is known."""
        if not report.metrics:  # not a validation, but a checkpoint
            return False
        step = self._comparable_step(entry.spec, report.step)
        if step > entry.reported:
            entry.reported = step
            entry.trial.report(report.metrics[self.config.metric.name], step)
        if step <= entry.decided or report.over:
            return False
        entry.decided = step
        return entry.trial.should_prune()

    def _comparable_step(self, spec: TrialSpec, step: int) -> int:
        """Of a report: the step, with the study's batch size, that has seen as many samples; rungs are at these."""
        every, base = self.config.report_every, self.config.batch_size
        if step == spec.max_steps:
            return self.config.max_steps
        return steps_covered(step, base, spec.batch_size) // every * every if base and spec.batch_size else step

    def _end(self, entry: _Open, report: Report, state: str, reason: str) -> bool:
        spec, study = entry.spec, self._optuna[entry.ledger]
        value = None  # what Optuna is told
        if state == "diverged":
            value = -PENALTY if self.config.metric.goal == "maximize" else PENALTY
        elif state == "complete":
            value = entry.lowest if spec.ramp else entry.metrics[self.config.metric.name]
        outcome = {
            "state": state,
            "value": value,
            "steps": report.step,
            "metrics": dict(entry.metrics),
            "duration_s": round(entry.seconds, 3),
            "started": round(entry.started or time.time(), 3),
            "slot": self._slots.setdefault(report.slot, len(self._slots)),
            "clock": round(self.elapsed(), 3),
            "reason": reason,
            "facts": dict(entry.facts),
        }
        entry.trial.set_user_attr("outcome", outcome)
        tell_ledger(study, entry.trial, outcome)
        if entry.ledger == "search" and "widened" in self._optuna:
            self._copy_widened()
        del self._open[spec.number]
        self._keep(spec, outcome)
        if spec.phase == "search":
            self._finalists = None
        self.directory.remove_checkpoints(spec.number)
        self._tell("trial_ended", spec, self.row(spec.number))
        return False

    # --- the range test -------------------------------------------------------------------------------------

    def _ramps(self) -> list[tuple[Combination, Ramp]]:
        """The configuration's ramp for each combination, then the extended ones of those where it held no answer."""
        how = self.config.range_test
        if not needs_range_test(self.config, self._phases):
            return []
        first, combinations = Ramp(how.low, how.high, how.steps, how.mode, how.stairs), self.config.combinations
        extended = self._optuna["range_test"].user_attrs
        again = [(one, Ramp(**extended[_extension(one)])) for one in combinations if _extension(one) in extended]
        return [*((one, first) for one in combinations), *again]

    @property
    def bounds(self) -> LRBounds | None:
        """Of the study's own batch size and optimizer; None where they are not known (yet)."""
        return self.all_bounds.get(self.config.combinations[0])

    def read_bounds(self) -> dict[Combination, LRBounds]:
        """Reads each combination's bounds off its last round of ramps and writes bounds.json."""
        self.all_bounds, entries = {}, []
        for combination, ramp in dict(self._ramps()).items():
            trials = [self._specs[row.number] for row in self.rows() if row.phase == "range_test"]
            numbers = [one.number for one in trials if one.ramp == ramp and _combination(one) == combination]
            complete = [row for row in map(self.row, numbers) if row.state == "complete"]
            curves = [self._ramp_curve(row) for row in complete]
            if curves:
                bounds = find_lr_bounds([(curve["lr"], curve["loss"]) for curve in curves])
                self.all_bounds[combination] = bounds
                size, name = combination
                of = {"batch_size": size or self.config.batch_size, "optimizer": name or self.config.optimizer.name}
                entries.append({**of, **bounds.to_dict(), "ramps": [row.number for row in complete]})
        if self.bounds is not None:
            others = {"combinations": entries} if len(self.config.combinations) > 1 else {}
            self.directory.write_json(self.directory.bounds_json, {**self.bounds.to_dict(), **others})
        return self.all_bounds

    def _ramp_curve(self, row: TrialRow) -> dict[str, list[float]]:
        path = self.directory.range_curve(row.number)
        curve = self.directory.read_curve(path)
        points = len(curve["lr"]) if curve.keys() == set(RANGE_CURVE_COLUMNS) else 0
        if points != row.steps:
            raise ResourceError(f"{path}: has {points} of {row.steps} points; put the whole file back")
        return curve

    def _conclude_range_test(self) -> bool:
        """Reads the bounds off the finished ramps; false where some are extended first, once."""
        ramps = self._ramps()
        if self.all_bounds or not ramps:
            return True
        rounds = Counter(combination for combination, _ in ramps)
        found = self.read_bounds()
        if len(found) < len(rounds):
            reasons = {row.reason for row in self.rows() if row.phase == "range_test" and row.state == "failed"}
            self._stop(NoAnswerError(f"the LR range test could not be run: {'; '.join(sorted(reasons))}"))
            return True
        unread = {one: bounds for one, bounds in found.items() if bounds.status != "ok"}
        for combination, bounds in unread.items():
            if rounds[combination] == 1:
                extended = extended_ramp(ramps[0][1], bounds)
                self._optuna["range_test"].set_user_attr(_extension(combination), asdict(extended))
                where = f"from {extended.low:g} to {extended.high:g}, {extended.steps} steps a ramp"
                what = f"{bounds.reason.rstrip('.')}. It runs again {where}."
                self._tell("notice", f"{_range_test_of(combination)}: {what}")
                self.all_bounds = {}
        if not self.all_bounds:
            return False
        for combination, bounds in found.items():
            self._tell("bounds_found", bounds, str(combination))
            of = _range_test_of(combination)
            if bounds.status != "ok" and self._strict:
                self._stop(NoAnswerError(f"the LR {of} abstained ({bounds.status}): {bounds.reason}"))
            elif bounds.status != "ok" and "search" in self._phases:
                low, high = self._search_bounds(combination)
                self._tell("notice", f"{of}: NO BOUNDS ({bounds.status}). The search covers {low:g} to {high:g}.")
        return True

    def _search_bounds(self, combination: Combination) -> tuple[float, float]:
        if self.widened:
            return self.widened["low"], self.widened["high"]
        bounds = self.all_bounds.get(combination)
        if bounds is not None and bounds.low is not None and bounds.high is not None:
            return bounds.low, bounds.high
        return self.config.range_test.low, self.config.range_test.high

    # --- the range of the LR ----------------------------------------------------------------------------------

    @property
    def widened(self) -> dict[str, Any] | None:
        """{"low", "high": the wider range, "from": the narrower one, "after": so many trials, "trial", "lr": the best
        one then}; None where the range of the LR has not been widened."""
        return self._widening if self._widening and "low" in self._widening else None

    def _look_at_the_edges(self) -> None:
        """Half-way through the search, once: where the best LR lies near a bound that the range test has set, the range
        goes on beyond it. Not where several combinations have bounds of their own."""
        if self._widening is not None or self._ended() < LOOK_AFTER or not 0.5 <= self._share_of_search() < 1:
            return
        if self.config.combinations != [NOTHING_ELSE]:
            return
        found, how, metric = self.bounds, self.config.parameters.lr, self.config.metric
        searched = [row for row in self.rows() if row.phase == "search" and not row.label]
        best = next(iter(rank_search(searched, metric.name, metric.goal)), None)
        widening: dict[str, Any] = {"after": len(searched)}
        if best is not None and found is not None and found.low is not None and found.high is not None:
            low, high = lr_interval(how, (found.low, found.high))
            place = math.log(best.lr / low) / math.log(high / low)
            if how.min == "range_test" and place < EDGE:
                widening |= {"low": low / WIDENED_BY, "high": high}
            elif how.max == "range_test" and place > 1 - EDGE:
                widening |= {"low": low, "high": high * WIDENED_BY}
            if "low" in widening:
                widening |= {"from": [low, high], "trial": best.number, "lr": best.lr}
        self._optuna["search"].set_user_attr("widening", widening)
        self._widening = widening
        if self.widened:
            self.directory.write_json(self.directory.widened_json, self.widened)
            self._optuna["widened"] = open_ledger("widened", self.config, self._storage, self._place)
            self._copy_widened()
            self._tell("notice", widened_text(self.widened))

    def _copy_widened(self) -> None:
        """Copies the trials that have ended in the narrower range, each once, as if drawn from the wider one."""
        assert self.widened is not None
        study = self._optuna["widened"]
        there = {frozen.user_attrs.get("copy_of") for frozen in study.get_trials(deepcopy=False)}
        drawn_from = FloatDistribution(self.widened["low"], self.widened["high"], log=True)
        for frozen in self._optuna["search"].get_trials(deepcopy=False):
            if frozen.state in (TrialState.COMPLETE, TrialState.PRUNED) and frozen.number not in there:
                copy = create_trial(
                    state=frozen.state,
                    value=frozen.value,
                    params=frozen.params,
                    distributions={**frozen.distributions, "lr": drawn_from},
                    intermediate_values=frozen.intermediate_values,
                    user_attrs={"copy_of": frozen.number},
                )
                study.add_trial(copy)
        if not self._asked["widened"]:  # with the seed of an empty study it would begin as the search has begun
            study.sampler = make_sampler(self.config, len(study.trials), self._place)

    # --- confirmation and test ------------------------------------------------------------------------------

    def _missing_confirmations(self) -> list[TrialSpec]:
        """Of the finalists and seeds that are wanted, those that were not asked for yet. Seed by seed: a study that
        is cut short has compared all finalists on the seeds it had. When all have the first seeds, those between whom
        more would decide get more."""
        (finalists, seeds), confirm, metric = self._confirmation(), self.config.confirm, self.config.metric
        if not finalists:
            return []
        if self._finalists is None:
            self._finalists = self._kept_finalists().get(self._finalists_key(finalists))
        if self._finalists is None:
            chosen = choose_finalists(self.rows(), metric.name, metric.goal, confirm.top, finalists, self._believed())
            self._finalists = [row.number for row in chosen]
        missing = self._not_asked(self._finalists, range(seeds))
        later = self.config.seed + CONFIRM_SEEDS + seeds
        waiting = any(entry.spec.phase == "confirm" and entry.spec.seed < later for entry in self._open.values())
        if missing or waiting or confirm.most_seeds <= seeds or not self._finalists:
            return missing
        more = self._not_asked(self.verdict().contenders, range(seeds, confirm.most_seeds))
        return more if self._affords(len(more)) else []

    def _kept_finalists(self) -> dict[str, list[int]]:
        """Those that were confirmed after so many trials: who reads the journal alone, without the ramps, could not
        choose them."""
        kept: dict[str, list[int]] = self._optuna["confirm"].user_attrs.get("finalists", {})
        return kept

    def _finalists_key(self, finalists: int) -> str:
        return f"{finalists} of {sum(row.phase == 'search' for row in self.rows())}"

    def _keep_finalists(self, finalists: int) -> None:
        kept, key = self._kept_finalists(), self._finalists_key(finalists)
        if key not in kept:
            self._optuna["confirm"].set_user_attr("finalists", {**kept, key: self._finalists})

    def _believed(self) -> dict[int, float]:
        """What the search's process takes its trials for (`sampler.believed`), by number."""
        searched = self._optuna["search"].get_trials(deepcopy=False)
        study = self._optuna["widened" if self.widened else "search"]
        numbers = {}
        for frozen in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
            original = searched[frozen.user_attrs["copy_of"]] if "copy_of" in frozen.user_attrs else frozen
            numbers[frozen.number] = original.user_attrs["spec"]["number"]
        return {numbers[number]: value for number, value in believed(study, self._place).items()}

    def _not_asked(self, finalists: Sequence[int], seeds: Sequence[int]) -> list[TrialSpec]:
        """Confirmations of search trials, by their numbers."""
        wanted = [
            replace(self._specs[number], phase="confirm", label="", seed=self.config.seed + CONFIRM_SEEDS + index)
            for index in seeds
            for number in finalists
        ]
        asked = {_trained(spec) for spec in self._specs.values() if spec.phase == "confirm"}
        return [spec for spec in wanted if _trained(spec) not in asked]

    def verdict(self) -> Verdict:
        """Raises NoAnswerError where no trial of the search was completed."""
        metric, confirm = self.config.metric, self.config.confirm
        return judge(self.rows(), metric.name, metric.goal, self._confirmation()[1], confirm.most_seeds)

    @property
    def test_result(self) -> dict[str, Any] | None:
        """{"trial": the winner's number in the search, "values": one mapping of figures a seed}."""
        return self._optuna["confirm"].user_attrs.get("test")

    def _next_test(self) -> TrialSpec | None:
        if self._test is not None:
            return None
        try:
            winner = self.verdict().winner if "confirm" in self._phases else None
        except NoAnswerError:
            winner = None
        tested = self.test_result
        kept = winner.confirm_trials if winner else ()
        if winner and not kept and self._specs[winner.trial].checkpoint:
            kept = (winner.trial,)
        if winner is None or not kept or (tested and tested["trial"] == winner.trial):
            self.over = True
            return None
        checkpoints = tuple(str(self.directory.checkpoint(number)) for number in kept)
        self._test = replace(
            self._specs[winner.trial], number=TEST, phase="test", checkpoint=None, checkpoints=checkpoints
        )
        return self._test

    def _end_test(self, report: Report) -> bool:
        if report.failure:
            self._tell("notice", f"the winner could not be evaluated on the test data: {report.failure}")
        else:
            values = [dict(values) for values in report.test_values]
            self._optuna["confirm"].set_user_attr("test", {"trial": self.verdict().winner.trial, "values": values})
        self.over = True
        return False

    # --- the budget -----------------------------------------------------------------------------------------

    def elapsed(self) -> float:
        """Seconds that all drivers of this study have run; of one that was killed, up to the last end of a trial."""
        return self._before + self._clock() - self._began

    def _affords_a_trial(self) -> bool:
        """Whether the budget holds one more search trial, and the confirmation after it."""
        finalists, seeds = self._confirmation()
        return self._affords(1, finalists * seeds)

    def _affords(self, *trials: int) -> bool:
        """Whether the budget holds so many more full trainings, one group after another, beside what runs now."""
        budget, full = self.config.spending, self.config.max_steps
        if budget is None:
            return True
        if budget.seconds is not None:
            rounds = sum(math.ceil(number / self._most_slots) for number in trials)
            return self.elapsed() + rounds * self._full_training_s() <= budget.seconds
        running = sum(entry.spec.max_steps * self._weight(entry.spec) for entry in self._open.values())
        return sum(self._steps.values()) + running + sum(trials) * full <= (budget.steps(full) or 0)

    def _full_training_s(self) -> float:
        """As trainings have gone so far; before them, as ramps have."""
        of = [phase for phase in ("search", "confirm") if self._steps[phase]] or ["range_test"]
        steps = sum(self._steps[phase] for phase in of)
        return self.config.max_steps * sum(self._seconds[phase] for phase in of) / steps if steps else 0.0

    def _confirmation(self) -> tuple[int, int]:
        """Finalists and first seeds of the confirmation. Within a budget it takes at most half of what the range test
        has left."""
        confirm, budget = self.config.confirm, self.config.spending
        if budget is None:
            return confirm.finalists, confirm.seeds
        if self._is_closed():
            finalists, seeds = self._closed["confirm"]
            return finalists, seeds
        if budget.seconds is None:
            return planned_confirmation(self.config, math.ceil(self._steps["range_test"]))
        full_s = self._full_training_s()
        if not full_s:
            return confirm.finalists, confirm.seeds
        rounds = int((budget.seconds - self._ramps_until) / 2 / full_s)
        return confirmation_within(max(0, rounds) * self._most_slots, confirm.finalists, confirm.seeds)

    def _ended(self) -> int:
        """How many trials of the search have, without the fixed ones."""
        asked = sum(self._asked[ledger] for ledger in SEARCHES)
        return asked - sum(entry.ledger in SEARCHES for entry in self._open.values())

    def _share_of_search(self) -> float:
        """How much of the search is over, from 0 to 1."""
        ended = self._ended()
        budget, (finalists, seeds), full = self.config.spending, self._confirmation(), self.config.max_steps
        shares = [ended / max(1, self.config.num_trials)]
        if budget is not None and budget.seconds is not None:
            until = budget.seconds - math.ceil(finalists * seeds / self._most_slots) * self._full_training_s()
            shares.append((self.elapsed() - self._ramps_until) / max(1e-9, until - self._ramps_until))
        elif budget is not None:
            room = (budget.steps(full) or 0) - self._steps["range_test"] - finalists * seeds * full
            shares.append(self._steps["search"] / max(1, room))
        return min(1.0, max(shares)) if ended else 0.0

    def _is_closed(self) -> bool:
        """Whether the budget has ended the search. With another one it goes on."""
        return bool(self._closed) and self._closed["budget"] == self.config.budget

    def _close_search(self) -> None:
        """Writes down that it has ended, so that what a resumed study finds left is not spent on it again."""
        self._closed = {"budget": self.config.budget, "confirm": list(self._confirmation())}
        self._optuna["search"].set_user_attr("closed", self._closed)

    # --- what there is --------------------------------------------------------------------------------------

    def rows(self) -> list[TrialRow]:
        """Every trial that has ended, by number."""
        return [self.row(number) for number in sorted(self._outcomes)]

    def row(self, number: int) -> TrialRow:
        spec, outcome = self._specs[number], self._outcomes[number]
        return TrialRow(
            number=number,
            phase=spec.phase,
            state=outcome["state"],
            lr_schedule=spec.lr_schedule or "ramp",
            lr=spec.ramp.high if spec.ramp else spec.lr,
            parameters=spec.qualified_parameters(),
            seed=spec.seed,
            steps=outcome["steps"],
            metrics=outcome["metrics"],
            duration_s=outcome["duration_s"],
            started_s=round(outcome["started"] - self._first, 3),
            slot=outcome["slot"],
            reason=outcome["reason"],
            label=spec.label,
        )

    def begun(self) -> list[TrialSpec]:
        """The trials that have not ended, by number."""
        return [self._open[number].spec for number in sorted(self._open)]

    def total(self, phase: str) -> int:
        """How many trials a phase has, those to come included. Of the confirmation it is known after the search; of a
        search that a budget ends, as many as would come if it went on as before."""
        ledgers = ("fixed", *SEARCHES) if phase == "search" else (phase,)
        asked = sum(self._asked[ledger] for ledger in ledgers)
        to_come = sum(self._remaining(ledger) for ledger in ledgers)
        if phase == "search" and self.config.budget and to_come:
            return max(asked + 1, round(asked / max(0.01, self._share_of_search())))
        return asked + to_come

    def facts_of(self, number: int) -> dict[str, Any]:
        """What the workers of that trial, which has ended, knew of it: see Training.facts."""
        return self._outcomes[number].get("facts") or self.facts  # older studies have them once

    def full_trainings(self) -> float:
        """As many as all trials have taken, by their samples."""
        return sum(self._steps.values()) / self.config.max_steps

    def _weight(self, spec: TrialSpec) -> float:
        """Of a step of that trial, in steps with the study's own batch size."""
        return steps_weight(spec.batch_size, self.config.batch_size)

    def steps_by_phase(self) -> dict[str, int]:
        """Optimizer steps that the trials of each phase took."""
        steps = dict.fromkeys(PHASES, 0)
        for row in self.rows():
            steps[row.phase] += row.steps
        return steps

    def steps_saved(self) -> dict[str, int]:
        """Steps that trials were spared, by what ended them: "pruned" or "diverged"."""
        saved = {"pruned": 0, "diverged": 0}
        for number, outcome in self._outcomes.items():
            spec = self._specs[number]
            ended = "diverged" if spec.ramp and outcome["state"] == "complete" else outcome["state"]
            if ended in saved:
                saved[ended] += spec.max_steps - outcome["steps"]
        return saved

    # --- the files ------------------------------------------------------------------------------------------

    def _curve(self, spec: TrialSpec) -> Path:
        directory, number = self.directory, spec.number
        return directory.range_curve(number) if spec.phase == "range_test" else directory.curve(number)

    def _start_curve(self, spec: TrialSpec) -> None:
        if spec.phase == "range_test":
            self.directory.start_curve(self._curve(spec), RANGE_CURVE_COLUMNS)
        else:
            self.directory.start_trial(spec.number, spec.to_dict())
            self._curve(spec).unlink(missing_ok=True)

    def _append_curve(self, spec: TrialSpec, report: Report) -> None:
        path = self._curve(spec)
        if spec.phase == "range_test":
            self.directory.append_curve(path, report.points)
            return
        if not report.points:
            return
        metrics = self.facts["metrics"]
        if not path.exists():
            self.directory.start_curve(path, [*CURVE_COLUMNS, *metrics])
        points: list[Sequence[float | None]] = [(*point, *[None] * len(metrics)) for point in report.points]
        if report.metrics:
            points[-1] = (*report.points[-1], *(report.metrics.get(name) for name in metrics))
        self.directory.append_curve(path, points)

    def _announce(self, phase: str) -> None:
        trials = 0 if phase == "search" and self.config.budget else self.total(phase)
        if self._announced != (phase, trials):
            self._announced = (phase, trials)
            self._tell("phase_started", phase, trials)

    def _tell(self, event: str, *arguments: Any) -> None:
        for observer in self._observers:
            getattr(observer, event)(*arguments)

    def _keep(self, spec: TrialSpec, outcome: dict[str, Any]) -> None:
        self._specs[spec.number], self._outcomes[spec.number] = spec, outcome
        self._first = min(self._first, outcome["started"])
        self._steps[spec.phase] += outcome["steps"] * self._weight(spec)
        self._seconds[spec.phase] += outcome["duration_s"]
        self._most_slots = max(self._most_slots, outcome["slot"] + 1)
        if spec.phase == "range_test":
            self._ramps_until = max(self._ramps_until, outcome.get("clock", 0.0))

    def _load(self) -> None:
        """Reads from the journal what has ended."""
        self.facts = dict(self._optuna["search"].user_attrs.get("facts", {}))
        for ledger, study in self._optuna.items():
            for frozen in study.get_trials(deepcopy=False):
                if frozen.state.is_finished() and "copy_of" not in frozen.user_attrs:
                    self._asked[ledger] += 1
                    self._keep(TrialSpec.from_dict(frozen.user_attrs["spec"]), frozen.user_attrs["outcome"])

    def _check_outcomes(self) -> None:
        """Raises KeyError or ValueError where what has ended does not say how: a line of the journal may be damaged and
        still be JSON."""
        for row in self.rows():
            measured = row.state == "complete" and not self._specs[row.number].ramp  # which may diverge before it is
            if row.state not in STATES or (measured and self.config.metric.name not in row.metrics):
                raise ValueError(f"trial {row.number} is {row.state!r} with {sorted(row.metrics)}")
        for number in (number for finalists in self._kept_finalists().values() for number in finalists):
            if number not in self._outcomes or self._specs[number].phase != "search":
                raise ValueError(f"{number} is no trial of the search, and was to be confirmed")

    def _numbers(self) -> set[int]:
        """Of all trials in the journal."""
        trials = [frozen for study in self._optuna.values() for frozen in study.get_trials(deepcopy=False)]
        return {frozen.user_attrs["spec"]["number"] for frozen in trials if "spec" in frozen.user_attrs}

    def _take_up(self) -> None:
        """Issues again what was interrupted, under its number."""
        for ledger, study in self._optuna.items():
            interrupted = []
            for frozen in study.get_trials(deepcopy=False):
                if frozen.state == TrialState.RUNNING and "outcome" in frozen.user_attrs:
                    # The driver died between writing down how it ended and telling Optuna.
                    tell_ledger(study, frozen.number, frozen.user_attrs["outcome"])
                    self._asked[ledger] += 1
                    self._keep(TrialSpec.from_dict(frozen.user_attrs["spec"]), frozen.user_attrs["outcome"])
                elif not frozen.state.is_finished():
                    interrupted.append(frozen)
            for frozen in interrupted:
                if frozen.state == TrialState.RUNNING:
                    # Optuna's public API has no way back from RUNNING; a waiting trial keeps its number and values.
                    self._storage.set_trial_state_values(frozen._trial_id, TrialState.WAITING)
            for frozen in interrupted:
                if "spec" not in frozen.user_attrs:
                    # The driver died between asking for it and writing down what it is. It is the last of its phase:
                    # it stays waiting, and the phase's next trial will be this one.
                    continue
                trial = study.ask()  # pops the waiting ones, in their order
                spec = TrialSpec.from_dict(trial.user_attrs["spec"])
                if spec.checkpoint:  # the study may have been moved
                    spec = replace(spec, checkpoint=str(self.directory.checkpoint(spec.number)))
                reported = max(frozen.intermediate_values, default=0)
                self._asked[ledger] += 1
                self._specs[spec.number] = spec
                # Its figure may have been written and the pruner not been asked any more.
                self._open[spec.number] = _Open(spec, trial, ledger, reported=reported, decided=reported - 1)
                self._again.append(spec)
        if self.widened:
            self._copy_widened()
        for number in self._outcomes:  # killed after a trial's end and before its checkpoints were gone
            self.directory.remove_checkpoints(number)


def widened_text(widening: Mapping[str, Any]) -> str:
    """What was done, for people."""
    low, high = widening["from"]
    return (
        f"search: after {widening['after']} trials the best, #{widening['trial']}, lies at the edge of what the range "
        f"test found (lr {widening['lr']:.3g} in {low:.3g} to {high:.3g}); the search goes on from "
        f"{widening['low']:.3g} to {widening['high']:.3g}"
    )


def extended_ramp(ramp: Ramp, bounds: LRBounds) -> Ramp:
    """Where to look when ramps held no answer: higher where nothing diverged, lower where they began by diverging, and
    otherwise wider, as many steps a decade."""
    if bounds.status == "no_divergence":
        return ramp.over(ramp.low, ramp.high * 100)
    if bounds.status == "diverged_at_start":
        return ramp.over(ramp.low / 1e4, ramp.low * 10)
    return ramp.over(ramp.low / 10, ramp.high * 10)


def _combination(spec: TrialSpec) -> Combination:
    return Combination(spec.batch_size, spec.optimizer.get("name", ""))


def _extension(combination: Combination) -> str:
    """Under which the journal keeps that ramp."""
    return f"extended {combination}".strip()


def _range_test_of(combination: Combination) -> str:
    return f"range test of {combination}" if str(combination) else "range test"


def _ramp_optimizer(config: Config, name: str) -> dict[str, Any]:
    """What a ramp takes of the optimizer's arguments that are searched: what the field `optimizer` says, else the
    middle. Nothing where no other optimizer is searched."""
    if not name:
        return {}
    said = config.optimizer.args if name.lower() == config.optimizer.name.lower() else {}
    searched = config.parameters.optimizer[name]
    return {"name": name} | {key: how.middle() for key, how in searched.items() if key not in said}


def _reports(curve: Mapping[str, Sequence[float]], checkpoint: Checkpoint) -> list[Report]:
    """The curve up to a checkpoint as reports, one a validation, of which the first counts for the time of all."""
    losses = curve["loss" if "loss" in curve else "train_loss"]
    metrics = [name for name in curve if name.startswith("val_")]
    reports: list[Report] = []
    points: list[tuple[int, float, float]] = []
    for i in range(checkpoint.step):
        points.append((i + 1, curve["lr"][i], losses[i]))
        measured = {name: curve[name][i] for name in metrics if not math.isnan(curve[name][i])}
        if measured or i + 1 == checkpoint.step:
            seconds = 0.0 if reports else checkpoint.seconds
            reports.append(Report(i + 1, tuple(points), measured, seconds=seconds))
            points = []
    return reports


def _fixed_spec(number: int, config: Config, index: int) -> TrialSpec:
    """The fixed configuration of that index as a trial of the search."""
    fixed, steps = config.fixed[index], config.max_steps
    base = config.combinations[0]
    optimizer = {"name": base.optimizer} if base.optimizer else {}
    spec = TrialSpec(number, "search", config.seed, steps, label=fixed.name)
    spec = replace(spec, optimizer=optimizer, batch_size=base.batch_size)
    if fixed.ramp is not None:
        how = fixed.ramp
        return replace(spec, lr=how.high, ramp=Ramp(how.low, how.high, steps, how.mode, how.stairs))
    assert fixed.lr is not None
    assert fixed.lr_schedule is not None
    return replace(spec, lr=fixed.lr, lr_schedule=fixed.lr_schedule, parameters=fixed.parameters)


def _trained(spec: TrialSpec) -> tuple[Any, ...]:
    # As text: a parameter may be a list.
    parameters = json.dumps([spec.parameters, spec.optimizer], sort_keys=True)
    return spec.lr_schedule, spec.lr, parameters, spec.batch_size, spec.seed
