"""What the loss of a worker means for its trial: tried again or not, counted or not. On Ray's own exceptions."""

import os
import signal

import pytest
import torch
from ray.core.generated.common_pb2 import (  # type: ignore[attr-defined]  # protobuf makes them as it is imported
    ActorDiedErrorContext,
    NodeDeathInfo,
)
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from tune_lr.cluster.ray_private import died_with_its_node
from tune_lr.cluster.workers import DEVICE_ERROR, Worker, _reason
from two_ranks import make_task


def died(message: str, reason: int = NodeDeathInfo.UNSPECIFIED) -> ActorDiedError:
    context = ActorDiedErrorContext(actor_id=b"\1" * 16, error_message=message)
    context.node_death_info.reason = reason
    return ActorDiedError(context)


def test_a_node_that_was_taken_away_is_told_from_a_process_that_died() -> None:
    assert died_with_its_node(died("drained", NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED))
    assert died_with_its_node(died("The actor died because its node has died. Node Id: 12ab"))
    assert not died_with_its_node(died("The actor is dead because its worker process has died."))
    assert not died_with_its_node(ActorUnavailableError("the actor is temporarily unavailable", b"\1" * 16))


@pytest.mark.parametrize(
    ("raised", "reason", "final"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            True,
        ),
        (
            RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA`."),
            "RuntimeError: CUDA error: an illegal memory access was encountered",
            True,
        ),
        (ValueError("the user's own code is broken"), "ValueError: the user's own code is broken", False),
        (ValueError("a\nb"), "ValueError: a b", False),
        (KeyError(), "KeyError:", False),
    ],
)
def test_an_error_of_the_gpu_is_told_from_one_of_the_users(raised: Exception, reason: str, final: bool) -> None:
    error = RayTaskError("report", "Traceback ...", raised, proctitle="ray", pid=1, ip="127.0.0.1")
    assert _reason(error) == reason
    assert bool(DEVICE_ERROR.search(reason)) == final


@pytest.mark.parametrize(("gpus", "seen"), [(0.0, ""), (0.5, "3")])
def test_a_worker_without_gpus_sees_none_of_its_nodes(gpus: float, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray leaves it the environment of the node, whose GPUs torch would take."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    handler = signal.getsignal(signal.SIGINT)
    try:
        Worker.__ray_metadata__.modified_class(  # type: ignore[attr-defined]  # Ray's decorator adds it
            make_task(gpus_per_worker=gpus), 0
        )
    finally:
        signal.signal(signal.SIGINT, handler)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
