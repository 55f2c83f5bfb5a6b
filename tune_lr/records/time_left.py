"""How long a study still takes, by what its trials have taken so far.

Steps are counted with the study's own batch size, so that those of other batch sizes can be added to them.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple


class PhaseLeft(NamedTuple):
    """What is left of a phase."""

    trials: int  # that have not ended, those that run now included
    steps: float  # of one trial
    done: float = 0.0  # steps that the trials that run now have taken


def usual_steps(ended: Sequence[float], full: float) -> float:
    """Return the steps of one trial: the mean of those that have ended, and those of a full trial before."""
    return fmean(ended) if ended else full


def steps_left(phases: Iterable[PhaseLeft]) -> float:
    """Return how many steps are left in all.

    A phase has no less than 0 left, also where its trials take more than the usual.
    """
    return sum(max(0.0, phase.trials * phase.steps - phase.done) for phase in phases)


def seconds_left(steps: float, seconds: float, steps_done: float, slots: int) -> float:
    """Return how many seconds so many `steps` still take in so many `slots`.

    `seconds` is what the trials have taken for `steps_done` steps. Without a slot the study waits for a node, and takes
    at least as long as with one.
    """
    return max(0.0, steps) * seconds / steps_done / max(1, slots)
