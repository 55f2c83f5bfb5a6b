"""State of a workload outside its model, which would pass from trial to trial: found, kept, and put back.

A worker calls the workload's function once, and trials use what it returned one after the other. What its functions
and data sets reach may change meanwhile: a running mean in a criterion, a counter in a data set, a generator, a global
of the user's module. Here that is looked for once, before anything is trained, and put back before every trial, so that
a trial in a warm worker sees what the first one saw.

What is found: attributes of objects of the user's own classes and of modules of torch, closures, default arguments,
globals of the user's modules that a function names, lists, dicts and sets, tensors, arrays, and random generators.
What is not: files, iterators, and whatever a library keeps for itself.
"""

import functools
import operator
import random
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tune_lr.workloads import Workload

MOST_OBJECTS = 20_000  # that are looked at
MOST_ITEMS = 10_000  # of a list or dict: a longer one is data
MOST_BYTES = 64 << 20  # of all tensors and arrays that are copied

_PLAIN = (type(None), bool, int, float, complex, str, bytes)  # these cannot change
_LIBRARIES = tuple(
    {str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "purelib", "platlib")}
    | {str(Path(__file__).resolve().parents[1])}
)
# The fields of a workload. Data come last, since what is copied of them may be large.
_FUNCTIONS = ("criterion", "metrics", "model", "forward", "collate_fn", "batch_weight", "param_groups", "sampler")
_DATA = ("train_data", "val_data", "test_data")


class OutsideState:
    """What a workload reaches outside its model, as it was when this was made."""

    def __init__(self, workload: Workload) -> None:
        self._entries: list[_Entry] = []
        self._seen: dict[int, Any] = {}  # held, so that no address is used again
        self._bytes = MOST_BYTES  # that may still be copied
        self._waiting: deque[tuple[str, Any]] = deque()
        for names in (_FUNCTIONS, _DATA):
            self._waiting += [(name, getattr(workload, name)) for name in names]
            while self._waiting and len(self._seen) < MOST_OBJECTS:
                path, value = self._waiting.popleft()
                if not isinstance(value, _PLAIN) and id(value) not in self._seen:
                    self._seen[id(value)] = value
                    self._look(path, value)

    def put_back(self) -> list[str]:
        """Put back what has changed; return where that was, for example "criterion.center"."""
        return [path for path, restore in self._entries if restore()]

    def _look(self, path: str, value: Any) -> None:
        """Keep what one object holds, and note what it leads to."""
        if isinstance(value, Tensor | np.ndarray | torch.Generator | np.random.Generator | random.Random):
            self._keep_numbers(path, value)
        elif isinstance(value, functools.partial):
            self._waiting += [(path, value.func), (path, value.args), (path, value.keywords)]
        elif isinstance(value, types.MethodType):
            self._waiting += [(path, value.__self__), (path, value.__func__)]
        elif isinstance(value, types.FunctionType):
            self._look_at_function(path, value)
        elif isinstance(value, type):
            self._look_at_class(path, value)
        elif isinstance(value, dict | list | set | deque):
            if len(value) <= MOST_ITEMS:
                self._keep_container(path, value)
        elif isinstance(value, tuple | frozenset):
            self._waiting += [(f"{path}[{i}]", item) for i, item in enumerate(list(value)[:MOST_ITEMS])]
        elif not isinstance(value, types.ModuleType):
            self._look_at_object(path, value)

    def _keep_numbers(self, path: str, value: Any) -> None:
        restore: Callable[[], bool] | None = None
        if isinstance(value, Tensor):
            size = value.numel() * value.element_size()
            restore = _tensor(value) if size <= self._bytes else None
            self._bytes -= size if restore else 0
        elif isinstance(value, np.ndarray):
            restore = _array(value) if value.nbytes <= self._bytes else None
            self._bytes -= value.nbytes if restore else 0
        elif isinstance(value, torch.Generator):
            restore = _generator(value.get_state, value.set_state, torch.equal)
        elif isinstance(value, np.random.Generator):
            bits: Any = value.bit_generator
            restore = _generator(lambda: bits.state, functools.partial(setattr, bits, "state"), _same_text)
        elif isinstance(value, random.Random):
            restore = _generator(value.getstate, value.setstate, lambda one, other: one == other)
        if restore is not None:
            self._entries.append((path, restore))

    def _keep_container(self, path: str, value: Any) -> None:
        self._entries.append((path, _container(value)))
        items = value.items() if isinstance(value, dict) else enumerate(value)
        self._waiting += [(f"{path}.{key}" if isinstance(key, str) else f"{path}[{key}]", item) for key, item in items]

    def _look_at_function(self, path: str, function: types.FunctionType) -> None:
        if _of_a_library(function):
            return
        code = function.__code__
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            put = functools.partial(setattr, cell, "cell_contents")
            self._keep_named(f"{path}: {name}", functools.partial(_cell, cell), put)
        for name in _names(code):
            self._look_at_global(f"{path}: {name}", function.__globals__, name, _names(code))
        self._waiting += [(path, function.__defaults__), (path, function.__kwdefaults__), (path, function.__dict__)]

    def _look_at_global(self, path: str, names: dict[str, Any], name: str, used: frozenset[str]) -> None:
        if name not in names:
            return
        value = names[name]
        if isinstance(value, types.ModuleType):  # of its names, those that the function names too
            file = getattr(value, "__file__", None)
            if file and not _in_a_library(file):
                for inner in used & vars(value).keys():
                    if not isinstance(vars(value)[inner], types.ModuleType):
                        self._look_at_global(f"{path}.{inner}", vars(value), inner, frozenset())
            return
        self._keep_named(path, lambda: names.get(name), functools.partial(names.__setitem__, name))

    def _keep_named(self, path: str, get: Callable[[], Any], put: Callable[[Any], None]) -> None:
        value = get()
        if not isinstance(value, types.FunctionType | type):
            self._entries.append((path, _name(get, put)))
        self._waiting.append((path, value))

    def _look_at_class(self, path: str, cls: type) -> None:
        if _of_a_library(cls):
            return
        for name, value in list(vars(cls).items()):
            function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            if isinstance(function, types.FunctionType):
                self._waiting.append((path, function))
            elif isinstance(function, property):
                self._waiting.append((path, function.fget))
            elif not name.startswith("__") and not hasattr(value, "__get__"):
                get = functools.partial(vars(cls).get, name)
                self._keep_named(f"{path}.{name}", get, functools.partial(setattr, cls, name))
        self._waiting += [(path, base) for base in cls.__bases__]

    def _look_at_object(self, path: str, value: Any) -> None:
        self._waiting.append((path, type(value)))
        attributes = getattr(value, "__dict__", None)
        if not isinstance(attributes, dict):
            return
        if isinstance(value, nn.Module) or not _of_a_library(type(value)):
            self._look(path, attributes)  # its own keeps them alive
        else:  # a library may keep more than Python sees, so its objects are not taken apart
            self._waiting += [(f"{path}.{name}", inner) for name, inner in list(attributes.items())[:MOST_ITEMS]]


