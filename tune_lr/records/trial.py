"""The records that travel between the driver and the workers. Plain data: nothing here knows Ray, torch or Optuna."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tune_lr.lr.ramp import Ramp
from tune_lr.records.parameters import BATCH_SIZE, OPTIMIZER, optimizer_prefix


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
class Task:
    """What all trials of a study share: what is trained, on what, and with which optimizer."""

    workload: str  # "module:function"
    workload_args: Mapping[str, Any]
    batch_size: int | None  # global, of the steps that the study counts; None: the workload's own
    optimizer: str
    optimizer_args: Mapping[str, Any]
    metric: str  # as in files: "val_loss", "val_accuracy"
    report_every: int  # steps between validations
    workers: int
    cpus_per_worker: int
    gpus_per_worker: float
    plugin: str
    plugin_args: Mapping[str, Any]
    timeout_s: float  # a group that takes no step for longer is taken for dead
    checkpoints: CheckpointPlan | None = None
    python_path: tuple[str, ...] = ()  # where the user's own modules lie
    cold_workers: bool = False  # started anew for each trial
    accumulate: int = 1  # micro-batches per optimizer step
    clip_norm: float | None = None  # the most that the norm of all gradients may be
    precision: str = "fp32"  # or bf16, fp16
    decay_norms_and_biases: bool = True
    loader_workers: int = 0  # processes that load batches for each worker; 0: the worker itself does
    val_items: int | None = None  # that a search trial's validation reads; None: all
    deterministic: bool = False
    searched_args: tuple[Mapping[str, Any], ...] = ()  # ends of what is searched of the optimizer, to be tried at once
    batch_sizes: tuple[int, ...] = ()  # that are searched


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

    def qualified_parameters(self) -> dict[str, Any]:
        if self.ramp and self.label:
            return {"ramp.low": self.ramp.low, "ramp.mode": self.ramp.mode}
        schedule = {f"{self.lr_schedule}.{name}": value for name, value in self.parameters.items()}
        prefix = optimizer_prefix(self.optimizer.get("name", ""))
        names = {key: f"{OPTIMIZER if key == 'name' else prefix}{key}" for key in self.optimizer}
        optimizer = {names[key]: value for key, value in self.optimizer.items()}
        return schedule | optimizer | ({BATCH_SIZE: self.batch_size} if self.batch_size else {})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "TrialSpec":
        ramp = data["ramp"]
        return cls(**{**data, "ramp": Ramp(**ramp) if ramp else None, "checkpoints": tuple(data["checkpoints"])})


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
    facts: Mapping[str, Any] = field(default_factory=dict)  # what only workers know: see Training.facts
    test_values: tuple[Mapping[str, float], ...] = ()  # one a checkpoint
    checkpoint: bool = False  # one is due at this step
    notices: tuple[str, ...] = ()  # for the user: what happened to the trial meanwhile
