"""What a running study waits for: room in the cluster, or the reports of trials that have become silent."""

import time
from collections.abc import Callable, Iterable, Mapping

from ray.tune.experiment import Trial

from tune_lr.config.task import Task
from tune_lr.records.trial import Report, TrialSpec
from tune_lr.records.waiting import Tell, Waiting

# A trial is silent when its next report takes more than so many times as long as any report took before.
SILENT = 2.0


class Waits:
    """Looks at the trials in Tune's hands, and tells what they wait for when that takes long.

    `free` says how many CPUs and GPUs nobody uses, `is_full` whether the cluster has no room for what it is asked for.
    """

    def __init__(
        self,
        task: Task,
        free: Callable[[], tuple[float, float]],
        is_full: Callable[[], bool],
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scaling = task.scaling
        self._free = free
        self._is_full = is_full
        self._clock = clock
        self._for_room = Waiting(tell, clock)
        self._for_report = Waiting(tell, clock)
        self._pending_since: dict[int, float] = {}
        self._silent_since: dict[int, float] = {}  # of the trials that run, since their last report or their begin
        self._step: dict[int, int] = {}  # the step of the last report
        self._longest_s = 0.0  # that a report has taken

    def reported(self, trial: TrialSpec, report: Report) -> None:
        """Note that a trial has reported."""
        now = self._clock()
        self._longest_s = max(self._longest_s, now - self._silent_since.get(trial.number, now))
        self._silent_since[trial.number] = now
        self._step[trial.number] = report.step

    def look(self, trials: Iterable[Trial], active: Mapping[str, TrialSpec]) -> None:
        """Look at Tune's trials; `active` are those that are not over, by Tune's own id."""
        pending: dict[int, TrialSpec] = {}
        running: dict[int, TrialSpec] = {}
        for trial in trials:
            spec = active.get(trial.trial_id)
            if spec is not None:
                (pending if trial.status == Trial.PENDING else running)[spec.number] = spec
        now = self._clock()
        self._pending_since = {number: self._pending_since.get(number, now) for number in pending}
        self._silent_since = {number: self._silent_since.get(number, now) for number in running}
        self._for_room.look(min(self._pending_since.values(), default=None), lambda: self._room_text(min(pending)))
        silent = min(self._silent_since, key=lambda number: self._silent_since[number], default=None)
        if silent is None or now - self._silent_since[silent] <= SILENT * self._longest_s:
            self._for_report.look(None, str)
        else:
            self._for_report.look(self._silent_since[silent], lambda: self._report_text(running[silent]))

    def _room_text(self, number: int) -> str:
        if not self._is_full():
            return f"Ray to start the process of trial {number}"
        scaling = self._scaling
        cpus, gpus = self._free()
        gpus_each = f" and {scaling.gpus_per_worker:g} GPU" if scaling.gpus_per_worker else ""
        workers = f"{scaling.workers_per_trial} worker{'' if scaling.workers_per_trial == 1 else 's'}"
        needed = f"trial {number} takes {workers} of {scaling.cpus_per_worker} CPU{gpus_each}"
        free = f"free now are {cpus:g} CPU" + (f" and {gpus:g} GPU" if scaling.gpus_per_worker else "")
        return f"room in the cluster: {needed}; {free}"

    def _report_text(self, trial: TrialSpec) -> str:
        if not self._longest_s:
            return (
                f"the first report of trial {trial.number}: its workers start (torch, ColossalAI, kernels that are "
                "compiled), try the first batch and train up to the first report"
            )
        step = self._step.get(trial.number, 0)
        return (
            f"a report of trial {trial.number}, at step {step} of {trial.max_steps}: "
            f"no report took more than {self._longest_s:.0f} s before"
        )
