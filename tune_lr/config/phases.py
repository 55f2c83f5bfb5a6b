"""How a study looks for its answer: metric, LR range test, sampler, pruner, confirmation and fixed configurations."""

import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainValidator, field_validator, model_validator

from tune_lr.config.base import Count, FieldError, Model, positive_lr
from tune_lr.config.messages import shown

# Of ramps, where nothing else is said.
MOST_REPLICATES = 3


class Metric(Model):
    """What trials are compared by: `val_loss`, or `val_NAME` for the workload's metric NAME."""

    name: str = "val_loss"
    goal: Literal["minimize", "maximize"] = "minimize"

    @field_validator("name")
    @classmethod
    def _is_measured_in_validation(cls, name: str) -> str:
        if not re.fullmatch(r"val_[A-Za-z0-9_]+", name):
            raise FieldError(f"is no metric (got {shown(name)}); write val_loss, or val_ and the name of a metric")
        return name


class RangeTest(Model):
    """The LR range test: `replicates` ramps of `steps` optimizer steps each, from the LR `low` up to `high`.

    Where `replicates` is not given, `parse_config` fills in 3, or as many as together take no longer than one training.
    A staircase holds `stairs` LRs; where they are not given, `parse_config` fills in 30, or `steps` where that is less.
    """

    low: float = Field(default=1e-5, gt=0)
    high: float = Field(default=10.0, gt=0)
    steps: int = Field(default=300, ge=20, le=10**9)
    replicates: Count = MOST_REPLICATES
    mode: Literal["exponential", "linear", "staircase"] = "exponential"
    stairs: Annotated[int, Field(ge=2, le=10**9)] | None = None


class Sampler(Model):
    """How the next trial is proposed: gp is this project's own (docs/search.md), tpe and random are Optuna's."""

    name: Literal["gp", "tpe", "random"] = "gp"


class Pruner(Model):
    """How hopeless trials are stopped early. asha: at the rungs `min_steps`, `min_steps * reduction_factor`, ... about
    the best one in `reduction_factor` goes on.

    Where `min_steps` is not given, `parse_config` fills in the smallest multiple of `report_every` that is at least
    `max_steps / reduction_factor**2`: two rungs, sometimes one.
    """

    name: Literal["asha", "none"] = "asha"
    min_steps: Count | None = None
    reduction_factor: int = Field(default=3, ge=2, le=10**9)


class Confirm(Model):
    """The best trials of the `top` best LR schedules, and the best `runners_up` of all others, are trained again with
    `seeds` fresh seeds each; those that cannot be told apart then, where more seeds might do it, with `max_seeds`
    (None: no more). `top` 0 means no confirmation. Who writes a `top` gets so many, and runners-up only where these are
    written too.
    """

    top: int = Field(default=3, ge=0, le=10**9)
    runners_up: int = Field(default=0, ge=0, le=10**9)
    seeds: Count = 3
    max_seeds: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _two_runners_up_beside_the_default(cls, data: Any) -> Any:
        return {"runners_up": 2, **data} if isinstance(data, dict) and "top" not in data else data

    @property
    def finalists(self) -> int:
        return self.top + self.runners_up if self.top else 0

    @property
    def most_seeds(self) -> int:
        return self.max_seeds or self.seeds


class FixedRamp(Model):
    """A rising LR from `low` to `high` over the whole of `max_steps`, as in the LR range test."""

    low: float = Field(gt=0, examples=[1e-5])
    high: float = Field(gt=0, examples=[10])
    mode: Literal["exponential", "linear", "staircase"] = "exponential"
    stairs: Annotated[int, Field(ge=2, le=10**9)] | None = None


class Fixed(Model):
    """A configuration that is trained as it stands, beside those that are searched: an LR schedule, its peak `lr` and,
    as further keys, that schedule's parameters; or a `ramp`. It is never pruned and teaches the sampler nothing. With
    `keep_model` its trained weights stay in the trial's folder.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any]

    label: str = Field(default="", max_length=80, pattern=r"^[^\x00-\x1f]*$")
    lr_schedule: str | None = None
    lr: Annotated[float, PlainValidator(positive_lr)] | None = None
    ramp: FixedRamp | None = None
    keep_model: bool = False

    @property
    def parameters(self) -> dict[str, Any]:
        """Of the LR schedule."""
        return dict(self.model_extra or {})

    @property
    def name(self) -> str:
        """The label, or what the configuration is in short."""
        if self.label or self.lr is None:
            return self.label or "ramp"
        return " ".join([f"{self.lr_schedule} lr={self.lr:g}", *(f"{k}={v}" for k, v in self.parameters.items())])
