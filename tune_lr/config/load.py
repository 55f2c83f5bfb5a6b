"""Loading of a search space: from a YAML file or from plain data to a checked `Config`.

`config.spaces` finds it as it was written. Here it is checked in three stages: is it plain data, is every field right
by itself (pydantic), do the fields fit each other. Every error is one line:
`FILE:LINE FIELD: what is wrong (got X); what is allowed`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tune_lr.config.consistency import contradictions
from tune_lr.config.defaults import with_defaults
from tune_lr.config.messages import FieldPath, Issue, first_error, shown
from tune_lr.config.model import Config
from tune_lr.config.pydantic_errors import issue_of
from tune_lr.config.spaces import WrittenSpace, written_mapping, written_space
from tune_lr.config.user_code import check_names
from tune_lr.config.yaml_file import MAX_DEPTH
from tune_lr.errors import InputError


@dataclass(frozen=True)
class Space:
    """A search space that was read and checked."""

    config: Config
    python_path: tuple[str, ...]  # where its Python files lie


def read_space(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Space:
    """Return the search space in a YAML file, the one of that name, or the one that a mapping is.

    `KEY.PATH=VALUE` is laid over it; the VALUE is YAML on one line. In a mapping the workload may be a function. Raises
    InputError, one line with the place and the field, or with the Python file that hides a module of the libraries.
    """
    space = _checked(written_space(source, overrides))
    check_names(space.python_path)
    return space


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return the configuration in a YAML file, or in the search space of that name. Raises as `read_space` does."""
    return read_space(source, overrides).config


def parse_config(mapping: Mapping[str, Any], source: str = "<python>", overrides: Sequence[str] = ()) -> Config:
    """Return the configuration in plain data, with `KEY.PATH=VALUE` laid over it.

    `source` stands for the file in messages. Raises InputError.
    """
    return _checked(written_mapping(mapping, source, overrides)).config


def overrides_of(settings: Mapping[str, Any] | None) -> list[str]:
    """Return settings such as {"optimizer.momentum": 0.8} as overrides, `KEY.PATH=VALUE`."""
    return [f"{key}={json.dumps(value, default=_plain)}" for key, value in (settings or {}).items()]


def _checked(written: WrittenSpace) -> Space:
    issues: list[Issue] = []
    plain = _plain_data(written.data, (), issues)
    if issues:
        raise first_error(issues, written.places)
    try:
        config = Config.model_validate(plain)
    except ValidationError as error:
        raise first_error(map(issue_of, error.errors(include_url=False)), written.places) from None
    config = with_defaults(config)
    issues = contradictions(config)
    if issues:
        raise first_error(issues, written.places)
    return Space(config, written.python_path)


def _plain_data(value: Any, path: FieldPath, issues: list[Issue]) -> Any:
    """Return a copy as plain data; what is no data, or a number that no field can hold, is added to `issues`."""
    if len(path) > MAX_DEPTH:
        issues.append(Issue(path[:3], f"is nested too deeply; at most {MAX_DEPTH} levels"))
    elif isinstance(value, Mapping):
        no_names = [key for key in value if not isinstance(key, str)]
        issues += [Issue(path, f"a key must be text (got {shown(key)})") for key in no_names]
        return {key: _plain_data(inner, (*path, key), issues) for key, inner in value.items() if isinstance(key, str)}
    elif isinstance(value, (list, tuple)):
        return [_plain_data(inner, (*path, i), issues) for i, inner in enumerate(value)]
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        issues.append(Issue(path, f"is too large a number (got {shown(value)}); at most 64 bits"))
    elif isinstance(value, float) and not math.isfinite(value):
        issues.append(Issue(path, f"must be a finite number (got {shown(value)})"))
    elif value is not None and not isinstance(value, (bool, int, float, str)):
        issues.append(Issue(path, f"is not plain data (got {shown(value)}); write text, numbers, lists and mappings"))
    return value


def _plain(value: Any) -> Any:
    """Return a number or an array of numpy as Python's own, for JSON. Raises InputError for anything else."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise InputError(f"settings: {value!r} is a {type(value).__name__}; allowed are numbers, text, lists and mappings")
