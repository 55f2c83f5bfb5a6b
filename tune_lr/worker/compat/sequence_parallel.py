"""ColossalAI forgets biases where the sequence is split over ranks: here their gradients are summed too.

With sequence parallelism colossalai 0.5.0 sums the gradients of norms over the ranks, but not those of biases that are
added to a rank's part of the sequence: each rank's biases would go their own way. tests/worker/compat/
test_sequence_parallel.py shows which biases are marked; tests/worker/test_gpu.py trains with them.

This module imports ColossalAI; `tune_lr.worker.colossal` imports it in the light way (see unused_imports.py).
"""

from colossalai.shardformer.layer import FusedLinear1D_Row, GPT2FusedLinearConv1D_Row, Linear1D_Row
from colossalai.shardformer.layer.utils import SeqParallelUtils, is_share_sp_tp
from torch import nn


def share_biases(model: nn.Module) -> None:
    """Mark the biases that are added to a rank's part of the sequence: their gradients are then summed over ranks."""
    for module in model.modules():
        if not isinstance(module, Linear1D_Row | GPT2FusedLinearConv1D_Row | FusedLinear1D_Row):
            continue
        if is_share_sp_tp(module.seq_parallel_mode) and module.bias is not None:
            SeqParallelUtils.marked_as_sp_partial_derived_param(module.bias)
