"""Train many small models of one kind side by side, in one program. Each model has its own peak LR and LR schedule.

| symbol | meaning | unit | shape |
|---|---|---|---|
| lrs | the LR of every row at every step | | (rows, steps) |
| weights | all weights of every row in one vector | | (rows, weights) |
| losses | the training loss of every row at a step | loss | (rows,) |
| parents | the row that a row is a copy of up to its fork | | (rows,) |
| forks | the first step at which a row differs from its parent | steps | (rows,) |

A row is one model. All rows begin with the same weights and see the same batches, which are those of one seed. Two
things save time and leave the result as it is. Rows that have the same LRs up to some step are the same training up to
that step; only one of them is trained so far, and the others are then copied from it. A row that has diverged is not
trained any further.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap  # type: ignore[attr-defined]

from longrun.workloads import Work

Array = NDArray[np.float64]

# A training has diverged once the loss of a batch is not finite, or this many times that of the first batch.
DIVERGED = 1000.0


@dataclass(frozen=True)
class Curves:
    """The losses of the rows, before the first step and after each part of the training; shapes (rows, points + 1).

    The first `train_loss` is that of the first batch, and the others are means over the batches of a part. Both losses
    are inf from the part on in which a row diverged.
    """

    val_loss: Array
    train_loss: Array


def train_rows(work: Work, seed: int, lrs: Array, points: int) -> Curves:
    """Train a model with each row of `lrs`, and validate before the first step and after each of `points` equal parts.

    Raises ValueError where there are fewer steps than points.
    """
    steps = lrs.shape[1]
    if steps < points:
        raise ValueError(f"too few steps for {points} validations (got {steps})")
    ends = [round(point * steps / points) for point in range(points + 1)]
    parents, forks = parents_and_forks(lrs)
    lr_of_step = torch.tensor(lrs.T, dtype=torch.float32).contiguous()
    rows = _Rows.first(work, seed, np.flatnonzero(parents < 0), points)
    curves = Curves(*(np.full((len(lrs), points + 1), np.inf) for _ in range(2)))
    batches = work.data.batches(seed)
    for step in range(steps):
        if step in ends:
            rows.end_part(ends.index(step), step)
        for row in np.flatnonzero(forks == step):
            _copy_row(curves, int(parents[row]), int(row))
        rows.fork(parents, forks, step)
        if len(rows.numbers) == 0:
            continue
        losses = rows.step(lr_of_step[step][rows.numbers], *next(batches))
        if step == 0:
            rows.train_loss[:, 0] = losses
            limit = DIVERGED * losses[0].abs()
        alive = losses <= limit  # NaN is not
        if not alive.all():
            _write(curves, rows, ~alive)
            rows.keep(alive)
    rows.end_part(points, steps)
    _write(curves, rows, torch.ones(len(rows.numbers), dtype=torch.bool))
    return curves


def parents_and_forks(lrs: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the parent and the fork of every row; shapes (rows,).

    The parent is the earlier row with the longest beginning in common. Both values are -1 for a row that differs from
    every earlier row at the first step. A row that equals its parent everywhere forks at the last step.
    """
    parents = np.full(len(lrs), -1)
    forks = np.full(len(lrs), -1)
    for row in range(1, len(lrs)):
        same = np.flatnonzero(lrs[:row, 0] == lrs[row, 0])
        if len(same):
            differs = lrs[same] != lrs[row]
            parts = np.where(differs.any(axis=1), differs.argmax(axis=1), lrs.shape[1] - 1)
            parents[row], forks[row] = same[parts.argmax()], parts.max()
    return parents, forks


def _copy_row(curves: Curves, source: int, target: int) -> None:
    """Copy the losses of a row: where its parent has diverged before the fork, the row has diverged too."""
    curves.val_loss[target] = curves.val_loss[source]
    curves.train_loss[target] = curves.train_loss[source]


def _write(curves: Curves, rows: "_Rows", which: Tensor) -> None:
    """Enter the losses of some rows into the curves."""
    numbers = rows.numbers[which].numpy()
    curves.val_loss[numbers] = rows.val_loss[which].double().numpy()
    curves.train_loss[numbers] = rows.train_loss[which].double().numpy()


