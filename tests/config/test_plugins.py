"""What is known of ColossalAI's plugins without ColossalAI, held against ColossalAI's own code."""

# ruff: noqa: E501 - a case of a table stays on one line

import inspect
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from studies import Recorder, curves, run_study, toy
from tune_lr.config.load import parse_config
from tune_lr.config.model import Config
from tune_lr.config.plugins import (
    GEMINI_OPTIMIZERS,
    NOT_PASSED_ON,
    OPTIONS,
    PRECISIONS,
    SET_ELSEWHERE,
    Layout,
    batch_divisor,
    layout,
)
from tune_lr.config.task import make_task as task_of
from tune_lr.errors import InputError
from tune_lr.store.study_dir import StudyDir
from two_ranks import make_task

# --- against ColossalAI's signatures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIONS)
def test_the_options_are_those_of_the_plugin(name: str) -> None:
    from tune_lr.worker.colossal import PLUGINS

    parameters = {key: p for key, p in inspect.signature(PLUGINS[name]).parameters.items() if key != "self"}
    set_elsewhere = {key for key in SET_ELSEWHERE if key in parameters}
    assert OPTIONS[name].keys() | NOT_PASSED_ON.get(name, set()) | set_elsewhere == parameters.keys()
    for key, kind in OPTIONS[name].items():
        annotation = parameters[key].annotation
        if annotation in (bool, int, float, str) and name != "fsdp":
            words = {type(word) for word in kind} if isinstance(kind, tuple) else {kind}
            assert words == {annotation}, key


def test_the_precisions_are_those_of_the_plugins() -> None:
    from colossalai.zero.gemini.gemini_optimizer import _AVAIL_OPTIM_LIST

    from tune_lr.worker.colossal import PLUGINS

    for name in ("low_level_zero", "gemini", "hybrid_parallel"):
        assert set(PRECISIONS[name]) == set(PLUGINS[name].supported_precisions(None)), name
    assert {cls.__name__ for cls in _AVAIL_OPTIM_LIST} == set(GEMINI_OPTIMIZERS)


def made(**changes: Any) -> Any:
    from tune_lr.worker.colossal import _plugin

    return _plugin(make_task(gpus_per_worker=1.0, **changes))


@pytest.mark.usefixtures("group_of_one")
def test_precision_clipping_and_options_reach_each_plugin() -> None:
    zero = made(plugin="low_level_zero", precision="bf16", clip_norm=0.5, plugin_args={"stage": 2})
    assert (zero.precision, zero.stage) == ("bf16", 2)
    assert zero.zero_optim_kwargs["clip_grad_norm"] == 0.5
    assert zero.zero_optim_kwargs["partition_grad"] is True
    half = made(plugin="low_level_zero", plugin_args={"communication_dtype": "bf16"})
    assert (half.precision, half.zero_optim_kwargs["clip_grad_norm"]) == ("fp32", 0.0)
    assert half.zero_optim_kwargs["communication_dtype"] is torch.bfloat16

    half = made(plugin="low_level_zero", precision="fp16")
    assert half.zero_optim_kwargs["initial_scale"] == 2**16  # not ColossalAI's 2**32
    half = made(plugin="low_level_zero", precision="fp16", plugin_args={"initial_scale": 8.0})
    assert half.zero_optim_kwargs["initial_scale"] == 8

    arguments = {"sharding_strategy": "SHARD_GRAD_OP", "cpu_offload": True, "backward_prefetch": "BACKWARD_POST"}
    fsdp = made(plugin="fsdp", precision="bf16", plugin_args=arguments).fsdp_kwargs
    assert fsdp["mixed_precision"].param_dtype is torch.bfloat16
    assert fsdp["sharding_strategy"] is torch.distributed.fsdp.ShardingStrategy.SHARD_GRAD_OP
    assert fsdp["cpu_offload"].offload_params is True
    assert fsdp["backward_prefetch"] is torch.distributed.fsdp.BackwardPrefetch.BACKWARD_POST
    assert made(plugin="fsdp").fsdp_kwargs["mixed_precision"] is None

    ddp = made(plugin_args={"bucket_cap_mb": 7})
    assert ddp.ddp_kwargs["bucket_cap_mb"] == 7

    hybrid = made(plugin="hybrid_parallel", precision="bf16", clip_norm=2.0)
    assert (hybrid.precision, hybrid.max_norm, hybrid.tp_size, hybrid.pp_size) == ("bf16", 2.0, 1, 1)
    assert hybrid.shard_config.parallel_output is False

    gemini = made(plugin="gemini", precision="fp16", accumulate=2, clip_norm=1.0)
    assert gemini.gemini_config["mixed_precision"] is torch.float16
    assert gemini.gemini_config["enable_gradient_accumulation"] is True
    assert gemini.optim_kwargs["max_norm"] == 1.0


