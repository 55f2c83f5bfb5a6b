"""A study whose trials span two hosts, the hosts being network namespaces of this machine (Linux, root): `make netns`.

    10.203.0.1  the head and the driver, one CPU
    10.203.0.2  the other node, one CPU; it does not see the folder of the user's Python files

Run with an argument it is the driver, inside the first namespace.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from studies import Recorder, ray_node, toy
from tune_lr import run as search
from tune_lr.config.load import parse_config
from tune_lr.session import create
from tune_lr.store.study_dir import StudyDir

HEAD, OTHER = "10.203.0.1", "10.203.0.2"
RAY = str(Path(sys.executable).with_name("ray"))
TUNE_LR = str(Path(sys.executable).with_name("tune-lr"))


def inside(namespace: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, *command]


@contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two namespaces with one cable between them."""
    names = f"tune-lr-{os.getpid()}-a", f"tune-lr-{os.getpid()}-b"
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        ends = [f"tlr{os.getpid()}{end}" for end in "ab"]
        cable = ["ip", "link", "add", ends[0], "netns", names[0], "type", "veth"]
        subprocess.run([*cable, "peer", "name", ends[1], "netns", names[1]], check=True)
        for name, end, address in zip(names, ends, (HEAD, OTHER), strict=True):
            subprocess.run(["ip", "-n", name, "address", "add", f"{address}/24", "dev", end], check=True)
            for interface in ("lo", end):
                subprocess.run(["ip", "-n", name, "link", "set", interface, "up"], check=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def main() -> None:
    if os.geteuid() or shutil.which("ip") is None:
        print("skipped: network namespaces need root and the command `ip`")
        return
    if subprocess.run(["ip", "netns", "add", f"tune-lr-{os.getpid()}-x"], capture_output=True).returncode:
        print("skipped: this machine does not allow network namespaces")
        return
    subprocess.run(["ip", "netns", "del", f"tune-lr-{os.getpid()}-x"], check=True)
    # Short: the sockets of a node lie there, and their paths may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="n") as folder, two_hosts() as (first, second):
        here = Path(folder)
        code, token = here / "code", here / "token"
        code.mkdir()
        shutil.copyfile(Path(__file__).parent / "support" / "toy.py", code / "toy_of_mine.py")
        space = toy(
            workload="toy_of_mine:regression", num_trials=4, scaling={"workers_per_trial": 2}, confirm={"top": 1}
        )
        (code / "space.yaml").write_text(yaml.safe_dump(space))
        token.touch(mode=0o600)
        token.write_text("a" * 64)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "HOME": folder}
        start = [RAY, "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
        head = [*start, "--head", "--port=6379", f"--node-ip-address={HEAD}", f"--temp-dir={folder}/r"]
        other = [*start, f"--address={HEAD}:6379", f"--node-ip-address={OTHER}"]
        blind = ["sh", "-c", f'mount -t tmpfs none {code} && exec "$@"', "sh"]
        with (
            ray_node(inside(first, *head, "--include-dashboard=false"), environment),
            ray_node(inside(second, *blind, *other), environment),
        ):
            check = inside(first, TUNE_LR, "check", str(code / "space.yaml"), "--address", f"{HEAD}:6379")
            subprocess.run(check, env=environment, cwd=here, check=True)
            drive = inside(first, sys.executable, str(Path(__file__).resolve()), folder)
            subprocess.run(drive, env=environment, cwd=here, check=True)


def drive(folder: Path) -> None:
    code, recorder = folder / "code", Recorder()
    directory = StudyDir(folder / "study")
    config = parse_config(yaml.safe_load((code / "space.yaml").read_text()))
    create(config, directory, [str(code)])
    outcome = search.run(directory, address=f"{HEAD}:6379", observers=[recorder])
    for workers in recorder.workers:
        print(f"workers by host: {workers}")
        assert {place.partition(":")[0] for place in workers.split()} == {HEAD, OTHER}
    assert recorder.workers
    assert not recorder.notices, recorder.notices
    assert outcome.failed == 0
    assert outcome.answer is not None
    print(f"{len(outcome.rows)} trials; {outcome.answer.verdict}")


if __name__ == "__main__":
    drive(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
