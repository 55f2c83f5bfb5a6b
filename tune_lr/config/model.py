"""A whole search space as one typed, frozen object."""

import os
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict, field_validator, model_validator

from tune_lr.config.base import Count, FieldError, Model
from tune_lr.config.budget import ALLOWED, Budget, parse_budget
from tune_lr.config.lengths import parse_lengths
from tune_lr.config.messages import shown
from tune_lr.config.parameters import Combination, Parameters
from tune_lr.config.phases import Confirm, Fixed, Metric, Pruner, RangeTest, Sampler
from tune_lr.config.training import Checkpoints, Optimizer, Scaling, TrainingDetails
from tune_lr.records.steps import equal_steps

# The number of trials of a search that only its budget ends.
UNLIMITED = 10**6


class Wandb(Model):
    """Where runs go in Weights & Biases. `entity` None stands for the default of the account.

    What the YAML does not say is taken from W&B's own variables, WANDB_PROJECT and WANDB_ENTITY, when a study is made.
    """

    project: str = Field(
        default_factory=lambda: os.environ.get("WANDB_PROJECT") or "tune-lr",
        min_length=1,
        max_length=128,
        validate_default=True,
    )
    entity: str | None = Field(default_factory=lambda: os.environ.get("WANDB_ENTITY") or None)

    @field_validator("project")
    @classmethod
    def _is_accepted_by_wandb(cls, project: str) -> str:
        if re.search(r"[/\\#?%:]", project):
            raise FieldError(f"is no W&B project (got {shown(project)}); write it without any of / \\ # ? % :")
        return project


class Config(Model):
    """A whole search space. Make it with `load_config` or `parse_config`: they check that the fields fit each other.

    `batch_size` is global; None stands for the workload's own. Where batch sizes are searched, all fields count their
    steps in batches of this size. `max_steps` are the optimizer steps of one full trial, `report_every` the steps
    between two validations. `num_trials` counts the trials of the search, 0 where all configurations are fixed; with a
    `budget` it is the most trials that the budget may buy. A `budget` ("12x", "30m") is for ramps, search and
    confirmation together. `lengths` are those of the search's trials, as fractions of `max_steps`; "auto" is
    "full" for now: what short trainings predict has not yet been judged on workloads that the method was not made with.
    """

    workload: str = Field(examples=["my_module:make_workload"])
    workload_args: dict[str, Any] = Field(default={})
    batch_size: Count | None = None
    metric: Metric = Metric()
    max_steps: Count = Field(examples=[310])
    report_every: Count = Field(examples=[31])
    num_trials: int = Field(ge=0, le=10**9, examples=[48])
    budget: str | None = None
    lengths: Annotated[Literal["auto", "full"] | tuple[float, ...], BeforeValidator(parse_lengths)] = "auto"
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    range_test: RangeTest = RangeTest()
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner(name="none")
    confirm: Confirm = Confirm()
    optimizer: Optimizer = Optimizer.model_validate({})
    # This default is for studies in which all configurations are fixed. It is refused in others.
    parameters: Parameters = Parameters.model_validate({"lr": {"value": 1.0}, "lr_schedule": {"value": "constant"}})
    fixed: Annotated[tuple[Fixed, ...], Strict(False)] = ()
    training: TrainingDetails = TrainingDetails()
    scaling: Scaling = Scaling()
    checkpoints: Checkpoints = Checkpoints()
    wandb: Wandb = Field(default_factory=Wandb)

    @model_validator(mode="before")
    @classmethod
    def _as_many_as_the_budget_buys(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("num_trials") is not None:
            return data
        has_budget = data.get("budget") is not None or isinstance(data.get("lengths"), list | tuple)
        return {**data, "num_trials": UNLIMITED} if has_budget else data

    @field_validator("budget")
    @classmethod
    def _is_a_budget(cls, budget: str | None) -> str | None:
        if budget is not None:
            try:
                parse_budget(budget)
            except ValueError:
                raise FieldError(f"is no budget (got {shown(budget)}); write {ALLOWED}") from None
        return budget

    @property
    def spending(self) -> Budget | None:
        """The budget, parsed."""
        return parse_budget(self.budget) if self.budget else None

    @property
    def ladder(self) -> tuple[float, ...]:
        """The lengths of the search's trials, from short to full; empty where all are full trainings."""
        return () if isinstance(self.lengths, str) else self.lengths

    @field_validator("workload")
    @classmethod
    def _is_module_and_function(cls, workload: str) -> str:
        module, _, function = workload.partition(":")
        if not all(map(str.isidentifier, [*module.split("."), function])):
            raise FieldError(f"is no workload (got {shown(workload)}); write module:function")
        return workload

    @property
    def combinations(self) -> list[Combination]:
        """The combinations of batch size and optimizer, as far as these are searched.

        The first one is that which the fields `batch_size` and `optimizer` name.
        """
        own_size = self.batch_size
        own_name = self.optimizer.name.lower()

        def is_another(combination: Combination) -> bool:
            size = combination.batch_size or own_size
            name = combination.optimizer.lower() or own_name
            return (size, name) != (own_size, own_name)

        sizes = self.parameters.batch_size or (None,)
        return sorted((Combination(size, name) for name in self.parameters.optimizer for size in sizes), key=is_another)

    def steps_of(self, steps: int, batch_size: int | None) -> int:
        """Return how many steps with that batch size see as many samples as `steps` of the study's own."""
        return equal_steps(steps, self.batch_size, batch_size) if self.batch_size and batch_size else steps

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, fit for YAML: `parse_config(config.to_dict()) == config`."""
        return self.model_dump(mode="json")
