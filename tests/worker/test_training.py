"""The training loop, on real models, ColossalAI and a process group of one; and two ranks against one.

Where a figure can be known otherwise, it is computed otherwise: by a plain PyTorch loop with torch's own schedulers.
"""

import itertools
import json
import math
import multiprocessing
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.overrides import TorchFunctionMode
from torch.utils.data import Dataset, TensorDataset

from paths import SUPPORT
from studies import free_port
from tune_lr.errors import InputError
from tune_lr.lr.divergence import DivergenceDetector
from tune_lr.lr.ramp import Ramp
from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.lr.schedules import SCHEDULES
from tune_lr.records.trial import Report, TrialFacts
from tune_lr.worker.checks import check_task
from tune_lr.worker.training import STEPS_PER_READ, Training
from tune_lr.worker.weights import MODEL_FILE
from tune_lr.workloads import Batch, Workload
from two_ranks import (
    Sentences,
    Tagger,
    figures,
    first_batch,
    make_task,
    make_trial,
    mean_square,
    pad,
    regression,
    run_all,
    sentences,
    train,
)

pytestmark = pytest.mark.usefixtures("group_of_one")

LR, STEPS = 0.05, 62
CPU = torch.device("cpu")


def losses(reports: list[Report]) -> list[float]:
    return [loss for report in reports for _, _, loss in report.points]


def lrs(reports: list[Report]) -> list[float]:
    return [lr for report in reports for _, lr, _ in report.points]


# --- nothing leaks from trial to trial --------------------------------------------------------------------------------


OWN = {"batch_size": 16, "optimizer": {"name": "adamw", "weight_decay": 0.1}}  # what a trial may have of its own


@pytest.mark.parametrize(
    ("lr_schedule", "own"), [("constant", {}), ("onecycle", {}), ("cyclic", {}), ("onecycle", OWN)]
)
def test_a_trial_gives_the_same_curve_again_bit_for_bit(lr_schedule: str, own: dict[str, Any]) -> None:
    """Also after another trial, which left other random states, momenta, and weights behind, and whose batch size and
    optimizer were others."""
    workload, trial = regression(), make_trial(lr_schedule=lr_schedule, **own)
    first = figures(train(workload, trial=trial))
    assert figures(train(workload, trial=trial)) == first
    other = {"batch_size": 20, "optimizer": {"name": "adam", "betas": [0.5, 0.9]}}
    train(workload, trial=make_trial(seed=99, lr=0.3, max_steps=33, lr_schedule="onecycle", **other))
    torch.rand(17)
    assert figures(train(workload, trial=trial)) == first


def test_a_batch_size_and_an_optimizer_of_a_trials_own_are_those_of_a_task_bit_for_bit() -> None:
    """Whose reports come after as many samples."""
    own = train(regression(), make_task(report_every=10), make_trial(**OWN))
    task = make_task(report_every=20, batch_size=16, optimizer={"name": "adamw", "weight_decay": 0.1})
    assert figures(own) == figures(train(regression(), task))
    assert own[0].facts == train(regression(), task)[0].facts


@pytest.mark.parametrize(
    ("batch_size", "steps"), [(32, [10, 20, 30, 40]), (24, [13, 27, 40, 53]), (50, [6, 13, 19, 26])]
)
def test_trials_of_all_batch_sizes_report_after_as_many_samples(batch_size: int, steps: list[int]) -> None:
    task = make_task(report_every=10, batch_sizes=(24, 32, 50))
    reports = train(regression(), task, make_trial(batch_size=batch_size, max_steps=steps[-1]))
    assert [report.step for report in reports] == steps
    assert all(report.metrics for report in reports)


def test_the_seed_decides_weights_order_and_masks() -> None:
    one, two = (losses(train(regression(), trial=make_trial(seed=seed))) for seed in (1, 2))
    assert one[0] != two[0]
    assert one[-1] != two[-1]


# --- against a plain PyTorch loop -------------------------------------------------------------------------------------


def plain_losses(
    workload: Workload,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    make_scheduler: Callable[[torch.optim.Optimizer], LRScheduler],
    seed: int = 3,
    clip: float = math.inf,
    bf16: bool = False,
) -> list[float]:
    """What the trial computes, without ColossalAI, DDP and LR schedules of our own."""
    torch.manual_seed(seed)
    model = workload.model()
    optimizer = make_optimizer(model)
    scheduler = make_scheduler(optimizer)
    torch.manual_seed(seed)
    inputs, targets = workload.train_data.tensors  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(seed)
    result: list[float] = []
    while len(result) < STEPS:
        order = torch.randperm(len(inputs), generator=generator)
        for start in range(0, len(inputs) - workload.batch_size + 1, workload.batch_size):
            batch = order[start : start + workload.batch_size]
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = torch.nn.functional.mse_loss(model(inputs[batch]), targets[batch])
            loss.backward()
            if clip < math.inf:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            scheduler.step()
            result.append(loss.item())
            if len(result) == STEPS:
                break
    return result


