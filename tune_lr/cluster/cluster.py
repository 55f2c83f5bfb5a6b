"""The Ray cluster: joins or starts one, counts its slots, and runs a study on it with Ray Tune."""

import json
import logging
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from tune_lr.config.hardware import Hardware, Node, check_address, check_slots, slots_on
from tune_lr.config.task import Task
from tune_lr.errors import InputError, ResourceError, one_line
from tune_lr.study.study import Study

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
from ray._private import ray_constants
from ray._private.node import Node as RayNode
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

# A trial whose actor died runs again, and the study says so in its own words; Tune would add a traceback.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)

from tune_lr.cluster.slots import HoldingScheduler, Slots, StudySearcher, StudyStopper
from tune_lr.cluster.trainable import SlotTrainable
from tune_lr.cluster.workers import SHIPPED, bundles

# How often the nodes are counted while a study runs.
NODES_POLL_S = 1.0
# How often the head is asked whether it is there, and how long it may be away.
HEAD_POLL_S = 2.0
HEAD_PATIENCE_S = 30.0
# Python files are small; more than this is a folder that was not meant.
MOST_SHIPPED_BYTES = 20_000_000
# Where `ray up` leaves, on the head, what its autoscaler may start.
AUTOSCALER_JSON = Path("~/ray_bootstrap_config.yaml")


def _check_answer(address: str) -> None:
    """Ray itself would try for ever."""
    try:
        _knock(address)
    except (OSError, ValueError) as error:
        raise ResourceError(f"--address: no Ray cluster answers at {address} ({one_line(error)})") from None


@contextmanager
def _of_our_own() -> Iterator[None]:
    """A Ray that starts in here is closed to others. It listens on 127.0.0.1, as it does on macOS by itself; elsewhere
    it would take the machine's address in its network, and with that all interfaces. (What is set here, Ray reads from
    the environment too, but only when it is imported, and then also for joining.) And it asks for a token. One of Ray's
    own making would stay behind in the user's home, readable by all; this one is only in its processes' environment.

    And it has nothing that only serves people: no dashboard (which `ray.init` starts and waits for also where it is not
    to be included), no autoscaler, nobody who reads the workers' logs, no HTTP server in the node's agent. `ray start`
    has options for most of this, `ray.init` has none."""
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        AuthenticationTokenLoader.instance().reset_cache()  # this process may have joined another Ray before
    unwanted = [(RayNode, f"start_{what}", lambda *_, **__: None) for what in ("api_server", "monitor", "log_monitor")]
    minimal = (ray._private.utils, "get_dashboard_dependency_error", lambda: ImportError("not wanted"))
    with _replaced((ray_constants, "ENABLE_RAY_CLUSTER", False), *unwanted, minimal):
        yield


