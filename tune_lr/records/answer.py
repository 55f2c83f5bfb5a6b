"""What a study has come to: finalists over seeds, the verdict on them, and the answer that best.yaml holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune_lr.records.interval import Interval
from tune_lr.records.parameters import OPTIMIZER, WITHOUT_OWNER, setting, split_parameters


@dataclass(frozen=True)
class Finalist:
    """A configuration and its figures over seeds, in the order of the seeds."""

    lr_schedule: str
    lr: float
    parameters: Mapping[str, Any]  # with qualified names: step.gamma, optimizer.weight_decay, batch_size
    trial: int  # its number in the search
    confirm_trials: tuple[int, ...]  # empty where it was not confirmed: then its only figure is the search trial's
    seeds: tuple[int, ...]
    values: tuple[float, ...]  # the metric, one value a seed
    mean: float
    interval: Interval | None  # of the mean, 95 %, Student's t; None with one seed

    @property
    def label(self) -> str:
        """The configuration in a few words: "cosine at lr 0.1 with adamw"."""
        searched = setting(self.parameters)
        return f"{self.lr_schedule} at lr {self.lr:.3g}{' with ' if searched else ''}{searched}"

    def to_dict(self) -> dict[str, Any]:
        """Return the finalist as best.yaml holds it.

        There `parameters` has the LR schedule's parameters under their short names (gamma), and those of the optimizer
        and the batch size, where they are searched, under their qualified names (optimizer.weight_decay).
        """
        return {
            "lr_schedule": self.lr_schedule,
            "lr": self.lr,
            "parameters": _short_names(self.parameters),
            "mean": self.mean,
            "interval": list(self.interval) if self.interval else None,
            "seeds": list(self.seeds),
            "values": list(self.values),
            "trial": self.trial,
            "confirm_trials": list(self.confirm_trials),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Finalist":
        """Return the inverse of `to_dict`."""
        return cls(
            lr_schedule=data["lr_schedule"],
            lr=data["lr"],
            parameters=_qualified_names(data["parameters"], data["lr_schedule"]),
            trial=data["trial"],
            confirm_trials=tuple(data["confirm_trials"]),
            seeds=tuple(data["seeds"]),
            values=tuple(data["values"]),
            mean=data["mean"],
            interval=_interval(data["interval"]),
        )


@dataclass(frozen=True)
class Difference:
    """The winner's mean minus another finalist's, paired by seed. `study.verdict` says how the interval is found."""

    mean: float
    interval: Interval | None  # None with one seed

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.interval is not None and not self.interval.low <= 0.0 <= self.interval.high


@dataclass(frozen=True)
class Verdict:
    """The finalists, best first, and the winner's difference from each of the others."""

    finalists: tuple[Finalist, ...]
    differences: tuple[Difference, ...]  # of finalists[1:]
    contenders: tuple[int, ...]  # search trials between which more seeds may decide
    sentence: str

    @property
    def winner(self) -> Finalist:
        """The finalist with the best mean."""
        return self.finalists[0]

    @property
    def tied(self) -> tuple[Finalist, ...]:
        """The finalists that cannot be told apart from the winner."""
        others = zip(self.finalists[1:], self.differences, strict=True)
        return tuple(finalist for finalist, difference in others if not difference.distinguishable)


@dataclass(frozen=True)
class ScheduleBest:
    """The best search trial of one LR schedule. Its `value` is one seed's, and often a lucky one."""

    lr_schedule: str
    lr: float
    value: float  # the metric
    trial: int
    trials: int  # search trials of this LR schedule


@dataclass(frozen=True)
class Prediction:
    """What shorter trainings predict of one LR schedule at full length. Nothing of it was trained."""

    lr_schedule: str
    parameters: Mapping[str, Any]  # with qualified names: step.gamma, optimizer.weight_decay
    lr: float
    lr_interval: Interval  # holds the schedule's best LR with a probability of 80 %, by the model
    loss: float  # the metric, its median
    loss_interval: Interval  # of its mean over seeds, 80 % by the model
    probability_best: float  # of all schedules, 0 to 1

    @property
    def label(self) -> str:
        """The configuration in a few words: "cosine at lr 0.1"."""
        return f"{self.lr_schedule} at lr {self.lr:.3g}"

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as best.yaml holds it; its parameters have the names that a finalist's have there."""
        intervals = {"lr_interval": list(self.lr_interval), "loss_interval": list(self.loss_interval)}
        return {**vars(self), "parameters": _short_names(self.parameters), **intervals}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Prediction":
        """Return the inverse of `to_dict`."""
        intervals = {name: Interval(*data[name]) for name in ("lr_interval", "loss_interval")}
        parameters = _qualified_names(data["parameters"], data["lr_schedule"])
        return cls(**{**data, "parameters": parameters, **intervals})


