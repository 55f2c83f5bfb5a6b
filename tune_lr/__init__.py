"""Find the learning rate and the LR schedule that train your model best, and know how sure you can be."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune_lr.api import StudyResult as StudyResult
    from tune_lr.api import range_test as range_test
    from tune_lr.api import read_study as read_study
    from tune_lr.api import search as search
    from tune_lr.api import train as train
    from tune_lr.errors import TuneLRError as TuneLRError
    from tune_lr.lr.bounds import LRBounds as LRBounds
    from tune_lr.lr.bounds import find_lr_bounds as find_lr_bounds
    from tune_lr.workloads import Workload as Workload

_HOME = {
    "LRBounds": "tune_lr.lr.bounds",
    "StudyResult": "tune_lr.api",
    "TuneLRError": "tune_lr.errors",
    "Workload": "tune_lr.workloads",
    "find_lr_bounds": "tune_lr.lr.bounds",
    "range_test": "tune_lr.api",
    "read_study": "tune_lr.api",
    "search": "tune_lr.api",
    "train": "tune_lr.api",
}

__all__ = [
    "LRBounds",
    "StudyResult",
    "TuneLRError",
    "Workload",
    "find_lr_bounds",
    "range_test",
    "read_study",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: the command line must start without torch."""
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
