"""`tune-lr sync`: bring a study's runs to Weights & Biases."""

from argparse import Namespace

from tune_lr.cli.exit_codes import DONE
from tune_lr.cli.options import tell_waiting
from tune_lr.records.waiting import told_while


def run(options: Namespace) -> int:
    """Deliver the runs that have not arrived yet."""
    from tune_lr.store.study_dir import StudyDir
    from tune_lr.tracking.sync import sync

    directory = StudyDir(options.study)
    record = directory.read_record()
    with directory.lock():
        from tune_lr.study.study import Study  # the journal knows of every trial, also before the study has ended

        rows = Study(record.config, directory, phases=record.phases, resume=False).rows()
        with told_while("the W&B server to take the runs", tell_waiting):
            arrived = sync(record.config, directory, record.id, rows, on_arrival=lambda name: print(name, flush=True))
    print(f"{arrived} runs brought to W&B, {len(rows) - arrived} were there")
    return DONE
