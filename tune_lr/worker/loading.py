"""Batches of a data set, loaded in the training loop or by processes of their own: the same ones, whichever it is."""

import random
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tune_lr.errors import InputError
from tune_lr.workloads import Batch, Workload, is_plain, load_batch

Indices = Sequence[int] | Tensor


def batches(
    workload: Workload, data: Dataset[Any], order: Iterable[tuple[int, Indices]], seed: str, workers: int, pin: bool
) -> Generator[Batch, None, None]:
    """For each (place, indices) of `order` the items at these indices, collated, in that order.

    What a data set draws at random for a batch, as augmentation does, follows from `seed` and the place alone.
    `workers` processes load ahead, 0 loads here; `pin` is for data that goes to a GPU from there.
    """
    source = _Source(workload, data, seed)
    if not workers:
        for job in order:
            yield source[job]
        return
    yield from DataLoader(
        source,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin,
        generator=torch.Generator(),  # else it would draw from the one that the trial's dropout masks come from
    )


class _Source(Dataset[Batch]):
    """A data set whose items are batches."""

    def __init__(self, workload: Workload, data: Dataset[Any], seed: str) -> None:
        self._workload, self._data, self._seed = workload, data, seed
        self._draws = workload.collate_fn is not None or not is_plain(data)

    def __getitem__(self, job: tuple[int, Indices]) -> Batch:
        place, indices = job
        if not self._draws:
            return load_batch(self._workload, self._data, indices)
        with random_state_after(f"{self._seed} {place}"):
            return load_batch(self._workload, self._data, indices)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def micro_batches(
    *,
    items: int,
    batch_size: int,
    copies: int,
    copy: int,
    parts: int,
    seed: int,
    steps: range,
    sampler: Sampler[int] | None = None,
) -> Iterator[tuple[int, Indices]]:
    """Yield for each of `steps` the micro-batches of one copy of the model: their places among those of all copies, and
    their items.

    The order of the data is drawn anew each epoch from the seed, or by the sampler, which then draws its random numbers
    after that seed. All ranks draw the same. `items` is the length of an epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    own_generator = getattr(sampler, "generator", None)
    if isinstance(own_generator, torch.Generator):  # else a trial would go on where the last one stopped
        own_generator.manual_seed(seed)
    steps_per_epoch = items // batch_size
    own = slice(copy * batch_size // copies, (copy + 1) * batch_size // copies)
    for epoch in range(steps.stop // steps_per_epoch + 1):
        if sampler is None:
            order = torch.randperm(items, generator=generator)
        else:
            order = _sampled(sampler, items, f"sampler {seed} {epoch}")
        for step in range(max(steps.start, epoch * steps_per_epoch), min(steps.stop, (epoch + 1) * steps_per_epoch)):
            first = (step - epoch * steps_per_epoch) * batch_size
            for part, indices in enumerate(order[first : first + batch_size][own].chunk(parts)):
                yield (step * parts + part) * copies + copy, indices


def _sampled(sampler: Sampler[int], items: int, seed: str) -> Tensor:
    """Return what a sampler yields in one epoch; shape (items,)."""
    with random_state_after(seed):
        drawn = list(sampler)
    if any(isinstance(index, list | tuple) for index in drawn[:1]):
        raise InputError(
            f"workload: sampler ({type(sampler).__name__}) yields batches (got {drawn[0]!r}); give one that yields the "
            "number of an item, and the batch size as batch_size"
        )
    if len(drawn) < items:
        raise InputError(
            f"workload: sampler ({type(sampler).__name__}) yields {len(drawn)} items where its length says {items}"
        )
    return torch.tensor([int(index) for index in drawn[:items]], dtype=torch.int64)


@contextmanager
def random_state_after(seed: str) -> Iterator[None]:
    """Random numbers of Python, numpy and torch (on the CPU) as after that seed; afterwards as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    number = random.Random(seed).getrandbits(32)
    random.seed(number)
    np.random.seed(number)
    torch.default_generator.manual_seed(number)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
