"""Everything that ColossalAI does here: joining the process group, and boosting a model by a plugin's name.

`config.plugins` says what a new plugin needs. Importing this module imports ColossalAI (seconds): only workers do.
"""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import BackwardPrefetch, CPUOffload, MixedPrecision, ShardingStrategy
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from tune_lr.config.optimizers import CUDA_ONLY
from tune_lr.config.plugins import DTYPES
from tune_lr.config.task import Task
from tune_lr.errors import InputError, one_line
from tune_lr.worker.compat.contiguous import make_contiguous
from tune_lr.worker.compat.kernel_builds import forget_abandoned_build
from tune_lr.worker.compat.late_compile import compiled_when_called
from tune_lr.worker.compat.unused_imports import left_out
from tune_lr.worker.whole_forward import WholeForward
from tune_lr.workloads import Workload, outputs_of

if TYPE_CHECKING:
    from colossalai.interface import ModelWrapper
    from torch.amp.grad_scaler import GradScaler

# ColossalAI's own dependencies warn while they are imported; a user can do nothing about that.
with warnings.catch_warnings(), left_out("peft", "bitsandbytes"), compiled_when_called():
    warnings.simplefilter("ignore")
    import colossalai
    from colossalai.accelerator import get_accelerator
    from colossalai.booster import Booster
    from colossalai.booster.mixed_precision.fp16_torch import TorchAMPOptimizer
    from colossalai.booster.plugin import (
        GeminiPlugin,
        HybridParallelPlugin,
        LowLevelZeroPlugin,
        TorchDDPPlugin,
        TorchFSDPPlugin,
    )
    from colossalai.kernel.extensions.base_extension import _Extension
    from colossalai.logging import disable_existing_loggers
    from colossalai.nn import optimizer as optimizers

    from tune_lr.worker.compat.cpu_ddp import CPUDDPPlugin
    from tune_lr.worker.compat.sequence_parallel import share_biases


PLUGINS = {
    "ddp": TorchDDPPlugin,
    "low_level_zero": LowLevelZeroPlugin,
    "gemini": GeminiPlugin,
    "fsdp": TorchFSDPPlugin,
    "hybrid_parallel": HybridParallelPlugin,
}
_DTYPES = dict(zip(DTYPES, (torch.float32, torch.bfloat16, torch.float16), strict=True))


def launch(rank: int, world_size: int, host: str, port: int) -> None:
    """Joins the process group (gloo on CPU, nccl on CUDA; ColossalAI decides by the accelerator)."""
    colossalai.launch(rank=rank, world_size=world_size, host=host, port=port, verbose=False)
    disable_existing_loggers()


def device() -> torch.device:
    """Return the device that this process trains on."""
    return torch.device(get_accelerator().get_current_device())


def optimizer_class(name: str) -> type[Optimizer]:
    """One of ColossalAI's own optimizers, by the name of its class."""
    if name in CUDA_ONLY:
        forget_abandoned_build(Path(_Extension.get_jit_extension_folder_path()))
    cls: type[Optimizer] = getattr(optimizers, name)
    return cls


def check_plugin(task: Task) -> None:
    """Raises InputError where this machine cannot serve the plugin or the precision. After `launch`: plugins want a
    process group."""
    if (
        task.scaling.plugin != "ddp" and not torch.cuda.is_available()
    ):  # each of them raised on a CPU with colossalai 0.5.0
        raise InputError(
            f"scaling.plugin: {task.scaling.plugin!r} needs a GPU and this worker has none; on CPUs use 'ddp'"
        )
    if task.training.precision == "fp16" and not torch.cuda.is_available():
        raise InputError("training.precision: fp16 needs a GPU and this worker has none; on CPUs use bf16 or fp32")
    try:
        _plugin(task)
    except (AssertionError, TypeError, ValueError) as error:
        what = f"ColossalAI's {PLUGINS[task.scaling.plugin].__name__} refuses them: {one_line(error)}"
        raise InputError(f"scaling.plugin_args: {what} (got {dict(task.scaling.plugin_args)!r})") from None


