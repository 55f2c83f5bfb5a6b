"""What running trials through tune-lr costs, side by side with doing without it. LeNet-5 on mnist_5k, all cores.

    python benchmarks/overhead.py [--rounds 5]      the comparisons, interleaved: all parts once a round
    python benchmarks/overhead.py --part memory     200 trials x 2,000 curve points: the driver's memory

A round is
- `slots`: 40 trials of 5 epochs, one worker each; (wall - workers' start) / (training and validation time / slots)
- `loops`: plain PyTorch loops, one a core and none knowing of the other, with the same data, steps and validations, as
  nice as Ray makes its workers: whatever else the machine does takes as much from the ones as from the others
- `ours`: 6 trials of 5 epochs on one slot of two workers, end to end, Ray's start included
- `trainer`: the same 6 trials the documented way, Ray Train's TorchTrainer in a Tune function, end to end; ColossalAI's
  Booster wraps the model in both
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCHS, STEPS_PER_EPOCH, BATCH = 5, 31, 128
STEPS = EPOCHS * STEPS_PER_EPOCH
LR, MOMENTUM = 0.05, 0.9
RAY_NICENESS = 15  # RAY_worker_niceness


def slots(trials: int = 40, workers: int = 1) -> dict[str, float]:
    """Trials through tune-lr's slots, end to end, with what the workers say of themselves."""
    from grid import Batch
    from tune_lr.cluster import cluster
    from tune_lr.config.load import load_config
    from tune_lr.config.task import make_task
    from tune_lr.records.trial import Report, TrialSpec

    began = time.monotonic()
    task = make_task(load_config("lenet5_mnist", [f"scaling.workers_per_trial={workers}"]))
    specs = [TrialSpec(i, "bench", i, STEPS, LR, "constant") for i in range(trials)]
    seconds, first = 0.0, 0.0

    class Timed(Batch):
        def report(self, number: int, report: Report) -> bool:
            nonlocal seconds, first
            seconds += report.seconds
            first = first or time.monotonic() - report.seconds
            return super().report(number, report)

    with cluster.connected(None):
        count = cluster.count_slots(task, None)
        asked = time.monotonic()
        Timed(specs, lambda *_: None).run(task, count)
        ended = time.monotonic()
    return {
        "end_to_end_s": time.monotonic() - began,
        "start_s": first - asked,
        "overhead": (ended - first) / (seconds / count),
        "steps_per_s": trials * STEPS / (ended - first),
    }


