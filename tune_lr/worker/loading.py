"""Batches of a data set, loaded in the training loop or by processes of their own: the same ones, whichever it is."""

import random
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tune_lr.workloads import Batch, Workload, load_batch

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
        self._draws = workload.collate_fn is not None or not isinstance(data, TensorDataset)

    def __getitem__(self, job: tuple[int, Indices]) -> Batch:
        place, indices = job
        if not self._draws:
            return load_batch(self._workload, self._data, indices)
        with _random_state(f"{self._seed} {place}"):
            return load_batch(self._workload, self._data, indices)


def _as_it_is(batch: Batch) -> Batch:
    return batch


@contextmanager
def _random_state(seed: str) -> Iterator[None]:
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
