"""The records that travel between the driver and the workers. Plain data: nothing here knows Ray, torch or Optuna."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tune_lr.lr.ramp import Ramp
from tune_lr.records.parameters import BATCH_SIZE, LENGTH, OPTIMIZER, optimizer_prefix


@dataclass(frozen=True)
class CheckpointPlan:
    """How often a trial's state is kept, and where: in the study directory `root`, of the study `study_id`. A node that
    does not see it asks the node `home`, by Ray's id, which is the driver's."""

    every_steps: int | None
    every_minutes: float | None
    keep: int
    root: str
    study_id: str
    home: str = ""


@dataclass(frozen=True)
class TrialSpec:
    """One trial: a configuration to train. `phase` is range_test, search, confirm or test.

    A range test's LR schedule is its `ramp`; a fixed configuration of the search may have one too. A test trains
    nothing: it evaluates the models in `checkpoints` on the workload's test data.
    """

    number: int
    phase: str
    seed: int
    max_steps: int
    lr: float = 0.0
    lr_schedule: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)  # of the LR schedule, unqualified
    ramp: Ramp | None = None
    checkpoint: str | None = None  # directory: the trained model is kept there
    checkpoints: tuple[str, ...] = ()
    label: str = ""  # of a fixed configuration
    # What is searched of the optimizer, over the task's: arguments, and its `name`.
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    resume: int = 0  # the step of the checkpoint from which it goes on
    batch_size: int | None = None  # that is searched; None: the task's. `max_steps` are of this size
    # Of the training, a fraction of the study's `max_steps`; None where all trials are full trainings.
    length: float | None = None
    report_every: int | None = None  # steps between validations; None: the task's

    def qualified_parameters(self) -> dict[str, Any]:
        """Return what is searched but the LR and its schedule, by names as in trials.csv: step.gamma, batch_size."""
        if self.ramp and self.label:
            return {"ramp.low": self.ramp.low, "ramp.mode": self.ramp.mode}
        schedule = {f"{self.lr_schedule}.{name}": value for name, value in self.parameters.items()}
        prefix = optimizer_prefix(self.optimizer.get("name", ""))
        names = {key: f"{OPTIMIZER if key == 'name' else prefix}{key}" for key in self.optimizer}
        optimizer = {names[key]: value for key, value in self.optimizer.items()}
        size = {BATCH_SIZE: self.batch_size} if self.batch_size else {}
        length = {LENGTH: self.length} if self.length is not None else {}
        return schedule | optimizer | size | length

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as params.json and the journal hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "TrialSpec":
        """Return the inverse of `to_dict`. Raises KeyError or TypeError where `data` says something else."""
        ramp = data["ramp"]
        return cls(**{**data, "ramp": Ramp(**ramp) if ramp else None, "checkpoints": tuple(data["checkpoints"])})


@dataclass(frozen=True)
class TrialFacts:
    """What only the workers of a trial know."""

    batch_size: int  # over all workers
    steps_per_epoch: int
    optimizer: str  # the name of its class
    cycles_momentum: bool  # whether an LR schedule may cycle its momentum
    metrics: tuple[str, ...]  # as in files: "val_loss", "val_accuracy"
    device: str = ""  # "cpu" or "cuda"
    # The workload's parameter groups: each one's settings, its "lr" a ratio, and "params" as Python expressions.
    groups: tuple[Mapping[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as the journal holds them."""
        groups = {"groups": [dict(group) for group in self.groups]} if self.groups else {}
        without = {key: value for key, value in asdict(self).items() if key != "groups"}
        return {**without, "metrics": list(self.metrics), **groups}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "TrialFacts":
        """Return the inverse of `to_dict`. Raises KeyError or TypeError where `data` says something else."""
        return cls(
            batch_size=data["batch_size"],
            steps_per_epoch=data["steps_per_epoch"],
            optimizer=data["optimizer"],
            cycles_momentum=data["cycles_momentum"],
            metrics=tuple(data["metrics"]),
            device=data.get("device", ""),
            groups=tuple(data.get("groups", ())),
        )


@dataclass(frozen=True)
class Report:
    """What a trial has done since its last report. The same on every rank: figures are reduced over ranks.

    `points` are (step, lr, training loss) for each optimizer step, the step counted from 1; the loss is the mean over
    the global batch before the update. `metrics` are of the validation at `step`: "val_loss", "val_accuracy".
    """

    step: int
    points: tuple[tuple[int, float, float], ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    over: bool = False  # nothing more will come
    diverged: bool = False  # at `step`
    failure: str = ""  # why the trial cannot be finished
    mistake: str = ""  # of the user's: the study cannot go on
    seconds: float = 0.0  # of training and validation
    worker: str = ""  # "host:pid,pid", the processes that did it
    slot: str = ""  # stays the same while a slot's workers are replaced
    facts: TrialFacts | None = None  # None where no worker has answered
    test_values: tuple[Mapping[str, float], ...] = ()  # one a checkpoint
    checkpoint: bool = False  # one is due at this step
    notices: tuple[str, ...] = ()  # for the user: what happened to the trial meanwhile
