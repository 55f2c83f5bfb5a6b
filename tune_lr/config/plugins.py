"""ColossalAI's plugins, as far as they are known without ColossalAI: their options, and how they use a trial's workers.

To add a plugin, write its options and its precisions here, its name into `config.training.Scaling.plugin`, and how it
is built into `worker.colossal`, where `Boosted` says how the plugins differ in an update. Checkpoints are for ddp alone
(`run`); with other plugins the workers are started anew for each trial, unless `scaling.cold_workers` is false.

Importing this module loads no torch, so that `tune-lr check` can refuse what does not fit. A test compares the options
with the plugins' own signatures.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from tune_lr.config.messages import FieldPath, Issue, shown
from tune_lr.errors import suggestion

DTYPES = ("fp32", "bf16", "fp16")
# What a value of an option has to be: true or false, a whole number, a number, or one of these words or numbers.
Kind = type | tuple[str | int, ...]
_SCALER: dict[str, Kind] = {  # of the gradients' scale in fp16
    "initial_scale": float,
    "min_scale": float,
    "growth_factor": float,
    "backoff_factor": float,
    "growth_interval": int,
    "hysteresis": int,
    "max_scale": float,
}
_DDP: dict[str, Kind] = {
    "broadcast_buffers": bool,
    "find_unused_parameters": bool,
    "check_reduction": bool,
    "gradient_as_bucket_view": bool,
    "static_graph": bool,
}
_SHARDFORMER: dict[str, Kind] = {
    "enable_all_optimization": bool,
    "enable_fused_normalization": bool,
    "enable_flash_attention": bool,
    "enable_jit_fused": bool,
    "enable_sequence_parallelism": bool,
}
# Each plugin's options, of those that a YAML can say.
OPTIONS: dict[str, dict[str, Kind]] = {
    "ddp": {**_DDP, "bucket_cap_mb": int, "fp8_communication": bool},
    "low_level_zero": {
        "stage": (1, 2),
        **_SCALER,
        "reduce_bucket_size_in_m": int,
        "communication_dtype": DTYPES,
        "overlap_communication": bool,
        "overlap_allgather": bool,
        "cpu_offload": bool,
        "master_weights": bool,
        "verbose": bool,
        "cast_inputs": bool,
        "fp8_communication": bool,
        "use_fp8": bool,
        "extra_dp_size": int,
    },
    "gemini": {
        "placement_policy": ("static", "auto"),
        "max_prefetch": int,
        "shard_param_frac": float,
        "offload_optim_frac": float,
        "offload_param_frac": float,
        "warmup_non_model_data_ratio": float,
        "steady_cuda_cap_ratio": float,
        "master_weights": bool,
        "pin_memory": bool,
        "force_outputs_fp32": bool,
        "strict_ddp_mode": bool,
        "search_range_m": int,
        "hidden_dim": int,
        "min_chunk_size_m": float,
        "gpu_margin_mem_ratio": float,
        **_SCALER,
        "tp_size": int,
        "extra_dp_size": int,
        **_SHARDFORMER,
        "enable_async_reduce": bool,
        "use_fp8": bool,
        "verbose": bool,
        "fp8_communication": bool,
    },
    "fsdp": {
        "sharding_strategy": ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD", "_HYBRID_SHARD_ZERO2"),
        "cpu_offload": bool,
        "backward_prefetch": ("BACKWARD_PRE", "BACKWARD_POST"),
        "sync_module_states": bool,
        "fp8_communication": bool,
    },
    "hybrid_parallel": {
        "tp_size": int,
        "pp_size": int,
        "sp_size": int,
        "zero_stage": (0, 1, 2),
        **_SHARDFORMER,
        "sequence_parallelism_mode": ("split_gather", "ring", "all_to_all", "ring_attn"),
        "parallel_output": bool,
        "num_microbatches": int,
        "microbatch_size": int,
        **_SCALER,
        **_DDP,
        "ddp_bucket_cap_mb": int,
        "zero_bucket_size_in_m": int,
        "cpu_offload": bool,
        "communication_dtype": DTYPES,
        "overlap_communication": bool,
        "pp_style": ("1f1b", "interleaved"),
        "num_model_chunks": int,
        "enable_metadata_cache": bool,
        "make_vocab_size_divisible_by": int,
        "dp_outside": bool,
        "overlap_p2p": bool,
        "overlap_allgather": bool,
        "fp8_communication": bool,
        "use_fp8": bool,
        "inner_ring_size": int,
    },
}
# Options that other fields of the YAML set.
SET_ELSEWHERE = {
    "precision": "training.precision",
    "mixed_precision": "training.precision",
    "max_norm": "training.clip_norm",
    "enable_gradient_accumulation": "training.accumulate",
}
# The other arguments of the plugins: objects of Python, which a YAML cannot say, and what nothing here needs.
NOT_PASSED_ON = {
    "low_level_zero": {"norm_type"},
    "gemini": {"chunk_config_dict", "chunk_init_device", "memstats", "norm_type"},
    "fsdp": {"process_group", "auto_wrap_policy", "ignored_modules", "param_init_fn"},
    "hybrid_parallel": {"custom_policy", "scheduler_nodes", "num_layers_per_stage", "gradient_checkpoint_config"},
}
PRECISIONS = {
    "ddp": DTYPES,
    "low_level_zero": DTYPES,
    "gemini": ("bf16", "fp16"),
    "fsdp": ("fp32", "bf16"),  # ColossalAI's wrapper has no scale for the gradients of fp16
    "hybrid_parallel": DTYPES,
}
# ColossalAI's own, which alone know the memory that Gemini manages.
GEMINI_OPTIMIZERS = ("HybridAdam", "FusedAdam", "CPUAdam")


# The modes of sequence parallelism in which the ranks that share a tensor share the sequence too.
_SHARE_TENSOR = ("split_gather", "ring")


@dataclass(frozen=True)
class Layout:
    """How a trial's workers share the work.

    There are `data` copies of the model, each split into so many parts by tensor, pipeline and sequence parallelism.
    With `stages_outside` the ranks of a pipeline stage follow each other, without it those of a copy do.
    """

    data: int
    tensor: int = 1
    pipeline: int = 1
    sequence: int = 1
    stages_outside: bool = False

    def data_rank(self, rank: int) -> int:
        """Return which copy a rank belongs to, and so which part of each batch it sees."""
        inner = self.tensor * self.sequence
        return rank // inner % self.data if self.stages_outside else rank // (inner * self.pipeline)


def layout(options: Mapping[str, Any], workers: int) -> Layout:
    """Return how the workers of a trial share the work under the plugin's options.

    Raises ValueError if the workers cannot be split so. Its text follows the name of `scaling.workers_per_trial`.
    """
    tensor = options.get("tp_size", 1)
    pipeline = options.get("pp_size", 1)
    sequence = 1
    if options.get("enable_sequence_parallelism") and options.get("sequence_parallelism_mode") not in _SHARE_TENSOR:
        sequence = options.get("sp_size", 1)
    copies = options.get("extra_dp_size", 1)
    sizes = {"tp_size": tensor, "pp_size": pipeline, "sp_size": sequence, "extra_dp_size": copies}
    product = tensor * pipeline * sequence * copies
    if workers % product:
        names = " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1)
        raise ValueError(f"must be a multiple of {names} (got {workers})")
    data = workers // (tensor * pipeline * sequence)
    return Layout(data, tensor, pipeline, sequence, stages_outside=not options.get("dp_outside", True))


def batch_divisor(shape: Layout, options: Mapping[str, Any], accumulate: int) -> tuple[int, str]:
    """Return what a global batch must be a multiple of, and what that is in the user's words."""
    factors = {"the copies of the model": shape.data}
    if shape.tensor * shape.pipeline * shape.sequence == 1:
        factors = {"scaling.workers_per_trial": shape.data}
    factors["training.accumulate"] = accumulate
    if shape.pipeline > 1:
        names = [name for name in ("num_microbatches", "microbatch_size") if name in options]
        factors.update({name: options[name] for name in names[:1]})
    named = [f"{name} {factor}" for name, factor in factors.items() if factor > 1]
    return prod(factors.values()), " x ".join(named)


