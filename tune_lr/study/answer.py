"""The answer of a study as best.yaml holds it: the winner, its figures, and the PyTorch lines that build it."""

from collections import Counter
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from tune_lr.lr.schedules import make_lr_schedule
from tune_lr.records.trial import BATCH_SIZE, OPTIMIZER, split_parameters, whole_optimizer
from tune_lr.study.study import Study
from tune_lr.study.verdict import Difference, Finalist, best_of_families, rank_search
from tune_lr.worker.optimizers import colossalai_class


def best_of(study: Study) -> dict[str, Any]:
    """Raises NoAnswerError where no trial of the search was completed."""
    config, verdict = study.config, study.verdict()
    winner, steps = verdict.winner, study.steps_by_phase()
    others = [
        {**_figures(finalist), **_difference(difference)}
        for finalist, difference in zip(verdict.finalists[1:], verdict.differences, strict=True)
    ]
    return {
        **_figures(winner),
        "optimizer": _optimizer(study, winner),
        "batch_size": study.facts_of(winner.trial)["batch_size"],
        "max_steps": _max_steps(study, winner),
        "metric": {"name": config.metric.name, "goal": config.metric.goal},
        "runner_up": others[0] if others else None,
        "finalists": [_figures(winner), *others],
        "families": _families(study),
        "verdict": verdict.sentence,
        "test": _test(study.test_result, winner),
        "steps": {**steps, "full_trainings": round(study.full_trainings(), 1)},
        "code": code(study, winner),
    }


def code(study: Study, finalist: Finalist) -> str:
    """The lines of PyTorch that rebuild a finalist's optimizer and LR schedule; `model` stands for the user's."""
    facts, arguments = study.facts_of(finalist.trial), _optimizer(study, finalist)
    colossal = colossalai_class(arguments.pop("name"))
    schedule = make_lr_schedule(
        finalist.lr_schedule,
        split_parameters(finalist.parameters)[0],
        _max_steps(study, finalist),
        steps_per_epoch=facts["steps_per_epoch"],
    )
    lines = schedule.code(finalist.lr, cycle_momentum=facts["cycles_momentum"]).rstrip()
    arguments = {"lr": finalist.lr, **arguments}
    settings = ", ".join(f"{name}={tuple(v) if isinstance(v, list) else v!r}" for name, v in arguments.items())
    name, imports = f"torch.optim.{facts['optimizer']}", "import torch\n"
    if colossal:
        name, imports = colossal, f"{imports}from colossalai.nn.optimizer import {colossal}\n"
    return (
        f"{imports}\noptimizer = {name}(model.parameters(), {settings})\n"
        f"{lines.removeprefix('import torch').lstrip()}\n"
    )


def _optimizer(study: Study, finalist: Finalist) -> dict[str, Any]:
    """Its name and its arguments, all but the LR."""
    base = study.config.optimizer
    return whole_optimizer({"name": base.name, **base.args}, split_parameters(finalist.parameters)[1])


def _max_steps(study: Study, finalist: Finalist) -> int:
    return study.config.steps_of(study.config.max_steps, finalist.parameters.get(BATCH_SIZE))


def _figures(finalist: Finalist) -> dict[str, Any]:
    """`parameters` are the LR schedule's; the optimizer's and the batch size, where they are searched, stay qualified
    beside them."""
    schedule, _ = split_parameters(finalist.parameters)
    beside = {k: v for k, v in finalist.parameters.items() if k.startswith(OPTIMIZER) or k == BATCH_SIZE}
    return {
        "lr_schedule": finalist.lr_schedule,
        "lr": finalist.lr,
        "parameters": schedule | beside,
        "mean": finalist.mean,
        "interval": _plain(finalist.interval),
        "seeds": list(finalist.seeds),
        "values": list(finalist.values),
        "trial": finalist.trial,
        "confirm_trials": list(finalist.confirm_trials),
    }


def _difference(difference: Difference) -> dict[str, Any]:
    """The winner minus another finalist; `distinguishable` where the interval leaves zero out."""
    return {
        "difference": difference.mean,
        "difference_interval": _plain(difference.interval),
        "distinguishable": difference.tells_apart,
    }


def _families(study: Study) -> list[dict[str, Any]]:
    """The best search trial of each LR schedule, best first. `value` is one seed's, and the luckiest of them: what is
    confirmed stands among the finalists."""
    metric = study.config.metric
    rows = study.rows()
    trials = Counter(row.lr_schedule for row in rows if row.phase == "search")
    return [
        {
            "lr_schedule": row.lr_schedule,
            "lr": row.lr,
            "value": row.metrics[metric.name],
            "trial": row.number,
            "trials": trials[row.lr_schedule],
        }
        for row in best_of_families(rank_search(rows, metric.name, metric.goal))
    ]


def _test(result: Mapping[str, Any] | None, winner: Finalist) -> dict[str, float] | None:
    """Means over the winner's seeds."""
    if not result or result["trial"] != winner.trial or not result["values"]:
        return None
    values: list[Mapping[str, float]] = result["values"]
    return {name.removeprefix("test_"): fmean(seed[name] for seed in values) for name in values[0]}


def _plain(interval: tuple[float, float] | None) -> list[float] | None:
    return list(interval) if interval else None
