"""What checkpoints cost: the CPU time of LeNet-5's training with one every 50 steps, over the same training without.

    python benchmarks/checkpoints.py [--pairs N] [--steps N] [--every N]

Everything in this process, on one thread: the training, the state as bytes, and the writing, which in a study is the
work of another process while the workers train on. Each pair trains the same trial twice, once with checkpoints, in
turns first and second. `share` is what the checkpoints alone took, of the rest of the same run. Then the same parts of
the work for a model of 100 MB with SGD and momentum.
"""

import argparse
import itertools
import socket
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from tune_lr.config.task import Task
from tune_lr.config.training import Scaling, TrainingDetails
from tune_lr.records.trial import CheckpointPlan, TrialSpec
from tune_lr.store.checkpoints import Checkpoint
from tune_lr.store.study_dir import StudyDir
from tune_lr.worker import colossal
from tune_lr.worker.checkpoint import pack, unpack
from tune_lr.worker.training import Training
from tune_lr.workloads import Workload
from tune_lr.workloads.lenet5 import mnist_5k

CPU = torch.device("cpu")


def task(every: int | None) -> Task:
    plan = CheckpointPlan(every, None, keep=2, root="", study_id="") if every else None
    return Task(
        workload="",
        workload_args={},
        batch_size=None,
        metric="val_loss",
        report_every=31,
        optimizer={"name": "sgd", "momentum": 0.9},
        training=TrainingDetails(),
        scaling=Scaling(),
        checkpoints=plan,
    )


def cpu_seconds(workload: Workload, steps: int, every: int | None, directory: StudyDir) -> tuple[float, float, int]:
    """Of one trial, and of these of its checkpoints; and how many those were."""
    started, spent, written = time.process_time(), 0.0, 0
    training = Training(workload, task(every), TrialSpec(0, "search", 0, steps, 0.1, "constant"), CPU)
    over = False
    while not over:
        report = training.run()
        over = report.over
        if report.checkpoint:
            began = time.process_time()
            checkpoint = Checkpoint(report.step, 0.0, {"rank-0.safetensors": pack(training.state())})
            directory.write_checkpoint(0, checkpoint, keep=2)
            spent += time.process_time() - began
            written += 1
    return time.process_time() - started, spent, written


def pairs(count: int, steps: int, every: int, directory: StudyDir) -> None:
    workload = mnist_5k()
    cpu_seconds(workload, every, every, directory)  # warm
    ratios, shares, checkpoints = [], [], 0
    for pair in range(count):
        seconds: dict[int | None, float] = {}
        for how in (every, None) if pair % 2 else (None, every):
            seconds[how], spent, written = cpu_seconds(workload, steps, how, directory)
            print(f"  {written} checkpoints: {seconds[how]:.2f} s", flush=True)
            if how is not None:
                shares.append(spent / (seconds[how] - spent))
                checkpoints = written
        ratios.append(seconds[every] / seconds[None])
    low, median, high = statistics.quantiles(ratios, n=4)
    size = sum(path.stat().st_size for path in directory.checkpoints_of(0).glob("*/*")) / 2 / 1e6
    print(f"LeNet-5, {steps} steps, {checkpoints} checkpoints of {size:.2f} MB: CPU time with over without:")
    print(f"median {median:.4f} of {count} pairs, quartiles {low:.4f} and {high:.4f}")
    print(f"share: median {statistics.median(shares):.4f}, at most {max(shares):.4f}")


def large(directory: StudyDir) -> None:
    """A model of 100 MB: what each part of a checkpoint takes."""
    width = 3500
    generator = torch.Generator().manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(64, width, generator=generator), torch.zeros(64, width))
    workload = Workload(
        model=lambda: nn.Sequential(nn.Linear(width, width), nn.Linear(width, width)),
        train_data=data,
        val_data=data,
        criterion=lambda outputs, batch: nn.functional.mse_loss(outputs, batch[1]),
        batch_size=32,
    )
    training = Training(workload, task(None), TrialSpec(0, "search", 0, 4, 0.01, "constant"), CPU)
    training.run()
    for _ in range(3):
        times = {"": (time.perf_counter(), time.process_time())}
        state = pack(training.state())
        times["state as bytes (the workers wait)"] = time.perf_counter(), time.process_time()
        directory.write_checkpoint(1, Checkpoint(4, 0.0, {"rank-0.safetensors": state}), keep=2)
        times["written and synced (they do not)"] = time.perf_counter(), time.process_time()
        found, _ = directory.newest_checkpoint(1, 4)
        assert found is not None
        training.restore(unpack(found.files["rank-0.safetensors"], CPU), unpack(state, CPU))
        times["read, checked and restored"] = time.perf_counter(), time.process_time()
        marks = list(times.items())
        for (_, before), (what, after) in itertools.pairwise(marks):
            print(f"  {what}: {after[0] - before[0]:.2f} s, {after[1] - before[1]:.2f} s of CPU", flush=True)
        print(f"  for {len(state) / 1e6:.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=310)
    parser.add_argument("--every", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    colossal.launch(0, 1, "127.0.0.1", port)
    with tempfile.TemporaryDirectory(prefix="tune-lr-") as scratch:
        directory = StudyDir(Path(scratch) / "study")
        pairs(options.pairs, options.steps, options.every, directory)
        large(directory)


if __name__ == "__main__":
    main()
