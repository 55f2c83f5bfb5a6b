"""Faults of running studies: a real Ray, real groups of workers, the command line. Rows 1 to 10 and 17 to 19."""

import os
import random
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from faults.campaign import (
    CHECKPOINT_EVERY,
    MAX_STEPS,
    STEPS_PER_REPORT,
    Event,
    Held,
    Study,
    all_gone,
    check_no_canary,
    check_rows,
    check_same_curves,
    children_of,
    finished,
    ray_folder,
    ray_head,
    wait_for,
)
from studies import end_when, finished_and_running

FIRST_SEED = 1001  # of the confirmations: trials that the workload can tell apart
WORKER_LOST = "a worker was lost"
SLOT_LOST = "its slot was lost; it runs again"


def next_step(study: Study, after: int, least: int = 2) -> Event:
    """A rank in the middle of a step, at least the `least`-th of an attempt that begins after so many others."""

    def look() -> Event | None:
        for attempt in study.attempts[after:]:
            if len(attempt) > least:
                return attempt[-1]
        return None

    event: Event = wait_for(look, 200, f"step {least} of attempt {after}")
    return event


def redone(study: Study, trials: int, retries: int) -> int:
    """Steps that the two ranks together took more than once (I3). A checkpoint is on disk a report after its step."""
    taken = sum(len(attempt) - 1 for attempt in study.attempts) // 2
    steps = taken - trials * MAX_STEPS
    assert 0 <= steps <= retries * (CHECKPOINT_EVERY + 2 * STEPS_PER_REPORT), f"{steps} steps after {retries} retries"
    return steps


def all_gone_after_a_kill(children: Sequence[psutil.Process]) -> tuple[float, float]:
    """I4, where a driver has ended at once: seconds until nothing was left but Ray's two agents, which hold nothing and
    wait for what was killed with the driver; and until these were gone."""
    agents = []
    for child in children:
        with suppress(psutil.NoSuchProcess):
            agents += [child] * ("Agent" in child.name())
    return all_gone([child for child in children if child not in agents]), all_gone(agents, 90.0)


# --- rows 1 and 2 -----------------------------------------------------------------------------------------------------


def kill_ranks(folder: Path, count: int) -> Held:
    """SIGKILL a rank in the middle of a step, in every trial but the first."""
    return _kill_workers(folder, count, WORKER_LOST, lambda study, event: event.pid)


def kill_actors(folder: Path, count: int) -> Held:
    """SIGKILL the process of the trainable, whose ranks must go with it."""

    def actor(study: Study, event: Event) -> int:
        raylet = psutil.Process(event.pid).parent()
        assert raylet is not None
        (found,) = [child for child in raylet.children() if "Trainable" in " ".join(child.cmdline())]
        return int(found.pid)

    return _kill_workers(folder, count, SLOT_LOST, actor)


def _kill_workers(folder: Path, count: int, notice: str, victim_of: Any) -> Held:
    rng = random.Random(count)
    study = Study.of(folder, num_trials=count + 1)
    began = time.time()
    process = study.search()
    slowest = 0.0
    for kill in range(count):
        # Two ranks an attempt: the first trial's, then of each trial the one that is killed and the one after it.
        event = next_step(study, 2 + 4 * kill, rng.randint(1, MAX_STEPS - 2))
        together = [attempt[0].pid for attempt in study.attempts[2 + 4 * kill : 4 + 4 * kill]]
        victim = victim_of(study, event)
        others = [psutil.Process(pid) for pid in together if pid != victim and psutil.pid_exists(pid)]
        os.kill(victim, signal.SIGKILL)
        slowest = max(slowest, all_gone(others, 10.0))
    children = children_of(process)
    ended = finished(process, 0)
    wall = time.time() - began
    left = all_gone(children)
    rows = check_rows(study, count + 1)
    check_same_curves(study, rows)
    steps = redone(study, len(rows), count)
    assert ended.output.count(notice) == count, ended.output
    assert len(study.attempts) == 2 * (2 * count + 1), f"{len(study.attempts)} attempts"
    start, trial = study.attempts[0][0].time - began, MAX_STEPS * 0.15 + 2.0
    bound = start + (count + 1) * trial + count * (start + trial) + 15.0
    assert wall <= bound, f"{wall:.0f} s, more than {bound:.0f} s"
    files = check_no_canary(study.directory.root, ray_folder())
    return Held(
        count,
        f"{len(rows)} trials complete, their curves alike to the last digit; {count} retries, {steps} steps redone; "
        f"the other rank gone in {slowest:.1f} s, all processes {left:.1f} s after the end; {wall:.0f} s "
        f"(bound {bound:.0f} s); no key in {files} files",
    )


