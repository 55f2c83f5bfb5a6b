"""The story of a study: run its phases from where it stands, judge what there is, write the report."""

from collections.abc import Callable, Sequence
from contextlib import redirect_stdout

from tune_lr.config.hardware import Hardware
from tune_lr.config.model import Config
from tune_lr.config.task import make_task
from tune_lr.errors import NoAnswerError, ResourceError
from tune_lr.interrupts import end_at_once, interruptible, stoppable
from tune_lr.records.answer import Answer
from tune_lr.records.observer import Observer
from tune_lr.records.outcome import Outcome, Spending
from tune_lr.records.trial import CheckpointPlan
from tune_lr.records.waiting import Tell, told_while
from tune_lr.store.files import write_json
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.answer import answer_of
from tune_lr.study.curve_prediction import CurveWatch
from tune_lr.study.ladder_view import ladder_view
from tune_lr.study.study import Study


def run(
    directory: StudyDir,
    *,
    address: str | None = None,
    observers: Sequence[Observer] = (),
    strict: bool = False,
    on_study: Callable[[Study], None] | None = None,
    on_cluster: Callable[[int, Hardware], None] | None = None,
    on_waiting: Tell | None = None,
) -> Outcome:
    """Run the study in `directory` from where it stands to its end, and write every derived file.

    `on_study` is given the study before anything of it runs; `on_cluster` the number of slots and what the cluster has;
    `on_waiting` what is waited for, where that takes long.
    Raises TuneLRError; Interrupted after SIGINT or SIGTERM. Whatever ends it, what was finished stands on disk.
    """
    with directory.lock():
        directory.stop_file.unlink(missing_ok=True)  # of a driver before this one
        record = directory.read_record()
        config = record.config
        watch = CurveWatch(directory, observers)
        study = Study(config, directory, observers=[watch, *observers], phases=record.phases, strict=strict)
        watch.study = study
        if on_study is not None:
            on_study(study)
        task = make_task(config, record.python_path, _checkpoint_plan(config, directory, record.id))
        with interruptible(directory, study.interrupt) as take_signals:
            with told_while("Ray to be imported", on_waiting):
                from tune_lr.cluster import cluster  # as late as can be: whatever is wrong shows first

            def cluster_lost() -> None:
                end_at_once("the Ray cluster was lost", ResourceError.exit_code, directory)

            with (
                directory.driver_log.open("a", encoding="utf-8", errors="replace") as log,
                redirect_stdout(log),  # Ray prints what befalls a worker; whoever shows progress holds the old one
                cluster.connected(address, task.python_path, on_waiting),
                cluster.head_watched(cluster_lost),
                stoppable(directory, study.interrupt),
            ):
                take_signals()  # again: Ray has set a handler of its own
                if not study.stopped:
                    cluster.run(study, task, config.scaling.max_concurrent, on_cluster, on_waiting)
        if study.error is not None:
            if isinstance(study.error, NoAnswerError):
                finish(study)
            raise study.error
        return finish(study)


def report(directory: StudyDir) -> Outcome:
    """Write every derived file anew, from the journal and the curves. Raises ResourceError."""
    record = directory.read_record()
    with directory.lock():
        study = Study(record.config, directory, phases=record.phases, resume=False)
        study.read_bounds()
        return finish(study)


def finish(study: Study) -> Outcome:
    """Judge what there is, write the derived files and return the outcome."""
    from tune_lr.show.report import write_report  # here, since matplotlib takes a second that workers need not wait for

    directory = study.directory
    directory.write_rows(study.rows())
    if study.widened:
        write_json(directory.widened_json, study.widened.to_dict())
    view = ladder_view(study)
    if view is not None:
        write_json(directory.ladder_json, view.to_dict())
    answer, no_answer = None, ""
    try:
        answer = answer_of(study)
    except NoAnswerError as error:
        no_answer = str(error)
    directory.write_answer(answer)
    write_report(directory)
    return _outcome(study, answer, no_answer)


def _outcome(study: Study, answer: Answer | None, no_answer: str) -> Outcome:
    metric = study.config.metric
    return Outcome(
        root=study.directory.root,
        rows=tuple(study.rows()),
        bounds={str(combination): bounds for combination, bounds in study.all_bounds.items()},
        widening=study.widened,
        metric=metric.name,
        goal=metric.goal,
        answer=answer,
        no_answer=no_answer,
        spending=Spending(
            steps=study.trials.steps_by_phase(),
            full_trainings=round(study.trials.full_trainings(), 1),
            saved=study.trials.steps_saved(),
            elapsed_s=study.elapsed(),
            budget=study.config.budget,
        ),
    )


def _checkpoint_plan(config: Config, directory: StudyDir, study_id: str) -> CheckpointPlan | None:
    """The plan is None where there are to be no checkpoints, and with plugins that split the model or the optimizer."""
    how = config.checkpoints
    if config.scaling.plugin != "ddp" or (how.every_steps is None and how.every_minutes is None):
        return None
    return CheckpointPlan(how.every_steps, how.every_minutes, how.keep, str(directory.root), study_id)
