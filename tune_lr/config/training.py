"""How a trial trains: its optimizer, the details of a step, the workers that it runs on, and its checkpoints."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from tune_lr.config.base import Count, FieldError, Model
from tune_lr.config.messages import shown


def _argument(value: object) -> object:
    """Return the value of an optimizer's argument. Raises FieldError unless it is of a type that a YAML can say."""
    numbers = isinstance(value, list) and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in value)
    if not numbers and not isinstance(value, (bool, int, float, str)):
        raise FieldError(f"must be a number, a list of numbers, true, false or a word (got {shown(value)})")
    return value


class Optimizer(Model):
    """An optimizer by name. Every further key is an argument of it."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, BeforeValidator(_argument)]]

    name: str = Field(default="sgd", min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _lr_is_searched(cls, data: Any) -> Any:
        if isinstance(data, dict) and "lr" in data:
            raise FieldError(f"is searched, not set (got {shown(data['lr'])}); write it under parameters.lr", "lr")
        return data

    @property
    def args(self) -> dict[str, Any]:
        """The keyword arguments besides the LR, as in {"momentum": 0.9}."""
        return dict(self.model_extra or {})


class TrainingDetails(Model):
    """How a step is computed, and what a validation reads.

    `accumulate`: micro-batches per optimizer step. `clip_norm`: the most that the norm of all gradients may be; None
    does not clip. `decay_norms_and_biases` False: parameters of fewer than two dimensions have no weight decay.
    `loader_workers`: processes that load batches for each worker; 0 loads them in the loop. `val_items`: how many items
    of the validation data a report of a search trial reads; None reads all. `deterministic`: torch uses deterministic
    algorithms, and raises where it has none.
    """

    accumulate: Count = 1
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    decay_norms_and_biases: bool = True
    loader_workers: int = Field(default=0, ge=0, le=10**4)
    val_items: Count | None = None
    deterministic: bool = False


class Scaling(Model):
    """What one trial runs on: its workers (processes, ranks), the CPUs and GPUs of each, and a ColossalAI plugin.

    `max_concurrent` None allows as many trials at once as fit. Workers that take no step for `timeout_s` seconds are
    replaced. With `cold_workers` the workers are started anew for each trial; None does so with every plugin but ddp.
    """

    workers_per_trial: Count = 1
    gpus_per_worker: float = Field(default=0.0, ge=0, le=10**6)
    cpus_per_worker: Count = 1
    plugin: Literal["ddp", "low_level_zero", "gemini", "fsdp", "hybrid_parallel"] = "ddp"
    plugin_args: dict[str, Any] = Field(default={})
    max_concurrent: Count | None = None
    cold_workers: bool | None = None
    timeout_s: float = Field(default=600.0, gt=0, le=10**6)


class Checkpoints(Model):
    """How often the state of a running trial is kept, so that after a lost worker or driver it goes on from there.

    It is kept every so many steps or minutes, whichever comes first, and never where both are null. The last `keep`
    checkpoints stay until the trial ends.
    """

    every_steps: Count | None = None
    every_minutes: Annotated[float, Field(gt=0, le=10**6)] | None = 10.0
    keep: Annotated[int, Field(ge=1, le=1000)] = 2
