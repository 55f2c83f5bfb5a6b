"""What can only be checked once the workload is loaded: before ColossalAI is imported and any trial starts."""

import torch
from torch import nn

from tune_lr.errors import InputError
from tune_lr.lr_schedules import make_lr_schedule
from tune_lr.optimizers import make_optimizer
from tune_lr.trial import Task, TrialSpec
from tune_lr.workloads import Workload


def global_batch_size(workload: Workload, task: Task) -> int:
    return task.batch_size or workload.batch_size


def check_task(workload: Workload, task: Task, trial: TrialSpec) -> None:
    """Raises InputError, in the user's terms, for what could not be known before the workload was loaded."""
    batch_size, items = global_batch_size(workload, task), len(workload.train_data)  # type: ignore[arg-type]
    if batch_size % task.workers:
        raise InputError(
            f"batch_size: {batch_size} cannot be split evenly over scaling.workers_per_trial (got {task.workers})"
        )
    if items < batch_size:
        raise InputError(f"batch_size: the training data has {items} items, fewer than one batch of {batch_size}")
    known = [f"val_{name}" for name in ("loss", *workload.metrics)]
    if task.metric not in known:
        raise InputError(
            f"metric.name: the workload does not measure it (got {task.metric!r}); it has {', '.join(known)}"
        )
    probe = nn.Parameter(torch.zeros(1))
    make_optimizer(task.optimizer, task.optimizer_args, [{"params": [probe]}])
    if not trial.ramp and trial.lr_schedule:
        make_lr_schedule(trial.lr_schedule, trial.parameters, trial.max_steps, steps_per_epoch=items // batch_size)
