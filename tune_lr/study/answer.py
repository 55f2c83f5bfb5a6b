"""The answer of a study: the winner, its figures, and the PyTorch lines that build it."""

from collections import Counter
from statistics import fmean
from typing import Any

from tune_lr.config.optimizers import colossalai_class
from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.records.answer import Answer, Finalist, ScheduleBest
from tune_lr.records.parameters import BATCH_SIZE, split_parameters, whole_optimizer
from tune_lr.records.row import best_of_each_schedule, rank_search
from tune_lr.records.trial import TrialFacts
from tune_lr.study.confirmation import WinnerOnTestData
from tune_lr.study.study import Study


def answer_of(study: Study) -> Answer:
    """Return the answer of a study as it stands. Raises NoAnswerError where no trial of the search was completed."""
    verdict = study.verdict()
    winner = verdict.winner
    return Answer(
        finalists=verdict.finalists,
        differences=verdict.differences,
        optimizer=_optimizer(study, winner),
        batch_size=_facts(study, winner).batch_size,
        max_steps=_max_steps(study, winner),
        metric=study.config.metric.name,
        goal=study.config.metric.goal,
        schedules=_schedules(study),
        verdict=verdict.sentence,
        test=_test(study.test_result, winner),
        steps=study.trials.steps_by_phase(),
        full_trainings=round(study.trials.full_trainings(), 1),
        code=code(study, winner),
        predictions=study.predictions(),
    )


def code(study: Study, finalist: Finalist) -> str:
    """Return the lines of PyTorch that build a finalist's optimizer and LR schedule; `model` stands for the user's."""
    facts = _facts(study, finalist)
    arguments = _optimizer(study, finalist)
    colossal = colossalai_class(arguments.pop("name"))
    schedule = make_lr_schedule(
        finalist.lr_schedule,
        split_parameters(finalist.parameters)[0],
        _max_steps(study, finalist),
        steps_per_epoch=facts.steps_per_epoch,
    )
    lines = schedule.code(finalist.lr, cycle_momentum=facts.cycles_momentum).rstrip()
    arguments = {"lr": finalist.lr, **arguments}
    settings = ", ".join(f"{name}={tuple(v) if isinstance(v, list) else v!r}" for name, v in arguments.items())
    name, imports = f"torch.optim.{facts.optimizer}", "import torch\n"
    if colossal:
        name, imports = colossal, f"{imports}from colossalai.nn.optimizer import {colossal}\n"
    return (
        f"{imports}\noptimizer = {name}(model.parameters(), {settings})\n"
        f"{lines.removeprefix('import torch').lstrip()}\n"
    )


def _facts(study: Study, finalist: Finalist) -> TrialFacts:
    """Return what the workers of a finalist's search trial knew of it; older studies have that once for all trials."""
    facts = study.trials.outcome(finalist.trial).facts or study.journal.facts
    assert facts is not None
    return facts


def _optimizer(study: Study, finalist: Finalist) -> dict[str, Any]:
    """Return the finalist's optimizer: its `name` and its arguments, all but the LR."""
    base = study.config.optimizer
    return whole_optimizer({"name": base.name, **base.args}, split_parameters(finalist.parameters)[1])


def _max_steps(study: Study, finalist: Finalist) -> int:
    return study.config.steps_of(study.config.max_steps, finalist.parameters.get(BATCH_SIZE))


def _schedules(study: Study) -> tuple[ScheduleBest, ...]:
    metric = study.config.metric
    rows = study.rows()
    trials = Counter(row.lr_schedule for row in rows if row.phase == "search")
    return tuple(
        ScheduleBest(row.lr_schedule, row.lr, row.metrics[metric.name], row.number, trials[row.lr_schedule])
        for row in best_of_each_schedule(rank_search(rows, metric.name, metric.goal))
    )


def _test(result: WinnerOnTestData | None, winner: Finalist) -> dict[str, float] | None:
    """Return the figures on the test data, the mean over the winner's seeds; None where there are none of its own."""
    if not result or result.trial != winner.trial or not result.values:
        return None
    names = result.values[0]
    return {name.removeprefix("test_"): fmean(figures[name] for figures in result.values) for name in names}
