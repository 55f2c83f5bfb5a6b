"""A study: its phases, decided by Optuna and remembered in its journal. Knows nothing of Ray.

    range_test   K ramps -> LRBounds; extended once where they hold no answer
    search       the fixed configurations, and N trials proposed and pruned by Optuna
    confirm      the best k configurations, each with n fresh seeds
    test         one pass over the test data, for the winner

Whoever executes the trials asks for `next_trial` and hands in every `report`; the answer says whether the trial goes
on. Each phase is an Optuna study of its own in one journal, so that ramps and lucky seeds never teach the sampler.
What is told here is on disk before the call returns: curves first, then the journal.
"""

import json
import math
import os
import time
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from tune_lr.config import Config
from tune_lr.errors import InputError, NoAnswerError, ResourceError, TuneLRError, one_line
from tune_lr.lr_range_test import LRBounds, Ramp, find_lr_bounds
from tune_lr.plan import PHASES, needs_range_test
from tune_lr.search_space import draw
from tune_lr.study_dir import CURVE_COLUMNS, RANGE_CURVE_COLUMNS, Checkpoint, StudyDir, TrialRow
from tune_lr.trial import Report, TrialSpec
from tune_lr.verdict import Verdict, judge, rank_search

# The Optuna studies in the journal. Fixed configurations belong to the phase `search`, and to an Optuna study of their
# own: they may lie outside the space.
LEDGERS = ("range_test", "fixed", "search", "confirm")
# What a diverged trial is told as: finite, and worse than any figure that a metric takes.
PENALTY = 1e30
# All search trials share the study's seed. Ramps and confirmations are fresh, and never meet each other's.
RAMP_SEEDS, CONFIRM_SEEDS = 1, 1001
TEST = -1  # the number of the pass over the test data, which is no trial


class Observer(Protocol):
    """Is told what happens, after it is on disk. Must neither raise nor take long."""

    def phase_started(self, phase: str, trials: int) -> None: ...
    def trial_started(self, trial: TrialSpec) -> None: ...
    def trial_reported(self, trial: TrialSpec, report: Report) -> None: ...
    def trial_ended(self, trial: TrialSpec, row: TrialRow) -> None: ...
    def bounds_found(self, bounds: LRBounds) -> None: ...
    def notice(self, text: str) -> None: ...


optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class _Open:
    """A trial in somebody's hands."""

    spec: TrialSpec
    trial: Trial
    started: float | None = None  # its training; while its workers start, nothing has
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    lowest: float = math.inf  # training loss
    reported: int = 0  # the last step whose figure Optuna knows
    decided: int = 0  # the last step at which the pruner was asked

    def add(self, report: Report) -> None:
        self.started = self.started or time.time() - report.seconds
        self.seconds += report.seconds
        self.metrics = report.metrics or self.metrics
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
    ) -> None:
        self.config, self.directory = config, directory
        self.over, self.stopped = False, False
        self.error: TuneLRError | None = None
        self.bounds: LRBounds | None = None
        self.facts: dict[str, Any] = {}
        self._observers, self._phases, self._strict = tuple(observers), tuple(phases), strict
        self._storage = _open_journal(directory)
        self._optuna = {ledger: _open_ledger(ledger, config, self._storage) for ledger in LEDGERS}
        self._open: dict[int, _Open] = {}
        self._again: deque[TrialSpec] = deque()
        self._specs: dict[int, TrialSpec] = {}
        self._outcomes: dict[int, dict[str, Any]] = {}
        self._asked: dict[str, int] = dict.fromkeys(LEDGERS, 0)
        self._slots: dict[str, int] = {}
        self._to_stop: dict[int, str] = {}
        self._test: TrialSpec | None = None
        self._announced = ("", 0)
        self._first = math.inf  # when the first trial started
        try:
            self._load()
            lost = directory.numbers() - self._numbers()
            if lost:
                what = f"knows nothing of trial {min(lost)}, whose files are there; is it cut short?"
                raise ResourceError(f"{directory.journal}: {what} Put the whole file back")
            if resume:
                self._take_up()
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # what was read is no study's
            raise _no_journal(directory.journal, error) from None

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
        entry = _Open(spec, entry.trial, reported=entry.reported, decided=entry.decided)
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
            for ledger in ("fixed", "search") if phase == "search" else (phase,):
                if self._remaining(ledger):
                    return self._specify(ledger, self._optuna[ledger].ask())
            if any(entry.spec.phase == phase for entry in self._open.values()):
                return None
            if phase == "range_test" and not self._conclude_range_test():
                return self._next()
        return self._next_test()

    def _remaining(self, ledger: str) -> int:
        """How many trials of a ledger are still to be asked for."""
        if self.stopped:
            return 0
        if ledger == "range_test":
            return self.config.range_test.replicates * len(self._ramps()) - self._asked[ledger] if self._ramps() else 0
        if ledger == "fixed":
            return max(0, len(self.config.fixed) - self._asked[ledger])
        if ledger == "search":
            return max(0, self.config.num_trials - self._asked[ledger])
        return len(self._missing_confirmations())

    def _specify(self, ledger: str, trial: Trial) -> TrialSpec:
        """Numbers an Optuna trial, says what it trains and writes that into the journal."""
        number = sum(self._asked.values())
        index = self._asked[ledger]
        self._asked[ledger] += 1
        seed, max_steps = self.config.seed, self.config.max_steps
        if ledger == "range_test":
            ramp = self._ramps()[-1]
            spec = TrialSpec(number, ledger, seed + RAMP_SEEDS + index, ramp.steps, ramp=ramp)
        elif ledger == "fixed":
            spec = _fixed_spec(number, self.config, index)
            if self.config.fixed[index].keep_model:
                spec = replace(spec, checkpoint=str(self.directory.checkpoint(number)))
        elif ledger == "search":
            drawn = draw(trial, self.config.parameters, self._search_bounds())
            spec = TrialSpec(number, ledger, seed, max_steps, **vars(drawn))
        else:
            spec = replace(
                self._missing_confirmations()[0], number=number, checkpoint=str(self.directory.checkpoint(number))
            )
        trial.set_user_attr("spec", spec.to_dict())
        self._specs[number] = spec
        self._open[number] = _Open(spec, trial)
        return spec

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
        if report.facts and self.facts != report.facts:
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
        if _ledger(spec) == "search" and self._should_prune(entry, report):
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
        if report.step > entry.reported:
            entry.reported = report.step
            entry.trial.report(report.metrics[self.config.metric.name], report.step)
        if report.step <= entry.decided or report.over:
            return False
        entry.decided = report.step
        return entry.trial.should_prune()

    def _end(self, entry: _Open, report: Report, state: str, reason: str) -> bool:
        spec, study = entry.spec, self._optuna[_ledger(entry.spec)]
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
            "reason": reason,
        }
        entry.trial.set_user_attr("outcome", outcome)
        _tell_optuna(study, entry.trial, outcome)
        del self._open[spec.number]
        self._keep(spec, outcome)
        self.directory.remove_checkpoints(spec.number)
        self._tell("trial_ended", spec, self.row(spec.number))
        return False

    # --- the range test -------------------------------------------------------------------------------------

    def _ramps(self) -> list[Ramp]:
        """The configuration's ramp, and the extended one where the first held no answer."""
        how = self.config.range_test
        if not needs_range_test(self.config, self._phases):
            return []
        ramps = [Ramp(how.low, how.high, how.steps, how.mode, how.stairs)]
        extended = self._optuna["range_test"].user_attrs.get("extended")
        return [*ramps, Ramp(**extended)] if extended else ramps

    def read_bounds(self) -> LRBounds | None:
        """Reads the bounds off the last round of ramps and writes bounds.json; None where there is nothing to read."""
        last = self._ramps()[-1:]
        rows = [row for row in self.rows() if row.phase == "range_test" and [self._specs[row.number].ramp] == last]
        curves = [self._ramp_curve(row) for row in rows if row.state == "complete"]
        if not curves:
            return None
        self.bounds = find_lr_bounds([(curve["lr"], curve["loss"]) for curve in curves])
        self.directory.write_json(self.directory.bounds_json, self.bounds.to_dict())
        return self.bounds

    def _ramp_curve(self, row: TrialRow) -> dict[str, list[float]]:
        path = self.directory.range_curve(row.number)
        curve = self.directory.read_curve(path)
        points = len(curve["lr"]) if curve.keys() == set(RANGE_CURVE_COLUMNS) else 0
        if points != row.steps:
            raise ResourceError(f"{path}: has {points} of {row.steps} points; put the whole file back")
        return curve

    def _conclude_range_test(self) -> bool:
        """Reads the bounds off the finished ramps; false where they are extended first, once."""
        ramps = self._ramps()
        if self.bounds is not None or not ramps:
            return True
        bounds = self.read_bounds()
        if bounds is None:
            reasons = {row.reason for row in self.rows() if row.phase == "range_test"}
            self._stop(NoAnswerError(f"the LR range test could not be run: {'; '.join(reasons)}"))
        elif (bounds.status != "ok" or bounds.edge_only) and len(ramps) == 1:
            self.bounds, extended = None, extended_ramp(ramps[0], bounds)
            self._optuna["range_test"].set_user_attr("extended", asdict(extended))
            self._tell(
                "notice",
                f"range test: {bounds.reason}. It runs again from {extended.low:g} to {extended.high:g}, "
                f"{extended.steps} steps a ramp.",
            )
            return False
        else:
            self._tell("bounds_found", bounds)
            if bounds.status != "ok" and self._strict:
                self._stop(NoAnswerError(f"the LR range test abstained ({bounds.status}): {bounds.reason}"))
            elif bounds.status != "ok" and "search" in self._phases:
                low, high = self._search_bounds()
                self._tell("notice", f"range test: NO BOUNDS ({bounds.status}). The search covers {low:g} to {high:g}.")
        return True

    def _search_bounds(self) -> tuple[float, float]:
        if self.bounds is not None and self.bounds.low is not None and self.bounds.high is not None:
            return self.bounds.low, self.bounds.high
        return self.config.range_test.low, self.config.range_test.high

    # --- confirmation and test ------------------------------------------------------------------------------

    def _missing_confirmations(self) -> list[TrialSpec]:
        """Of the finalists and seeds that are wanted, those that were not asked for yet. Seed by seed: a study that
        is cut short has compared all finalists on the seeds it had."""
        confirm, metric = self.config.confirm, self.config.metric
        if not confirm.top:
            return []
        finalists = rank_search(self.rows(), metric.name, metric.goal)[: confirm.top]
        wanted = [
            replace(self._specs[row.number], phase="confirm", label="", seed=self.config.seed + CONFIRM_SEEDS + index)
            for index in range(confirm.seeds)
            for row in finalists
        ]
        asked = {_trained(spec) for spec in self._specs.values() if spec.phase == "confirm"}
        return [spec for spec in wanted if _trained(spec) not in asked]

    def verdict(self) -> Verdict:
        """Raises NoAnswerError where no trial of the search was completed."""
        return judge(self.rows(), self.config.metric.name, self.config.metric.goal)

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
        """How many trials a phase has, those to come included. Of the confirmation it is known after the search."""
        ledgers = ("fixed", "search") if phase == "search" else (phase,)
        return sum(self._asked[ledger] + self._remaining(ledger) for ledger in ledgers)

    def steps_by_phase(self) -> dict[str, int]:
        """Optimizer steps that the trials of each phase took."""
        steps = dict.fromkeys(PHASES, 0)
        for row in self.rows():
            steps[row.phase] += row.steps
        return steps

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
        trials = self.total(phase)
        if self._announced != (phase, trials):
            self._announced = (phase, trials)
            self._tell("phase_started", phase, trials)

    def _tell(self, event: str, *arguments: Any) -> None:
        for observer in self._observers:
            getattr(observer, event)(*arguments)

    def _keep(self, spec: TrialSpec, outcome: dict[str, Any]) -> None:
        self._specs[spec.number], self._outcomes[spec.number] = spec, outcome
        self._first = min(self._first, outcome["started"])

    def _load(self) -> None:
        """Reads from the journal what has ended."""
        self.facts = dict(self._optuna["search"].user_attrs.get("facts", {}))
        for ledger, study in self._optuna.items():
            for frozen in study.get_trials(deepcopy=False):
                if frozen.state.is_finished():
                    self._asked[ledger] += 1
                    self._keep(TrialSpec.from_dict(frozen.user_attrs["spec"]), frozen.user_attrs["outcome"])

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
                    _tell_optuna(study, frozen.number, frozen.user_attrs["outcome"])
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
                self._open[spec.number] = _Open(spec, trial, reported=reported, decided=reported - 1)
                self._again.append(spec)
        for number in self._outcomes:  # killed after a trial's end and before its checkpoints were gone
            self.directory.remove_checkpoints(number)


