"""Every trial of a study that was asked for: what it trains, and how it ended."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any

from tune_lr.config.model import Config
from tune_lr.records.phases import PHASES
from tune_lr.records.row import RAMP, TrialRow
from tune_lr.records.steps import steps_weight
from tune_lr.records.trial import TrialFacts, TrialSpec


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended, as the journal keeps it."""

    state: str  # complete | pruned | diverged | failed
    value: float | None  # what Optuna is told; None where the trial says nothing
    steps: int
    metrics: Mapping[str, float]  # of the last validation
    duration_s: float  # of training and validation
    started: float  # Unix time in seconds
    slot: int
    clock: float  # seconds that all drivers of the study had run when the trial ended
    reason: str
    facts: TrialFacts | None  # None where no worker has answered

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as the journal holds it."""
        return {**asdict(self), "facts": self.facts.to_dict() if self.facts else {}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "TrialOutcome":
        """Return the inverse of `to_dict`. Studies of older versions have neither `clock` nor `facts`.

        Raises KeyError or TypeError where `data` is no outcome.
        """
        return cls(
            state=data["state"],
            value=data["value"],
            steps=data["steps"],
            metrics=data["metrics"],
            duration_s=data["duration_s"],
            started=data["started"],
            slot=data["slot"],
            clock=data.get("clock", 0.0),
            reason=data["reason"],
            facts=TrialFacts.from_dict(data["facts"]) if data.get("facts") else None,
        )


class TrialBook:
    """The trials of a study by number, in memory: what was asked for, and the outcomes of those that have ended.

    Whatever else one wants to know of the trials, such as rows and sums, is computed from these.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._specs: dict[int, TrialSpec] = {}
        self._numbers: defaultdict[str, list[int]] = defaultdict(list)  # the trials that each ledger keeps
        self._outcomes: dict[int, TrialOutcome] = {}  # in the order in which the trials ended

    def __len__(self) -> int:
        return len(self._specs)

    def __contains__(self, number: int) -> bool:
        return number in self._specs

    def add(self, ledger: str, spec: TrialSpec) -> None:
        """Add a trial that was asked for; it has not ended."""
        self._specs[spec.number] = spec
        self._numbers[ledger].append(spec.number)

    def end(self, number: int, outcome: TrialOutcome) -> None:
        """Add the outcome of a trial that was added before."""
        self._outcomes[number] = outcome

    # --- single trials --------------------------------------------------------------------------------------

    def spec(self, number: int) -> TrialSpec:
        """Return what the trial of that number trains."""
        return self._specs[number]

    def specs(self, phase: str) -> list[TrialSpec]:
        """Return what the trials of a phase train, in the order in which they were added."""
        return [spec for spec in self._specs.values() if spec.phase == phase]

    def outcome(self, number: int) -> TrialOutcome:
        """Return how the trial of that number ended."""
        return self._outcomes[number]

    def begun(self) -> list[TrialSpec]:
        """Return the trials that have not ended, by number."""
        return [self._specs[number] for number in sorted(self._specs) if number not in self._outcomes]

    def ended(self) -> list[int]:
        """Return the numbers of the trials that have ended, in the order in which they ended."""
        return list(self._outcomes)

    # --- rows -----------------------------------------------------------------------------------------------

    def rows(self) -> list[TrialRow]:
        """Return a row for every trial that has ended, by number."""
        first = self._first_start()
        return [self._row(number, first) for number in sorted(self._outcomes)]

    def rows_of(self, phase: str) -> list[TrialRow]:
        """Return the rows of one phase, by number."""
        return [row for row in self.rows() if row.phase == phase]

    def row(self, number: int) -> TrialRow:
        """Return the row of a trial that has ended."""
        return self._row(number, self._first_start())

    def _first_start(self) -> float:
        return min(map(attrgetter("started"), self._outcomes.values()), default=math.inf)

    def _row(self, number: int, first: float) -> TrialRow:
        spec = self._specs[number]
        outcome = self._outcomes[number]
        return TrialRow(
            number=number,
            phase=spec.phase,
            state=outcome.state,
            lr_schedule=spec.lr_schedule or RAMP,
            lr=spec.ramp.high if spec.ramp else spec.lr,
            parameters=spec.qualified_parameters(),
            seed=spec.seed,
            steps=outcome.steps,
            metrics=outcome.metrics,
            duration_s=outcome.duration_s,
            started_s=round(outcome.started - first, 3),
            slot=outcome.slot,
            reason=outcome.reason,
            label=spec.label,
        )

    # --- counts ---------------------------------------------------------------------------------------------

    def asked(self, *ledgers: str) -> int:
        """Return how many trials of these ledgers were asked for."""
        return sum(len(self._numbers[ledger]) for ledger in ledgers)

    def ended_in(self, *ledgers: str) -> int:
        """Return how many trials of these ledgers have ended."""
        return sum(number in self._outcomes for ledger in ledgers for number in self._numbers[ledger])

    def slots(self) -> int:
        """Return how many slots the trials that have ended used; at least 1."""
        return max((outcome.slot + 1 for outcome in self._outcomes.values()), default=1)

    # --- steps and time -------------------------------------------------------------------------------------

    def weight(self, spec: TrialSpec) -> float:
        """Return how many steps with the study's batch size one step of that trial counts."""
        return steps_weight(spec.batch_size, self._config.batch_size)

    def steps_by_phase(self) -> dict[str, int]:
        """Return how many optimizer steps the trials of each phase took."""
        steps = dict.fromkeys(PHASES, 0)
        for spec, outcome in self._pairs():
            steps[spec.phase] += outcome.steps
        return steps

    def weighted_steps(self, phase: str) -> float:
        """Return how many steps the trials of a phase took, in steps with the study's batch size."""
        pairs = self._pairs()
        return sum((outcome.steps * self.weight(spec) for spec, outcome in pairs if spec.phase == phase), 0.0)

    def weighted_steps_of(self, number: int) -> float:
        """Return how many steps a trial that has ended took, in steps with the study's batch size."""
        return self._outcomes[number].steps * self.weight(self._specs[number])

    def full_trainings(self) -> float:
        """Return how many full trainings see as many samples as all trials together have seen."""
        return sum(self.weighted_steps(phase) for phase in PHASES) / self._config.max_steps

    def steps_saved(self) -> dict[str, int]:
        """Return how many steps trials were spared, by what ended them: "pruned" or "diverged"."""
        saved = {"pruned": 0, "diverged": 0}
        for spec, outcome in self._pairs():
            # A ramp that diverges is complete.
            state = "diverged" if spec.ramp and outcome.state == "complete" else outcome.state
            if state in saved:
                saved[state] += spec.max_steps - outcome.steps
        return saved

    def seconds(self, phase: str) -> float:
        """Return how long the trials of a phase have trained and validated."""
        return sum(outcome.duration_s for spec, outcome in self._pairs() if spec.phase == phase)

    def clock(self, *phases: str) -> float:
        """Return what the drivers' clock showed, in seconds, when the last trial of these phases ended; else 0."""
        return max((outcome.clock for spec, outcome in self._pairs() if spec.phase in phases), default=0.0)

    def _pairs(self) -> Iterator[tuple[TrialSpec, TrialOutcome]]:
        return ((self._specs[number], outcome) for number, outcome in self._outcomes.items())
