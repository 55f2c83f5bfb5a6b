"""What `tune-lr init` writes: a workload to start from, a search space and a test for it."""

from pathlib import Path

from tune_lr.errors import InputError, ResourceError, one_line

WORKLOAD, SPACE, TEST = "my_workload.py", "my_space.yaml", "test_my_workload.py"


def write_scaffold(directory: Path) -> list[Path]:
    """Writes the three files into `directory`, all or none; returns their paths. Raises InputError where one of them
    exists."""
    files = {directory / name: text for name, text in _TEXTS.items()}
    if directory.exists() and not directory.is_dir():
        raise InputError(f"init: {str(directory)!r} is a file; give a directory")
    for path in files:
        if path.exists() or path.is_symlink():
            raise InputError(f"init: {path} exists and is left as it is; give another directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            with path.open("x") as file:
                file.write(text)
    except OSError as error:
        raise ResourceError(f"init: {directory} cannot be written ({one_line(error)})") from None
    return list(files)


_TEXTS = {
    WORKLOAD: '''\
"""What is trained: a model, its data and its loss. It knows nothing about learning rates.

Every worker calls make_workload() once, in a process of its own, on whichever node it runs. Read data from a path that
every node sees.
"""

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from tune_lr import Workload


class Model(nn.Module):
    """Replace it by your own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


def make_data(items: int, seed: int) -> TensorDataset:
    """Replace it by your own: any map-style data set, whose items are (input, target) or a mapping.

    A mapping goes into the model by its keys: model(**batch).
    """
    inputs = torch.randn(items, 20, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(inputs, inputs[:, :1] * inputs[:, 1:2])


def loss(outputs: Tensor, batch: list[Tensor]) -> Tensor:
    """The mean over the batch, a tensor without dimensions. It may be negative."""
    return nn.functional.mse_loss(outputs, batch[1])


def absolute_error(outputs: Tensor, batch: list[Tensor]) -> Tensor:
    return (outputs - batch[1]).abs().mean()


def make_workload(width: int = 64) -> Workload:
    """Its arguments are what stands under workload_args in my_space.yaml."""
    return Workload(
        model=lambda: Model(width),  # a fresh one for each trial; the caller has seeded torch
        train_data=make_data(2000, seed=0),
        val_data=make_data(500, seed=1),
        test_data=make_data(500, seed=2),  # may be left out; read once, for the winner
        criterion=loss,
        metrics={"absolute_error": absolute_error},  # may be left out; val_absolute_error in files and as metric.name
        batch_size=50,  # over all workers together; the last partial batch is dropped
        # collate_fn=..., forward=..., batch_weight=... and param_groups=... are there for what is less simple.
    )
''',
    SPACE: """\
# Which LR schedule, with which learning rate (LR), trains my_workload.py best?
#   tune-lr check my_space.yaml     validates this file and shows what it will cost
#   tune-lr search my_space.yaml    runs it

workload: my_workload:make_workload    # module:function; the module lies beside this file
workload_args: {width: 64}             # arguments of that function

# What "best" means: val_loss, or val_ and the name of one of the workload's metrics.
metric: {name: val_loss, goal: minimize}

max_steps: 200          # optimizer steps of one full trial
report_every: 20        # steps between validations
num_trials: 24          # trials of the search; range test and confirmation come on top
seed: 0

# First the LR range test: short runs in which the LR rises from low to high bound the search.
range_test: {low: 1e-5, high: 10, steps: 200, replicates: 3}

# Then the search: trials are proposed by what the earlier ones have shown, and trained to their end.
sampler: {name: gp}
pruner: {name: none}

# Then the confirmation: the best trials of the 2 best LR schedules again, with 3 fresh seeds each.
confirm: {top: 2, seeds: 3}

optimizer: {name: sgd, momentum: 0.9}  # any further key is an argument of the optimizer

# A parameter is {value: x} (fixed), {values: [x, y]} (one of them) or {min: x, max: y} (between).
parameters:
  lr: {min: range_test, max: range_test}    # the peak LR; the range test fills the bounds in
  lr_schedule:
    choices:                                # `tune-lr schedules` draws them
      constant: {}
      cosine: {floor: {min: 0.0, max: 0.1}}
      onecycle: {pct_start: {min: 0.1, max: 0.5}}

# What one trial runs on. max_concurrent null: as many trials at once as fit.
scaling: {workers_per_trial: 1, gpus_per_worker: 0, cpus_per_worker: 1, max_concurrent: null}
""",
    TEST: '''\
"""Does the workload train? `pytest` in this directory says so within seconds, without Ray or ColossalAI."""

from pathlib import Path

import torch
from tune_lr.config.load import load_config
from tune_lr.workloads import load_batch, outputs_of
from tune_lr.workloads.first_batch import check_first_batch

from my_workload import make_workload


def test_the_search_space_fits_the_workload() -> None:
    config = load_config(Path(__file__).with_name("my_space.yaml"))
    assert config.workload == "my_workload:make_workload"
    workload = make_workload(**config.workload_args)
    assert config.metric.name in [f"val_{name}" for name in ("loss", *workload.metrics)]


def test_a_batch_goes_through_and_moves_the_model() -> None:
    """A mistake (shapes, a criterion that is no scalar, nothing to train) is one line, as in a study."""
    check_first_batch(make_workload())


def test_one_batch_can_be_learnt() -> None:
    workload = make_workload()
    torch.manual_seed(0)
    model = workload.model()
    batch = load_batch(workload, workload.train_data, range(workload.batch_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(100):
        loss = workload.criterion(outputs_of(workload, model, batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
''',
}
