"""The snippets of docs/after_the_search.md train with exactly the LRs and momenta of the schedule."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from paths import ROOT
from tune_lr.lr.schedule import make_lr_schedule

PAGE = ROOT / "docs" / "after_the_search.md"
STEPS = 60


def snippet(heading: str) -> str:
    found = re.search(rf"^### {heading}\n+```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found.group(1)


class Recording(nn.Module):
    """A model in the manner of transformers that keeps the LR and the momentum of each step's optimizer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = self.linear(x)
        return {"loss": nn.functional.mse_loss(outputs, labels), "logits": outputs}


class Steps:
    """Every LR and momentum with which some SGD has stepped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[float, float]] = []
        step = torch.optim.SGD.step

        def recorded(optimizer: torch.optim.SGD, closure: Callable[[], float] | None = None) -> Any:
            group = optimizer.param_groups[0]
            self.seen.append((group["lr"], group["momentum"]))
            return step(optimizer, closure)

        monkeypatch.setattr(torch.optim.SGD, "step", recorded)

    def check(self) -> None:
        schedule = make_lr_schedule("onecycle", {"pct_start": 0.3}, STEPS)
        expected = [(schedule.lr(0.2, step), schedule.momentum(step)) for step in range(STEPS)]
        assert self.seen == [pytest.approx(pair, rel=1e-9) for pair in expected]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


class Items(Dataset[dict[str, torch.Tensor]]):
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        inputs = torch.randn(8 * STEPS, 4, generator=generator)
        self.items = [{"x": x, "labels": x.sum().reshape(1)} for x in inputs]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.items[index]


def loss_of(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    loss: torch.Tensor = model(**batch)["loss"]
    return loss


def test_in_pytorch(steps: Steps) -> None:
    exec(snippet("PyTorch"), {"model": Recording(), "batches": DataLoader(Items(), 8), "loss_of": loss_of})
    steps.check()


def test_in_transformers(steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(snippet("transformers"), {"model": Recording(), "data": Items()})
    steps.check()


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and loggers
def test_in_lightning(steps: Steps, tmp_path: Path) -> None:
    import lightning

    names: dict[str, Any] = {"loss_of": loss_of}
    exec(snippet("Lightning"), names)
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(max_steps=STEPS, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    trainer.fit(names["Module"](Recording()), DataLoader(Items(), 8))
    steps.check()
