"""Write report.html and its pictures from what the study directory holds."""

from tune_lr.show.report.overlays import overlays_of
from tune_lr.show.report.page import render_page
from tune_lr.show.report.pictures import Charts, charts_of, replace_file, write_pictures
from tune_lr.show.report.study import read_reported_study
from tune_lr.store.study_dir import StudyDir


def write_report(directory: StudyDir) -> None:
    """Write report.html, range_test/*.png and plots/*.png.

    They are made from files of the study directory only, whatever of them is there. So a report can be made again at
    any time, also of a study that is unfinished or that found nothing.
    """
    write_pictures(directory, write_page(directory))


def write_page(directory: StudyDir) -> Charts:
    """Write report.html; return its charts."""
    study = read_reported_study(directory)
    overlays = overlays_of(study)
    charts = charts_of(study, overlays)
    replace_file(directory.report_html, render_page(study, overlays, charts).encode())
    return charts