# --- row 3 ------------------------------------------------------------------------------------------------------------


def remove_nodes(folder: Path, count: int) -> Held:
    """A node is taken away without grace at a random moment, and another one comes 5 s later."""
    rng = random.Random(3)
    study = Study.of(folder, num_trials=max(8, 2 * count), scaling={"workers_per_trial": 1, "timeout_s": 20})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        process = study.search(f"--address={cluster.address}")
        for index in range(count):
            next_step(study, 2 * index, rng.randint(1, MAX_STEPS - 2))
            cluster.remove_node(nodes.pop(rng.randrange(2)), allow_graceful=False)
            time.sleep(5.0)
            nodes.append(cluster.add_node(num_cpus=1))
        ended = finished(process, 0)
    finally:
        cluster.shutdown()
    rows = check_rows(study, max(8, 2 * count))
    check_same_curves(study, rows)
    lost = ended.output.count(SLOT_LOST) + ended.output.count(WORKER_LOST)
    return Held(count, f"{len(rows)} trials complete, their curves alike; {lost} of them were begun again")


# --- rows 4 to 6 ------------------------------------------------------------------------------------------------------


def kill_ray_drivers(folder: Path, count: int) -> Held:
    """SIGKILL the driver when trials have ended and one runs; `resume` each time."""
    study = Study.of(folder, num_trials=2 * count + 2)
    process = study.search()
    gone = idle = 0.0
    for kill in range(count):
        wait_for(lambda: finished_and_running(study.directory.journal)[0] > 2 * kill, 200, "a trial's end")  # noqa: B023
        children = children_of(process)
        end_when(process, study.directory.journal, 2 * kill + 1)
        process.communicate()
        gone, idle = map(max, (gone, idle), all_gone_after_a_kill(children))
        process = study.resume()
    children = children_of(process)
    finished(process, 0)
    all_gone(children)
    rows = check_rows(study, 2 * count + 2)
    check_same_curves(study, rows)
    steps = redone(study, len(rows), count)
    return Held(
        count,
        f"{len(rows)} trials, each once; {steps} steps redone; all processes gone in {gone:.1f} s, but for Ray's two "
        f"idle agents ({idle:.0f} s)",
    )


def terminate(folder: Path, count: int) -> Held:
    """SIGTERM while a trial trains, and while Ray starts; then `resume`."""
    study = Study.of(folder, num_trials=2)
    slowest = 0.0
    process = study.search()
    for index in range(count):
        if index % 2:
            wait_for(lambda: "gcs_server" in [child.name() for child in children_of(process)], 60, "Ray's start")  # noqa: B023
        else:
            next_step(study, len(study.attempts))
        children = children_of(process)
        slowest = max(slowest, _end(study, process, signal.SIGTERM, 143, 15.0))
        all_gone(children)
        process = study.resume()
    finished(process, 0)
    check_same_curves(study, check_rows(study, 2))
    return Held(count, f"143 and the line to go on within {slowest:.1f} s; then every trial once")


def interrupt(folder: Path, count: int) -> Held:
    """SIGINT; then, in the next driver, SIGINT twice."""
    study = Study.of(folder, num_trials=2)
    process = study.search()
    once = twice = 0.0
    for index in range(count):
        next_step(study, len(study.attempts))
        children = children_of(process)
        if index % 2:
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)  # two signals at once are one
            twice = max(twice, _end(study, process, signal.SIGINT, 130, 5.0))
        else:
            once = max(once, _end(study, process, signal.SIGINT, 130, 15.0))
        all_gone_after_a_kill(children)
        process = study.resume()
    finished(process, 0)
    check_same_curves(study, check_rows(study, 2))
    return Held(count, f"130 within {once:.1f} s, the second time within {twice:.1f} s; then every trial once")


