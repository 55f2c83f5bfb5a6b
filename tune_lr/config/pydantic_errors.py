"""What pydantic finds wrong, in the user's words."""

import re
from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from tune_lr.config.base import FieldError
from tune_lr.config.messages import FieldPath, Issue, shortened, shown
from tune_lr.config.model import Config
from tune_lr.config.parameters import Distribution
from tune_lr.errors import suggestion

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


def issue_of(error: ErrorDetails) -> Issue:
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
