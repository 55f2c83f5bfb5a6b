"""The plan of a study: what it will run, known before it starts and without Ray, torch or Optuna."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tune_lr.config.budget import Budget, confirmation_within
from tune_lr.config.lengths import steps_of_length
from tune_lr.config.model import Config
from tune_lr.records.phases import PHASES
from tune_lr.records.steps import steps_weight

# How a budget divides into the shorter lengths of a ladder: each has a share proportional to this power of the length.
# Simulated ladders of 3 and 4 lengths divide it about so (budgets of 0.8x to 4x); the model decides in the end.
SHARE_POWER = 0.25


@dataclass(frozen=True)
class PlannedLength:
    """One length of a ladder, and how many trials of it are expected, which is an estimate."""

    length: float  # a fraction of `max_steps`
    steps: int  # of one trial
    trials: int


@dataclass(frozen=True)
class Plan:
    """Numbers of trials, and of optimizer steps at most.

    `ramp_steps` is the mean over the ramps. `trials` counts those of the search, fixed configurations included; with a
    budget of full trainings there are at least so many, and with a ladder that is an estimate. Where batch sizes are
    searched, steps are in batches of the study's own size, and those of other sizes count by their samples. `lengths`
    has those of a ladder, the short ones first; it is empty where all trials are full trainings.
    """

    ramps: int
    ramp_steps: int
    trials: int
    confirmations: int
    max_steps: int
    budget: Budget | None = None
    lengths: tuple[PlannedLength, ...] = ()

    @property
    def trial_steps(self) -> int:
        """The optimizer steps of one search trial: at most, or with a ladder the mean that is expected."""
        trials = sum(planned.trials for planned in self.lengths)
        return (
            round(sum(planned.trials * planned.steps for planned in self.lengths) / trials)
            if trials
            else self.max_steps
        )

    @property
    def steps(self) -> int:
        """The most optimizer steps that all trials take together."""
        steps = self.ramps * self.ramp_steps + (self.trials + self.confirmations) * self.max_steps
        return (self.budget and self.budget.steps(self.max_steps)) or steps


def needs_range_test(config: Config, phases: Sequence[str] = PHASES) -> bool:
    """Return whether a search leaves a bound to the range test, or nothing else was asked for."""
    return tuple(phases) == ("range_test",) or (config.num_trials > 0 and config.parameters.lr.needs_range_test)


def plan(config: Config, phases: Sequence[str] = PHASES) -> Plan:
    """Return the plan of a study that runs these phases."""
    combinations = config.combinations
    full = config.max_steps
    ramps = config.range_test.replicates * len(combinations) if needs_range_test(config, phases) else 0
    mean_weight = fmean(steps_weight(combination.batch_size, config.batch_size) for combination in combinations)
    ramp_steps = round(config.range_test.steps * mean_weight)
    trials = config.num_trials + len(config.fixed)
    confirmations = config.confirm.finalists * config.confirm.most_seeds
    budget = config.spending if "search" in phases else None
    if budget and budget.trainings is not None:
        finalists, seeds = planned_confirmation(config, ramps * ramp_steps)
        confirmations = finalists * seeds
        trials = min(trials, (int(budget.trainings * full) - ramps * ramp_steps) // full - confirmations)
    lengths: tuple[PlannedLength, ...] = ()
    if config.ladder and config.num_trials and "search" in phases:
        lengths = planned_lengths(config, ramps * ramp_steps)
        trials = len(config.fixed) + sum(planned.trials for planned in lengths)
    if "search" not in phases:
        trials, confirmations = 0, 0
    return Plan(ramps, ramp_steps, trials, confirmations, full, budget, lengths)


def planned_lengths(config: Config, ramp_steps: int) -> tuple[PlannedLength, ...]:
    """Return how many trials of each length of a ladder are expected, where the ramps take so many steps in all.

    That is an estimate: which length comes next is decided by what each is expected to gain for its cost.
    """
    full = config.max_steps
    room = steps_for_the_ladder(config, ramp_steps)
    final = int(ends_at_full_length(config, room))
    shares = [length**SHARE_POWER for length in config.ladder[:-1]]
    wanted = [(room - final * full) * share / sum(shares) for share in shares]
    steps = [steps_of_length(length, full) for length in config.ladder[:-1]]
    counts = [max(1.0, part / each) for part, each in zip(wanted, steps, strict=True)]
    scale = min(1.0, max(1, config.num_trials - final) / sum(counts))
    short = [
        PlannedLength(length, each, max(1, round(scale * count)))
        for length, each, count in zip(config.ladder[:-1], steps, counts, strict=True)
    ]
    return (*short, PlannedLength(1.0, full, final))


def planned_confirmation(config: Config, ramp_steps: int) -> tuple[int, int]:
    """Return the finalists of the confirmation, and the seeds of each.

    Of a budget of full trainings it takes at most half of what the ramps (`ramp_steps` in all) and the fixed
    configurations leave, and with a ladder no more than what one trial of each length leaves.
    """
    full = config.max_steps
    confirm = config.confirm
    steps = config.spending.steps(full) if config.spending else None
    if steps is None:
        return confirm.finalists, confirm.seeds
    left = max(0, steps - ramp_steps - len(config.fixed) * full)
    trainings = left // (2 * full)
    if config.ladder:
        trainings = min(trainings, max(0, left - ladder_steps(config)) // full)
    return confirmation_within(trainings, confirm.finalists, confirm.seeds)


def ladder_steps(config: Config) -> int:
    """Return the steps of one trial of each length, the full one included."""
    return sum(steps_of_length(length, config.max_steps) for length in config.ladder)


def ends_at_full_length(config: Config, steps: float) -> bool:
    """Return whether so many steps hold a full training after one trial of each shorter length.

    Where they do, a search with trials of several lengths keeps a full training for its end.
    """
    return bool(config.ladder) and steps >= ladder_steps(config)


def steps_for_the_ladder(config: Config, ramp_steps: int) -> int:
    """Return how many steps of a budget of trainings are left to the trials of a search with several lengths."""
    full = config.max_steps
    steps = (config.spending.steps(full) if config.spending else None) or 0
    finalists, seeds = planned_confirmation(config, ramp_steps)
    return max(0, steps - ramp_steps - (len(config.fixed) + finalists * seeds) * full)
