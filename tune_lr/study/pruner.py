"""Which trials of the search are stopped early: the rule. `open_trial` asks for it after every report."""

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import FrozenTrial

from tune_lr.config.model import Config
from tune_lr.records.phases import sign_of


class ScheduleHalving(BasePruner):
    """Asynchronous successive halving (Li et al. 2020) among trials of the same LR schedule.

    At a rung a trial goes on if it is the best, or among the best 1/`reduction_factor`, of those of its schedule that
    have been there. Across schedules a rung would compare unlike things: one that decays early looks better there than
    it ends, one that warms up looks worse. Rungs are `first_rung` times the powers of `reduction_factor`, in steps with
    the study's batch size. There is no state but the reported values themselves, so a resumed study decides as one that
    was never stopped.
    """

    def __init__(self, first_rung: int, reduction_factor: int, max_steps: int) -> None:
        self._reduction_factor = reduction_factor
        self._rungs = set()
        while first_rung < max_steps:
            self._rungs.add(first_rung)
            first_rung *= reduction_factor

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether `trial` ends at its last reported step."""
        step = trial.last_step
        if step not in self._rungs:
            return False
        sign = sign_of(study.direction.name.lower())
        name = _schedule_of(trial)
        values = sorted(
            sign * other.intermediate_values[step]
            for other in study.get_trials(deepcopy=False)
            if step in other.intermediate_values and _schedule_of(other) == name
        )
        survivors = max(1, len(values) // self._reduction_factor)
        return sign * trial.intermediate_values[step] > values[survivors - 1]


def make_pruner(config: Config) -> BasePruner:
    """Return the pruner that the configuration names."""
    pruner = config.pruner
    if pruner.name == "none":
        return NopPruner()
    return ScheduleHalving(pruner.min_steps or config.report_every, pruner.reduction_factor, config.max_steps)


def _schedule_of(trial: FrozenTrial) -> str:
    """Return the LR schedule of a trial; "" for all where there is only one, which is then not drawn."""
    return str(trial.params.get("lr_schedule", ""))
