"""What the report shows of a ladder: the valley of each length, and full trainings beside what predicts them.

| symbol | meaning                                                         | unit    | shape  |
|--------|-----------------------------------------------------------------|---------|--------|
| x      | log10 of the peak LRs at which a valley is looked at            | decades | (LRS,) |
"""

import math

import numpy as np

from tune_lr.config.lengths import steps_of_length
from tune_lr.records.interval import Interval
from tune_lr.records.phases import sign_of
from tune_lr.records.valleys import LadderView, PredictedTraining, ScheduleValleys, Valley
from tune_lr.study.ladder import Ladder, qualified_parameters
from tune_lr.study.length_model import Fitted, ScheduleForecast, forecast
from tune_lr.study.study import Study

MOST_SCHEDULES = 4  # whose valleys are shown
LRS = 29  # at which a valley is looked at
MARGIN = 0.2  # decades beyond the trainings and the bottoms


def ladder_view(study: Study) -> LadderView | None:
    """Return what the pictures show; None where trials have one length, or none was completed."""
    ladder = study.ladder
    if ladder is None or not ladder.has_observations():
        return None
    fitted = ladder.fitted()
    families: dict[str, ScheduleForecast] = {}
    for expected in ladder.forecast().schedules:
        families.setdefault(expected.schedule.family, expected)
    shown = list(families.values())[:MOST_SCHEDULES]
    valleys = tuple(_valleys(study, ladder, fitted, expected) for expected in shown)
    return LadderView(valleys, _full_trainings(study, ladder))


def _valleys(study: Study, ladder: Ladder, fitted: Fitted, expected: ScheduleForecast) -> ScheduleValleys:
    """Return the valleys of a schedule; `expected` is its forecast at full length."""
    candidate = ladder.candidate_of(expected.schedule)
    lengths = study.config.ladder
    schedules = [ladder.schedule_at(candidate, length) for length in lengths]
    bottoms = [
        forecast(fitted, [schedule], length=length).schedules[0]
        for schedule, length in zip(schedules[:-1], lengths[:-1], strict=True)
    ]
    bottoms.append(expected)
    family = candidate.schedule.family
    trained = [row.lr for row in study.rows() if row.lr_schedule == family and row.phase == "search"]
    reach = np.log10([*trained, *(end for bottom in bottoms for end in bottom.lr_interval)])
    low, high = (math.log10(end) for end in (fitted.prior.low, fitted.prior.high))
    x = np.linspace(max(low, reach.min() - MARGIN), min(high, reach.max() + MARGIN), LRS)
    sign = sign_of(study.config.metric.goal)
    valleys = []
    for schedule, length, bottom in zip(schedules, lengths, bottoms, strict=True):
        walls = [forecast(fitted, [schedule], [float(10**place)], length).schedules[0] for place in x]
        bands = [_interval(sign, wall.loss_interval) for wall in walls]
        valley = Valley(
            length=length,
            steps=steps_of_length(length, study.config.max_steps),
            lrs=tuple(wall.lr for wall in walls),
            losses=tuple(sign * wall.loss for wall in walls),
            low=tuple(band.low for band in bands),
            high=tuple(band.high for band in bands),
            lr=bottom.lr,
            lr_interval=Interval(*bottom.lr_interval),
            loss=sign * bottom.loss,
        )
        valleys.append(valley)
    return ScheduleValleys(family, qualified_parameters(candidate.draw), tuple(valleys))


def _full_trainings(study: Study, ladder: Ladder) -> tuple[PredictedTraining, ...]:
    """Return the full trainings of the search and the confirmation, beside what the short ones alone predict of them.

    There are none where no short training was completed.
    """
    metric = study.config.metric
    full = [row for row in study.rows() if row.length == 1 and row.phase in ("search", "confirm") and not row.label]
    complete = [row for row in full if row.state == "complete" and metric.name in row.metrics]
    if not complete or not ladder.has_observations(short=True):
        return ()
    fitted = ladder.fitted(short=True)
    sign = sign_of(metric.goal)
    full_trainings = []
    for row in complete:
        schedule = ladder.schedule_of(study.trials.spec(row.number))
        expected = forecast(fitted, [schedule], [row.lr]).schedules[0]
        observed, interval = row.metrics[metric.name], _interval(sign, expected.loss_interval)
        full_trainings.append(
            PredictedTraining(row.number, row.lr_schedule, row.lr, observed, sign * expected.loss, interval)
        )
    return tuple(full_trainings)


def _interval(sign: float, ends: tuple[float, float]) -> Interval:
    return Interval(*sorted(sign * end for end in ends))
