"""From Python what the command line does: `tune_lr.search(...)`, `range_test(...)`, `train(...)` and `read_study(...)`.

What has come of a study is a frozen `StudyResult`; its tables are pandas frames.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_lr.config.load import overrides_of, read_space
from tune_lr.errors import InputError
from tune_lr.final_training import final_training, model_file, predicted_training, training_name
from tune_lr.lr.bounds import LRBounds
from tune_lr.records.answer import Answer
from tune_lr.records.row import TrialRow
from tune_lr.records.user_calls import check_no_user_call
from tune_lr.session import new_directory, open_session, run_new
from tune_lr.store.study_dir import StudyDir

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.console import Console

    from tune_lr.tracking.key import Mode


@dataclass(frozen=True)
class StudyResult:
    """What a study has come to, read from its directory.

    `answer` is the winner and what was found of it; None where no trial was completed. `bounds` is None where there was
    no LR range test; where batch sizes or optimizers are searched, those of the others stand in bounds.json under
    "combinations".
    """

    path: Path
    answer: Answer | None
    bounds: LRBounds | None
    rows: tuple[TrialRow, ...]  # of every trial that has ended, by number

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The answer as best.yaml holds it: "lr_schedule", "lr", "parameters", "mean", "interval", "runner_up", ...

        None where no trial was completed.
        """
        return self.answer.to_dict() if self.answer is not None else None

    @property
    def trials(self) -> "DataFrame":
        """trials.csv: one row a trial of every phase; parameters as in "step.gamma", empty where a trial has none."""
        import pandas

        return pandas.read_csv(StudyDir(self.path).trials_csv)

    def curve(self, number: int) -> "DataFrame":
        """Return the curve of one trial.

        Its columns are step, lr, train_loss, val_loss, ... (NaN where not validated); those of a ramp step, lr, loss.
        Raises InputError where there is no curve of that number.
        """
        import pandas

        directory = StudyDir(self.path)
        for path in (directory.curve(number), directory.range_curve(number)):
            if path.exists():
                return pandas.read_csv(path)
        raise InputError(f"curve: the study {directory.name} has no trial with a curve of that number (got {number})")

    @property
    def curves(self) -> "DataFrame":
        """The curves of all search and confirm trials, one below the other, with the trial's `number` in front."""
        import pandas

        directory = StudyDir(self.path)
        with_curves = [row.number for row in self.rows if directory.curve(row.number).exists()]
        frames = [pandas.read_csv(directory.curve(number)).assign(number=number) for number in with_curves]
        joined = pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame({"number": []})
        return joined[["number", *(name for name in joined.columns if name != "number")]]


def search(
    space: str | Path | Mapping[str, Any] = "lenet5_mnist",
    *,
    name: str | None = None,
    out: str | Path = "studies",
    settings: Mapping[str, Any] | None = None,
    address: str | None = None,
    wandb: "Mode | None" = None,
    strict: bool = False,
    progress: bool = False,
) -> StudyResult:
    """Run a whole study: LR range test, search and confirmation.

    `space` is a YAML file, the name of one in search_spaces/, or what would stand in one, as a mapping; a workload in a
    mapping may be the function itself, where workers can import it. `settings` are laid over it, as in
    {"num_trials": 12, "optimizer.momentum": 0.8}. The study lies at `out`/`name`. `progress` prints what the command
    line prints.

    Raises InputError for a mistake, ResourceError where the cluster or the storage cannot serve it, NoAnswerError where
    no trial was completed, Interrupted after SIGINT; all are TuneLRError.
    """
    check_no_user_call("search")
    directory = new_directory(out, name, space)
    checked = read_space(space, overrides_of(settings))
    session = open_session(address, wandb, strict=strict, console=_console(progress))
    run_new(checked, directory, session)
    return read_study(directory.root)


def range_test(
    space: str | Path | Mapping[str, Any] = "lenet5_mnist",
    *,
    name: str | None = None,
    out: str | Path = "studies",
    settings: Mapping[str, Any] | None = None,
    address: str | None = None,
    wandb: "Mode | None" = None,
    strict: bool = False,
    progress: bool = False,
) -> LRBounds:
    """Run the LR range test alone and return its bounds; arguments as for `search`.

    With `strict` raises NoAnswerError where the range test abstains.
    """
    check_no_user_call("range_test")
    directory = new_directory(out, name, space)
    checked = read_space(space, overrides_of(settings))
    session = open_session(address, wandb, strict=strict, console=_console(progress))
    run_new(checked, directory, session, phases=("range_test",))
    return directory.read_bounds()


def train(
    study: str | Path,
    *,
    trial: int | None = None,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    address: str | None = None,
    wandb: "Mode | None" = None,
    progress: bool = False,
    accept_changed_code: bool = False,
) -> Path:
    """Train a study's winner, or its trial of that number, once more; return the file of its model (safetensors).

    The training is a study of its own beside `study`, called `name` (default: its name and "-train"). `settings` are
    laid over the study's configuration: {"max_steps": 3100} trains ten times as long, with lengths that are fractions
    of it stretched. Where the user's Python files have changed since `study` was made, InputError names them, unless
    `accept_changed_code`. Raises as `search` does.
    """
    check_no_user_call("train")
    source = StudyDir(study)
    training = final_training(source, trial, overrides_of(settings), accept_changed_code=accept_changed_code)
    directory = new_directory(source.root.parent, name or training_name(source), study)
    session = open_session(address, wandb, console=_console(progress))
    run_new(training, directory, session, predicted_curve=predicted_training(source, trial, training.config))
    return model_file(directory)


def read_study(path: str | Path) -> StudyResult:
    """Return what the study in that directory had come to when its derived files were last written.

    Where there are none yet, they are written now. Raises ResourceError where there is no study, or one that is just
    being run.
    """
    directory = StudyDir(path)
    directory.read_study()
    if not directory.trials_csv.exists():
        from tune_lr.run import report

        report(directory)
    return StudyResult(
        path=directory.root,
        answer=directory.read_answer(),
        bounds=directory.read_bounds() if directory.bounds_json.exists() else None,
        rows=tuple(directory.read_rows()),
    )


def _console(progress: bool) -> "Console | None":
    if not progress:
        return None
    from tune_lr.show.output import safe_console

    return safe_console(sys.stdout)
