"""Which biases are marked, so that ColossalAI sums their gradients over the ranks of a split sequence."""

from typing import Any

import pytest
import torch

from tune_lr.worker import colossal  # noqa: F401 - it imports ColossalAI in the light way
from tune_lr.worker.compat.sequence_parallel import share_biases


@pytest.mark.parametrize("mode", ["split_gather", "ring", "all_to_all", None])
def test_biases_of_a_split_sequence_are_summed_over_its_ranks(mode: str | None) -> None:
    from colossalai.shardformer.layer import Linear1D_Row
    from colossalai.shardformer.layer.utils import SeqParallelUtils

    def row(bias: torch.nn.Parameter | None) -> Any:
        """A layer without what its constructor asks of a GPU."""
        layer: Any = Linear1D_Row.__new__(Linear1D_Row)
        torch.nn.Module.__init__(layer)
        layer.seq_parallel_mode, layer.bias, layer.weight = mode, bias, torch.nn.Parameter(torch.ones(2, 2))
        return layer

    layer, plain = row(torch.nn.Parameter(torch.ones(2))), torch.nn.Linear(2, 2)
    share_biases(torch.nn.Sequential(layer, row(None), plain))
    summed = {name for name, one in layer.named_parameters() if SeqParallelUtils.is_sp_partial_derived_param(one)}
    assert summed == ({"bias"} if mode in ("split_gather", "ring") else set())
    assert not SeqParallelUtils.is_sp_partial_derived_param(plain.bias)
