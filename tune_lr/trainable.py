"""One slot as Ray Tune sees it: a Trainable that keeps a warm group of workers and resets it between trials."""

from dataclasses import replace
from typing import Any

import ray
from ray import tune

from tune_lr.errors import InputError
from tune_lr.trial import Report, Task, TrialSpec
from tune_lr.workers import WorkerGroup, WorkerLost

# A trial whose workers are lost more often than this has failed for good.
MAX_FAILURES = 2


class SlotTrainable(tune.Trainable):
    """Reports what the workers report. It never says `done`: the slot passes from trial to trial (see slots.py).

    A group that loses a worker is replaced in the same placement group, the trial trained again from its start (on a
    CPU that is exact) and what was reported before is not reported twice: Tune and Optuna notice nothing.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._task: Task = config["task"]
        self._slot = ray.get_runtime_context().get_actor_id() or ""
        self._new_group(config["trial"])
        self._begin(config["trial"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config["trial"])
        return True

    def step(self) -> dict[str, Any]:
        return {"report": self._next_report()}

    def cleanup(self) -> None:
        self._group.kill()

    def _new_group(self, trial: TrialSpec) -> None:
        placement_group = ray.util.get_current_placement_group()
        assert placement_group is not None
        self._group = WorkerGroup(self._task, placement_group)
        self._group.start(trial)
        self._worker = ""

    def _begin(self, trial: TrialSpec) -> None:
        self._trial, self._reported, self._repairs = trial, -1, 0
        self._group.begin(trial)

    def _next_report(self) -> Report:
        while True:
            report = self._attempt()
            if report is not None and (report.over or report.step > self._reported):
                self._reported = report.step
                return replace(report, repairs=self._repairs, worker=self._worker, slot=self._slot)

    def _attempt(self) -> Report | None:
        """One report of the group's; None where the group had to be replaced and the trial begun again."""
        try:
            report = self._group.report(self._trial)
        except InputError as error:
            return Report(step=0, over=True, mistake=str(error))
        except WorkerLost as lost:
            self._repairs += 1
            self._group.kill()
            self._new_group(self._trial)
            if self._repairs > MAX_FAILURES:
                return Report(step=max(self._reported, 0), over=True, failure=str(lost))
            self._group.begin(self._trial)
            return None
        self._worker = self._worker or self._group.processes()
        return report
