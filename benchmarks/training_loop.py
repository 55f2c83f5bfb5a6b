"""What the training loop costs beside a bare PyTorch loop: CPU-seconds a step, 16 steps of each in turns.

    python benchmarks/training_loop.py [--pairs 10] [--workload lenet5|gpt_bytes] [--device cpu|cuda]

- `one worker`: CPU-seconds per optimizer step of `Training` with ColossalAI's DDP plugin and one worker, over those of
  a bare loop (DataLoader, model, loss.item() and optimizer, nothing else) on the same data and batch size. Validation
  is left out of both.
- `reading`: the same with the losses never read from the device, to see what logging every step takes
- `two workers`: steps a second of one group of two workers with the whole batch, over those of two bare loops side by
  side, each with half of the batch, so that both compute as many items in a step
- `beside DDP`: the same over those of two bare loops that exchange gradients by torch's DistributedDataParallel, over
  gloo as well: what is left to be gained

On a GPU the first two are measured, in seconds instead of CPU-seconds and over ten times as many steps.
"""

import argparse
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

from overhead import together

SPACES = {"lenet5": "lenet5_mnist", "gpt_bytes": "gpt_bytes"}
PART = 16  # steps of a part, after which our losses are read
PARTS = {"lenet5": 10, "gpt_bytes": 6}
ON_GPU = 10  # times as many parts
WARM_UP = 32
Seconds = tuple[float, float]  # CPU-seconds, seconds
GROUPS = ("group", "bare", "ddp")  # what two processes do


def set_up(name: str, steps: int, world: int = 1) -> Any:
    """The task, its workload and a trial long enough for the warm-up and the measured steps."""
    from tune_lr.config.load import load_config
    from tune_lr.config.task import make_task
    from tune_lr.records.trial import TrialSpec
    from tune_lr.workloads import load_workload

    task = make_task(load_config(SPACES[name], [f"scaling.workers_per_trial={world}"]))
    task = replace(task, report_every=WARM_UP + steps)
    # A ramp is not validated, and at a single small LR it does not diverge.
    from tune_lr.lr.ramp import Ramp

    trial = TrialSpec(0, "range_test", 0, WARM_UP + steps, ramp=Ramp(1e-4, 1.1e-4, WARM_UP + steps))
    return task, load_workload(task.workload, task.workload_args), trial


