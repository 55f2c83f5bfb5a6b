"""Files that are whole or not there: atomic replacement, and YAML and JSON written with it.

A reader sees the old file or the new one, never half of one. What is written is on the disk, not only in the system's
cache, before a function here returns.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from tune_lr.errors import ResourceError


@contextmanager
def replacing(path: Path) -> Iterator[IO[str]]:
    """Give a text file that takes the place of `path` when the block ends.

    Where the block raises, `path` stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_renames_durable(folder: Path) -> None:
    """Wait until the disk knows of every file that was renamed in `folder`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_yaml(path: Path, value: Mapping[str, Any]) -> None:
    """Replace `path` by `value` as YAML, with its keys in their order."""
    with replacing(path) as file:
        yaml.dump(dict(value), file, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raises ResourceError where there is none."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResourceError(f"{path}: there is no such file; is {path.parent} a study directory?") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        raise ResourceError(f"{path}: cannot be read as YAML") from None
    if not isinstance(value, dict):
        raise ResourceError(f"{path}: empty or cut short")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace `path` by `value` as JSON. Raises ValueError where a number is not finite."""
    with replacing(path) as file:
        json.dump(value, file, indent=2, allow_nan=False)
        file.write("\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file. Raises OSError or ValueError where there is none."""
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path}: no mapping")
    return value


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block that can be pasted, and floats in digits that YAML 1.1 reads back."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    if not math.isfinite(value):
        return dumper.represent_float(value)
    text = repr(value)
    if "e" in text and "." not in text:  # YAML 1.1 reads 1e-05 as text, and 1.0e-05 as a number
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(float, _represent_float)
