"""Workloads: the built-in ones on real digits, what a Workload refuses, and loading one by its name."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset, TensorDataset

from tune_lr.errors import InputError
from tune_lr.workloads import Workload, load_workload
from tune_lr.workloads.lenet5 import LeNet5, mnist, mnist_5k


def tensors(data: Any) -> tuple[Tensor, Tensor]:
    images, labels = data.tensors
    return images, labels


def rows(*parts: Any) -> set[bytes]:
    """Each image as bytes."""
    return {image.numpy().tobytes() for data in parts for image in tensors(data)[0]}


# --- mnist_5k ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Workload:
    return mnist_5k()


def test_mnist_5k_is_split_into_parts_that_share_no_image(digits: Workload) -> None:
    parts = (digits.train_data, digits.val_data, digits.test_data)
    assert [len(part) for part in parts] == [4000, 500, 500]  # type: ignore[arg-type]
    assert len(rows(*parts)) == len(rows(parts[0])) + len(rows(parts[1])) + len(rows(parts[2])) == 5000


def test_mnist_5k_is_normalised_and_shaped_for_the_model(digits: Workload) -> None:
    images, labels = tensors(digits.train_data)
    assert (images.dtype, images.shape) == (torch.float32, (4000, 1, 28, 28))
    assert (labels.dtype, labels.shape) == (torch.int64, (4000,))
    assert abs(images.mean().item()) < 0.02
    assert abs(images.std().item() - 1) < 0.02
    assert images.min().item() == pytest.approx(-0.1307 / 0.3081)  # black
    assert images.max().item() == pytest.approx((1 - 0.1307) / 0.3081)  # white
    assert LeNet5()(images[:3]).shape == (3, 10)


def test_every_part_of_mnist_5k_holds_the_ten_digits_alike(digits: Workload) -> None:
    for data, least in ((digits.train_data, 350), (digits.val_data, 30), (digits.test_data, 30)):
        counts = tensors(data)[1].bincount(minlength=10)
        assert counts.shape == (10,)
        assert counts.min() >= least


def test_the_shuffle_of_mnist_5k_is_fixed(digits: Workload) -> None:
    torch.manual_seed(123)
    again, shorter = mnist_5k(), mnist_5k(train=1000, val=77, test=3)
    assert all(torch.equal(a, b) for a, b in zip(tensors(again.val_data), tensors(digits.val_data), strict=True))
    assert torch.equal(tensors(shorter.train_data)[0], tensors(digits.train_data)[0][:1000])
    assert [len(tensors(part)[1]) for part in (shorter.val_data, shorter.test_data)] == [77, 3]
    assert tensors(digits.train_data)[1][:10].unique().numel() > 3  # not sorted by class


def test_images_of_mnist_5k_lie_under_their_labels(digits: Workload) -> None:
    """The nearest class mean says the right digit for most: pixels and labels belong together."""
    images, labels = tensors(digits.train_data)
    means = torch.stack([images[labels == digit].mean(0).flatten() for digit in range(10)])
    held_out, expected = tensors(digits.test_data)
    nearest = torch.cdist(held_out.flatten(1), means).argmin(1)
    assert (nearest == expected).float().mean() > 0.75


def test_the_loss_and_the_accuracy_are_means_over_the_batch(digits: Workload) -> None:
    labels = torch.tensor([1, 2, 3, 4])
    outputs = torch.full((4, 10), -100.0).scatter(1, torch.tensor([[1], [2], [3], [0]]), 100.0)
    assert digits.metrics["accuracy"](outputs, (None, labels)).item() == 0.75
    assert digits.criterion(outputs, (None, labels)).item() == pytest.approx(50.0)
    assert digits.criterion(torch.zeros(4, 10), (None, labels)).item() == pytest.approx(2.302585)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (4000, 500, 501), (-1, 1, 1)])
def test_sizes_that_do_not_fit_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(InputError) as caught:
        mnist_5k(*sizes)
    got = ", ".join(map(str, sizes))
    assert str(caught.value) == (f"workload_args: train, val, test (got {got}) must be positive, at most 5000 in all")


# --- mnist, from files in MNIST's own format --------------------------------------------------------------------------

TRAIN, TEST = 60, 20


def idx(values: Tensor) -> bytes:
    """The IDX format: two zeros, 8 for unsigned bytes, the number of dimensions, each as a big-endian int, the data."""
    sizes = struct.pack(f">{values.dim()}I", *values.shape)
    return struct.pack(">BBBB", 0, 0, 8, values.dim()) + sizes + values.numpy().tobytes()


def pixels(count: int, seed: int) -> Tensor:
    return torch.randint(0, 256, (count, 28, 28), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small MNIST as torchvision lays it out, unpacked; the first pixel of an image is its number."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count, seed in (("train", TRAIN, 1), ("t10k", TEST, 2)):
        images = pixels(count, seed)
        images[:, 0, 0] = torch.arange(count)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(idx((torch.arange(count) % 10).to(torch.uint8)))
    return tmp_path / "data"


def numbers(data: Any) -> list[int]:
    """The images' numbers, out of their first pixels."""
    return [round((image[0, 0, 0].item() * 0.3081 + 0.1307) * 255) for image in tensors(data)[0]]


