"""`tune-lr stop`: end a running study, on this host or on another one."""

from argparse import Namespace

from tune_lr.cli.exit_codes import DONE
from tune_lr.cli.options import tell_waiting
from tune_lr.records.waiting import told_while


def run(options: Namespace) -> int:
    """Stop the driver of a study and wait until it has ended."""
    from tune_lr.store.study_dir import StudyDir
    from tune_lr.study.status import stop

    directory = StudyDir(options.study)
    with told_while(f"the driver of {directory.root} to end its study", tell_waiting):
        driver = stop(directory)
    if driver is None:
        print(f"nothing runs in {directory.root}")
    else:
        print(f"stopped ({driver}); go on with: tune-lr resume {directory.root}")
    return DONE
