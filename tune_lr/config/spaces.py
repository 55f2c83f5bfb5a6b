"""Search spaces by name, and the folders where they are looked for."""

import os
import re
from pathlib import Path

from tune_lr.config.messages import escaped, shortened
from tune_lr.errors import InputError, suggestion


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
