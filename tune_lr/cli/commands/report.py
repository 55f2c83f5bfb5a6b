"""`tune-lr report`: rebuild every derived file of a study."""

from argparse import Namespace

from tune_lr.cli.exit_codes import DONE
from tune_lr.cli.options import make_console


def run(options: Namespace) -> int:
    """Write the derived files anew; print the report in the terminal, or where it lies."""
    from tune_lr.run import report
    from tune_lr.store.study_dir import StudyDir

    directory = StudyDir(options.study)
    outcome = report(directory)
    if options.terminal:
        from tune_lr.show.terminal.outcome import show_report

        show_report(make_console(), outcome)
    else:
        print(directory.report_html)
    return DONE
