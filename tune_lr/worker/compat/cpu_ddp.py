"""ColossalAI's DDP plugin cannot boost a model with BatchNorm on a CPU: here is one that can.

TorchDDPPlugin of colossalai 0.5.0 always converts BatchNorm to SyncBatchNorm, which wants a GPU.
tests/worker/test_training.py shows it: test_batch_norm_trains_on_a_cpu_and_stays_batch_norm.

This module imports ColossalAI; `tune_lr.worker.colossal` imports it in the light way (see unused_imports.py).
"""

from typing import Any

from colossalai.booster.plugin import TorchDDPPlugin
from colossalai.booster.plugin.torch_ddp_plugin import TorchDDPModel
from colossalai.interface import OptimizerWrapper
from torch import nn
from torch.optim import Optimizer

from tune_lr.worker.exchange import exchange_in_memory


class CPUDDPPlugin(TorchDDPPlugin):  # type: ignore[misc]
    """DDP that leaves BatchNorm as it is: ColossalAI's own always converts to SyncBatchNorm, which wants a GPU.

    Each rank then normalises by its own part of the batch, as plain DDP does. Ranks of one machine exchange gradients
    through its memory.
    """

    def configure(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        criterion: Any = None,
        dataloader: Any = None,
        lr_scheduler: Any = None,
    ) -> tuple[Any, ...]:
        """Wrap the model as the parent class does, but keep BatchNorm layers as they are on a CPU."""
        wrapped = OptimizerWrapper(optimizer) if optimizer is not None else None
        # What is no part of the model's state, the causal mask of a transformer say, is the same on all ranks.
        state = model.state_dict()
        self.ddp_kwargs["broadcast_buffers"] &= any(name in state for name, _ in model.named_buffers())
        boosted = TorchDDPModel(model, **self.ddp_kwargs)
        exchange_in_memory(boosted.module)
        return boosted, wrapped, criterion, dataloader, lr_scheduler
