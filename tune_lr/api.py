"""From Python what the command line does: `tune_lr.search(...)`, `range_test(...)`, `train(...)` and `read_study(...)`.

What has come of a study is a frozen `StudyResult`; its tables are pandas frames.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_lr.config.load import load_config, parse_config
from tune_lr.config.model import Config
from tune_lr.config.spaces import find_space
from tune_lr.errors import InputError, Interrupted, NoAnswerError, TuneLRError
from tune_lr.lr.bounds import LRBounds
from tune_lr.records.answer import Answer
from tune_lr.records.parameters import BATCH_SIZE, OPTIMIZER, split_parameters, whole_optimizer
from tune_lr.records.phases import PHASES
from tune_lr.records.row import TrialRow
from tune_lr.store.study_dir import StudyDir, check_study_name

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.console import Console

    from tune_lr.records.outcome import Outcome
    from tune_lr.study.study import Study
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
        """The answer as best.yaml holds it: "lr_schedule", "lr", "parameters", "mean", "interval", "runner_up" and more.

        None where no trial was completed.
        """
        return self.answer.to_dict() if self.answer is not None else None

    @property
    def trials(self) -> "DataFrame":
        """trials.csv: one row a trial of every phase; parameters as in "step.gamma", empty where a trial has none."""
        import pandas

        return pandas.read_csv(StudyDir(self.path).trials_csv)

    def curve(self, number: int) -> "DataFrame":
        """The curve of one trial: step, lr, train_loss, val_loss, ... (NaN where not validated); of a ramp: step, lr,
        loss. Raises InputError where there is none of that number."""
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
    """A whole study: LR range test, search and confirmation.

    `space` is a YAML file, the name of one in search_spaces/, or what would stand in one, as a mapping; a workload in a
    mapping may be the function itself, where workers can import it. `settings` are laid over it, as in
    {"num_trials": 12, "optimizer.momentum": 0.8}. The study lies at `out`/`name`. `progress` prints what the command
    line prints.

    Raises InputError for a mistake, ResourceError where the cluster or the storage cannot serve it, NoAnswerError where
    no trial was completed, Interrupted after SIGINT; all are TuneLRError.
    """
    config, importable, stem = _space(space, settings)
    directory = _new(Path(out), name, stem)
    shown = _console(progress)
    run_new(config, importable, directory, address=address, wandb=wandb, strict=strict, console=shown)
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
    """The LR range test alone; arguments as for `search`. With `strict` raises NoAnswerError where it abstains."""
    config, importable, stem = _space(space, settings)
    directory = _new(Path(out), name, stem)
    shown, phases = _console(progress), ("range_test",)
    run_new(config, importable, directory, phases=phases, address=address, wandb=wandb, strict=strict, console=shown)
    return read_bounds(directory)


def train(
    study: str | Path,
    *,
    trial: int | None = None,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    address: str | None = None,
    wandb: "Mode | None" = None,
    progress: bool = False,
) -> Path:
    """Trains a study's winner, or its trial of that number, once more and keeps the model; returns its file
    (safetensors). The training is a study of its own beside `study`, called `name` (default: its name and "-train").

    `settings` are laid over the study's configuration: {"max_steps": 3100} trains ten times as long, with lengths that
    are fractions of it stretched. Raises as `search` does.
    """
    source = StudyDir(study)
    config = final_training(source, trial, _overrides(settings))
    directory = _new(source.root.parent, name or training_name(source), "train")
    run_new(
        config,
        source.read_resumable()["python_path"],
        directory,
        address=address,
        wandb=wandb,
        console=_console(progress),
    )
    return model_file(directory)


def read_study(path: str | Path) -> StudyResult:
    """What the study in that directory had come to when its derived files were last written; where there are none yet,
    they are written now. Raises ResourceError where there is no study, or one that is just being run."""
    directory = StudyDir(path)
    directory.read_study()
    if not directory.trials_csv.exists():
        from tune_lr.run import report

        report(directory)
    return StudyResult(
        path=directory.root,
        answer=directory.read_answer(),
        bounds=read_bounds(directory) if directory.bounds_json.exists() else None,
        rows=tuple(directory.read_rows()),
    )


# --- what the command line shares ---------------------------------------------------------------------------


def run(
    config: Config,
    directory: StudyDir,
    mode: "Mode",
    *,
    phases: Sequence[str] = PHASES,
    address: str | None = None,
    strict: bool = False,
    console: "Console | None" = None,
) -> "Outcome":
    """Runs the study in `directory` from where it stands to its end, with every curve reported to W&B; what happens is
    shown on `console`, where there is one."""
    from tune_lr.config.plan import plan
    from tune_lr.run import run as run_study
    from tune_lr.show.terminal import Progress, show_outcome
    from tune_lr.tracking.process import WandbProcess

    progress = Progress(console, config, plan(config, phases)) if console else None
    tracker = WandbProcess(config, directory, directory.read_resumable()["id"], mode) if mode != "disabled" else None

    def on_study(study: "Study") -> None:
        if progress is not None:
            progress.spent_s, progress.spent_steps = study.elapsed(), sum(study.trials.steps_by_phase().values())
        if tracker is not None:
            tracker.stop_trial = study.stop_trial

    try:
        with progress or nullcontext():
            outcome = run_study(
                directory,
                address=address,
                observers=[observer for observer in (progress, tracker) if observer is not None],
                strict=strict,
                on_study=on_study,
                on_cluster=progress.cluster_joined if progress else None,
            )
        if tracker is not None:
            tracker.study_ended(outcome.rows)
    finally:
        if tracker is not None:
            tracker.close()
    if console is not None and progress is not None:
        show_outcome(console, outcome)
        if tracker is not None and tracker.trouble:
            progress.notice(f"W&B: {tracker.trouble}")
        if tracker is not None and (tracker.mode == "offline" or tracker.trouble):
            other = "" if tracker.trouble else f"   (or wandb sync {directory.wandb}/offline-run-*)"
            console.print(f"W&B          tune-lr sync {directory.root}{other}", highlight=False, soft_wrap=True)
        if outcome.failed:
            where = f"see the column reason in {directory.trials_csv}"
            progress.notice(f"{outcome.failed} trial(s) failed for good: {where}")
    answerable = config.num_trials or any(fixed.ramp is None for fixed in config.fixed)
    if outcome.no_answer and answerable and "search" in phases:
        raise NoAnswerError(outcome.no_answer)
    return outcome


def run_new(
    config: Config,
    python_path: Sequence[str],
    directory: StudyDir,
    *,
    phases: Sequence[str] = PHASES,
    address: str | None = None,
    wandb: "Mode | None" = None,
    strict: bool = False,
    console: "Console | None" = None,
) -> "Outcome":
    """Makes the study directory and runs the study. Where it fails before anything was trained, the name stays free."""
    mode = announce(config, directory, phases=phases, address=address, wandb=wandb, console=console)
    from tune_lr.run import create  # Optuna, which takes a second: whatever is wrong has shown by now

    create(config, directory, python_path, phases)
    try:
        return run(config, directory, mode, phases=phases, address=address, strict=strict, console=console)
    except TuneLRError as error:
        if not isinstance(error, Interrupted) and not directory.has_points():
            directory.remove()
        raise


def announce(
    config: Config,
    directory: StudyDir,
    *,
    phases: Sequence[str],
    address: str | None,
    wandb: "Mode | None",
    console: "Console | None",
) -> "Mode":
    """Says what will run; returns the mode of W&B. Refuses what cannot be before anything is imported or made."""
    from tune_lr.config.hardware import check_address
    from tune_lr.config.plan import plan
    from tune_lr.tracking.key import choose_mode

    mode = choose_mode(wandb)
    check_address(address or os.environ.get("RAY_ADDRESS"))
    if console is not None:
        from tune_lr.show.terminal import show_plan

        show_plan(console, directory.name, config, plan(config, phases))
    return mode


def read_bounds(directory: StudyDir) -> LRBounds:
    """bounds.json; of several combinations of batch size and optimizer, the study's own."""
    found = directory.read_json(directory.bounds_json)
    found.pop("combinations", None)
    return LRBounds.from_dict(found)