@contextmanager
def _replaced(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Sets attributes, by their owner and name, and afterwards what they were."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _knock(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


@contextmanager
def connected(address: str | None, python_path: Sequence[str] = ()) -> Iterator[None]:
    """Joins the cluster at `address` (auto or HOST:PORT), else at RAY_ADDRESS, else starts a local Ray. Whoever joins
    one sends along the Python files in `python_path`."""
    address = address or os.environ.get("RAY_ADDRESS")
    check_address(address)
    if address and address not in ("auto", "local"):
        _check_answer(address)
    with tempfile.TemporaryDirectory(prefix="tune-lr-") as scratch:
        own = not address or address == "local"
        how: dict[str, Any] = {"include_dashboard": False} if own else {}
        if not own and _collect(python_path, Path(scratch) / SHIPPED):
            how["runtime_env"] = {"py_modules": [f"{scratch}/{SHIPPED}"]}
        try:
            with _of_our_own() if own else nullcontext():
                ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **how)
        except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            where = f"at {address}" if address else "here"
            raise ResourceError(f"Ray cannot be reached or started {where}: {one_line(error)}") from None
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def head_watched(lost: Callable[[], None]) -> Iterator[None]:
    """Calls `lost`, in a thread, when the cluster's head has been away for too long: Ray would wait for it where no
    signal interrupts, and then end the process without a word."""
    address, over = ray.get_runtime_context().gcs_address, threading.Event()

    def watch() -> None:
        seen = time.monotonic()
        while not over.wait(HEAD_POLL_S):
            try:
                _knock(address)
                seen = time.monotonic()
            except OSError:
                if time.monotonic() - seen > HEAD_PATIENCE_S:
                    lost()
                    return

    threading.Thread(target=watch, name="tune-lr-head", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _collect(python_path: Sequence[str], target: Path) -> int:
    """Copies the modules and packages in these folders, as Python would find them, and nothing but their *.py.
    Returns their size in bytes."""
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
    """The nodes of the cluster, and those that its autoscaler may start."""
    groups: Counter[str] = Counter()
    present = []
    for node in ray.nodes():
        if node["Alive"]:
            resources = node["Resources"]
            present.append(Node(node["NodeManagerAddress"], resources.get("CPU", 0.0), resources.get("GPU", 0.0)))
            groups[node["Labels"].get("ray.io/node-group", "")] += 1
    return present + _startable(AUTOSCALER_JSON.expanduser(), groups)


def _startable(path: Path, present: Mapping[str, int]) -> list[Node]:
    """What the autoscaler that is configured in `path` may still start; nothing where that is not this cluster's.
    `present` counts the nodes there are by their kind."""
    try:
        config = json.loads(path.read_text())
        kinds, head, most = config["available_node_types"], config["head_node_type"], config["max_workers"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if not present.get(head):
        return []
    startable = [
        Node(name, kind["resources"].get("CPU", 0.0), kind["resources"].get("GPU", 0.0), present=False)
        for name, kind in kinds.items()
        if name != head
        for _ in range(kind["max_workers"] - present.get(name, 0))
    ]
    return startable[: max(0, most - sum(present.values()) + 1)]


def count_slots(task: Task, most: int | None) -> int:
    """How many trials fit at once. Raises ResourceError where not even one does."""
    there = nodes()
    check_slots(there, task.scaling)
    return slots_on(there, task.scaling, most)


def hardware() -> Hardware:
    """Return what the nodes that are present now declare together."""
    present = [node for node in nodes() if node.present]
    return Hardware(len(present), sum(node.cpus for node in present), sum(node.gpus for node in present))


def free() -> tuple[float, float]:
    """CPUs and GPUs that nobody uses now."""
    resources = ray.available_resources()
    return resources.get("CPU", 0.0), resources.get("GPU", 0.0)


class SlotCount:
    """How many slots there are now. Nodes join and leave while a study runs, and `on_change` is told."""

    def __init__(self, task: Task, most: int | None, on_change: Callable[[int, Hardware], None] | None) -> None:
        self._task, self._most, self._on_change = task, most, on_change
        self._count, self._next = 0, 0.0

    def __call__(self) -> int:
        """Return how many slots there are now, counted anew every few seconds."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + NODES_POLL_S
            count = slots_on(nodes(), self._task.scaling, self._most)
            if count != self._count:
                self._count = count
                if self._on_change is not None:
                    self._on_change(count, hardware())
        return self._count


def run(
    study: Study,
    task: Task,
    most: int | None = None,
    on_change: Callable[[int, Hardware], None] | None = None,
) -> None:
    """Runs a study to its end, or until it is stopped: one run of Tune for all phases, so that workers stay warm.

    `most` limits the slots; `on_change` is told how many there are, at the start and when nodes have joined or left.
    """
    count_slots(task, most)
    if task.checkpoints is not None:
        here = ray.get_runtime_context().get_node_id()
        task = replace(task, checkpoints=replace(task.checkpoints, home=here))
    together = Slots(study, task, SlotCount(task, most, on_change))
    with tempfile.TemporaryDirectory(prefix="tune-lr-") as scratch:  # Tune insists on a place for its own files
        tuner = tune.Tuner(
            tune.with_resources(SlotTrainable, tune.PlacementGroupFactory(bundles(task), strategy="PACK")),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(together),
                scheduler=HoldingScheduler(together),
                num_samples=-1,
                max_concurrent_trials=10**6,  # StudySearcher limits them; without a number Tune starts one at a time
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
