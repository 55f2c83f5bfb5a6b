"""Print what is recorded of the long trainings, as two tables for RESULTS.md.

    PYTHONPATH=benchmarks .venv/bin/python -m longrun.summary

Of the workloads that are in view, the noise and how far the best LR and the lowest loss move from the shortest to the
longest training. Of those that judge, only whether they are complete: nobody looks at their losses yet.
"""

import numpy as np

from longrun.landscape import IN_VIEW, JUDGES, LENGTHS, SCHEDULES, Landscape, load, load_ramps, names

MOVES = ("constant", "wsd_20", "linear", "onecycle")  # the LR schedules whose best LRs are shown


def trainings(landscape: Landscape) -> int:
    """Return how many trainings are recorded."""
    return int((~np.isnan(landscape.val_loss[..., 0])).sum())


def move(landscape: Landscape, schedule: str) -> str:
    """Return the best LR at the shortest length and at the longest, as text."""
    shortest, longest = (landscape.best(schedule, length).lr for length in (LENGTHS[0], LENGTHS[-1]))
    return f"{shortest:.2g} to {longest:.2g}"


def in_view(landscape: Landscape) -> list[str]:
    """Return a line of the table of workloads in view."""
    winner, best = landscape.lowest(LENGTHS[-1])
    noise = " to ".join(f"{100 * landscape.noise(length):.1f}" for length in (LENGTHS[0], LENGTHS[-1]))
    losses = f"{landscape.lowest(LENGTHS[0])[1].loss:.3g} to {best.loss:.3g}"
    return [landscape.name, f"{noise} %", losses, winner, *(move(landscape, schedule) for schedule in MOVES)]


def complete(landscape: Landscape) -> list[str]:
    """Return a line of the table of all workloads."""
    cells = [(schedule, length) for schedule in SCHEDULES for length in LENGTHS]
    two = sum(landscape.bottom_is_inside(schedule, length, margin=2) for schedule, length in cells)
    one = sum(landscape.bottom_is_inside(schedule, length) for schedule, length in cells)
    steps = f"{landscape.steps[LENGTHS[0]]} to {landscape.steps[LENGTHS[-1]]:,}"
    ramps = " + ".join(str(losses.shape[0]) for losses in load_ramps(landscape.name).values())
    return [
        landscape.name,
        steps,
        str(landscape.seeds),
        f"{trainings(landscape):,}",
        f"{one}, {two} of {len(cells)}",
        ramps,
    ]


def table(header: list[str], lines: list[list[str]]) -> None:
    """Print a table in Markdown."""
    print()
    for cells in (header, ["---"] * len(header), *lines):
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Print both tables."""
    recorded = [load(name) for name in names((*IN_VIEW, *JUDGES))]
    header = [
        "workload",
        "steps",
        "seeds",
        "trainings",
        "best with 1, 2 LRs on each side",
        "ramps of 300 + 1,000 steps",
    ]
    table(header, [complete(landscape) for landscape in recorded])
    header = ["in view", "noise of a seed", "lowest loss", "best at the end", *(f"best LR of {name}" for name in MOVES)]
    table(header, [in_view(landscape) for landscape in recorded if landscape.name in IN_VIEW])


if __name__ == "__main__":
    main()
