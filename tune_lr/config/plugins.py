"""ColossalAI's plugins as far as they are known without ColossalAI: their options, and how they use a trial's workers.

Importing this module loads no torch, so that `tune-lr check` can refuse what does not fit. A test compares the options
with the plugins' own signatures.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from tune_lr.config.messages import shown
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


@dataclass(frozen=True)
class Layout:
    """How a trial's workers share the work: as many copies of the model (`data`), each split into so many parts."""

    data: int
    tensor: int = 1
    pipeline: int = 1
    sequence: int = 1
    stages_outside: bool = False  # the ranks of a pipeline stage follow each other; else those of a copy do

    def data_rank(self, rank: int) -> int:
        """Which copy a rank belongs to: the part of each batch that it sees."""
        inner = self.tensor * self.sequence
        return rank // inner % self.data if self.stages_outside else rank // (inner * self.pipeline)


def layout(plugin: str, options: Mapping[str, Any], workers: int) -> Layout:
    """Raises ValueError where the workers cannot be split so; the text stands behind `scaling.workers_per_trial`."""
    tensor, pipeline, sequence = options.get("tp_size", 1), options.get("pp_size", 1), 1
    if options.get("enable_sequence_parallelism") and options.get("sequence_parallelism_mode") not in _SHARE_TENSOR:
        sequence = options.get("sp_size", 1)
    copies = options.get("extra_dp_size", 1)
    sizes = {"tp_size": tensor, "pp_size": pipeline, "sp_size": sequence, "extra_dp_size": copies}
    product = tensor * pipeline * sequence * copies
    if workers % product:
        names = " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1)
        raise ValueError(f"must be a multiple of {names} (got {workers})")
    return Layout(
        workers // (tensor * pipeline * sequence), tensor, pipeline, sequence, not options.get("dp_outside", True)
    )


# Of sequence parallelism: the ranks that share a tensor share the sequence too.
_SHARE_TENSOR = ("split_gather", "ring")


def batch_divisor(shape: Layout, options: Mapping[str, Any], accumulate: int) -> tuple[int, str]:
    """What a global batch must be a multiple of, and what that is in the user's words."""
    factors = {"the copies of the model": shape.data}
    if shape.tensor * shape.pipeline * shape.sequence == 1:
        factors = {"scaling.workers_per_trial": shape.data}
    factors["training.accumulate"] = accumulate
    if shape.pipeline > 1:
        names = [name for name in ("num_microbatches", "microbatch_size") if name in options]
        factors.update({name: options[name] for name in names[:1]})
    named = [f"{name} {factor}" for name, factor in factors.items() if factor > 1]
    return prod(factors.values()), " x ".join(named)


