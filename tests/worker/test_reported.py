"""Workloads that people have reported, each a small module in tests/data/reported, in the training loop of a study.

What two ranks do is in test_reported_ranks.
"""

import importlib.util
import math
import sys
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler, TensorDataset, WeightedRandomSampler

from paths import DATA
from tune_lr.errors import InputError
from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.lr.schedules import SCHEDULES
from tune_lr.lr.torch_code import groups_code
from tune_lr.worker.groups import described_groups
from tune_lr.worker.optimizers import make_optimizer
from tune_lr.worker.training import Training
from tune_lr.worker.weights import MODEL_FILE
from tune_lr.workloads import Batch, Workload, load_batch, load_workload, to_device
from two_ranks import figures, first_batch, make_task, make_trial, regression, train

pytestmark = pytest.mark.usefixtures("group_of_one")


def reported(name: str) -> Workload:
    """Return the workload of that folder."""
    spec = importlib.util.spec_from_file_location(f"reported_{name}", DATA / "reported" / name / "w.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    workload: Workload = module.make()
    return workload


@pytest.mark.parametrize("name", ["fwd_method", "lazy", "lora", "extra_state", "sparse", "sampler"])
def test_what_was_reported_trains_as_it_is_and_again_bit_for_bit(name: str, tmp_path: Path) -> None:
    workload = reported(name)
    first_batch(workload)
    trial = make_trial(max_steps=12, lr=0.01, checkpoint=str(tmp_path))
    task = make_task(report_every=6)
    reports = train(workload, task, trial)
    assert not any(report.diverged or report.failure for report in reports)
    assert math.isfinite(reports[-1].metrics["val_loss"])
    assert (tmp_path / MODEL_FILE).exists()
    assert figures(train(workload, task, trial)) == figures(reports)
    said = [text for report in reports for text in report.notices]
    if name == "extra_state":
        assert said == [f"{MODEL_FILE} holds tensors only; left out of it: _extra_state (from get_extra_state)"]
        tested = replace(workload, test_data=workload.val_data)
        test = make_trial(phase="test", checkpoints=(str(tmp_path),))
        values = Training(tested, task, test, torch.device("cpu")).test().test_values
        assert values[0]["test_loss"] == pytest.approx(reports[-1].metrics["val_loss"])
    else:
        assert said == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("center_loss", "workload: param_groups holds 1 parameter that is not in the model (shapes [2, 16]), and so "
         "would pass from trial to trial what they have learned; put them into the model"),
        ("nan_start", "workload: the training loss of the first batch is not a number: a batch of train_data: its "
         "tensor 0 (float32 [50, 8]) holds NaN in 50 of 400 values; nothing was trained yet"),
    ],
)  # fmt: skip
def test_what_was_reported_is_refused_before_any_trial(name: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        first_batch(reported(name))
    assert str(caught.value).startswith(expected)


def test_a_nan_in_the_validation_data_is_no_divergence() -> None:
    (report,) = train(reported("nan_val"), make_task(report_every=20))
    assert (report.diverged, report.metrics) == (False, {})
    expected = "val_loss is not a number at step 20; the training losses were finite: batch 1 of 2 of val_data: its"
    assert report.failure.startswith(expected)


def test_a_nan_in_a_later_training_batch_is_no_divergence() -> None:
    workload = regression()
    data: Any = workload.train_data
    data.tensors[0][150] = math.nan
    report = train(workload)[-1]
    assert (report.diverged, report.over) == (False, True)
    assert f"the training loss is not a number at step {report.step}; the losses before were finite" in report.failure


def test_a_metric_that_is_not_a_number_is_named_and_ends_no_trial_before_its_end() -> None:
    task = make_task(metric="val_f1", report_every=5, optimizer={"name": "adam"})
    workload = replace(reported("f1"), metrics={"f1": lambda outputs, batch: outputs.sum() * 0 / 0})
    reports = train(workload, task, make_trial(max_steps=10, lr=1e-3))
    assert [report.step for report in reports] == [5, 10]
    assert "val_f1" not in reports[0].metrics
    expected = "val_f1 is not a number at step {}; val_loss was finite: the metric f1 returns nan for batch 1 of 15 of"
    assert reports[0].notices[0].startswith(expected.format(5))
    assert reports[1].failure.startswith(expected.format(10))


class F1:
    """F1 of all items, with nothing but update and compute."""

    def __init__(self) -> None:
        self.hits = self.predicted = self.there = 0

    def update(self, outputs: Tensor, batch: Batch) -> None:
        chosen, positive = outputs.argmax(1) == 1, batch[1] == 1
        self.hits += int((chosen & positive).sum())
        self.predicted += int(chosen.sum())
        self.there += int(positive.sum())

    def compute(self) -> float:
        return 2 * self.hits / max(1, self.predicted + self.there)


def test_a_metric_of_the_whole_data_does_not_depend_on_batches_and_starts_anew_each_time() -> None:
    workload = replace(reported("sampler"), metrics={"f1": F1()})
    first_batch(workload, metric="val_f1")
    task = make_task(report_every=10)
    by_50 = train(workload, task, make_trial(max_steps=20, lr=0.1))
    assert len({report.metrics["val_f1"] for report in by_50}) == 2
    assert figures(train(workload, task, make_trial(max_steps=20, lr=0.1))) == figures(by_50)
    assert workload.metrics["f1"].there == 0


class Shifted(TensorDataset):
    """Its items are not the rows of its tensors."""

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return self.tensors[0][index] + 100, self.tensors[1][index]


class Several(TensorDataset):
    """It has a method for several items at a time."""

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, ...]]:
        return [(self.tensors[0][index] + 100, self.tensors[1][index]) for index in indices]


