"""torch.compile leaves TorchInductor alone until something is called that it was to compile."""

import subprocess
import sys


def test_what_is_decorated_is_compiled_when_it_is_called() -> None:
    """In a process of its own: TorchInductor is imported once and for all."""
    code = """
import sys
import torch
from tune_lr.worker.compat.late_compile import compiled_when_called
with compiled_when_called():
    @torch.compile(backend="eager", dynamic=False)
    def doubled(x):
        "Twice."
        return 2 * x
    @torch.compile
    def never_called(x): ...
assert "torch._inductor.compile_fx" not in sys.modules
assert doubled.__doc__ == "Twice."
assert doubled(torch.ones(3)).tolist() == [2.0] * 3
assert doubled(torch.ones(2)).tolist() == [2.0] * 2
assert torch.compile.__module__ == "torch"  # its own again
from tune_lr.worker import colossal
assert "torch._inductor.compile_fx" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
