"""Measures a model on a data set: means over its items, and metrics of all of it, whatever the number of ranks."""

import copy
import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset

from tune_lr.config.plugins import Layout
from tune_lr.worker.colossal import Boosted
from tune_lr.worker.loading import Indices
from tune_lr.worker.not_a_number import all_finite, first_said, nan_in
from tune_lr.workloads import Batch, Outputs, Workload, over_all, to_device

Load = Callable[[Dataset[Any], Iterable[tuple[int, Indices]], str], Generator[Batch, None, None]]

# Said of a value that is not finite because the model is beyond hope.
DIVERGED = "the model's weights or outputs are not finite"


class Evaluation:
    """Measures one trial's model. Every rank makes the same calls and gets the same figures.

    `reasons` says of each figure of the last call that was not finite where that comes from; DIVERGED, or a sentence.
    """

    def __init__(
        self,
        workload: Workload,
        boosted: Boosted,
        layout: Layout,
        data_rank: int,
        batch_size: int,
        device: torch.device,
        load: Load,
    ) -> None:
        self._workload, self._boosted, self._layout, self._load = workload, boosted, layout, load
        self._data_rank, self._batch_size, self._device = data_rank, batch_size, device
        self._means = {"loss": workload.criterion}
        self._means |= {name: metric for name, metric in workload.metrics.items() if not over_all(metric)}
        self._over_all = {name: metric for name, metric in workload.metrics.items() if over_all(metric)}
        self.reasons: dict[str, str] = {}
        self.batches = 0  # looked at so far, for whoever watches that it grows

    def measure(self, data: Dataset[Any], prefix: str, items: int | None = None) -> dict[str, float]:
        """Return the figures over all of `data`, or over `items` of it that lie evenly apart, the same ones each time.

        Each item counts once whatever the number of ranks. The names are "val_loss", "val_accuracy".
        """
        workload, boosted = self._workload, self._boosted
        parts, first = self._parts(len(data), items)  # type: ignore[arg-type]
        sums = torch.zeros(len(self._means), dtype=torch.float64, device=self._device)
        total, by_batch = 0.0, []
        (boosted.inner if boosted.whole else boosted.model).eval()
        whole = _OverAll(self._over_all, self._device)
        loaded = self._load(data, [(i, part or first) for i, part in enumerate(parts)], prefix)
        with torch.inference_mode() if boosted.whole else torch.no_grad(), boosted.precision():
            for part, batch in zip(parts, loaded, strict=True):
                weight = float(workload.batch_weight(batch) if workload.batch_weight else len(part))
                on_device = to_device(batch, self._device)
                if self._layout.pipeline > 1:
                    values, weight = self._measured_in_pipeline(on_device)
                else:
                    outputs = boosted.outputs_in_validation(on_device)
                    values = torch.stack([one(outputs, on_device).double() * weight for one in self._means.values()])
                if part:
                    sums += values
                    total += weight
                    whole.update(outputs if self._over_all else None, on_device)
                by_batch.append(values)
                self.batches += 1
            figures = whole.compute()
        reduced = torch.cat([sums, torch.tensor([total], dtype=torch.float64).to(self._device, non_blocking=True)])
        if dist.get_world_size() > 1:
            dist.all_reduce(reduced)
        means = (reduced[:-1] / reduced[-1]).tolist()
        figures = dict(zip(self._means, means, strict=True)) | figures
        self.reasons = {}
        if not all(map(math.isfinite, figures.values())):
            self._find_reasons(figures, data, parts, by_batch, prefix)
        return {f"{prefix}_{name}": figures[name] for name in ("loss", *workload.metrics)}

    def _parts(self, count: int, items: int | None) -> tuple[list[Sequence[int]], Sequence[int]]:
        """Return this rank's batches, as indices, and what it looks at again where it has none left."""
        copies = self._layout.data
        chosen: Sequence[int] = range(count)
        if items is not None and items < count:
            chosen = [i * count // items for i in range(items)]
        if self._layout.pipeline > 1:  # which takes batches of one size only
            chosen = chosen[: max(1, len(chosen) // self._batch_size) * self._batch_size]
        size = max(1, self._batch_size // copies)
        share = chosen[self._data_rank :: copies]
        parts = [share[start : start + size] for start in range(0, len(share), size)]
        if not self._boosted.whole:  # ranks must make the same calls
            parts += [chosen[:0]] * (-(-len(chosen[::copies]) // size) - len(parts))
        return parts, chosen[:1]

    def _measured_in_pipeline(self, batch: Batch) -> tuple[Tensor, float]:
        """Return the sum of each mean over a batch, and the batch's weight. All stages but the last have zeros."""
        weigh = self._workload.batch_weight or items_in
        sums, total = torch.zeros(len(self._means), dtype=torch.float64, device=self._device), 0.0

        def measure(outputs: Outputs, micro: Batch) -> Tensor:
            nonlocal total
            weight, outputs = float(weigh(micro)), self._boosted.in_fp32(outputs)
            sums.add_(torch.stack([one(outputs, micro).double() * weight for one in self._means.values()]))
            total += weight
            return torch.zeros((), device=self._device)

        self._boosted.look_through_pipeline(batch, measure)
        return sums, total

    def _find_reasons(
        self,
        figures: Mapping[str, float],
        data: Dataset[Any],
        parts: list[Sequence[int]],
        by_batch: list[Tensor],
        prefix: str,
    ) -> None:
        """Say of each figure that is not finite where that comes from. All ranks are here, for they have the same."""
        for place, name in enumerate(self._means):
            if math.isfinite(figures[name]):
                continue
            bad = next((i for i, values in enumerate(by_batch) if not math.isfinite(values[place]) and parts[i]), None)
            said = "" if bad is None else self._reason(name, figures[name], data, parts, bad, prefix)
            self.reasons[f"{prefix}_{name}"] = first_said(said) or DIVERGED
        for name in self._over_all:
            if not math.isfinite(figures[name]):
                self.reasons[f"{prefix}_{name}"] = f"compute() of the metric {name} returned {figures[name]}"

    def _reason(
        self, name: str, value: float, data: Dataset[Any], parts: list[Sequence[int]], bad: int, prefix: str
    ) -> str:
        if self._layout.pipeline > 1:
            return DIVERGED
        batch = self._batch(data, parts, bad, prefix)
        where = f"batch {bad + 1} of {len(parts)} of {prefix}_data"
        held = nan_in(batch)
        if held and (bad == 0 or not nan_in(self._batch(data, parts, 0, prefix))):
            return f"{where}: {held}"
        if not self._boosted.whole or not all_finite(list(self._boosted.inner.parameters())):
            return DIVERGED
        with torch.inference_mode(), self._boosted.precision():
            outputs = self._boosted.outputs_in_validation(to_device(batch, self._device))
        if not all_finite(outputs) or (name == "loss" and not math.isnan(value)):
            return DIVERGED
        if name == "loss":
            return f"criterion returns {value} for {where}, though the model's outputs are finite"
        return (
            f"the metric {name} returns {value} for {where}, though the model's outputs are finite; a metric that is "
            "no mean over batches can be an object with update and compute"
        )

    def _batch(self, data: Dataset[Any], parts: list[Sequence[int]], place: int, prefix: str) -> Batch:
        (batch,) = self._load(data, [(place, parts[place])], prefix)
        return batch


class _OverAll:
    """Fresh copies of the metrics that are computed from all of a data set."""

    def __init__(self, metrics: Mapping[str, Any], device: torch.device) -> None:
        self._metrics = {name: copy.deepcopy(metric) for name, metric in metrics.items()}
        for metric in self._metrics.values():
            if dist.get_world_size() == 1 and callable(getattr(metric, "to", None)):
                metric.to(device)
        self._seen: list[tuple[Outputs, Batch]] = []
        self._alone = dist.get_world_size() == 1

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Show the metrics a batch. On several ranks it is kept, for all ranks to see."""
        if not self._metrics:
            return
        if self._alone:
            for metric in self._metrics.values():
                _update(metric, outputs, batch)
        else:
            cpu = torch.device("cpu")
            self._seen.append((to_device(outputs, cpu), to_device(batch, cpu)))

    def compute(self) -> dict[str, float]:
        """Return the metrics of all batches of all ranks, the same on each rank."""
        if not self._metrics:
            return {}
        if not self._alone:
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, self._seen)
            for outputs, batch in (pair for seen in gathered for pair in seen):
                for metric in self._metrics.values():
                    _update(metric, outputs, batch)
        for metric in self._metrics.values():
            _keep_to_itself(metric)
        return {name: float(metric.compute()) for name, metric in self._metrics.items()}


def _update(metric: Any, outputs: Outputs, batch: Batch) -> None:
    """Show a metric a batch. One of torchmetrics' own gets the target of an (input, target) pair, as it expects."""
    of_torchmetrics = type(metric).__module__.partition(".")[0] == "torchmetrics"
    metric.update(outputs, batch[1] if of_torchmetrics and isinstance(batch, list | tuple) else batch)


def _keep_to_itself(metric: Any) -> None:
    """Keep torchmetrics' own, here or one attribute deep, from adding up the ranks: each has seen all batches."""
    for part in (metric, *getattr(metric, "__dict__", {}).values()):
        if hasattr(part, "_to_sync"):
            part._to_sync = False


def items_in(batch: Batch) -> float:
    """Return how many items a batch holds: the first length of its first tensor."""
    return float(next(len(value) for value in tree_leaves(batch) if isinstance(value, Tensor) and value.dim()))
