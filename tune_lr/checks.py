"""What can only be checked once the workload is loaded: before ColossalAI is imported and any trial starts."""

import torch
from torch import nn

from tune_lr.errors import InputError, one_line
from tune_lr.lr_schedules import make_lr_schedule
from tune_lr.optimizers import make_optimizer
from tune_lr.trial import Task, TrialSpec
from tune_lr.workloads import Workload
from tune_lr.workloads.first_batch import check_first_batch


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
    _check_optimizer(task)
    if not trial.ramp and trial.lr_schedule:
        make_lr_schedule(trial.lr_schedule, trial.parameters, trial.max_steps, steps_per_epoch=items // batch_size)
    if task.plugin == "ddp":  # the others are for models that one process may not hold
        unused = bool(task.plugin_args.get("find_unused_parameters"))
        check_first_batch(workload, batch_size // task.workers, unused)


def _check_optimizer(task: Task) -> None:
    """Takes one step with it: some arguments are refused only there."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parameters = [nn.Parameter(torch.ones(shape, device=device)) for shape in ((2, 2), (2,))]
    optimizer = make_optimizer(task.optimizer, task.optimizer_args, [{"params": parameters}])
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    try:
        optimizer.step()
    except Exception as error:
        what = f"{type(optimizer).__name__} cannot take a step with its arguments: {one_line(error)}"
        raise InputError(f"optimizer: {what} (got {dict(task.optimizer_args)!r})") from None
