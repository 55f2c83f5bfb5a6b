"""The Ray cluster: joins or starts one, counts its slots, and runs a study on it with Ray Tune."""

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tune_lr.errors import ResourceError, one_line
from tune_lr.plan import check_address
from tune_lr.study import Study
from tune_lr.trial import Task

# Before Ray is imported: quiet, no usage statistics, none of Tune's own loggers, and signals are ours to handle.
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AIR_NEW_OUTPUT="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_DISABLE_STRICT_METRIC_CHECKING="1",
    TUNE_GLOBAL_CHECKPOINT_S="1000000",  # its snapshots are not relied on
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
)

import ray
from ray import tune

# A trial whose actor died runs again, and the study says so in its own words; Tune would add a traceback.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)

from tune_lr.slots import HoldingScheduler, Slots, StudySearcher, StudyStopper
from tune_lr.trainable import SlotTrainable
from tune_lr.workers import bundles


@dataclass(frozen=True)
class Hardware:
    """What the cluster declares."""

    nodes: int
    cpus: float
    gpus: float


def _check_answer(address: str) -> None:
    """Ray itself would try for ever."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ResourceError(f"--address: no Ray cluster answers at {address} ({one_line(error)})") from None


@contextmanager
def connected(address: str | None) -> Iterator[Hardware]:
    """Joins the cluster at `address` (auto or HOST:PORT), else at RAY_ADDRESS, else starts a local Ray."""
    address = address or os.environ.get("RAY_ADDRESS")
    check_address(address)
    if address and address not in ("auto", "local"):
        _check_answer(address)
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"at {address}" if address else "here"
        raise ResourceError(f"Ray cannot be reached or started {where}: {one_line(error)}") from None
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield Hardware(len(nodes), sum(n.get("CPU", 0.0) for n in nodes), sum(n.get("GPU", 0.0) for n in nodes))
    finally:
        ray.shutdown()


def count_slots(task: Task, most: int | None) -> int:
    """How many trials fit at once. Raises ResourceError where not even one does: Tune would wait for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = 0
    for resources in nodes:
        fit = resources.get("CPU", 0.0) / task.cpus_per_worker
        if task.gpus_per_worker:
            fit = min(fit, resources.get("GPU", 0.0) / task.gpus_per_worker)
        fitting += int(fit)
    if fitting < task.workers:
        gpus = f" and {task.gpus_per_worker:g} GPU" if task.gpus_per_worker else ""
        has = ", ".join(f"{n.get('CPU', 0):g} CPU and {n.get('GPU', 0):g} GPU" for n in nodes)
        raise ResourceError(
            f"the cluster cannot hold one trial: it wants {task.workers} workers "
            f"of {task.cpus_per_worker} CPU{gpus} each; "
            f"the cluster has {len(nodes)} node(s): {has}"
        )
    return min(fitting // task.workers, most or fitting)


def run(study: Study, task: Task, slots: int) -> None:
    """Runs a study to its end, or until it is stopped: one run of Tune for all phases, so that workers stay warm."""
    together = Slots(study, task, slots)
    with tempfile.TemporaryDirectory(prefix="tune-lr-") as scratch:  # Tune insists on a place for its own files
        tuner = tune.Tuner(
            tune.with_resources(SlotTrainable, tune.PlacementGroupFactory(bundles(task), strategy="PACK")),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(together),
                scheduler=HoldingScheduler(together),
                num_samples=-1,
                max_concurrent_trials=2 * slots,  # held trials count
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=scratch,
                stop=StudyStopper(together),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )
        try:
            tuner.fit()
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise ResourceError(f"the Ray cluster was lost ({type(error).__name__})") from None
