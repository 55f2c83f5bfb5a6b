"""What is searched: the peak LR, LR schedules, their parameters, optimizers and batch sizes; how each is drawn."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, PlainValidator, Strict, field_serializer, field_validator, model_serializer, model_validator

from tune_lr.config.base import Count, FieldError, Model, is_int, number, positive_lr
from tune_lr.config.messages import FieldPath, shown
from tune_lr.errors import suggestion
from tune_lr.lr.schedules import SCHEDULES
from tune_lr.records.parameters import BATCH_SIZE, OPTIMIZER, setting


class Drawn(Model):
    """What Distribution and LRRange have in common: one `value`, or one of `values`, or between `min` and `max`."""

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
            return data  # pydantic will name the unknown keys.
        form = [key for key in ("value", "values", "min", "max") if data.get(key) is not None]
        if form not in (["value"], ["values"], ["min", "max"]):
            allowed = "{value: x}, {values: [x, y]} or {min: x, max: y}"
            raise FieldError(f"has no single form (got {' and '.join(form) or 'none'}); write {allowed}")
        if form != ["min", "max"] and data.get("distribution") is not None:
            raise FieldError(f"goes with min and max only (got {shown(data['distribution'])})", "distribution")
        if form == ["values"]:
            _check_values(data["values"])
        return cls._filled_in(data) if form == ["min", "max"] else data

    @classmethod
    def _filled_in(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Return a range with its `distribution`."""
        return data

    @model_serializer(mode="plain")
    def _without_unset(self) -> dict[str, Any]:
        return {key: value for key, value in self if value is not None}


def _check_values(values: object) -> None:
    """Raise FieldError for a list that is empty or holds a value twice. Whatever is no list is left to pydantic."""
    if not isinstance(values, list):
        return
    if not values:
        raise FieldError("is empty (got []); write at least one value", "values")
    for i, value in enumerate(values):
        if any(value == other and type(value) is type(other) for other in values[:i]):
            raise FieldError(f"is given twice (got {shown(value)}); keep one of them", "values", i)