def option_issues(plugin: str, options: Mapping[str, Any]) -> Iterator[Issue]:
    """Yield options that the plugin does not have, and values that its options cannot have."""
    known = OPTIONS[plugin]
    for name, value in options.items():
        path: FieldPath = ("scaling", "plugin_args", name)
        if name in SET_ELSEWHERE:
            yield Issue(path, f"is set by {SET_ELSEWHERE[name]} (got {shown(value)}); write it there")
        elif name not in known:
            why = "is not passed on" if name in NOT_PASSED_ON.get(plugin, ()) else f"is no option of {plugin}"
            yield Issue(path, f"{why}{suggestion(name, known)}; allowed: {', '.join(sorted(known))}")
        elif wanted := _wanted(value, known[name]):
            yield Issue(path, f"must be {wanted} (got {shown(value)})")
        elif name.endswith("_size") and value < 1:
            yield Issue(path, f"must be at least 1 (got {shown(value)})")


def _wanted(value: object, kind: Kind) -> str:
    """Return what a value of that kind has to be, in words, or "" if the value is one."""
    if isinstance(kind, tuple):
        is_word = any(value == word and type(value) is type(word) for word in kind)
        return "" if is_word else f"one of {', '.join(map(str, kind))}"
    if kind is bool:
        return "" if isinstance(value, bool) else "true or false"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return "" if is_number and isinstance(value, int) else "a whole number"
    return "" if is_number else "a number"


