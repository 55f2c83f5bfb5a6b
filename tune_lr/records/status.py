"""How a study stands at a moment."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tune_lr.records.predicted_curve import Expected


@dataclass(frozen=True)
class PhaseStatus:
    """Numbers of trials. `running` of a study without a driver: interrupted, to be run again."""

    complete: int
    pruned: int
    diverged: int
    failed: int
    running: int
    to_come: int

    @property
    def unfinished(self) -> int:
        """How many trials have not ended."""
        return self.running + self.to_come


@dataclass(frozen=True)
class Running:
    """A trial in progress, as far as its curve goes."""

    number: int
    phase: str
    label: str  # of a fixed configuration, else the LR schedule, else "ramp"
    lr: float
    step: int
    max_steps: int
    value: float | None = None  # the metric at its last validation
    expected: Expected | None = None  # what shorter trainings predict there, where that was written down


@dataclass(frozen=True)
class Leader:
    """The best so far: by its mean over `seeds` confirmations, or (0) by its search trial alone."""

    trial: int
    lr_schedule: str
    lr: float
    parameters: Mapping[str, Any]
    value: float
    seeds: int


@dataclass(frozen=True)
class Status:
    """Times are seconds. `elapsed_s` counts from the study's creation to now, or to its last trial's end; `trained_s`
    is what its trials have trained and validated; `left_s` is None where nothing runs or nothing is known yet.
    `phase` is `finish` after the last trial: the pass over the test data, and the report."""

    name: str
    directory: str
    state: str  # running | stopped | finished
    driver: str | None
    phase: str
    phases: Mapping[str, PhaseStatus]
    running: tuple[Running, ...]
    metric: str
    leader: Leader | None
    verdict: str | None  # of a finished study
    bounds: Mapping[str, Any] | None
    steps: int
    steps_to_come: int  # at most, and with the study's batch size where others are searched
    elapsed_s: float
    trained_s: float
    left_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the status as `tune-lr status --json` prints it."""
        return asdict(self)
