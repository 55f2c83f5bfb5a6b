"""Is the default study's winner right? An exhaustive grid says what could be had.

Trains every LR schedule (default shape) at 13 LRs on the default workload and budget, one seed each; cells within
`NEAR` of the best get ten seeds. Then the winner of a finished study is trained on five fresh seeds and compared with
the best cell. Everything goes through the same slots as a study. Resumable: cells are kept in a CSV.

    python benchmarks/grid.py [STUDY_DIR] [--cells benchmarks/lenet5_grid.csv]
"""

import argparse
import csv
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, cast

from tune_lr.cluster import cluster
from tune_lr.config.load import load_config
from tune_lr.config.task import Task, make_task
from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.records.parameters import split_parameters
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.study_dir import StudyDir

if TYPE_CHECKING:
    from tune_lr.study.study import Study

LRS = [round(10 ** (-2.25 + i / 6), 5) for i in range(13)]  # 0.0056 to 0.56, six a decade
NEAR = 0.20
SEEDS = 10
WINNER_SEEDS = range(9001, 9006)
FIELDS = ["lr_schedule", "lr", "seed", "val_loss", "val_accuracy"]


Cell = tuple[str, float, Mapping[str, Any], int]  # LR schedule, LR, parameters, seed
OnEnd = Callable[[TrialSpec, Report], None]


class Batch:
    """A fixed list of trials, as tune_lr.cluster.cluster.run takes it: what a Study is to the slots."""

    def __init__(self, specs: Sequence[TrialSpec], on_end: OnEnd) -> None:
        self._todo = list(specs)
        self._open: dict[int, TrialSpec] = {}
        self._on_end = on_end
        self.stopped = False

    def run(self, task: Task, slots: int) -> None:
        """Train them; the cluster asks nothing of a study that a batch has not."""
        cluster.run(cast("Study", self), task, slots)

    @property
    def over(self) -> bool:
        return not self._todo and not self._open

    def next_trial(self) -> TrialSpec | None:
        if not self._todo:
            return None
        spec = self._todo.pop(0)
        self._open[spec.number] = spec
        return spec

    def report(self, number: int, report: Report) -> bool:
        assert not report.mistake, report.mistake
        if report.over:
            self._on_end(self._open.pop(number), report)
        return not report.over

    def lost(self, number: int) -> None:
        self._todo.insert(0, self._open.pop(number))


def train(task: Task, slots: int, wanted: Sequence[Cell], max_steps: int, keep: OnEnd) -> None:
    """Train cells, those that have waited longest first; `keep` gets the end of each."""
    specs = [TrialSpec(i, "grid", seed, max_steps, lr, name, p) for i, (name, lr, p, seed) in enumerate(wanted)]
    if specs:
        Batch(specs, keep).run(task, slots)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", nargs="?", help="a finished default study")
    parser.add_argument("--cells", default=str(Path(__file__).parent / "lenet5_grid.csv"))
    options = parser.parse_args()
    config = load_config("lenet5_mnist")
    task = make_task(config)
    path = Path(options.cells)
    cells: dict[tuple[str, float], dict[int, float]] = defaultdict(dict)
    if path.exists():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                cells[row["lr_schedule"], float(row["lr"])][int(row["seed"])] = float(row["val_loss"])
    else:
        path.write_text(",".join(FIELDS) + "\n")

    def keep(spec: TrialSpec, report: Report) -> None:
        loss = float("inf") if report.diverged or report.failure else report.metrics["val_loss"]
        cells[spec.lr_schedule, spec.lr][spec.seed] = loss
        with path.open("a", newline="") as file:
            accuracy = report.metrics.get("val_accuracy", "")
            csv.writer(file, lineterminator="\n").writerow([spec.lr_schedule, spec.lr, spec.seed, loss, accuracy])

    started = time.monotonic()
    with cluster.connected(None):
        slots = cluster.count_slots(task, None)
        names = list(config.parameters.lr_schedule)
        for name in names:
            make_lr_schedule(name, {}, config.max_steps)
        missing: list[Cell] = [(name, lr, {}, 0) for name in names for lr in LRS if 0 not in cells[name, lr]]
        train(task, slots, missing, config.max_steps, keep)
        best = min(values[0] for values in cells.values())
        near = [cell for cell, values in cells.items() if values[0] <= (1 + NEAR) * best]
        missing = [(*cell, {}, seed) for seed in range(SEEDS) for cell in near if seed not in cells[cell]]
        train(task, slots, missing, config.max_steps, keep)
        answer = StudyDir(options.study).read_answer() if options.study else None
        if answer is not None:
            winner = answer.winner
            parameters = split_parameters(winner.parameters)[0]
            losses: list[float] = []
            best_losses: list[float] = []
            top = min(near, key=lambda cell: fmean(cells[cell].values()))
            wanted: list[Cell] = [(winner.lr_schedule, winner.lr, parameters, seed) for seed in WINNER_SEEDS]
            train(task, slots, wanted, config.max_steps, lambda _, report: losses.append(report.metrics["val_loss"]))
            wanted = [(*top, {}, seed) for seed in WINNER_SEEDS]
            train(
                task, slots, wanted, config.max_steps, lambda _, report: best_losses.append(report.metrics["val_loss"])
            )
    print(f"grid: {len(cells)} cells, {sum(map(len, cells.values()))} trainings of {config.max_steps} steps,")
    print(f"{time.monotonic() - started:.0f} s in this run on {os.cpu_count()} cores")
    ranked = sorted(near, key=lambda cell: fmean(cells[cell].values()))
    for name, lr in ranked[:6]:
        values = list(cells[name, lr].values())
        print(f"  {name:<12} lr {lr:<8g} mean {fmean(values):.4f} sd {stdev(values):.4f} over {len(values)} seeds")
    if answer is not None:
        reference, mean = fmean(cells[ranked[0]].values()), fmean(losses)
        print(f"winner: {winner.lr_schedule} lr {winner.lr:.4g}, mean {mean:.4f} over {len(losses)} fresh seeds")
        print(f"winner / best cell: {mean / reference:.3f} (to reach: at most 1.05)")
        best_mean = fmean(best_losses)
        print(f"on the same fresh seeds: {mean / best_mean:.3f}, where the best cell has {best_mean:.4f}")


if __name__ == "__main__":
    main()
