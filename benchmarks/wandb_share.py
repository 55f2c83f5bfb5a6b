"""What W&B costs: CPU-seconds of the driver in a search of the default space, W&B offline, beside the same without.

    python benchmarks/wandb_share.py [--rounds 3] [--num-trials 12] [--set KEY=VALUE ...]

`share` is what the threads that serve W&B took of the CPU-seconds of the driver's process, read from the kernel at the
end of one and the same run, so that noise between runs does not enter it; `process` is what W&B's own process took
beside it. `difference` is the driver's CPU-seconds, and the wall, with W&B less those without: medians over
interleaved runs.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median


def cpu_s(task: str) -> float:
    """CPU-seconds of a process or a thread, by its folder under /proc."""
    stat = Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def one(mode: str, num_trials: int, settings: list[str]) -> dict[str, float]:
    """One search in this process."""
    from tune_lr.cli.main import main
    from tune_lr.tracking.process import WandbProcess

    threads, process = 0.0, 0.0
    close = WandbProcess.close

    def read_and_close(self: WandbProcess) -> None:
        nonlocal threads, process
        ours = [thread for thread in threading.enumerate() if thread.name.startswith("wandb-")]
        threads = sum(cpu_s(f"self/task/{thread.native_id}") for thread in ours)
        process = cpu_s(str(self._process.pid))
        close(self)

    WandbProcess.close = read_and_close  # type: ignore[method-assign]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = ["search", "--wandb", mode, "--out", scratch, "--name", "study", "--num-trials", str(num_trials)]
        code = main([*arguments, *(word for setting in settings for word in ("--set", setting))])
        assert code == 0, code
        wall = time.monotonic() - began
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "wandb_s": threads, "process_s": process}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-trials", type=int, default=12)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--one", choices=["offline", "disabled"])
    options = parser.parse_args()
    if options.one:
        return print(json.dumps(one(options.one, options.num_trials, options.set)))
    results: dict[str, list[dict[str, float]]] = {"offline": [], "disabled": []}
    for number in range(options.rounds):
        for mode in list(results) if number % 2 == 0 else list(results)[::-1]:
            command = [sys.executable, __file__, "--one", mode, "--num-trials", str(options.num_trials)]
            done = subprocess.run(
                [*command, *(f"--set={setting}" for setting in options.set)], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
            results[mode].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1}: {mode} {json.dumps(results[mode][-1])}", flush=True)
    shares = [run["wandb_s"] / run["cpu_s"] for run in results["offline"]]
    print(f"share       {median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})")
    print(f"process     {median(run['process_s'] for run in results['offline']):.1f} s")
    for name in ("cpu_s", "wall_s"):
        with_wandb, without = (median(run[name] for run in results[mode]) for mode in results)
        print(f"difference  {name} {with_wandb:.1f} with, {without:.1f} without: {with_wandb - without:+.1f}")


if __name__ == "__main__":
    main()
