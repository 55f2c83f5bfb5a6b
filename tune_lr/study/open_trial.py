"""A trial in somebody's hands: what it has reported so far, and whether the pruner lets it go on."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from optuna.trial import Trial

from tune_lr.config.model import Config
from tune_lr.records.steps import steps_covered
from tune_lr.records.trial import Report, TrialFacts, TrialSpec
from tune_lr.study.trial_book import TrialOutcome

# The value that Optuna is told of a trial that diverged: finite, and worse than any figure that a metric takes.
PENALTY = 1e30


@dataclass
class OpenTrial:
    """A trial that was asked for and has not ended."""

    spec: TrialSpec
    trial: Trial  # Optuna's
    ledger: str
    started: float | None = None  # Unix time at which the training began; None while its workers start
    seconds: float = 0.0  # of training and validation
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the last validation
    facts: TrialFacts | None = None  # None where no worker has answered
    lowest_loss: float = math.inf  # the lowest training loss
    reported: int = 0  # the last step whose figure Optuna knows, in steps with the study's batch size
    decided: int = 0  # the last step at which the pruner was asked, counted likewise

    def begun_anew(self) -> "OpenTrial":
        """Return the same trial before its training; what Optuna knows of it stays known."""
        return OpenTrial(self.spec, self.trial, self.ledger, reported=self.reported, decided=self.decided)

    def add(self, report: Report) -> None:
        """Take in a report."""
        self.started = self.started or time.time() - report.seconds
        self.seconds += report.seconds
        self.metrics = report.metrics or self.metrics
        self.facts = report.facts or self.facts
        losses = [loss for _, _, loss in report.points if math.isfinite(loss)]
        self.lowest_loss = min([self.lowest_loss, *losses])

    def should_prune(self, report: Report, config: Config) -> bool:
        """Tell Optuna the figure of a report and return whether its pruner ends the trial.

        Both happen once a step: a trial that runs again reports again what is known.
        """
        # A report of a checkpoint has no figures, and a metric that was not a number is not among them.
        if config.metric.name not in report.metrics:
            return False
        step = comparable_step(self.spec, report.step, config)
        if step > self.reported:
            self.reported = step
            self.trial.report(report.metrics[config.metric.name], step)
        if step <= self.decided or report.over:
            return False
        self.decided = step
        return self.trial.should_prune()

    def outcome(self, state: str, reason: str, report: Report, config: Config, slot: int, clock: float) -> TrialOutcome:
        """Return how the trial ended with `report`, in `slot`, when the drivers' clock showed `clock` seconds."""
        value = None
        if state == "diverged":
            value = -PENALTY if config.metric.goal == "maximize" else PENALTY
        elif state == "complete":
            value = self.lowest_loss if self.spec.ramp else self.metrics[config.metric.name]
        return TrialOutcome(
            state=state,
            value=value,
            steps=report.step,
            metrics=dict(self.metrics),
            duration_s=round(self.seconds, 3),
            started=round(self.started or time.time(), 3),
            slot=slot,
            clock=round(clock, 3),
            reason=reason,
            facts=self.facts,
        )


def comparable_step(spec: TrialSpec, step: int, config: Config) -> int:
    """Return the step, with the study's batch size, at which a trial has seen as many samples as at its own `step`.

    The rungs of the pruner are at these steps.
    """
    if step == spec.max_steps and spec.length in (None, 1.0):
        return config.max_steps
    if not (config.batch_size and spec.batch_size):
        return step
    covered = steps_covered(step, config.batch_size, spec.batch_size)
    return covered // config.report_every * config.report_every
