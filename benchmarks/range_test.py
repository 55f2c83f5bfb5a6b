"""Is the LR range test right? Its bounds and its suggestion, and its peers' suggestions, against the landscapes.

    python benchmarks/range_test.py [--plot docs/images/range_test_benchmark.png]

Replays, in seconds, the ramps of `landscapes/` (20 seeds per workload and tool): ours on sets of three, drawn without
replacement; the peers', each on its own default ramp, one each, as they do. The rules in `tune_lr.lr.landmarks` and
`tune_lr.lr.bounds` were made with the workloads of IN_VIEW in view; the others judge them.

- holds: how often the bounds hold an LR within 2 % of the best mean loss of EVERY schedule; width: their median in
  decades
- median, worst: the loss at the suggestion / the lowest, of the constant and the one-cycle schedule, for which we
  suggest different LRs and the peers the same; where an LR was never trained, the nearest that was stands in, which is
  kind to those who suggest an LR far outside
- sd: of the suggestion over the seeds, in decades, the median over workloads
- abstains: on real ramps, where there is an answer; on curves that hold none
"""

import argparse
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landscapes.landscape import IN_VIEW, RAMPS, SCHEDULES, Landscape, load, load_ramps, names
from peers import PEERS
from tune_lr.lr.bounds import PACE, LRBounds, find_lr_bounds
from tune_lr.lr.divergence import DivergenceDetector
from tune_lr.lr.schedule import make_lr_schedule

Array = NDArray[np.float64]
Answer = LRBounds | float | None  # what a tool says: ours bounds, the others an LR or nothing

REPLICATES, SETS = 3, 60
WITHIN = 1.02
SUGGESTED_FOR = ("constant", "onecycle")


def steps(ramps: dict[str, Array]) -> float:
    """Optimizer steps of a range test, of all its ramps: the mean over the seeds."""
    ends = [DivergenceDetector().update(losses.tolist()) for losses in ramps["tune_lr"]]
    return REPLICATES * float(np.mean([len(RAMPS["tune_lr"]) if end is None else end + 1 for end in ends]))


def answers(tool: str, ramps: dict[str, Array]) -> list[Answer]:
    """What a tool says of a workload, for sets of seeds, or for every seed where it takes one ramp."""
    if tool.startswith("tune-lr"):
        ours, rng = ramps["tune_lr"], np.random.default_rng(0)
        several = [rng.choice(len(ours), REPLICATES, replace=False) for _ in range(SETS)]
        sets = several if tool == "tune-lr" else [[seed] for seed in range(len(ours))]
        return [find_lr_bounds([(RAMPS["tune_lr"], ours[seed]) for seed in seeds]) for seeds in sets]
    ramp, rule = PEERS[tool]
    return [rule(RAMPS[ramp], losses) for losses in ramps[ramp]]


TOOLS = ("tune-lr", "tune-lr, one ramp", *PEERS)


def suggestions(given: list[Answer], lr_schedule: str = "constant") -> Array:
    factor = mean_factor(lr_schedule)
    lrs = [answer.suggestion_for(factor) if isinstance(answer, LRBounds) else answer for answer in given]
    return np.array([lr for lr in lrs if lr is not None])


@cache
def mean_factor(lr_schedule: str) -> float:
    """The mean LR of a schedule in its default shape, as a part of its peak."""
    return make_lr_schedule(lr_schedule, {}, 1000).mean_factor()


def holds(landscape: Landscape, bounds: LRBounds) -> bool:
    assert bounds.low is not None
    assert bounds.high is not None
    return all(
        landscape.best_within(name, bounds.low, bounds.high) <= WITHIN * landscape.best(name)
        for name in landscape.schedules()
    )


def read(given: list[Answer]) -> list[LRBounds]:
    return [answer for answer in given if isinstance(answer, LRBounds) and answer.low is not None]


def width(bounds: LRBounds) -> float:
    assert bounds.low is not None
    assert bounds.high is not None
    return math.log10(bounds.high / bounds.low)


# --- curves that hold no answer