def option_mistakes(plugin: str, options: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Options that the plugin does not have, values that they cannot have: (path below `scaling`, what is wrong)."""
    known = OPTIONS[plugin]
    for name, value in options.items():
        path = ("plugin_args", name)
        if name in SET_ELSEWHERE:
            yield path, f"is set by {SET_ELSEWHERE[name]} (got {shown(value)}); write it there"
        elif name not in known:
            why = "is not passed on" if name in NOT_PASSED_ON.get(plugin, ()) else f"is no option of {plugin}"
            yield path, f"{why}{suggestion(name, known)}; allowed: {', '.join(sorted(known))}"
        elif wanted := _wanted(value, known[name]):
            yield path, f"must be {wanted} (got {shown(value)})"
        elif name.endswith("_size") and value < 1:
            yield path, f"must be at least 1 (got {shown(value)})"


def _wanted(value: Any, kind: Kind) -> str:
    """What a value has to be, in words; "" where it is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(kind, tuple):
        right = any(value == word and type(value) is type(word) for word in kind)
        return "" if right else f"one of {', '.join(map(str, kind))}"
    if kind is bool:
        return "" if isinstance(value, bool) else "true or false"
    if kind is int:
        return "" if number and isinstance(value, int) else "a whole number"
    return "" if number else "a number"


def plugin_mistakes(
    plugin: str,
    options: Mapping[str, Any],
    *,
    workers: int,
    gpus_per_worker: float,
    precision: str,
    accumulate: int,
    optimizers: Mapping[tuple[str | int, ...], str],
    decay_all: bool,
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What does not fit the plugin, as (path in the YAML, what is wrong); `options` themselves are right. `optimizers`
    are by their paths."""
    if plugin != "ddp" and not gpus_per_worker:
        yield ("scaling", "plugin"), f"needs GPUs (got {plugin}, gpus_per_worker is 0); on CPUs use ddp"
    if 0 < gpus_per_worker < 1 and workers > 1:
        what = f"must be a whole number where a trial has several workers (got {gpus_per_worker:g}): NCCL gives each "
        yield ("scaling", "gpus_per_worker"), f"{what}its own GPU"
    if precision == "fp16" and not gpus_per_worker:
        yield ("training", "precision"), "needs GPUs (got fp16, gpus_per_worker is 0); on CPUs use bf16 or fp32"
    if precision not in PRECISIONS[plugin]:
        allowed = " or ".join(PRECISIONS[plugin])
        yield ("training", "precision"), f"does not go with {plugin} (got {precision}); allowed: {allowed}"
    if options.get("zero_stage") and precision == "fp32":
        what = f"must be bf16 or fp16 with zero_stage {options['zero_stage']} of hybrid_parallel (got fp32)"
        yield ("training", "precision"), what
    for path, optimizer in optimizers.items() if plugin == "gemini" else ():
        if optimizer.lower() not in map(str.lower, GEMINI_OPTIMIZERS):
            yield path, f"does not go with gemini (got {shown(optimizer)}); allowed: {', '.join(GEMINI_OPTIMIZERS)}"
    if plugin == "fsdp" and not decay_all:
        what = "must be true with fsdp (got false): ColossalAI's plugin keeps one group of parameters"
        yield ("training", "decay_norms_and_biases"), what
    try:
        layout(plugin, options, workers)
    except ValueError as error:
        yield ("scaling", "workers_per_trial"), str(error)
    yield from _parallel_mistakes(options, accumulate)


def _parallel_mistakes(options: Mapping[str, Any], accumulate: int) -> Iterator[tuple[tuple[str, ...], str]]:
    tensor, pipeline, sequence = (options.get(name, 1) for name in ("tp_size", "pp_size", "sp_size"))
    if pipeline > 1:
        micro = options.get("num_microbatches")
        if micro is None and "microbatch_size" not in options:
            what = f"needs num_microbatches or microbatch_size beside it (got {pipeline})"
            yield ("scaling", "plugin_args", "pp_size"), what
        if micro is not None and micro < pipeline:
            what = f"must be at least pp_size (got {micro}, pp_size is {pipeline})"
            yield ("scaling", "plugin_args", "num_microbatches"), what
        if accumulate > 1:
            what = f"must be 1 with a pipeline (got {accumulate}), which splits its batches by num_microbatches"
            yield ("training", "accumulate"), what
        if options.get("zero_stage") == 2:
            yield ("scaling", "plugin_args", "zero_stage"), "must be 0 or 1 with a pipeline (got 2)"
    mode = options.get("sequence_parallelism_mode")
    if sequence > 1 and not options.get("enable_sequence_parallelism"):
        what = f"needs enable_sequence_parallelism: true beside it (got {sequence})"
        yield ("scaling", "plugin_args", "sp_size"), what
    elif sequence > 1 and mode in _SHARE_TENSOR:
        what = f"must be left out with {mode} (got {sequence}), which splits a sequence by tp_size"
        yield ("scaling", "plugin_args", "sp_size"), what
    if options.get("enable_sequence_parallelism") and mode in _SHARE_TENSOR and tensor == 1:
        yield ("scaling", "plugin_args", "sequence_parallelism_mode"), f"needs a tp_size above 1 (got {mode})"
