"""`tune-lr schedules`: the LR schedules with their parameters and curves."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tune_lr.cli.exit_codes import DONE
from tune_lr.cli.options import make_console
from tune_lr.errors import InputError, ResourceError, suggestion


def run(options: Namespace) -> int:
    """Print the LR schedules that are named, else all, or draw their curves into a file."""
    from tune_lr.lr.schedules import SCHEDULES

    for name in options.names:
        if name not in SCHEDULES:
            raise InputError(
                f"schedules: no LR schedule {name!r}{suggestion(name, SCHEDULES)}; known: {', '.join(SCHEDULES)}"
            )
    names = options.names or list(SCHEDULES)
    if options.png is not None:
        _draw(names, Path(options.png))
        return DONE
    from tune_lr.show.terminal.schedules import show_schedule

    console = make_console()
    for name in names:
        show_schedule(console, SCHEDULES[name])
    return DONE


def _draw(names: Sequence[str], path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise InputError(f"--png: not the name of a PNG file (got {str(path)!r}); write NAME.png")
    from tune_lr.show.charts.schedules import schedules_png

    try:
        path.write_bytes(schedules_png(names))
    except OSError as error:
        raise ResourceError(f"--png: {path} cannot be written ({error.strerror}); name a file that can") from None
    print(path)
