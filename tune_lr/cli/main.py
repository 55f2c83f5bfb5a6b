"""The entry point of `tune-lr`: parse the arguments, run one command, turn expected errors into one line on stderr."""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, TextIO

from tune_lr.cli.exit_codes import DONE, INTERRUPTED
from tune_lr.cli.parser import make_parser
from tune_lr.errors import ResourceError, TuneLRError
from tune_lr.show.output import SafeStream, open_missing_streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` name, those of this process by default; return the exit code.

    Output that cannot be written changes neither what a study does nor its exit code. For any other command, what it
    prints is its result: the command ends with the code of a ResourceError, unless its reader had read enough.
    """
    open_missing_streams()
    replaced = sys.stdout, sys.stderr
    errors = SafeStream(sys.stderr)
    output = SafeStream(sys.stdout, on_failure=lambda error: _tell_failure(error, errors))
    safe: Any = (output, errors)
    sys.stdout, sys.stderr = safe
    options = Namespace()
    try:
        code = _run(arguments, options)
        output.flush()
        if code == DONE and _lost_its_result(output, options):
            code = ResourceError.exit_code
        return code
    finally:
        errors.flush()
        sys.stdout, sys.stderr = replaced
        for stream, original in zip((output, errors), replaced, strict=True):
            if stream.failure is not None:
                _leave(original)


def _run(arguments: Sequence[str] | None, options: Namespace) -> int:
    """Run the command and return its exit code. `options` is filled with what the arguments say."""
    try:
        make_parser().parse_args(arguments, options)
        code: int = options.run(options)
        return code
    except TuneLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return INTERRUPTED


def _lost_its_result(output: SafeStream, options: Namespace) -> bool:
    """Return whether somebody who wants what was printed has not got it."""
    if output.failure is None or isinstance(output.failure, BrokenPipeError):  # `tune-lr schedules | head`
        return False
    drives_a_study = hasattr(options, "wandb") and not getattr(options, "curves", None)
    return not drives_a_study


def _tell_failure(error: OSError, errors: SafeStream) -> None:
    if not isinstance(error, BrokenPipeError):
        errors.write(
            f"note: the standard output cannot be written ({error.strerror or error}); nothing more goes to it\n"
        )
        errors.flush()


def _leave(stream: TextIO) -> None:
    """Let go of a stream that cannot be written: Python would try once more when the process ends, and complain."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
