"""torch changes an optimizer's state when it loads it: here it is taken as it is.

`Optimizer.load_state_dict` of torch 2.5.1 casts the state to the type of the parameters and forgets its memory layout,
so that a trial that goes on from a checkpoint would not equal the one that never stopped.
tests/worker/compat/test_optimizer_state.py shows both ways.
"""

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer


def restore_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Put what `state_dict` has returned into an optimizer of the same kind."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.state.clear()
    for index, entry in state["state"].items():
        optimizer.state[parameters[index]] = entry
    for group, settings in zip(optimizer.param_groups, state["param_groups"], strict=True):
        group.update({key: value for key, value in settings.items() if key != "params"})
