"""torch's ReduceLROnPlateau, mended for metrics below zero.

With the threshold mode "rel" torch 2.5.1 calls a value better than the best one if it is below `best * (1 - threshold)`
(for "max", above `best * (1 + threshold)`). Where the best value is negative, that limit lies on the wrong side of it:
equal values count as better, so the LR never falls. Here the margin is `threshold * abs(best)`. For positive values
both rules are the same. tests/worker/compat/test_plateau.py shows both.
"""

from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau


class Plateau(ReduceLROnPlateau):
    """A ReduceLROnPlateau whose relative threshold is a share of the size of the best value."""

    def is_better(self, a: Any, best: Any) -> bool:
        """Return whether the value `a` is better than `best` by more than the threshold."""
        if self.threshold_mode != "rel" or abs(best) == float("inf"):
            return bool(super().is_better(a, best))  # type: ignore[no-untyped-call]
        margin = self.threshold * abs(best)
        return bool(a < best - margin) if self.mode == "min" else bool(a > best + margin)
