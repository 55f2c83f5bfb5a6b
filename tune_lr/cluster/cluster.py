"""The Ray cluster: it is joined or started here, its slots are counted, and a study runs on it with Ray Tune."""

import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from tune_lr.config.hardware import Hardware, Node, check_address, check_slots, slots_on
from tune_lr.config.task import Task
from tune_lr.errors import InputError, ResourceError, one_line
from tune_lr.records.waiting import Tell, told_while
from tune_lr.study.study import Study

# Before Ray is imported: quiet, no usage statistics, none of Tune's own loggers, and signals are ours to handle.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.update(
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

from tune_lr.cluster.ray_private import NODE_GROUP, loopback_only, own_token, startable_nodes, without_services
from tune_lr.cluster.slots import HoldingScheduler, Slots, StudySearcher, StudyStopper
from tune_lr.cluster.trainable import SlotTrainable
from tune_lr.cluster.waits import Waits
from tune_lr.cluster.workers import SHIPPED, bundles

# How often the nodes are counted while a study runs.
NODES_POLL_S = 1.0
# How often the head is asked whether it is there, and how long it may be away.
HEAD_POLL_S = 2.0
HEAD_PATIENCE_S = 30.0
# Python files are small; more than this is a folder that was not meant.
MOST_SHIPPED_BYTES = 20_000_000


def _check_answer(address: str, source: str) -> None:
    """Raise ResourceError where nothing listens at the address. Ray itself would try for ever.

    `source` is the option or the variable that has the address.
    """
    try:
        _connect(address)
    except (OSError, ValueError) as error:
        raise ResourceError(f"{source}: no Ray cluster answers at {address} ({one_line(error)})") from None


