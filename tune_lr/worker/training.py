"""The one training loop. Range tests, searches and confirmations all go through it; only their LR differs."""

import math
import random
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import Dataset

from tune_lr.config.task import Task
from tune_lr.errors import InputError
from tune_lr.lr.divergence import DivergenceDetector, ExplosionDetector
from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.lr.schedules import SCHEDULES
from tune_lr.records.parameters import whole_optimizer
from tune_lr.records.steps import equal_steps, steps_covered
from tune_lr.records.trial import Report, TrialFacts, TrialSpec
from tune_lr.worker.checkpoint import random_state, set_random_state
from tune_lr.worker.checks import be_deterministic, global_batch_size, layout_of
from tune_lr.worker.colossal import Boosted
from tune_lr.worker.compat.optimizer_state import restore_optimizer
from tune_lr.worker.compat.plateau import Plateau
from tune_lr.worker.evaluation import DIVERGED, Evaluation, Load, items_in
from tune_lr.worker.groups import described_groups, param_groups
from tune_lr.worker.loading import Indices, batches, micro_batches
from tune_lr.worker.model import made_model
from tune_lr.worker.not_a_number import first_said, nan_in, word
from tune_lr.worker.optimizers import cycles_momentum, make_optimizer
from tune_lr.worker.weights import MODEL_FILE, load_weights, save_model
from tune_lr.workloads import Batch, Outputs, Workload, items_per_epoch, sampler_of, to_device

# The losses of this many steps are read from the device, and reduced over ranks, in one go. A trial that diverges is
# stopped at its step whenever that is read; no more than these steps are computed in vain.
STEPS_PER_READ = 16


