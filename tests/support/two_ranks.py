"""Trainings that are run with one rank and with two, and one rank of them as a process.

    python two_ranks.py RANK WORLD PORT FOLDER

Rank 0 leaves FOLDER/reports.json. Imported, this is the same code for a group of one in the test's own process.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from tune_lr.config.task import Task
from tune_lr.config.training import Scaling, TrainingDetails
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.worker.rehearsal import rehearse
from tune_lr.worker.training import Training
from tune_lr.workloads import Batch, Workload
from tune_lr.workloads.first_batch import check_data
from tune_lr.workloads.lenet5 import mnist_5k


class Sentences(Dataset[dict[str, Tensor]]):
    """Token sequences of very different lengths, so that a mean of means is far from the mean."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, 12, (count,), generator=generator).tolist()
        self._items = [torch.randint(1, 10, (length,), generator=generator) for length in lengths]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens = self._items[index]
        return {"tokens": tokens, "labels": (3 * tokens + 1) % 10}


class Tagger(nn.Module):
    """Predicts a label for each token; padding is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.head = nn.Linear(6, 10)

    def forward(self, tokens: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.head(self.embed(tokens))
        return {"loss": functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=0)}


def pad(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: nn.utils.rnn.pad_sequence([item[name] for item in items], batch_first=True) for name in items[0]}


def sentences() -> Workload:
    return Workload(
        model=Tagger,
        train_data=Sentences(64, 1),
        val_data=Sentences(37, 2),
        criterion=lambda outputs, batch: outputs["loss"],
        batch_size=16,
        collate_fn=pad,
        batch_weight=lambda batch: float((batch["labels"] != 0).sum()),
    )


def mean_square(outputs: Tensor, batch: Batch) -> Tensor:
    return functional.mse_loss(outputs, batch[1])


def regression(val: int = 37, **changes: Any) -> Workload:
    """A small net with everything that could leak from one trial into the next: batch statistics and dropout."""
    generator = torch.Generator().manual_seed(5)

    def data(count: int) -> TensorDataset:
        inputs = torch.randn(count, 8, generator=generator)
        return TensorDataset(inputs, torch.sin(inputs @ torch.linspace(-1, 1, 8).unsqueeze(1)))

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.25), nn.Linear(16, 1))

    return Workload(
        **{
            "model": model,
            "train_data": data(200),
            "val_data": data(val),
            "test_data": data(41),
            "criterion": mean_square,
            "metrics": {"error": lambda outputs, batch: (outputs - batch[1]).abs().mean()},
            "batch_size": 32,
            **changes,
        }
    )


def make_task(**changes: Any) -> Task:
    """A task for one worker. `changes` are fields of Task, or of its sections `training` and `scaling`."""
    training = {name: changes.pop(name) for name in TrainingDetails.model_fields if name in changes}
    scaling = {name: changes.pop(name) for name in Scaling.model_fields if name in changes}
    return Task(
        **{
            "workload": "two_ranks:regression",
            "workload_args": {},
            "batch_size": None,
            "metric": "val_loss",
            "report_every": 31,
            "optimizer": {"name": "sgd", "momentum": 0.9},
            "training": TrainingDetails(**training),
            "scaling": Scaling(**{"timeout_s": 60.0, **scaling}),
            **changes,
        }
    )


def make_trial(**changes: Any) -> TrialSpec:
    return TrialSpec(
        **{
            "number": 7,
            "phase": "search",
            "seed": 3,
            "max_steps": 62,
            "lr": 0.05,
            "lr_schedule": "constant",
            "parameters": {},
            **changes,
        }
    )


def first_batch(workload: Workload, **changes: Any) -> None:
    """Check a workload as a worker does before any trial: its first batches, and all that a trial does with one."""
    check_data(workload)
    rehearse(workload, make_task(**changes), make_trial(), torch.device("cpu"))


def train(workload: Workload, task: Task | None = None, trial: TrialSpec | None = None) -> list[Report]:
    """The reports of one trial, to its end."""
    training = Training(workload, task or make_task(), trial or make_trial(), torch.device("cpu"))
    reports = [training.run()]
    while not reports[-1].over:
        reports.append(training.run())
    return reports


def figures(reports: list[Report]) -> dict[str, Any]:
    """What a trial measured, without how long it took."""
    return {
        "points": [list(point) for report in reports for point in report.points],
        "metrics": [{"step": report.step, **report.metrics} for report in reports],
        "ends": [[report.over, report.diverged] for report in reports],
    }


def run_all(workers: int, folder: Path) -> dict[str, Any]:
    """Each training once, with the same global batch however many workers there are."""
    lenet5 = make_task(report_every=60, workers_per_trial=workers)
    plain = regression(model=lambda: nn.Linear(8, 1))
    return {
        "lenet5": figures(train(mnist_5k(val=499), lenet5, make_trial(lr=0.02, max_steps=300))),
        "tokens": figures(train(sentences(), make_task(workers_per_trial=workers), make_trial(lr=0.1))),
        "details": figures(
            train(sentences(), make_task(workers_per_trial=workers, accumulate=4, clip_norm=0.1), make_trial(lr=0.1))
        ),
        "odd": figures(train(plain, make_task(workers_per_trial=workers), make_trial(checkpoint=str(folder / "odd")))),
    }


if __name__ == "__main__":
    from tune_lr.worker import colossal

    rank, world, port = map(int, sys.argv[1:4])
    torch.set_num_threads(1)
    colossal.launch(rank, world, "127.0.0.1", port)
    results = run_all(world, Path(sys.argv[4]))
    if rank == 0:
        (Path(sys.argv[4]) / "reports.json").write_text(json.dumps(results))