@pytest.mark.parametrize("data_set", [Shifted, Several])
def test_the_items_of_a_data_set_are_what_it_says(data_set: type[TensorDataset]) -> None:
    data = data_set(torch.zeros(8, 2), torch.arange(8))
    inputs, targets = load_batch(regression(train_data=data), data, torch.tensor([1, 3]))
    assert inputs.tolist() == [[100.0, 100.0]] * 2
    assert targets.tolist() == [1, 3]


Pair = namedtuple("Pair", ["inputs", "target"])


@dataclass
class Items:
    inputs: Tensor
    label: str


class Own(dict[str, Tensor]):
    """A mapping with attributes, as the batches of some tokenizers."""

    @property
    def inputs(self) -> Tensor:
        return self["inputs"]


def test_a_batch_keeps_its_types_on_the_way_to_the_device() -> None:
    one = torch.ones(1)
    pair, items, own, packed = (
        to_device(batch, torch.device("meta"))
        for batch in (
            Pair(one, (one, [one])),
            Items(one, "a"),
            Own(inputs=one),
            nn.utils.rnn.pack_sequence([one]),
        )
    )
    assert isinstance(pair, Pair)
    assert isinstance(pair.target, tuple)
    assert isinstance(pair.target[1], list)
    assert (items.label, items.inputs.device.type) == ("a", "meta")
    assert own.inputs.device.type == pair.inputs.device.type == packed.data.device.type == "meta"


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = DATA / "reported"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield folder
    sys.modules.pop("w", None)


def test_a_module_that_reads_the_command_line_is_refused_with_its_text(
    beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(beside / "argparse"))
    with pytest.raises(InputError, match=r"the following arguments are required: --data") as caught:
        load_workload("w:make", {})
    assert str(caught.value).startswith("workload: importing w ends the process (sys.exit: ")


def test_an_optimizer_of_one_s_own_is_checked_like_the_built_in_ones(
    beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(beside / "own_optimizer"))
    optimizer = {"name": "w:Lion"}
    first_batch(regression(), optimizer=optimizer)
    reports = train(regression(), make_task(optimizer=optimizer), make_trial(max_steps=5, lr=1e-3))
    assert reports[-1].facts is not None
    assert reports[-1].facts.optimizer == "Lion"
    groups = [{"params": [nn.Parameter(torch.ones(1))]}]
    for name, arguments, expected in (
        ("w:Loin", {}, r"w has no class 'Loin' that is a torch.optim.Optimizer; did you mean 'Lion'\?"),
        ("nowhere:Lion", {}, r"importing nowhere raised ModuleNotFoundError"),
        ("w:Lion", {"beta": 1}, r"Lion has no such argument"),
    ):
        with pytest.raises(InputError, match=expected):
            make_optimizer(name, arguments, groups)