class Training:
    """One trial on one rank. Every rank of the group makes the same calls and gets the same reports."""

    def __init__(self, workload: Workload, task: Task, trial: TrialSpec, device: torch.device) -> None:
        self._workload, self._task, self._trial, self._device = workload, task, trial, device
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        self._layout = layout_of(task)
        self._data_rank = self._layout.data_rank(self._rank)
        self._base = global_batch_size(workload, task)
        self._batch_size = batch_size = trial.batch_size or self._base
        be_deterministic(task.training.deterministic)
        self.steps_per_epoch = items_per_epoch(workload) // batch_size

        seed_everything(trial.seed)  # alike on all ranks: the same initial weights
        model = made_model(workload, device)
        groups = param_groups(workload, model, task.training.decay_norms_and_biases)
        arguments = whole_optimizer(task.optimizer, trial.optimizer)
        optimizer = make_optimizer(arguments.pop("name"), arguments, groups)
        self._ratios = [group["lr"] for group in optimizer.param_groups]  # of a group's LR to the trial's
        self._boosted = Boosted(model, optimizer, task, workload)
        # Apart from here on: each copy of the model draws its own dropout masks.
        seed_everything(trial.seed + self._data_rank)

        cycles = cycles_momentum(optimizer)
        self._plateau = _plateau(trial)
        self._lr, self._momentum = _lr_of_step(trial, self.steps_per_epoch, cycles, self._plateau)
        self.facts = TrialFacts(
            batch_size=batch_size,
            steps_per_epoch=self.steps_per_epoch,
            optimizer=type(optimizer).__name__,
            cycles_momentum=cycles,
            metrics=tuple(f"val_{name}" for name in ("loss", *workload.metrics)),
            device=device.type,
            groups=described_groups(workload, model),
        )
        self._load = _loader(workload, task.training.loader_workers, pin=device.type == "cuda")
        self._evaluation = Evaluation(
            workload, self._boosted, self._layout, self._data_rank, batch_size, device, self._load
        )
        self._notices: list[str] = []
        self._detector: DivergenceDetector | ExplosionDetector = (
            DivergenceDetector() if trial.phase == "range_test" else ExplosionDetector()
        )
        self.step = self._steps_taken = 0
        self._batches = self._train_batches()
        self._kept, self._late = time.monotonic(), False  # when the last checkpoint was due; whether one is
        self._said: set[str] = set()  # metrics whose values were not numbers

    @property
    def progress(self) -> int:
        """A count of steps and batches of validation, for whoever watches that it grows."""
        return self._steps_taken + self._evaluation.batches

    def run(self) -> Report:
        """Trains up to the next report. At the trial's end the report says `over`. A checkpoint that is due between
        validations has a report of its own."""
        started = time.perf_counter()
        until = self._next_report()
        points: list[tuple[int, float, float]] = []
        diverged = due = False
        failure = ""
        while self.step < until and not diverged and not due:
            lrs, losses = self._train(min(STEPS_PER_READ, until - self.step, self._steps_to_checkpoint()))
            first = self.step - len(lrs)
            points += [(first + i + 1, lr, loss) for i, (lr, loss) in enumerate(zip(lrs, losses, strict=True))]
            at = self._detector.update(losses)
            if at is not None:
                points = [point for point in points if point[0] <= at + 1]
                self.step, diverged = at + 1, True
                failure = self._data_fault(at, points[-1][2])
            due = self._checkpoint_is_due()
        metrics: Mapping[str, float] = {}
        if not diverged and self.step == until and self._trial.phase != "range_test":
            # What a verdict rests on is measured on all of the data.
            items = None if self._trial.phase == "confirm" else self._task.training.val_items
            metrics = self.evaluate(self._workload.val_data, "val", items)
            diverged, failure = self._judge(metrics)
            if self._plateau is not None and math.isfinite(metrics[self._task.metric]):
                self._plateau.step(metrics[self._task.metric])  # the same on every rank
        over = diverged or bool(failure) or self.step >= self._trial.max_steps
        if over:
            self._batches.close()
            if not diverged and not failure and self._trial.checkpoint:
                self._save(Path(self._trial.checkpoint))
        notices, self._notices = tuple(self._notices), []
        return Report(
            step=self.step,
            points=tuple(points),
            metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            over=over,
            diverged=diverged and not failure,
            failure=failure,
            notices=notices,
            seconds=time.perf_counter() - started,
            facts=self.facts,
            checkpoint=due and not over,
        )

    def _judge(self, metrics: Mapping[str, float]) -> tuple[bool, str]:
        """Return whether a validation says that the trial diverged, and why the trial cannot be finished, or "".

        A metric that is not a number does not end a trial before its end: a first validation may find no positive item,
        for example. A loss does.
        """
        reasons = self._evaluation.reasons
        if not reasons:
            return False, ""
        if "val_loss" in reasons:
            if reasons["val_loss"] == DIVERGED:
                return True, ""
            return False, self._not_a_number("val_loss", metrics["val_loss"], "the training losses were finite")
        objective = self._task.metric
        if objective in reasons and self.step >= self._trial.max_steps:
            diverged = reasons[objective] == DIVERGED
            return diverged, "" if diverged else self._not_a_number(
                objective, metrics[objective], "val_loss was finite"
            )
        for name in reasons.keys() - self._said:
            self._said.add(name)
            self._notices.append(self._not_a_number(name, metrics[name], "val_loss was finite"))
        return False, ""

    def _not_a_number(self, name: str, value: float, finite: str) -> str:
        return f"{name} {word(value)} at step {self.step}; {finite}: {self._evaluation.reasons[name]}"

    def _data_fault(self, step: int, loss: float) -> str:
        """Return why the training loss of the step with this 0-based index is not a number, where the data is at fault.

        It is where a tensor of the step's batch holds NaN, while that of the step before holds none.
        """
        if not math.isnan(loss):
            return ""
        held = next((text for batch in self._batches_from(step, step + 1) if (text := nan_in(batch))), "")
        if held and step and any(nan_in(batch) for batch in self._batches_from(step - 1, step)):
            held = ""
        held = first_said(held)
        before = "; the losses before were finite" if step else ""
        what = f"the training loss is not a number at step {step + 1}{before}"
        return f"{what}: the step's batch of train_data: {held}" if held else ""

    def rehearse_step(self, look: Callable[[nn.Module], None]) -> None:
        """Take one step. `look` is given the model with its gradients, where each rank holds all of it.

        Raises InputError where the loss is not finite, although nothing was trained yet.
        """
        take_step = self._pipeline_step if self._layout.pipeline > 1 else self._step
        self._boosted.model.train()
        self._set_lr()
        loss = float(take_step(list(islice(self._batches, self._task.training.accumulate))))
        self._batches.close()
        if self._boosted.whole:
            look(self._boosted.inner)
        held = next((text for batch in self._batches_from(0, 1) if (text := nan_in(batch))), "")
        _refuse_not_finite("the training loss", loss, f"a batch of train_data: {held}" if held else "")
        self._boosted.update()

    def rehearse_validation(self) -> None:
        """Validate on one batch. Raises InputError where the loss is not finite."""
        loss = self.evaluate(self._workload.val_data, "val", self._batch_size)["val_loss"]
        reason = self._evaluation.reasons.get("val_loss", "")
        _refuse_not_finite("val_loss", loss, "" if reason == DIVERGED else f"the training loss is finite: {reason}")

    def rehearse_saving(self) -> None:
        """Write the model's file, and remove it."""
        if self._boosted.whole and self._rank == 0:
            with tempfile.TemporaryDirectory(prefix="tune_lr_") as folder:
                save_model(self._boosted.inner, Path(folder))

    def test(self) -> Report:
        """Evaluates each of the trial's checkpoints on the test data, where the workload has any."""
        started, values = time.perf_counter(), []
        data = self._workload.test_data
        for checkpoint in self._trial.checkpoints if data is not None else ():
            assert data is not None
            if self._boosted.whole:
                load_weights(self._boosted.inner, Path(checkpoint))
            else:
                self._boosted.load(Path(checkpoint) / MODEL_FILE)
            values.append(self.evaluate(data, "test"))
        return Report(step=0, over=True, test_values=tuple(values), seconds=time.perf_counter() - started)

    def state(self) -> dict[str, Any]:
        """What the trial needs to go on from here as if it had never stopped, as far as this rank has to say it: rank 0
        for all, each for its random numbers. The order of the data follows from the seed and the step."""
        state: dict[str, Any] = {"random": random_state(self._device)}
        if self._rank == 0:
            state |= {
                "step": self.step,
                "model": self._boosted.inner.state_dict(),
                "optimizer": self._boosted.optimizer.optim.state_dict(),
                "detector": dict(vars(self._detector)),
            }
            if self._boosted.scaler is not None:
                state["scaler"] = self._boosted.scaler.state_dict()
            if self._plateau is not None:
                state |= {"plateau": self._plateau.state_dict(), "lr": self._lr(self.step)}
        return state

    def restore(self, shared: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        """Goes on from rank 0's state, and with the random numbers of this rank's own. To be called before `run`."""
        self.step = shared["step"]
        self._batches = self._train_batches()
        self._boosted.inner.load_state_dict(shared["model"])
        restore_optimizer(self._boosted.optimizer.optim, shared["optimizer"])
        vars(self._detector).update(shared["detector"])
        if self._boosted.scaler is not None:
            self._boosted.scaler.load_state_dict(shared["scaler"])
        if self._plateau is not None:
            self._plateau.load_state_dict(shared["plateau"])
            self._plateau.optimizer.param_groups[0]["lr"] = shared["lr"]
        set_random_state(own["random"], self._device)

    def _next_report(self) -> int:
        """Its step: reports come where trials with other batch sizes have seen as many samples."""
        every, sizes = self._trial.report_every or self._task.report_every, (self._base, self._batch_size)
        reports = steps_covered(self.step, *sizes) // every
        return min(equal_steps((reports + 1) * every, *sizes), self._trial.max_steps)

    def _steps_to_checkpoint(self) -> int:
        plan = self._task.checkpoints
        return plan.every_steps - self.step % plan.every_steps if plan and plan.every_steps else STEPS_PER_READ

    def _checkpoint_is_due(self) -> bool:
        """The same on all ranks."""
        plan = self._task.checkpoints
        if plan is None:
            return False
        due = self._late or (plan.every_steps is not None and self.step % plan.every_steps == 0)
        if due:
            self._kept = time.monotonic()
        return due

    def _clock_says(self) -> bool:
        """Whether it is time for a checkpoint, by rank 0's clock."""
        plan = self._task.checkpoints
        if plan is None or plan.every_minutes is None or self._rank:
            return False
        return time.monotonic() - self._kept >= plan.every_minutes * 60

    def _save(self, directory: Path) -> None:
        """Writes the weights so that a reader sees the whole file or none."""
        if self._boosted.whole:
            left_out = save_model(self._boosted.inner, directory) if self._rank == 0 else ()
            if left_out:
                self._notices.append(
                    f"{MODEL_FILE} holds tensors only; left out of it: {', '.join(left_out)} (from get_extra_state)"
                )
            return
        directory.mkdir(parents=True, exist_ok=True)
        self._boosted.save(directory / f".{MODEL_FILE}")
        dist.barrier()
        if self._rank == 0:
            (directory / f".{MODEL_FILE}").replace(directory / MODEL_FILE)

    def _train(self, steps: int) -> tuple[list[float], list[float]]:
        """Takes optimizer steps; returns each one's LR and training loss, reduced over ranks. The losses are read from
        the device once, at the end, and whether rank 0's clock wants a checkpoint with them."""
        boosted, take_step = self._boosted, self._pipeline_step if self._layout.pipeline > 1 else self._step
        boosted.model.train()
        lrs, losses = [], []
        for _ in range(steps):
            lrs.append(self._set_lr())
            losses.append(take_step(list(islice(self._batches, self._task.training.accumulate))))
            boosted.update()
            self.step += 1
            self._steps_taken += 1
        clock = torch.tensor([float(self._clock_says())], dtype=torch.float64).to(self._device, non_blocking=True)
        reduced = torch.cat([torch.stack(losses).double(), clock])
        if self._world > 1:
            dist.all_reduce(reduced)
            reduced /= self._world / self._layout.pipeline  # of a pipeline one stage has losses, the others zeros
        *means, late = reduced.tolist()
        self._late = late > 0
        return lrs, means

    def _step(self, parts: list[Batch]) -> Tensor:
        """Forward and backward of one step's micro-batches; this rank's part of the loss."""
        total: Tensor | None = None
        alone = self._boosted.whole and self._world == 1  # there is nobody to exchange gradients with
        for part, share in zip(parts, self._shares(parts), strict=True):
            with self._boosted.more_to_come() if alone or part is not parts[-1] else nullcontext():
                batch = to_device(part, self._device)
                with self._boosted.precision():
                    loss = self._workload.criterion(self._boosted.outputs(batch), batch)
                if share is not None:
                    loss = loss * share
                self._boosted.backward(loss)
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total

    def _shares(self, parts: list[Batch]) -> Sequence[Tensor | float | None]:
        """What the mean over each micro-batch counts in the step's loss, of which the plugin takes the mean over ranks;
        None stands for 1."""
        weigh = self._workload.batch_weight
        if weigh is None or (self._world == 1 and len(parts) == 1):
            return [None if len(parts) == 1 else 1 / len(parts)] * len(parts)
        weights = torch.tensor([float(weigh(part)) for part in parts]).to(self._device, non_blocking=True)
        total = weights.sum()
        if self._world > 1:
            dist.all_reduce(total)
        return list(weights * (self._world / total))

    def _pipeline_step(self, parts: list[Batch]) -> Tensor:
        """As `_step`, through all stages. The last one has the loss, the others report 0."""
        batch, weigh = to_device(parts[0], self._device), self._workload.batch_weight
        own = self._shares(parts)[0]
        whole = weigh(batch) if weigh else 0.0

        def criterion(outputs: Outputs, micro: Batch) -> Tensor:
            loss = self._workload.criterion(self._boosted.in_fp32(outputs), micro)
            if weigh is None or own is None:
                return loss
            # The pipeline takes the mean over micro-batches; a share of the tokens is made up for here.
            return loss * own * (weigh(micro) * (items_in(batch) / items_in(micro)) / whole)

        loss = self._boosted.run_pipeline(batch, criterion)
        return torch.zeros((), device=self._device) if loss is None else loss.detach()

    def _set_lr(self) -> float:
        lr, momentum = self._lr(self.step), self._momentum(self.step)
        for group, ratio in zip(self._boosted.optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = lr * ratio
            if momentum is not None and "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            elif momentum is not None:
                group["momentum"] = momentum
        return lr

    def evaluate(self, data: Dataset[Any], prefix: str, items: int | None = None) -> dict[str, float]:
        """Return the figures of the model over `data`, or over `items` of it: "val_loss", "val_accuracy"."""
        return self._evaluation.measure(data, prefix, items)

    def _train_batches(self) -> Generator[Batch, None, None]:
        """This rank's micro-batches, from the present step to the trial's end."""
        return self._batches_from(self.step, self._trial.max_steps)

    def _batches_from(self, step: int, until: int) -> Generator[Batch, None, None]:
        data, seed = self._workload.train_data, self._trial.seed
        # It does not know of `self`: the processes that load end with the last reference to this training.
        order = micro_batches(
            items=items_per_epoch(self._workload),
            batch_size=self._batch_size,
            copies=self._layout.data,
            copy=self._data_rank,
            parts=self._task.training.accumulate,
            seed=seed,
            steps=range(step, until),
            sampler=sampler_of(self._workload),
        )
        return self._load(data, order, f"train {seed}")


def _refuse_not_finite(name: str, value: float, reason: str) -> None:
    """Raise InputError where a value is not finite on any rank before anything was trained. All ranks call this."""
    bad = "" if math.isfinite(value) else f"{word(value)}: {reason or 'the model or the criterion gives it'}"
    if bad := first_said(bad):
        raise InputError(f"workload: {name} of the first batch {bad}; nothing was trained yet")


def _loader(workload: Workload, workers: int, *, pin: bool) -> Load:
    """Return `batches` for this workload. It does not know of a training: what loads ends with the last one of it."""

    def load(data: Dataset[Any], order: Iterable[tuple[int, Indices]], seed: str) -> Generator[Batch, None, None]:
        return batches(workload, data, order, seed, workers, pin)

    return load


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _lr_of_step(
    trial: TrialSpec, steps_per_epoch: int, cycles: bool, plateau: ReduceLROnPlateau | None
) -> tuple[Callable[[int], float], Callable[[int], float | None]]:
    if trial.ramp:
        return trial.ramp.lr, lambda _step: None
    if plateau is not None:
        return lambda _step: float(plateau.optimizer.param_groups[0]["lr"]), lambda _step: None
    schedule = make_lr_schedule(trial.lr_schedule, trial.parameters, trial.max_steps, steps_per_epoch=steps_per_epoch)
    return lambda step: schedule.lr(trial.lr, step), schedule.momentum if cycles else lambda _step: None


def _plateau(trial: TrialSpec) -> ReduceLROnPlateau | None:
    """torch's class on an optimizer of its own, whose LR is the trial's; None where the LR is a function of the step.

    It is made anew with the trial: one that is trained again from its start sees the same validations, and falls alike.
    """
    if trial.ramp or not SCHEDULES[trial.lr_schedule].by_metric:
        return None
    schedule = make_lr_schedule(trial.lr_schedule, trial.parameters, trial.max_steps)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=trial.lr)
    return Plateau(optimizer, **schedule.arguments(trial.lr))
