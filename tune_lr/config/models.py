"""The search space: a YAML file as typed, frozen objects.

`load_config` reads a file and lays `--set` overrides over it; `parse_config` checks plain data (from a file, a
`study.yaml` or Python) in three stages: is it plain data, is every field right by itself (pydantic), do the fields fit
each other. Every error is one line: `FILE:LINE FIELD: what is wrong (got X); what is allowed`.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import islice, product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    ValidationError,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails

from tune_lr.config.budget import ALLOWED, Budget, parse_budget
from tune_lr.config.plugins import batch_divisor, layout, option_mistakes, plugin_mistakes
from tune_lr.config.yaml_file import (
    FieldPath,
    Issue,
    Places,
    first_error,
    lay_over,
    one_line,
    plain_data,
    read_fields,
    shortened,
    shown,
)
from tune_lr.config.yaml_file import find_space as find_space
from tune_lr.errors import suggestion
from tune_lr.lr.schedule import check_parameters
from tune_lr.lr.schedules import SCHEDULES
from tune_lr.records.parameters import BATCH_SIZE, OPTIMIZER, setting
from tune_lr.records.steps import equal_steps

UNLIMITED = 10**6  # trials, where only a budget ends the search
Count = Annotated[int, Field(ge=1, le=10**9)]
# Of a staircase in the LR range test, where nothing else is said: five a decade over six decades.
STAIRS = 30
# Of ramps, where nothing else is said.
MOST_REPLICATES = 3


class FieldError(ValueError):
    """A finished message about a field, or about the one at `path` below it."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Metric(_Model):
    """What trials are compared by: `val_loss`, or `val_NAME` for the workload's metric NAME."""

    name: str = "val_loss"
    goal: Literal["minimize", "maximize"] = "minimize"

    @field_validator("name")
    @classmethod
    def _is_measured_in_validation(cls, name: str) -> str:
        if not re.fullmatch(r"val_[A-Za-z0-9_]+", name):
            raise FieldError(f"is no metric (got {shown(name)}); write val_loss, or val_ and the name of a metric")
        return name


class RangeTest(_Model):
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


class Sampler(_Model):
    """How the next trial is proposed: gp is this project's own (docs/search.md), tpe and random are Optuna's."""

    name: Literal["gp", "tpe", "random"] = "gp"


class Pruner(_Model):
    """How hopeless trials are stopped early. asha: at the rungs `min_steps`, `min_steps * reduction_factor`, ... about
    the best one in `reduction_factor` goes on.

    Where `min_steps` is not given, `parse_config` fills in the smallest multiple of `report_every` that is at least
    `max_steps / reduction_factor**2`: two rungs, sometimes one.
    """

    name: Literal["asha", "none"] = "asha"
    min_steps: Count | None = None
    reduction_factor: int = Field(default=3, ge=2, le=10**9)


class Confirm(_Model):
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


def _argument(value: Any) -> Any:
    numbers = isinstance(value, list) and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in value)
    if not numbers and not isinstance(value, (bool, int, float, str)):
        raise FieldError(f"must be a number, a list of numbers, true, false or a word (got {shown(value)})")
    return value


class Optimizer(_Model):
    """An optimizer by name; every further key is an argument of it."""

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


class Drawn(_Model):
    """What Distribution and LRRange have in common: the three forms."""

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, data: Any) -> Any:
        if isinstance(data, cls):
            return data
        if not isinstance(data, dict):
            fixed = "values: [...]" if isinstance(data, list) else f"value: {'x' if data is None else shown(data)}"
            advice = "{min: range_test, max: range_test}" if data == "range_test" else f"{{{fixed}}}"
            raise FieldError(f"must say how it is drawn (got {shown(data)}); write {advice}")
        if data.keys() - cls.model_fields.keys():
            return data  # pydantic names the unknown keys
        form = [key for key in ("value", "values", "min", "max") if data.get(key) is not None]
        if form not in (["value"], ["values"], ["min", "max"]):
            allowed = "{value: x}, {values: [x, y]} or {min: x, max: y}"
            raise FieldError(f"has no single form (got {' and '.join(form) or 'none'}); write {allowed}")
        if form != ["min", "max"] and data.get("distribution") is not None:
            raise FieldError(f"goes with min and max only (got {shown(data['distribution'])})", "distribution")
        values = data["values"] if form == ["values"] and isinstance(data["values"], list) else [None]
        if not values:
            raise FieldError("is empty (got []); write at least one value", "values")
        for i, value in enumerate(values):
            if any(value == other and type(value) is type(other) for other in values[:i]):
                raise FieldError(f"is given twice (got {shown(value)}); keep one of them", "values", i)
        return cls._filled_in(data) if form == ["min", "max"] else data

    @classmethod
    def _filled_in(cls, data: dict[str, Any]) -> dict[str, Any]:
        return data

    @model_serializer(mode="plain")
    def _without_blanks(self) -> dict[str, Any]:
        return {key: value for key, value in self if value is not None}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FieldError(f"must be a number (got {shown(value)})")
    return value