TORCH_SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], LRScheduler]] = {
    "constant": lambda optimizer: ConstantLR(optimizer, factor=1.0, total_iters=STEPS),
    "step": lambda optimizer: StepLR(optimizer, step_size=21, gamma=0.1),
    "exponential": lambda optimizer: ExponentialLR(optimizer, gamma=0.01 ** (1 / STEPS)),
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, T_max=STEPS),
    "onecycle": lambda optimizer: OneCycleLR(optimizer, max_lr=LR, total_steps=STEPS),
    "cyclic": lambda optimizer: CyclicLR(optimizer, base_lr=LR / 10, max_lr=LR, step_size_up=16),
    "multistep": lambda optimizer: MultiStepLR(optimizer, milestones=[31, 46]),
    "cosine_restarts": lambda optimizer: CosineAnnealingWarmRestarts(optimizer, T_0=9, T_mult=2),
    "polynomial": lambda optimizer: PolynomialLR(optimizer, total_iters=STEPS, power=2.0),
    "linear": lambda optimizer: LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=STEPS),
    "inverse_sqrt": lambda optimizer: LambdaLR(
        optimizer, lambda step: 0.01 + 0.99 * step / 6 if step < 6 else (6 / step) ** 0.5
    ),
    "wsd": lambda optimizer: LambdaLR(
        optimizer, lambda step: min(0.01 + 0.99 * step / 6, 1.0) if step < 51 else (62 - step) / 11
    ),
    "flat_cosine": lambda optimizer: SequentialLR(
        optimizer, [ConstantLR(optimizer, factor=1.0, total_iters=45), CosineAnnealingLR(optimizer, T_max=17)], [45]
    ),
}
BY_STEP = [name for name, spec in SCHEDULES.items() if not spec.by_metric]
OPTIMIZERS: dict[str, tuple[dict[str, Any], Callable[[nn.Module], torch.optim.Optimizer]]] = {
    "sgd": ({"momentum": 0.9}, lambda model: torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)),
    "adamw": ({"weight_decay": 0.1}, lambda model: torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.1)),
}


def test_every_schedule_is_compared() -> None:
    assert list(TORCH_SCHEDULERS) == BY_STEP


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")  # torch's own SequentialLR
@pytest.mark.parametrize(
    ("optimizer", "lr_schedule"), [*(("sgd", name) for name in TORCH_SCHEDULERS), ("adamw", "onecycle")]
)
def test_a_trial_trains_as_plain_pytorch_does(optimizer: str, lr_schedule: str) -> None:
    """With momentum (Adam: beta1) cycled, where the schedule does that."""
    workload, (arguments, make_optimizer) = regression(), OPTIMIZERS[optimizer]
    expected = plain_losses(workload, make_optimizer, TORCH_SCHEDULERS[lr_schedule])
    task = make_task(optimizer={"name": optimizer, **arguments})
    reports = train(workload, task, make_trial(lr=LR, max_steps=STEPS, lr_schedule=lr_schedule))
    assert losses(reports) == pytest.approx(expected, rel=0, abs=1e-6)


# --- a schedule that follows the validations -----------------------------------------------------------------------


def two_groups(model: nn.Module) -> list[dict[str, Any]]:
    return [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1:].parameters()}]  # type: ignore[index]


