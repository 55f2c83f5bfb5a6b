"""The run that sums a study up: its figures, and its tables of trials."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tune_lr.records.answer import Answer
from tune_lr.records.parameters import short_name
from tune_lr.records.phases import STATES, sign_of
from tune_lr.records.row import TrialRow, best_of_each_schedule
from tune_lr.tracking.rows import Row

BOUNDS = ("low", "high", "suggestion", "status")


def figures(rows: Sequence[TrialRow], bounds: Mapping[str, Any], answer: Answer | None) -> Row:
    """Return the figures of the summary: trials by their state, the LR bounds (bounds.json), and the answer."""
    counts = {f"trials/{state}": sum(row.state == state for row in rows) for state in {row.state for row in rows}}
    found = {f"bounds/{name}": bounds.get(name) for name in BOUNDS} if bounds else {}
    for combination in bounds.get("combinations", []):
        prefix = f"bounds/{combination['optimizer']} {combination['batch_size']}"
        found |= {f"{prefix}/{name}": combination[name] for name in BOUNDS}
    return counts | found | (_best(answer) if answer is not None else {})


def leaderboard(rows: Sequence[TrialRow], metric: str, goal: str) -> list[TrialRow]:
    """Return the trials of the search and the confirmation, what was completed first, and the best of it first."""
    sign = sign_of(goal)
    trained = [row for row in rows if row.phase != "range_test"]
    return sorted(
        trained, key=lambda row: (STATES.index(row.state), sign * row.metrics.get(metric, sign * math.inf), row.number)
    )


def best_of_families(ranked: Iterable[TrialRow]) -> list[TrialRow]:
    """Return the best search trial of each LR schedule, from a leaderboard."""
    return best_of_each_schedule([r for r in ranked if r.phase == "search" and r.state in ("complete", "pruned")])


def table(rows: Sequence[TrialRow]) -> Any:
    """Return a `wandb.Table` with one row a trial."""
    import wandb

    metrics = sorted({name for row in rows for name in row.metrics}, key=lambda name: (name != "val_loss", name))
    columns: list[str | int] = ["trial", "lr_schedule", "lr", "parameters", "phase", "state"]
    columns += [*metrics, "steps", "seed", "duration_s"]
    data: list[Iterable[Any]] = []
    for row in rows:
        parameters = " ".join(f"{short_name(name)}={value}" for name, value in row.parameters.items())
        measured = [row.metrics.get(name) for name in metrics]
        data.append(
            [row.number, row.lr_schedule, row.lr, parameters, row.phase, row.state, *measured, row.steps, row.seed,
             row.duration_s]
        )  # fmt: skip
    return wandb.Table(columns=columns, data=data, allow_mixed_types=True)


def _best(answer: Answer) -> Row:
    best = answer.to_dict()
    return {
        **{f"best/{name}": best[name] for name in ("lr_schedule", "lr", "mean", "interval", "verdict", "code")},
        **({"best/claim": answer.claim} if answer.predictions else {}),
    }
