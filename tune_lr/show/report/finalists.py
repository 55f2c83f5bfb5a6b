"""The answer as the page shows it: its figures in tiles, its facts, and the finalists beside each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from tune_lr.records.answer import Answer, Difference, Finalist
from tune_lr.records.interval import Interval
from tune_lr.show.report.ledger import steps_by_phase
from tune_lr.show.report.study import ReportedStudy
from tune_lr.show.text import figure_text, interval_text, number_text

_STRIP = (3.0, 97.0)  # percent of the strip's width between which its figures lie


@dataclass(frozen=True)
class Tile:
    """A figure with what it is called and what is to be known of it."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Strip:
    """Where the figures of a finalist lie on a strip that all finalists share, in percent of its width."""

    values: Sequence[float]  # one a seed
    interval: tuple[float, float] | None  # its left end and its width
    mean: float | None


@dataclass(frozen=True)
class FinalistLine:
    """A finalist, and how much worse than the winner it is."""

    finalist: Finalist
    difference: Difference | None  # this finalist minus the winner; None of the winner, or where it is not known
    strip: Strip

    @property
    def tied(self) -> bool:
        """Whether it cannot be told apart from the winner."""
        return self.difference is not None and not self.difference.distinguishable


def finalist_lines(answer: Answer) -> list[FinalistLine]:
    """Return the finalists, best first; there are none where the answer is only predicted."""
    if not answer.finalists:
        return []
    figures = [figure for finalist in answer.finalists for figure in (*(finalist.interval or ()), *finalist.values)]
    finite = [float(figure) for figure in figures if math.isfinite(figure)]
    low = min(finite, default=0.0)
    high = max(finite, default=1.0)
    differences = [None, *map(_minus_the_winner, answer.differences)]
    return [
        FinalistLine(finalist, difference, _strip(finalist, low, high))
        for finalist, difference in zip(answer.finalists, differences, strict=True)
    ]


def tiles_of(study: ReportedStudy, answer: Answer, finalists: Sequence[FinalistLine]) -> list[Tile]:
    """Return the figures that the page shows first."""
    chosen = answer.chosen
    if isinstance(chosen, Finalist):
        tiles = [Tile(answer.metric, figure_text(chosen.mean), _interval_note(chosen))]
    else:
        note = f"80 % interval {interval_text(chosen.loss_interval)}; nothing was trained at full length"
        tiles = [Tile(f"{answer.metric}, predicted", figure_text(chosen.loss), note)]
    for name, value in (answer.test or {}).items():
        tiles.append(Tile(f"test {name}", figure_text(value), "of the winner, looked at once"))
    if len(finalists) > 1:
        tiles.append(_runner_up_tile(finalists[1], answer.metric))
    steps = sum(steps_by_phase(study).values())
    if steps:
        tiles.append(_cost_tile(answer, steps))
    return tiles


def _cost_tile(answer: Answer, steps: int) -> Tile:
    return Tile("Steps spent", f"{steps:,}", f"as many as {number_text(answer.full_trainings)} full trainings")


def facts_of(answer: Answer) -> dict[str, Any]:
    """Return everything that describes the winner, or the configuration that is predicted to be best, by name."""
    chosen = answer.chosen
    optimizer = yaml.safe_dump(dict(answer.optimizer), default_flow_style=True, sort_keys=False, width=1000).strip()
    facts = {
        "LR schedule": chosen.lr_schedule,
        "lr": chosen.lr,
        **chosen.to_dict()["parameters"],
        "optimizer": optimizer,
        "global batch": answer.batch_size,
        "max_steps": answer.max_steps,
    }
    if not isinstance(chosen, Finalist):
        return facts
    confirm_trials = ", ".join(str(number) for number in chosen.confirm_trials)
    return {**facts, "search trial": chosen.trial, "confirm trials": confirm_trials}


def _runner_up_tile(line: FinalistLine, metric: str) -> Tile:
    runner_up = line.finalist
    note = f"{metric} {figure_text(runner_up.mean)}"
    if line.difference is not None:
        note += f"; minus the winner {difference_text(line.difference)}"
    if line.tied:
        note += "; cannot be told apart from the winner"
    return Tile("Runner-up", f"{runner_up.lr_schedule}, lr\N{NO-BREAK SPACE}{number_text(runner_up.lr)}", note)


def difference_text(difference: Difference) -> str:
    """Return a difference with its interval: "0.0031 [0.0012, 0.0050]"."""
    return f"{figure_text(difference.mean, 2)} {interval_text(difference.interval)}".strip()


def _interval_note(finalist: Finalist) -> str:
    seeds = len(finalist.seeds)
    if finalist.interval:
        return f"95 % interval {interval_text(finalist.interval)}, {seeds} seeds"
    return "one seed, so no interval" if seeds == 1 else ""


def _minus_the_winner(difference: Difference) -> Difference | None:
    """Return the difference the other way about: best.yaml holds the winner's minus the finalist's."""
    if math.isnan(difference.mean):
        return None
    interval = difference.interval
    return Difference(-difference.mean, Interval(-interval.high, -interval.low) if interval else None)


def _strip(finalist: Finalist, low: float, high: float) -> Strip:
    left, right = _STRIP
    scale = (right - left) / ((high - low) or 1.0)

    def place(figure: float) -> float:
        return left + scale * (figure - low)

    interval = finalist.interval
    return Strip(
        values=[place(value) for value in finalist.values],
        interval=(place(interval.low), scale * (interval.high - interval.low)) if interval else None,
        mean=place(finalist.mean) if math.isfinite(finalist.mean) else None,
    )
