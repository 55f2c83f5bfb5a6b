"""What the models of the configuration share."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tune_lr.config.messages import shown

Count = Annotated[int, Field(ge=1, le=10**9)]


class FieldError(ValueError):
    """A finished message about a field, or about the one at `path` below it."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FieldError(f"must be a number (got {shown(value)})")
    return value


def positive_lr(value: Any) -> float:
    if float(number(value)) <= 0:
        raise FieldError(f"must be greater than 0 (got {shown(value)})")
    return float(value)
