"""What several tests share: one finished study, made by the command line as a person would."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from studies import tune_lr
from tune_lr.study_dir import StudyDir

# TorchInductor's compile processes would cost each process that imports ColossalAI seconds; torch reads this when it is
# imported.
os.environ.update(RAY_USAGE_STATS_ENABLED="0", WANDB_SILENT="true", TORCHINDUCTOR_COMPILE_THREADS="1")
sys.path.insert(0, str(Path(__file__).parent))


@dataclass(frozen=True)
class Finished:
    directory: StudyDir
    output: str


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """LeNet-5 on real digits, two slots, W&B offline: 3 ramps, 8 trials, 2 x 2 confirmations."""
    root = tmp_path_factory.mktemp("finished")
    settings = ["max_steps=62", "report_every=31", "pruner.min_steps=31", "confirm={top: 2, seeds: 2}"]
    process = tune_lr(
        "search",
        "lenet5_mnist",
        "--name=study",
        "--num-trials=8",
        "--wandb=offline",
        *(f"--set={setting}" for setting in [*settings, "range_test.steps=150"]),
        cwd=root,
    )
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, f"{output}\n{errors}"
    assert errors == ""
    yield Finished(StudyDir(root / "studies" / "study"), output)
