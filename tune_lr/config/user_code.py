"""The user's own Python files: which ones a study imports, whether they have changed, and whether a name hides another.

The files are found by reading, not by importing: the workload's module, an optimizer class of the user's own, and all
that their `import` statements name, as far as it lies in the folders that are sent to the workers. A module that is
only named in a string, as in `importlib.import_module("x")`, is not found.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from tune_lr.config.messages import escaped
from tune_lr.errors import InputError

if TYPE_CHECKING:
    from tune_lr.config.model import Config

DIGEST_LENGTH = 12  # hexadecimal digits of a file's SHA-256, enough to tell two versions apart
OWN = "tune_lr"  # its version stands in study.yaml
# Folders that many packages install by mistake. Nobody imports them.
COMMON_FOLDERS = {"tests", "test", "examples", "example", "docs", "doc", "benchmarks", "scripts", "tools"}


def fingerprint(config: "Config", python_path: Sequence[str]) -> dict[str, str]:
    """Return a digest of each of the user's files that a study imports, by its path below its folder."""
    found: dict[str, str] = {}
    seen: set[Path] = set()
    waiting = [reference.partition(":")[0] for reference in _references(config)]
    folders = [Path(folder) for folder in python_path]
    while waiting:
        for folder, path in _files_of(waiting.pop(), folders):
            if path in seen:
                continue
            seen.add(path)
            try:
                text = path.read_bytes()
            except OSError:
                continue  # whoever imports it says so
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(text).hexdigest()[:DIGEST_LENGTH]
            waiting += _imports(text, path.relative_to(folder))
    return dict(sorted(found.items()))


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return what differs between two fingerprints: one text for each file."""
    texts = []
    for name in sorted({*old, *new}):
        if name not in new:
            texts.append(f"{name} is gone (was {old[name]})")
        elif name not in old:
            texts.append(f"{name} is new ({new[name]})")
        elif old[name] != new[name]:
            texts.append(f"{name} has changed (was {old[name]}, is {new[name]})")
    return texts


def check_code(recorded: Mapping[str, str], now: Mapping[str, str], *, accept: bool) -> list[str]:
    """Return what has changed in the user's files since a study recorded them; nothing where it recorded none.

    Raises InputError for a change, unless it is accepted.
    """
    changed = changes(recorded, now) if recorded else []
    if changed and not accept:
        raise InputError(
            f"the code has changed since the study was made: {escaped('; '.join(changed))}; its trials would not be "
            "comparable with new ones: undo the change, or give --accept-changed-code (accept_changed_code=True)"
        )
    return changed


def check_names(python_path: Sequence[str]) -> None:
    """Raise InputError where a module in these folders hides one that torch or another library imports by that name.

    Workers look into these folders first, so a file `profile.py` takes the place of the standard library's `profile`.
    """
    own_folders = {Path(folder).resolve() for folder in python_path}
    others = [entry for entry in sys.path if Path(entry or ".").resolve() not in own_folders]
    for folder in map(Path, python_path):
        for name, path in _modules_in(folder):
            if name in sys.stdlib_module_names:
                what = f"module {name!r} of the standard library"
            elif name not in COMMON_FOLDERS and _is_needed(name, others):
                what = f"installed package {name!r}"
            else:
                continue
            kind = "file" if path.suffix == ".py" else "folder"
            raise InputError(
                f"{escaped(str(path))}: hides the {what}, which other libraries import; give the {kind} another name"
            )


def _references(config: "Config") -> Iterator[str]:
    """Yield every "module:name" of the user's own."""
    names = (config.workload, config.optimizer.name, *config.parameters.optimizer)
    yield from (name for name in names if name and ":" in name)


def _files_of(module: str, folders: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the files that importing a module reads, each with its folder; nothing where it lies in none of these."""
    parts = module.split(".")
    if parts[0] == OWN:
        return
    for folder in folders:
        start = folder / parts[0]
        if not (start.is_dir() or start.with_suffix(".py").is_file()):
            continue
        for count in range(1, len(parts) + 1):
            place = folder.joinpath(*parts[:count])
            as_package = place / "__init__.py"
            path = as_package if as_package.is_file() else place.parent / f"{place.name}.py"
            if path.is_file():
                yield folder, path
        return


def _imports(text: bytes, path: Path) -> Iterator[str]:
    """Yield the modules that a file's `import` statements may name; `path` is that of the file below its folder."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return  # whoever imports it says so
    package = path.parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*around, *([node.module] if node.module else [])])
            if base:
                yield base
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names if alias.name != "*")


def _modules_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the modules and packages at the top of a folder, by name."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        if path.suffix == ".py" and path.stem.isidentifier():
            yield path.stem, path
        elif path.name.isidentifier() and (path / "__init__.py").is_file():
            yield path.name, path


def _is_needed(name: str, search_path: Sequence[str]) -> bool:
    """Return whether tune-lr, or something that it requires, has installed a module of that name."""
    if name == OWN or PathFinder.find_spec(name, list(search_path)) is None:
        return False
    owners = {owner.lower() for owner in metadata.packages_distributions().get(name, ())}
    return bool(owners & _required())


def _required() -> set[str]:
    """Return the names of the distributions that tune-lr requires, directly or not, in lower case."""
    required: set[str] = set()
    waiting = ["tune-lr"]
    while waiting:
        name = waiting.pop()
        if name in required:
            continue
        required.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        waiting += [_name_in(line) for line in lines if "extra ==" not in line]
    return required


def _name_in(requirement: str) -> str:
    """Return the name of the distribution in a line such as "torch>=2.2,<=2.5.1; python_version > '3.8'"."""
    end = next((i for i, char in enumerate(requirement) if not (char.isalnum() or char in "._-")), len(requirement))
    return requirement[:end].lower()