@dataclass(frozen=True)
class Answer:
    """The answer of a study, as best.yaml holds it.

    Where trials have several lengths and no training of full length was completed, there are no finalists: what is
    chosen is then the best of the predictions.
    """

    finalists: tuple[Finalist, ...]  # best first; without a confirmation the best search trial alone
    differences: tuple[Difference, ...]  # the winner minus finalists[1:]
    optimizer: Mapping[str, Any]  # of what is chosen: its name and its arguments without the LR
    batch_size: int  # of what is chosen, over all workers
    max_steps: int  # of its training
    metric: str  # as files name it: val_loss, val_accuracy
    goal: str  # minimize | maximize
    schedules: tuple[ScheduleBest, ...]  # best first
    verdict: str  # one sentence
    test: Mapping[str, float] | None  # means over the winner's seeds; None without test data
    steps: Mapping[str, int]  # optimizer steps by phase
    full_trainings: float  # as many as all trials together have taken
    code: str  # the PyTorch lines that build the optimizer and the LR schedule that are chosen
    notes: tuple[str, ...] = ()  # what is to be known of the answer before it is used, a sentence or two each
    predictions: tuple[Prediction, ...] = ()  # one a schedule, best first; only where trials have several lengths
    # By how much the first prediction is expected to be worse than the best of all, in units of the metric.
    expected_regret: float | None = None

    @property
    def claim(self) -> str:
        """What the answer rests on: "confirmed" with fresh seeds, "trained_once", or "predicted" by shorter trials."""
        if not self.finalists:
            return "predicted"
        return "confirmed" if self.winner.confirm_trials else "trained_once"

    @property
    def winner(self) -> Finalist:
        """The finalist with the best mean. There is none where the claim is "predicted"."""
        return self.finalists[0]

    @property
    def chosen(self) -> Finalist | Prediction:
        """The configuration to train: the winner, or the best that is predicted where nothing was trained in full."""
        return self.finalists[0] if self.finalists else self.predictions[0]

    @property
    def unconfirmed(self) -> tuple[ScheduleBest, ...]:
        """The LR schedules of which no trial is among the finalists."""
        confirmed = {finalist.lr_schedule for finalist in self.finalists}
        return tuple(best for best in self.schedules if best.lr_schedule not in confirmed)

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as best.yaml holds it."""
        others = [
            {
                **finalist.to_dict(),
                "difference": difference.mean,
                "difference_interval": list(difference.interval) if difference.interval else None,
                "distinguishable": difference.distinguishable,
            }
            for finalist, difference in zip(self.finalists[1:], self.differences, strict=True)
        ]
        predicted: dict[str, Any] = {}
        if self.predictions:
            predicted = {
                "claim": self.claim,
                "predicted": [prediction.to_dict() for prediction in self.predictions],
                "expected_regret": self.expected_regret,
            }
        return {
            **(self.winner.to_dict() if self.finalists else _untrained(self.predictions[0])),
            "optimizer": dict(self.optimizer),
            "batch_size": self.batch_size,
            "max_steps": self.max_steps,
            "metric": {"name": self.metric, "goal": self.goal},
            "runner_up": others[0] if others else None,
            "finalists": [*(winner.to_dict() for winner in self.finalists[:1]), *others],
            "families": [dict(vars(best)) for best in self.schedules],
            "verdict": self.verdict,
            "test": dict(self.test) if self.test is not None else None,
            "steps": {**self.steps, "full_trainings": self.full_trainings},
            **predicted,
            **({"notes": list(self.notes)} if self.notes else {}),
            "code": self.code,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Answer":
        """Return the inverse of `to_dict`. Raises KeyError or TypeError where best.yaml lacks something."""
        steps = dict(data["steps"])
        full_trainings = steps.pop("full_trainings")
        return cls(
            finalists=tuple(Finalist.from_dict(finalist) for finalist in data["finalists"]),
            differences=tuple(
                Difference(finalist["difference"], _interval(finalist["difference_interval"]))
                for finalist in data["finalists"][1:]
            ),
            optimizer=data["optimizer"],
            batch_size=data["batch_size"],
            max_steps=data["max_steps"],
            metric=data["metric"]["name"],
            goal=data["metric"]["goal"],
            schedules=tuple(ScheduleBest(**best) for best in data["families"]),
            verdict=data["verdict"],
            test=data["test"],
            steps=steps,
            full_trainings=full_trainings,
            code=data["code"],
            notes=tuple(data.get("notes", ())),
            predictions=tuple(Prediction.from_dict(entry) for entry in data.get("predicted", ())),
            expected_regret=data.get("expected_regret"),
        )


def _untrained(prediction: Prediction) -> dict[str, Any]:
    """Return what best.yaml says of a predicted configuration where a winner stands else.

    It has no figure of its own there: what is expected of it stands under `predicted`.
    """
    chosen = prediction.to_dict()
    return {
        **{name: chosen[name] for name in ("lr_schedule", "lr", "parameters")},
        "mean": None,
        "interval": None,
        "seeds": [],
        "values": [],
        "trial": None,
        "confirm_trials": [],
    }


def _short_names(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as best.yaml names them: those of the LR schedule are short, all others are qualified."""
    schedule, _ = split_parameters(parameters)
    others = {k: v for k, v in parameters.items() if k.startswith(OPTIMIZER) or k in WITHOUT_OWNER}
    return schedule | others


def _qualified_names(parameters: Mapping[str, Any], lr_schedule: str) -> dict[str, Any]:
    """Return the inverse of `_short_names`."""
    return {
        name if name.startswith(OPTIMIZER) or name in WITHOUT_OWNER else f"{lr_schedule}.{name}": value
        for name, value in parameters.items()
    }


def _interval(pair: Any) -> Interval | None:
    return Interval(*pair) if pair else None