def plateau_figures(trial: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    workload = regression(param_groups=two_groups)
    spec = make_trial(lr=0.2, max_steps=60, lr_schedule="plateau", **trial)
    return figures(train(workload, make_task(report_every=5, **task), spec))


PLATEAUS: list[tuple[dict[str, Any], str, int]] = [
    ({"patience": 0, "factor": 0.5}, "val_loss", 2),
    ({"patience": 1, "floor": 0.1, "cooldown": 1, "threshold": 0.05}, "val_error", 1),
    ({"mode": "max", "patience": 1, "factor": 0.3}, "val_error", 3),
]


@pytest.mark.parametrize(("parameters", "metric", "falls"), PLATEAUS)
def test_a_plateau_falls_where_torchs_class_sees_the_validations_stall(
    parameters: dict[str, Any], metric: str, falls: int
) -> None:
    """It is shown the validations that the trial reported: of the study's metric, and which way that improves."""
    shown = plateau_figures({"parameters": parameters}, {"metric": metric})
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    given = {**{"patience": 2}, **parameters, "min_lr": 0.2 * parameters.get("floor", 0.0)}
    given.pop("floor", None)
    scheduler = ReduceLROnPlateau(optimizer, **given)
    expected = []
    for validation in shown["metrics"]:
        expected += [optimizer.param_groups[0]["lr"]] * 5
        scheduler.step(validation[metric])
    assert [lr for _, lr, _ in shown["points"]] == expected
    assert len(set(expected)) > falls


def test_a_plateau_trains_as_plain_pytorch_does_and_keeps_the_ratios_between_groups() -> None:
    """The LRs that were reported, set by hand in a plain loop, give the same losses."""
    shown = plateau_figures({"parameters": {"patience": 0, "factor": 0.5}}, {})
    lrs_shown = [lr for _, lr, _ in shown["points"]]
    assert len(set(lrs_shown)) > 2
    workload = regression(param_groups=two_groups)
    expected = plain_losses(
        workload,
        lambda model: torch.optim.SGD(
            [{**group, "lr": group.get("lr", 1.0)} for group in two_groups(model)], lr=1.0, momentum=0.9
        ),
        lambda optimizer: LambdaLR(optimizer, lambda step: lrs_shown[min(step, 59)]),
    )
    assert [loss for _, _, loss in shown["points"]] == pytest.approx(expected[:60], rel=0, abs=1e-6)


def test_a_plateau_that_begins_again_falls_at_the_same_steps() -> None:
    """As after a lost worker, or a killed driver: from its start, in a process that has trained other things."""
    trial = {"parameters": {"patience": 0, "factor": 0.5}}
    first = plateau_figures(trial, {})
    cut_short = Training(regression(), make_task(), make_trial(lr_schedule="plateau", **trial), CPU)
    cut_short.run()
    assert plateau_figures(trial, {}) == first


def test_momentum_is_not_switched_on_in_plain_sgd() -> None:
    workload = regression()
    expected = plain_losses(
        workload,
        lambda model: torch.optim.SGD(model.parameters(), lr=LR),
        lambda optimizer: OneCycleLR(optimizer, max_lr=LR, total_steps=STEPS, cycle_momentum=False),
    )
    reports = train(workload, make_task(optimizer={"name": "sgd"}), make_trial(lr=LR, lr_schedule="onecycle"))
    assert losses(reports) == pytest.approx(expected, rel=0, abs=1e-6)
    assert reports[0].facts is not None
    assert not reports[0].facts.cycles_momentum


def test_lr_ratios_between_parameter_groups_are_kept_at_every_step() -> None:
    workload = regression(
        param_groups=lambda model: [
            {"params": model[0].parameters(), "lr": 0.1},
            {"params": model[1:].parameters(), "weight_decay": 0.01},
        ]
    )
    expected = plain_losses(
        workload,
        lambda model: torch.optim.SGD(
            [
                {"params": model[0].parameters(), "lr": LR / 10},  # type: ignore[index]
                {"params": model[1:].parameters(), "weight_decay": 0.01},  # type: ignore[index]
            ],
            lr=LR,
            momentum=0.9,
        ),
        lambda optimizer: CosineAnnealingLR(optimizer, T_max=STEPS),
    )
    reports = train(workload, trial=make_trial(lr=LR, lr_schedule="cosine"))
    assert losses(reports) == pytest.approx(expected, rel=0, abs=1e-6)
    assert lrs(reports)[0] == LR  # the trial's own


# --- details of training ----------------------------------------------------------------------------------------------


def smooth(**changes: Any) -> Workload:
    """Without dropout and batch statistics, which see micro-batches apart."""
    return regression(model=lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)), **changes)


def constant(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return ConstantLR(optimizer, factor=1.0, total_iters=STEPS)


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)


@pytest.mark.parametrize("workload", [smooth, sentences])
def test_accumulated_gradients_train_as_those_of_the_whole_batch(workload: Callable[[], Workload]) -> None:
    """Also where the micro-batches hold very different numbers of tokens."""
    whole, parts = (losses(train(workload(), make_task(accumulate=parts))) for parts in (1, 4))
    assert parts == pytest.approx(whole, rel=0, abs=2e-6)
    assert parts != whole


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_are_clipped_by_their_global_norm(accumulate: int) -> None:
    """Those of the whole batch, not of each micro-batch."""
    expected = plain_losses(smooth(), momentum, constant, clip=0.05)
    reports = train(smooth(), make_task(clip_norm=0.05, accumulate=accumulate))
    assert losses(reports) == pytest.approx(expected, rel=0, abs=1e-6)
    assert losses(reports)[-1] > 1.5 * losses(train(smooth()))[-1]


