"""How a study looks for its answer: metric, LR range test, sampler, pruner, confirmation and fixed configurations."""

import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainValidator, field_validator, model_validator

from tune_lr.config.base import Count, FieldError, Model, positive_lr
from tune_lr.config.messages import shown

# The ramps of a range test that does not say how many, where a training is long enough.
MOST_REPLICATES = 3


# Names of metrics for which "minimize", the default, would search for the worst model.
SCORE = re.compile(
    r"(^|_)(\w*acc(uracy)?\d*|top_?\d+|\w*f\d|f_?beta|\w*au(c|roc|prc|pr)\w*|m?ap\d*|average_precision|\w*iou\d*|dice|jaccard"
    r"|\w*bleu\d*|rouge\w*|meteor|chrf\w*|r2|recall\w*|precision\w*|specificity|sensitivity|score\w*|mcc|matthews|kappa"
    r"|psnr|ssim|ndcg\w*|mrr|em|exact_match|hits?\d*|hit_?rate|success\w*|win_?rate|rewards?|correct|correlation"
    r"|pearson\w*|spearman\w*|log_?likelihood)(_|$)"
)


def sounds_like_a_score(name: str) -> bool:
    """Return whether a metric of this name is probably better when it is higher: "val_acc1", "val_macroF1".

    An error or a loss of such a figure, as in "val_top1_error", is not.
    """
    if re.search(r"err(or)?s?(_|$)|loss", name.lower()):
        return False
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)  # the words of a name in camel case
    return any(SCORE.search(spelling.lower()) is not None for spelling in (name, split))


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

    @model_validator(mode="before")
    @classmethod
    def _says_the_goal_of_a_score(cls, data: Any) -> Any:
        name = data.get("name") if isinstance(data, dict) else None
        if isinstance(name, str) and "goal" not in data and sounds_like_a_score(name):
            raise FieldError(
                f"is missing, and {shown(name)} sounds like a figure that is better when it is higher; "
                "write goal: maximize, or goal: minimize",
                "goal",
            )
        return data

    @property
    def plateau_mode(self) -> Literal["min", "max"]:
        """The `mode` with which the LR schedule `plateau` waits for this metric to improve, in torch's words."""
        return "max" if self.goal == "maximize" else "min"


class RangeTest(Model):
    """The LR range test: `replicates` ramps of `steps` optimizer steps each, from the LR `low` up to `high`.

    If `replicates` is not given, `parse_config` fills in 3, or as many as together take no longer than one training.
    A staircase holds `stairs` LRs. If they are not given, `parse_config` fills in 30, or `steps` where that is less.
    The bounds are for trainings of `training_steps` optimizer steps. If they are not given, `parse_config` fills in
    `max_steps`. Where trials have several lengths it fills in at most REFERENCE_STEPS: the model of the search then
    carries the bounds over to each length.
    """

    low: float = Field(default=1e-5, gt=0)
    high: float = Field(default=10.0, gt=0)
    steps: int = Field(default=300, ge=20, le=10**9)
    replicates: Count = MOST_REPLICATES
    mode: Literal["exponential", "linear", "staircase"] = "exponential"
    stairs: Annotated[int, Field(ge=2, le=10**9)] | None = None
    training_steps: Count | None = None


class Sampler(Model):
    """How the next trial is proposed: gp is this project's own (docs/search.md), tpe and random are Optuna's."""

    name: Literal["gp", "tpe", "random"] = "gp"


class Pruner(Model):
    """How hopeless trials are stopped early.

    With asha about the best one in `reduction_factor` goes on at each of the rungs `min_steps`,
    `min_steps * reduction_factor`, and so on. If `min_steps` is not given, `parse_config` fills in the smallest
    multiple of `report_every` that is at least `max_steps / reduction_factor**2`. That makes two rungs, sometimes one.
    """

    name: Literal["asha", "none"] = "asha"
    min_steps: Count | None = None
    reduction_factor: int = Field(default=3, ge=2, le=10**9)


class Confirm(Model):
    """Which trials are trained again, and with how many fresh seeds.

    These are the best trials of the `top` best LR schedules and the best `runners_up` of all others, with `seeds` seeds
    each. Those that cannot be told apart then get up to `max_seeds` (None: no more) where more seeds might do it. `top`
    0 means no confirmation. A user who writes `top` gets that many, and runners-up only if these are written too.
    """

    top: int = Field(default=3, ge=0, le=10**9)
    runners_up: int = Field(default=0, ge=0, le=10**9)
    seeds: Count = 3
    max_seeds: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _two_runners_up_with_the_default_top(cls, data: Any) -> Any:
        return {"runners_up": 2, **data} if isinstance(data, dict) and "top" not in data else data

    @property
    def finalists(self) -> int:
        """How many trials are trained again."""
        return self.top + self.runners_up if self.top else 0

    @property
    def most_seeds(self) -> int:
        """The most seeds that one finalist is trained with."""
        return self.max_seeds or self.seeds


class FixedRamp(Model):
    """A rising LR from `low` to `high` over the whole of `max_steps`, as in the LR range test."""

    low: float = Field(gt=0, examples=[1e-5])
    high: float = Field(gt=0, examples=[10])
    mode: Literal["exponential", "linear", "staircase"] = "exponential"
    stairs: Annotated[int, Field(ge=2, le=10**9)] | None = None


class Fixed(Model):
    """A configuration that is trained as it stands, in addition to those that are searched.

    It is an LR schedule, its peak `lr` and, as further keys, that schedule's parameters; or it is a `ramp`. It is never
    pruned, and the sampler learns nothing from it. With `keep_model` its trained weights stay in the trial's folder.
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
        """The parameters of the LR schedule."""
        return dict(self.model_extra or {})

    @property
    def name(self) -> str:
        """The label, or else the configuration in short."""
        if self.label or self.lr is None:
            return self.label or "ramp"
        parameters = [f"{name}={value}" for name, value in self.parameters.items()]
        return " ".join([f"{self.lr_schedule} lr={self.lr:g}", *parameters])
