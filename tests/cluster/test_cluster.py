"""Several nodes: what fits on them, worker groups that span them, nodes that join and leave, and a study as a Ray job.
And what docs/cluster.md and cluster.yaml promise."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.cluster_utils import Cluster

from paths import ROOT, SUPPORT
from studies import Recorder, ray_node, toy, tune_lr
from tune_lr import run as search
from tune_lr.cli.main import main
from tune_lr.cli.parser import make_parser
from tune_lr.cluster import cluster
from tune_lr.config.hardware import Hardware, Node, check_slots, slots_on
from tune_lr.config.load import parse_config
from tune_lr.config.training import Scaling
from tune_lr.errors import InputError, ResourceError
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.session import create
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.status import read_status

FIXED_LR = {**toy()["parameters"], "lr": {"min": 0.01, "max": 0.1}}  # needs no range test


# --- what fits --------------------------------------------------------------------------------------------------------


def scaling_of(**fields: Any) -> Scaling:
    return parse_config(toy(scaling=fields)).scaling


@pytest.mark.parametrize(
    ("nodes", "scaling", "slots"),
    [
        ([(4, 0)], {}, 4),
        ([(4, 0), (2, 0)], {"workers_per_trial": 2}, 3),
        ([(3, 0), (3, 0)], {"workers_per_trial": 2}, 3),  # one of them spans both nodes
        ([(4, 0), (2, 0)], {"max_concurrent": 2}, 2),
        ([(3, 0)], {"cpus_per_worker": 2}, 1),
        ([(64, 4), (64, 0)], {"gpus_per_worker": 1}, 4),
        ([(2, 4)], {"gpus_per_worker": 1}, 2),
        ([(64, 2)], {"gpus_per_worker": 0.5}, 4),
        ([(64, 2)], {"gpus_per_worker": 0.6}, 2),  # a share is of one GPU
        ([(64, 1)], {"gpus_per_worker": 0.1}, 10),
        ([(0, 0), (8, 1)], {"workers_per_trial": 2, "gpus_per_worker": 1}, 0),
    ],
)
def test_slots_are_counted_worker_by_worker(
    nodes: list[tuple[float, float]], scaling: dict[str, Any], slots: int
) -> None:
    there = [Node(str(index), cpus, gpus) for index, (cpus, gpus) in enumerate(nodes)]
    wanted = scaling_of(**scaling)
    assert slots_on(there, wanted, wanted.max_concurrent) == slots
    if slots:
        check_slots(there, wanted)
    else:
        with pytest.raises(ResourceError, match=r"has 2 node.s.: 0 CPU and 0 GPU, 8 CPU and 1 GPU"):
            check_slots(there, wanted)


# --- what is sent to the nodes ----------------------------------------------------------------------------------------


def test_modules_and_packages_are_sent_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a/mine.py", "a/data.csv", "a/package/__init__.py", "a/package/deep/part.py", "a/package/notes.txt",
                 "a/studies/s/x.py", "a/.venv/lib/big.py", "b/mine.py", "b/other.py"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    sent = tmp_path / "sent"
    size = cluster._collect([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "gone")], sent)
    files = {str(path.relative_to(sent)): path.read_text() for path in sent.rglob("*") if path.is_file()}
    assert files == {
        "mine.py": "a/mine.py",  # the first folder wins, as on sys.path
        "package/__init__.py": "a/package/__init__.py",
        "package/deep/part.py": "a/package/deep/part.py",
        "other.py": "b/other.py",
    }
    assert size


def test_a_folder_that_was_not_meant_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large.py").write_text("#" * 2000)
    monkeypatch.setattr(cluster, "MOST_SHIPPED_BYTES", 1000)
    with pytest.raises(InputError, match="start it in the project's own folder"):
        cluster._collect([str(tmp_path)], tmp_path / "sent")


# --- several nodes ----------------------------------------------------------------------------------------------------

# Every trial stops after its first report until the gate is open.
GATED = """\
from tune_lr import Workload
import toy_of_mine_base