def test_bf16_is_torchs_autocast_around_model_and_criterion(tmp_path: Path) -> None:
    expected = plain_losses(smooth(), momentum, constant, bf16=True)
    reports = train(smooth(), make_task(precision="bf16"), make_trial(checkpoint=str(tmp_path)))
    assert losses(reports) == pytest.approx(expected, rel=0, abs=1e-6)
    assert losses(reports) != pytest.approx(losses(train(smooth())), rel=0, abs=1e-5)
    state = load_file(tmp_path / MODEL_FILE)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    model, parts = restored(smooth(), tmp_path), [t.split(32) for t in smooth().val_data.tensors]  # type: ignore[attr-defined]
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        squares = sum(
            mean_square(model(part), [part, target]).item() * len(part) for part, target in zip(*parts, strict=True)
        )
    assert reports[-1].metrics["val_loss"] == pytest.approx(squares / 37, rel=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a machine without GPUs fp16 is refused")
def test_fp16_is_refused_without_a_gpu() -> None:
    from tune_lr.worker import colossal

    with pytest.raises(InputError) as caught:
        colossal.check_plugin(make_task(precision="fp16"))
    assert (
        str(caught.value) == "training.precision: fp16 needs a GPU and this worker has none; on CPUs use bf16 or fp32"
    )


@pytest.mark.parametrize("grouped", [False, True])
def test_norms_and_biases_can_be_left_without_weight_decay(grouped: bool) -> None:
    """The ratios between a workload's groups stay."""
    ratios = [0.1, 1.0] if grouped else [1.0, 1.0]

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        groups = [
            {"params": [p], "lr": LR * ratio, "weight_decay": 0.5 if p.dim() > 1 else 0.0}
            for layer, ratio in zip((model[0], model[2]), ratios, strict=True)  # type: ignore[index]
            for p in layer.parameters()
        ]
        return torch.optim.SGD(groups, lr=LR)

    workload = smooth(param_groups=two_groups) if grouped else smooth()
    given = {"optimizer": {"name": "sgd", "weight_decay": 0.5}}
    reports = train(workload, make_task(**given, decay_norms_and_biases=False))
    assert losses(reports) == pytest.approx(plain_losses(workload, optimizer, constant), rel=0, abs=1e-6)
    assert losses(reports) != losses(train(workload, make_task(**given)))


def test_a_trial_has_its_own_arguments_of_the_optimizer() -> None:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=LR, momentum=0.5, weight_decay=0.1)

    spec = make_trial(optimizer={"momentum": 0.5, "weight_decay": 0.1})
    assert losses(train(smooth(), trial=spec)) == pytest.approx(plain_losses(smooth(), optimizer, constant), abs=1e-6)


class Augmented(Dataset[Any]):
    """Items with noise from each of the three sources of random numbers that a data set may draw from."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Any:
        item, target = self._data[index]
        return item + 0.1 * torch.randn(8) + 0.1 * random.random() + 0.1 * np.random.rand(), target


def test_batches_are_the_same_whoever_loads_them() -> None:
    """With augmentation, and dropout beside it: bit for bit. No process is left over."""

    def curve(workers: int) -> dict[str, Any]:
        workload = regression()
        noisy = replace(workload, train_data=Augmented(workload.train_data), val_data=Augmented(workload.val_data))
        return figures(train(noisy, make_task(loader_workers=workers, accumulate=2), make_trial(max_steps=35)))

    in_loop = curve(0)
    assert curve(2) == in_loop
    assert not multiprocessing.active_children()
    assert in_loop != figures(train(regression(), make_task(accumulate=2), make_trial(max_steps=35)))


def test_the_processes_that_load_end_with_a_trial_that_is_cut_short() -> None:
    training = Training(regression(), make_task(loader_workers=2, report_every=5), make_trial(), CPU)
    training.run()
    assert len(multiprocessing.active_children()) == 2
    del training
    assert not multiprocessing.active_children()


def test_part_of_the_validation_data_lies_evenly_over_all_of_it(tmp_path: Path) -> None:
    """The same items at each report; a confirmation reads all."""
    workload = regression(val=37)
    inputs, targets = workload.val_data.tensors  # type: ignore[attr-defined]

    def val_loss(phase: str, items: int) -> float:
        trial = make_trial(phase=phase, checkpoint=str(tmp_path))
        return train(workload, make_task(val_items=items), trial)[-1].metrics["val_loss"]

    def expected(chosen: list[int]) -> float:
        with torch.inference_mode():
            outputs = restored(workload, tmp_path)(inputs[chosen])
            mean: float = (outputs - targets[chosen]).double().square().mean().item()
            return mean

    assert val_loss("search", 5) == pytest.approx(expected([0, 7, 14, 22, 29]), rel=1e-6)
    everything = pytest.approx(expected(list(range(37))), rel=1e-6)
    assert val_loss("search", 1000) == everything
    assert val_loss("confirm", 5) == everything


class Scattering(nn.Module):
    """Uses an operation that torch has no deterministic algorithm for."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        weights = torch.ones(8).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
        outputs: Tensor = self.linear(inputs * weights)
        return outputs


def test_deterministic_mode_is_set_and_reset_with_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what it sets for the process, put back at the end
    try:
        Training(regression(), make_task(deterministic=True), make_trial(), CPU).run()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        with pytest.raises(InputError, match=r"^workload: the model, .*does not have a deterministic implementation"):
            first_batch(regression(model=Scattering), deterministic=True)
    finally:
        Training(regression(), make_task(), make_trial(), CPU).run()
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
    first_batch(regression(model=Scattering))