def python_path(source: Path) -> list[str]:
    """Where the Python files of a search space lie: beside it, and in the current directory."""
    return list(dict.fromkeys([str(source.resolve().parent), os.getcwd()]))


def final_training(study: StudyDir, trial: int | None, overrides: Sequence[str] = ()) -> Config:
    """The configuration that trains a study's winner, or one of its trials, once more and keeps the model."""
    record = study.read_resumable()
    base = parse_config(record["config"], source=str(study.study_yaml))
    number, chosen, optimizer, batch_size = _chosen(study, trial)
    data = base.to_dict()
    data |= {
        "optimizer": whole_optimizer(data["optimizer"], optimizer),
        "batch_size": batch_size or base.batch_size,
        "max_steps": base.steps_of(base.max_steps, batch_size),
        "report_every": base.steps_of(base.report_every, batch_size),
        "num_trials": 0,
        "budget": None,
        "pruner": {"name": "none"},
        "confirm": {"top": 0},
        "fixed": [{"label": f"{study.name} #{number}", "keep_model": True, **chosen}],
    }
    del data["parameters"]
    return parse_config(data, source=str(study.study_yaml), overrides=overrides)


def training_name(study: StudyDir) -> str:
    """Its name and "-train", and a number where that is taken."""
    stem = f"{study.name[:54]}-train"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    return next(name for name in names if not (study.root.parent / name).exists())


