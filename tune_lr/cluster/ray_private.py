"""All that reaches behind Ray's public interface. The rest of the package uses what Ray documents.

Each function names the public behaviour that it stands in for, and the test in tests/cluster/test_ray_private.py that
fails when a new version of Ray moves what the function relies on.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.node import Node as RayNode
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from tune_lr.config.hardware import Node

# `ray up` leaves on the head, in this file, what its autoscaler may start.
AUTOSCALER_CONFIG = Path("~/ray_bootstrap_config.yaml")
# The label of a node that says as which of the autoscaler's node types it was started.
NODE_GROUP = "ray.io/node-group"


@contextmanager
def loopback_only() -> Iterator[None]:
    """Have a Ray that starts inside listen on 127.0.0.1 alone, as it does on macOS by itself.

    Wanted from Ray: an option of `ray.init` for the address. Elsewhere Ray listens on all interfaces. Its environment
    variable for this is read when Ray is imported, and would hold for joining a cluster too.
    Test: test_a_local_ray_listens_on_the_loopback_alone.
    """
    with _replaced((ray_constants, "ENABLE_RAY_CLUSTER", False)):
        yield


@contextmanager
def without_services() -> Iterator[None]:
    """Have a Ray that starts inside leave out what only serves people: the dashboard, the autoscaler, the monitor of
    the workers' logs, and the HTTP server of the node's agent.

    Wanted from Ray: options of `ray.init`. `ray start` has them for most of this, and `include_dashboard=False` still
    starts the dashboard and waits for it.
    Test: test_a_local_ray_starts_no_service_that_a_study_does_not_use.
    """
    services = [(RayNode, f"start_{name}", _do_nothing) for name in ("api_server", "monitor", "log_monitor")]
    agent = (ray._private.utils, "get_dashboard_dependency_error", lambda: ImportError("left out by tune-lr"))
    with _replaced(*services, agent):
        yield


@contextmanager
def own_token() -> Iterator[None]:
    """Have a local Ray that runs inside ask for a token; afterwards the environment is as the user has set it.

    Wanted from Ray: that `ray.shutdown` takes back the RAY_AUTH_MODE that `ray.init` sets. The token of a Ray that has
    ended would be shown to the next cluster, which refuses it.
    Test: test_after_a_local_ray_the_environment_is_as_it_was.
    """
    names = ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE")
    before = {name: os.environ.get(name) for name in names}
    ensure_token()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        AuthenticationTokenLoader.instance().reset_cache()
        Config.initialize("")  # reads RAY_AUTH_MODE again


def ensure_token() -> None:
    """Put a fresh token for a local Ray into this process's environment, unless the user has given one.

    Ray would make one by itself, and leave it in the user's home as a file that everybody can read.
    Wanted from Ray: that `ray.init` reads the environment again. It keeps the token of a cluster that this process has
    left.
    Test: test_a_token_takes_the_place_of_the_one_of_a_cluster_that_was_left.
    """
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        AuthenticationTokenLoader.instance().reset_cache()


def startable_nodes(present: Mapping[str, int], config_file: Path = AUTOSCALER_CONFIG) -> list[Node]:
    """Return the nodes that the cluster's autoscaler may still start. `present` counts its nodes by their NODE_GROUP.

    The list is empty where `config_file` is missing, is damaged, or describes another cluster than this one.
    Wanted from Ray: a list of the node types that the autoscaler may start, and how many of each.
    Tests: test_ray_itself_looks_for_the_autoscaler_in_that_file, test_a_node_says_as_which_type_it_was_started.
    """
    try:
        config = json.loads(config_file.expanduser().read_text(encoding="utf-8"))
        types, head, most_workers = config["available_node_types"], config["head_node_type"], config["max_workers"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if not present.get(head):
        return []
    startable = [
        Node(name, kind["resources"].get("CPU", 0.0), kind["resources"].get("GPU", 0.0), present=False)
        for name, kind in types.items()
        if name != head
        for _ in range(kind["max_workers"] - present.get(name, 0))
    ]
    workers = sum(present.values()) - 1  # all but the head
    return startable[: max(0, most_workers - workers)]


def died_with_its_node(error: ray.exceptions.RayError) -> bool:
    """Return whether an actor died because its node was taken away, rather than by itself.

    Wanted from Ray: a property of ActorDiedError. `preempted` is true only where the node was drained before, by an
    autoscaler; otherwise the message alone tells.
    Test: test_an_actor_that_died_with_its_node_is_told_from_one_that_died_by_itself.
    """
    if not isinstance(error, ray.exceptions.ActorDiedError):
        return False
    return error.preempted or "node has died" in str(error)


def _do_nothing(*_arguments: Any, **_options: Any) -> None:
    """Stand in for a method of Ray's that starts a service."""


@contextmanager
def _replaced(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Set attributes, each given as (owner, name, value), and set them back at the end."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
