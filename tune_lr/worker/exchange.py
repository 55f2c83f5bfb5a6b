"""Averages gradients over the workers of one machine through its memory, for DDP on CPUs.

gloo sends them through TCP, which took a fifth to a third of a small model's step (benchmarks/RESULTS.md). Here every
rank writes its part to where all can read it, says so by a byte in each other rank's pipe, and sums up what is there in
the order of the ranks: the same figures on every rank, and with two of them the same as gloo's.

A rank that dies or hangs leaves the others waiting, as it may with gloo; whoever watches the group ends them.
"""

import mmap
import os
import shutil
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

PLACE_BYTES = 1 << 22  # what a rank can write at a time; each has two such places, used in turns
MOST_RANKS = 64
IN_MEMORY = Path("/dev/shm")


class Exchange:
    """One rank's end of it. A place is written again when all have read it: whoever says that the next one is written
    has."""

    def __init__(self, folder: Path) -> None:
        """Opens what `_lay_out` made."""
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        with (folder / "places").open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        # To read and write, so that none waits for the others to open theirs.
        self._pipes: list[int] = []
        for rank in range(self._world):
            self._pipes.append(os.open(folder / f"pipe_{rank}", os.O_RDWR))
        self._turn = 0
        self._said = dict.fromkeys(set(range(self._world)) - {self._rank}, 0)  # turns, by each of the others

    def average(self, values: Tensor) -> None:
        """Over all ranks, in place; shape (n,), on the CPU."""
        places = torch.frombuffer(self._memory, dtype=values.dtype).view(2, self._world, -1)
        for part in values.split(places.shape[2]):
            written = places[self._turn % 2, :, : len(part)]
            torch.div(part, self._world, out=written[self._rank])
            self._wait_for_all()
            torch.sum(written, 0, out=part)

    def _wait_for_all(self) -> None:
        self._turn += 1
        for rank in self._said:
            os.write(self._pipes[rank], bytes([self._rank]))
        while min(self._said.values()) < self._turn:
            for rank in os.read(self._pipes[self._rank], MOST_RANKS):
                self._said[rank] += 1

    def __del__(self) -> None:
        for pipe in getattr(self, "_pipes", ()):
            os.close(pipe)


def exchange_in_memory(model: DistributedDataParallel) -> None:
    """Has the gradients exchanged so, where all ranks share a machine that has the memory; else as torch does."""
    if (exchange := connect()) is not None:
        model.register_comm_hook(exchange, _average)


def _average(exchange: Exchange, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    gradients = bucket.buffer()
    if gradients.layout != torch.strided:  # those of a sparse embedding, which gloo adds up
        gradients = gradients.div_(dist.get_world_size())
        summed: torch.futures.Future[Tensor] = dist.all_reduce(gradients, async_op=True).get_future()
        return summed.then(lambda future: future.value()[0])
    exchange.average(gradients)
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(gradients)
    return done


def connect() -> Exchange | None:
    """Every rank's end, or None on every rank."""
    world = dist.get_world_size()
    if not 1 < world <= MOST_RANKS:
        return None
    said = [_lay_out(world) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(said)
    try:
        exchange = Exchange(Path(said[0])) if said[0] else None
    except OSError:  # of a rank on another machine
        exchange = None
    connected = torch.tensor(float(exchange is not None))
    dist.all_reduce(connected, op=dist.ReduceOp.MIN)  # and then nobody needs the names of the files any more
    if said[0] and dist.get_rank() == 0:
        shutil.rmtree(said[0])
    return exchange if connected else None


def _lay_out(world: int) -> str | None:
    """The folder of it all; None where there is no room for it."""
    try:
        folder = Path(tempfile.mkdtemp(dir=IN_MEMORY, prefix="tune_lr_"))
    except OSError:
        return None
    try:
        with (folder / "places").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 2 * world * PLACE_BYTES)  # else writing there might kill the process
        for rank in range(world):
            os.mkfifo(folder / f"pipe_{rank}", 0o600)
    except OSError:
        shutil.rmtree(folder)
        return None
    return str(folder)
