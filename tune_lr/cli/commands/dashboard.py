"""`tune-lr dashboard`: save a Weights & Biases workspace that is arranged for a study."""

from argparse import Namespace

from tune_lr.cli.exit_codes import DONE
from tune_lr.cli.options import tell_waiting
from tune_lr.records.waiting import told_while


def run(options: Namespace) -> int:
    """Save the workspace and print its address."""
    from tune_lr.store.study_dir import StudyDir
    from tune_lr.tracking.dashboard import save_dashboard

    directory = StudyDir(options.study)
    record = directory.read_record()
    with told_while("the W&B server to save the workspace", tell_waiting):
        address = save_dashboard(record.config, directory, record.id)
    print(address)
    return DONE
