"""What is searched: the peak LR, LR schedules with their parameters, optimizers batch sizes, and how each is drawn."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import PlainValidator, Strict, field_serializer, field_validator, model_serializer, model_validator

from tune_lr.config.base import Count, FieldError, Model, is_int, number, positive_lr
from tune_lr.config.messages import FieldPath, shown
from tune_lr.errors import suggestion
from tune_lr.lr.schedules import SCHEDULES
from tune_lr.records.parameters import BATCH_SIZE, OPTIMIZER, setting


class Drawn(Model):
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


class Distribution(Drawn):
    """How one parameter of an LR schedule, or one argument of the optimizer, is drawn: one `value`, or one of `values`,
    or between `min` and `max`.

    `distribution` is set exactly where `min` and `max` are. Its bounds are ints for `int_uniform` (both inclusive) and
    floats for `uniform` and `log_uniform_values`. Left out, it is `int_uniform` where both bounds are ints, unless the
    parameter is a plain number such as a factor, and `uniform` otherwise.
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


def _lr_bound(value: Any) -> float | str:
    if isinstance(value, str):
        if value != "range_test":
            hint = suggestion(value, ["range_test"])
            raise FieldError(f"must be a number or range_test (got {shown(value)}){hint}")
        return value
    return positive_lr(value)


class LRRange(Drawn):
    """How the peak LR is drawn: one `value`, or one of `values`, or log-uniformly between `min` and `max`, each of
    which is a number or the word `range_test`: that bound comes from the LR range test.
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
    """A batch size and an optimizer, as far as they are searched: each combination has an LR range test and bounds of
    its own."""

    batch_size: int | None = None  # None: all trials have the study's
    optimizer: str = ""  # "": all trials have the study's

    def __str__(self) -> str:
        return setting({BATCH_SIZE: self.batch_size, f"{OPTIMIZER}name": self.optimizer})


class Parameters(Model):
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
