"""Everything that ColossalAI does here: joining the process group, and boosting a model by a plugin's name.

Importing this module imports ColossalAI (seconds): only workers do.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tune_lr.errors import InputError
from tune_lr.stand_ins import left_out

# What warns are its own dependencies: nothing that a user can act on. What is left out it needs for LoRA, quantization
# and 8-bit optimizers.
with warnings.catch_warnings(), left_out("peft", "bitsandbytes"):
    warnings.simplefilter("ignore")
    import colossalai
    from colossalai.accelerator import get_accelerator
    from colossalai.booster import Booster
    from colossalai.booster.plugin import TorchDDPPlugin
    from colossalai.booster.plugin.torch_ddp_plugin import TorchDDPModel
    from colossalai.interface import ModelWrapper, OptimizerWrapper
    from colossalai.logging import disable_existing_loggers
    from colossalai.nn import optimizer as optimizers


class CPUDDPPlugin(TorchDDPPlugin):  # type: ignore[misc]
    """DDP that leaves BatchNorm as it is: ColossalAI's own always converts to SyncBatchNorm, which wants a GPU.

    Each rank then normalises by its own part of the batch, as plain DDP does.
    """

    def configure(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        criterion: Any = None,
        dataloader: Any = None,
        lr_scheduler: Any = None,
    ) -> tuple[Any, ...]:
        wrapped = OptimizerWrapper(optimizer) if optimizer is not None else None
        return TorchDDPModel(model, **self.ddp_kwargs), wrapped, criterion, dataloader, lr_scheduler


# Each of these raised on a CPU when it was tried with colossalai 0.5.0.
GPU_PLUGINS = ("low_level_zero", "gemini", "fsdp", "hybrid_parallel")


def launch(rank: int, world_size: int, host: str, port: int) -> None:
    """Joins the process group (gloo on CPU, nccl on CUDA; ColossalAI decides by the accelerator)."""
    colossalai.launch(rank=rank, world_size=world_size, host=host, port=port, verbose=False)
    disable_existing_loggers()


def device() -> torch.device:
    return torch.device(get_accelerator().get_current_device())


def optimizer_class(name: str) -> type[Optimizer]:
    """One of ColossalAI's own optimizers, by the name of its class."""
    cls: type[Optimizer] = getattr(optimizers, name)
    return cls


def check_plugin(name: str, arguments: Mapping[str, Any]) -> None:
    """Raises InputError where this machine cannot serve the plugin. After `launch`: plugins want a process group."""
    if name in GPU_PLUGINS and not torch.cuda.is_available():
        raise InputError(f"scaling.plugin: {name!r} needs a GPU and this worker has none; on CPUs use 'ddp'")
    if name != "ddp":
        raise InputError(f"scaling.plugin: {name!r} is not supported by this version of tune-lr; use 'ddp'")
    try:
        _ddp(arguments)
    except TypeError as error:
        raise InputError(
            f"scaling.plugin_args: {error}; these are the arguments of ColossalAI's TorchDDPPlugin"
        ) from None


def _ddp(arguments: Mapping[str, Any]) -> TorchDDPPlugin:
    on_cpu = device().type == "cpu"
    return (CPUDDPPlugin if on_cpu else TorchDDPPlugin)(**arguments)


class Boosted:
    """A model and its optimizer under a ColossalAI plugin: forward, backward, update."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, plugin_args: Mapping[str, Any]) -> None:
        self._booster = Booster(plugin=_ddp(plugin_args))
        self.model: ModelWrapper
        self.model, self.optimizer, _, _, _ = self._booster.boost(model, optimizer)

    def backward(self, loss: Tensor) -> None:
        self._booster.backward(loss, self.optimizer)

    @property
    def inner(self) -> nn.Module:
        """The user's own module, without the wrapper: evaluating it needs no communication."""
        module: nn.Module = self.model.unwrap()
        return module
