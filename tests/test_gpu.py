"""What needs a GPU. Nothing here has been seen to pass yet: the machines that run the suite have none."""

from pathlib import Path

import pytest
import torch

from studies import Recorder, run_study, toy

GPUS = torch.cuda.device_count()


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_study_runs_with_a_gpu_for_each_worker(tmp_path: Path, workers: int) -> None:
    if workers > GPUS:
        pytest.skip(f"needs {workers} GPU(s), this machine has {GPUS}")
    recorder = Recorder()
    outcome = run_study(tmp_path / "study", toy(scaling={"workers_per_trial": workers, "gpus_per_worker": 1}), recorder)
    assert outcome.best is not None and outcome.failed == 0
    assert outcome.study.facts["device"] == "cuda"
    assert not recorder.notices
