"""Packages that are left out of an import come back afterwards, and nobody is taken in."""

import importlib
import sys
from typing import Any

import pytest

from tune_lr.worker.compat.unused_imports import left_out

PACKAGE = "xmlrpc"  # of the standard library; nothing here uses it


@pytest.fixture(autouse=True)
def _not_imported() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_inside_a_package_is_not_loaded_and_every_name_in_it_is_a_class() -> None:
    with left_out(PACKAGE):
        from xmlrpc.client import Marshaller, anything_at_all  # type: ignore[attr-defined]

        class Derived(Marshaller): ...

    assert isinstance(anything_at_all, type)
    assert not isinstance(3, Marshaller)
    assert isinstance(Derived(), Marshaller)
    assert not [name for name in sys.modules if name.partition(".")[0] == PACKAGE]


def test_outside_the_real_one_is_imported_and_its_objects_are_instances_of_the_stand_in() -> None:
    with left_out(PACKAGE):
        from xmlrpc.client import Marshaller as StandIn
    client = importlib.import_module("xmlrpc.client")
    assert client.Marshaller().dumps(("a",)).startswith("<params>")
    assert client.Marshaller is not StandIn
    assert isinstance(client.Marshaller(), StandIn)
    assert not isinstance(client.Unmarshaller(), StandIn)


def test_what_was_imported_before_stays_as_it_is() -> None:
    client = importlib.import_module("xmlrpc.client")
    with left_out(PACKAGE):
        from xmlrpc.client import Marshaller
    assert Marshaller is client.Marshaller


def test_a_stand_in_passes_on_to_the_real_one() -> None:
    with left_out(PACKAGE):
        from xmlrpc.client import Boolean as StandIn
        from xmlrpc.client import Fault, dumps
    assert StandIn.__name__ == "Boolean"
    with pytest.raises(AttributeError):
        _ = Fault.faultCode
    importlib.import_module("xmlrpc.client")
    assert Fault(1, "why").faultString == "why"
    assert dumps((1,)).count("<int>1</int>") == 1


def test_colossalai_recognises_a_model_of_peft_that_is_imported_after_it() -> None:
    from tune_lr.worker import colossal  # noqa: F401 - it imports ColossalAI in the light way
    from colossalai.interface import ModelWrapper  # isort: skip

    from peft import LoraConfig, get_peft_model  # type: ignore[attr-defined]  # isort: skip
    from torch import nn

    plain: Any = nn.Sequential(nn.Linear(2, 2))
    model = get_peft_model(plain, LoraConfig(target_modules=["0"]))
    assert type(ModelWrapper(model).unwrap()).__name__ == "PeftUnwrapMixin"
