"""One slot as Ray Tune sees it: a Trainable that keeps a warm group of workers and resets it between trials."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune_lr.cluster.workers import WorkerGroup, WorkerLost, rank_file
from tune_lr.errors import InputError, ResourceError, one_line
from tune_lr.records.trial import CheckpointPlan, Report, TrialSpec
from tune_lr.store.checkpoints import Checkpoint
from tune_lr.store.study_dir import StudyDir

if TYPE_CHECKING:
    from tune_lr.config.task import Task

# A trial whose workers are lost more often than this has failed for good. So has one whose code raises the same
# exception after the same report a second time.
MAX_FAILURES = 2


class SlotTrainable(tune.Trainable):
    """Reports what the workers report. It never says `done`: the slot passes from trial to trial (see slots.py).

    A group that loses a worker is replaced in the same placement group, the trial goes on from its last checkpoint, or
    its start (on a CPU that is exact), and what was reported before is not reported twice: Tune and Optuna notice
    nothing.

    A checkpoint is written while the workers train on, after the report of its step is on disk: Tune asks for the next
    one only then. So no checkpoint is ever ahead of the curve.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Start the slot's workers without waiting for them, and its first trial."""
        self._task: Task = config["task"]
        self._slot = ray.get_runtime_context().get_actor_id() or ""
        self._sees_study = False
        self._unkept: set[str | None] = set()  # optimizers whose state cannot be kept
        self._new_group(config["trial"], rehearse=config["trial"].phase != "test")
        self._begin(config["trial"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next trial in the same workers, or in new ones where they must not stay warm."""
        if self._task.cold_workers:
            self._group.kill()
            self._new_group(new_config["trial"])
        self._begin(new_config["trial"])
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the trial's next report and return it."""
        return {"report": self._next_report()}

    def cleanup(self) -> None:
        """End the workers."""
        self._group.kill()

    def _new_group(self, trial: TrialSpec, *, rehearse: bool = False) -> None:
        placement_group = ray.util.get_current_placement_group()
        assert placement_group is not None
        self._group = WorkerGroup(self._task, placement_group)
        self._group.start(trial, rehearse=rehearse)
        self._worker = ""

    def _begin(self, trial: TrialSpec) -> None:
        self._trial, self._failures, self._reported = trial, 0, trial.resume or -1
        self._notices: list[str] = []
        self._exception: tuple[str, int] | None = None  # the last that was raised, and the step reported before it
        self._go_on(trial.resume)

    @property
    def _keeps(self) -> bool:
        return self._task.checkpoints is not None and self._trial.optimizer.get("name") not in self._unkept

    def _go_on(self, most: int) -> int:
        """From the newest checkpoint of a step up to `most`, or from the start; returns the step."""
        checkpoint: Checkpoint | None = None
        if self._keeps and most > 0:
            try:
                checkpoint, refused = self._at_study("newest_checkpoint", self._trial.number, most)
                self._notices += refused
            except (OSError, ResourceError, ray.exceptions.RayError) as error:
                self._notices.append(f"its checkpoints cannot be read ({one_line(error)})")
        self._due = False
        self._seconds = checkpoint.seconds if checkpoint else 0.0
        self._group.begin(self._trial, checkpoint)
        return checkpoint.step if checkpoint else 0

    def _next_report(self) -> Report:
        while True:
            report = self._attempt()
            if report is not None and (report.over or report.step > self._reported):
                points = tuple(point for point in report.points if point[0] > self._reported)
                self._reported = report.step
                notices, self._notices = (*self._notices, *report.notices), []
                return replace(report, points=points, worker=self._worker, slot=self._slot, notices=notices)

    def _attempt(self) -> Report | None:
        """One report of the group's; None where the group had to be replaced and the trial begun again."""
        try:
            states = self._group.states() if self._due else []
            reports = self._group.reports(self._trial)
            if states:
                self._keep(self._group.wait(states))
            report = self._group.wait(reports)[0]
        except InputError as error:
            return Report(step=0, over=True, mistake=str(error))
        except WorkerLost as lost:
            self._failures += not lost.preempted
            self._group.kill()
            self._new_group(self._trial)
            exception = (str(lost), self._reported) if lost.raised else None
            repeated = exception is not None and exception == self._exception
            self._exception = exception
            if lost.final or repeated or self._failures > MAX_FAILURES:
                return Report(step=max(self._reported, 0), over=True, failure=str(lost))
            step = self._go_on(self._reported)
            went_on = f"it went on from its checkpoint at step {step}" if step else "it began anew"
            what = "its code raised an exception" if lost.raised else "a worker was lost"
            self._notices.append(f"{what} ({lost}); its group was replaced and {went_on}")
            return None
        self._worker = self._worker or self._group.processes()
        self._seconds += report.seconds
        self._due = report.checkpoint and self._keeps
        self._at = report.step
        return report

    def _keep(self, states: list[bytes | str]) -> None:
        """Writes what the ranks hold at the last report. A trial goes on without where that cannot be."""
        plan = self._task.checkpoints
        assert plan is not None
        files = {rank_file(rank): state for rank, state in enumerate(states) if isinstance(state, bytes)}
        if len(files) < len(states):
            self._unkept.add(self._trial.optimizer.get("name"))  # all trials have the same model
            self._notices.append(f"it has no checkpoints ({next(why for why in states if isinstance(why, str))})")
            return
        try:
            checkpoint = Checkpoint(self._at, self._seconds, files)
            self._at_study("write_checkpoint", self._trial.number, checkpoint, plan.keep)
        except (OSError, ResourceError, ray.exceptions.RayError) as error:
            self._notices.append(f"its checkpoint at step {self._at} cannot be written ({one_line(error)})")

    def _at_study(self, method: str, *arguments: Any) -> Any:
        """What that method of the study's directory returns: called here, or on the driver's node where this one does
        not see the directory."""
        plan = self._task.checkpoints
        assert plan is not None
        self._sees_study = self._sees_study or StudyDir(plan.root).is_study(plan.study_id)
        if self._sees_study:
            return getattr(StudyDir(plan.root), method)(*arguments)
        there = NodeAffinitySchedulingStrategy(plan.home, soft=False)
        call = ray.remote(_call).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        return ray.get(call.remote(plan, method, *arguments))


def _call(plan: CheckpointPlan, method: str, *arguments: Any) -> Any:
    directory = StudyDir(plan.root)
    if not directory.is_study(plan.study_id):
        raise ResourceError(f"{directory.root}: the study is not there")
    return getattr(directory, method)(*arguments)