def _end(study: Study, process: Any, number: int, code: int, seconds: float) -> float:
    began = time.monotonic()
    process.send_signal(number)
    ended = finished(process, code, seconds)
    assert ended.errors.splitlines()[-1].endswith(f"go on with: tune-lr resume {study.directory.root}"), ended.errors
    return time.monotonic() - began


# --- rows 7 to 9 ------------------------------------------------------------------------------------------------------


def diverge(folder: Path, count: int) -> Held:
    """A loss that is not finite, or 1e30 times itself, at step 2 of three confirmations."""
    whats = ["nan", "inf", "huge"]
    faults = {str(FIRST_SEED + index): {"do": what, "at": 2} for index, what in enumerate(whats)}
    study = Study.of(folder, {"faults": faults, "pause": 0.02}, num_trials=1, confirm={"top": 1, "seeds": 4})
    finished(study.search(), 0)
    rows = check_rows(study, 5, dict.fromkeys((1, 2, 3), "diverged"))
    assert [row.steps for row in rows[1:4]] == [2, 2, 2], [row.steps for row in rows]
    assert all(len([a for a in study.attempts if a[0].seed == int(seed)]) == 2 for seed in faults), "one was retried"
    return Held(len(whats), "stopped at step 2 as `diverged`, not retried, exit 0")


def raise_errors(folder: Path, count: int) -> Held:
    """The user's code raises once in one confirmation, and always in another."""
    faults = {
        str(FIRST_SEED): {"do": "raise", "at": 3, "once": True},
        str(FIRST_SEED + 1): {"do": "raise", "at": 3},
    }
    study = Study.of(folder, {"faults": faults, "pause": 0.02}, num_trials=1, confirm={"top": 1, "seeds": 3})
    ended = finished(study.search(), 3)
    rows = check_rows(study, 4, {2: "failed"})
    assert "the user's own code is broken" in rows[2].reason
    tries = {seed: len([a for a in study.attempts if a[0].seed == int(seed)]) // 2 for seed in faults}
    assert tries == {str(FIRST_SEED): 2, str(FIRST_SEED + 1): 2}, tries
    assert "1 trial(s) failed for good" in ended.output, ended.output
    return Held(
        2, "once: retried, complete; always: 2 attempts, then `failed` with the reason; others complete; exit 3"
    )


def hang(folder: Path, count: int) -> Held:
    """SIGSTOP a rank in the middle of a step, and `while True` in the user's code; the timeout is 6 s."""
    faults = {str(FIRST_SEED): {"do": "hang", "at": 3, "once": True}}
    study = Study.of(folder, {"faults": faults}, num_trials=2, confirm={"top": 1, "seeds": 2})
    process = study.search()
    event = next_step(study, 2)
    ranks = [psutil.Process(attempt[0].pid) for attempt in study.attempts[2:4]]
    stopped, others = [[rank for rank in ranks if (rank.pid == event.pid) == is_it] for is_it in (True, False)]
    stopped[0].suspend()
    found = all_gone(others, 6.0 + 10.0)
    late = all_gone(stopped, 10.0)  # it does not hear that it is to go: Ray waits a while before it is made to
    hung = wait_for(lambda: [e for e in study.events if e.seed == FIRST_SEED and e.step == 3], 200, "the loop")[0]
    began = time.monotonic() - (time.time() - hung.time)
    all_gone([psutil.Process(hung.pid)], 6.0 + 10.0)
    looped = time.monotonic() - began
    ended = finished(process, 0)
    rows = check_rows(study, 4)
    check_same_curves(study, rows)
    assert ended.output.count(WORKER_LOST) == 2, ended.output
    return Held(
        2,
        f"found in {found:.1f} s and {looped:.1f} s (timeout 6 s + 10 s), the stopped one gone {late:.1f} s later; "
        "the trials complete",
    )


# --- rows 10 and 18 ---------------------------------------------------------------------------------------------------


def lose_the_data(folder: Path, count: int) -> Held:
    """The data set is not where `workload_args` says."""
    study = Study.of(folder, workload="tune_lr.workloads.lenet5:mnist", workload_args={"root": str(folder / "nowhere")})
    ended = finished(study.search(), 2)
    assert "workload" in ended.errors
    assert str(folder / "nowhere") in ended.errors
    assert not study.directory.root.exists(), "the study's folder stayed behind"
    return Held(1, "exit 2 naming the field and the path; no trial started, no study left behind")


def ask_for_too_much(folder: Path, count: int) -> Held:
    """A GPU where there is none; a group that does not fit."""
    slowest = 0.0
    options = ["--gpus-per-worker=1", "--workers-per-trial=64"]
    for index, option in enumerate(options):
        study = Study.of(folder / str(index), batch_size=64)
        began = time.monotonic()
        ended = finished(study.search(option), 4)
        slowest = max(slowest, time.monotonic() - began)
        assert re.search(r"it wants .*; the cluster has 1 node", ended.errors), ended.errors
    assert slowest < 30.0, f"{slowest:.0f} s"
    return Held(len(options), f"exit 4 within {slowest:.0f} s: wants, has")


# --- rows 17 and 19 ---------------------------------------------------------------------------------------------------

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 64}