_Entry = tuple[str, Callable[[], bool]]


def _names(code: types.CodeType) -> frozenset[str]:
    """Return the global names and attributes that a function names, with those of the functions in it."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return frozenset(code.co_names).union(*inner)


def _in_a_library(file: str) -> bool:
    return file.startswith("<") or str(Path(file).resolve()).startswith(_LIBRARIES)


def _of_a_library(thing: types.FunctionType | type) -> bool:
    """Return whether a function or class is not the user's own."""
    if isinstance(thing, types.FunctionType):
        return _in_a_library(thing.__code__.co_filename)
    file = getattr(sys.modules.get(thing.__module__), "__file__", None)
    if file is not None:
        return _in_a_library(file)
    # A module that was loaded by hand is not among sys.modules; a built-in class has no functions of Python's.
    functions = (value for value in vars(thing).values() if isinstance(value, types.FunctionType))
    return all(_in_a_library(function.__code__.co_filename) for function in functions)


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty yet
        return None


def _name(get: Callable[[], Any], put: Callable[[Any], None]) -> Callable[[], bool]:
    kept = get()

    def restore() -> bool:
        if get() is kept:
            return False
        put(kept)
        return True

    return restore


def _container(value: Any) -> Callable[[], bool]:
    kept = value.copy()

    def restore() -> bool:
        if len(value) == len(kept) and all(map(operator.is_, _parts(value), _parts(kept))):
            return False
        value.clear()
        if isinstance(value, list | deque):
            value.extend(kept)
        else:
            value.update(kept)
        return True

    return restore


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield item
    else:
        yield from value


def _tensor(value: Tensor) -> Callable[[], bool] | None:
    if value.layout != torch.strided or value.is_inference() or is_lazy(value):
        return None
    kept = value.detach().clone()

    def restore() -> bool:
        if value.is_leaf:
            value.grad = None
        if _same_values(value.detach(), kept):
            return False
        with torch.no_grad():
            value.copy_(kept)
        return True

    return restore


def _same_values(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal, NaN and NaN too."""
    if one.shape != other.shape or torch.equal(one, other):
        return one.shape == other.shape
    return bool((one.isnan() == other.isnan()).all()) and torch.equal(one.nan_to_num(), other.nan_to_num())


def _array(value: Any) -> Callable[[], bool] | None:
    if value.dtype.hasobject or not value.flags.writeable:
        return None
    kept = value.copy()

    def restore() -> bool:
        if value.tobytes() == kept.tobytes():
            return False
        value[...] = kept
        return True

    return restore


def _generator(
    get: Callable[[], Any], put: Callable[[Any], Any], same: Callable[[Any, Any], bool]
) -> Callable[[], bool]:
    kept = get()

    def restore() -> bool:
        if same(get(), kept):
            return False
        put(kept)
        return True

    return restore


def _same_text(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)
