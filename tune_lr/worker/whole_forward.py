"""The module that DDP wraps: its forward is the workload's, so that all of it runs inside DDP's own forward.

DDP prepares the exchange of gradients in its `forward`, and has none of the model's other methods and attributes. A
workload's `forward` may call any of them. It gets the model itself here, in training, in validation and on test data.
"""

from torch import nn

from tune_lr.workloads import Batch, Outputs, Workload, outputs_of


class WholeForward(nn.Module):
    """A model together with what the workload does with it and a batch."""

    def __init__(self, model: nn.Module, workload: Workload) -> None:
        super().__init__()
        self.model = model
        self._workload = workload

    def forward(self, batch: Batch) -> Outputs:
        """Return the model's outputs for a batch."""
        return outputs_of(self._workload, self.model, batch)