def _plugin(task: Task) -> Any:
    """The plugin, with the precision and the clipping of the task put as each of them wants it."""
    options = dict(task.scaling.plugin_args)
    if "communication_dtype" in options:
        options["communication_dtype"] = _DTYPES[options["communication_dtype"]]
    if task.scaling.plugin == "ddp":
        options = {"gradient_as_bucket_view": True, **options}  # saves a copy of the gradients
        return (CPUDDPPlugin if device().type == "cpu" else TorchDDPPlugin)(**options)
    if task.scaling.plugin == "fsdp":
        return TorchFSDPPlugin(**_of_fsdp(options, _DTYPES[task.training.precision]))
    if task.scaling.plugin == "low_level_zero" and task.training.precision == "fp16":
        options.setdefault("initial_scale", 2.0**16)  # as torch's; from its own, 2**32, it skips 15 steps and more
    if task.scaling.plugin == "gemini" and task.training.accumulate > 1:
        options["enable_gradient_accumulation"] = True
    if task.scaling.plugin == "hybrid_parallel":
        options = {"tp_size": 1, "pp_size": 1, **options}
        # With whole tensors it changes nothing but that ColossalAI's own forward takes the place of the model's.
        options.setdefault("parallel_output", options["tp_size"] > 1)
    return PLUGINS[task.scaling.plugin](
        precision=task.training.precision, max_norm=task.training.clip_norm or 0.0, **options
    )


