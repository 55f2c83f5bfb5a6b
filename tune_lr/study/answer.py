"""The answer of a study: what is chosen, its figures, and the PyTorch lines that build it."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from tune_lr.config.optimizers import colossalai_class
from tune_lr.config.parameters import Combination
from tune_lr.errors import NoAnswerError
from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.lr.torch_code import groups_code
from tune_lr.records.answer import Answer, Finalist, Prediction, ScheduleBest, Verdict
from tune_lr.records.parameters import BATCH_SIZE, split_parameters, whole_optimizer
from tune_lr.records.row import best_of_each_schedule, rank_search
from tune_lr.records.trial import TrialFacts
from tune_lr.study.confirmation import WinnerOnTestData
from tune_lr.study.study import Study
from tune_lr.study.widening import bound_near

LIKELY = 0.1  # an LR schedule that is the best with this probability is named beside the one that is chosen


def answer_of(study: Study) -> Answer:
    """Return the answer of a study as it stands.

    It is a winner that was trained in full; where no such training was completed, it is what shorter trials predict.
    Raises NoAnswerError where no trial of the search was completed.
    """
    predictions = study.predictions()
    verdict: Verdict | None = None
    try:
        verdict = study.verdict()
    except NoAnswerError:
        if not predictions:
            raise
    chosen = verdict.winner if verdict else predictions[0]
    expected_regret = study.ladder.expected_regret() if study.ladder else None
    metric = study.config.metric
    return Answer(
        finalists=verdict.finalists if verdict else (),
        differences=verdict.differences if verdict else (),
        optimizer=_optimizer(study, chosen),
        batch_size=_facts(study, chosen).batch_size,
        max_steps=_max_steps(study, chosen),
        metric=metric.name,
        goal=metric.goal,
        schedules=_schedules(study),
        verdict=verdict.sentence if verdict else predicted_sentence(predictions, metric.name, study.config.max_steps),
        test=_test(study.test_result, verdict.winner) if verdict else None,
        steps=study.trials.steps_by_phase(),
        full_trainings=round(study.trials.full_trainings(), 1),
        code=code(study, chosen),
        notes=_notes(study, chosen),
        predictions=predictions,
        expected_regret=expected_regret,
    )


def predicted_sentence(predictions: Sequence[Prediction], metric: str, max_steps: int) -> str:
    """Return what short trials predict, in two sentences; `predictions` come best first."""
    best = predictions[0]
    others = [prediction for prediction in predictions[1:] if prediction.probability_best >= LIKELY]
    loss, lr = best.loss_interval, best.lr_interval
    first = (
        f"Predicted, not trained: {best.label} (its best LR lies between {lr.low:.3g} and {lr.high:.3g}) is expected "
        f"to reach {metric} {best.loss:.4g} ({loss.low:.4g} to {loss.high:.4g}) after {max_steps:,} steps."
    )
    if not others:
        return f"{first} No training of that length was completed."
    likely = ", ".join(f"{other.lr_schedule} {100 * other.probability_best:.0f} %" for other in others)
    return (
        f"{first} No training of that length was completed, and another LR schedule may be the best: {likely}, "
        f"against {100 * best.probability_best:.0f} % for {best.lr_schedule}."
    )


def code(study: Study, chosen: Finalist | Prediction) -> str:
    """Return the lines of PyTorch that build the optimizer and the LR schedule; `model` stands for the user's."""
    facts = _facts(study, chosen)
    arguments = _optimizer(study, chosen)
    optimizer = arguments.pop("name")
    colossal, module = colossalai_class(optimizer), optimizer.partition(":")[0] if ":" in optimizer else ""
    schedule = make_lr_schedule(
        chosen.lr_schedule,
        split_parameters(chosen.parameters)[0],
        _max_steps(study, chosen),
        steps_per_epoch=facts.steps_per_epoch,
    )
    decay_all = study.config.training.decay_norms_and_biases
    ratios = tuple(group.get("lr", 1.0) for group in facts.groups)
    if not decay_all:  # the optimizer's groups are two for each of the workload's
        ratios = tuple(ratio for ratio in ratios for _ in range(2))
    lines = schedule.code(chosen.lr, cycle_momentum=facts.cycles_momentum, ratios=ratios).rstrip()
    arguments = {"lr": chosen.lr, **arguments}
    settings = ", ".join(f"{name}={tuple(v) if isinstance(v, list) else v!r}" for name, v in arguments.items())
    name, imports = f"torch.optim.{facts.optimizer}", "import torch\n"
    if colossal:
        name, imports = colossal, f"{imports}from colossalai.nn.optimizer import {colossal}\n"
    elif module:
        name, imports = facts.optimizer, f"{imports}from {module} import {facts.optimizer}\n"
    groups = groups_code(facts.groups, chosen.lr, decay_all=decay_all)
    return (
        f"{imports}\n{groups}optimizer = {name}({'groups' if groups else 'model.parameters()'}, {settings})\n"
        f"{lines.removeprefix('import torch').lstrip()}\n"
    )


def _notes(study: Study, chosen: Finalist | Prediction) -> tuple[str, ...]:
    """Return what is to be known of the answer: that its LR lies at a bound of those that were searched."""
    if isinstance(chosen, Finalist) and study.trials.row(chosen.trial).label:
        return ()  # a fixed configuration, whose LR the search has not chosen
    _, optimizer = split_parameters(chosen.parameters)
    combination = Combination(chosen.parameters.get(BATCH_SIZE), optimizer.get("name", ""))
    searched = study.searched_lrs(combination)
    side = bound_near(chosen.lr, *searched) if searched else None
    if searched is None or side is None:
        return ()
    direction, field = ("lower", "min") if side == "lower" else ("higher", "max")
    further = searched[0] / 10 if side == "lower" else searched[1] * 10
    values = study.config.parameters.lr.values
    again = (
        f"with {further:.2g} in parameters.lr.values" if values else f"with --set parameters.lr.{field}={further:.2g}"
    )
    return (
        f"The LR {chosen.lr:.3g} lies at the {side} bound of the LRs that were searched ({searched[0]:.3g} to "
        f"{searched[1]:.3g}). A {direction} one may be better: search again {again}",
    )


def _facts(study: Study, chosen: Finalist | Prediction) -> TrialFacts:
    """Return what the workers of a finalist's search trial knew of it; older studies have that once for all trials."""
    own = study.trials.outcome(chosen.trial).facts if isinstance(chosen, Finalist) else None
    facts = own or study.journal.facts
    assert facts is not None
    return facts


def _optimizer(study: Study, chosen: Finalist | Prediction) -> dict[str, Any]:
    """Return the optimizer of what is chosen: its `name` and its arguments, all but the LR."""
    base = study.config.optimizer
    return whole_optimizer({"name": base.name, **base.args}, split_parameters(chosen.parameters)[1])


def _max_steps(study: Study, chosen: Finalist | Prediction) -> int:
    return study.config.steps_of(study.config.max_steps, chosen.parameters.get(BATCH_SIZE))


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
