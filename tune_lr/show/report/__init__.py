"""The report of a study: its directory is read, figures are made of it, and templates show them as one HTML page.

| step    | module                                                                   |
|---------|--------------------------------------------------------------------------|
| read    | `study`                                                                  |
| compute | `overlays`, `finalists`, `ledger`, `comparison`, `importance`, `leaderboard` |
| draw    | `pictures`, with `show.charts`                                           |
| render  | `page`, with the files in `templates/`                                   |
| write   | `write`                                                                  |
"""

from tune_lr.show.report.write import write_report

__all__ = ["write_report"]