def no_answers(rng: np.random.Generator, lrs: Array) -> list[Array]:
    """Losses over `lrs`: noise alone; a fall that goes on to the end; an explosion from the first steps on."""
    steps, n = np.arange(len(lrs)), len(lrs)
    noise = 2.3 + 0.05 * rng.standard_normal(n)
    falls = noise - 1.5 / (1 + np.exp(-6 * (np.log10(lrs / lrs[-1]) + 0.5)))
    explodes = np.where(steps < 6, 2.3 * 10.0**steps, np.nan)
    return [noise, falls, explodes]


def abstentions_without_answer(tool: str, seeds: int = 20) -> float:
    """The share of curves without an answer on which a tool says nothing."""
    rng = np.random.default_rng(1)
    abstained = []
    for _ in range(seeds):
        if tool.startswith("tune-lr"):
            count = REPLICATES if tool == "tune-lr" else 1
            sets = zip(*(no_answers(rng, RAMPS["tune_lr"]) for _ in range(count)), strict=True)
            given: list[Answer] = [find_lr_bounds([(RAMPS["tune_lr"], losses) for losses in curves]) for curves in sets]
        else:
            ramp, rule = PEERS[tool]
            given = [rule(RAMPS[ramp], losses) for losses in no_answers(rng, RAMPS[ramp])]
        abstained += [len(suggestions([answer])) == 0 for answer in given]
    return float(np.mean(abstained))


# --- tables


def row(tool: str, landscapes: list[Landscape], given: dict[str, list[Answer]]) -> list[str]:
    """One line of the table, over the workloads of `landscapes`."""
    held = [holds(landscape, bounds) for landscape in landscapes for bounds in read(given[landscape.name])]
    widths = [width(bounds) for landscape in landscapes for bounds in read(given[landscape.name])]
    cells = [f"{100 * np.mean(held):.0f} %", f"{np.median(widths):.2f}"] if held else ["-", "-"]
    ratios = [
        landscape.loss(name, lr) / landscape.best(name)
        for landscape in landscapes
        for name in SUGGESTED_FOR
        for lr in suggestions(given[landscape.name], name)
    ]
    cells += [f"{np.median(ratios):.2f}", f"{max(ratios):.2f}"] if ratios else ["-", "-"]
    spreads = [np.log10(lrs).std(ddof=1) for x in landscapes if len(lrs := suggestions(given[x.name])) > 1]
    cells.append(f"{np.median(spreads):.2f}" if spreads else "-")
    silent = [len(suggestions([answer])) == 0 for landscape in landscapes for answer in given[landscape.name]]
    return [*cells, f"{100 * np.mean(silent):.0f} %", f"{100 * abstentions_without_answer(tool):.0f} %"]


HEADER = ["tool", "holds", "width", "median", "worst", "sd", "abstains", "where no answer"]


