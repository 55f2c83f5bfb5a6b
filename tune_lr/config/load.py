"""Loading of a search space: from a YAML file or from plain data to a checked `Config`.

There are three stages: is it plain data, is every field right by itself (pydantic), do the fields fit each other. Every
error is one line: `FILE:LINE FIELD: what is wrong (got X); what is allowed`.
"""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tune_lr.config.consistency import contradictions
from tune_lr.config.defaults import with_defaults
from tune_lr.config.messages import FieldPath, Issue, Places, escaped, first_error, shown
from tune_lr.config.model import Config
from tune_lr.config.pydantic_errors import issue_of
from tune_lr.config.spaces import find_space
from tune_lr.config.yaml_file import MAX_DEPTH, lay_over, read_fields


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return the search space in a YAML file, or the one of that name (`find_space`), with the overrides laid over it.

    An override is `KEY.PATH=VALUE`; its VALUE is YAML on one line. Raises InputError, one line with the place and the
    field.
    """
    return _checked(*read_fields(find_space(source), overrides))


def parse_config(mapping: Mapping[str, Any], source: str = "<python>", overrides: Sequence[str] = ()) -> Config:
    """Return the search space in plain data, as `load_config` does; `source` stands for the file in messages."""
    data = deepcopy(dict(mapping))
    places: Places = {(): (0, escaped(source))}
    lay_over(data, places, overrides)
    return _checked(data, places)


def _checked(data: Mapping[str, Any], places: Places) -> Config:
    issues: list[Issue] = []
    plain = _plain_data(data, (), issues)
    if issues:
        raise first_error(issues, places)
    try:
        config = Config.model_validate(plain)
    except ValidationError as error:
        raise first_error(map(issue_of, error.errors(include_url=False)), places) from None
    config = with_defaults(config)
    issues = contradictions(config)
    if issues:
        raise first_error(issues, places)
    return config


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
