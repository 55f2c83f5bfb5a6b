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

# What a field must be, by pydantic's name of the error.
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
    """Return what pydantic found, in the user's words and with the path as it stands in the YAML."""
    kind = error["type"]
    got = shown(error["input"])
    limits = error.get("ctx", {})
    path = _path_in_yaml(error["loc"])
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
    for limit, comparison in (("gt", "greater than"), ("ge", "at least"), ("le", "at most")):
        if limit in limits:
            return Issue(path, f"must be {comparison} {limits[limit]:.10g} (got {got})")
    if kind in _WANTED:
        named = kind == "model_type" and isinstance(error["input"], str) and "name" in _model_at(path).model_fields
        advice = f"; write {{name: {shortened(error['input'])}}}" if named else ""
        return Issue(path, f"must be {_WANTED[kind]} (got {got}){advice}")
    return Issue(path, f"{error['msg'][:1].lower()}{error['msg'][1:]} (got {got})")


def _path_in_yaml(path: FieldPath) -> FieldPath:
    """Return the path of a field as a user writes it, from its path in the models.

    The models have the choices of LR schedules, optimizers and batch sizes without the words `choices` and `values`.
    An optimizer "" is the one that the field `optimizer` names.
    """
    field, inner = path[:2], path[2:]
    if not inner:
        return path
    if field == ("parameters", "lr_schedule"):
        return (*field, "choices", *inner)
    if field == ("parameters", "optimizer"):
        return (*field, *inner[1:]) if inner[0] == "" else (*field, "choices", *inner)
    if field == ("parameters", "batch_size"):
        return (*field, "values", *inner)
    return path


def _model_at(path: FieldPath) -> type[BaseModel]:
    """Return the model of the field at `path`, or of the nearest field around it that has one."""
    model: type[BaseModel] = Config
    for part in path:
        if part == "choices":
            return Distribution
        if str(part) not in model.model_fields:  # It is an argument of the optimizer.
            continue
        annotation = model.model_fields[str(part)].annotation
        kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        model = next((kind for kind in kinds if issubclass(kind, BaseModel)), model)
    return model
