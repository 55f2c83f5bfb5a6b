"""What all trials of a study share, as it travels to the workers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tune_lr.config.training import Scaling, TrainingDetails
from tune_lr.records.trial import CheckpointPlan

if TYPE_CHECKING:  # a worker needs neither, and reads them in more time than all the rest
    from tune_lr.config.model import Config
    from tune_lr.config.parameters import Distribution


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained, on what, and with which optimizer: the sections of a search space that a worker needs.

    The sections `training` and `scaling` are the checked ones themselves, so that no field and no default is written
    twice. A worker therefore imports pydantic, which takes 0.1 s of CPU time at its start.
    """

    workload: str  # "module:function"
    workload_args: Mapping[str, Any]
    batch_size: int | None  # global, of the steps that the study counts; None: the workload's own
    metric: str  # as in files: "val_loss", "val_accuracy"
    report_every: int  # steps between validations
    optimizer: Mapping[str, Any]  # its `name` and its arguments
    training: TrainingDetails
    scaling: Scaling
    checkpoints: CheckpointPlan | None = None  # None: the state of a running trial is not kept
    python_path: tuple[str, ...] = ()  # the folders in which the user's own modules lie
    batch_sizes: tuple[int, ...] = ()  # that are searched
    # The optimizer's searched arguments at the ends of their ranges. A worker tries them before any trial starts.
    optimizers_to_try: tuple[Mapping[str, Any], ...] = ()

    @property
    def cold_workers(self) -> bool:
        """Whether workers are started anew for each trial."""
        asked = self.scaling.cold_workers
        return self.scaling.plugin != "ddp" if asked is None else asked


def make_task(config: "Config", python_path: Sequence[str] = (), checkpoints: CheckpointPlan | None = None) -> Task:
    """Return the task of a search space; the user's own modules lie in the folders of `python_path`."""
    return Task(
        workload=config.workload,
        workload_args=config.workload_args,
        batch_size=config.batch_size,
        metric=config.metric.name,
        report_every=config.report_every,
        optimizer={"name": config.optimizer.name, **config.optimizer.args},
        training=config.training,
        scaling=config.scaling,
        checkpoints=checkpoints,
        python_path=tuple(dict.fromkeys(python_path)),
        batch_sizes=config.parameters.batch_size or (),
        optimizers_to_try=tuple(_optimizers_to_try(config)),
    )


def _optimizers_to_try(config: "Config") -> Iterator[dict[str, Any]]:
    """Yield what is searched of each optimizer, with its `name` where that is searched too."""
    for name, searched in config.parameters.optimizer.items():
        named = {"name": name} if name else {}
        if searched:
            yield from ({**named, **end} for end in _ends(searched))
        elif name:
            yield named


def _ends(searched: "Mapping[str, Distribution]") -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the first value of each argument, and the last value of each."""
    values = {name: list(distribution.bounds_or_values().values()) for name, distribution in searched.items()}
    return {name: given[0] for name, given in values.items()}, {name: given[-1] for name, given in values.items()}
