"""The confirmation of a study: which finalists are trained again with which seeds, and the pass over the test data."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tune_lr.config.model import Config
from tune_lr.errors import NoAnswerError
from tune_lr.records.answer import Verdict
from tune_lr.records.observer import Observer
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.journal import Journal
from tune_lr.study.spending import BudgetKeeper
from tune_lr.study.trial_book import TrialBook
from tune_lr.study.verdict import choose_finalists, judge

CONFIRM_SEEDS = 1001  # the first seed of the confirmation, counted from the study's; no ramp has one of these
TEST = -1  # the number of the pass over the test data, which is no trial


@dataclass(frozen=True)
class WinnerOnTestData:
    """What the pass over the test data has found."""

    trial: int  # the winner's number in the search
    values: tuple[Mapping[str, float], ...]  # the figures of each of its models: "test_loss", "test_accuracy"


class Confirmation:
    """Says which trials confirm the search.

    `posterior_values` returns what is expected of each completed trial of the search, by number. The finalists stand in
    the journal, as the attribute `finalists` of the ledger `confirm`, by how many trials of the search had ended:
    whoever reads the journal alone, without the ramps, could not choose them.
    """

    def __init__(
        self,
        config: Config,
        directory: StudyDir,
        journal: Journal,
        trials: TrialBook,
        budget: BudgetKeeper,
        observer: Observer,
        posterior_values: Callable[[], Mapping[int, float]],
    ) -> None:
        self._config = config
        self._directory = directory
        self._journal = journal
        self._trials = trials
        self._budget = budget
        self._observer = observer
        self._posterior_values = posterior_values
        self._chosen: tuple[str, list[int]] = ("", [])  # the finalists, and the key under which they were chosen

    def verdict(self) -> Verdict:
        """Return who has won so far. Raises NoAnswerError where no trial of the search was completed."""
        metric = self._config.metric
        seeds = self._budget.confirmation().seeds
        return judge(self._trials.rows(), metric.name, metric.goal, seeds, self._config.confirm.most_seeds)

    def missing(self) -> list[TrialSpec]:
        """Return the confirmations that are wanted and were not asked for yet, with the numbers of the search trials.

        They come seed by seed: a study that is cut short has compared all finalists on the seeds it had. When all have
        the first seeds, those between whom more would decide get more.
        """
        finalists, seeds = self._budget.confirmation()
        most_seeds = self._config.confirm.most_seeds
        if not finalists:
            return []
        chosen = self._finalists(finalists)
        missing = self._not_asked(chosen, range(seeds))
        later = self._config.seed + CONFIRM_SEEDS + seeds
        waiting = any(spec.phase == "confirm" and spec.seed < later for spec in self._trials.begun())
        if missing or waiting or most_seeds <= seeds or not chosen:
            return missing
        more = self._not_asked(self.verdict().contenders, range(seeds, most_seeds))
        return more if self._budget.holds(len(more)) else []

    def spec(self, number: int) -> TrialSpec:
        """Return the next confirmation as the trial of that number, and write down who the finalists are."""
        first = self.missing()[0]
        finalists, seeds = self._budget.confirmation()
        self._keep_finalists(finalists)
        later = self._config.seed + CONFIRM_SEEDS + seeds
        asked = [spec.seed for spec in self._trials.specs("confirm")]
        if first.seed >= later > max(asked):
            self._observer.notice(f"confirm: {self.verdict().sentence} More seeds may do it.")
        return replace(first, number=number, checkpoint=str(self._directory.checkpoint(number)))

    # --- the pass over the test data ------------------------------------------------------------------------

    @property
    def test_result(self) -> WinnerOnTestData | None:
        """What the pass over the test data has found; None where there was none."""
        result = self._journal.ledger("confirm").user_attrs.get("test")
        return WinnerOnTestData(result["trial"], tuple(result["values"])) if result else None

    def test_spec(self) -> TrialSpec | None:
        """Return the pass over the test data; None where there is no winner whose models were kept, or it is over."""
        try:
            winner = self.verdict().winner
        except NoAnswerError:
            return None
        spec = self._trials.spec(winner.trial)
        models = winner.confirm_trials or ((winner.trial,) if spec.checkpoint else ())
        tested = self.test_result
        if not models or (tested and tested.trial == winner.trial):
            return None
        checkpoints = tuple(str(self._directory.checkpoint(number)) for number in models)
        return replace(spec, number=TEST, phase="test", checkpoint=None, checkpoints=checkpoints)

    def keep_test(self, report: Report) -> None:
        """Write down what the pass over the test data has found."""
        if report.failure:
            self._observer.notice(f"the winner could not be evaluated on the test data: {report.failure}")
            return
        values = [dict(figures) for figures in report.test_values]
        test = {"trial": self.verdict().winner.trial, "values": values}
        self._journal.ledger("confirm").set_user_attr("test", test)

    # --- the finalists --------------------------------------------------------------------------------------

    def _finalists(self, count: int) -> list[int]:
        """Return the numbers of the search trials that are confirmed."""
        key = self._key(count)
        if self._chosen[0] != key:
            kept = kept_finalists(self._journal).get(key)
            self._chosen = (key, self._choose(count) if kept is None else kept)
        return self._chosen[1]

    def _choose(self, count: int) -> list[int]:
        metric = self._config.metric
        top = self._config.confirm.top
        posterior = self._posterior_values()
        rows = choose_finalists(self._trials.rows(), metric.name, metric.goal, top, count, posterior)
        return [row.number for row in rows]

    def _key(self, count: int) -> str:
        ended = sum(self._trials.spec(number).phase == "search" for number in self._trials.ended())
        return f"{count} of {ended}"

    def _keep_finalists(self, count: int) -> None:
        kept, key = kept_finalists(self._journal), self._key(count)
        if key not in kept:
            finalists = self._finalists(count)
            self._journal.ledger("confirm").set_user_attr("finalists", {**kept, key: finalists})

    def _not_asked(self, finalists: Sequence[int], seeds: Sequence[int]) -> list[TrialSpec]:
        wanted = [
            replace(
                self._trials.spec(number), phase="confirm", label="", seed=self._config.seed + CONFIRM_SEEDS + index
            )
            for index in seeds
            for number in finalists
        ]
        asked = {_trained(spec) for spec in self._trials.specs("confirm")}
        return [spec for spec in wanted if _trained(spec) not in asked]


def kept_finalists(journal: Journal) -> dict[str, list[int]]:
    """Return the finalists that the journal names, by the key under which they were chosen."""
    kept: dict[str, list[int]] = journal.ledger("confirm").user_attrs.get("finalists", {})
    return kept


def _trained(spec: TrialSpec) -> tuple[Any, ...]:
    """Return what tells two confirmations apart. Parameters are text, since one of them may be a list."""
    parameters = json.dumps([spec.parameters, spec.optimizer], sort_keys=True)
    return spec.lr_schedule, spec.lr, parameters, spec.batch_size, spec.seed