class Reads(TorchFunctionMode):
    """Counts what would make the host wait for a GPU: reading a tensor's value."""

    _READS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "__array__")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(function, "__name__", "") in self._READS
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "details",
    [{}, {"accumulate": 2, "clip_norm": 1.0, "precision": "bf16"}, {"optimizer": {"name": "adamw"}}],
)
def test_losses_are_read_once_in_so_many_steps(details: dict[str, Any]) -> None:
    """And once a validation: nothing else waits for the device. Adam counts its steps on the host."""
    training = Training(smooth(), make_task(report_every=40, **details), make_trial(max_steps=40), CPU)
    with Reads() as reads:
        training.run()
    of_adam = 40 * 4 if "optimizer" in details else 0
    assert reads.count == math.ceil(40 / STEPS_PER_READ) + 1 + of_adam


DETAILS: dict[str, Any] = {
    "accumulate": 2,
    "clip_norm": 0.3,
    "precision": "bf16",
    "decay_norms_and_biases": False,
    "loader_workers": 1,
    "val_items": 20,
    "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1},
}


def test_a_trial_with_every_detail_gives_the_same_curve_again_bit_for_bit() -> None:
    task, trial = make_task(**DETAILS), make_trial(max_steps=35)
    first = figures(train(regression(), task, trial))
    train(regression(), make_task(optimizer={"name": "adamw"}, report_every=7), make_trial(seed=9, max_steps=9))
    assert figures(train(regression(), task, trial)) == first


# --- reports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr_schedule", BY_STEP)
def test_points_hold_the_step_from_1_and_the_lr_of_the_schedule(lr_schedule: str) -> None:
    reports = train(regression(), trial=make_trial(lr_schedule=lr_schedule, max_steps=40))
    schedule = make_lr_schedule(lr_schedule, {}, 40)
    assert [step for report in reports for step, _, _ in report.points] == list(range(1, 41))
    assert lrs(reports) == [schedule.lr(LR, step) for step in range(40)]


def test_gamma_per_epoch_counts_the_epochs_of_the_workload() -> None:
    reports = train(
        regression(), trial=make_trial(lr_schedule="exponential", parameters={"gamma_per_epoch": 0.5}, max_steps=13)
    )
    assert lrs(reports)[12] == pytest.approx(LR / 4)  # 200 items: 6 batches of 32 an epoch
    assert reports[0].facts is not None
    assert reports[0].facts.steps_per_epoch == 6


@pytest.mark.parametrize(
    ("max_steps", "report_every", "steps"),
    [(50, 20, [20, 40, 50]), (40, 20, [20, 40]), (5, 20, [5]), (3, 1, [1, 2, 3]), (35, 17, [17, 34, 35])],
)
def test_reports_come_every_so_many_steps_and_at_the_end(max_steps: int, report_every: int, steps: list[int]) -> None:
    reports = train(regression(), make_task(report_every=report_every), make_trial(max_steps=max_steps))
    assert [report.step for report in reports] == steps
    assert [report.points[-1][0] for report in reports] == steps
    assert all(report.metrics.keys() == {"val_loss", "val_error"} for report in reports)
    assert [report.over for report in reports] == [False] * (len(steps) - 1) + [True]
    assert not any(report.diverged for report in reports)


def test_facts_say_what_only_a_worker_knows() -> None:
    (report,) = train(regression(), make_task(batch_size=50), make_trial(max_steps=4))
    assert report.facts == TrialFacts(
        batch_size=50,
        steps_per_epoch=4,
        optimizer="SGD",
        cycles_momentum=True,
        metrics=("val_loss", "val_error"),
        device="cpu",
    )
    assert report.seconds > 0


# --- validation, checkpoints ------------------------------------------------------------------------------------------


def restored(workload: Workload, checkpoint: Path) -> nn.Module:
    model = workload.model()
    model.load_state_dict(load_file(checkpoint / MODEL_FILE))
    return model.eval()


def test_validation_is_the_mean_over_all_items_whatever_the_batch(tmp_path: Path) -> None:
    workload = regression(val=37)  # one batch of 32 and one of 5
    last = train(workload, trial=make_trial(checkpoint=str(tmp_path)))[-1]
    with torch.inference_mode():
        inputs, targets = workload.val_data.tensors  # type: ignore[attr-defined]
        errors = (restored(workload, tmp_path)(inputs) - targets).double()
    assert last.metrics["val_loss"] == pytest.approx(errors.square().mean().item(), rel=1e-6)
    assert last.metrics["val_error"] == pytest.approx(errors.abs().mean().item(), rel=1e-6)


