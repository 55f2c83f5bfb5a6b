"""Reading of fields as a user writes them, in YAML and `--set`, into plain data and the place of each field.

PyYAML's own loader reads `1e-4` as text and `no` as false, lets the last of two equal keys win and recurses to death on
deep nesting. Here the parser's events are turned into data one by one instead, so that nothing is built before it was
judged, and no loader that another library uses is changed.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tune_lr.config.messages import FieldPath, Places, escaped, field_name, shortened, shown
from tune_lr.errors import InputError

# PyYAML reads about 100 kB a second, so that a file of this size is refused in well under 2 s.
MAX_BYTES = 64 * 1024
MAX_DEPTH = 20
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
_FLOAT = re.compile(r"[-+]?([0-9]+(_[0-9]+)*(\.[0-9]*|(?=[eE]))|\.[0-9]+)([eE][-+]?[0-9]+)?")
_NOT_FINITE = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


def read_yaml_file(path: Path) -> tuple[Any, dict[FieldPath, int]]:
    """Return the data of a YAML file, and the line of every field path, counted from 1.

    Raises InputError with file, line and field for whatever is not one UTF-8 document of plain data.
    """
    name = escaped(str(path))
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None
    if len(raw) > MAX_BYTES:
        raise InputError(f"{name}:1: is too large (got {size} bytes); at most {MAX_BYTES} bytes")
    try:
        if b"\0" in raw:
            raise UnicodeDecodeError("utf-8", raw, raw.index(b"\0"), raw.index(b"\0") + 1, "NUL")
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{name}:{line}: is not text (got byte 0x{raw[error.start]:02x}); write YAML in UTF-8"
        ) from None
    return read_yaml(text, name)


def read_yaml(text: str, name: str, with_lines: bool = True) -> tuple[Any, dict[FieldPath, int]]:
    """Return the data of a YAML text, and the line of every field path; `name` begins each InputError."""
    reader = _Reader(text, name, with_lines)
    return reader.document(), reader.lines


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return event.start_mark.line + 1


class _Reader:
    """Turns the events of PyYAML's parser into data, and keeps the line of every field."""

    def __init__(self, text: str, name: str, with_lines: bool) -> None:
        self.text = text
        self.name = name
        self.with_lines = with_lines
        self.lines: dict[FieldPath, int] = {}

    def error(self, line: int, path: FieldPath, what: str) -> InputError:
        where = f"{self.name}:{line}" if self.with_lines else self.name
        field = f" {field_name(path)}" if path else ""
        return InputError(f"{where}{field}: {what}")

    def document(self) -> Any:
        events = self.events()
        data = None
        documents = 0
        for event in events:
            if not isinstance(event, yaml.NodeEvent):
                continue
            documents += 1
            if documents > 1:
                raise self.error(_line(event), (), "a second document begins; write one, without `---`")
            self.lines[()] = _line(event)
            data = self.node(event, events, ())
        self.lines.setdefault((), 1)
        return data

    def events(self) -> Iterator[yaml.Event]:
        """Yield PyYAML's events; its errors are put into one line."""
        try:
            yield from yaml.parse(self.text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            what = ", ".join(part for part in (error.context, error.problem) if part)
            if "'\\t'" in what:
                what += " (a tab)"
            advice = "check indentation, colons, quotes and brackets up to here"
            raise self.error(line, (), f"is not valid YAML: {escaped(what)}; {advice}") from None
        except yaml.reader.ReaderError as error:
            line = self.text.count("\n", 0, error.position) + 1
            char = f"\\x{error.character:02x}" if isinstance(error.character, int) else shown(error.character)
            raise self.error(line, (), f"has a character that YAML does not allow (got {char}); remove it") from None
        except (ValueError, OverflowError) as error:  # PyYAML lets absurd escapes and version numbers through.
            raise self.error(1, (), f"is not valid YAML: {escaped(str(error))}") from None

    def node(self, event: yaml.Event, events: Iterator[yaml.Event], path: FieldPath) -> Any:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            raise self.error(line, path, f"aliases are not allowed (got *{event.anchor}); write the value out")
        assert isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent))
        if event.anchor is not None:
            raise self.error(line, path, f"anchors are not allowed (got &{event.anchor}); write the value out")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise self.error(line, path, f"tags are not allowed (got {shortened(tag)}); write a plain value")
        if len(path) >= MAX_DEPTH and not isinstance(event, yaml.ScalarEvent):
            raise self.error(line, path[:3], f"is nested too deeply; at most {MAX_DEPTH} levels")
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(events, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(events, path)
        assert isinstance(event, yaml.ScalarEvent)
        return self.scalar(event, path) if event.implicit[0] else event.value

    def mapping(self, events: Iterator[yaml.Event], path: FieldPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            line = _line(event)
            if not isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent)):
                raise self.error(line, path, "a key must be one word (got a list or a mapping); check the brackets")
            key = self.node(event, events, path)
            if not isinstance(key, str):
                raise self.error(line, path, f"a key must be text (got {shown(key)}); put it into quotes")
            here = (*path, key)
            if key in data:
                raise self.error(line, here, f"is given twice (first on line {self.lines[here]}); keep one of them")
            self.lines[here] = line
            data[key] = self.node(next(events), events, here)
        return data

    def sequence(self, events: Iterator[yaml.Event], path: FieldPath) -> list[Any]:
        data: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            here = (*path, len(data))
            self.lines[here] = _line(event)
            data.append(self.node(event, events, here))
        return data

    def scalar(self, event: yaml.ScalarEvent, path: FieldPath) -> Any:
        """Return the value of a word without quotes. Only true, false and null have a meaning; `no` stays text."""
        text = event.value
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
        if text.lower() in _NOT_FINITE:
            return float(_NOT_FINITE[text.lower()])
        if _INT.fullmatch(text):
            if len(text) > 30:
                raise self.error(_line(event), path, f"is too long a number (got {shortened(text)})")
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        if _DATE.fullmatch(text):
            advice = "put it into quotes if it is meant as text"
            raise self.error(_line(event), path, f"dates are not read (got {shown(text)}); {advice}")
        return text


