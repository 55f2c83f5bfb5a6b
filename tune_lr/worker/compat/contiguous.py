"""ColossalAI's sharding plugins refuse weights whose channels are last: here all weights are made contiguous first.

The plugins of colossalai 0.5.0 other than DDP and FSDP cut parameters, as they lie in memory, into flat parts.
LowLevelZero refuses a parameter that does not lie there in the order of its indices, as those of LeNet-5.
tests/worker/test_gpu.py trains one that way: "low_level_zero, channels last".
"""

from torch import nn


def make_contiguous(model: nn.Module) -> None:
    """Give every parameter the default memory layout; its values stay."""
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
