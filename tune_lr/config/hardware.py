"""The hardware that a cluster declares, and how many trials fit on it. Nothing here imports Ray."""

from collections.abc import Sequence
from dataclasses import dataclass

from tune_lr.config.training import Scaling
from tune_lr.errors import InputError, ResourceError


@dataclass(frozen=True)
class Node:
    """What one node of a cluster declares. `present` is false for a node that an autoscaler may start."""

    name: str
    cpus: float
    gpus: float
    present: bool = True

    def holds(self, scaling: Scaling) -> int:
        """Return how many workers fit on the node. A fraction of a GPU is always of one GPU."""
        fit = int(self.cpus / scaling.cpus_per_worker)
        share = scaling.gpus_per_worker
        if share >= 1:
            fit = min(fit, int(self.gpus / share))
        elif share:
            fit = min(fit, int(self.gpus) * int(1 / share + 1e-9))
        return fit

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU and {self.gpus:g} GPU"


@dataclass(frozen=True)
class Hardware:
    """What a cluster declares in all: its nodes, CPUs and GPUs."""

    nodes: int
    cpus: float
    gpus: float


def slots_on(nodes: Sequence[Node], scaling: Scaling, most: int | None) -> int:
    """Return how many trials fit at once, at most `most`. The workers of a trial may lie on several nodes."""
    slots = sum(node.holds(scaling) for node in nodes) // scaling.workers_per_trial
    return slots if most is None else min(slots, most)


def check_slots(nodes: Sequence[Node], scaling: Scaling) -> None:
    """Raise ResourceError if not even one trial fits: Tune would wait for ever."""
    if slots_on(nodes, scaling, None):
        return
    gpus = f" and {scaling.gpus_per_worker:g} GPU" if scaling.gpus_per_worker else ""
    has = ", ".join(map(str, nodes)) or "nothing"
    raise ResourceError(
        f"the cluster cannot hold one trial: it wants {scaling.workers_per_trial} workers "
        f"of {scaling.cpus_per_worker} CPU{gpus} each; "
        f"the cluster has {len(nodes)} node(s): {has}"
    )


def check_address(address: str | None, source: str = "--address") -> None:
    """Raise InputError for the address of a Ray cluster that cannot serve a driver on this machine.

    `source` is the option or the variable that has the address.
    """
    if address and address.startswith("ray://"):
        raise InputError(
            f"{source}: Ray Client would run Tune elsewhere (got {address!r}); submit a job instead "
            "(ray job submit -- tune-lr search ...), or give HOST:PORT on a node of the cluster"
        )