def _connect(address: str) -> None:
    """Open a connection to HOST:PORT and close it. Raises OSError, or ValueError for what is no such address."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


@contextmanager
def connected(address: str | None, python_path: Sequence[str] = (), on_waiting: Tell | None = None) -> Iterator[None]:
    """Join the cluster at `address` (auto or HOST:PORT), else the one at RAY_ADDRESS, else start a local Ray.

    The Python files in the folders of `python_path` are sent to the nodes of a cluster that is joined. `on_waiting` is
    told what is waited for where that takes long. Raises ResourceError where Ray cannot be reached or started.
    """
    source = "--address" if address else "RAY_ADDRESS"
    address = address or os.environ.get("RAY_ADDRESS")
    check_address(address, source)
    if address and address not in ("auto", "local"):
        _check_answer(address, source)
    joins = bool(address) and address != "local"
    with nullcontext() if joins else own_token(), tempfile.TemporaryDirectory(prefix="tune-lr-") as scratch:
        what = f"the Ray cluster ({address}) to take this driver" if joins else "Ray to start on this machine"
        try:
            with told_while(what, on_waiting):
                if address and joins:
                    _join(address, python_path, Path(scratch) / SHIPPED)
                else:
                    _start_local()
        except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            where = f"at {address}" if address else "here"
            raise ResourceError(f"Ray cannot be reached or started {where}: {one_line(error)}") from None
        try:
            yield
        finally:
            ray.shutdown()


def _join(address: str, python_path: Sequence[str], shipped: Path) -> None:
    """Join a running cluster. What it is sent is collected in the folder `shipped`, which must not exist yet."""
    options: dict[str, Any] = {}
    if _collect(python_path, shipped):
        options["runtime_env"] = {"py_modules": [str(shipped)]}
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)


def _start_local() -> None:
    """Start a Ray on this machine that is closed to others, and has no services that a study does not use."""
    with loopback_only(), without_services():
        ray.init(address="local", log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)


@contextmanager
def head_watched(on_lost: Callable[[], None]) -> Iterator[None]:
    """Call `on_lost`, in a thread, when the cluster's head has been away for HEAD_PATIENCE_S.

    Ray would wait for the head where no signal interrupts it, and then end the process without a word.
    """
    address = ray.get_runtime_context().gcs_address
    over = threading.Event()

    def watch() -> None:
        last_seen = time.monotonic()
        while not over.wait(HEAD_POLL_S):
            try:
                _connect(address)
                last_seen = time.monotonic()
            except OSError:
                if time.monotonic() - last_seen > HEAD_PATIENCE_S:
                    on_lost()
                    return

    threading.Thread(target=watch, name="tune-lr-head", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _collect(python_path: Sequence[str], target: Path) -> int:
    """Copy the *.py of the modules and packages in these folders to `target`, as Python would find them.

    Return their size in bytes. Raises InputError where they are too large.
    """
    size = 0
    target.mkdir()
    for folder in map(Path, reversed(python_path)):  # what is found first is copied last
        packages = [path.parent for path in folder.glob("*/__init__.py")]
        for path in [*folder.glob("*.py"), *(path for package in packages for path in package.rglob("*.py"))]:
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            size += path.stat().st_size
            if size > MOST_SHIPPED_BYTES:
                raise InputError(
                    f"{folder}: the Python files beside the YAML and in the current directory go to every node and are "
                    f"too many (got more than {MOST_SHIPPED_BYTES // 10**6} MB); start it in the project's own folder"
                )
    return size


def nodes() -> list[Node]:
    """Return the nodes of the cluster, and those that its autoscaler may start."""
    groups: Counter[str] = Counter()
    present = []
    for node in ray.nodes():
        if node["Alive"]:
            resources = node["Resources"]
            present.append(Node(node["NodeManagerAddress"], resources.get("CPU", 0.0), resources.get("GPU", 0.0)))
            groups[node["Labels"].get(NODE_GROUP, "")] += 1
    return present + startable_nodes(groups)


def count_slots(task: Task, most: int | None) -> int:
    """Return how many trials fit at once, `most` at most. Raises ResourceError where not even one does."""
    found = nodes()
    check_slots(found, task.scaling)
    return slots_on(found, task.scaling, most)


def hardware() -> Hardware:
    """Return what the nodes that are present now declare together."""
    present = [node for node in nodes() if node.present]
    return Hardware(len(present), sum(node.cpus for node in present), sum(node.gpus for node in present))


def free() -> tuple[float, float]:
    """Return how many CPUs and GPUs nobody uses now."""
    resources = ray.available_resources()
    return resources.get("CPU", 0.0), resources.get("GPU", 0.0)


def is_full() -> bool:
    """Return whether somebody waits for room in the cluster: a placement group that is not placed."""
    groups = ray.util.placement_group_table()
    return any(group["state"] == "PENDING" for group in groups.values())


class SlotCount:
    """Counts the slots of the cluster. Nodes join and leave while a study runs; `on_change` is called when they do."""

    def __init__(self, task: Task, most: int | None, on_change: Callable[[int, Hardware], None] | None) -> None:
        self._scaling = task.scaling
        self._most = most
        self._on_change = on_change
        self._count = 0
        self._next_look = 0.0

    def __call__(self) -> int:
        """Return how many slots there are now, counted anew once a second."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + NODES_POLL_S
            count = slots_on(nodes(), self._scaling, self._most)
            if count != self._count:
                self._count = count
                if self._on_change is not None:
                    self._on_change(count, hardware())
        return self._count


def _tell_nobody(text: str) -> None:
    """Take what nobody wants to be told."""


def run(
    study: Study,
    task: Task,
    most: int | None = None,
    on_change: Callable[[int, Hardware], None] | None = None,
    on_waiting: Tell | None = None,
) -> None:
    """Run a study to its end, or until it is stopped: one run of Tune for all phases, so that workers stay warm.

    `most` limits the slots. `on_change` is called with their number and the cluster's hardware, at the start and when
    nodes have joined or left. `on_waiting` is told what is waited for where that takes long. Raises ResourceError where
    no trial fits, and where the cluster is lost.
    """
    count_slots(task, most)
    if task.checkpoints is not None:
        home = ray.get_runtime_context().get_node_id()
        task = replace(task, checkpoints=replace(task.checkpoints, home=home))
    waits = Waits(task, free, is_full, on_waiting or _tell_nobody)
    slots = Slots(study, task, SlotCount(task, most, on_change), waits)
    with tempfile.TemporaryDirectory(prefix="tune-lr-") as scratch:  # Tune insists on a place for its own files
        tuner = tune.Tuner(
            tune.with_resources(SlotTrainable, tune.PlacementGroupFactory(bundles(task), strategy="PACK")),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(slots),
                scheduler=HoldingScheduler(slots),
                num_samples=-1,
                max_concurrent_trials=10**6,  # StudySearcher limits them; without a number Tune starts one at a time
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=scratch,
                stop=StudyStopper(slots),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )
        try:
            tuner.fit()
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise ResourceError(f"the Ray cluster was lost ({type(error).__name__})") from None
