"""`tune-lr status`: how a study stands, while it runs or after."""

import json
from argparse import Namespace

from tune_lr.cli.exit_codes import DONE
from tune_lr.cli.options import make_console


def run(options: Namespace) -> int:
    """Print how a study stands, for people or as JSON."""
    from tune_lr.store.study_dir import StudyDir
    from tune_lr.study.status import read_status

    status = read_status(StudyDir(options.study))
    if options.json:
        print(json.dumps(status.to_dict(), indent=2))
    else:
        from tune_lr.show.terminal.status import show_status

        show_status(make_console(), status)
    return DONE