def extended_ramp(ramp: Ramp, bounds: LRBounds) -> Ramp:
    """Where to look when ramps held no sure answer: slower where a fall before the divergence may be lost in the noise,
    higher where nothing diverged, lower where they began by diverging, and otherwise wider, as many steps a decade."""
    if bounds.edge_only:
        return ramp.slower()
    if bounds.status == "no_divergence":
        return ramp.over(ramp.low, ramp.high * 100)
    if bounds.status == "diverged_at_start":
        return ramp.over(ramp.low / 1e4, ramp.low * 10)
    return ramp.over(ramp.low / 10, ramp.high * 10)


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


def _tell_optuna(study: optuna.Study, trial: Trial | int, outcome: Mapping[str, Any]) -> None:
    states = {"failed": TrialState.FAIL, "pruned": TrialState.PRUNED}
    study.tell(trial, outcome["value"], state=states.get(outcome["state"]))


def _ledger(spec: TrialSpec) -> str:
    return "fixed" if spec.phase == "search" and spec.label else spec.phase


def _fixed_spec(number: int, config: Config, index: int) -> TrialSpec:
    """The fixed configuration of that index as a trial of the search."""
    fixed, steps = config.fixed[index], config.max_steps
    spec = TrialSpec(number, "search", config.seed, steps, label=fixed.name)
    if fixed.ramp is not None:
        how = fixed.ramp
        return replace(spec, lr=how.high, ramp=Ramp(how.low, how.high, steps, how.mode, how.stairs))
    assert fixed.lr is not None and fixed.lr_schedule is not None
    return replace(spec, lr=fixed.lr, lr_schedule=fixed.lr_schedule, parameters=fixed.parameters)