def test_validation_weighs_batches_by_their_tokens(tmp_path: Path) -> None:
    workload = sentences()
    last = train(workload, trial=make_trial(checkpoint=str(tmp_path)))[-1]
    model, total, tokens = restored(workload, tmp_path), 0.0, 0
    with torch.inference_mode():
        for item in workload.val_data:  # type: ignore[attr-defined]
            loss = model(item["tokens"].unsqueeze(0), item["labels"].unsqueeze(0))["loss"]
            count = int((item["labels"] != 0).sum())
            total, tokens = total + (loss.item() * count if count else 0.0), tokens + count
    assert last.metrics["val_loss"] == pytest.approx(total / tokens, rel=1e-6)


def test_a_checkpoint_is_whole_and_is_tested_on_the_test_data(tmp_path: Path) -> None:
    workload, folder = regression(), tmp_path / "checkpoint"
    training = Training(workload, make_task(), make_trial(checkpoint=str(folder)), CPU)
    while not training.run().over:
        assert not folder.exists()
    assert [path.name for path in folder.iterdir()] == [MODEL_FILE]
    assert load_file(folder / MODEL_FILE).keys() == workload.model().state_dict().keys()
    expected = training.evaluate(workload.test_data, "test")  # type: ignore[arg-type]
    assert expected.keys() == {"test_loss", "test_error"}

    tester = make_trial(phase="test", seed=8, checkpoints=(str(folder), str(folder)))
    report = Training(workload, make_task(), tester, CPU).test()
    assert report.test_values == (expected, expected)
    assert report.over


def test_without_test_data_nothing_is_tested(tmp_path: Path) -> None:
    workload = regression(test_data=None)
    train(workload, trial=make_trial(checkpoint=str(tmp_path)))
    report = Training(workload, make_task(), make_trial(phase="test", checkpoints=(str(tmp_path),)), CPU).test()
    assert (report.test_values, report.over) == ((), True)


def test_batch_norm_trains_on_a_cpu_and_stays_batch_norm(tmp_path: Path) -> None:
    workload = regression()
    reports = train(workload, trial=make_trial(max_steps=124, checkpoint=str(tmp_path)))
    assert reports[-1].metrics["val_loss"] < 0.8 * reports[0].points[0][2]
    state = load_file(tmp_path / MODEL_FILE)
    assert int(state["1.num_batches_tracked"]) == 124
    assert state["1.running_mean"].abs().max() > 0


# --- what a workload may be -------------------------------------------------------------------------------------------


