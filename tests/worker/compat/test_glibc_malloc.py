"""Memory that a step frees is there for the next one."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource
import torch
from tune_lr.worker.compat.glibc_malloc import keep_freed_memory
torch.set_num_threads(1)
if {kept}:
    keep_freed_memory()
def step():
    activations = [torch.ones(250_000) for _ in range(40)]  # of 1 MB each
step()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has its own ways")
def test_a_step_takes_page_faults_unless_freed_memory_is_kept() -> None:
    """In processes of their own: what malloc was told cannot be taken back."""
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", COUNT.format(kept=kept)], capture_output=True, check=True).stdout)
        for kept in (False, True)
    )
    assert given_back > 1000
    assert kept < given_back / 20
