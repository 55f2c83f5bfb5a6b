"""What the pydantic models of the configuration share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tune_lr.config.messages import shown

Count = Annotated[int, Field(ge=1, le=10**9)]


class FieldError(ValueError):
    """A finished message about a field, or about the field at `path` below it."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path


class Model(BaseModel):
    """A part of the configuration: frozen, without unknown keys, and without conversions between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def is_int(value: object) -> bool:
    """Return whether `value` is a whole number. In Python True is an integer; here it is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def number(value: object) -> int | float:
    """Return `value`. Raises FieldError unless it is a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FieldError(f"must be a number (got {shown(value)})")
    return value


def positive_lr(value: object) -> float:
    """Return `value` as a float. Raises FieldError unless it is a number greater than 0."""
    lr = float(number(value))
    if lr <= 0:
        raise FieldError(f"must be greater than 0 (got {shown(value)})")
    return lr
