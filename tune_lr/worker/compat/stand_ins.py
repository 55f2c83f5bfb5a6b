"""Leaves out, while something is imported, what it imports too and never calls.

ColossalAI imports PEFT (with Transformers, scikit-learn and SciPy behind it) and bitsandbytes for LoRA, quantization
and 8-bit GaLore, and TorchInductor to compile what it does in FP8: two thirds of the CPU time of its import, in every
worker that starts.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


@contextmanager
def compiled_when_called() -> Iterator[None]:
    """Inside, what `torch.compile` decorates is compiled when it is first called: the decorator alone brings in all of
    TorchInductor, which starts processes of its own."""
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


@contextmanager
def left_out(*packages: str) -> Iterator[None]:
    """Inside, those of the packages that were not imported yet are stand-ins, in which every name is a class.

    Outside, importing them gives the real ones again; a stand-in class then passes everything on to its real one, so
    that a model of PEFT's, say, is recognised.
    """
    finder = _Finder(tuple(name for name in packages if name not in sys.modules))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in finder.made:
            del sys.modules[name]


class _Finder(MetaPathFinder, Loader):
    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages
        self.made: list[str] = []

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self._packages:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self.made.append(spec.name)
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ClassOfAnother(name, (), {"__module__": self.__name__})


class _ClassOfAnother(type):
    """Stands for the name of that module, and passes on to it once it is really there."""

    def _real(cls) -> Any:
        real = getattr(sys.modules.get(cls.__module__), cls.__name__, None)
        return None if isinstance(real, _ClassOfAnother) else real

    def __instancecheck__(cls, instance: object) -> bool:
        real = cls._real()
        return isinstance(instance, real) if real is not None else super().__instancecheck__(instance)

    def __call__(cls, *arguments: Any, **settings: Any) -> Any:
        real = cls._real()
        return real(*arguments, **settings) if real is not None else super().__call__(*arguments, **settings)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls._real(), name)