def share_a_cluster(folder: Path, count: int) -> Held:
    """Two studies on one cluster, and a second driver for one of them."""
    scaling = {"workers_per_trial": 1, "max_concurrent": 1, "timeout_s": 20}
    with ray_head(ray_folder() / "shared", 2, TOKEN) as (address, _):
        studies = [Study.of(folder / name, num_trials=3, scaling=scaling) for name in ("one", "other")]
        for study in studies:
            study.environment = {**TOKEN, "RAY_ADDRESS": address}
        processes = [study.search() for study in studies]
        next_step(studies[0], 0)
        second = finished(studies[0].resume(), 4)
        assert "in use by process" in second.errors, second.errors
        for process in processes:
            finished(process, 0)
    for study in studies:
        check_same_curves(study, check_rows(study, 3))
    pids = [{event.pid for event in study.events} for study in studies]
    assert not pids[0] & pids[1], "a worker served both"
    return Held(2, "both exit 0, no worker in common; the second driver of one study refused with exit 4")


def lose_the_head(folder: Path, count: int) -> Held:
    """SIGKILL every process of the head; then another cluster, and `resume`."""
    study = Study.of(folder, num_trials=3, scaling={"workers_per_trial": 1, "max_concurrent": 1, "timeout_s": 20})
    study.environment = TOKEN
    with ray_head(ray_folder() / "first", 1, TOKEN) as (address, processes):
        process = study.search(f"--address={address}")
        wait_for(lambda: finished_and_running(study.directory.journal)[0] >= 1, 200, "a trial's end")
        next_step(study, 1)
        for one in [child for parent in processes for child in _with_children(parent)]:
            one.kill()
        began = time.monotonic()
        output, errors = process.communicate(timeout=60)
        seconds = time.monotonic() - began
    assert process.returncode != 0, output
    before = finished_and_running(study.directory.journal)[0]
    with ray_head(ray_folder() / "second", 1, TOKEN) as (address, _):
        finished(study.resume(f"--address={address}"), 0)
    check_same_curves(study, check_rows(study, 3))
    last = errors.splitlines()[-1] if errors else ""
    assert last.startswith("error: "), f"exit code {process.returncode}, and the last line is: {last}"
    return Held(1, f"exit {process.returncode} after {seconds:.0f} s; `resume` ran the rest ({before} had ended)")


def _with_children(process: psutil.Process) -> Iterator[psutil.Process]:
    try:
        yield from process.children(recursive=True)
        yield process
    except psutil.NoSuchProcess:
        pass