def clocks() -> Seconds:
    """CPU-seconds of this process, and seconds; what a GPU was given to do is done."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.process_time(), time.perf_counter()


def ours(name: str, device: str = "cpu", world: int = 1) -> Iterator[Seconds]:
    """What each part of `Training` takes on this rank."""
    import torch

    from tune_lr.worker import training

    parts = parts_on(name, device)
    task, workload, trial = set_up(name, PART * parts, world)
    run = training.Training(workload, task, trial, torch.device(device))
    run._train(WARM_UP)
    for _ in range(parts):
        cpu, wall = clocks()
        run._train(PART)
        until = clocks()
        yield until[0] - cpu, until[1] - wall


def bare(name: str, device: str = "cpu", share: int = 1, with_ddp: bool = False) -> Iterator[Seconds]:
    """The same of a loop that anybody would write; with one of `share` parts of the batch."""
    import torch
    from torch.utils.data import DataLoader

    from tune_lr.workloads import outputs_of, to_device

    task, workload, trial = set_up(name, PART * parts_on(name, device))
    torch.manual_seed(0)
    model = workload.model().to(device)
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    settings = dict(task.optimizer)
    optimizer = kinds[settings.pop("name")](model.parameters(), lr=1e-4, **settings)
    if with_ddp:
        model = torch.nn.parallel.DistributedDataParallel(model)
    size = (task.batch_size or workload.batch_size) // share
    loader = DataLoader(workload.train_data, size, shuffle=True, drop_last=True, collate_fn=workload.collate_fn)
    model.train()
    step, (cpu, wall) = 0, clocks()
    while True:
        for batch in loader:
            batch = to_device(batch, torch.device(device))
            optimizer.zero_grad()
            loss = workload.criterion(outputs_of(workload, model, batch), batch)
            loss.backward()
            optimizer.step()
            loss.item()
            step += 1
            if step > WARM_UP and (step - WARM_UP) % PART == 0:
                until = clocks()
                yield until[0] - cpu, until[1] - wall
            if step == trial.max_steps:
                return
            if step >= WARM_UP and (step - WARM_UP) % PART == 0:
                cpu, wall = clocks()


def unread(name: str, device: str) -> Iterator[Seconds]:
    """`ours` with losses that stay on the device."""
    import torch

    loop = ours(name, device)
    tolist: Callable[[Any], list[Any]] = torch.Tensor.tolist

    def unread_losses(self: torch.Tensor) -> list[float]:
        return [1.0] * len(self) if self.is_floating_point() else tolist(self)  # the places of items are read

    while True:
        torch.Tensor.tolist = unread_losses  # type: ignore[assignment,method-assign]
        try:
            seconds = next(loop, None)
        finally:
            torch.Tensor.tolist = tolist  # type: ignore[assignment,method-assign]
        if seconds is None:
            return
        yield seconds


def parts_on(name: str, device: str) -> int:
    return PARTS[name] * (ON_GPU if device == "cuda" else 1)


def in_turns(name: str, device: str) -> dict[Any, float]:
    """What a part of each of the three loops takes, its median. They go on by a part in turns: the machine is the same
    to all."""
    kinds: list[Callable[[str, str], Iterator[Seconds]]] = [bare, ours, unread]
    loops = {kind: kind(name, device) for kind in kinds}
    taken: dict[Any, list[float]] = {kind: [] for kind in kinds}
    for part in range(parts_on(name, device)):
        for kind in kinds if part % 2 == 0 else reversed(kinds):
            taken[kind].append(next(loops[kind])[device == "cuda"])
    return {kind: median(seconds) for kind, seconds in taken.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def launch(rank: int, world: int, port: int) -> None:
    import torch

    from tune_lr.worker import colossal
    from tune_lr.worker.compat.glibc_malloc import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()  # as our workers do; no disadvantage to the others
    colossal.launch(rank, world, "127.0.0.1", port)


def side_by_side(kind: str, name: str) -> float:
    """Steps a second of two processes that start together: of the group, or of the two loops on average."""
    port = str(free_port())
    command = [sys.executable, __file__, "--workload", name, "--port", port, "--part", kind, "--rank"]
    seconds: list[float] = [
        json.loads(output.splitlines()[-1]) for output in together([[*command, str(i)] for i in range(2)])
    ]
    return 1 / max(seconds) if kind == "group" else sum(1 / s for s in seconds) / 2


def rank_of(kind: str, name: str, rank: int, port: int) -> None:
    import torch

    from tune_lr.worker.compat.glibc_malloc import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    if kind != "bare":
        launch(rank, 2, port)
    print("ready", flush=True)
    sys.stdin.readline()
    loop = ours(name, world=2) if kind == "group" else bare(name, share=2, with_ddp=kind == "ddp")
    print(json.dumps(sum(wall for _, wall in loop) / (PART * PARTS[name])), flush=True)


def alone(name: str, _number: int, device: str) -> dict[str, float]:
    taken = in_turns(name, device)
    return {"one worker": taken[ours] / taken[bare], "reading": taken[ours] / taken[unread]}


def beside(name: str, number: int) -> dict[str, float]:
    speed = {kind: side_by_side(kind, name) for kind in (GROUPS if number % 2 == 0 else GROUPS[::-1])}
    return {"two workers": speed["group"] / speed["bare"], "beside DDP": speed["group"] / speed["ddp"]}


def summary(values: list[float]) -> str:
    """Median, and the range between the second smallest and second largest: at ten pairs, its 98 % interval."""
    ordered = sorted(values)
    return f"{median(values):.3f} ({ordered[1]:.3f} to {ordered[-2]:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--workload", choices=[*SPACES, "all"], default="all")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--part", choices=["all", *GROUPS], default="all", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part != "all":
        return rank_of(options.part, options.workload, options.rank, options.port)
    launch(0, 1, free_port())
    measures = [partial(alone, device=options.device)] + [beside] * (options.device == "cpu")
    for name in SPACES if options.workload == "all" else [options.workload]:
        for measure in measures:
            ratios: dict[str, list[float]] = {}
            for number in range(options.pairs):
                for title, ratio in measure(name, number).items():
                    ratios.setdefault(title, []).append(ratio)
                print(name, number + 1, {title: round(values[-1], 3) for title, values in ratios.items()}, flush=True)
            for title, values in ratios.items():
                print(f"{name:<10} {title:<12} {summary(values)}", flush=True)


if __name__ == "__main__":
    main()
