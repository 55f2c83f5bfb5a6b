"""The one training loop. Range tests, searches and confirmations all go through it; only their LR differs."""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import Dataset

from tune_lr.checks import global_batch_size
from tune_lr.colossal import Boosted
from tune_lr.lr_range_test import DivergenceDetector
from tune_lr.lr_schedules import SCHEDULES, make_lr_schedule
from tune_lr.optimizers import cycles_momentum, make_optimizer
from tune_lr.trial import Report, Task, TrialSpec
from tune_lr.workloads import Batch, Workload, load_batch, outputs_of, to_device

# The losses of this many steps are read from the device, and reduced over ranks, in one go. A trial that diverges is
# stopped at its step whenever that is read; no more than these steps are computed in vain.
STEPS_PER_READ = 16
# A training loss this many times its first value (or 1, where that is larger) has diverged, though still finite.
EXPLODED = 1e3


class Training:
    """One trial on one rank. Every rank of the group makes the same calls and gets the same reports."""

    def __init__(self, workload: Workload, task: Task, trial: TrialSpec, device: torch.device) -> None:
        self._workload, self._task, self._trial, self._device = workload, task, trial, device
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        batch_size = global_batch_size(workload, task)
        self.steps_per_epoch = len(workload.train_data) // batch_size  # type: ignore[arg-type]

        seed_everything(trial.seed)  # alike on all ranks: the same initial weights
        model = workload.model().to(device)
        optimizer = make_optimizer(task.optimizer, task.optimizer_args, _param_groups(workload, model))
        self._ratios = [group["lr"] for group in optimizer.param_groups]  # of a group's LR to the trial's
        self._boosted = Boosted(model, optimizer, task.plugin_args)
        seed_everything(trial.seed + self._rank)  # apart from here on: each rank draws its own dropout masks

        cycles = cycles_momentum(optimizer)
        self._plateau = _plateau(trial)
        self._lr, self._momentum = _lr_of_step(trial, self.steps_per_epoch, cycles, self._plateau)
        self.facts = {
            "batch_size": batch_size,
            "steps_per_epoch": self.steps_per_epoch,
            "optimizer": type(optimizer).__name__,
            "cycles_momentum": cycles,
            "metrics": [f"val_{name}" for name in ("loss", *workload.metrics)],
            "device": device.type,
        }
        self._has_diverged: Callable[[Sequence[float]], int | None] = (
            DivergenceDetector().update if trial.phase == "range_test" else _Explosion().update
        )
        self._batches = self._train_batches(batch_size)
        self.step = 0

    def run(self) -> Report:
        """Trains up to the next report. At the trial's end the report says `over`."""
        started = time.perf_counter()
        until = min((self.step // self._task.report_every + 1) * self._task.report_every, self._trial.max_steps)
        points: list[tuple[int, float, float]] = []
        diverged = False
        while self.step < until and not diverged:
            lrs, losses = self._train(min(STEPS_PER_READ, until - self.step))
            first = self.step - len(lrs)
            points += [(first + i + 1, lr, loss) for i, (lr, loss) in enumerate(zip(lrs, losses, strict=True))]
            at = self._has_diverged(losses)
            if at is not None:
                points = [point for point in points if point[0] <= at + 1]
                self.step, diverged = at + 1, True
        metrics: Mapping[str, float] = {}
        if not diverged and self._trial.phase != "range_test":
            metrics = self.evaluate(self._workload.val_data, "val")
            diverged = not all(math.isfinite(metrics[name]) for name in ("val_loss", self._task.metric))
            if self._plateau is not None and not diverged:
                self._plateau.step(metrics[self._task.metric])  # the same on every rank
        over = diverged or self.step >= self._trial.max_steps
        if over and not diverged and self._trial.checkpoint and self._rank == 0:
            save_model(self._boosted.inner, Path(self._trial.checkpoint))
        return Report(
            step=self.step,
            points=tuple(points),
            metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            over=over,
            diverged=diverged,
            seconds=time.perf_counter() - started,
            facts=self.facts,
        )

    def test(self) -> Report:
        """Evaluates each of the trial's checkpoints on the test data, where the workload has any."""
        started, values = time.perf_counter(), []
        data = self._workload.test_data
        for checkpoint in self._trial.checkpoints if data is not None else ():
            assert data is not None
            self._boosted.inner.load_state_dict(load_file(Path(checkpoint) / MODEL_FILE))
            values.append(self.evaluate(data, "test"))
        return Report(step=0, over=True, test_values=tuple(values), seconds=time.perf_counter() - started)

    def _train(self, steps: int) -> tuple[list[float], list[float]]:
        """Takes optimizer steps; returns each one's LR and training loss, reduced over ranks."""
        boosted, workload, world = self._boosted, self._workload, self._world
        boosted.model.train()
        lrs, losses = [], []
        for batch in islice(self._batches, steps):
            lrs.append(self._set_lr(boosted.optimizer.optim))
            loss = workload.criterion(outputs_of(workload, boosted.model, batch), batch)
            if workload.batch_weight is not None and world > 1:
                # DDP takes the plain mean over ranks; a rank's share of the batch is made up for here.
                weight = torch.tensor(float(workload.batch_weight(batch)), device=self._device)
                total = weight.clone()
                dist.all_reduce(total)
                loss = loss * (weight * world / total)
            boosted.backward(loss)
            boosted.optimizer.step()
            boosted.optimizer.zero_grad()
            losses.append(loss.detach())
            self.step += 1
        reduced = torch.stack(losses).double()
        if world > 1:
            dist.all_reduce(reduced)
            reduced /= world
        return lrs, reduced.tolist()

    def _set_lr(self, optimizer: Optimizer) -> float:
        lr, momentum = self._lr(self.step), self._momentum(self.step)
        for group, ratio in zip(optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = lr * ratio
            if momentum is not None and "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            elif momentum is not None:
                group["momentum"] = momentum
        return lr

    def evaluate(self, data: Dataset[Any], prefix: str) -> dict[str, float]:
        """Means over all of `data`, each item once whatever the number of ranks: "val_loss", "val_accuracy"."""
        workload, model = self._workload, self._boosted.inner
        measures = {"loss": workload.criterion, **workload.metrics}
        share = range(self._rank, len(data), self._world)  # type: ignore[arg-type]
        size = max(1, global_batch_size(workload, self._task) // self._world)
        sums = torch.zeros(len(measures) + 1, dtype=torch.float64, device=self._device)
        model.eval()
        with torch.inference_mode():
            for start in range(0, len(share), size):
                indices = list(share[start : start + size])
                batch = to_device(load_batch(workload, data, indices), self._device)
                outputs = outputs_of(workload, model, batch)
                weight = float(workload.batch_weight(batch)) if workload.batch_weight else float(len(indices))
                values = [measure(outputs, batch).double() * weight for measure in measures.values()]
                sums += torch.stack([*values, torch.tensor(weight, dtype=torch.float64, device=self._device)])
        if self._world > 1:
            dist.all_reduce(sums)
        means = (sums[:-1] / sums[-1]).tolist()
        return {f"{prefix}_{name}": mean for name, mean in zip(measures, means, strict=True)}

    def _train_batches(self, batch_size: int) -> Iterator[Batch]:
        """This rank's part of each global batch, for ever: an order drawn anew each epoch from the trial's seed."""
        data = self._workload.train_data
        generator = torch.Generator().manual_seed(self._trial.seed)
        while True:
            order = torch.randperm(len(data), generator=generator)  # type: ignore[arg-type]
            for indices in order[: self.steps_per_epoch * batch_size].split(batch_size):
                yield to_device(load_batch(self._workload, data, indices.chunk(self._world)[self._rank]), self._device)


MODEL_FILE = "model.safetensors"


def save_model(model: nn.Module, directory: Path) -> None:
    """Writes the weights so that a reader sees the whole file or none."""
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".{MODEL_FILE}"
    # A copy of each: the format refuses tied weights, which share their memory.
    tensors = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    save_file(tensors, temporary)
    temporary.replace(directory / MODEL_FILE)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class _Explosion:
    """Whether a training loss is beyond hope: not finite, or `EXPLODED` times where it began."""

    def __init__(self) -> None:
        self._seen, self._limit = 0, math.inf

    def update(self, losses: Sequence[float]) -> int | None:
        for loss in losses:
            if self._seen == 0:
                self._limit = EXPLODED * max(1.0, abs(loss))
            if not math.isfinite(loss) or loss > self._limit:
                return self._seen
            self._seen += 1
        return None


def _lr_of_step(
    trial: TrialSpec, steps_per_epoch: int, cycles: bool, plateau: ReduceLROnPlateau | None
) -> tuple[Callable[[int], float], Callable[[int], float | None]]:
    if trial.ramp:
        return trial.ramp.lr, lambda step: None
    if plateau is not None:
        return lambda step: float(plateau.optimizer.param_groups[0]["lr"]), lambda step: None
    schedule = make_lr_schedule(trial.lr_schedule, trial.parameters, trial.max_steps, steps_per_epoch=steps_per_epoch)
    return lambda step: schedule.lr(trial.lr, step), schedule.momentum if cycles else lambda step: None


def _plateau(trial: TrialSpec) -> ReduceLROnPlateau | None:
    """torch's class on an optimizer of its own, whose LR is the trial's; None where the LR is a function of the step.

    It is made anew with the trial: one that is trained again from its start sees the same validations, and falls alike.
    """
    if trial.ramp or not SCHEDULES[trial.lr_schedule].by_metric:
        return None
    schedule = make_lr_schedule(trial.lr_schedule, trial.parameters, trial.max_steps)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=trial.lr)
    return ReduceLROnPlateau(optimizer, **schedule.arguments(trial.lr))


def _param_groups(workload: Workload, model: nn.Module) -> list[dict[str, Any]]:
    """The optimizer's groups; "lr" is a ratio here, 1 where the workload names none."""
    groups = workload.param_groups(model) if workload.param_groups else [{"params": model.parameters()}]
    return [{"lr": 1.0, **group} for group in groups]
