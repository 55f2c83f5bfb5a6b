"""ColossalAI imports packages that tune-lr never calls: here they are left out of its import.

colossalai 0.5.0 imports PEFT (with Transformers, scikit-learn and SciPy behind it) and bitsandbytes, for LoRA,
quantization and 8-bit GaLore. With TorchInductor (late_compile.py) they took two thirds of the CPU time of its import,
in every worker that starts. tests/worker/compat/test_unused_imports.py shows what is left out, and that it comes back.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


@contextmanager
def left_out(*packages: str) -> Iterator[None]:
    """Replace the packages by stand-ins while the context is open, unless they were imported before.

    Every name in a stand-in is a class. After the context, an import gives the real package again. A stand-in class
    then passes everything on to the real class, so that a model of PEFT's, for example, is recognised.
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
    """Finds and makes the stand-ins, as a part of Python's import system."""

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

    def exec_module(self, module: ModuleType) -> None:
        """Execute nothing: a stand-in has no source."""


class _StandIn(ModuleType):
    """A module in which every name is a class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ClassElsewhere(name, (), {"__module__": self.__name__})


class _ClassElsewhere(type):
    """Stands for the class of this name in the real module, and passes on to it once that has been imported."""

    def _real(cls) -> Any:
        real = getattr(sys.modules.get(cls.__module__), cls.__name__, None)
        return None if isinstance(real, _ClassElsewhere) else real

    def __instancecheck__(cls, instance: object) -> bool:
        real = cls._real()
        return isinstance(instance, real) if real is not None else super().__instancecheck__(instance)

    def __call__(cls, *arguments: Any, **settings: Any) -> Any:
        real = cls._real()
        return real(*arguments, **settings) if real is not None else super().__call__(*arguments, **settings)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls._real(), name)
