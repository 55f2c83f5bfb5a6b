"""What can only be checked once the workload is loaded: before ColossalAI is imported and any trial starts."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tune_lr.config.plugins import Layout, batch_divisor, layout
from tune_lr.config.task import Task
from tune_lr.errors import InputError, one_line
from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.records.parameters import whole_optimizer
from tune_lr.records.trial import TrialSpec
from tune_lr.worker.optimizers import make_optimizer
from tune_lr.workloads import Workload, items_per_epoch, load_batch
from tune_lr.workloads.first_batch import check_data


def global_batch_size(workload: Workload, task: Task) -> int:
    """Return the batch size over all workers, in which the study counts steps. A trial may have another one."""
    return task.batch_size or workload.batch_size


def layout_of(task: Task) -> Layout:
    """Return how the plugin divides a trial's workers."""
    return layout(task.scaling.plugin_args, task.scaling.workers_per_trial)


def be_deterministic(on: bool) -> None:
    """Have torch use deterministic algorithms only, and raise where it has none; or not.

    Call it before the first batch: cuBLAS reads its setting when it is used for the first time.
    """
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(on)
    torch.backends.cudnn.deterministic = on
    torch.backends.cudnn.benchmark = False


def check_task(workload: Workload, task: Task, trial: TrialSpec) -> None:
    """Raises InputError, in the user's terms, for what could not be known before the workload was loaded."""
    items = items_per_epoch(workload)
    batch_size = max(task.batch_sizes, default=global_batch_size(workload, task))  # the one that wants most
    where = "parameters.batch_size" if task.batch_sizes else "batch_size"
    divisor, name = batch_divisor(layout_of(task), task.scaling.plugin_args, task.training.accumulate)
    if batch_size % divisor:
        raise InputError(f"{where}: must be a multiple of {name} (got {batch_size})")
    if items < batch_size:
        raise InputError(f"{where}: the training data has {items} items, fewer than one batch of {batch_size}")
    known = [f"val_{name}" for name in ("loss", *workload.metrics)]
    if task.metric not in known:
        raise InputError(
            f"metric.name: the workload does not measure it (got {task.metric!r}); it has {', '.join(known)}"
        )
    _check_optimizer(task.optimizer)
    for searched in task.optimizers_to_try:
        try:
            _check_optimizer(whole_optimizer(task.optimizer, searched))
        except InputError as error:
            what = str(error).removeprefix("optimizer")
            if "name" in searched:
                what = f".choices.{searched['name']}{what.removeprefix('.name')}"
            raise InputError(f"parameters.optimizer{what}") from None
    if not trial.ramp and trial.lr_schedule:
        make_lr_schedule(trial.lr_schedule, trial.parameters, trial.max_steps, steps_per_epoch=items // batch_size)
    be_deterministic(task.training.deterministic)
    check_data(workload, batch_size // divisor)
    if task.scaling.plugin == "fsdp" and workload.param_groups is not None:
        raise InputError(
            "scaling.plugin: 'fsdp' does not go with the workload's param_groups, since ColossalAI's plugin keeps one "
            "group; use 'low_level_zero', or leave them out"
        )
    if layout_of(task).pipeline > 1:
        _check_pipeline(workload, batch_size)


def _check_pipeline(workload: Workload, batch_size: int) -> None:
    where = "scaling.plugin_args.pp_size: a pipeline"
    if workload.forward is not None:
        raise InputError(f"{where} calls the model itself, so the workload can have no forward; leave it out")
    batch = load_batch(workload, workload.train_data, range(1))
    if not isinstance(batch, Mapping):
        raise InputError(f"{where} takes batches that are mappings (got {type(batch).__name__}); return mappings")
    if len(workload.val_data) < batch_size:  # type: ignore[arg-type]
        what = f"val_data has {len(workload.val_data)} items, fewer than one batch of {batch_size}"  # type: ignore[arg-type]
        raise InputError(f"{where} validates on whole batches: {what}")


def _check_optimizer(whole: Mapping[str, Any]) -> None:
    """Takes one step with it, given with its name: some arguments are refused only there."""
    name, arguments = whole["name"], {key: value for key, value in whole.items() if key != "name"}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parameters = [nn.Parameter(torch.ones(shape, device=device)) for shape in ((2, 2), (2,))]
    optimizer = make_optimizer(name, arguments, [{"params": parameters}])
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    try:
        optimizer.step()
    except Exception as error:
        what = f"{type(optimizer).__name__} cannot take a step with its arguments: {one_line(error)}"
        raise InputError(f"optimizer: {what} (got {arguments!r})") from None
