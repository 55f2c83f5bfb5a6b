"""`tune-lr init`: write a workload to start from, a search space and a test for it, from the files in `templates/`."""

from argparse import Namespace
from importlib.resources import files
from pathlib import Path

from tune_lr.cli.exit_codes import DONE
from tune_lr.errors import InputError, ResourceError, one_line

WORKLOAD, SPACE, TEST = "my_workload.py", "my_space.yaml", "test_my_workload.py"


def run(options: Namespace) -> int:
    """Write the files; print what each of them is for."""
    workload, space, test = write_scaffold(Path(options.directory))
    print(f"{workload}    what is trained; put your own in its place")
    print(f"{space}    what is searched: tune-lr check {space}")
    print(f"{test}    does it train at all: pytest {test}")
    return DONE


def write_scaffold(directory: Path) -> list[Path]:
    """Write the three files into `directory`, all or none; return their paths.

    Raises InputError where one of them exists, and ResourceError where they cannot be written.
    """
    templates = files("tune_lr.cli") / "templates"
    names = (WORKLOAD, SPACE, TEST)
    texts = {directory / name: (templates / f"{name}.template").read_text(encoding="utf-8") for name in names}
    if directory.exists() and not directory.is_dir():
        raise InputError(f"init: {str(directory)!r} is a file; give a directory")
    for path in texts:
        if path.exists() or path.is_symlink():
            raise InputError(f"init: {path} exists and is left as it is; give another directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ResourceError(f"init: {directory} cannot be written ({one_line(error)})") from None
    return list(texts)
