"""Search spaces by name: where they are looked for."""

import os
import re
from pathlib import Path

from tune_lr.config.messages import one_line, shortened
from tune_lr.errors import InputError, suggestion


def find_space(source: str | Path) -> Path:
    """The YAML file `source`, or the one of that name in search_spaces/ ("lenet5_mnist", "cs5260/b4_onecycle"): here,
    in the checkout, or in the wheel.

    Raises InputError, with the names that there are, if there is none.
    """
    text = str(source)
    if os.path.isfile(text):
        return Path(text)
    package = Path(__file__).resolve().parent.parent
    folders = [Path("search_spaces"), package.parent / "search_spaces", package / "_search_spaces"]
    if re.fullmatch(r"([\w.-]+/)?[\w.-]+", text) and ".." not in text:
        for folder in folders:
            for name in (text, f"{text}.yaml"):
                if os.path.isfile(folder / name):
                    return folder / name
    if os.path.isdir(text):
        raise InputError(f"{one_line(text)}: is a directory; give a YAML file, or the name of a search space")
    if os.path.exists(text):
        raise InputError(f"{one_line(text)}: is not a regular file; give a YAML file, or the name of a search space")
    files = [file.relative_to(folder) for folder in folders for file in folder.rglob("*.yaml")]
    names = sorted({str(file.with_suffix("")) for file in files})
    hint = suggestion(text.removesuffix(".yaml"), names)
    allowed = f"give a YAML file, or one of: {', '.join(names) or 'none here'}"
    raise InputError(f"{shortened(text)}: no such file or search space{hint}; {allowed}")
