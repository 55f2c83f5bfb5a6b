"""Workloads: the built-in ones, what a Workload refuses, loading one by its name, its first batch, the examples."""

import hashlib
import pickle
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset, default_collate

from paths import ROOT
from tune_lr.config.load import load_config
from tune_lr.errors import InputError
from tune_lr.worker.checks import check_task
from tune_lr.worker.optimizers import make_optimizer
from tune_lr.workloads import Batch, Workload, load_workload
from tune_lr.workloads.digits import digits as sklearn_digits
from tune_lr.workloads.lenet5 import LeNet5, mnist, mnist_5k
from tune_lr.workloads.resnet18_cifar10 import resnet18, resnet18_cifar10
from two_ranks import first_batch, make_task, make_trial, train


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
    with pytest.raises(InputError, match=r"^workload_args\.root: MNIST under "):
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
    held_out: Any = [3]
    assert make(train_data=[1, 2], test_data=held_out).test_data is held_out


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
        *(
            ({"metrics": {name: len}}, f"no metric can be called {name!r}; use letters, digits and _, but not loss")
            for name in ("loss", "top-5", "")
        ),
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


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits_are_split_into_parts_that_share_no_image_and_hold_the_classes_alike() -> None:
    workload = sklearn_digits()
    parts = (workload.train_data, workload.val_data, workload.test_data)
    assert [len(part) for part in parts] == [1197, 300, 300]  # type: ignore[arg-type]
    assert len(rows(*parts)) == sum(len(rows(part)) for part in parts)
    for part, least in zip(parts, (100, 15, 15), strict=True):
        assert tensors(part)[1].bincount(minlength=10).min() >= least
    assert torch.equal(tensors(sklearn_digits().train_data)[0], tensors(parts[0])[0])


@pytest.mark.usefixtures("group_of_one")
def test_digits_belong_to_their_labels_and_fit_the_model() -> None:
    """Classified by the nearest mean image of a class."""
    workload = sklearn_digits(hidden=5, layers=3)
    images, labels = tensors(workload.train_data)
    assert (images.dtype, tuple(images.shape[1:])) == (torch.float32, (64,))
    assert (images.min().item(), images.max().item()) == (-1, 1)
    means = torch.stack([images[labels == digit].mean(0) for digit in range(10)])
    held_out, expected = tensors(workload.test_data)
    assert (torch.cdist(held_out, means).argmin(1) == expected).float().mean() > 0.85
    assert [tuple(p.shape) for p in workload.model().parameters() if p.dim() > 1] == [(5, 64), (5, 5), (5, 5), (10, 5)]
    first_batch(workload)
    with pytest.raises(InputError, match=r"^workload_args: hidden and layers \(got 64, 0\) must be positive$"):
        sklearn_digits(layers=0)


# --- resnet18_cifar10, from files in CIFAR-10's own format ------------------------------------------------------------


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CIFAR-10 as it is distributed: five training batches and one of tests, pickled. An image's number, over
    all batches, is its first pixel."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    sums = {}
    generator = torch.Generator().manual_seed(0)
    for place, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        pixels = torch.randint(0, 256, (20, 3072), generator=generator, dtype=torch.uint8)
        pixels[:, 0] = torch.arange(20 * place, 20 * place + 20)
        labels = [number % 10 for number in range(20 * place, 20 * place + 20)]
        sums[name] = write_pickle(folder / name, {"data": pixels.numpy(), "labels": labels})
    sums["batches.meta"] = write_pickle(folder / "batches.meta", {"label_names": list("0123456789")})
    # torchvision reads what has the sums that it knows: of this file set, these.
    monkeypatch.setattr(CIFAR10, "train_list", [(name, sums[name]) for name in sums if name.startswith("data_")])
    monkeypatch.setattr(CIFAR10, "test_list", [("test_batch", sums["test_batch"])])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
    return tmp_path / "data"


def write_pickle(path: Path, content: dict[str, Any]) -> str:
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


