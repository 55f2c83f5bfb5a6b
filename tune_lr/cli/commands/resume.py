"""`tune-lr resume`: go on where a study stopped, or extend it."""

from argparse import Namespace

from tune_lr.cli.exit_codes import exit_code_of
from tune_lr.cli.options import session_of


def run(options: Namespace) -> int:
    """Run what is left of a study, with the number of trials or the budget that the options give it."""
    from tune_lr.session import resume
    from tune_lr.store.study_dir import StudyDir

    directory = StudyDir(options.study)
    outcome = resume(
        directory,
        session_of(options),
        num_trials=options.num_trials,
        budget=options.budget,
        accept_changed_code=options.accept_changed_code,
    )
    return exit_code_of(outcome)
