"""The curve of a full training, predicted from the curves of shorter ones, and the watch over the real one.

A short trial is a complete training, so what it has reached after a fraction f of its steps compares with what a full
training reaches after the same fraction of its own. For each of several fractions the losses there are handed to the
model of `length_model` as if they were final ones, and the model says what the full training reaches there.

| symbol   | meaning                                          | unit            |
|----------|--------------------------------------------------|-----------------|
| fraction | steps taken, of all steps of the same training   | 0 to 1          |
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tune_lr.errors import ResourceError
from tune_lr.records.observer import Observer
from tune_lr.records.phases import sign_of
from tune_lr.records.predicted_curve import PredictedCurve
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.curves import read_curve
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.length_model import Observation, Schedule, fit, forecast
from tune_lr.study.study import Study

Array = NDArray[np.float64]

FRACTIONS = tuple(place / 8 for place in range(1, 9))
NEAR = 0.03  # a validation so near to a fraction stands for it
GAP = 0.15  # between two validations that are so near to each other, the loss is interpolated
LEAST_TRIALS, LEAST_LENGTHS = 4, 2  # with a figure at a fraction, or the curve has no place there


def predict_curve(study: Study, schedule: Schedule, lr: float) -> PredictedCurve | None:
    """Return what the trials that have ended predict along a full training of a schedule at an LR.

    None where they have too few validations in common, or all trials are full trainings.
    """
    ladder = study.ladder
    if ladder is None or not ladder.has_observations():
        return None
    config = study.config
    sign = sign_of(config.metric.goal)
    observations = ladder.observations()
    validations = {
        number: _validations(study, number) for number, observation in observations.items() if not observation.diverged
    }
    places: list[tuple[int, float, float, float]] = []
    for fraction in FRACTIONS:
        at_fraction = _at_fraction(observations, validations, fraction, sign)
        finite = [observation for observation in at_fraction if not observation.diverged]
        if len(finite) < LEAST_TRIALS or len({observation.length for observation in finite}) < LEAST_LENGTHS:
            continue
        fitted = fit(at_fraction, ladder.prior, config.max_steps, config.seed)
        expected = forecast(fitted, [schedule], [lr]).schedules[0]
        low, high = sorted(sign * end for end in expected.loss_interval)
        places.append((round(fraction * config.max_steps), sign * expected.loss, low, high))
    return PredictedCurve(*zip(*places, strict=True)) if places else None


def _validations(study: Study, number: int) -> tuple[Array, Array]:
    """Return the fractions of a trial at which it was validated, and its metric there; both of shape (validations,)."""
    try:
        curve = read_curve(study.directory.curve(number))
    except ResourceError:
        return np.array([]), np.array([])
    values = np.array(curve.get(study.config.metric.name, []))
    measured = np.isfinite(values) if values.size else np.array([], dtype=bool)
    steps = np.array(curve["step"])[: values.size]
    return steps[measured] / study.trials.spec(number).max_steps, values[measured]


def _at_fraction(
    observations: dict[int, Observation],
    validations: dict[int, tuple[Array, Array]],
    fraction: float,
    sign: float,
) -> list[Observation]:
    """Return the observations with their losses at a fraction; those that have none there are left out."""
    found = []
    for number, observation in observations.items():
        if observation.diverged:
            found.append(observation)
            continue
        value = _value_at(*validations[number], fraction)
        if math.isfinite(value):
            found.append(replace(observation, loss=sign * value))
    return found


def _value_at(fractions: Array, values: Array, fraction: float) -> float:
    """Return a trial's metric at a fraction, by its validations around it; NaN where none is near."""
    if not fractions.size:
        return math.nan
    nearest = int(np.argmin(np.abs(fractions - fraction)))
    after = int(np.searchsorted(fractions, fraction))
    if 0 < after < fractions.size and fractions[after] - fractions[after - 1] <= GAP:
        return float(np.interp(fraction, fractions, values))
    return float(values[nearest]) if abs(fractions[nearest] - fraction) <= NEAR else math.nan


class CurveWatch(Observer):
    """Writes down what is predicted of a full training when it begins, and says where the real curve leaves the band.

    It is told before the other observers, so that they find the prediction on disk. `study` is set before anything
    runs. Its notices go to `others`.
    """

    def __init__(self, directory: StudyDir, others: Sequence[Observer]) -> None:
        self.study: Study | None = None
        self._directory = directory
        self._others = others
        self._curves: dict[int, PredictedCurve] = {}
        self._warned: set[int] = set()

    def trial_started(self, trial: TrialSpec) -> None:
        """Predict the curve of a full training of a ladder, which takes a second or two, or read it where it stands."""
        curve = self._directory.read_predicted_curve(trial.number)
        if curve is None and trial.length == 1 and self.study is not None and self.study.ladder is not None:
            curve = predict_curve(self.study, self.study.ladder.schedule_of(trial), trial.lr)
            if curve is not None:
                self._directory.write_predicted_curve(trial.number, curve)
        if curve is not None:
            self._curves[trial.number] = curve

    def trial_reported(self, trial: TrialSpec, report: Report) -> None:
        """Give a notice, once for a trial, where its metric lies far outside of the band."""
        curve, metric = self._curves.get(trial.number), self.study.config.metric.name if self.study else ""
        if curve is None or metric not in report.metrics or trial.number in self._warned:
            return
        value, expected = report.metrics[metric], curve.at(report.step)
        side = curve.side(report.step, value)
        if side is None or expected is None:
            return
        self._warned.add(trial.number)
        text = (
            f"trial {trial.number}: {metric} {value:.4g} at step {report.step:,} lies {side} the band that shorter "
            f"trainings predict there, {expected.low:.4g} to {expected.high:.4g}, by more than its width on that side; "
            "look at the data, the LR and the nodes"
        )
        for observer in self._others:
            observer.notice(text)
