"""Find the learning rate and the LR schedule that train your model best, and know how sure you can be."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune_lr.lr_range_test import LRBounds as LRBounds
    from tune_lr.lr_range_test import find_lr_bounds as find_lr_bounds
    from tune_lr.workloads import Workload as Workload

__all__ = ["LRBounds", "Workload", "find_lr_bounds"]

_HOME = {
    "LRBounds": "tune_lr.lr_range_test",
    "Workload": "tune_lr.workloads",
    "find_lr_bounds": "tune_lr.lr_range_test",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: the command line must start without torch."""
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
