"""What needs GPUs: a whole study with each plugin, on one, two and four of them. `make gpu-smoke` writes a table of it.

Nothing here has been seen to pass yet: the machines that run the suite have none.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from studies import Recorder, run_study, toy

GPUS = torch.cuda.device_count()
# A transformers model, which alone can be split into tensors and stages.
GPT = {
    "workload": "toy:gpt",
    "workload_args": {"context": 32, "layers": 4, "heads": 4, "width": 64, "max_bytes": 100_000, "batch_size": 16},
    "optimizer": {"name": "adamw"},
}


def hybrid(precision: str = "bf16", **options: Any) -> dict[str, Any]:
    return {
        "scaling": {"plugin": "hybrid_parallel", "plugin_args": options},
        "training": {"precision": precision},
        **GPT,
    }


def plugin(name: str, precision: str, options: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "scaling": {"plugin": name, "plugin_args": options or {}},
        "training": {"precision": precision, "accumulate": 2, "clip_norm": 1.0},
        **fields,
    }


ANY = (1, 2, 4)
SEVERAL = (2, 4)
# What is trained, given the number of GPUs, and on how many of them.
CASES: dict[str, tuple[tuple[int, ...], Callable[[int], dict[str, Any]]]] = {
    "ddp": (ANY, lambda gpus: plugin("ddp", "fp32")),
    "ddp, bf16": (ANY, lambda gpus: plugin("ddp", "bf16")),
    "ddp, fp16": (ANY, lambda gpus: plugin("ddp", "fp16")),
    "low_level_zero, stage 1": (ANY, lambda gpus: plugin("low_level_zero", "bf16")),
    "low_level_zero, stage 2, fp16": (ANY, lambda gpus: plugin("low_level_zero", "fp16", {"stage": 2})),
    "gemini": (ANY, lambda gpus: plugin("gemini", "bf16", optimizer={"name": "HybridAdam"})),
    "fsdp": (ANY, lambda gpus: plugin("fsdp", "fp32")),
    "fsdp, bf16": (ANY, lambda gpus: plugin("fsdp", "bf16")),
    "hybrid_parallel, ZeRO 1": (ANY, lambda gpus: hybrid(zero_stage=1)),
    "hybrid_parallel, tensor": (SEVERAL, lambda gpus: hybrid(tp_size=gpus, precision="fp32")),
    "hybrid_parallel, sequence": (
        SEVERAL,
        lambda gpus: hybrid(tp_size=gpus, enable_sequence_parallelism=True, sequence_parallelism_mode="split_gather"),
    ),
    "hybrid_parallel, pipeline": (SEVERAL, lambda gpus: hybrid(pp_size=gpus, num_microbatches=4)),
    "hybrid_parallel, tensor and pipeline": ((4,), lambda gpus: hybrid(tp_size=2, pp_size=2, num_microbatches=4)),
}


@pytest.mark.gpu
@pytest.mark.parametrize(("case", "gpus"), [(case, gpus) for case, (counts, _) in CASES.items() for gpus in counts])
def test_a_study_runs_with_every_plugin(
    tmp_path: Path, case: str, gpus: int, record_property: Callable[[str, object], None]
) -> None:
    """Search, a confirmation that keeps its model, and the test that loads it."""
    record_property("case", case)
    record_property("gpus", gpus)
    if gpus > GPUS:
        pytest.skip(f"needs {gpus} GPU(s), this machine has {GPUS}")
    fields = CASES[case][1](gpus)
    scaling = {**fields.pop("scaling"), "workers_per_trial": gpus, "gpus_per_worker": 1, "max_concurrent": 1}
    schedule = {"lr": {"values": [0.001, 0.01]}, "lr_schedule": {"value": "cosine"}}
    space = toy(num_trials=2, parameters=schedule, confirm={"top": 1, "seeds": 1}, scaling=scaling, **fields)
    recorder = Recorder()
    outcome = run_study(tmp_path / "study", space, recorder)
    assert outcome.failed == 0
    assert outcome.best is not None
    assert outcome.best["test"]
    assert outcome.study.facts["device"] == "cuda"
    assert not recorder.notices


@pytest.mark.gpu
def test_ramps_and_pruned_trials_on_a_warm_gpu(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    record_property("case", "ddp, range test and pruning")
    record_property("gpus", 1)
    if not GPUS:
        pytest.skip("needs 1 GPU(s), this machine has 0")
    recorder = Recorder()
    outcome = run_study(tmp_path / "study", toy(scaling={"gpus_per_worker": 1, "max_concurrent": 1}), recorder)
    assert outcome.best is not None and outcome.failed == 0
    assert len(recorder.workers) == 1
