"""Optimizers by name: what is found, what is refused and why, and whether each follows the LR of every step."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from simulated import FACTS, FIXED_LR, config_of, execute, open_study, train
from toy import regression
from tune_lr.config.optimizers import COLOSSALAI, CUDA_ONLY, REFUSED, range_test_caveat
from tune_lr.config.task import make_task
from tune_lr.errors import InputError
from tune_lr.records.trial import TrialSpec
from tune_lr.study.answer import answer_of
from tune_lr.worker.checks import check_task
from tune_lr.worker.optimizers import cycles_momentum, make_optimizer

if TYPE_CHECKING:
    from torch.optim import Optimizer

TORCH = {
    "adadelta": "Adadelta", "adafactor": "Adafactor", "adagrad": "Adagrad", "adam": "Adam", "adamax": "Adamax",
    "adamw": "AdamW", "asgd": "ASGD", "nadam": "NAdam", "radam": "RAdam", "rmsprop": "RMSprop", "sgd": "SGD",
}  # fmt: skip
NEEDED: dict[str, dict[str, Any]] = {"galoreadafactor": {"relative_step": False}}
NAMES = [*TORCH, *(name.lower() for name in COLOSSALAI)]


def group() -> list[dict[str, Any]]:
    return [{"params": [nn.Parameter(torch.zeros(2))]}]


def refusal(name: str, arguments: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        make_optimizer(name, arguments, group())
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# --- names ---


def test_all_of_torchs_optimizers_are_known() -> None:
    classes = {name for name, value in vars(torch.optim).items() if isinstance(value, type)} - {"Optimizer"}
    assert classes == {*TORCH.values(), "LBFGS", "SparseAdam", "Rprop"}
    assert classes - set(TORCH.values()) < REFUSED.keys()


@pytest.mark.parametrize("name", ["sgd", "SGD", "Sgd", "adamw", "AdamW", "radam", "RAdam", "rmsPROP"])
def test_a_name_is_found_in_any_case(name: str) -> None:
    assert type(make_optimizer(name, {}, group())) is getattr(torch.optim, TORCH[name.lower()])


@pytest.mark.parametrize(("name", "expected"), [("LAMB", "Lamb"), ("lars", "Lars"), ("CAME", "CAME")])
def test_colossalais_are_found_in_any_case(name: str, expected: str) -> None:
    optimizer = make_optimizer(name, {}, group())
    assert type(optimizer).__name__ == expected
    assert type(optimizer).__module__.startswith("colossalai.")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sdg", "no such optimizer (got 'sdg'); did you mean 'sgd'?; known: adadelta, adafactor, adagrad, adam, "
         "adamax, adamw, asgd, came, galoreadafactor, galoreadamw, lamb, lars, nadam, radam, rmsprop, sgd"),
        ("Adam-W", "no such optimizer (got 'Adam-W'); did you mean 'adamw'?; known: "),
        ("lambs", "no such optimizer (got 'lambs'); did you mean 'lamb'?; known: "),
        ("zzzz", "no such optimizer (got 'zzzz'); known: adadelta, "),
        ("optimizer", "no such optimizer (got 'optimizer')"),
        ("lbfgs", "LBFGS evaluates the loss several times a step, and here a step evaluates it once (got 'lbfgs')"),
        ("SparseAdam", "SparseAdam takes sparse gradients only (got 'SparseAdam')"),
        ("rprop", "Rprop reads the LR at its first step only, so that all LR schedules would be the same (got "),
        ("distributedlamb", "DistributedLamb takes the shards of ColossalAI's tensor parallelism"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_serve_is_refused_with_the_reason(name: str, expected: str) -> None:
    assert refusal(name, {}).startswith(f"optimizer.name: {expected}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", CUDA_ONLY)
def test_what_needs_cuda_is_refused_without_it_and_rightly_so(name: str) -> None:
    from tune_lr.worker.colossal import optimizer_class

    what = f"ColossalAI's {name} needs kernels for CUDA, and this worker has no GPU"
    assert refusal(name.lower(), {}) == f"optimizer.name: {what} (got {name.lower()!r}); use {CUDA_ONLY[name]}"
    with pytest.raises(AssertionError, match="No usable kernel"):
        optimizer_class(name)([{**group()[0], "lr": 0.1}])  # type: ignore[call-arg]


# --- arguments ---


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
    ("name", "arguments", "expected"),
    [
        ("sgd", {"momentun": 0.9}, "optimizer.momentun: SGD has no such argument; did you mean 'momentum'?; it has"),
        ("sgd", {"betas": [0.9, 0.99]}, "optimizer.betas: SGD has no such argument"),
        ("sgd", {"params": 1}, "optimizer.params: SGD has no such argument"),
        ("lars", {"eta": 0.1}, "optimizer.eta: Lars has no such argument; did you mean 'eeta'?; it has momentum, eeta, "
         "weight_decay, epsilon"),
        ("sgd", {"momentum": "x"}, "optimizer.momentum: must be a number for SGD (got 'x')"),
        ("sgd", {"momentum": True}, "optimizer.momentum: must be a number for SGD (got True)"),
        ("sgd", {"nesterov": "yes"}, "optimizer.nesterov: must be true or false for SGD (got 'yes')"),
        ("sgd", {"nesterov": 1}, "optimizer.nesterov: must be true or false for SGD (got 1)"),
        ("adam", {"betas": 0.9}, "optimizer.betas: must be a list of 2 numbers for Adam (got 0.9)"),
        ("adam", {"betas": [0.9]}, "optimizer.betas: must be a list of 2 numbers for Adam (got [0.9])"),
        ("came", {"betas": [0.9, 0.99]}, "optimizer.betas: must be a list of 3 numbers for CAME (got [0.9, 0.99])"),
        ("adam", {"foreach": "x"}, "optimizer.foreach: must be a number, true or false for Adam (got 'x')"),
        ("sgd", {"momentum": -1}, "optimizer: SGD refuses its arguments: Invalid momentum value: -1 (got {'momentum"),
        ("sgd", {"nesterov": True}, "optimizer: SGD refuses its arguments: Nesterov momentum requires a momentum and "),
        ("adamw", {"betas": [0.9, 2]}, "optimizer: AdamW refuses its arguments: Invalid beta parameter at index 1: "),
        ("lars", {"eeta": 2}, "optimizer: Lars refuses its arguments: Invalid eeta value: 2 (got {'eeta': 2})"),
        ("came", {"betas": [0.9, 2, 0.9]}, "optimizer: CAME refuses its arguments: a value is out of its range (got {"),
        ("galoreadafactor", {}, "optimizer: GaLoreAdafactor refuses its arguments: Cannot combine manual `lr` and "
         "`relative_step=True` options (got {})"),
    ],
)  # fmt: skip
def test_an_argument_that_is_wrong_is_named(name: str, arguments: dict[str, Any], expected: str) -> None:
    assert refusal(name, arguments).startswith(expected)


@pytest.mark.parametrize("argument", ["capturable", "differentiable"])
def test_what_an_optimizer_refuses_at_its_first_step_is_found_before_a_trial_starts(argument: str) -> None:
    config = config_of(optimizer={"name": "adam", argument: True}, batch_size=16)
    with pytest.raises(InputError) as caught:
        check_task(regression(), make_task(config), TrialSpec(0, "search", 0, 8, 0.1, "constant"))
    assert str(caught.value).startswith("optimizer: Adam cannot take a step with its arguments: ")
    assert str(caught.value).endswith(f"(got {{'{argument}': True}})")


# --- what an LR study relies on ---


class Problem:
    """A model that learns to multiply by a matrix, with parameters of one and of two dimensions."""

    def __init__(self, name: str, arguments: dict[str, Any], **settings: Any) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(64, 4, generator=generator)
        self.targets = self.inputs @ torch.randn(4, 4, generator=generator) + 1.0
        self.parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 4), (4,))]
        groups = [{"params": [parameter], "lr": 1.0, **settings} for parameter in self.parameters]
        self.optimizer: Optimizer = make_optimizer(name, arguments, groups)

    def step(self, lr: float) -> float:
        for entry in self.optimizer.param_groups:
            entry["lr"] = lr
        weight, bias = self.parameters
        loss: Tensor = ((self.inputs @ weight + bias - self.targets) ** 2).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def state(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters])


LRS = {"adadelta": 10.0, "lars": 30.0, "sgd": 0.1, "asgd": 0.1, "adagrad": 0.3, "radam": 0.2}


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_learns_and_follows_the_lr_of_every_step(name: str) -> None:
    problem = Problem(name, NEEDED.get(name, {}))
    losses = [problem.step(LRS.get(name, 0.05)) for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    problem.step(0.0)  # ASGD takes a step's LR at the next one
    before = problem.state()
    problem.step(0.0)
    assert torch.equal(problem.state(), before)
    problem.step(0.01)
    problem.step(0.01)
    assert not torch.equal(problem.state(), before)


def test_rprop_does_not_which_is_why_it_is_refused() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Rprop([parameter], lr=0.01)
    for lr in (0.01, 0.0):
        optimizer.param_groups[0]["lr"] = lr
        before, parameter.grad = parameter.detach().clone(), torch.ones(2)
        optimizer.step()
        assert not torch.equal(parameter.detach(), before)


def test_galore_projects_the_groups_that_have_a_rank() -> None:
    rank = {"rank": 2, "update_proj_gap": 10, "scale": 1.0, "proj_type": "std"}
    plain, projected = Problem("galoreadamw", {}), Problem("galoreadamw", {})
    projected.optimizer.param_groups[0].update(rank)
    for problem in (plain, projected):
        losses = [problem.step(0.05) for _ in range(30)]
        assert losses[-1] < losses[0]
    assert not torch.equal(plain.state(), projected.state())


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("sgd", {}, False),
        ("sgd", {"momentum": 0.0}, False),
        ("sgd", {"momentum": 0.9}, True),
        ("rmsprop", {}, False),
        ("rmsprop", {"momentum": 0.5}, True),
        ("lars", {}, False),
        ("lars", {"momentum": 0.9}, True),
        *((name, {}, True) for name in ("adam", "adamw", "nadam", "radam", "adamax", "lamb", "came", "galoreadamw")),
        *((name, {}, False) for name in ("adagrad", "adadelta", "asgd", "adafactor")),
        ("galoreadafactor", {"relative_step": False, "beta1": 0.9}, False),
    ],
)
def test_momentum_is_cycled_only_where_the_optimizer_has_any(
    name: str, arguments: dict[str, Any], expected: bool
) -> None:
    optimizer = make_optimizer(name, arguments, group())
    assert cycles_momentum(optimizer) is expected
    if expected:  # torch's one-cycle would refuse it otherwise
        OneCycleLR(optimizer, max_lr=0.1, total_steps=10, cycle_momentum=True)


@pytest.mark.parametrize("name", ["adagrad", "AdaGrad", "adafactor"])
def test_where_a_range_test_says_little_the_caveat_says_why(name: str) -> None:
    caveat = range_test_caveat(name)
    assert caveat is not None
    assert caveat.lower().startswith(name.lower())
    assert "parameters.lr" in caveat


def test_elsewhere_there_is_no_caveat() -> None:
    assert [name for name in NAMES if range_test_caveat(name)] == ["adafactor", "adagrad"]


# --- best.yaml ---

ARGUMENTS: dict[str, dict[str, Any]] = {
    **NEEDED,
    "sgd": {"momentum": 0.9, "nesterov": True},
    "adam": {"betas": [0.8, 0.95], "amsgrad": True},
    "lars": {"momentum": 0.9, "eeta": 0.02},
    "lamb": {"betas": [0.8, 0.95], "bias_correction": True},
}


@pytest.mark.filterwarnings("ignore:This implementation of AdamW is deprecated:FutureWarning")
@pytest.mark.parametrize("name", NAMES)
def test_the_code_in_best_yaml_builds_the_optimizer_that_was_used(name: str, tmp_path: Path) -> None:
    arguments = ARGUMENTS.get(name, {})
    used = make_optimizer(name, arguments, group())
    study = open_study(
        tmp_path / "s",
        config_of(
            optimizer={"name": name.upper(), **arguments}, num_trials=1, parameters=FIXED_LR,
            confirm={"top": 0, "seeds": 1},
        ),
    )  # fmt: skip
    facts = replace(FACTS, optimizer=type(used).__name__, cycles_momentum=cycles_momentum(used))
    execute(study, train=lambda spec, config: (replace(report, facts=facts) for report in train(spec, config)))
    best = answer_of(study).to_dict()
    names: dict[str, Any] = {"model": nn.Linear(2, 1)}
    exec(best["code"], names)
    built = names["optimizer"]
    assert type(built) is type(used)
    assert built.param_groups[0]["initial_lr"] == best["lr"]
    same = {key: value for key, value in used.defaults.items() if key != "lr"}
    assert {key: built.defaults[key] for key in same} == same
