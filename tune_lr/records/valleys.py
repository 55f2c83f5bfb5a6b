"""What the model of a ladder says of the loss over the LR at each length, for whoever draws it.

Losses are the study's metric, also where that is maximized. Bands and intervals hold the truth with a probability of
80 %, by the model.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tune_lr.records.interval import Interval


@dataclass(frozen=True)
class Valley:
    """The loss over the LR of one LR schedule at one length; `lrs`, `losses`, `low` and `high` have the same shape."""

    length: float  # a fraction of `max_steps`
    steps: int
    lrs: tuple[float, ...]
    losses: tuple[float, ...]  # the median that is expected at each LR
    low: tuple[float, ...]  # of the band around it
    high: tuple[float, ...]
    lr: float  # of the bottom
    lr_interval: Interval
    loss: float  # at the bottom

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Valley":
        """Return the inverse of `dataclasses.asdict`."""
        arrays = {name: tuple(data[name]) for name in ("lrs", "losses", "low", "high")}
        return cls(**{**data, **arrays, "lr_interval": Interval(*data["lr_interval"])})


@dataclass(frozen=True)
class ScheduleValleys:
    """The valleys of one LR schedule, the shortest length first."""

    lr_schedule: str
    parameters: Mapping[str, Any]  # with qualified names
    valleys: tuple[Valley, ...]


@dataclass(frozen=True)
class PredictedTraining:
    """A full training, and what the short trainings alone predict of it."""

    trial: int
    lr_schedule: str
    lr: float
    observed: float
    predicted: float
    interval: Interval  # of the mean over seeds


@dataclass(frozen=True)
class LadderView:
    """What the pictures of a ladder show."""

    schedules: tuple[ScheduleValleys, ...]  # the best that is predicted first
    full_trainings: tuple[PredictedTraining, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the view as ladder.json holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "LadderView":
        """Return the inverse of `to_dict`. Raises KeyError or TypeError where `data` says something else."""
        return cls(
            schedules=tuple(
                ScheduleValleys(
                    entry["lr_schedule"],
                    entry["parameters"],
                    tuple(Valley.from_dict(valley) for valley in entry["valleys"]),
                )
                for entry in data["schedules"]
            ),
            full_trainings=tuple(
                PredictedTraining(**{**entry, "interval": Interval(*entry["interval"])})
                for entry in data["full_trainings"]
            ),
        )
