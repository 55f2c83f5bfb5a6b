"""The training loop, on real models, ColossalAI and a process group of one; and two ranks against one.

Where a figure can be known otherwise, it is computed otherwise: by a plain PyTorch loop with torch's own schedulers.
"""

import itertools
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
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
from torch.utils.data import TensorDataset

from tune_lr.checks import check_task
from tune_lr.errors import InputError
from tune_lr.lr_range_test import DivergenceDetector, Ramp
from tune_lr.lr_schedules import SCHEDULES, make_lr_schedule
from tune_lr.training import MODEL_FILE, Training
from tune_lr.trial import Report
from tune_lr.workloads import Batch, Workload
from two_ranks import (
    Sentences,
    Tagger,
    figures,
    make_task,
    make_trial,
    mean_square,
    pad,
    regression,
    run_all,
    sentences,
    train,
)

LR, STEPS = 0.05, 62
CPU = torch.device("cpu")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module", autouse=True)
def group_of_one() -> Iterator[None]:
    from tune_lr import colossal

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    colossal.launch(0, 1, "127.0.0.1", free_port())
    yield
    dist.destroy_process_group()
    torch.set_num_threads(threads)


def losses(reports: list[Report]) -> list[float]:
    return [loss for report in reports for _, _, loss in report.points]


def lrs(reports: list[Report]) -> list[float]:
    return [lr for report in reports for _, lr, _ in report.points]


# --- nothing leaks from trial to trial --------------------------------------------------------------------------------


@pytest.mark.parametrize("lr_schedule", ["constant", "onecycle", "cyclic"])
def test_a_trial_gives_the_same_curve_again_bit_for_bit(lr_schedule: str) -> None:
    """Also after another trial, which left other random states, momenta, and weights behind."""
    workload, trial = regression(), make_trial(lr_schedule=lr_schedule)
    first = figures(train(workload, trial=trial))
    assert figures(train(workload, trial=trial)) == first
    other = make_task(optimizer="adamw", optimizer_args={}, report_every=7, batch_size=20)
    train(workload, other, make_trial(seed=99, lr=0.3, max_steps=33, lr_schedule="onecycle"))
    torch.rand(17)
    assert figures(train(workload, trial=trial)) == first


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
) -> list[float]:
    """What the trial computes, without ColossalAI, DDP and LR schedules of our own."""
    torch.manual_seed(seed)
    model = workload.model()
    optimizer = make_optimizer(model)
    scheduler = make_scheduler(optimizer)
    torch.manual_seed(seed)
    inputs, targets = workload.train_data.tensors  # type: ignore[attr-defined]
    generator, result = torch.Generator().manual_seed(seed), []
    while len(result) < STEPS:
        order = torch.randperm(len(inputs), generator=generator)
        for start in range(0, len(inputs) - workload.batch_size + 1, workload.batch_size):
            batch = order[start : start + workload.batch_size]
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(inputs[batch]), targets[batch])
            loss.backward()
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
    task = make_task(optimizer=optimizer, optimizer_args=arguments)
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
    reports = train(workload, make_task(optimizer_args={}), make_trial(lr=LR, lr_schedule="onecycle"))
    assert losses(reports) == pytest.approx(expected, rel=0, abs=1e-6)
    assert reports[0].facts["cycles_momentum"] is False


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
    assert reports[0].facts["steps_per_epoch"] == 6


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
    assert report.facts == {
        "batch_size": 50,
        "steps_per_epoch": 4,
        "optimizer": "SGD",
        "cycles_momentum": True,
        "metrics": ["val_loss", "val_error"],
        "device": "cpu",
    }
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
    val_data = TensorDataset(torch.zeros(10, 8), torch.full((10, 1), math.nan))
    (report,) = train(regression(val_data=val_data))
    assert (report.step, report.over, report.diverged, report.metrics) == (31, True, True, {})
    assert len(report.points) == 31


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
    script = Path(__file__).with_name("two_ranks.py")
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


@pytest.mark.parametrize(("name", "steps", "reports"), [("lenet5", 300, 5), ("tokens", 62, 2), ("odd", 62, 2)])
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
        ({"batch_size": 33, "workers": 2}, {}, "batch_size: 33 cannot be split evenly over "
         "scaling.workers_per_trial (got 2)"),
        ({"batch_size": 256}, {}, "batch_size: the training data has 200 items, fewer than one batch of 256"),
        ({"metric": "val_accuracy"}, {}, "metric.name: the workload does not measure it (got 'val_accuracy'); "
         "it has val_loss, val_error"),
        ({"optimizer": "sdg"}, {}, "optimizer.name: no such optimizer (got 'sdg'); did you mean 'sgd'?"),
        ({"optimizer_args": {"momentum": -1}}, {}, "optimizer: SGD refuses its arguments"),
        ({}, {"lr_schedule": "cyclic", "parameters": {"mode": "triangular2", "step_size_up": 2}, "max_steps": 5000},
         "lr_schedule cyclic: triangular2 halves"),
    ],
)  # fmt: skip
def test_what_contradicts_the_workload_is_refused(task: dict[str, Any], trial: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        check_task(regression(), make_task(**task), make_trial(**trial))
    assert str(caught.value).startswith(expected)
    assert len(str(caught.value).splitlines()) == 1


def test_what_fits_the_workload_passes() -> None:
    check_task(regression(), make_task(batch_size=200, workers=2, metric="val_error"), make_trial())


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a machine without GPUs these plugins are refused")
@pytest.mark.parametrize("plugin", ["low_level_zero", "gemini", "fsdp", "hybrid_parallel"])
def test_a_plugin_that_wants_a_gpu_is_refused_without_one(plugin: str) -> None:
    from tune_lr import colossal

    with pytest.raises(InputError) as caught:
        colossal.check_plugin(plugin, {})
    assert str(caught.value) == (f"scaling.plugin: {plugin!r} needs a GPU and this worker has none; on CPUs use 'ddp'")


def test_plugin_arguments_are_checked() -> None:
    from tune_lr import colossal

    colossal.check_plugin("ddp", {"broadcast_buffers": False})
    with pytest.raises(InputError, match="^scaling.plugin_args: .*'bucket_capacity'"):
        colossal.check_plugin("ddp", {"bucket_capacity": 1})