def print_table(header: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


def schedule_row(name: str, landscapes: list[Landscape], given: dict[str, list[Answer]]) -> list[str]:
    """What our suggestion for a schedule costs, on the workloads in view and on those that judge."""
    cells = [name, f"{mean_factor(name):.2f}", f"{mean_factor(name) ** -PACE:.2f}"]
    for in_view in (True, False):
        ratios = [
            landscape.loss(name, lr) / landscape.best(name)
            for landscape in landscapes
            for lr in suggestions(given[landscape.name], name)
            if (landscape.name in IN_VIEW) == in_view
        ]
        cells += [f"{np.median(ratios):.2f}", f"{max(ratios):.2f}"]
    return cells


def workload_row(landscape: Landscape, given: list[Answer], steps: float) -> list[str]:
    """Where the best LRs of the schedules lie, and ours beside them."""
    bests = [lrs[losses.argmin()] for lrs, losses in map(landscape.means, landscape.schedules())]
    bounds = read(given)
    if not bounds:
        return [landscape.name, f"{min(bests):.2g} to {max(bests):.2g}", *["-"] * 6, f"{steps:.0f}"]
    low, high, suggestion = (
        float(np.median([getattr(answer, name) for answer in bounds])) for name in ("low", "high", "suggestion")
    )
    ratios = [
        f"{np.median([landscape.loss(name, lr) for lr in suggestions(given, name)]) / landscape.best(name):.2f}"
        for name in SUGGESTED_FOR
    ]
    return [
        landscape.name + ("" if landscape.name in IN_VIEW else " (judge)"),
        f"{min(bests):.2g} to {max(bests):.2g}",
        f"{low:.2g} to {high:.2g}",
        f"{100 * np.mean([holds(landscape, answer) for answer in bounds]):.0f} %",
        f"{suggestion:.2g}",
        *ratios,
        f"{np.log10(suggestions(given)).std(ddof=1):.2f}",
        f"{steps:.0f}",
    ]


def plot(path: Path, landscapes: list[Landscape], given: Callable[[str, str], list[Answer]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = 2
    rows = math.ceil(len(landscapes) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 2.5 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(landscapes) :]:
        axis.set_visible(False)
    for axis, landscape in zip(axes.flat, landscapes, strict=False):
        shown = [tool for tool in TOOLS if tool != "tune-lr, one ramp"]
        for line, tool in enumerate(reversed(shown)):
            lrs = suggestions(given(tool, landscape.name))
            axis.plot(lrs, np.full(len(lrs), line), "|", color="tab:blue", markersize=9, alpha=0.6)
        lrs = suggestions(given("tune-lr", landscape.name), "onecycle")
        axis.plot(lrs, np.full(len(lrs), len(shown) - 1), "|", color="tab:purple", markersize=9, alpha=0.6)
        bounds = read(given("tune-lr", landscape.name))
        if bounds:
            low, high = (float(np.median([getattr(answer, name) for answer in bounds])) for name in ("low", "high"))
            axis.plot([low, high], [len(shown) - 1] * 2, color="tab:orange", linewidth=9, alpha=0.4, zorder=0)
        for name in landscape.schedules():
            lrs, losses = landscape.means(name)
            axis.axvspan(*lrs[losses <= WITHIN * losses.min()][[0, -1]], color="tab:green", alpha=0.12, zorder=-1)
            axis.axvline(lrs[losses.argmin()], color="tab:green", linewidth=0.8, zorder=-1)
        axis.set_xscale("log")
        axis.set_xlim(1e-6, 20)
        axis.set_yticks(range(len(shown)), list(reversed(shown)), fontsize=7)
        axis.set_title(landscape.name, fontsize=9)
        axis.tick_params(axis="x", labelsize=7)
    title = (
        "Suggested LRs (blue; purple: ours for one-cycle), our bounds (orange), the best LR of each schedule (green)"
    )
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares LR range tests with the landscapes.")
    parser.add_argument("--plot", type=Path, help="write the picture here")
    options = parser.parse_args()
    landscapes = [load(name) for name in names()]
    ramps = {landscape.name: load_ramps(landscape.name) for landscape in landscapes}
    given = {tool: {name: answers(tool, curves) for name, curves in ramps.items()} for tool in TOOLS}
    for title, part in (
        ("that judge", [landscape for landscape in landscapes if landscape.name not in IN_VIEW]),
        ("in view", [landscape for landscape in landscapes if landscape.name in IN_VIEW]),
    ):
        print(f"\nWorkloads {title}: {', '.join(landscape.name for landscape in part)}\n")
        print_table(HEADER, [[tool, *row(tool, part, given[tool])] for tool in TOOLS])
    print()
    header = ["LR schedule", "mean factor", "multiplier", "median, in view", "worst", "median, judges", "worst"]
    print_table(header, [schedule_row(name, landscapes, given["tune-lr"]) for name in SCHEDULES])
    print()
    header = ["workload", "best LRs", "bounds", "holds", "suggestion", *SUGGESTED_FOR, "sd", "steps"]
    rows = []
    for landscape in landscapes:
        rows.append(workload_row(landscape, given["tune-lr"][landscape.name], steps(ramps[landscape.name])))
    print_table(header, rows)
    if options.plot:
        plot(options.plot, landscapes, lambda tool, name: given[tool][name])


if __name__ == "__main__":
    main()