class Distribution(Drawn):
    """How one parameter of an LR schedule, or one argument of the optimizer, is drawn.

    `distribution` is set exactly where `min` and `max` are. The bounds are ints for `int_uniform` (both inclusive) and
    floats for `uniform` and `log_uniform_values`. If the distribution is left out, it is `int_uniform` for two ints,
    unless the parameter is a plain number such as a factor, and `uniform` otherwise.
    """

    value: Any = None
    values: Annotated[tuple[Any, ...], Strict(False)] | None = None
    min: Annotated[int | float, PlainValidator(number)] | None = None
    max: Annotated[int | float, PlainValidator(number)] | None = None
    distribution: Literal["uniform", "log_uniform_values", "int_uniform"] | None = None

    @classmethod
    def _filled_in(cls, data: dict[str, Any]) -> dict[str, Any]:
        bounds = {key: data[key] for key in ("min", "max")}
        name = data.get("distribution")
        if name is None:
            name = "int_uniform" if all(map(is_int, bounds.values())) else "uniform"
        if name != "int_uniform":
            bounds = {key: float(bound) if is_int(bound) else bound for key, bound in bounds.items()}
        return {**bounds, "distribution": name}

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min is None or self.max is None:
            return self
        for key, bound in (("min", self.min), ("max", self.max)):
            if self.distribution == "int_uniform" and not is_int(bound):
                raise FieldError(f"must be a whole number for int_uniform (got {shown(bound)})", key)
            if self.distribution == "log_uniform_values" and bound <= 0:
                raise FieldError(f"must be greater than 0 for log_uniform_values (got {shown(bound)})", key)
        if not self.min < self.max:
            raise FieldError(f"must be less than max (got {shown(self.min)}, max is {shown(self.max)})", "min")
        return self

    def bounds_or_values(self) -> dict[FieldPath, Any]:
        """Return every value that is written out, by its path in the YAML: the one, all of the list, or both ends."""
        if self.values is not None:
            return {("values", i): value for i, value in enumerate(self.values)}
        return {("value",): self.value} if self.min is None else {("min",): self.min, ("max",): self.max}

    def position_of(self, value: Any) -> float:
        """Return where a value lies between the ends or among the values, from 0 to 1."""
        if self.values is not None:
            return self.values.index(value) / max(1, len(self.values) - 1)
        if self.min is None or self.max is None:
            return 0.0
        if self.distribution == "log_uniform_values":
            return math.log(value / self.min) / math.log(self.max / self.min)
        return float((value - self.min) / (self.max - self.min))

    def middle(self) -> Any:
        """Return the value, the middle one of the values, or the middle of the range on the distribution's scale."""
        if self.values is not None:
            return self.values[(len(self.values) - 1) // 2]
        if self.min is None or self.max is None:
            return self.value
        if self.distribution == "int_uniform":
            return int(self.min + self.max) // 2
        if self.distribution == "log_uniform_values":
            return math.sqrt(self.min * self.max)
        return (self.min + self.max) / 2


def _lr_bound(value: object) -> float | str:
    """Return an end of the LR's range: a number, or the word `range_test`. Raises FieldError for all else."""
    if isinstance(value, str):
        if value != "range_test":
            hint = suggestion(value, ["range_test"])
            raise FieldError(f"must be a number or range_test (got {shown(value)}){hint}")
        return value
    return positive_lr(value)


class LRRange(Drawn):
    """How the peak LR is drawn: one `value`, or one of `values`, or log-uniformly between `min` and `max`.

    Each of these two bounds is a number or the word `range_test`: that bound comes from the LR range test.
    """

    value: Annotated[float, PlainValidator(positive_lr)] | None = None
    values: Annotated[tuple[Annotated[float, PlainValidator(positive_lr)], ...], Strict(False)] | None = None
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
    """A batch size and an optimizer, as far as they are searched. Each has an LR range test and bounds of its own.

    `batch_size` is None and `optimizer` is "" where all trials have those of the study.
    """

    batch_size: int | None = None
    optimizer: str = ""

    def __str__(self) -> str:
        return setting({BATCH_SIZE: self.batch_size, f"{OPTIMIZER}name": self.optimizer})


# For each name, how its parameters are drawn.
Choices = Mapping[str, Mapping[str, Distribution]]


class Parameters(Model):
    """What is searched.

    `lr_schedule` holds for each LR schedule, by name, how its parameters are drawn. One that is left out keeps its
    default. `optimizer` holds for each optimizer how its arguments are drawn; "" stands for the one that the field
    `optimizer` names, where no other is searched. `batch_size` is None where it is not searched.
    """

    lr: LRRange
    lr_schedule: Choices
    optimizer: Choices = Field(default={"": {}})
    batch_size: tuple[Count, ...] | None = None

    @field_validator("batch_size", mode="before")
    @classmethod
    def _read_batch_sizes(cls, data: Any) -> Any:
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
    def _write_batch_sizes(self, sizes: tuple[int, ...] | None) -> dict[str, Any] | None:
        return {"values": list(sizes)} if sizes else None

    @field_validator("optimizer", mode="before")
    @classmethod
    def _read_optimizers(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        form = next((form for form in ("choices", "values") if form in data), None)
        if form is None:
            return {"": _arguments(data)}
        given = data[form]
        kind = dict if form == "choices" else list
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
            drawn = given[name] if isinstance(given, dict) else None
            choices[name] = _arguments(drawn or {}, *place)
        return choices

    @field_serializer("optimizer")
    def _write_optimizers(self, choices: Choices) -> dict[str, Any]:
        plain = _plain_choices(choices)
        return plain.get("", {"choices": plain})

    @field_validator("lr_schedule", mode="before")
    @classmethod
    def _read_lr_schedules(cls, data: Any) -> Any:
        choices: dict[str, Any] = {}
        for path, name, drawn in _named_schedules(data):
            if not isinstance(name, str) or name not in SCHEDULES:
                hint = suggestion(name, SCHEDULES) if isinstance(name, str) else ""
                allowed = ", ".join(SCHEDULES)
                raise FieldError(f"is no LR schedule (got {shown(name)}){hint}; allowed: {allowed}", *path)
            if name in choices:
                raise FieldError(f"is given twice (got {shown(name)}); keep one of them", *path)
            choices[name] = {} if drawn is None else _with_uniform_numbers(name, drawn)
        return choices

    @field_serializer("lr_schedule")
    def _write_lr_schedules(self, choices: Choices) -> dict[str, Any]:
        return {"choices": _plain_choices(choices)}


def _plain_choices(choices: Choices) -> dict[str, dict[str, Any]]:
    return {
        name: {key: distribution.model_dump() for key, distribution in distributions.items()}
        for name, distributions in choices.items()
    }


def _named_schedules(data: object) -> list[tuple[FieldPath, Any, Any]]:
    """Return the LR schedules that a user names: path in the YAML, name, and how its parameters are drawn or None.

    Raises FieldError if `data` has none of the three forms.
    """
    if isinstance(data, dict) and len(data) == 1:
        form, inner = next(iter(data.items()))
        if form == "choices" and isinstance(inner, dict) and inner:
            return [((form, name), name, drawn) for name, drawn in inner.items()]
        if form == "values" and isinstance(inner, list) and inner:
            return [((form, i), name, None) for i, name in enumerate(inner)]
        if form == "value":
            return [((form,), inner, None)]
    allowed = "{choices: {constant: {}, cosine: {}}}, {value: constant} or {values: [constant, cosine]}"
    raise FieldError(f"names no LR schedules (got {shown(data)}); write {allowed}")


def _arguments(drawn: Any, *path: str | int) -> Any:
    """Return how the arguments of an optimizer are drawn, which stand at `path`. Raises FieldError for lr and name."""
    if not isinstance(drawn, dict):
        return drawn
    for name, field in (("lr", "parameters.lr"), ("name", "optimizer.name")):
        if name in drawn:
            raise FieldError(f"is set by {field} (got {shown(drawn[name])}); write it there", *path, name)
    return {name: _with_uniform(distribution) for name, distribution in drawn.items()}


def _with_uniform_numbers(schedule: str, drawn: Any) -> Any:
    """Fill in `uniform` for the ranges of plain numbers: `floor: {min: 0, max: 1}` means every number between."""
    if not isinstance(drawn, dict):
        return drawn
    numbers = {parameter.name for parameter in SCHEDULES[schedule].parameters if parameter.kind == "number"}
    return {key: _with_uniform(distribution) if key in numbers else distribution for key, distribution in drawn.items()}


def _with_uniform(distribution: Any) -> Any:
    """Fill in `uniform` for a range that does not say its distribution."""
    is_range = isinstance(distribution, dict) and {"min", "max"} <= distribution.keys()
    if is_range and distribution.get("distribution") is None:
        return {**distribution, "distribution": "uniform"}
    return distribution