def plain_loop(steps: int) -> float:
    """One plain PyTorch loop in this process; returns its seconds, start-up apart."""
    import torch
    from torch.utils.data import DataLoader

    from tune_lr.workloads.lenet5 import mnist_5k

    os.nice(RAY_NICENESS)
    torch.set_num_threads(1)
    workload = mnist_5k()
    model = workload.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    train = DataLoader(workload.train_data, BATCH, shuffle=True, drop_last=True)
    val = DataLoader(workload.val_data, BATCH)
    print("ready", flush=True)
    sys.stdin.readline()
    began, step = time.monotonic(), 0
    while step < steps:
        model.train()
        for batch in train:
            loss = workload.criterion(model(batch[0]), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            step += 1
        model.eval()
        with torch.no_grad():
            for batch in val:
                outputs = model(batch[0])
                workload.criterion(outputs, batch).item()
                workload.metrics["accuracy"](outputs, batch).item()
    return time.monotonic() - began


def loops(steps: int = 6 * STEPS) -> dict[str, float]:
    """As many plain loops as cores, started together."""
    command = [sys.executable, __file__, "--part", "plain", "--steps", str(steps)]
    outputs = together([command] * (os.cpu_count() or 1))
    return {"steps_per_s": sum(steps / float(output) for output in outputs)}


def together(commands: list[list[str]]) -> list[str]:
    """Runs commands that print "ready" and wait for a line, which they get when all are; returns what each printed."""
    processes = [subprocess.Popen(one, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for one in commands]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate()[0] for process in processes]


def train_loop(config: dict[str, Any]) -> None:
    """What a TorchTrainer's worker runs."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # a pool of compile processes would only slow it down
    import torch
    from colossalai.booster import Booster
    from colossalai.booster.plugin import TorchDDPPlugin
    from ray import train
    from ray.train.torch import prepare_data_loader
    from torch.utils.data import DataLoader

    from tune_lr.workloads.lenet5 import mnist_5k

    torch.set_num_threads(1)
    workload = mnist_5k()
    model = workload.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=MOMENTUM)
    booster = Booster(plugin=TorchDDPPlugin())  # Ray Train has made the process group
    model, optimizer, *_ = booster.boost(model, optimizer)
    world = train.get_context().get_world_size()
    batches = prepare_data_loader(DataLoader(workload.train_data, BATCH // world, shuffle=True, drop_last=True))
    val = DataLoader(workload.val_data, BATCH)
    for _ in range(EPOCHS):
        model.train()
        for batch in batches:
            loss = workload.criterion(model(batch[0]), batch)
            optimizer.zero_grad()
            booster.backward(loss, optimizer)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            losses = [workload.criterion(model(batch[0]), batch).item() for batch in val]
        train.report({"val_loss": sum(losses) / len(losses)})


def trainer(trials: int = 6) -> dict[str, float]:
    """The documented way, in a process of its own."""
    output = subprocess.run(
        [sys.executable, __file__, "--part", "trainer", "--steps", str(trials)], capture_output=True, text=True
    )
    assert output.returncode == 0, output.stderr[-3000:]
    return {"end_to_end_s": json.loads(output.stdout.splitlines()[-1])}


def run_trainer(trials: int) -> float:
    began = time.monotonic()
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0")
    import ray
    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    # One CPU for the trial's own process, one for each of its two workers.
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as scratch:

        def trainable(config: dict[str, Any]) -> None:
            report: Any = TuneReportCallback()  # its type is that of Tune's callbacks; Train takes it all the same
            TorchTrainer(
                train_loop,
                train_loop_config=config,
                scaling_config=ScalingConfig(num_workers=2),
                run_config=RunConfig(storage_path=scratch, callbacks=[report]),
            ).fit()

        results = tune.Tuner(
            trainable,
            param_space={"lr": tune.grid_search([LR * (1 + i / 100) for i in range(trials)])},
            tune_config=tune.TuneConfig(max_concurrent_trials=1),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0),
        ).fit()
        assert not results.errors, results.errors
        assert len(results) == trials
    ray.shutdown()
    return time.monotonic() - began


def memory() -> None:
    """A study of 200 trials x 2,000 points by the command line's own code, W&B offline; prints the peak."""
    from tune_lr.cli.main import main

    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "tiny.py").write_text(TINY)
        Path(scratch, "space.yaml").write_text(TINY_SPACE)
        began = time.monotonic()
        code = main(["search", f"{scratch}/space.yaml", "--out", scratch, "--name", "study", "--wandb", "offline"])
        assert code == 0
        curves = Path(scratch).glob("study/trials/*/curve.csv")
        points = sum(len(path.read_text().splitlines()) - 1 for path in curves)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nmemory: {points:,} points, driver's peak {peak:.0f} MB, {time.monotonic() - began:.0f} s")


TINY = """
import torch
from torch.utils.data import TensorDataset
from tune_lr import Workload

def make_workload():
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, x.sum(1, keepdim=True))
    loss = lambda outputs, batch: torch.nn.functional.mse_loss(outputs, batch[1])
    return Workload(model=lambda: torch.nn.Linear(4, 1), train_data=data, val_data=data, criterion=loss, batch_size=32)
"""
TINY_SPACE = """
workload: tiny:make_workload
max_steps: 2000
report_every: 500
num_trials: 200
pruner: {name: none}
confirm: {top: 0}
parameters:
  lr: {min: 1e-3, max: 1e-1}
  lr_schedule: {values: [constant, cosine]}
"""


def spread(values: list[float], digits: int = 2) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=["all", "memory", "plain", "trainer"], default="all")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    if options.part == "memory":
        return memory()
    if options.part == "plain":
        return print(plain_loop(options.steps))
    if options.part == "trainer":
        return print(json.dumps(run_trainer(options.steps)))
    rounds = []
    for number in range(options.rounds):
        order: list[tuple[str, Callable[[], dict[str, float]]]] = [
            ("slots", slots),
            ("loops", loops),
            ("ours", lambda: slots(6, 2)),
            ("trainer", trainer),
        ]
        results = {}
        for name, part in order if number % 2 == 0 else order[::-1]:
            results[name] = part()
            print(f"round {number + 1}: {name} {json.dumps(results[name])}", flush=True)
        rounds.append(results)
    pairs = [
        ("(wall - start) / (busy / slots), 40 trials", [r["slots"]["overhead"] for r in rounds]),
        ("workers' start, s, two slots of one", [r["slots"]["start_s"] for r in rounds]),
        ("workers' start, s, one slot of two", [r["ours"]["start_s"] for r in rounds]),
        ("steps/s, ours / plain loops", [r["slots"]["steps_per_s"] / r["loops"]["steps_per_s"] for r in rounds]),
        (
            "end to end, TorchTrainer / ours, 6 trials",
            [r["trainer"]["end_to_end_s"] / r["ours"]["end_to_end_s"] for r in rounds],
        ),
    ]
    for name, values in pairs:
        print(f"{name:<46} {spread(values)}")


if __name__ == "__main__":
    main()
