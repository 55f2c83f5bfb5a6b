"""What tune_lr/cluster/ray_private.py relies on: each test fails when a new version of Ray moves it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.tune.execution.cluster_info import _is_ray_cluster

from tune_lr.cluster import ray_private
from tune_lr.cluster.ray_private import AUTOSCALER_CONFIG, NODE_GROUP, died_with_its_node, ensure_token, startable_nodes
from tune_lr.config.hardware import Node

# --- a local Ray ------------------------------------------------------------------------------------------------------

LOOK = """
import json, os
import psutil
import ray
from ray._raylet import AuthenticationMode, get_authentication_mode
from tune_lr.cluster import cluster
with cluster.connected(None):
    me = psutil.Process()
    started = me.children(recursive=True)
    print(json.dumps({
        "addresses": [
            connection.laddr.ip
            for process in [me, *started]
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ],
        "commands": [process.cmdline() for process in started],
        "token": os.environ["RAY_AUTH_TOKEN"],
        "asks_for_token": get_authentication_mode() == AuthenticationMode.TOKEN,
        "labels": ray.nodes()[0]["Labels"],
    }))
"""


@pytest.fixture(scope="module")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process that has started a local Ray sees of it, and its `home`."""
    if sys.platform != "linux":
        pytest.skip("elsewhere one may not look at the sockets of other processes")
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", "RAY_NODE_TYPE_NAME": "big"}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "home": home}


def test_a_local_ray_listens_on_the_loopback_alone(local_ray: dict[str, Any]) -> None:
    addresses = local_ray["addresses"]
    assert len(addresses) >= 3
    assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}, addresses


def test_a_local_ray_starts_no_service_that_a_study_does_not_use(local_ray: dict[str, Any]) -> None:
    """They would take seconds of each start."""
    words = [word for command in local_ray["commands"] for word in command]
    assert [word for word in words if word.endswith(("dashboard/dashboard.py", "monitor.py"))] == []
    (raylet,) = (command for command in local_ray["commands"] if command and command[0].endswith("raylet/raylet"))
    assert "--minimal" in " ".join(raylet)  # with which the raylet starts its agent: without an HTTP server


def test_a_local_ray_asks_for_a_token_that_stands_in_no_file(local_ray: dict[str, Any]) -> None:
    assert local_ray["asks_for_token"]
    assert re.fullmatch("[0-9a-f]{64}", local_ray["token"])
    assert not (local_ray["home"] / ".ray").exists()


def test_a_token_is_made_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    ensure_token()
    assert os.environ["RAY_AUTH_TOKEN"] == "mine"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    ensure_token()
    assert re.fullmatch("[0-9a-f]{64}", os.environ["RAY_AUTH_TOKEN"])


def test_a_token_takes_the_place_of_the_one_of_a_cluster_that_was_left() -> None:
    code = """
import os
from ray._raylet import AuthenticationTokenLoader
from tune_lr.cluster.ray_private import ensure_token
loader = AuthenticationTokenLoader.instance()
assert loader.get_raw_token() == "a" * 64
del os.environ["RAY_AUTH_TOKEN"]
assert loader.get_raw_token() == "a" * 64  # Ray keeps it
ensure_token()
assert loader.get_raw_token() == os.environ["RAY_AUTH_TOKEN"] != "a" * 64
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_after_a_local_ray_the_environment_is_as_it_was(tmp_path: Path) -> None:
    """Twice in one process; RAY_TMPDIR is where Ray puts its files."""
    code = """
import os
import ray
from ray._raylet import AuthenticationMode, get_authentication_mode
from tune_lr.cluster import cluster
before = dict(os.environ)
for _ in range(2):
    with cluster.connected(None):
        assert get_authentication_mode() == AuthenticationMode.TOKEN
        assert ray.get(ray.remote(lambda: 3).remote()) == 3
    after = dict(os.environ)
    assert {name: after.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE")} == dict.fromkeys(
        ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE")
    ), after
    assert get_authentication_mode() == AuthenticationMode.DISABLED
"""
    folder = Path(tempfile.mkdtemp(prefix="r"))  # the path of a socket is at most 107 characters long
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path), "RAY_TMPDIR": str(folder)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        assert (folder / "ray").is_dir()
    finally:
        shutil.rmtree(folder)


# --- the autoscaler ---------------------------------------------------------------------------------------------------


def test_an_autoscaler_counts_for_what_it_may_still_start(tmp_path: Path) -> None:
    path = tmp_path / "config"
    config = {
        "max_workers": 3,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "max_workers": 0},
            "big": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 2},
            "small": {"resources": {"CPU": 2}, "max_workers": 5},
        },
    }
    path.write_text(json.dumps(config))
    big, small = Node("big", 8, 1, present=False), Node("small", 2, 0, present=False)
    assert startable_nodes({"head": 1}, path) == [big, big, small]
    assert startable_nodes({"head": 1, "big": 1}, path) == [big, small]
    assert startable_nodes({"head": 1, "big": 1, "small": 2}, path) == []
    assert startable_nodes({"": 1}, path) == []  # another cluster, or a local Ray on that machine
    path.write_text("{")
    assert startable_nodes({"head": 1}, path) == []


def test_ray_itself_looks_for_the_autoscaler_in_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    looks = _is_ray_cluster.__wrapped__  # without its cache
    assert not looks()
    AUTOSCALER_CONFIG.expanduser().touch()
    assert looks()


def test_a_node_says_as_which_type_it_was_started(local_ray: dict[str, Any]) -> None:
    """An autoscaler starts Ray with RAY_NODE_TYPE_NAME in its environment, as the fixture does."""
    assert local_ray["labels"][NODE_GROUP] == "big"


# --- how an actor died ------------------------------------------------------------------------------------------------


@ray.remote(num_cpus=0, max_restarts=0)
class Actor:
    def ping(self) -> None: ...

    def die(self) -> None:
        os._exit(1)


def death_of(actor: Any) -> ActorDiedError:
    """How an actor has died. It is unavailable at first, until Ray is sure of its node."""
    while True:
        try:
            ray.get(actor.ping.remote(), timeout=60)
        except ActorUnavailableError:
            continue
        except ActorDiedError as error:
            return error


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_an_actor_that_died_with_its_node_is_told_from_one_that_died_by_itself() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    leaving = cluster.add_node(num_cpus=1, resources={"leaving": 1})
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        at_head, on_node = (
            Actor.options(resources=resources).remote()  # type: ignore[attr-defined]
            for resources in ({}, {"leaving": 1})
        )
        ray.get([at_head.ping.remote(), on_node.ping.remote()])
        at_head.die.remote()
        assert not died_with_its_node(death_of(at_head))
        cluster.remove_node(leaving)
        assert died_with_its_node(death_of(on_node))
    finally:
        ray.shutdown()
        cluster.shutdown()


# --- the attributes that are replaced ---------------------------------------------------------------------------------


def test_what_is_replaced_for_a_start_is_put_back() -> None:
    owners = (ray._private.node.Node, ray._private.ray_constants, ray._private.utils)
    before = [dict(vars(owner)) for owner in owners]
    with ray_private.loopback_only(), ray_private.without_services():
        assert [dict(vars(owner)) for owner in owners] != before
    assert [dict(vars(owner)) for owner in owners] == before
