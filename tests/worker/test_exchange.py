"""Gradients that ranks of one machine exchange through its memory, between real processes.

python test_exchange.py RANK WORLD PORT CASE     is one of them; the last line that it prints is JSON
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tune_lr.worker import exchange


def averages() -> dict[str, Any]:
    """What the exchange gives, and what torch's own gives, of more values than there is place for and of fewer."""
    end = exchange.connect()
    assert end is not None
    found: dict[str, Any] = {"digests": [], "as_gloo": []}
    for number, (count, dtype) in enumerate(
        [(3, torch.float32), (3_000_000, torch.float32), (1, torch.float64), (2_500_001, torch.bfloat16)] * 2
    ):
        generator = torch.Generator().manual_seed(100 * number + dist.get_rank())
        ours = torch.randn(count, generator=generator).to(dtype)
        gloos = ours / dist.get_world_size()
        dist.all_reduce(gloos)
        end.average(ours)
        found["digests"].append([float(ours.double().sum()), float(ours[-1])])
        found["as_gloo"].append(torch.equal(ours, gloos) or float((ours - gloos).abs().max()))
    return found


def refused() -> dict[str, Any]:
    return {"connected": exchange.connect() is not None}


def no_room() -> dict[str, Any]:
    exchange.PLACE_BYTES = 1 << 50
    return refused()


def no_folder() -> dict[str, Any]:
    """On rank 0's machine there is none; the others are not kept waiting."""
    if dist.get_rank() == 0:
        exchange.IN_MEMORY = Path("/nowhere")
    return refused()


def cannot_open() -> dict[str, Any]:
    """Rank 1 cannot open the files: as if it were on another machine."""
    if dist.get_rank() == 1:
        limit = len(list(Path("/proc/self/fd").iterdir())) - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return refused()


def gradients() -> dict[str, Any]:
    """Of a model under DDP, by steps with and without the exchange."""
    found = {}
    for name in ("gloo", "memory"):
        torch.manual_seed(0)
        model = DistributedDataParallel(nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 1)))
        if name == "memory":
            exchange.exchange_in_memory(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(dist.get_rank())
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.randn(8, 20)).square().mean().backward()
            optimizer.step()
        found[name] = [parameter.flatten().tolist() for parameter in model.parameters()]
    return found


CASES = {case.__name__: case for case in (averages, no_room, no_folder, cannot_open, gradients)}


def run_ranks(case: str, world: int) -> list[dict[str, Any]]:
    from studies import free_port

    command = [sys.executable, "-W", "ignore", __file__]
    port = str(free_port())
    ranks = [
        subprocess.Popen([*command, str(rank), str(world), port, case], stdout=subprocess.PIPE, text=True)
        for rank in range(world)
    ]
    printed = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * world
    return [json.loads(output.splitlines()[-1]) for output in printed]


def left_behind() -> list[Path]:
    return sorted(exchange.IN_MEMORY.glob("tune_lr_*"))


@pytest.mark.parametrize("world", [2, 3])
def test_all_ranks_get_the_same_average(world: int) -> None:
    before = left_behind()
    first, *others = run_ranks("averages", world)
    assert all(other["digests"] == first["digests"] for other in others)
    if world == 2:
        assert first["as_gloo"] == [True] * 8
    else:  # gloo adds in another order
        assert max(first["as_gloo"][i] for i in (1, 5)) < 1e-6
    assert left_behind() == before


@pytest.mark.parametrize("case", ["no_room", "no_folder", "cannot_open"])
def test_where_one_rank_cannot_take_part_none_does(case: str) -> None:
    before = left_behind()
    assert [found["connected"] for found in run_ranks(case, 2)] == [False, False]
    assert left_behind() == before


def test_ddp_trains_as_over_gloo() -> None:
    first, second = run_ranks("gradients", 2)
    assert first["memory"] == second["memory"] == first["gloo"]


@pytest.mark.parametrize(("persistent", "sent"), [(True, True), (False, False)])
def test_buffers_are_sent_at_each_step_where_they_are_part_of_the_state(
    group_of_one: None, persistent: bool, sent: bool
) -> None:
    from tune_lr.worker import colossal  # noqa: F401 - it imports ColossalAI in the light way
    from tune_lr.worker.compat.cpu_ddp import CPUDDPPlugin

    model = nn.Linear(2, 1)
    model.register_buffer("seen", torch.zeros(1), persistent=persistent)
    boosted = CPUDDPPlugin().configure(model)[0]
    assert boosted.module.broadcast_buffers is sent


def test_one_rank_alone_exchanges_nothing(group_of_one: None) -> None:
    assert exchange.connect() is None


if __name__ == "__main__":
    rank, world, port, case = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=int(rank), world_size=int(world))
    sys.stdout.write(json.dumps(CASES[case]()) + "\n")
    sys.stdout.flush()
    os._exit(0)  # gloo's threads, without file descriptors, would not end well