def test_mnist_reads_the_files_and_holds_out_a_twelfth(root: Path) -> None:
    workload = mnist(str(root), batch_size=6)
    train, val, test = (numbers(part) for part in (workload.train_data, workload.val_data, workload.test_data))
    assert (len(train), len(val), test) == (55, 5, list(range(TEST)))
    assert sorted(train + val) == list(range(TRAIN))
    assert train != sorted(train)
    assert tensors(workload.train_data)[1].tolist() == [number % 10 for number in train]
    assert workload.batch_size == 6
    assert numbers(mnist(str(root)).val_data) == val


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def fewer_labels(path: Path) -> None:
    path.write_bytes(idx(torch.zeros(TRAIN - 7, dtype=torch.uint8)))


@pytest.mark.parametrize(
    ("file", "spoil", "what"),
    [
        ("train-images-idx3-ubyte", cut, "cannot be read"),
        ("t10k-images-idx3-ubyte", cut, "cannot be read"),
        ("train-labels-idx1-ubyte", empty, "cannot be read"),
        ("train-labels-idx1-ubyte", fewer_labels, f"is cut short ({TRAIN} training images, {TRAIN - 7} labels)"),
        ("t10k-labels-idx1-ubyte", fewer_labels, f"is cut short ({TEST} test images, {TRAIN - 7} labels)"),
        ("t10k-labels-idx1-ubyte", Path.unlink, "cannot be read (Dataset not found."),
    ],
)
def test_files_that_are_not_whole_are_refused(root: Path, file: str, spoil: Callable[[Path], None], what: str) -> None:
    spoil(root / "MNIST" / "raw" / file)
    with pytest.raises(InputError) as caught:
        mnist(str(root))
    assert str(caught.value).startswith(f"workload_args.root: MNIST under {str(root)!r} {what}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "content", [b"\x00\x00\x01\x07" + bytes(40), b"\x00\x00\x0d\x01" + struct.pack(">I", 4) + bytes(16)]
)
def test_files_of_another_format_are_refused(root: Path, content: bytes) -> None:
    (root / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(InputError, match="^workload_args.root: MNIST under "):
        mnist(str(root))


def test_a_root_without_mnist_is_refused_and_nothing_is_downloaded(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        mnist(str(tmp_path / "nowhere"))
    assert str(caught.value) == (
        f"workload_args.root: no MNIST under {str(tmp_path / 'nowhere')!r} "
        f"(looked for {tmp_path}/nowhere/MNIST/raw); give the directory that holds it, or download: true"
    )
    assert not list(tmp_path.iterdir())


# --- Workload ---------------------------------------------------------------------------------------------------------

ITEMS = TensorDataset(torch.zeros(4, 2), torch.zeros(4))


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter([torch.zeros(2)])


def make(**changes: Any) -> Workload:
    fields: dict[str, Any] = {
        "model": lambda: nn.Linear(2, 1),
        "train_data": ITEMS,
        "val_data": ITEMS,
        "criterion": lambda outputs, batch: outputs.mean(),
        "batch_size": 2,
    }
    return Workload(**{**fields, **changes})


def test_a_workload_needs_no_more_than_a_model_data_and_a_loss() -> None:
    workload = make()
    assert (workload.test_data, dict(workload.metrics), workload.collate_fn) == (None, {}, None)
    assert make(train_data=[1, 2], test_data=[3]).test_data == [3]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        *(
            ({name: Stream()}, f"{name} is an iterable-style data set (Stream); give a map-style one")
            for name in ("train_data", "val_data", "test_data")
        ),
        ({"train_data": iter([1])}, "train_data (got list_iterator) needs __getitem__ and __len__"),
        ({"val_data": None}, "val_data (got NoneType) needs __getitem__ and __len__"),
        ({"train_data": []}, "train_data is empty"),
        ({"test_data": TensorDataset(torch.zeros(0, 2))}, "test_data is empty"),
        ({"model": nn.Linear(2, 1)}, "model is a module; give a function that returns a fresh one for each trial"),
        ({"model": "lenet5"}, "model (got str) must be callable"),
        ({"criterion": None}, "criterion (got NoneType) must be callable"),
        ({"batch_size": 0}, "batch_size (got 0) must be a positive integer"),
        ({"batch_size": 1.5}, "batch_size (got 1.5) must be a positive integer"),
        ({"batch_size": "8"}, "batch_size (got '8') must be a positive integer"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_name(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        make(**changes)
    assert str(caught.value) == f"workload: {expected}"


# --- by name ----------------------------------------------------------------------------------------------------------

SOURCE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from tune_lr import Workload

def make_workload(size=4):
    data = TensorDataset(torch.zeros(size, 2), torch.zeros(size))
    return Workload(model=lambda: nn.Linear(2, 1), train_data=data, val_data=data,
                    criterion=lambda outputs, batch: outputs.mean(), batch_size=2)

def raises(**arguments):
    raise RuntimeError("no disk\\nno luck")

def returns_a_model():
    return nn.Linear(2, 1)

NUMBER = 5
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules, importable."""
    import sys

    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    (tmp_path / "w_good.py").write_text(SOURCE)
    (tmp_path / "w_needs.py").write_text("import no_such_package.part\n")
    (tmp_path / "w_broken.py").write_text("x = (\n")
    (tmp_path / "w_raises.py").write_text("1 / 0\n")
    (tmp_path / "w_wrong_name.py").write_text("from torch import no_such_name\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("w_"):
            del sys.modules[name]


def test_a_workload_is_loaded_by_its_name_with_its_arguments(modules: Path) -> None:
    assert len(load_workload("w_good:make_workload", {"size": 6}).train_data) == 6  # type: ignore[arg-type]
    assert len(load_workload("tune_lr.workloads.lenet5:mnist_5k", {"train": 9}).train_data) == 9  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reference", "arguments", "expected"),
    [
        ("w_absent:make_workload", {}, "workload: there is no module 'w_absent'; put the file beside the YAML "
         "or into the current directory"),
        ("w_good.part:make_workload", {}, "workload: there is no module 'w_good.part'; put the file beside the YAML "
         "or into the current directory"),
        ("tune_lr.workloads.resnet:f", {}, "workload: there is no module 'tune_lr.workloads.resnet'; put the file "
         "beside the YAML or into the current directory"),
        ("w_needs:make_workload", {}, "workload: w_needs needs the module 'no_such_package', which is not installed"),
        ("w_broken:make_workload", {}, "workload: importing w_broken raised SyntaxError: "),
        ("w_raises:make_workload", {}, "workload: importing w_raises raised ZeroDivisionError: division by zero"),
        ("w_wrong_name:f", {}, "workload: importing w_wrong_name raised ImportError: cannot import name"),
        ("w_good:make_workloads", {}, "workload: w_good has no function 'make_workloads'; did you mean "
         "'make_workload'?"),
        ("w_good:NUMBER", {}, "workload: w_good has no function 'NUMBER'"),
        ("w_good:raises", {"a": 1}, "workload: w_good:raises raised RuntimeError: no disk no luck "
         "(workload_args: {'a': 1})"),
        ("w_good:make_workload", {"sizes": 1}, "workload: w_good:make_workload raised TypeError: make_workload() got "
         "an unexpected keyword argument 'sizes'"),
        ("w_good:returns_a_model", {}, "workload: w_good:returns_a_model returned a Linear; it must return a "
         "tune_lr.Workload"),
        ("w_good:make_workload", {"size": 0}, "workload: train_data is empty"),
    ],
)  # fmt: skip
def test_what_is_no_workload_is_said_in_one_line(
    modules: Path, reference: str, arguments: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_workload(reference, arguments)
    assert str(caught.value).startswith(expected)
    assert len(str(caught.value).splitlines()) == 1
