"""A first step, a first validation and the model's file, on the very path that trials take, before any trial starts.

What fails here fails in every trial, so it is the user's to mend. All that was trained is thrown away: a trial builds
its model, optimizer and random numbers anew.
"""

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import nn

from tune_lr.config.task import Task
from tune_lr.errors import InputError
from tune_lr.records.trial import TrialSpec
from tune_lr.worker.training import Training
from tune_lr.workloads import Workload, raised
from tune_lr.workloads.first_batch import check_gradients, guarded, is_of_the_group

# The LR of the step: it runs all of the optimizer, and leaves the model as it is.
TINY_LR = 1e-12


def rehearse(workload: Workload, task: Task, trial: TrialSpec, device: torch.device) -> None:
    """Go once through all that a trial does. Every rank of the group has to call this.

    Raises InputError, in one line, for what fails.
    """
    unused = bool(task.scaling.plugin_args.get("find_unused_parameters"))

    def look(model: nn.Module) -> None:
        check_gradients(model, unused_parameters=unused)

    spec = replace(
        trial,
        phase="search",
        lr=TINY_LR,
        lr_schedule="constant",
        parameters={},
        ramp=None,
        checkpoint=None,
        resume=0,
        batch_size=max(task.batch_sizes, default=trial.batch_size),
    )
    stage = "building the model and the optimizer"
    try:
        training = Training(guarded(workload), task, spec, device)
        stage = "the first step"
        training.rehearse_step(look)
        stage = "the first validation"
        training.rehearse_validation()
        stage = "writing the model's file"
        training.rehearse_saving()
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, dist.DistError) or is_of_the_group(error):
            raise
        raise InputError(f"workload: {stage} {raised(error)}") from error
