"""Search spaces as they are written, before they are checked: in a YAML file, by name, or as a mapping in Python."""

import os
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_lr.config.messages import Places, escaped, shortened
from tune_lr.config.yaml_file import lay_over, read_fields
from tune_lr.errors import InputError, suggestion


@dataclass(frozen=True)
class WrittenSpace:
    """The fields of a search space with the overrides laid over them."""

    data: Any
    places: Places  # where each field was written
    python_path: tuple[str, ...]  # where its Python files lie


def written_space(source: str | Path | Mapping[str, Any], overrides: Sequence[str]) -> WrittenSpace:
    """Return the fields in a YAML file, in the one of that name (`find_space`), or in a mapping.

    Python files lie beside the YAML file and in the current directory. Raises InputError.
    """
    if isinstance(source, Mapping):
        return written_mapping(_importable(source), "<python>", overrides)
    path = find_space(source)
    data, places = read_fields(path, overrides)
    folders = (str(path.resolve().parent), str(Path.cwd()))
    return WrittenSpace(data, places, tuple(dict.fromkeys(folders)))


def written_mapping(mapping: Mapping[str, Any], source: str, overrides: Sequence[str]) -> WrittenSpace:
    """Return the fields in a mapping; `source` stands for the file in messages. Raises InputError."""
    data = deepcopy(dict(mapping))
    places: Places = {(): (0, escaped(source))}
    lay_over(data, places, overrides)
    return WrittenSpace(data, places, (str(Path.cwd()),))


def find_space(source: str | Path) -> Path:
    """Return the YAML file `source`, or the one of that name in search_spaces/ ("lenet5_mnist", "cs5260/b4_onecycle").

    The folder search_spaces/ is looked for in the current directory, in the checkout, and in the wheel. Raises
    InputError, with the names that there are, if there is no such file.
    """
    text = str(source)
    # The methods of Path raise OSError for a name that is too long; these functions are false.
    if os.path.isfile(text):  # noqa: PTH113 - see above
        return Path(text)
    package = Path(__file__).resolve().parent.parent
    folders = [Path("search_spaces"), package.parent / "search_spaces", package / "_search_spaces"]
    if re.fullmatch(r"([\w.-]+/)?[\w.-]+", text) and ".." not in text:
        for folder in folders:
            for name in (text, f"{text}.yaml"):
                if os.path.isfile(folder / name):  # noqa: PTH113 - see above
                    return folder / name
    if os.path.isdir(text):  # noqa: PTH112 - see above
        raise InputError(f"{escaped(text)}: is a directory; give a YAML file, or the name of a search space")
    if os.path.exists(text):  # noqa: PTH110 - see above
        raise InputError(f"{escaped(text)}: is not a regular file; give a YAML file, or the name of a search space")
    files = [file.relative_to(folder) for folder in folders for file in folder.rglob("*.yaml")]
    names = sorted({str(file.with_suffix("")) for file in files})
    hint = suggestion(text.removesuffix(".yaml"), names)
    allowed = f"give a YAML file, or one of: {', '.join(names) or 'none here'}"
    raise InputError(f"{shortened(text)}: no such file or search space{hint}; {allowed}")


def _importable(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """The mapping with its workload named, where that is the function itself."""
    workload = mapping.get("workload")
    if not callable(workload):
        return mapping
    if workload.__module__ == "__main__" or "<" in workload.__qualname__:
        raise InputError("workload: workers can only import a function at the top of a module, and not of __main__")
    return {**mapping, "workload": f"{workload.__module__}:{workload.__qualname__}"}