class _Rows:
    """The rows that are being trained, with their weights, the state of their optimizers and their losses so far."""

    def __init__(self, work: Work, model: nn.Module, numbers: Tensor, weights: Tensor, points: int) -> None:
        self.work = work
        self.shapes = {name: p.shape for name, p in model.named_parameters()}
        self.model = model
        self.numbers = numbers
        self.weights = weights
        self.state = [torch.zeros_like(weights) for _ in range(1 if work.optimizer == "sgd" else 2)]
        self.val_loss = torch.full((len(numbers), points + 1), torch.inf)
        self.train_loss = torch.full((len(numbers), points + 1), torch.inf)
        self.sums = torch.zeros(len(numbers), dtype=torch.float64)  # sums of the training losses in this part
        self.part_begins = 0
        self.steps = 0

    @classmethod
    def first(cls, work: Work, seed: int, numbers: NDArray[np.int64], points: int) -> "_Rows":
        """Return the rows that are trained from the first step on."""
        torch.manual_seed(seed)
        model = work.model()
        with torch.no_grad():
            weights = torch.cat([p.flatten() for p in model.parameters()]).repeat(len(numbers), 1)
        return cls(work, model, torch.from_numpy(numbers), weights, points)

    def losses(self, weights: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every row on one batch; shape (rows,)."""

        def loss(row: Tensor) -> Tensor:
            pieces = row.split([shape.numel() for shape in self.shapes.values()])
            named = {name: piece.view(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}
            return self.work.loss(functional_call(self.model, named, (inputs,)), targets)

        losses: Tensor = vmap(loss)(weights)
        return losses

    def step(self, lrs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Take one optimizer step with the LR of every row, and return the losses before it; shapes (rows,)."""
        weights = self.weights.requires_grad_()
        losses = self.losses(weights, inputs, targets)
        (gradients,) = torch.autograd.grad(losses.sum(), weights)
        self.weights = weights.detach()
        self.steps += 1
        update = self._sgd if self.work.optimizer == "sgd" else self._adam
        update(gradients, lrs.unsqueeze(1))
        self.sums += losses.detach()
        return losses.detach()

    def _sgd(self, gradients: Tensor, lrs: Tensor) -> None:
        """Update the weights as torch.optim.SGD does with momentum and without dampening."""
        (velocity,) = self.state
        velocity.mul_(self.work.arguments["momentum"]).add_(gradients)
        self.weights.addcmul_(velocity, lrs, value=-1)

    def _adam(self, gradients: Tensor, lrs: Tensor) -> None:
        """Update the weights as torch.optim.AdamW does, which is torch.optim.Adam where the weight decay is 0."""
        mean, square = self.state
        beta1, beta2 = self.work.arguments.get("betas", (0.9, 0.999))
        decay = self.work.arguments.get("weight_decay", 0.0)
        if decay:
            self.weights.mul_(1 - lrs * decay)
        mean.lerp_(gradients, 1 - beta1)
        square.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        scale = square.sqrt().div_((1 - beta2**self.steps) ** 0.5).add_(1e-8)
        self.weights.addcmul_(mean.div(scale), lrs / (1 - beta1**self.steps), value=-1)

    def end_part(self, point: int, step: int) -> None:
        """Validate, and take the mean of the training losses of the part that ends before `step`."""
        if len(self.numbers) == 0:
            return
        with torch.no_grad():
            parts = [self.losses(self.weights, *batch) for batch in self.work.data.val_batches()]
        # In the files NaN means that nothing was trained.
        self.val_loss[:, point] = torch.stack(parts).mean(0).nan_to_num(nan=torch.inf, posinf=torch.inf)
        if point:
            self.train_loss[:, point] = (self.sums / (step - self.part_begins)).float()
        self.sums.zero_()
        self.part_begins = step

    def fork(self, parents: NDArray[np.int64], forks: NDArray[np.int64], step: int) -> None:
        """Add the rows that fork at this step as copies of their parents."""
        place = {int(number): i for i, number in enumerate(self.numbers)}
        forking = np.flatnonzero(forks == step)
        new = np.array([row for row in forking if int(parents[row]) in place], dtype=np.int64)  # of living parents
        if len(new):
            self._index(torch.tensor([*range(len(self.numbers)), *(place[int(parents[row])] for row in new)]))
            self.numbers = torch.cat([self.numbers[: -len(new)], torch.from_numpy(new)])

    def keep(self, which: Tensor) -> None:
        """Go on with some of the rows only."""
        self._index(which.nonzero().squeeze(1))

    def _index(self, index: Tensor) -> None:
        """Take the rows with these indices, some of them twice where a row forks."""
        for name in ("numbers", "weights", "val_loss", "train_loss", "sums"):
            setattr(self, name, getattr(self, name)[index])
        self.state = [tensor[index] for tensor in self.state]