def model_file(directory: StudyDir) -> Path:
    """The model that a final training has kept."""
    return directory.checkpoint(0) / "model.safetensors"


def _chosen(study: StudyDir, trial: int | None) -> tuple[int, dict[str, Any], dict[str, Any], int | None]:
    """A trial's number, its LR schedule, LR and parameters, and what was searched of its optimizer and batch size."""
    if trial is None:
        if not study.best_yaml.exists():
            raise NoAnswerError(f"{study.root}: has no winner (yet); wait for its end, or name a trial with --trial")
        best = study.read_yaml(study.best_yaml)
        schedule = {"lr_schedule": best["lr_schedule"], "lr": best["lr"]}
        searched = {k: v for k, v in best["parameters"].items() if k.startswith(OPTIMIZER) or k == BATCH_SIZE}
        own = {name: value for name, value in best["parameters"].items() if name not in searched}
        return best["trial"], schedule | own, split_parameters(searched)[1], searched.get(BATCH_SIZE)
    params = study.trial(trial) / "params.json"
    spec = study.read_json(params) if params.exists() else {}
    if not spec or spec["ramp"]:
        raise InputError(f"--trial: is no trial of the search or the confirmation of {study.name} (got {trial})")
    chosen = {"lr_schedule": spec["lr_schedule"], "lr": spec["lr"], **spec["parameters"]}
    return trial, chosen, spec["optimizer"], spec.get(BATCH_SIZE)


def _space(space: str | Path | Mapping[str, Any], settings: Mapping[str, Any] | None) -> tuple[Config, list[str], str]:
    """The configuration, where its Python files lie, and the stem of a study's name."""
    overrides = _overrides(settings)
    if not isinstance(space, Mapping):
        return load_config(space, overrides), python_path(find_space(space)), Path(space).stem
    workload = space.get("workload")
    if callable(workload):
        if workload.__module__ == "__main__" or "<" in workload.__qualname__:
            raise InputError("workload: workers can only import a function at the top of a module, and not of __main__")
        space = {**space, "workload": f"{workload.__module__}:{workload.__qualname__}"}
    return parse_config(space, overrides=overrides), [os.getcwd()], "study"


def _overrides(settings: Mapping[str, Any] | None) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]


def _new(out: Path, name: str | None, stem: str) -> StudyDir:
    return StudyDir(out / check_study_name(name or f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"))


def _console(progress: bool) -> "Console | None":
    if not progress:
        return None
    from rich.console import Console

    return Console(file=sys.stdout)  # this one, whatever is put in its place later