# --- how the workers are used -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "workers", "expected"),
    [
        ({}, 4, Layout(4)),
        ({"stage": 2}, 4, Layout(4)),
        ({"extra_dp_size": 2}, 4, Layout(4)),
        ({}, 3, Layout(3)),
        ({"tp_size": 2}, 8, Layout(4, tensor=2)),
        ({"tp_size": 2, "extra_dp_size": 2}, 8, Layout(4, tensor=2)),
        ({}, 2, Layout(2)),
        ({"tp_size": 2, "pp_size": 2}, 8, Layout(2, 2, 2)),
        ({"tp_size": 2, "pp_size": 2, "dp_outside": False}, 8, Layout(2, 2, 2, 1, True)),
        ({"enable_sequence_parallelism": True, "sp_size": 4}, 8, Layout(2, sequence=4)),
        (
            {"tp_size": 4, "enable_sequence_parallelism": True, "sequence_parallelism_mode": "split_gather"},
            8,
            Layout(2, tensor=4),
        ),
    ],
)
def test_workers_are_shared_between_copies_and_their_parts(
    options: dict[str, Any], workers: int, expected: Layout
) -> None:
    assert layout(options, workers) == expected
    ranks = Counter(expected.data_rank(rank) for rank in range(workers))
    assert ranks == dict.fromkeys(range(expected.data), workers // expected.data)


@pytest.mark.parametrize("outside", [True, False])
def test_a_rank_sees_the_data_of_its_place_in_colossalais_mesh(outside: bool) -> None:
    """ColossalAI numbers the ranks of a mesh as numpy numbers the elements of an array."""
    shape = layout({"tp_size": 2, "pp_size": 3, "dp_outside": outside}, 24)
    mesh = (4, 3, 2, 1) if outside else (3, 4, 2, 1)
    for rank in range(24):
        assert shape.data_rank(rank) == np.unravel_index(rank, mesh)[0 if outside else 1]


def test_a_batch_is_split_over_copies_and_micro_batches() -> None:
    assert batch_divisor(Layout(4), {}, 1) == (4, "scaling.workers_per_trial 4")
    assert batch_divisor(Layout(4), {}, 3) == (12, "scaling.workers_per_trial 4 x training.accumulate 3")
    micro = {"num_microbatches": 8, "pp_size": 2}
    assert batch_divisor(Layout(2, 2, 2), micro, 1) == (16, "the copies of the model 2 x num_microbatches 8")


# --- what is refused, by a check that loads no torch ------------------------------------------------------------------


SPACE: dict[str, Any] = {
    "workload": "any:where",
    "max_steps": 100,
    "report_every": 10,
    "num_trials": 1,
    "parameters": {"lr": {"value": 0.1}, "lr_schedule": {"value": "constant"}},
}


HYBRID = "scaling.plugin=hybrid_parallel scaling.gpus_per_worker=1"
GEMINI = "scaling.plugin=gemini scaling.gpus_per_worker=1"
ZERO = "scaling.plugin=low_level_zero scaling.gpus_per_worker=1"
FSDP = "scaling.plugin=fsdp scaling.gpus_per_worker=1"
TWO = f"{HYBRID} scaling.workers_per_trial=2"
ARGS = "scaling.plugin_args"
REFUSED = [
    ("scaling.plugin=low_level_zero", "scaling.plugin: needs GPUs (got low_level_zero, gpus_per_worker is 0); on CPUs use ddp"),
    (f"{ARGS}={{bucket_cap:1}}", f"{ARGS}.bucket_cap: is no option of ddp; did you mean 'bucket_cap_mb'?; allowed: "),
    (f"{ARGS}={{bucket_cap_mb:big}}", f"{ARGS}.bucket_cap_mb: must be a whole number (got 'big')"),
    (f"{ARGS}={{static_graph:1}}", f"{ARGS}.static_graph: must be true or false (got 1)"),
    (f"{ZERO} {ARGS}={{stage:3}}", f"{ARGS}.stage: must be one of 1, 2 (got 3)"),
    (f"{ZERO} {ARGS}={{max_norm:1}}", f"{ARGS}.max_norm: is set by training.clip_norm (got 1); write it there"),
    (f"{ZERO} {ARGS}={{precision:bf16}}", f"{ARGS}.precision: is set by training.precision (got 'bf16')"),
    (f"{GEMINI} {ARGS}={{memstats:1}}", f"{ARGS}.memstats: is not passed on; allowed: "),
    (GEMINI, "training.precision: does not go with gemini (got fp32); allowed: bf16 or fp16"),
    (f"{GEMINI} training.precision=bf16", "optimizer.name: does not go with gemini (got 'sgd'); allowed: HybridAdam, "),
    (f"{FSDP} training.precision=fp16", "training.precision: does not go with fsdp (got fp16); allowed: fp32 or bf16"),
    (f"{FSDP} training.decay_norms_and_biases=false", "training.decay_norms_and_biases: must be true with fsdp (got false)"),
    ("training.precision=fp16", "training.precision: needs GPUs (got fp16, gpus_per_worker is 0); on CPUs use bf16"),
    ("training.accumulate=5 batch_size=32", "batch_size: must be a multiple of training.accumulate 5 (got 32)"),
    ("scaling.workers_per_trial=2 scaling.gpus_per_worker=0.5", "scaling.gpus_per_worker: must be a whole number where"),
    (f"{HYBRID} {ARGS}={{tp_size:4}}", "scaling.workers_per_trial: must be a multiple of tp_size 4 (got 1)"),
    (f"{HYBRID} {ARGS}={{tp_size:0}}", f"{ARGS}.tp_size: must be at least 1 (got 0)"),
    (f"{HYBRID} {ARGS}={{zero_stage:1}}", "training.precision: must be bf16 or fp16 with zero_stage 1"),
    (f"{TWO} {ARGS}={{pp_size:2}}", f"{ARGS}.pp_size: needs num_microbatches or microbatch_size beside it (got 2)"),
    (f"{TWO} {ARGS}={{pp_size:2,num_microbatches:1}}", f"{ARGS}.num_microbatches: must be at least pp_size (got 1, pp_size"),
    (f"{TWO} {ARGS}={{pp_size:2,num_microbatches:2}} training.accumulate=2", "training.accumulate: must be 1 with a pipeline"),
    (f"{TWO} {ARGS}={{pp_size:2,num_microbatches:4}} batch_size=6", "batch_size: must be a multiple of num_microbatches 4"),
    (f"{TWO} {ARGS}={{sp_size:2}}", f"{ARGS}.sp_size: needs enable_sequence_parallelism: true beside it (got 2)"),
    (f"{HYBRID} {ARGS}={{enable_sequence_parallelism:true,sequence_parallelism_mode:ring}}", "needs a tp_size above 1 (got ring)"),
]  # fmt: skip


def configured(settings: str) -> Config:
    """SPACE with KEY.PATH=VALUE laid over it; a colon stands for one with a space behind it."""
    return parse_config(SPACE, overrides=[setting.replace(":", ": ") for setting in settings.split()])


@pytest.mark.parametrize(("settings", "expected"), REFUSED)
def test_what_does_not_fit_a_plugin_is_one_line(settings: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        configured(settings)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "settings",
    [
        f"{ARGS}={{find_unused_parameters:true}} training.precision=bf16 training.clip_norm=1",
        f"{ZERO} scaling.workers_per_trial=4 {ARGS}={{stage:2}} training.precision=fp16",
        f"{GEMINI} {ARGS}={{placement_policy:static}} training.precision=bf16 optimizer.name=hybridadam",
        f"{HYBRID} scaling.workers_per_trial=8 {ARGS}={{tp_size:2,pp_size:2,num_microbatches:4}} batch_size=16",
    ],
)
def test_what_fits_passes(settings: str) -> None:
    configured(settings)


def test_workers_are_cold_with_every_plugin_but_ddp_unless_said_otherwise() -> None:
    def cold(settings: str) -> bool:
        return task_of(configured(settings)).cold_workers

    assert (cold("seed=0"), cold(FSDP)) == (False, True)
    assert (cold("scaling.cold_workers=true"), cold(f"{FSDP} scaling.cold_workers=false")) == (True, False)


@pytest.mark.long
def test_cold_workers_give_the_curves_of_warm_ones(tmp_path: Path) -> None:
    """Bit for bit, in a study with every detail of training; each trial has processes of its own."""
    details = {"accumulate": 2, "clip_norm": 1.0, "precision": "bf16", "loader_workers": 1, "val_items": 50}
    lrs, decay = {"values": [0.01, 0.03]}, {"min": 0.0, "max": 0.1}
    space = {"lr": lrs, "lr_schedule": {"value": "cosine"}, "optimizer": {"weight_decay": decay}}
    seen = []
    for cold in (True, False):
        recorder = Recorder()
        scaling = {"max_concurrent": 1, "cold_workers": cold}
        study = toy(parameters=space, num_trials=3, training=details, scaling=scaling, confirm={"top": 0, "seeds": 1})
        outcome = run_study(tmp_path / f"{cold}", {**study, "pruner": {"name": "none"}}, recorder)
        assert outcome.failed == 0
        assert len(recorder.workers) == (3 if cold else 1)
        seen.append(curves(StudyDir(outcome.root), range(3)))
    assert seen[0] == seen[1]
    assert len({*seen[0]}) == 3
