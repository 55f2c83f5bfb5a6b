"""gpt_bytes: which text it reads, in which order, and how its model is trained."""

import math
import os
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import tune_lr
from tune_lr.errors import InputError
from tune_lr.worker.optimizers import make_optimizer
from tune_lr.workloads import Workload, load_batch, outputs_of
from tune_lr.workloads.gpt_bytes import gpt_bytes
from two_ranks import first_batch

SMALL: Mapping[str, Any] = {"context": 8, "layers": 1, "heads": 1, "width": 8, "max_bytes": 480, "val_windows": 5}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Twenty files of 50 bytes, each filled with a letter of its own, in two folders; and what is not to be read."""
    folder = tmp_path / "texts"
    for number in range(20):
        path = folder / ("a" if number % 3 else "b/c") / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([65 + number]) * 50)
    (folder / ".git").mkdir()
    for hidden in (folder / ".git" / "config.txt", folder / ".notes.txt", folder / "notes.md"):
        hidden.write_text("not to be read")
    (folder / "nowhere.txt").symlink_to(folder / "absent")
    return folder


def text_of(data: Any) -> bytes:
    return b"".join(bytes(item["input_ids"].tolist()) for item in data)


def parts(workload: Workload) -> tuple[bytes, bytes, bytes]:
    return text_of(workload.train_data), text_of(workload.val_data), text_of(workload.test_data)


def test_so_many_bytes_are_read_and_divided_into_windows(texts: Path) -> None:
    """480 bytes: nine whole files of 51 bytes, each with the 0 that ends it, and a part of a tenth."""
    train, val, test = parts(gpt_bytes(str(texts), "*.txt", **SMALL))
    assert [len(part) for part in (train, val, test)] == [400, 40, 40]
    counts = Counter(train + val + test)
    assert counts.pop(0) == 9
    assert sorted(counts.values()) == [21, *[50] * 9]
    assert all(65 <= letter < 85 for letter in counts)
    assert sorted(counts) != list(range(65, 75))  # not the first ten by name
    assert parts(gpt_bytes(str(texts), "*.txt", **SMALL)) == (train, val, test)


def test_one_file_is_enough_and_a_tenth_of_it_validates(texts: Path) -> None:
    (texts / "whole.text").write_bytes(bytes(range(1, 161)))
    train, val, test = parts(gpt_bytes(str(texts), "whole.text", **SMALL))  # 161 bytes: 20 windows
    assert [len(part) for part in (train, val, test)] == [128, 16, 16]
    assert sorted(train + val + test) == list(range(1, 161))


def test_the_order_does_not_depend_on_that_of_the_disk(texts: Path, tmp_path: Path) -> None:
    """The same files, made in another order in another place."""
    other = tmp_path / "other"
    for path in sorted(texts.rglob("*.txt"), reverse=True):
        if path.is_file():
            copy = other / path.relative_to(texts)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    assert parts(gpt_bytes(str(other), **SMALL)) == parts(gpt_bytes(str(texts), "*.txt", **SMALL))


def test_by_default_it_reads_the_sources_of_the_standard_library() -> None:
    workload = gpt_bytes()
    assert [len(data) for data in (workload.train_data, workload.val_data)] == [30750, 250]  # type: ignore[arg-type]
    train, val, test = parts(gpt_bytes(max_bytes=200_000))
    assert len(train) == 168_000
    assert all(b"self" in part and b"return" in part for part in (train, val, test))
    item = workload.train_data[0]
    assert torch.equal(item["input_ids"], item["labels"])
    assert item["input_ids"].dtype == torch.int64


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"root": "/nowhere"}, "root: no folder '/nowhere' on node {node}; data is not sent to nodes: give a path that "
         "every node sees"),
        ({"pattern": "*.rst"}, "root: no file below '{root}' matches '*.rst' on node {node}; data is not sent "),
        ({"pattern": "1.txt"}, "root: too little text on node {node}: 51 bytes below '{root}'; at least 80 are "
         "needed, ten windows of 8 (context)"),
        ({"width": 10, "heads": 3}, ": sizes must be positive and width a multiple of heads (got width 10, heads 3)"),
        ({"layers": 0}, ": sizes must be positive and width a multiple of heads (got width 8, heads 1)"),
    ],
)  # fmt: skip
def test_what_it_cannot_read_is_refused_in_one_line(texts: Path, arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        gpt_bytes(**{"root": str(texts), **SMALL, **arguments})
    shown = expected.format(root=texts, node=socket.gethostname())
    assert str(caught.value).startswith(f"workload_args{shown}" if shown[0] == ":" else f"workload_args.{shown}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_cannot_be_read_is_named(texts: Path) -> None:
    (texts / "a" / "1.txt").chmod(0)
    with pytest.raises(InputError, match=r"^workload_args.root: '.*1.txt' cannot be read"):
        gpt_bytes(str(texts), "1.txt", **SMALL)


@pytest.mark.usefixtures("group_of_one")
def test_it_learns_and_decays_matrices_alone(texts: Path) -> None:
    workload = gpt_bytes(str(texts), "*.txt", **SMALL)
    first_batch(workload)
    torch.manual_seed(0)
    model = workload.model()
    assert workload.param_groups is not None
    optimizer = make_optimizer("adamw", {"weight_decay": 0.1}, workload.param_groups(model))
    decayed, kept = ([id(parameter) for parameter in group["params"]] for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    for name, parameter in model.named_parameters():
        spared = name.endswith("bias") or ".ln_" in name
        assert id(parameter) in (kept if spared else decayed), name
    assert len(decayed) + len(kept) == len(list(model.parameters()))

    batch = load_batch(workload, workload.train_data, range(16))
    losses = []
    for _ in range(30):
        for group in optimizer.param_groups:
            group["lr"] = 0.02
        outputs = outputs_of(workload, model, batch)
        loss = workload.criterion(outputs, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(256), abs=0.3)  # it knows nothing
    assert losses[-1] < 0.5 * losses[0]
    assert workload.metrics["bits_per_byte"](outputs, batch).item() == pytest.approx(losses[-1] / math.log(2))
    # The same figure from the logits: each byte is predicted from those before it.
    expected = torch.nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    assert losses[-1] == pytest.approx(expected.item(), rel=1e-5)


def test_a_whole_study(tmp_path: Path) -> None:
    """Better than by the frequency of each byte alone (about 3.4 nats) is out of reach here; better than a guess
    (5.55) is not."""
    settings = {
        "workload_args": {**SMALL, "context": 32, "heads": 2, "width": 32, "max_bytes": 200_000, "val_windows": 64},
        **{"num_trials": 3, "max_steps": 60, "report_every": 30, "pruner": {"name": "asha", "reduction_factor": 2}},
        **{"range_test.steps": 100, "range_test.replicates": 1, "confirm": {"top": 1, "seeds": 2}},
        "scaling.max_concurrent": 1,
    }
    study = tune_lr.search("gpt_bytes", name="study", out=tmp_path, settings=settings, wandb="disabled")
    best = study.best
    assert best is not None
    assert best["mean"] < 4
    assert best["test"]["bits_per_byte"] == pytest.approx(best["test"]["loss"] / math.log(2), rel=1e-6)
    assert not any(row.state == "failed" for row in study.rows)
    for row in study.rows:
        if row.state == "complete" and row.phase != "range_test":
            assert row.metrics["val_bits_per_byte"] == pytest.approx(row.metrics["val_loss"] / math.log(2), rel=1e-6)
