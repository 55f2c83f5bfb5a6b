"""The entry point of `tune-lr`: parse the arguments, run one command, turn expected errors into one line on stderr."""

import os
import sys
from collections.abc import Sequence

from tune_lr.cli.exit_codes import DONE, INTERRUPTED
from tune_lr.cli.parser import make_parser
from tune_lr.errors import TuneLRError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` name, those of this process by default; return the exit code."""
    try:
        options = make_parser().parse_args(arguments)
        code: int = options.run(options)
        return code
    except TuneLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `tune-lr ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