def plugin_issues(
    plugin: str,
    options: Mapping[str, Any],
    *,
    workers: int,
    gpus_per_worker: float,
    precision: str,
    accumulate: int,
    optimizers: Mapping[FieldPath, str],
    decay_all: bool,
) -> Iterator[Issue]:
    """Yield what does not fit the plugin. `options` are right by themselves; `optimizers` are by their paths."""
    if plugin != "ddp" and not gpus_per_worker:
        yield Issue(("scaling", "plugin"), f"needs GPUs (got {plugin}, gpus_per_worker is 0); on CPUs use ddp")
    if 0 < gpus_per_worker < 1 and workers > 1:
        what = f"must be a whole number where a trial has several workers (got {gpus_per_worker:g})"
        yield Issue(("scaling", "gpus_per_worker"), f"{what}: NCCL gives each its own GPU")
    yield from _precision_issues(plugin, options, gpus_per_worker, precision)
    for path, optimizer in optimizers.items() if plugin == "gemini" else ():
        if optimizer.lower() not in map(str.lower, GEMINI_OPTIMIZERS):
            allowed = ", ".join(GEMINI_OPTIMIZERS)
            yield Issue(path, f"does not go with gemini (got {shown(optimizer)}); allowed: {allowed}")
    if plugin == "fsdp" and not decay_all:
        what = "must be true with fsdp (got false): ColossalAI's plugin keeps one group of parameters"
        yield Issue(("training", "decay_norms_and_biases"), what)
    try:
        layout(options, workers)
    except ValueError as error:
        yield Issue(("scaling", "workers_per_trial"), str(error))
    yield from _pipeline_issues(options, accumulate)
    yield from _sequence_issues(options)


def _precision_issues(
    plugin: str, options: Mapping[str, Any], gpus_per_worker: float, precision: str
) -> Iterator[Issue]:
    path: FieldPath = ("training", "precision")
    if precision == "fp16" and not gpus_per_worker:
        yield Issue(path, "needs GPUs (got fp16, gpus_per_worker is 0); on CPUs use bf16 or fp32")
    if precision not in PRECISIONS[plugin]:
        allowed = " or ".join(PRECISIONS[plugin])
        yield Issue(path, f"does not go with {plugin} (got {precision}); allowed: {allowed}")
    zero_stage = options.get("zero_stage")
    if zero_stage and precision == "fp32":
        yield Issue(path, f"must be bf16 or fp16 with zero_stage {zero_stage} of hybrid_parallel (got fp32)")


def _pipeline_issues(options: Mapping[str, Any], accumulate: int) -> Iterator[Issue]:
    stages = options.get("pp_size", 1)
    if stages <= 1:
        return
    microbatches = options.get("num_microbatches")
    if microbatches is None and "microbatch_size" not in options:
        what = f"needs num_microbatches or microbatch_size beside it (got {stages})"
        yield Issue(("scaling", "plugin_args", "pp_size"), what)
    if microbatches is not None and microbatches < stages:
        what = f"must be at least pp_size (got {microbatches}, pp_size is {stages})"
        yield Issue(("scaling", "plugin_args", "num_microbatches"), what)
    if accumulate > 1:
        what = f"must be 1 with a pipeline (got {accumulate}), which splits its batches by num_microbatches"
        yield Issue(("training", "accumulate"), what)
    if options.get("zero_stage") == 2:
        yield Issue(("scaling", "plugin_args", "zero_stage"), "must be 0 or 1 with a pipeline (got 2)")


def _sequence_issues(options: Mapping[str, Any]) -> Iterator[Issue]:
    size = options.get("sp_size", 1)
    mode = options.get("sequence_parallelism_mode")
    enabled = options.get("enable_sequence_parallelism")
    path: FieldPath = ("scaling", "plugin_args", "sp_size")
    if size > 1 and not enabled:
        yield Issue(path, f"needs enable_sequence_parallelism: true beside it (got {size})")
    elif size > 1 and mode in _SHARE_TENSOR:
        yield Issue(path, f"must be left out with {mode} (got {size}), which splits a sequence by tp_size")
    if enabled and mode in _SHARE_TENSOR and options.get("tp_size", 1) == 1:
        mode_path: FieldPath = ("scaling", "plugin_args", "sequence_parallelism_mode")
        yield Issue(mode_path, f"needs a tp_size above 1 (got {mode})")