def read_fields(path: Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Places]:
    """Return the fields of a YAML file with each `KEY.PATH=VALUE` laid over them, and where each was written.

    Raises InputError, one line with the place and the field.
    """
    data, lines = read_yaml_file(path)
    name = escaped(str(path))
    if not isinstance(data, dict):
        kind = "is empty" if data is None else f"is not a mapping (got {shown(data)})"
        raise InputError(f"{name}:{lines[()]}: {kind}; write fields, such as `max_steps: 310`")
    places: Places = {field: (line, f"{name}:{line}") for field, line in lines.items()}
    lay_over(data, places, overrides)
    return data, places


def lay_over(data: dict[str, Any], places: Places, overrides: Sequence[str]) -> None:
    """Change `data` by each `KEY.PATH=VALUE` in turn, and `places` with it."""
    for number, override in enumerate(overrides):
        _lay_over(data, places, override, 10**9 + number)


def _lay_over(data: dict[str, Any], places: Places, override: str, order: int) -> None:
    key, equals, text = override.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    source = f"--set {shortened(override)}"
    place = (order, source)
    if not equals or not all(path):
        raise InputError(f"{source}: is no override; write KEY.PATH=VALUE, such as confirm.top=2")
    value, _ = read_yaml(text, source, with_lines=False)
    node = data
    for depth, part in enumerate(path[:-1], start=1):
        if node.get(part) is None:
            node[part] = {}
            places[path[:depth]] = place
        if not isinstance(node[part], dict):
            what = f"has no fields (got {shown(node[part])}); set it as a whole"
            raise InputError(f"{source} {field_name(path[:depth])}: {what}")
        node = node[part]
    node[path[-1]] = value
    for stale in [field for field in places if field[: len(path)] == path]:
        del places[stale]
    places[path] = place