def test_weights_decide_which_items_are_seen_and_a_sampler_starts_anew_with_each_trial() -> None:
    inputs = torch.arange(40.0).unsqueeze(1)
    weights = torch.cat([torch.zeros(30), torch.ones(10)])
    seen: list[Tensor] = []

    def forward(model: nn.Module, batch: Batch) -> Tensor:
        if torch.is_grad_enabled():
            seen.append(batch[0].flatten())
        outputs: Tensor = model(batch[0] / 40)
        return outputs

    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(inputs, inputs / 40)
    for sampler in (weights, weights.tolist(), WeightedRandomSampler(weights.tolist(), 20, generator=generator)):
        changes: dict[str, Any] = {"train_data": data, "val_data": data, "batch_size": 10, "sampler": sampler}
        workload = regression(model=lambda: nn.Linear(1, 1), forward=forward, **changes)
        seen.clear()
        first = figures(train(workload, trial=make_trial(max_steps=8)))
        assert min(torch.cat(seen)) >= 30
        assert figures(train(workload, trial=make_trial(max_steps=8))) == first
    facts = train(workload, trial=make_trial(max_steps=8))[0].facts
    assert facts is not None
    assert facts.steps_per_epoch == 2


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ([1.0], r"sampler has \[1\] weights, and train_data has 200 items"),
        ([-1.0] * 200, r"must be finite, not negative"),
        ("balanced", r"sampler \(got str\) must be"),
        (SimpleNamespace(), r"sampler \(got SimpleNamespace\) must be"),
    ],
)
def test_a_sampler_that_cannot_serve_is_refused(sampler: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        regression(sampler=sampler)


def test_a_sampler_of_batches_is_refused_at_the_first_batch() -> None:
    batches: Any = torch.utils.data.BatchSampler(RandomSampler(range(200)), 10, drop_last=True)
    with pytest.raises(InputError, match="yields batches"):
        first_batch(regression(sampler=batches, batch_size=4))


def test_parameter_groups_are_written_as_lines_that_build_them() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
            self.head = nn.Linear(4, 1)
            self.scale = nn.Parameter(torch.ones(1))

    def groups(model: Any) -> list[dict[str, Any]]:
        head = [*model.head.parameters(), model.scale, model.body[1].weight]
        body = [*model.body[0].parameters(), model.body[1].bias]
        return [{"params": body, "lr": 0.1, "weight_decay": 0.5}, {"params": head}]

    model = Net()
    described = described_groups(regression(param_groups=groups), model)
    for decay_all in (True, False):
        built: dict[str, Any] = {"model": model}
        exec(groups_code(described, 0.5, decay_all=decay_all), built)
        optimizer = torch.optim.SGD(built["groups"], lr=0.5)
        lrs = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert {name: lrs[id(p)] for name, p in model.named_parameters()} == {
            "body.0.weight": 0.05,
            "body.0.bias": 0.05,
            "body.1.weight": 0.5,
            "body.1.bias": 0.05,
            "head.weight": 0.5,
            "head.bias": 0.5,
            "scale": 0.5,
        }
        decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert decays[id(model.body[0].weight)] == 0.5
        assert decays[id(model.body[0].bias)] == (0.5 if decay_all else 0.0)


@pytest.mark.filterwarnings("ignore:The epoch parameter")  # torch's SequentialLR warns about its own call
@pytest.mark.parametrize("name", [name for name, spec in SCHEDULES.items() if not spec.by_metric])
def test_the_lines_of_every_schedule_keep_the_ratios_between_groups(name: str) -> None:
    known = {parameter.name for parameter in SCHEDULES[name].parameters}
    schedule = make_lr_schedule(name, {"floor": 0.1} if "floor" in known else {}, 40)
    parameters = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    groups = [{"params": parameters[:1], "lr": 0.05}, {"params": parameters[1:]}]
    built: dict[str, Any] = {"optimizer": torch.optim.SGD(groups, lr=0.5)}
    exec(schedule.code(0.5, cycle_momentum=False, ratios=(0.1, 1.0)), built)
    for step in range(39):
        for group, ratio in zip(built["optimizer"].param_groups, (0.1, 1.0), strict=True):
            assert group["lr"] == pytest.approx(schedule.lr(0.5, step) * ratio, rel=1e-6)
        built["optimizer"].step()
        built["scheduler"].step()
