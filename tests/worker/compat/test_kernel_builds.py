"""The lock of a build of kernels that was killed: torch waits for it, and here it goes."""

import os
import time
from pathlib import Path

import pytest
from torch.utils.file_baton import FileBaton

from tune_lr.worker.compat.kernel_builds import forget_abandoned_build


@pytest.mark.parametrize(("youngest_s", "abandoned"), [(400, True), (200, False)])
def test_the_lock_of_a_build_that_was_killed_is_forgotten(tmp_path: Path, youngest_s: float, abandoned: bool) -> None:
    """By torch's own lock: who finds it waits until it is gone."""
    forget_abandoned_build(tmp_path / "nothing was built here")
    assert FileBaton(str(tmp_path / "lock")).try_acquire()
    (tmp_path / "adam.o").touch()
    for name, ago in (("lock", 500), ("adam.o", youngest_s)):
        os.utime(tmp_path / name, times=(time.time() - ago,) * 2)
    forget_abandoned_build(tmp_path)
    assert FileBaton(str(tmp_path / "lock")).try_acquire() == abandoned