class Distribution(Drawn):
    """How one parameter of an LR schedule, or one argument of the optimizer, is drawn: one `value`, or one of `values`,
    or between `min` and `max`.

    `distribution` is set exactly where `min` and `max` are. Its bounds are ints for `int_uniform` (both inclusive) and
    floats for `uniform` and `log_uniform_values`. Left out, it is `int_uniform` where both bounds are ints, unless the
    parameter is a plain number such as a factor, and `uniform` otherwise.
    """

    value: Any = None
    values: Annotated[tuple[Any, ...], Strict(False)] | None = None
    min: Annotated[int | float, PlainValidator(_number)] | None = None
    max: Annotated[int | float, PlainValidator(_number)] | None = None
    distribution: Literal["uniform", "log_uniform_values", "int_uniform"] | None = None

    @classmethod
    def _filled_in(cls, data: dict[str, Any]) -> dict[str, Any]:
        bounds = {key: data[key] for key in ("min", "max")}
        name = data.get("distribution")
        if name is None:
            name = "int_uniform" if all(map(_is_int, bounds.values())) else "uniform"
        if name != "int_uniform":
            bounds = {key: float(bound) if _is_int(bound) else bound for key, bound in bounds.items()}
        return {**bounds, "distribution": name}

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min is None or self.max is None:
            return self
        for key, bound in (("min", self.min), ("max", self.max)):
            if self.distribution == "int_uniform" and not _is_int(bound):
                raise FieldError(f"must be a whole number for int_uniform (got {shown(bound)})", key)
            if self.distribution == "log_uniform_values" and bound <= 0:
                raise FieldError(f"must be greater than 0 for log_uniform_values (got {shown(bound)})", key)
        if not self.min < self.max:
            raise FieldError(f"must be less than max (got {shown(self.min)}, max is {shown(self.max)})", "min")
        return self

    def bounds_or_values(self) -> dict[FieldPath, Any]:
        """Every value that is written out: the one, all of the list, or both ends; by its path in the YAML."""
        if self.values is not None:
            return {("values", i): value for i, value in enumerate(self.values)}
        return {("value",): self.value} if self.min is None else {("min",): self.min, ("max",): self.max}

    def middle(self) -> Any:
        """The value, the middle one of the values, or the middle between the ends, as the distribution has it."""
        if self.values is not None:
            return self.values[(len(self.values) - 1) // 2]
        if self.min is None or self.max is None:
            return self.value
        if self.distribution == "int_uniform":
            return int(self.min + self.max) // 2
        log = self.distribution == "log_uniform_values"
        return math.sqrt(self.min * self.max) if log else (self.min + self.max) / 2


def _lr(value: Any) -> float:
    if float(_number(value)) <= 0:
        raise FieldError(f"must be greater than 0 (got {shown(value)})")
    return float(value)


def _lr_bound(value: Any) -> float | str:
    if isinstance(value, str):
        if value != "range_test":
            hint = suggestion(value, ["range_test"])
            raise FieldError(f"must be a number or range_test (got {shown(value)}){hint}")
        return value
    return _lr(value)


class LRRange(Drawn):
    """How the peak LR is drawn: one `value`, or one of `values`, or log-uniformly between `min` and `max`, each of
    which is a number or the word `range_test`: that bound comes from the LR range test.
    """

    value: Annotated[float, PlainValidator(_lr)] | None = None
    values: Annotated[tuple[Annotated[float, PlainValidator(_lr)], ...], Strict(False)] | None = None
    min: Annotated[float | Literal["range_test"], PlainValidator(_lr_bound)] | None = None
    max: Annotated[float | Literal["range_test"], PlainValidator(_lr_bound)] | None = None
    distribution: Literal["log_uniform_values"] | None = None

    @classmethod
    def _filled_in(cls, data: dict[str, Any]) -> dict[str, Any]:
        return data if data.get("distribution") is not None else {**data, "distribution": "log_uniform_values"}

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if isinstance(self.min, float) and isinstance(self.max, float) and not self.min < self.max:
            raise FieldError(f"must be less than max (got {shown(self.min)}, max is {shown(self.max)})", "min")
        return self

    @property
    def needs_range_test(self) -> bool:
        """Whether a bound waits for the LR range test."""
        return "range_test" in (self.min, self.max)


class Combination(NamedTuple):
    """A batch size and an optimizer, as far as they are searched: each combination has an LR range test and bounds of
    its own."""

    batch_size: int | None = None  # None: all trials have the study's
    optimizer: str = ""  # "": all trials have the study's

    def __str__(self) -> str:
        return setting({BATCH_SIZE: self.batch_size, f"{OPTIMIZER}name": self.optimizer})


class Parameters(_Model):
    """What is searched. `lr_schedule`: LR schedule -> parameter -> how it is drawn; one left out keeps its default.
    `optimizer`: optimizer -> argument -> how it is drawn; "" stands for the one that the field `optimizer` names, where
    no other is searched. `batch_size`: None where it is not searched.
    """

    lr: LRRange
    lr_schedule: Mapping[str, Mapping[str, Distribution]]
    optimizer: Mapping[str, Mapping[str, Distribution]] = {"": {}}
    batch_size: tuple[Count, ...] | None = None

    @field_validator("batch_size", mode="before")
    @classmethod
    def _sizes(cls, data: Any) -> Any:
        if data is None:
            return None
        form, inner = next(iter(data.items())) if isinstance(data, dict) and len(data) == 1 else (None, None)
        sizes = [inner] if form == "value" else inner
        if form not in ("value", "values") or not isinstance(sizes, list) or not sizes:
            what = f"names no batch sizes (got {shown(data)})"
            raise FieldError(f"{what}; each has an LR range test of its own, so write {{values: [64, 128]}}")
        for i, size in enumerate(sizes):
            if size in sizes[:i]:
                raise FieldError(f"is given twice (got {shown(size)}); keep one of them", "values", i)
        return tuple(sizes)

    @field_serializer("batch_size")
    def _with_values(self, sizes: tuple[int, ...] | None) -> dict[str, Any] | None:
        return {"values": list(sizes)} if sizes else None

    @field_validator("optimizer", mode="before")
    @classmethod
    def _optimizers(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        form = next((form for form in ("choices", "values") if form in data), None)
        if form is None:
            return {"": _arguments(data)}
        given, kind = data[form], {"choices": dict, "values": list}[form]
        if len(data) > 1 or type(given) is not kind or not given:
            allowed = "{choices: {sgd: {}, adamw: {}}}, or arguments of the optimizer"
            raise FieldError(f"names no optimizers (got {shown(data)}); write {allowed}")
        choices: dict[str, Any] = {}
        for i, name in enumerate(given):
            place = (form, name if form == "choices" else i)
            if not isinstance(name, str) or not name:
                raise FieldError(f"is no optimizer (got {shown(name)}); write a name, such as adamw", *place)
            if name.lower() in map(str.lower, choices):
                raise FieldError(f"is given twice (got {shown(name)}); keep one of them", *place)
            choices[name] = _arguments(given[name] or {}, *place) if form == "choices" else {}
        return choices

    @field_serializer("optimizer")
    def _by_name(self, choices: Mapping[str, Mapping[str, Distribution]]) -> dict[str, Any]:
        plain = {name: {key: how.model_dump() for key, how in drawn.items()} for name, drawn in choices.items()}
        return plain.get("", {"choices": plain})

    @field_validator("lr_schedule", mode="before")
    @classmethod
    def _choices(cls, data: Any) -> Any:
        form: Any
        inner: Any
        form, inner = next(iter(data.items())) if isinstance(data, dict) and len(data) == 1 else (None, None)
        if form == "choices" and isinstance(inner, dict) and inner:
            names: dict[FieldPath, Any] = {(form, name): name for name in inner}
        elif form == "values" and isinstance(inner, list) and inner:
            names = {(form, i): name for i, name in enumerate(inner)}
        elif form == "value":
            names = {(form,): inner}
        else:
            allowed = "{choices: {constant: {}, cosine: {}}}, {value: constant} or {values: [constant, cosine]}"
            raise FieldError(f"names no LR schedules (got {shown(data)}); write {allowed}")
        choices: dict[str, Any] = {}
        for path, name in names.items():
            if not isinstance(name, str) or name not in SCHEDULES:
                hint = suggestion(name, SCHEDULES) if isinstance(name, str) else ""
                allowed = ", ".join(SCHEDULES)
                raise FieldError(f"is no LR schedule (got {shown(name)}){hint}; allowed: {allowed}", *path)
            if name in choices:
                raise FieldError(f"is given twice (got {shown(name)}); keep one of them", *path)
            choices[name] = {} if form != "choices" or inner[name] is None else _numbers_are_uniform(name, inner[name])
        return choices

    @field_serializer("lr_schedule")
    def _with_choices(self, choices: Mapping[str, Mapping[str, Distribution]]) -> dict[str, Any]:
        return {
            "choices": {name: {key: how.model_dump() for key, how in drawn.items()} for name, drawn in choices.items()}
        }


def _arguments(drawn: Any, *path: str | int) -> Any:
    """Of an optimizer; `path` is where they stand."""
    if not isinstance(drawn, dict):
        return drawn
    for name, where in (("lr", "parameters.lr"), ("name", "optimizer.name")):
        if name in drawn:
            raise FieldError(f"is set by {where} (got {shown(drawn[name])}); write it there", *path, name)
    return {name: _uniform(how) for name, how in drawn.items()}


def _numbers_are_uniform(schedule: str, drawn: Any) -> Any:
    """`floor: {min: 0, max: 1}` means every number between, not 0 and 1 alone."""
    if not isinstance(drawn, dict):
        return drawn
    numbers = {parameter.name for parameter in SCHEDULES[schedule].parameters if parameter.kind == "number"}
    return {key: _uniform(how) if key in numbers else how for key, how in drawn.items()}


def _uniform(how: Any) -> Any:
    """A range that does not say its distribution."""
    unsaid = isinstance(how, dict) and {"min", "max"} <= how.keys() and how.get("distribution") is None
    return {**how, "distribution": "uniform"} if unsaid else how


class FixedRamp(_Model):
    """A rising LR from `low` to `high` over the whole of `max_steps`, as in the LR range test."""

    low: float = Field(gt=0, examples=[1e-5])
    high: float = Field(gt=0, examples=[10])
    mode: Literal["exponential", "linear", "staircase"] = "exponential"
    stairs: Annotated[int, Field(ge=2, le=10**9)] | None = None


class Fixed(_Model):
    """A configuration that is trained as it stands, beside those that are searched: an LR schedule, its peak `lr` and,
    as further keys, that schedule's parameters; or a `ramp`. It is never pruned and teaches the sampler nothing. With
    `keep_model` its trained weights stay in the trial's folder.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any]

    label: str = Field(default="", max_length=80, pattern=r"^[^\x00-\x1f]*$")
    lr_schedule: str | None = None
    lr: Annotated[float, PlainValidator(_lr)] | None = None
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


class TrainingDetails(_Model):
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


class Scaling(_Model):
    """What one trial runs on: its workers (processes, ranks), the CPUs and GPUs of each, and a ColossalAI plugin.
    `max_concurrent` None: as many trials at once as fit. Workers that take no step for `timeout_s` seconds
    are replaced. `cold_workers`: workers are started anew for each trial; None: with every plugin but ddp.
    """

    workers_per_trial: Count = 1
    gpus_per_worker: float = Field(default=0.0, ge=0, le=10**6)
    cpus_per_worker: Count = 1
    plugin: Literal["ddp", "low_level_zero", "gemini", "fsdp", "hybrid_parallel"] = "ddp"
    plugin_args: dict[str, Any] = {}
    max_concurrent: Count | None = None
    cold_workers: bool | None = None
    timeout_s: float = Field(default=600.0, gt=0, le=10**6)


class Checkpoints(_Model):
    """How often the state of a running trial is kept, so that after a lost worker or driver it goes on from there:
    every so many steps, every so many minutes, or whichever comes first; never where both are null. The last `keep`
    stay until the trial ends.
    """

    every_steps: Count | None = None
    every_minutes: Annotated[float, Field(gt=0, le=10**6)] | None = 10.0
    keep: Annotated[int, Field(ge=1, le=1000)] = 2


class Wandb(_Model):
    """Where runs go in Weights & Biases; `entity` None: the default of the account."""

    project: str = Field(default="tune-lr", min_length=1, max_length=128)
    entity: str | None = None

    @field_validator("project")
    @classmethod
    def _is_accepted_by_wandb(cls, project: str) -> str:
        if re.search(r"[/\\#?%:]", project):
            raise FieldError(f"is no W&B project (got {shown(project)}); write it without any of / \\ # ? % :")
        return project


class Config(_Model):
    """A whole search space. Make it with `load_config` or `parse_config`: they check that the fields fit each other."""

    workload: str = Field(examples=["my_module:make_workload"])
    workload_args: dict[str, Any] = {}
    # Global; None: the workload's own. Where it is searched, this is the one whose steps all fields count.
    batch_size: Count | None = None
    metric: Metric = Metric()
    max_steps: Count = Field(examples=[310])  # optimizer steps of one full trial
    report_every: Count = Field(examples=[31])  # steps between validations
    # Of the search phase; 0 where all is fixed. Where there is a budget, the most trials that it may buy.
    num_trials: int = Field(ge=0, le=10**9, examples=[48])
    budget: str | None = None  # "12x", "30m": of ramps, search and confirmation together
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    range_test: RangeTest = RangeTest()
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner(name="none")
    confirm: Confirm = Confirm()
    optimizer: Optimizer = Optimizer.model_validate({})
    # The default is for studies in which all is fixed; it is refused elsewhere.
    parameters: Parameters = Parameters.model_validate({"lr": {"value": 1.0}, "lr_schedule": {"value": "constant"}})
    fixed: Annotated[tuple[Fixed, ...], Strict(False)] = ()
    training: TrainingDetails = TrainingDetails()
    scaling: Scaling = Scaling()
    checkpoints: Checkpoints = Checkpoints()
    wandb: Wandb = Wandb()

    @model_validator(mode="before")
    @classmethod
    def _as_many_as_the_budget_buys(cls, data: Any) -> Any:
        unsaid = isinstance(data, dict) and data.get("budget") is not None and data.get("num_trials") is None
        return {**data, "num_trials": UNLIMITED} if unsaid else data

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
        return parse_budget(self.budget) if self.budget else None

    @field_validator("workload")
    @classmethod
    def _is_module_and_function(cls, workload: str) -> str:
        module, _, function = workload.partition(":")
        if not all(map(str.isidentifier, [*module.split("."), function])):
            raise FieldError(f"is no workload (got {shown(workload)}); write module:function")
        return workload

    @property
    def combinations(self) -> list[Combination]:
        """Of batch size and optimizer, as far as they are searched. First the one that `batch_size` and `optimizer`
        name."""
        sizes, names = self.parameters.batch_size or (None,), self.parameters.optimizer
        own = self.batch_size, self.optimizer.name.lower()
        return sorted(
            (Combination(size, name) for name in names for size in sizes),
            key=lambda one: (one.batch_size or own[0], one.optimizer.lower() or own[1]) != own,
        )

    def steps_of(self, steps: int, batch_size: int | None) -> int:
        """How many steps with that batch size see as many samples as `steps` of the study's."""
        return equal_steps(steps, self.batch_size, batch_size) if self.batch_size and batch_size else steps

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for YAML: `parse_config(config.to_dict()) == config`."""
        return self.model_dump(mode="json")


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The search space in a YAML file, or the one of that name (`find_space`), with `KEY.PATH=VALUE` laid over it.

    The VALUE of an override is YAML on one line. Raises InputError, one line with the place and the field.
    """
    return _checked(*read_fields(find_space(source), overrides))


def parse_config(mapping: Mapping[str, Any], source: str = "<python>", overrides: Sequence[str] = ()) -> Config:
    """The search space in plain data, with `KEY.PATH=VALUE` laid over it; `source` stands for the file in messages.
    Raises InputError."""
    data = deepcopy(dict(mapping))
    places: Places = {(): (0, one_line(source))}
    lay_over(data, places, overrides)
    return _checked(data, places)


def _checked(data: Any, places: Places) -> Config:
    issues: list[Issue] = []
    plain = plain_data(data, (), issues)
    if issues:
        raise first_error(issues, places)
    try:
        config = Config.model_validate(plain)
    except ValidationError as error:
        raise first_error(map(_issue, error.errors(include_url=False)), places) from None
    config = _with_plateau_mode(_with_stairs(_with_replicates(_with_min_steps(_with_base(config)))))
    issues = [*_contradictions(config), *_schedule_issues(config), *_fixed_issues(config), *_plateau_issues(config)]
    issues += [*_combination_issues(config), *_plugin_issues(config)]
    if issues:
        raise first_error(issues, places)
    return config


_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "a name",
    "tuple_type": "a list, such as [x, y]",
    "dict_type": "a mapping, such as {key: value}",
    "mapping_type": "a mapping, such as {key: value}",
    "model_type": "a mapping, such as {key: value}",
}


def _issue(error: ErrorDetails) -> Issue:
    """What pydantic found, in the user's words and with the path as it stands in the YAML."""
    kind, got, limits = error["type"], shown(error["input"]), error.get("ctx", {})
    path: FieldPath = error["loc"]
    if path[:2] == ("parameters", "lr_schedule") and len(path) > 2:
        path = (*path[:2], "choices", *path[2:])
    if path[:2] == ("parameters", "optimizer") and len(path) > 2:
        path = (*path[:2], *path[3:]) if path[2] == "" else (*path[:2], "choices", *path[2:])
    if path[:2] == ("parameters", "batch_size") and len(path) > 2:
        path = (*path[:2], "values", *path[2:])
    if kind == "value_error" and isinstance(limits["error"], FieldError):
        return Issue((*path, *limits["error"].path), str(limits["error"]))
    if kind == "missing":
        examples = _model_at(path[:-1]).model_fields[str(path[-1])].examples
        return Issue(path, f"is missing; write, for example, {path[-1]}: {examples[0] if examples else '{...}'}")
    if kind == "extra_forbidden":
        known = _model_at(path[:-1]).model_fields
        return Issue(path, f"is unknown{suggestion(str(path[-1]), known)}; allowed: {', '.join(known)}")
    if kind == "literal_error":
        words = re.findall(r"'(\w+)'", limits["expected"])
        hint = suggestion(error["input"], words) if isinstance(error["input"], str) else ""
        return Issue(path, f"is no choice (got {got}){hint}; allowed: {', '.join(words)}")
    for limit, words_ in (("gt", "greater than"), ("ge", "at least"), ("le", "at most")):
        if limit in limits:
            return Issue(path, f"must be {words_} {limits[limit]:.10g} (got {got})")
    if kind in _WANTED:
        named = kind == "model_type" and isinstance(error["input"], str) and "name" in _model_at(path).model_fields
        advice = f"; write {{name: {shortened(error['input'])}}}" if named else ""
        return Issue(path, f"must be {_WANTED[kind]} (got {got}){advice}")
    return Issue(path, f"{error['msg'][:1].lower()}{error['msg'][1:]} (got {got})")


def _model_at(path: FieldPath) -> type[BaseModel]:
    model: type[BaseModel] = Config
    for part in path:
        if part == "choices":
            return Distribution
        if str(part) not in model.model_fields:  # an argument of the optimizer
            continue
        annotation = model.model_fields[str(part)].annotation
        kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        model = next((kind for kind in kinds if issubclass(kind, BaseModel)), model)
    return model


def _with_base(config: Config) -> Config:
    """The batch size and the optimizer that the study's steps, ramps and fixed configurations are of, where they are
    searched and not said: the first ones."""
    sizes, names = config.parameters.batch_size, list(config.parameters.optimizer)
    update: dict[str, Any] = {}
    if sizes and config.batch_size is None:
        update["batch_size"] = sizes[0]
    if names[0] and "optimizer" not in config.model_fields_set:
        update["optimizer"] = Optimizer(name=names[0])
    return config.model_copy(update=update)


def _with_min_steps(config: Config) -> Config:
    pruner = config.pruner
    if pruner.name == "none" or pruner.min_steps is not None:
        return config
    reports = max(1, -(-config.max_steps // (config.report_every * pruner.reduction_factor**2)))
    pruner = pruner.model_copy(update={"min_steps": reports * config.report_every})
    return config.model_copy(update={"pruner": pruner})


def _with_replicates(config: Config) -> Config:
    """One ramp is read nearly as well as three (docs/search.md): more are for those to whom they cost little."""
    ramp = config.range_test
    if "replicates" in ramp.model_fields_set:
        return config
    affordable = max(1, config.max_steps // ramp.steps)
    ramp = ramp.model_copy(update={"replicates": min(MOST_REPLICATES, affordable)})
    return config.model_copy(update={"range_test": ramp})


def _with_stairs(config: Config) -> Config:
    ramp = config.range_test
    if ramp.mode != "staircase" or ramp.stairs is not None:
        return config
    ramp = ramp.model_copy(update={"stairs": min(STAIRS, ramp.steps)})
    return config.model_copy(update={"range_test": ramp})


def _plateau_mode(config: Config) -> str:
    return "max" if config.metric.goal == "maximize" else "min"


def _with_plateau_mode(config: Config) -> Config:
    """Where the metric is maximized, a `plateau` that does not say its mode gets it."""
    mode, choices = _plateau_mode(config), config.parameters.lr_schedule
    if mode == "min":  # the default
        return config
    fixed = tuple(
        one.model_copy(update={"mode": mode}) if one.lr_schedule == "plateau" and "mode" not in one.parameters else one
        for one in config.fixed
    )
    if "plateau" in choices:
        choices = {**choices, "plateau": {"mode": Distribution(value=mode), **choices["plateau"]}}
    parameters = config.parameters.model_copy(update={"lr_schedule": choices})
    return config.model_copy(update={"parameters": parameters, "fixed": fixed})


def _plateau_issues(config: Config) -> Iterator[Issue]:
    """A `plateau` that waits for the metric to go the wrong way."""
    mode, goal = _plateau_mode(config), config.metric.goal
    path: FieldPath = ("parameters", "lr_schedule", "choices", "plateau", "mode")
    drawn = config.parameters.lr_schedule.get("plateau", {}).get("mode")
    given: list[tuple[FieldPath, Any]] = []
    if drawn is not None:
        given += [((*path, *place), value) for place, value in drawn.bounds_or_values().items()]
    for i, one in enumerate(config.fixed):
        if one.lr_schedule == "plateau" and "mode" in one.parameters:
            given.append((("fixed", i, "mode"), one.parameters["mode"]))
    for place, value in given:
        if value != mode:
            yield Issue(place, f"must be {mode} (got {shown(value)}, metric.goal is {goal}); or leave it out")


def _contradictions(config: Config) -> Iterator[Issue]:
    """Fields that are right by themselves and do not fit each other."""
    every, steps, ramp, lr = config.report_every, config.max_steps, config.range_test, config.parameters.lr
    if every > steps:
        yield Issue(("report_every",), f"must be at most max_steps (got {every}, max_steps is {steps})")
    elif config.pruner.name != "none" and config.pruner.min_steps is not None:
        first = config.pruner.min_steps
        path: FieldPath = ("pruner", "min_steps")
        if first % every:
            yield Issue(path, f"must be a multiple of report_every (got {first}, report_every is {every})")
        elif first >= steps:
            advice = "report more often, or write pruner: {name: none}"
            yield Issue(path, f"must be less than max_steps (got {first}, max_steps is {steps}); {advice}")
    if config.num_trials and "parameters" not in config.model_fields_set:
        example = "parameters: {lr: {min: range_test, max: range_test}, lr_schedule: {values: [constant, cosine]}}"
        yield Issue(("parameters",), f"is missing; write, for example, {example}")
    if not config.num_trials and not config.fixed:
        yield Issue(("num_trials",), "must be at least 1 where no configuration is fixed (got 0)")
    ramps = len(config.combinations) * ramp.replicates * ramp.steps if config.num_trials and lr.needs_range_test else 0
    least = ramps + (len(config.fixed) + bool(config.num_trials)) * steps
    if config.spending and (config.spending.steps(steps) or least) < least:
        what = f"buys no trial (got {config.budget}): ramps take up to {ramps:,} steps, a training {steps:,}"
        yield Issue(("budget",), f"{what}; allowed: from {math.ceil(10 * least / steps) / 10:g}x up")
    confirm = config.confirm
    if confirm.most_seeds < confirm.seeds:
        what = f"must be at least seeds (got {confirm.max_seeds}, seeds is {confirm.seeds})"
        yield Issue(("confirm", "max_seeds"), what)
    if not ramp.low < ramp.high:
        yield Issue(("range_test", "low"), f"must be less than high (got {ramp.low}, high is {ramp.high})")
    if ramp.stairs is not None and ramp.mode != "staircase":
        yield Issue(("range_test", "stairs"), f"goes with staircase only (got {ramp.stairs}, mode is {ramp.mode})")
    elif ramp.stairs is not None and ramp.stairs > ramp.steps:
        yield Issue(("range_test", "stairs"), f"must be at most steps (got {ramp.stairs}, steps is {ramp.steps})")
    if lr.max == "range_test" and isinstance(lr.min, float) and lr.min >= ramp.high:
        yield Issue(("parameters", "lr", "min"), f"must be less than range_test.high (got {lr.min})")
    if lr.min == "range_test" and isinstance(lr.max, float) and lr.max <= ramp.low:
        yield Issue(("parameters", "lr", "max"), f"must be greater than range_test.low (got {lr.max})")
    gpus = config.scaling.gpus_per_worker
    if gpus > 1 and gpus != int(gpus):
        yield Issue(("scaling", "gpus_per_worker"), f"must be a whole number or less than 1 (got {gpus})")


def _combination_issues(config: Config) -> Iterator[Issue]:
    """A batch size or an optimizer of the study that is not among those that are searched, and batches so large that
    not every report is a step further."""
    sizes, names = config.parameters.batch_size, [name.lower() for name in config.parameters.optimizer]
    base, optimizer = config.batch_size, config.optimizer.name
    if names[0] and optimizer.lower() not in names:
        allowed = ", ".join(config.parameters.optimizer)
        yield Issue(("optimizer", "name"), f"must be one of parameters.optimizer (got {shown(optimizer)}): {allowed}")
    if not sizes or base is None:
        return
    if base not in sizes:
        what = f"must be one of parameters.batch_size (got {base}): {', '.join(map(str, sizes))}"
        yield Issue(("batch_size",), what)
    for i, size in enumerate(sizes):
        if config.report_every * base < size:
            most = f"report_every {config.report_every} x batch_size {base}, or a report would be less than a step"
            yield Issue(("parameters", "batch_size", "values", i), f"must be at most {most} (got {size})")


def _plugin_issues(config: Config) -> Iterator[Issue]:
    """What the ColossalAI plugin does not have, or cannot do with these workers, this precision or this optimizer."""
    scaling, training = config.scaling, config.training
    options = scaling.plugin_args
    wrong = [Issue(("scaling", *path), what) for path, what in option_mistakes(scaling.plugin, options)]
    if wrong:
        yield from wrong
        return
    searched = config.parameters.optimizer
    optimizers: dict[FieldPath, str] = {("parameters", "optimizer", "choices", name): name for name in searched if name}
    mistakes = plugin_mistakes(
        scaling.plugin,
        options,
        workers=scaling.workers_per_trial,
        gpus_per_worker=scaling.gpus_per_worker,
        precision=training.precision,
        accumulate=training.accumulate,
        optimizers=optimizers or {("optimizer", "name"): config.optimizer.name},
        decay_all=training.decay_norms_and_biases,
    )
    for path, what in mistakes:
        yield Issue(path, what)
    try:
        shape = layout(scaling.plugin, options, scaling.workers_per_trial)
    except ValueError:
        return  # one of the mistakes
    divisor, name = batch_divisor(shape, options, training.accumulate)
    searched_sizes = enumerate(config.parameters.batch_size or ())
    sizes: dict[FieldPath, int | None] = {("parameters", "batch_size", "values", i): s for i, s in searched_sizes}
    for path, size in (sizes or {("batch_size",): config.batch_size}).items():
        if size is not None and size % divisor:
            yield Issue(path, f"must be a multiple of {name} (got {size})")


def _fixed_issues(config: Config) -> Iterator[Issue]:
    """Fixed configurations that are neither an LR schedule with its LR nor a ramp, or not in order, or there twice."""
    names = [fixed.name for fixed in config.fixed]
    for i, fixed in enumerate(config.fixed):
        path: FieldPath = ("fixed", i)
        ramp, name = fixed.ramp, fixed.lr_schedule
        if names.index(fixed.name) < i:
            yield Issue((*path, "label"), f"is there twice (got {shown(fixed.name)}); give each configuration its own")
        if ramp is not None:
            beside = [key for key in ("lr_schedule", "lr") if getattr(fixed, key) is not None]
            if beside or fixed.parameters:
                first = (*beside, *fixed.parameters)[0]
                yield Issue((*path, first), f"does not go with ramp{suggestion(first, ['label', 'ramp'])}")
            if not ramp.low < ramp.high:
                yield Issue((*path, "ramp", "low"), f"must be less than high (got {ramp.low}, high is {ramp.high})")
            if (ramp.mode == "staircase") != (ramp.stairs is not None):
                yield Issue((*path, "ramp", "stairs"), f"goes with mode staircase, and only so (mode is {ramp.mode})")
            elif ramp.stairs is not None and ramp.stairs > config.max_steps:
                yield Issue((*path, "ramp", "stairs"), f"must be at most max_steps (got {ramp.stairs})")
        elif name is None or fixed.lr is None:
            missing = "lr_schedule" if name is None else "lr"
            yield Issue(path, f"{missing} is missing; write {{lr_schedule: cosine, lr: 0.1}} or {{ramp: ...}}")
        elif name not in SCHEDULES:
            what = f"is no LR schedule (got {shown(name)}){suggestion(name, SCHEDULES)}; allowed: "
            yield Issue((*path, "lr_schedule"), what + ", ".join(SCHEDULES))
        else:
            known = {parameter.name: parameter for parameter in SCHEDULES[name].parameters}
            unknown = next((key for key in fixed.parameters if key not in known), None)
            if unknown is not None:
                what = f"is no parameter of {name}{suggestion(unknown, known)}; allowed: {', '.join(known) or 'none'}"
                yield Issue((*path, unknown), what)
                continue
            try:
                check_parameters(name, fixed.parameters)
            except ValueError as error:
                yield Issue(path, str(error))


def _schedule_issues(config: Config) -> Iterator[Issue]:
    """Parameters that an LR schedule does not have, values that it refuses, and values that it refuses together."""
    for name, drawn in config.parameters.lr_schedule.items():
        path: FieldPath = ("parameters", "lr_schedule", "choices", name)
        known = {parameter.name: parameter for parameter in SCHEDULES[name].parameters}
        found = False
        for key, distribution in drawn.items():
            if key not in known:
                what = f"is no parameter of {name}{suggestion(key, known)}; allowed: {', '.join(known) or 'none'}"
                yield Issue((*path, key), what)
                found = True
                continue
            for place, value in distribution.bounds_or_values().items():
                try:
                    known[key].check(value)
                except ValueError as error:
                    what = str(error).removeprefix(f"{key} ").replace(repr(value), shown(value))
                    yield Issue((*path, key, *place), what)
                    found = True
                    break
        corners = product(*(distribution.bounds_or_values().values() for distribution in drawn.values()))
        for values in islice(corners, 0 if found else 1000):
            try:
                check_parameters(name, dict(zip(drawn, values, strict=True)))
            except ValueError as error:
                yield Issue(path, str(error))
                break
