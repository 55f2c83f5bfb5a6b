"""`tune-lr search`: range test, search and confirmation."""

from argparse import Namespace
from typing import TYPE_CHECKING

from tune_lr.cli.exit_codes import exit_code_of
from tune_lr.cli.options import overrides_of, session_of

if TYPE_CHECKING:
    from tune_lr.store.study_dir import StudyDir


def run(options: Namespace) -> int:
    """Make a new study of the search space and run it."""
    from tune_lr.session import new_directory

    return search_in(new_directory(options.out, options.name, options.space), options)


def search_in(directory: "StudyDir", options: Namespace) -> int:
    """Make the study in this directory and run its phases; return the exit code."""
    from tune_lr.config.load import read_space
    from tune_lr.session import run_new

    space = read_space(options.space, overrides_of(options))
    return exit_code_of(run_new(space, directory, session_of(options), options.phases))
