"""What a study will run, known before it starts and without Ray, torch or Optuna."""

from collections.abc import Sequence
from dataclasses import dataclass

from tune_lr.config import Config
from tune_lr.errors import InputError

PHASES = ("range_test", "search", "confirm")


@dataclass(frozen=True)
class Plan:
    """Numbers of trials, and of optimizer steps at most."""

    ramps: int
    ramp_steps: int
    trials: int  # of the search, fixed configurations included
    confirmations: int
    max_steps: int

    @property
    def steps(self) -> int:
        return self.ramps * self.ramp_steps + (self.trials + self.confirmations) * self.max_steps


def plan(config: Config, phases: Sequence[str] = PHASES) -> Plan:
    ramps = config.parameters.lr.needs_range_test or tuple(phases) == ("range_test",)
    searching = "search" in phases
    return Plan(
        ramps=config.range_test.replicates if ramps else 0,
        ramp_steps=config.range_test.steps,
        trials=config.num_trials + len(config.fixed) if searching else 0,
        confirmations=config.confirm.top * config.confirm.seeds if searching else 0,
        max_steps=config.max_steps,
    )


def check_address(address: str | None) -> None:
    """Refuses the address of a Ray cluster that cannot serve a driver here."""
    if address and address.startswith("ray://"):
        raise InputError(
            f"--address: Ray Client would run Tune elsewhere (got {address!r}); submit a job instead "
            "(ray job submit -- tune-lr search ...), or give HOST:PORT on a node of the cluster"
        )
