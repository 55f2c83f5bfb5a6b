"""Ray Tune's Searcher and TrialScheduler for a study: which trial runs next, and in which warm slot.

With `reuse_actors` Tune hands a finished trial's actor to whichever trial is pending and throws away that one's own,
and throws away any actor that finishes while nothing is pending. To keep every slot warm, a trial that is over is
*held*: Tune is told nothing, its actor idles. A next trial is suggested only while fewer are active than there are
slots (so it knows all results so far), and then one held trial is stopped and the new one started in the same step
of Tune's controller, so that the actor passes straight from one to the other. tests/cluster/test_slots.py fails when a
new version of Ray moves what this relies on.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from tune_lr.cluster.waits import Waits
from tune_lr.config.task import Task
from tune_lr.study.study import Study

if TYPE_CHECKING:
    from tune_lr.records.trial import Report, TrialSpec


class Slots:
    """What the searcher and the scheduler share: the trials in Tune's hands, by Tune's own id.

    `count` says how many slots there are now: nodes join and leave. `waits` tells what has to be waited for.
    """

    def __init__(self, study: Study, task: Task, count: Callable[[], int], waits: Waits) -> None:
        self.study = study
        self.task = task
        self.count = count
        self.waits = waits
        self.active: dict[str, TrialSpec] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher and scheduler into a snapshot, which is not relied on. The study's own
        journal is the record."""
        return {}


class StudySearcher(Searcher):
    """Asks the study for the next trial whenever a slot is free."""

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self._slots = slots

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial for Tune; None while all slots are taken or results have to be waited for."""
        slots = self._slots
        if slots.study.over:
            return Searcher.FINISHED
        if len(slots.active) >= slots.count():
            return None
        trial = slots.study.next_trial()
        if trial is None:
            return None
        slots.active[trial_id] = trial
        return {"task": slots.task, "trial": trial}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Have a trial that has lost its actor, perhaps before it began, issued again.

        Tune calls this for every trial that it ends; those whose end the study knows are not active any more.
        """
        trial = self._slots.active.pop(trial_id, None)
        if trial is not None:
            self._slots.study.lost(trial.number)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study's journal is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the study's journal is the record."""


class HoldingScheduler(TrialScheduler):
    """Hands every report to the study, and keeps the actors of trials that are over warm for those that follow."""

    def __init__(self, slots: Slots) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._slots = slots
        self._held: list[Trial] = []
        self._fresh: deque[Trial] = deque()

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Remember a trial that has no actor yet."""
        self._fresh.append(trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Give a report to the study; a trial that is over is held, with its actor idle."""
        spec = self._slots.active.get(trial.trial_id)
        if spec is None:  # it was over already
            return self.NOOP
        report: Report = result["report"]
        self._slots.waits.reported(spec, report)
        if self._slots.study.report(spec.number, report):
            return self.CONTINUE
        del self._slots.active[trial.trial_id]
        self._held.append(trial)
        return self.NOOP

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Pass the actor of a held trial to a fresh one; end all held trials when the study is over.

        Tune asks this several times a second.
        """
        self._slots.waits.look(tune_controller.get_trials(), self._slots.active)
        if self._slots.study.over:
            while self._held:
                tune_controller.stop_trial(self._held.pop())
            return None
        while self._fresh and self._fresh[0].status != Trial.PENDING:
            self._fresh.popleft()
        if not (self._held and self._fresh):
            return None
        tune_controller.stop_trial(self._held.pop(0))
        return self._fresh.popleft()

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """An idle slot that has died has no actor to pass on."""
        if trial in self._held:
            self._held.remove(trial)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Do nothing: the study was told by the last report."""

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Do nothing: Tune removes trials that it has never started."""

    def debug_string(self) -> str:
        """Return what Tune prints of this scheduler, if it prints anything."""
        return f"{len(self._slots.active)} active, {len(self._held)} held"


class StudyStopper(Stopper):
    """Ends Tune's run at once where the study must not go on."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return that no trial ends by itself: the study says when one is over."""
        return False

    def stop_all(self) -> bool:
        """Return whether the study must not go on."""
        return self._slots.study.stopped