def _trained(spec: TrialSpec) -> tuple[Any, ...]:
    # As text: a parameter may be a list.
    return spec.lr_schedule, spec.lr, json.dumps([spec.parameters, spec.optimizer], sort_keys=True), spec.seed


def _open_journal(directory: StudyDir) -> JournalStorage:
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
        raise _no_journal(path, error) from None


def _no_journal(path: Path, error: Exception) -> ResourceError:
    what = f"{type(error).__name__}: {one_line(error)}"
    return ResourceError(f"{path}: cannot be read as an Optuna journal ({what}); put the whole file back")


def _open_ledger(ledger: str, config: Config, storage: JournalStorage) -> optuna.Study:
    searching = ledger == "search"
    pruner = _pruner(config) if searching else NopPruner()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if ledger in optuna.get_all_study_names(storage):
            study = optuna.load_study(study_name=ledger, storage=storage, pruner=pruner)
        else:
            goal = "minimize" if ledger == "range_test" else config.metric.goal
            study = optuna.create_study(study_name=ledger, storage=storage, direction=goal, pruner=pruner)
        # The same seed again would propose the first trials again.
        study.sampler = _sampler(config, len(study.trials)) if searching else RandomSampler(seed=0)
    return study


def _sampler(config: Config, trials: int) -> BaseSampler:
    seed = config.seed + trials
    if config.sampler.name == "random":
        return RandomSampler(seed=seed)
    # Measured on conditional spaces: the steadiest of TPE's forms with one LR shared by all schedules.
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
