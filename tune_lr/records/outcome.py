"""What a study has come to when its driver ends, for whoever shows it or reads it from Python."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_lr.lr.bounds import LRBounds
from tune_lr.records.answer import Answer
from tune_lr.records.row import TrialRow


@dataclass(frozen=True)
class Widening:
    """The range of the LR went on beyond the range test's bounds, since the best trial lay at their edge."""

    low: float  # the wider range
    high: float
    narrower: tuple[float, float]  # the range before
    after: int  # search trials that had ended then
    trial: int  # the best of them
    lr: float  # its LR

    def to_dict(self) -> dict[str, Any]:
        """Return the widening as widened.json and the journal hold it."""
        return {
            "after": self.after,
            "low": self.low,
            "high": self.high,
            "from": list(self.narrower),
            "trial": self.trial,
            "lr": self.lr,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Widening":
        """Return the inverse of `to_dict`."""
        low, high = data["from"]
        return cls(data["low"], data["high"], (low, high), data["after"], data["trial"], data["lr"])


@dataclass(frozen=True)
class Spending:
    """What a study has spent."""

    steps: Mapping[str, int]  # optimizer steps by phase
    full_trainings: float  # as many as all trials have taken, by their samples
    saved: Mapping[str, int]  # steps that trials were spared, by what ended them: pruned, diverged
    elapsed_s: float  # of all drivers together
    budget: str | None  # as the user wrote it: "12x", "30m"


@dataclass(frozen=True)
class Outcome:
    """The end of a study. `answer` is what stands in best.yaml; None where `no_answer` says why there is none."""

    root: Path  # the study directory
    rows: tuple[TrialRow, ...]  # every trial that has ended, by number
    bounds: Mapping[str, LRBounds]  # by combination of batch size and optimizer; "" where there is but one
    widening: Widening | None
    metric: str
    goal: str
    answer: Answer | None
    no_answer: str
    spending: Spending

    @property
    def failed(self) -> int:
        """How many trials failed for good."""
        return sum(row.state == "failed" for row in self.rows)
