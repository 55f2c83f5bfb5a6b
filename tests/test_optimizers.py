"""Optimizers by name: what is found, what is refused, and which of them may cycle momentum."""

import pytest
import torch
from torch import nn

from tune_lr.errors import InputError
from tune_lr.optimizers import cycles_momentum, make_optimizer


def group() -> list[dict[str, object]]:
    return [{"params": [nn.Parameter(torch.zeros(2))]}]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgd", torch.optim.SGD),
        ("SGD", torch.optim.SGD),
        ("adamw", torch.optim.AdamW),
        ("AdamW", torch.optim.AdamW),
        ("rmsPROP", torch.optim.RMSprop),
        ("nadam", torch.optim.NAdam),
    ],
)
def test_a_name_is_found_in_any_case(name: str, expected: type) -> None:
    assert type(make_optimizer(name, {}, group())) is expected


def test_arguments_reach_the_optimizer_and_lists_become_tuples() -> None:
    optimizer = make_optimizer("adamw", {"betas": [0.8, 0.95], "weight_decay": 0.1}, group())
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.95)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


def test_a_group_s_own_settings_win() -> None:
    groups = [{**group()[0], "weight_decay": 0.0, "lr": 0.1}, *group()]
    first, second = make_optimizer("sgd", {"weight_decay": 0.3}, groups).param_groups
    assert (first["weight_decay"], first["lr"]) == (0.0, 0.1)
    assert (second["weight_decay"], second["lr"]) == (0.3, 1.0)


@pytest.mark.parametrize(
    ("name", "arguments", "start", "end"),
    [
        ("sdg", {}, "optimizer.name: no such optimizer (got 'sdg'); did you mean 'sgd'?; known: adadelta, ", "sgd"),
        ("Adam-W", {}, "optimizer.name: no such optimizer (got 'Adam-W'); did you mean 'adamw'?; known: ", "sgd"),
        ("zzzz", {}, "optimizer.name: no such optimizer (got 'zzzz'); known: adadelta, ", "sgd"),
        ("optimizer", {}, "optimizer.name: no such optimizer (got 'optimizer')", "sgd"),
        ("lbfgs", {}, "optimizer.name: no such optimizer (got 'lbfgs')", "sgd"),
        ("SparseAdam", {}, "optimizer.name: no such optimizer (got 'SparseAdam')", "sgd"),
        ("sgd", {"momentun": 0.9}, "optimizer.momentun: SGD has no such argument; did you mean 'momentum'?;", ""),
        ("sgd", {"betas": [0.9, 0.99]}, "optimizer.betas: SGD has no such argument", ""),
        ("sgd", {"params": 1}, "optimizer.params: SGD has no such argument", ""),
        ("sgd", {"momentum": -1}, "optimizer: SGD refuses its arguments: Invalid momentum", "(got {'momentum': -1})"),
        ("sgd", {"momentum": "x"}, "optimizer: SGD refuses its arguments: ", "(got {'momentum': 'x'})"),
        ("sgd", {"nesterov": True}, "optimizer: SGD refuses its arguments: Nesterov", "(got {'nesterov': True})"),
        ("adamw", {"betas": [0.9, 2]}, "optimizer: AdamW refuses its arguments: Invalid beta", "})"),
    ],
)
def test_what_is_refused_is_named_in_one_line(name: str, arguments: dict[str, object], start: str, end: str) -> None:
    with pytest.raises(InputError) as caught:
        make_optimizer(name, arguments, group())
    message = str(caught.value)
    assert message.startswith(start)
    assert message.endswith(end)
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("sgd", {}, False),
        ("sgd", {"momentum": 0.0}, False),
        ("sgd", {"momentum": 0.9}, True),
        ("rmsprop", {}, False),
        ("rmsprop", {"momentum": 0.5}, True),
        ("adam", {}, True),
        ("adamw", {}, True),
        ("nadam", {}, True),
        ("adagrad", {}, False),
        ("adadelta", {}, False),
    ],
)
def test_momentum_is_cycled_only_where_the_optimizer_has_any(
    name: str, arguments: dict[str, object], expected: bool
) -> None:
    assert cycles_momentum(make_optimizer(name, arguments, group())) is expected