def gated(gate: str) -> Workload:
    workload = toy_of_mine_base.regression()
    steps = []

    def criterion(outputs, batch):
        steps.append(outputs.requires_grad)
        if sum(steps) == 13:
            open(gate).close()  # a FIFO: waits until somebody has it open for writing
        return workload.criterion(outputs, batch)

    return Workload(**{**vars(workload), "criterion": criterion})
"""


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_group_spans_two_nodes_and_slots_follow_nodes_that_join_and_leave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, gate = tmp_path / "code", str(tmp_path / "gate")
    code.mkdir()
    (code / "toy_of_mine.py").write_text(GATED)
    (code / "toy_of_mine_base.py").write_text((SUPPORT / "toy.py").read_text())
    os.mkfifo(gate)
    space = toy(
        workload="toy_of_mine:gated",
        workload_args={"gate": gate},
        parameters=FIXED_LR,
        pruner={"name": "none"},
        num_trials=4,
        confirm={"top": 1, "seeds": 2},
        scaling={"workers_per_trial": 2},
    )
    (code / "space.yaml").write_text(yaml.safe_dump(space))

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    leaving = nodes.add_node(num_cpus=1)
    slots: list[int] = []
    homes: dict[str, set[int]] = {}  # by slot, the raylets that its workers belong to
    opened: list[int] = []

    def on_cluster(count: int, hardware: Hardware) -> None:
        slots.append(count)
        if len(slots) == 1:
            code.rename(tmp_path / "away")  # no node sees the files: they were sent
            nodes.add_node(num_cpus=2)

    def look(trial: TrialSpec, report: Report) -> None:
        """Both slots are busy; in the middle of a trial that spans two nodes, one of these leaves."""
        if report.slot not in homes:
            pids = [int(pid) for pid in re.findall(r"(?<=[:,])\d+", report.worker)]
            homes[report.slot] = {psutil.Process(pid).ppid() for pid in pids}
            assert len(pids) == 2
            if len(homes) == 2:
                opened.append(os.open(gate, os.O_RDWR))
        elif len(homes[report.slot]) == 2 and leaving in nodes.worker_nodes:
            nodes.remove_node(leaving)

    recorder = Recorder(look)
    directory = StudyDir(tmp_path / "study")
    try:
        check = ["check", str(code / "space.yaml"), "--address", nodes.address]
        assert main(check) == 0
        fit = capsys.readouterr().out
        assert main([*check, "--set", "scaling.workers_per_trial=4"]) == 4
        misfit = capsys.readouterr()
        create(parse_config(space), directory, [str(code)])
        outcome = search.run(directory, address=nodes.address, observers=[recorder], on_cluster=on_cluster)
    finally:
        nodes.shutdown()
        for descriptor in opened:
            os.close(descriptor)
    assert re.search(r"^slots +1 of 2 workers, 1 CPU each *$", fit, re.MULTILINE)
    assert len(re.findall(r"^\S+ +1 CPU and 0 GPU +1 *$", fit, re.MULTILINE)) == 2
    assert "steps at most, one after another in a slot: 240 " in fit
    assert "2 workers in all, 0 of them used by 0 slot(s)" in misfit.out
    assert misfit.err.startswith("error: the cluster cannot hold one trial: it wants 4 workers of 1 CPU each")
    assert sorted(map(len, homes.values())) == [1, 2]  # one slot on the node that joined, one across both others
    assert slots == [1, 2, 1]
    assert re.search(r"trial [01]: its slot was lost; it runs again", "\n".join(recorder.notices))
    rows = outcome.rows
    assert [(row.number, row.state) for row in rows] == [(number, "complete") for number in range(4 + 2)]
    assert outcome.answer is not None


# --- a Ray job --------------------------------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@contextmanager
def head(environment: dict[str, str], temporary: str) -> Iterator[str]:
    """A head of its own, as docs/cluster.md starts one; yields where it takes jobs."""
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command: list[str | Path] = [
        Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=1",
        "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={temporary}",
        *(f"--{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    with ray_node(command, environment):
        yield f"http://127.0.0.1:{ports['dashboard-port']}"


def wait_for_trials(directory: StudyDir, ended: int, process: "subprocess.Popen[str] | None" = None) -> None:
    """Until so many trials have ended; for at most two minutes."""
    for _ in range(240):
        if directory.study_yaml.exists():
            status = read_status(directory)
            if sum(phase.complete + phase.pruned + phase.diverged for phase in status.phases.values()) >= ended:
                return
        if process is not None and process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        time.sleep(0.5)
    raise AssertionError("no trial has ended")


@pytest.mark.long
def test_a_study_submitted_as_a_job_survives_its_terminal(tmp_path: Path) -> None:
    project, token = tmp_path / "project", tmp_path / "token"
    project.mkdir()
    (project / "toy_of_mine.py").write_text((SUPPORT / "toy.py").read_text())
    space = toy(workload="toy_of_mine:regression", parameters=FIXED_LR, num_trials=500)
    (project / "space.yaml").write_text(yaml.safe_dump(space))
    token.touch(mode=0o600)
    token.write_text("a" * 64)
    directory = StudyDir(tmp_path / "shared" / "first")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "HOME": str(tmp_path)}
    binaries = Path(sys.executable).parent
    # The sockets of a node have paths, and these may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="r") as temporary, head(environment, temporary) as address:
        terminal = subprocess.Popen(
            [binaries / "ray", "job", "submit", "--address", address, "--working-dir", project, "--",
             binaries / "tune-lr", "search", "space.yaml", "--name=first", f"--out={tmp_path}/shared",
             "--wandb=disabled"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        wait_for_trials(directory, 1, terminal)
        os.killpg(terminal.pid, signal.SIGHUP)
        terminal.communicate()
        status = read_status(directory)
        assert status.state == "running"
        wait_for_trials(directory, status.phases["search"].complete + status.phases["search"].pruned + 3)
        output, errors = tune_lr("stop", str(directory.root), cwd=tmp_path).communicate(timeout=120)
        assert output.startswith("stopped (process "), errors
        assert read_status(directory).state == "stopped"


# --- what is written --------------------------------------------------------------------------------------------------


def test_cluster_yaml_is_what_ray_up_takes() -> None:
    text = (ROOT / "cluster.yaml").read_text()
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    kinds = config["available_node_types"]
    assert kinds[config["head_node_type"]]["resources"]["CPU"] == 0  # no trial runs there
    workers = [kind for name, kind in kinds.items() if name != config["head_node_type"]]
    assert workers
    assert all(kind["min_workers"] == 0 for kind in workers)
    assert all(kind["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot" for kind in workers)
    (start,) = (command for command in config["head_start_ray_commands"] if "ray start" in command)
    assert "--dashboard-host=127.0.0.1" in start
    starts = [command for key in ("head", "worker") for command in config[f"{key}_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in command for command in starts if "ray start" in command)
    assert "IpPermissions" not in config["provider"]["security_group"]  # nothing is opened beside SSH
    for path in config["file_mounts"].values():
        assert path.startswith("~") or (ROOT / path).exists(), path


def test_every_field_of_cluster_yaml_has_its_comment() -> None:
    lines = (ROOT / "cluster.yaml").read_text().splitlines()
    bare = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if re.match(r" *\w+:", line) and not before.lstrip().startswith("#")
    ]
    assert bare == []


def test_every_command_of_the_documentation_is_one() -> None:
    text = (ROOT / "docs" / "cluster.md").read_text().replace("\\\n", " ")
    commands = re.findall(
        r"(?:^|[ `'/])tune-lr ((?:search|resume|status|stop|report|check|range-test)\b[^`'\n]*)", text, re.M
    )
    assert {command.split()[0] for command in commands} == {"search", "resume", "status", "stop", "report", "check"}
    for command in commands:
        make_parser().parse_args(shlex.split(command))
