"""Does it pay to let the LR's range go on where the best LR lies at its edge?

    python benchmarks/widening.py [--repetitions 10] [--only NAME ...]

Searches as in `search_efficiency.py`, one slot, 48 trials; and the same with bounds that are wrong: shifted down or up
by so many decades. Regret of what is named at the end, mean and 90th percentile over repetitions and workloads, and the
steps it took in full trainings, without and with the widening.
"""

import argparse
from dataclasses import replace
from statistics import fmean

import numpy as np

from landscapes.landscape import load, load_ramps, names
from search_efficiency import ours
from tune_lr.config.parameters import Combination
from tune_lr.lr.bounds import LRBounds
from tune_lr.study import range_test, study, widening

SHIFTS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)  # decades


class Shifted(range_test.RangeTest):
    """A range test that is wrong by `decades`."""

    decades = 0.0

    def read_bounds(self) -> dict[Combination, LRBounds]:
        for combination, bounds in super().read_bounds().items():
            lrs = {name: getattr(bounds, name) for name in ("low", "high", "suggestion")}
            moved = {name: lr * 10**self.decades for name, lr in lrs.items() if lr is not None}
            self.bounds[combination] = replace(bounds, **moved)
        return self.bounds


class Counting(widening.Widener):
    """Counts how often the range was widened."""

    widened_ranges = 0

    def look(self) -> None:
        before = self.widened
        super().look()
        Counting.widened_ranges += self.widened is not before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--shifts", type=float, nargs="+", default=SHIFTS, help="decades")
    parser.add_argument("--only", nargs="+", choices=names(), default=names(), help="these workloads")
    options = parser.parse_args()
    study.RangeTest = Shifted  # type: ignore[attr-defined]  # what Study makes its range test of
    study.Widener = Counting  # type: ignore[attr-defined]
    edge = widening.EDGE
    print("| bounds off by, decades | regret | 90th | trainings | with widening: regret | 90th | trainings | widened |")
    print("|---|---|---|---|---|---|---|---|")
    for decades in options.shifts:
        Shifted.decades, cells = decades, []
        for widening.EDGE in (0.0, edge):
            Counting.widened_ranges = 0
            regrets, trainings = [], []
            for name in options.only:
                landscape, ramps = load(name), load_ramps(name)
                for repetition in range(options.repetitions):
                    trials = list(ours(landscape, ramps, repetition))
                    named = min((one for _, one in trials if one is not None), key=lambda one: one[2])
                    best = min(map(landscape.best, landscape.schedules()))
                    regrets.append(landscape.loss(*named[:2]) / best - 1)
                    trainings.append(sum(cost for cost, _ in trials) / landscape.max_steps)
            cells += [
                f"{100 * fmean(regrets):.1f} %",
                f"{100 * np.percentile(regrets, 90):.0f} %",
                f"{fmean(trainings):.1f}",
            ]
        widened = Counting.widened_ranges / len(regrets)
        print(f"| {decades:+g} | {' | '.join(cells)} | {100 * widened:.0f} % |", flush=True)


if __name__ == "__main__":
    main()
