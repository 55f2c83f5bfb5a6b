"""Reports to Weights & Biases: one run a trial, and one run that sums the study up.

The study directory is the record; what W&B shows is a copy for people to look at. So a study never waits for W&B and
never ends because of it. What could not be delivered is said once, at the end, with the line that delivers it.

    key.py        the server, the key, and whether runs are sent, kept or not made
    rows.py       what is logged of a curve, and how a very long one is thinned
    runs.py       makes the runs, with wandb
    tracker.py    reports every curve while a study runs, in a thread; goes offline where a call takes more than 8 s
    process.py    the same in a process of its own, so that a call that hangs holds no study up
    sync.py       makes the runs from the study directory, afterwards
    summary.py    the figures and tables of the run that sums a study up
    uploaded.py   which runs a server has taken whole
    dashboard.py  saves a workspace that is arranged for the study
"""

import os

os.environ.setdefault("WANDB_SILENT", "true")  # with it, a server that refuses is noticed in 2 s instead of 12
# Figures about itself that wandb takes at each call of `log`: a quarter of what the call costs.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