def first_pixels(data: Any) -> list[int]:
    return [round((image[0, 0, 0].item() * 0.2470 + 0.4914) * 255) for image, _ in data]


def test_cifar10_is_read_and_a_tenth_is_held_out(cifar: Path) -> None:
    workload = resnet18_cifar10(str(cifar), augment=False)
    parts = (workload.train_data, workload.val_data, workload.test_data)
    train, val, test = map(first_pixels, parts)
    assert (len(train), len(val), test) == (90, 10, list(range(100, 120)))
    assert sorted(train + val) == list(range(100))
    assert train != sorted(train)
    for part, pixels in zip(parts, (train, val, test), strict=True):
        assert [int(label) for _, label in part] == [number % 10 for number in pixels]  # type: ignore[union-attr]
    few = resnet18_cifar10(str(cifar), images=40)
    assert [len(d) for d in (few.train_data, few.val_data, few.test_data)] == [36, 4, 8]  # type: ignore[arg-type]
    assert set(first_pixels(few.val_data)) <= set(val)


def test_only_training_images_are_augmented_and_by_torch_s_random_numbers(cifar: Path) -> None:
    plain, augmented = (resnet18_cifar10(str(cifar), augment=augment) for augment in (False, True))

    def image(data: Any) -> Tensor:
        return data[2][0]  # type: ignore[no-any-return]

    assert torch.equal(image(plain.val_data), image(augmented.val_data))
    assert torch.equal(image(plain.test_data), image(augmented.test_data))
    original = image(plain.train_data)
    canvas = original.new_empty(3, 40, 40)  # the image with four pixels of black around it
    for colour, (mean, std) in enumerate([(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)]):
        canvas[colour] = -mean / std
    canvas[:, 4:36, 4:36] = original
    crops = [canvas[:, top : top + 32, left : left + 32] for top in range(9) for left in range(9)]
    possible = torch.stack([*crops, *(crop.flip(2) for crop in crops)])
    torch.manual_seed(3)
    drawn = [image(augmented.train_data) for _ in range(40)]
    places = [int((possible - one).abs().amax((1, 2, 3)).argmin()) for one in drawn]
    assert all(torch.allclose(possible[place], one, atol=1e-6) for place, one in zip(places, drawn, strict=True))
    assert len(set(places)) > 20
    assert 8 < sum(place < 81 for place in places) < 32
    torch.manual_seed(3)
    assert torch.equal(image(augmented.train_data), drawn[0])


@pytest.mark.usefixtures("group_of_one")
def test_resnet18_has_the_stem_for_small_images_and_trains(cifar: Path) -> None:
    model = resnet18()
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962
    assert model.get_submodule("layer1")(model.get_submodule("conv1")(torch.zeros(1, 3, 32, 32))).shape[2:] == (32, 32)
    first_batch(replace(resnet18_cifar10(str(cifar)), model=lambda: model, batch_size=2))