def _of_fsdp(options: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The options of FSDP that a YAML names, as the objects that they stand for."""
    made: dict[str, Callable[[Any], Any]] = {
        "sharding_strategy": lambda name: ShardingStrategy[name],
        "backward_prefetch": lambda name: BackwardPrefetch[name],
        "cpu_offload": lambda on: CPUOffload(offload_params=on),
    }
    options = {name: made[name](value) if name in made else value for name, value in options.items()}
    if dtype is not torch.float32:
        options["mixed_precision"] = MixedPrecision(param_dtype=dtype, reduce_dtype=dtype, buffer_dtype=dtype)
    return options


class Boosted:
    """A model and its optimizer under a ColossalAI plugin: forward, backward, update.

    Raises InputError where the plugin refuses the model or the optimizer.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, task: Task, workload: Workload) -> None:
        self._task, self._plugin, self._workload = task, _plugin(task), workload
        whole = task.scaling.plugin == "ddp"
        self._booster = Booster(plugin=self._plugin)
        if task.scaling.plugin not in (
            "ddp",
            "fsdp",
        ):  # the others cut parameters as they lie in memory into flat parts
            make_contiguous(model)
        self.model: ModelWrapper
        try:
            wrapped = WholeForward(model, workload) if whole else model
            self.model, self.optimizer, _, _, _ = self._booster.boost(wrapped, optimizer)
        except (AssertionError, NotImplementedError, TypeError, ValueError) as error:
            if task.scaling.plugin == "ddp":
                raise
            what = f"{task.scaling.plugin!r} refuses this model or its optimizer: {one_line(error)}"
            raise InputError(f"scaling.plugin: {what}") from None
        if task.scaling.plugin == "hybrid_parallel":
            share_biases(self.model)
        # With ddp ranks hold whole models, and the precision is torch's autocast: ColossalAI's own bf16 is an abstract
        # class, its fp16 leaves the criterion out. The other plugins hold parts of models, in that precision.
        self.whole = whole
        self._autocast = self.whole and task.training.precision != "fp32"
        self.scaler: GradScaler | None = None  # of fp16: finds the scale at which no gradient overflows
        if self._autocast and task.training.precision == "fp16":
            self.optimizer = TorchAMPOptimizer(self.optimizer.optim)
            self.scaler = self.optimizer.scaler

    def precision(self) -> AbstractContextManager[Any]:
        """The model, the criterion and the metrics are computed in it."""
        if not self._autocast:
            return nullcontext()
        return torch.autocast(device().type, _DTYPES[self._task.training.precision])

    def in_fp32(self, outputs: Any) -> Any:
        """A model's outputs, fit for a criterion: a loss of 8 bits could not be compared."""
        if self.whole or self._task.training.precision == "fp32":
            return outputs
        return tree_map(lambda x: x.float() if isinstance(x, Tensor) and x.is_floating_point() else x, outputs)

    def more_to_come(self) -> AbstractContextManager[Any]:
        """For all but the last micro-batch: its gradients are added up, not yet exchanged, where the plugin can."""
        zero2 = self._task.scaling.plugin_args.get("zero_stage") == 2
        if zero2 or not self._plugin.support_no_sync():
            return nullcontext()
        context: AbstractContextManager[Any] = self._booster.no_sync(self.model, self.optimizer)
        return context

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those of the model."""
        self._booster.backward(loss, self.optimizer)

    def run_pipeline(self, batch: Any, criterion: Callable[[Any, Any], Tensor]) -> Tensor | None:
        """Forward and backward of a batch through all stages; its loss on the last one, None on the others."""
        result = self._booster.execute_pipeline(iter([batch]), self.model, criterion, self.optimizer)
        loss: Tensor | None = result["loss"]
        return loss

    def look_through_pipeline(self, batch: Any, criterion: Callable[[Any, Any], Tensor]) -> None:
        """Forward alone; `criterion` is called on the last stage, once a micro-batch. Under `torch.no_grad`."""
        with self.model.no_sync():  # else it would add up gradients of shared parameters, and there are none
            self._booster.execute_pipeline(iter([batch]), self.model, criterion)

    def update(self) -> None:
        """One optimizer step. The other plugins clip by themselves, in the step."""
        clip = self._task.training.clip_norm
        if clip is not None and self._task.scaling.plugin == "ddp":
            self.optimizer.clip_grad_by_norm(clip)
        elif clip is not None and self._task.scaling.plugin == "fsdp":
            self.model.module.clip_grad_norm_(clip)  # FSDP's own: a rank sees only its part of the gradients
        self.optimizer.step()
        self.optimizer.zero_grad()

    def outputs(self, batch: Any) -> Any:
        """Return the outputs of the wrapped model for a batch."""
        if self.whole:
            try:
                return self.in_fp32(self.model(batch))
            except RuntimeError as error:
                if "Expected to have finished reduction" not in str(error):
                    raise
                raise InputError(
                    "scaling.plugin_args: the step before left some of the model's parameters without a gradient, as "
                    "layers do that are dropped at random; write scaling.plugin_args: {find_unused_parameters: true} "
                    f"(torch says: {' '.join(str(error).split())})"
                ) from None
        return self.in_fp32(outputs_of(self._workload, self.model, batch))

    def outputs_in_validation(self, batch: Any) -> Any:
        """Return the same without gradients. With ddp that needs no communication, so ranks may differ in batches."""
        return self.in_fp32(outputs_of(self._workload, self.inner if self.whole else self.model, batch))

    @property
    def inner(self) -> nn.Module:
        """The user's own module, without wrappers.

        ColossalAI's own `unwrap` returns a model of PEFT's in a thing that lacks a module's methods.
        """
        module: nn.Module = self.model.module.module.model if self.whole else self.model.unwrap()
        return module

    def save(self, path: Path) -> None:
        """Writes the whole model's weights, gathered from all ranks, each of which calls this."""
        self._booster.save_model(self.model, str(path), shard=False, use_safetensors=True)

    def load(self, path: Path) -> None:
        """Reads what `save` wrote; each rank calls this."""
        self._booster.load_model(self.model, str(path))
