"""A group of workers: one Ray actor a rank. Starts it, watches it, kills it.

Nothing here blocks but `WorkerGroup.wait` and `WorkerGroup.processes`: starting a group, giving it a trial and asking
for the next report only queue calls at the actors, so that all slots start at the same time.
"""

import importlib.util
import os
import re
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tune_lr.cluster.ray_private import died_with_its_node
from tune_lr.config.task import Task
from tune_lr.errors import InputError, one_line
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.checkpoints import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tune_lr.worker.outside_state import OutsideState
    from tune_lr.worker.training import Training
    from tune_lr.workloads import Workload

T = TypeVar("T")

# Ray, torch and ColossalAI come up in 6 to 10 s on an idle machine; a loaded or a distant one takes longer.
START_TIMEOUT_S = 300.0
# The CPUs of Tune's own actor of a trial. They are taken off those of rank 0, so that a slot asks for whole CPUs.
HEAD_CPUS = 0.001
# The package under which a driver sends the user's Python files to nodes that do not see their folder.
SHIPPED = "tune_lr_shipped"
# How often a group that is waited for is asked how far it is, and whether all of its places are still there; and how
# long a rank may take to answer.
WATCH_POLL_S, ANSWER_S = 3.0, 1.0
# What a GPU says that has no memory left, or that its process can no longer use. A second time would go the same way.
DEVICE_ERROR = re.compile(r"OutOfMemoryError|CUDA out of memory|CUDA error|AcceleratorError")


class WorkerLost(Exception):
    """A worker died, hung or raised; the group is of no use any more. The text says which and why.

    `final`: the trial would end so again. `preempted`: its node was taken away, which is no fault of the trial's.
    `raised`: nothing is wrong with the worker, an exception came out of its code.
    """

    def __init__(self, what: str, *, final: bool = False, preempted: bool = False, raised: bool = False) -> None:
        super().__init__(what)
        self.final = final
        self.preempted = preempted
        self.raised = raised


class SlotLost(Exception):
    """A node has left with some of the group's places, and no other has room for them.

    The trainable does not catch it: Tune then ends the actor, and `Study.lost` issues the trial again.
    """


def bundles(task: Task) -> list[dict[str, float]]:
    """The placement group of one slot: Tune's actor, then one bundle a rank."""
    scaling = task.scaling
    rank: dict[str, float] = {"CPU": float(scaling.cpus_per_worker)}
    if scaling.gpus_per_worker:
        rank["GPU"] = float(scaling.gpus_per_worker)
    first = {**rank, "CPU": rank["CPU"] - HEAD_CPUS}
    return [{"CPU": HEAD_CPUS}, first, *[rank] * (scaling.workers_per_trial - 1)]


@ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={"watch": 1})  # type: ignore[call-overload]
class Worker:
    """One process, one rank. It trains in one thread and says how far it is in another."""

    def __init__(self, task: Task, rank: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the driver's to handle
        if not task.scaling.gpus_per_worker:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray lets a worker without GPUs see all of its node's
        sys.path[:0] = [path for path in task.python_path if path not in sys.path]
        if task.python_path:
            with suppress(OSError):  # another node may not have it
                os.chdir(task.python_path[-1])  # where the study was started: relative paths hold at every `resume`
        shipped = importlib.util.find_spec(SHIPPED)
        if shipped is not None and shipped.submodule_search_locations is not None:
            sys.path += shipped.submodule_search_locations
        self._task, self._rank = task, rank
        self._workload: Workload | None = None
        self._outside: OutsideState | None = None
        self._training: Training | None = None
        self._port: socket.socket | None = None  # kept for the group

    def rendezvous(self) -> tuple[str, int]:
        """An address for the group. Its port is kept until torch listens there: ColossalAI's import takes seconds, in
        which the system would give it to somebody else. torch's store may share it, since neither is listening yet."""
        address = ray.util.get_node_ip_address()
        self._port = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind((address, 0))
        return address, self._port.getsockname()[1]

    def check(self, trial: TrialSpec) -> None:
        """Loads the workload and checks what only now can be known. Before ColossalAI: a mistake shows sooner."""
        import torch

        torch.set_num_threads(max(1, int(self._task.scaling.cpus_per_worker)))
        from tune_lr.worker.checks import check_task
        from tune_lr.worker.compat.glibc_malloc import keep_freed_memory
        from tune_lr.worker.outside_state import OutsideState
        from tune_lr.workloads import load_workload

        keep_freed_memory()
        self._workload = load_workload(self._task.workload, self._task.workload_args)
        self._outside = OutsideState(self._workload)
        check_task(self._workload, self._task, trial)

    def launch(self, address: tuple[str, int]) -> tuple[str, int]:
        """Joins the process group; returns this process as (host, pid)."""
        host, port = address
        interface = _interface_of(ray.util.get_node_ip_address())
        if interface:
            for library in ("GLOO", "NCCL"):
                os.environ.setdefault(f"{library}_SOCKET_IFNAME", interface)
        from tune_lr.worker import colossal

        colossal.launch(self._rank, self._task.scaling.workers_per_trial, host, port)
        if self._port is not None:
            self._port.close()
        colossal.check_plugin(self._task)
        return ray.util.get_node_ip_address(), os.getpid()

    def rehearse(self, trial: TrialSpec) -> None:
        """Go once through all that a trial does, on all ranks: what fails then is a mistake of the user's."""
        from tune_lr.worker import colossal
        from tune_lr.worker.rehearsal import rehearse

        assert self._workload is not None
        rehearse(self._workload, self._task, trial, colossal.device())

    def begin(self, trial: TrialSpec, checkpoint: Checkpoint | None) -> None:
        """Forget the last trial and set up this one, from its checkpoint where there is one."""
        from tune_lr.worker import colossal
        from tune_lr.worker.checkpoint import unpack
        from tune_lr.worker.training import Training

        assert self._workload is not None
        self._training = None  # before the next one is made: DDP's hooks and buckets go with it
        assert self._outside is not None
        self._outside.put_back()
        training = Training(self._workload, self._task, trial, colossal.device())
        if checkpoint is not None:
            shared, own = (unpack(checkpoint.files[rank_file(rank)], colossal.device()) for rank in (0, self._rank))
            training.restore(shared, own)
        self._training = training

    def report(self) -> Report:
        """Train until the next report is due, and return it."""
        assert self._training is not None
        return self._training.run()

    def state(self) -> bytes | str:
        """This rank's part of a checkpoint, or why there cannot be one."""
        from tune_lr.worker.checkpoint import pack

        assert self._training is not None
        try:
            return pack(self._training.state())
        except TypeError as error:
            return one_line(error)

    def test(self) -> Report:
        """Evaluate the kept models on the test data."""
        assert self._training is not None
        return self._training.test()

    @ray.method(concurrency_group="watch")
    def progress(self) -> int:
        """A number that changes while the training gets on."""
        training = self._training
        return training.progress if training is not None else 0


class WorkerGroup:
    """The workers of one slot."""

    def __init__(self, task: Task, placement_group: PlacementGroup) -> None:
        self._task, self._placement_group = task, placement_group
        self._workers: list[Any] = []
        self._pending: list[ray.ObjectRef[Any]] = []  # calls whose failure is still to be noticed
        self._processes: list[ray.ObjectRef[Any]] = []
        self._progress: dict[int, int] = {}  # of the ranks that have answered
        self._starting = True  # until they have answered for the first time

    def start(self, trial: TrialSpec, *, rehearse: bool = False) -> None:
        """Start the processes and let them form a group; `trial` is what they check the workload for.

        `rehearse`: whether they then go once through all that a trial does.
        """
        task = self._task
        self._workers = [
            Worker.options(  # type: ignore[attr-defined]
                num_cpus=bundle["CPU"],
                num_gpus=bundle.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    self._placement_group, placement_group_bundle_index=rank + 1
                ),
            ).remote(task, rank)
            for rank, bundle in enumerate(bundles(task)[1:])
        ]
        self._pending = [worker.check.remote(trial) for worker in self._workers]
        address = self._workers[0].rendezvous.remote()
        self._processes = [worker.launch.remote(address) for worker in self._workers]
        self._pending += self._processes
        if rehearse:
            self._pending += [worker.rehearse.remote(trial) for worker in self._workers]

    def begin(self, trial: TrialSpec, checkpoint: Checkpoint | None = None) -> None:
        """Ask every worker to begin a trial, from a checkpoint where one is given; do not wait for it."""
        stored = ray.put(checkpoint) if checkpoint is not None else None  # once for all ranks
        self._pending += [worker.begin.remote(trial, stored) for worker in self._workers]

    def reports(self, trial: TrialSpec) -> "list[ray.ObjectRef[Report]]":
        """The next one of each rank: all the same."""
        method = "test" if trial.phase == "test" else "report"
        return [getattr(worker, method).remote() for worker in self._workers]

    def states(self) -> "list[ray.ObjectRef[bytes | str]]":
        """Each rank's part of a checkpoint, or why there cannot be one."""
        return [worker.state.remote() for worker in self._workers]

    def wait(self, calls: "Sequence[ray.ObjectRef[T]]") -> list[T]:
        """Waits for what the ranks answer. Raises WorkerLost, SlotLost, or InputError for a mistake of the user's."""
        timeout = self._task.scaling.timeout_s + (START_TIMEOUT_S if self._starting else 0.0)
        waiting: list[Any] = [*self._pending, *calls]
        answers: dict[Any, Any] = {}
        while waiting:
            (done,), waiting = self._first_of(waiting, timeout)
            try:
                answers[done] = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, InputError):
                    raise InputError(str(error.cause)) from None
                reason = _reason(error)
                raise WorkerLost(reason, final=bool(DEVICE_ERROR.search(reason)), raised=True) from None
            except ray.exceptions.RayError as error:
                what = f"a worker died ({type(error).__name__})"
                raise WorkerLost(what, preempted=died_with_its_node(error)) from None
        self._pending, self._starting = [], False
        return [answers[call] for call in calls]

    def _first_of(self, waiting: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        """The one that is done first, and the others. Steps that take long are waited for as long as they come."""
        poll = min(WATCH_POLL_S, self._task.scaling.timeout_s / 2)
        deadline = time.monotonic() + timeout
        while True:
            done, others = ray.wait(waiting, num_returns=1, timeout=poll)
            if done:
                return done, others
            if not self._placement_group.wait(1):
                raise SlotLost("a node has left, and no other has room for its workers")
            if self._gets_on():
                timeout = self._task.scaling.timeout_s
                deadline = time.monotonic() + timeout
            elif time.monotonic() >= deadline:
                raise WorkerLost(f"no step within {timeout:.0f} s")

    def _gets_on(self) -> bool:
        """Whether any rank has got on since it was last asked: a rank that hangs stops the others with it."""
        asked = [worker.progress.remote() for worker in self._workers]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_S)
        gets_on = False
        for rank, answer in enumerate(asked):
            if answer in answered:
                with suppress(ray.exceptions.RayError):  # whoever waits for it is told
                    count: int = ray.get(answer)
                    gets_on |= self._progress.get(rank, count) != count
                    self._progress[rank] = count
        return gets_on

    def processes(self) -> str:
        """ "host:pid,pid", or "host:pid other:pid": who the workers are, by rank. Only after a first report."""
        places: Sequence[tuple[str, int]] = ray.get(self._processes)
        hosts: dict[str, list[str]] = {}
        for host, pid in places:
            hosts.setdefault(host, []).append(str(pid))
        return " ".join(f"{host}:{','.join(pids)}" for host, pids in hosts.items())

    def kill(self) -> None:
        """Ends all ranks at once: those that still live wait for the dead one."""
        for worker in self._workers:
            with suppress(ray.exceptions.RayError):
                ray.kill(worker, no_restart=True)
        self._workers, self._pending = [], []


def rank_file(rank: int) -> str:
    """Return the name of a rank's own file in a checkpoint."""
    return f"rank-{rank}.safetensors"


def _interface_of(address: str) -> str | None:
    """The network interface that holds the node's Ray address: gloo would pick one by the host's name."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return str(name)
    return None


def _reason(error: ray.exceptions.RayTaskError) -> str:
    """Return what was raised in a worker, in one line."""
    cause = error.cause
    if isinstance(cause, ray.exceptions.RayError):
        return one_line([line for line in str(error).splitlines() if line.strip()][-1])
    text = str(cause).strip()
    if DEVICE_ERROR.search(f"{type(cause).__name__}: {text}"):  # what CUDA says has more lines, which explain nothing
        text = text.partition("\n")[0]
    return one_line(f"{type(cause).__name__}: {text}")