def test_a_root_without_cifar10_is_refused_and_names_the_node(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        resnet18_cifar10(str(tmp_path))
    assert str(caught.value) == (
        f"workload_args.root: no CIFAR-10 under {str(tmp_path)!r} on node {socket.gethostname()} (looked for "
        f"{tmp_path}/cifar-10-batches-py); data is not sent to nodes: give a path that every node sees, or "
        "download: true"
    )
    assert not list(tmp_path.iterdir())


def test_cifar10_that_is_cut_short_is_refused(cifar: Path) -> None:
    cut(cifar / "cifar-10-batches-py" / "data_batch_3")
    with pytest.raises(InputError, match=r"cannot be read \(Dataset not found or corrupted"):
        resnet18_cifar10(str(cifar))
    with pytest.raises(InputError, match=r"^workload_args.root: "):
        resnet18_cifar10(str(cifar), images=5)


@pytest.mark.parametrize("images", [5, 101])
def test_more_or_fewer_images_than_there_are_is_refused(cifar: Path, images: int) -> None:
    with pytest.raises(InputError, match=rf"^workload_args.images: must be between 10 and 100 \(got {images}\)$"):
        resnet18_cifar10(str(cifar), images=images)


# --- the first batch --------------------------------------------------------------------------------------------------


class Partly(nn.Module):
    """Its second layer is never used; with `frozen` nothing of it trains."""

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(2, 1), nn.Linear(2, 1)
        self.requires_grad_(not frozen)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.used(inputs)  # type: ignore[no-any-return]


class Missing(Dataset[Tensor]):
    """Its files are on another node."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return torch.load(f"/nowhere/{index}.pt", weights_only=True)  # type: ignore[no-any-return]


def fails(*arguments: Any) -> Any:
    raise KeyError("mask")


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": lambda: nn.Linear(3, 1)}, "the model, given the first batch of train_data, raised RuntimeError: "
         "mat1 and mat2 shapes cannot be multiplied (2x2 and 3x1); the batch is (float32 [2, 2], float32 [2])"),
        ({"val_data": TensorDataset(torch.zeros(4, 3), torch.zeros(4))}, "the model, given the first batch of "
         "val_data, raised RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x3 and 2x1); the batch is "
         "(float32 [2, 3], float32 [2])"),
        ({"train_data": [{"inputs": torch.zeros(2)}] * 4}, "the model, given the first batch of train_data, raised "
         "TypeError: Linear.forward() got an unexpected keyword argument 'inputs'"),
        ({"train_data": [torch.zeros(2)] * 4}, "a batch of train_data must be (input, target) or a mapping (got "
         "float32 [2, 2]); else write a forward"),
        ({"train_data": Missing()}, "the first batch of train_data raised FileNotFoundError: [Errno 2] No such file or "
         f"directory: '/nowhere/0.pt' on node {socket.gethostname()}; data is not sent to nodes: give a path that "
         "every node sees"),
        ({"collate_fn": fails}, "the first batch of train_data raised KeyError: 'mask'"),
        ({"forward": fails}, "the model, given the first batch of train_data, raised KeyError: 'mask'"),
        ({"criterion": fails}, "criterion raised KeyError: 'mask'; it was given outputs float32 [2, 1] and the batch "
         "(float32 [2, 2], float32 [2])"),
        ({"criterion": lambda outputs, batch: (outputs - batch[1]).square()}, "criterion must return a scalar tensor, "
         "the mean over the batch (got float32 [2, 2])"),
        ({"criterion": lambda outputs, batch: outputs.mean(0)}, "criterion must return a scalar tensor, the mean over "
         "the batch (got float32 [1])"),
        ({"criterion": lambda outputs, batch: 0.5}, "criterion must return a scalar tensor, the mean over the batch "
         "(got float 0.5)"),
        ({"criterion": lambda outputs, batch: outputs.detach().mean()}, "the loss has no gradient, so nothing would "
         "train; compute it from the model's outputs, without detach(), item() or no_grad()"),
        ({"criterion": lambda outputs, batch: torch.zeros(2, requires_grad=True).sum()}, "the loss does not depend on "
         "any parameter of the model, so nothing would train; compute it from the model's outputs"),
        ({"metrics": {"error": lambda outputs, batch: outputs.mean().item()}}, "metric error must return a scalar "
         "tensor, the mean over the batch (got float "),
        ({"metrics": {"error": fails}}, "metric error raised KeyError: 'mask'"),
        ({"batch_weight": fails}, "batch_weight raised KeyError: 'mask'"),
        ({"batch_weight": lambda batch: 0}, "batch_weight must return a positive number (got 0)"),
        ({"model": fails}, "model() raised"),
        ({"model": lambda: "resnet"}, "model() returned a str; it must return a torch.nn.Module"),
        ({"model": nn.ReLU}, "the model (ReLU) has no parameters; there is nothing to train"),
        ({"model": lambda: Partly(frozen=True)}, "none of the model's 4 parameters requires a gradient, so nothing "
         "would train; set requires_grad on those to train"),
        ({"model": Partly}, "the loss does not depend on 2 of the model's 4 parameters (first: unused.weight); freeze "
         "them by requires_grad_(False), or set scaling.plugin_args: {find_unused_parameters: true}"),
        ({"param_groups": lambda model: [{"parameters": []}]}, "param_groups raised KeyError: 'params'; it must return "
         "a list of {'params': [...], ...}"),
        ({"param_groups": lambda model: [{"params": list(nn.Linear(2, 1).parameters())}]}, "param_groups holds none of "
         "the parameters that train; take them from its argument"),
    ],
)  # fmt: skip
def test_what_does_not_train_shows_at_the_first_batch(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        first_batch(make(**changes))
    assert str(caught.value).startswith(f"workload: {expected}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.usefixtures("group_of_one")
def test_what_trains_passes_the_first_batch() -> None:
    size = {"size": lambda outputs, batch: outputs.abs().mean()}
    first_batch(make(model=lambda: nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1)), metrics=size))
    first_batch(make(model=Partly), plugin_args={"find_unused_parameters": True})
    first_batch(make(param_groups=lambda model: [{"params": [model.weight]}]))


@pytest.mark.usefixtures("group_of_one")
def test_a_loss_may_talk_to_all_ranks() -> None:
    first_batch(make(criterion=lambda outputs, batch: outputs.mean() * torch.distributed.get_world_size()))


def test_the_first_batch_is_a_rank_s_own_part() -> None:
    sizes = []

    def collate(items: list[Any]) -> Batch:
        sizes.append(len(items))
        return default_collate(items)

    data = TensorDataset(torch.zeros(12, 2), torch.zeros(12))
    workload = make(collate_fn=collate, train_data=data, val_data=data, batch_size=8)
    check_task(workload, make_task(workers_per_trial=4), make_trial())
    assert sizes == [2, 2]
    check_task(workload, make_task(workers_per_trial=4, batch_size=12), make_trial())
    assert sizes[2:] == [3, 3]


def test_a_file_that_is_missing_says_on_which_node(modules: Path) -> None:
    (modules / "w_reads.py").write_text("def make(root):\n    open(root + '/items.json')\n")
    with pytest.raises(InputError) as caught:
        load_workload("w_reads:make", {"root": "/nowhere"})
    assert str(caught.value) == (
        "workload: w_reads:make raised FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/items.json' "
        f"on node {socket.gethostname()}; data is not sent to nodes: give a path that every node sees "
        "(workload_args: {'root': '/nowhere'})"
    )


# --- the examples -----------------------------------------------------------------------------------------------------

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize(
    ("name", "lr", "most"), [("density", 0.01, -0.5), ("majority", 0.001, 0.4), ("spirals", 0.01, 0.6)]
)
def test_an_example_trains(name: str, lr: float, most: float, modules: Path) -> None:
    """In the training loop of a study, to a loss that it cannot reach by luck: a guess costs 0.69 in two of them."""
    (modules / f"w_{name}.py").write_text((ROOT / "examples" / f"{name}.py").read_text())
    workload = load_workload(f"w_{name}:make_workload", {})
    task, trial = make_task(optimizer={"name": "adamw"}), make_trial(max_steps=93, lr=lr)
    check_task(workload, task, trial)
    first_batch(workload, optimizer={"name": "adamw"})
    first, *_, last = train(workload, task, trial)
    assert first.points[0][2] > 0.2
    assert last.metrics["val_loss"] < most


def test_the_documentation_shows_the_examples_as_they_are() -> None:
    text = (ROOT / "docs" / "workloads.md").read_text()
    assert len(EXAMPLES) == 4
    for path in EXAMPLES:
        source = path.read_text()
        assert len(source.splitlines()) < 30
        assert f"```python\n{source}```" in text


@pytest.mark.parametrize("space", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_search_space_that_comes_along_names_a_workload_and_its_arguments(space: Path) -> None:
    config = load_config(space)
    module, _, function = config.workload.partition(":")
    signature(getattr(import_module(module), function)).bind(**config.workload_args)
    make_optimizer(config.optimizer.name, config.optimizer.args, [{"params": [nn.Parameter(torch.zeros(1))]}])
