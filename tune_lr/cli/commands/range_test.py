"""`tune-lr range-test`: the LR range test alone, or the bounds of curves that were measured elsewhere."""

import json
import sys
from argparse import Namespace
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from tune_lr.cli.commands.search import search_in
from tune_lr.cli.exit_codes import DONE
from tune_lr.cli.options import DEFAULT_SPACE
from tune_lr.errors import InputError, NoAnswerError

if TYPE_CHECKING:
    from tune_lr.lr.bounds import LRBounds
    from tune_lr.store.study_dir import StudyDir


def run(options: Namespace) -> int:
    """Run the range test, or read curves; print the bounds."""
    return _read_curves(options) if options.curves else _run_ramps(options)


def _run_ramps(options: Namespace) -> int:
    from tune_lr.session import new_directory

    directory = new_directory(options.out, options.name, options.space)
    code = DONE
    abstained = None
    try:
        with redirect_stdout(sys.stderr) if options.json else nullcontext():
            code = search_in(directory, options)
    except NoAnswerError as error:  # --strict: what was read is on disk all the same
        abstained = error
    if directory.bounds_json.exists():
        _print_bounds(directory, options.json)
    if abstained is not None:
        raise abstained
    return code


def _print_bounds(directory: "StudyDir", as_json: bool) -> None:
    """Print what the finished range test has found, in a form to go on with."""
    record = directory.read_json(directory.bounds_json)
    bounds = directory.read_bounds()
    if as_json:
        print(json.dumps(record, indent=2, allow_nan=False))
    elif bounds.status == "ok" and "combinations" not in record:  # no single line could say the bounds of several
        print(_lines_to_paste(bounds))


def _read_curves(options: Namespace) -> int:
    """Print the bounds of curves that were measured elsewhere; nothing is trained."""
    from tune_lr.lr.bounds import find_lr_bounds
    from tune_lr.store.measured_curve import read_curve

    if options.space != DEFAULT_SPACE or options.set:
        raise InputError("--from: reads curves and trains nothing; leave out SPACE and --set")
    bounds = find_lr_bounds([read_curve(Path(file)) for file in options.curves], options.max_steps)
    if options.json:
        print(json.dumps(bounds.to_dict(), indent=2, allow_nan=False))
    elif bounds.status != "ok":
        print(f"no LR bounds ({bounds.status})\n  {bounds.reason}")
    else:
        print(f"LR bounds: {bounds.low:.3g} to {bounds.high:.3g}, suggestion {bounds.suggestion:.3g}")
        print(f"  {bounds.reason}\n{_lines_to_paste(bounds)}")
    if bounds.status != "ok" and options.strict:
        raise NoAnswerError(f"the LR range test abstained ({bounds.status}): {bounds.reason}")
    return DONE


def _lines_to_paste(bounds: "LRBounds") -> str:
    return (
        f"suggested for a constant LR; for the peak of a one-cycle or a cosine, {bounds.suggestion_for(0.5):.3g}\n"
        f"for a search space, under parameters:\n  lr: {{min: {bounds.low:.3g}, max: {bounds.high:.3g}}}"
    )
