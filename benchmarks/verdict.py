"""Is the verdict right? Confirmations of finalists whose means are known, with the noise of real trainings.

    python benchmarks/verdict.py [--repetitions 2000]
    python benchmarks/verdict.py --finalists [--repetitions 20]     who should be confirmed, on the landscapes

The noise: cells (LR schedule, LR) near the best that were trained with ten seeds or more, the same for all of a
workload (`lenet5_grid.csv`, `landscapes/`). A repetition draws a workload, a cell for each finalist, and what
seeds add to the cells' means: a made-up seed is a random mixture of two real ones, cos(a) of one and sin(a) of the
other, the same mixture for all finalists. That keeps how noisy each cell is and how cells go together, and no value
comes twice, which would pass for a lack of noise. The finalists' means are the best one's, and that plus a gap, in
units of a pair's standard deviation: of the differences, seed by seed, of two cells.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from landscapes.landscape import load, load_ramps, names
from tune_lr.records.row import TrialRow, rank_search
from tune_lr.study.verdict import choose_finalists, judge

Array = NDArray[np.float64]
SEEDS, MAX_SEEDS = 3, 6
FEWEST, NEAR = 10, 1.2
METRIC, GOAL = "val_loss", "minimize"
# Of five finalists, the default, and of three.
ALIKE = tuple((gap,) * others for others in (4, 2) for gap in (0.0, 0.5, 1.0, 2.0, 4.0))
GAPS = (*ALIKE, (0.0, 0.0, 2.0, 2.0), (1.0, 1.0, 4.0, 4.0))


def pools() -> dict[str, Array]:
    """By workload: what each seed adds to each cell's mean, shape (cells, seeds)."""
    cells: dict[str, list[dict[int, float]]] = {"lenet5 (grid)": [], **{name: [] for name in names()}}
    grid: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    with (Path(__file__).parent / "lenet5_grid.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            grid[row["lr_schedule"], row["lr"]][int(row["seed"])] = float(row["val_loss"])
    cells["lenet5 (grid)"] = list(grid.values())
    for name in names():
        cells[name] = [{seed: float(curve[-1]) for seed, curve in c.items()} for c in load(name).curves.values()]
    found = {}
    for name, all_cells in cells.items():
        many = [cell for cell in all_cells if len(cell) >= FEWEST]
        shared = sorted(set.intersection(*map(set, many))) if many else []
        values = np.array([[cell[seed] for seed in shared] for cell in many])
        if len(shared) < FEWEST:
            continue
        values = values[values.mean(axis=1) <= NEAR * values.mean(axis=1).min()]
        if len(values) >= 1 + max(map(len, GAPS)):
            found[name] = (values - values.mean(axis=1, keepdims=True)) * np.sqrt(len(shared) / (len(shared) - 1))
    return found


def noise(pool: Array, rng: np.random.Generator, finalists: int) -> Array:
    """In units of a pair's standard deviation, shape (finalists, MAX_SEEDS)."""
    cells = pool[rng.choice(len(pool), finalists, replace=False)]
    two = np.array([rng.choice(cells.shape[1], 2, replace=False) for _ in range(MAX_SEEDS)])
    angle = rng.uniform(0, 2 * np.pi, MAX_SEEDS)
    drawn = np.cos(angle) * cells[:, two[:, 0]] + np.sin(angle) * cells[:, two[:, 1]]
    pairs = [np.std(cells[i] - cells[j], ddof=1) for i in range(finalists) for j in range(i)]
    return np.asarray(drawn / np.mean(pairs))


def rows_of(values: Array, seeds: Sequence[int]) -> list[TrialRow]:
    """Finalist i has the LR i + 1 and `seeds[i]` seeds; it was found in the search, whose figures say nothing here."""
    found = [TrialRow(i, "search", "complete", "cosine", i + 1.0, {}, 0, 1, {METRIC: 1.0}) for i in range(len(values))]
    for i, own in enumerate(values):
        for seed in range(seeds[i]):
            number = 100 * (i + 1) + seed
            row = TrialRow(number, "confirm", "complete", "cosine", i + 1.0, {}, seed, 1, {METRIC: float(own[seed])})
            found.append(row)
    return found


def confirmations(gaps: Sequence[float], repetitions: int, max_seeds: int, where: list[Array]) -> dict[str, float]:
    rng = np.random.default_rng(0)
    means = np.array([0.0, *gaps])
    told: dict[str, list[float]] = defaultdict(list)
    for _ in range(repetitions):
        values = means[:, None] + noise(where[rng.integers(len(where))], rng, len(means))
        seeds = [SEEDS] * len(means)
        verdict = judge(rows_of(values, seeds), METRIC, GOAL, SEEDS, max_seeds)
        if verdict.contenders and max_seeds > SEEDS:
            seeds = [max_seeds if i in verdict.contenders else SEEDS for i in range(len(means))]
            verdict = judge(rows_of(values, seeds), METRIC, GOAL, SEEDS, max_seeds)
        winner = verdict.winner.trial
        apart = {finalist.trial for finalist in verdict.finalists} - {winner, *(one.trial for one in verdict.tied)}
        told["wrong"].append(any(means[i] <= means[winner] for i in apart))
        told["best"].append(means[winner] == means.min())
        told["all apart"].append(not verdict.tied)
        told["all alike"].append(not apart)
        told["seeds"].append(sum(seeds))
    return {name: fmean(values) for name, values in told.items()}


def compare_verdicts(repetitions: int) -> None:
    found = pools()
    print(
        "Noise of " + ", ".join(f"{name} ({len(pool)} cells x {pool.shape[1]} seeds)" for name, pool in found.items())
    )
    print("\n| gaps | seeds | told apart wrongly | a best one named | winner told from all | from none | trainings |")
    print("|---|---|---|---|---|---|---|")
    for gaps in GAPS:
        for max_seeds in (SEEDS, MAX_SEEDS):
            told = confirmations(gaps, repetitions, max_seeds, list(found.values()))
            shares = [f"{100 * told[name]:.1f} %" for name in ("wrong", "best", "all apart", "all alike")]
            most = f"{SEEDS}" if max_seeds == SEEDS else f"{SEEDS}, then {max_seeds}"
            shown = ", ".join(f"{gap:g}" for gap in (0.0, *gaps))
            print(f"| {shown} | {most} | {' | '.join(shares)} | {told['seeds']:.1f} |", flush=True)


def compare_finalists(repetitions: int, top: int = 3) -> None:
    """By how much the best of the finalists, by its mean over all seeds, is worse than the best cell of all."""
    from search_efficiency import ours

    print(f"| workload | the best {top} trials | the best of {top} schedules |\n|---|---|---|")
    everywhere: list[list[float]] = [[], []]
    for name in names():
        landscape, ramps = load(name), load_ramps(name)
        best = min(map(landscape.best, landscape.schedules()))
        regrets: list[list[float]] = [[], []]
        for repetition in range(repetitions):
            trials = [completed for _, completed in ours(landscape, ramps, repetition) if completed is not None]
            rows = [
                TrialRow(i, "search", "complete", schedule, lr, {}, 0, 1, {METRIC: loss})
                for i, (schedule, lr, loss) in enumerate(trials)
            ]
            chosen = rank_search(rows, METRIC, GOAL)[:top], choose_finalists(rows, METRIC, GOAL, top, top)
            for regret, finalists in zip(regrets, chosen, strict=True):
                regret.append(min(landscape.loss(row.lr_schedule, row.lr) for row in finalists) / best - 1)
        for regret, all_of_them in zip(regrets, everywhere, strict=True):
            all_of_them += regret
        print(f"| {name} | {' | '.join(f'{100 * fmean(regret):.1f} %' for regret in regrets)} |", flush=True)
    print(f"| all | {' | '.join(f'{100 * fmean(regret):.1f} %' for regret in everywhere)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--finalists", action="store_true", help="who should be confirmed")
    options = parser.parse_args()
    if options.finalists:
        compare_finalists(options.repetitions or 20)
    else:
        compare_verdicts(options.repetitions or 2000)


if __name__ == "__main__":
    main()
