"""ColossalAI's import starts TorchInductor: here nothing is compiled before it is called.

colossalai 0.5.0 decorates what it does in FP8 with `torch.compile`. In torch 2.5.1 the decorator alone imports all of
TorchInductor, which starts processes of its own, and tune-lr never calls those functions.
tests/worker/compat/test_late_compile.py shows that TorchInductor stays away.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any


@contextmanager
def compiled_when_called() -> Iterator[None]:
    """Have functions that are decorated with `torch.compile` in this context compiled at their first call."""
    import torch

    compile_now = torch.compile

    def compile_later(function: Callable[..., Any] | None = None, **options: Any) -> Any:
        if function is None:
            return lambda decorated: compile_later(decorated, **options)
        compiled = cache(lambda: compile_now(function, **options))

        @wraps(function)
        def call(*arguments: Any, **settings: Any) -> Any:
            return compiled()(*arguments, **settings)

        return call

    torch.compile = compile_later  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compile_now
