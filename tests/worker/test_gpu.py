"""What needs GPUs: a whole study with each plugin, on one, two and four of them. `make gpu-smoke` writes a table of it.

docs/gpu.md says what of it has been seen to pass: the machines that run the suite have none.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from studies import Recorder, run_study, toy
from tune_lr.records.trial import CheckpointPlan, Report
from tune_lr.worker.checkpoint import pack, unpack
from tune_lr.worker.training import STEPS_PER_READ, Training
from two_ranks import figures, make_task, make_trial, regression

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


LENET5 = {"workload": "tune_lr.workloads.lenet5:mnist_5k"}  # its weights lie in memory with the channels last
ANY = (1, 2, 4)
SEVERAL = (2, 4)
# What is trained, given the number of GPUs, and on how many of them.
CASES: dict[str, tuple[tuple[int, ...], Callable[[int], dict[str, Any]]]] = {
    "ddp": (ANY, lambda gpus: plugin("ddp", "fp32")),
    "ddp, bf16": (ANY, lambda gpus: plugin("ddp", "bf16")),
    "ddp, fp16": (ANY, lambda gpus: plugin("ddp", "fp16")),
    "ddp, deterministic": (
        (1,),
        lambda gpus: {"scaling": {"plugin": "ddp"}, "training": {"deterministic": True}, **LENET5},
    ),
    "low_level_zero, stage 1": (ANY, lambda gpus: plugin("low_level_zero", "bf16")),
    "low_level_zero, stage 2, fp16": (ANY, lambda gpus: plugin("low_level_zero", "fp16", {"stage": 2})),
    "low_level_zero, channels last": ((1,), lambda gpus: plugin("low_level_zero", "bf16") | LENET5),
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
    # Last: ColossalAI compiles its optimizer when it is used for the first time.
    "gemini": (ANY, lambda gpus: plugin("gemini", "bf16", optimizer={"name": "HybridAdam"})),
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
    assert outcome.answer is not None
    assert outcome.answer.test
    assert recorder.device == "cuda"
    assert not recorder.notices


def one_gpu(case: str, record_property: Callable[[str, object], None]) -> None:
    record_property("case", case)
    record_property("gpus", 1)
    if not GPUS:
        pytest.skip("needs 1 GPU(s), this machine has 0")


@pytest.mark.gpu
def test_ramps_and_pruned_trials_on_a_warm_gpu(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    one_gpu("ddp, range test and pruning", record_property)
    recorder = Recorder()
    outcome = run_study(tmp_path / "study", toy(scaling={"gpus_per_worker": 1, "max_concurrent": 1}), recorder)
    assert outcome.answer is not None
    assert outcome.failed == 0
    assert len(recorder.workers) == 1


FEW = {"lr": {"values": [0.01, 0.02]}, "lr_schedule": {"value": "cosine"}}


@pytest.mark.gpu
def test_four_trials_share_a_gpu(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    one_gpu("a quarter each for four trials", record_property)
    recorder = Recorder()
    scaling = {"gpus_per_worker": 0.25, "max_concurrent": 4}
    outcome = run_study(tmp_path / "study", toy(num_trials=8, parameters=FEW, scaling=scaling), recorder)
    assert outcome.failed == 0
    assert recorder.device == "cuda"
    assert len(recorder.workers) == 4


@pytest.mark.gpu
def test_a_study_without_gpus_trains_on_the_cpus_of_a_machine_with_gpus(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Two ranks: on one GPU NCCL would refuse them."""
    one_gpu("none used, though there", record_property)
    scaling = {"workers_per_trial": 2, "max_concurrent": 1}
    space = toy(num_trials=1, parameters=FEW, confirm={"top": 0, "seeds": 1}, scaling=scaling)
    recorder = Recorder()
    outcome = run_study(tmp_path / "study", space, recorder)
    assert outcome.failed == 0
    assert recorder.device == "cpu"


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("how", "reason"),
    [("memory", "OutOfMemoryError: CUDA out of memory"), ("element", "CUDA error: device-side assert")],
)
def test_what_breaks_on_a_gpu_ends_its_trial_alone(
    tmp_path: Path, how: str, reason: str, record_property: Callable[[str, object], None]
) -> None:
    """At once, with the reason, without another try. The next trial has a new worker."""
    one_gpu(f"a GPU that breaks: {how}", record_property)
    recorder = Recorder()
    space = toy(
        workload="toy:broken_gpu",
        workload_args={"how": how, "seen": str(tmp_path / "seen")},
        num_trials=2,
        parameters=FEW,
        confirm={"top": 0, "seeds": 1},
        scaling={"gpus_per_worker": 1, "max_concurrent": 1},
    )
    first, second = run_study(tmp_path / "study", space, recorder).rows
    assert first.state == "failed"
    assert reason in first.reason
    assert second.state == "complete"
    assert len(recorder.workers) == 2


# --- the training loop, in this process -------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_trial_goes_on_from_its_checkpoint_as_if_it_had_never_stopped(
    precision: str, record_property: Callable[[str, object], None], request: pytest.FixtureRequest
) -> None:
    one_gpu(f"checkpoints, {precision}", record_property)
    request.getfixturevalue("group_of_one")  # where there is a GPU
    gpu = torch.device("cuda:0")
    task = make_task(precision=precision, gpus_per_worker=1.0, checkpoints=CheckpointPlan(9, None, 2, "", ""))
    training, states = Training(regression(), task, make_trial(), gpu), {}
    reports: list[Report] = []
    while not reports or not reports[-1].over:
        reports.append(training.run())
        if reports[-1].checkpoint:
            states[len(reports)] = pack(training.state())
    assert len(states) >= 3
    for done, state in states.items():
        Training(regression(), make_task(), make_trial(seed=99, max_steps=3), gpu).run()
        again = Training(regression(), task, make_trial(), gpu)
        again.restore(unpack(state, gpu), unpack(state, gpu))
        rest = [again.run()]
        while not rest[-1].over:
            rest.append(again.run())
        assert figures(rest) == figures(reports[done:])


@pytest.mark.gpu
@pytest.mark.parametrize("details", [{}, {"precision": "bf16"}, {"clip_norm": 0.3, "accumulate": 2}])
def test_the_loop_waits_for_the_gpu_once_in_so_many_steps(
    details: dict[str, Any], record_property: Callable[[str, object], None], request: pytest.FixtureRequest
) -> None:
    """And once a validation, by torch's own count. With fp16 torch's GradScaler waits in each step."""
    one_gpu(f"waits for the GPU, {details or 'fp32'}", record_property)
    request.getfixturevalue("group_of_one")
    steps = 4 * STEPS_PER_READ
    task, trial = make_task(gpus_per_worker=1.0, report_every=steps, **details), make_trial(max_steps=2 * steps)
    training = Training(regression(), task, trial, torch.device("cuda:0"))
    training.run()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            training.run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "synchronizing CUDA operation" in str(warning.message)]
    assert len(waits) == 4 + 1


@pytest.mark.gpu
def test_a_warm_worker_keeps_nothing_of_its_trials_on_the_gpu(
    record_property: Callable[[str, object], None], request: pytest.FixtureRequest
) -> None:
    one_gpu("memory after each trial", record_property)
    request.getfixturevalue("group_of_one")
    used = []
    training = None
    for number in range(6):
        training = None  # as a worker does: the last one goes before the next is made
        training = Training(
            regression(), make_task(gpus_per_worker=1.0), make_trial(seed=number), torch.device("cuda:0")
        )
        training.run()
        used.append(torch.cuda.memory_allocated())
    assert training is not None
    assert len(set(used[1:])) == 1
