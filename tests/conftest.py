"""What several tests share: one finished study, made by the command line as a person would."""

import atexit
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from finished_study import CANARY, Finished
from studies import free_port, tune_lr
from tune_lr.store.study_dir import StudyDir

os.environ.update(RAY_USAGE_STATS_ENABLED="0", WANDB_SILENT="true")


_SESSION = pytest.StashKey[pytest.Session]()


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_SESSION] = session


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends the command `pytest` before the interpreter is taken down. In this one process there were many Rays and
    process groups, whose threads run on; once, after 2,159 passed tests, one of them crashed it then."""
    session = config.stash.get(_SESSION, None)
    if session is not None and Path(sys.argv[0]).name == "pytest":
        with warnings.catch_warnings(action="ignore"):  # of folders that libraries leave to be removed now
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(session.exitstatus))


@pytest.fixture(scope="module")
def group_of_one() -> Iterator[None]:
    """A process group of this process alone, and one thread, as a worker of one CPU has."""
    import torch

    from tune_lr.worker import colossal

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    colossal.launch(0, 1, "127.0.0.1", free_port())
    yield
    torch.distributed.destroy_process_group()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """LeNet-5 on real digits, two slots, W&B offline: 3 ramps, 8 trials, 2 x 2 confirmations."""
    root = tmp_path_factory.mktemp("finished")
    pruner = "pruner={name: asha, min_steps: 31}"
    settings = ["max_steps=62", "report_every=31", pruner, "range_test.replicates=3", "confirm={top: 2, seeds: 2}"]
    with tempfile.TemporaryDirectory(prefix="r") as ray:  # short: the paths of sockets may have 107 characters
        process = tune_lr(
            "search",
            "lenet5_mnist",
            "--name=study",
            "--num-trials=8",
            "--wandb=offline",
            *(f"--set={setting}" for setting in [*settings, "range_test.steps=150"]),
            cwd=root,
            RAY_TMPDIR=ray,
            WANDB_API_KEY=CANARY,
        )
        output, errors = process.communicate(timeout=400)
        assert process.returncode == 0, f"{output}\n{errors}"
        assert errors == ""
        yield Finished(StudyDir(root / "studies" / "study"), output, Path(ray))