def test_a_mapping_batch_goes_in_by_its_keys_and_is_collated_by_the_workload() -> None:
    seen: list[set[str]] = []

    def collate(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        seen.append({*items[0]})
        return pad(items)

    workload = Workload(
        model=Tagger,
        train_data=Sentences(64, 1),
        val_data=Sentences(20, 2),
        criterion=lambda outputs, batch: outputs["loss"],
        batch_size=16,
        collate_fn=collate,
    )
    reports = train(workload, trial=make_trial(lr=0.5))
    assert reports[-1].metrics["val_loss"] < 0.7 * losses(reports)[0]
    assert len(seen) == 62 + 2 * 2
    assert all(keys == {"tokens", "labels"} for keys in seen)


def test_default_collation_of_items_equals_the_fast_path_of_tensors() -> None:
    """A data set of (input, target) items, and the same items as a TensorDataset."""
    workload = regression()
    as_items = regression(train_data=list(workload.train_data), val_data=list(workload.val_data))  # type: ignore[call-overload]
    assert figures(train(as_items)) == figures(train(workload))


def test_a_workload_s_own_forward_is_used_in_training_and_validation() -> None:
    def doubled(data: Any) -> TensorDataset:
        return TensorDataset(data.tensors[0] * 2, data.tensors[1])

    plain = regression()
    fed = regression(train_data=doubled(plain.train_data), val_data=doubled(plain.val_data))
    own = regression(forward=lambda model, batch: model(batch[0] * 2))
    assert figures(train(own)) == figures(train(fed))
    assert figures(train(own)) != figures(train(plain))


# --- divergence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("bad", [2, 16, 17, 40])
def test_a_trial_ends_at_the_step_that_diverged(factor: float, bad: int, tmp_path: Path) -> None:
    steps = itertools.count(1)

    def criterion(outputs: Tensor, batch: Batch) -> Tensor:
        training = torch.is_grad_enabled()
        return mean_square(outputs, batch) * (factor if training and next(steps) == bad else 1.0)

    workload = regression(criterion=criterion, model=lambda: nn.Linear(8, 1))
    reports = train(workload, trial=make_trial(checkpoint=str(tmp_path / "checkpoint")))
    last = reports[-1]
    assert (last.step, last.over, last.diverged, last.metrics) == (bad, True, True, {})
    assert [step for report in reports for step, _, _ in report.points] == list(range(1, bad + 1))
    assert not losses(reports)[-1] < 1e20  # the loss itself is kept
    assert all(math.isfinite(loss) for loss in losses(reports)[:-1])
    assert not any(report.diverged for report in reports[:-1])
    assert not (tmp_path / "checkpoint").exists()


def test_a_loss_that_explodes_while_finite_has_diverged() -> None:
    last = train(regression(model=lambda: nn.Linear(8, 1)), trial=make_trial(lr=10.0))[-1]
    assert last.diverged
    assert last.step < 31
    assert 1e3 < last.points[-1][2] < math.inf


def test_a_validation_that_is_not_finite_ends_the_trial() -> None:
    """Data that holds NaN is at fault itself. A model whose weights are no longer finite has diverged."""
    val_data = TensorDataset(torch.zeros(40, 8), torch.zeros(40, 1))
    val_data.tensors[0][35, 3] = math.nan
    (report,) = train(regression(val_data=val_data))
    assert (report.step, report.over, report.diverged, report.metrics) == (31, True, False, {})
    assert report.failure == (
        "val_loss is not a number at step 31; the training losses were finite: batch 2 of 2 of val_data: its tensor 0 "
        "(float32 [8, 8]) holds NaN in 1 of 64 values"
    )
    assert len(report.points) == 31

    class Breaks(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            if not self.training:
                self.weight.data.fill_(math.inf)
            return super().forward(inputs)

    (report,) = train(regression(model=lambda: Breaks(8, 1)))
    assert (report.over, report.diverged, report.failure) == (True, True, "")


# --- the ramp of a range test -----------------------------------------------------------------------------------------


def test_a_ramp_trains_along_its_lrs_and_stops_where_the_detector_says() -> None:
    ramp = Ramp(1e-4, 100.0, 200)
    spec = make_trial(phase="range_test", ramp=ramp, max_steps=ramp.steps, lr=0.0, lr_schedule="")
    reports = train(regression(model=lambda: nn.Linear(8, 1)), trial=spec)
    last = reports[-1]
    assert lrs(reports) == [ramp.lr(step) for step in range(last.step)]
    assert last.over
    assert last.diverged
    assert 31 < last.step < 200
    assert DivergenceDetector().update(losses(reports)) == last.step - 1
    assert DivergenceDetector().update(losses(reports)[:-1]) is None
    assert not any(report.metrics for report in reports)


def test_a_ramp_that_does_not_diverge_runs_to_its_end_without_validation() -> None:
    ramp = Ramp(1e-6, 1e-3, 50, mode="linear")
    spec = make_trial(phase="range_test", ramp=ramp, max_steps=ramp.steps, lr=0.0, lr_schedule="")
    reports = train(regression(), trial=spec)
    assert [(report.step, report.over, report.diverged) for report in reports] == [
        (31, False, False),
        (50, True, False),
    ]
    assert lrs(reports) == [ramp.lr(step) for step in range(50)]
    assert not any(report.metrics for report in reports)


# --- one rank against two ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("two")
    script = SUPPORT / "two_ranks.py"
    port = free_port()
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), "2", str(port), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    try:
        one = json.loads(json.dumps(run_all(1, tmp_path_factory.mktemp("one"))))
        for rank in ranks:
            output, _ = rank.communicate(timeout=300)
            assert rank.returncode == 0, output
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return one, json.loads((folder / "reports.json").read_text()), folder


@pytest.mark.parametrize(
    ("name", "steps", "reports"), [("lenet5", 300, 5), ("tokens", 62, 2), ("details", 62, 2), ("odd", 62, 2)]
)
def test_two_ranks_train_as_one_does(
    name: str, steps: int, reports: int, one_and_two: tuple[dict[str, Any], dict[str, Any], Path]
) -> None:
    """At a stable LR. "tokens": also where one rank's share of a batch holds more tokens than the other's."""
    one, two, _ = one_and_two
    assert len(one[name]["points"]) == steps
    assert len(one[name]["metrics"]) == reports
    assert one[name]["ends"] == two[name]["ends"]
    for left, right in zip(one[name]["points"], two[name]["points"], strict=True):
        assert right == pytest.approx(left, rel=0, abs=1e-5)
    for before, after in zip(one[name]["metrics"], two[name]["metrics"], strict=True):
        assert after == pytest.approx(before, rel=0, abs=1e-5)


def test_two_ranks_validate_every_item_once(one_and_two: tuple[dict[str, Any], dict[str, Any], Path]) -> None:
    """37 items do not divide by 2."""
    _, two, folder = one_and_two
    workload = regression(model=lambda: nn.Linear(8, 1))
    with torch.inference_mode():
        inputs, targets = workload.val_data.tensors  # type: ignore[attr-defined]
        expected = (restored(workload, folder / "odd")(inputs) - targets).double().square().mean().item()
    assert two["odd"]["metrics"][-1]["val_loss"] == pytest.approx(expected, rel=1e-6)


# --- what is refused before anything trains ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "trial", "expected"),
    [
        ({"batch_size": 33, "workers_per_trial": 2}, {}, "batch_size: must be a multiple of "
         "scaling.workers_per_trial 2 (got 33)"),
        ({"batch_size": 256}, {}, "batch_size: the training data has 200 items, fewer than one batch of 256"),
        ({"metric": "val_accuracy"}, {}, "metric.name: the workload does not measure it (got 'val_accuracy'); "
         "it has val_loss, val_error"),
        ({"optimizer": {"name": "sdg"}}, {}, "optimizer.name: no such optimizer (got 'sdg'); did you mean 'sgd'?"),
        ({"optimizer": {"name": "sgd", "momentum": -1}}, {}, "optimizer: SGD refuses its arguments"),
        ({"optimizers_to_try": ({"momentum": 0.9}, {"momentum": -1})}, {}, "parameters.optimizer: SGD refuses"),
        ({"optimizers_to_try": ({"momentom": 0.9},)}, {}, "parameters.optimizer.momentom: SGD has no such argument"),
        ({"optimizers_to_try": ({"name": "adamw", "momentum": 0.9},)}, {},
         "parameters.optimizer.choices.adamw.momentum: AdamW has no such argument"),
        ({"optimizers_to_try": ({"name": "adam", "eps": -1.0},)}, {},
         "parameters.optimizer.choices.adam: Adam refuses"),
        ({"optimizers_to_try": ({"name": "adamv"},)}, {}, "parameters.optimizer.choices.adamv: no such optimizer"),
        ({"batch_size": 32, "batch_sizes": (32, 256)}, {},
         "parameters.batch_size: the training data has 200 items, fewer than one batch of 256"),
        ({}, {"lr_schedule": "cyclic", "parameters": {"mode": "triangular2", "step_size_up": 2}, "max_steps": 5000},
         "lr_schedule cyclic: triangular2 halves"),
    ],
)  # fmt: skip
def test_what_contradicts_the_workload_is_refused(task: dict[str, Any], trial: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        check_task(regression(), make_task(**task), make_trial(**trial))
    assert str(caught.value).startswith(expected)
    assert len(str(caught.value).splitlines()) == 1


PIPELINE = {
    "plugin": "hybrid_parallel",
    "plugin_args": {"pp_size": 2, "num_microbatches": 2},
    "workers_per_trial": 2,
    "gpus_per_worker": 1.0,
}


@pytest.mark.parametrize(
    ("workload", "task", "expected"),
    [
        (regression, PIPELINE, "scaling.plugin_args.pp_size: a pipeline takes batches that are mappings (got list)"),
        (lambda: replace(sentences(), forward=lambda model, batch: model(**batch)), PIPELINE,
         "scaling.plugin_args.pp_size: a pipeline calls the model itself"),
        (lambda: replace(sentences(), val_data=Sentences(15, 2)), PIPELINE,
         "scaling.plugin_args.pp_size: a pipeline validates on whole batches: val_data has 15 items, fewer than one"),
        (lambda: regression(param_groups=two_groups), {"plugin": "fsdp"},
         "scaling.plugin: 'fsdp' does not go with the workload's param_groups"),
        (regression, {"accumulate": 3}, "batch_size: must be a multiple of training.accumulate 3 (got 32)"),
    ],
)  # fmt: skip
def test_what_a_plugin_cannot_do_with_the_workload_is_refused(
    workload: Callable[[], Workload], task: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_task(workload(), make_task(**task), make_trial())
    assert str(caught.value).startswith(expected)
    assert len(str(caught.value).splitlines()) == 1


def test_what_fits_the_workload_passes() -> None:
    check_task(regression(), make_task(batch_size=200, workers_per_trial=2, metric="val_error"), make_trial())


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a machine without GPUs these plugins are refused")
@pytest.mark.parametrize("plugin", ["low_level_zero", "gemini", "fsdp", "hybrid_parallel"])
def test_a_plugin_that_wants_a_gpu_is_refused_without_one(plugin: str) -> None:
    from tune_lr.worker import colossal

    with pytest.raises(InputError) as caught:
        colossal.check_plugin(make_task(plugin=plugin))
    assert str(caught.value) == (f"scaling.plugin: {plugin!r} needs a GPU and this worker has none; on CPUs use 'ddp'")


def test_plugin_arguments_are_checked() -> None:
    from tune_lr.worker import colossal

    colossal.check_plugin(make_task(plugin_args={"broadcast_buffers": False}))
    with pytest.raises(InputError, match=r"^scaling\.plugin_args: .*'bucket_capacity'"):
        colossal.check_plugin(make_task(plugin_args={"bucket_capacity": 1}))
