"""The study directory: every path in it has its name here, and every file is read and written through here.

    study.yaml        the resolved configuration
    study.journal     Optuna's journal, the record of truth
    study.lock        held by the one driver
    study.stop        asks that driver to stop, from any host
    driver.log        what Ray says while it runs; nothing else reads it
    bounds.json       the answer of the LR range test
    widened.json      where the search went on beyond those bounds, if it did
    ladder.json       loss over LR at each length, by the model, where trials have several lengths
    predicted_curves.json  the curve that short trials predict of each full training, by the trial's number
    range_test/       curve-K.csv, one a replicate; range_test.png
    trials/0007/      params.json, curve.csv, checkpoint/
    resume/0007/      step-000310/: the last checkpoints of a trial that has not ended
    trials.csv        one row a trial, of every phase
    best.yaml         the answer
    report.html       self-contained
    plots/            the report's pictures as PNG
    wandb/            offline runs

Files that are derived from others are replaced atomically (`store.files`). Curves are appended to, one report at a
time, by the driver alone (`store.curves`). The other formats: `store.tables`, `store.checkpoints`.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tune_lr.errors import InputError, ResourceError, one_line
from tune_lr.lr.bounds import LRBounds
from tune_lr.records.answer import Answer
from tune_lr.records.predicted_curve import PredictedCurve
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import TrialSpec
from tune_lr.store import checkpoints, curves, files, lock, tables
from tune_lr.store.checkpoints import Checkpoint
from tune_lr.store.record import FIELDS, FORMAT_VERSION, StudyRecord

# What a file system may refuse at any time, as far as a user can mend it.
STORAGE_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ESTALE
}  # fmt: skip
STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_study_name(name: str) -> str:
    """Return `name`, or raise InputError where it could leave the folder or trouble a file system."""
    if not STUDY_NAME.fullmatch(name):
        raise InputError(
            f"--name: not a study name (got {name[:80]!r}); 1 to 64 letters, digits, '.', '_' and '-', "
            "the first one a letter or a digit"
        )
    return name


class StudyDir:
    """One study on disk."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).resolve()
        self.name = self.root.name
        self.study_yaml = self.root / "study.yaml"
        self.journal = self.root / "study.journal"
        self.lock_file = self.root / "study.lock"
        self.stop_file = self.root / "study.stop"
        self.driver_log = self.root / "driver.log"
        self.bounds_json = self.root / "bounds.json"
        self.widened_json = self.root / "widened.json"
        self.ladder_json = self.root / "ladder.json"
        self.predicted_curves_json = self.root / "predicted_curves.json"
        self.range_test = self.root / "range_test"
        self.range_test_png = self.range_test / "range_test.png"
        self.trials = self.root / "trials"
        self.checkpoints = self.root / "resume"
        self.trials_csv = self.root / "trials.csv"
        self.best_yaml = self.root / "best.yaml"
        self.report_html = self.root / "report.html"
        self.plots = self.root / "plots"
        self.wandb = self.root / "wandb"

    def range_curve(self, replicate: int) -> Path:
        """Return the path of a ramp's curve."""
        return self.range_test / f"curve-{replicate}.csv"

    def trial(self, number: int) -> Path:
        """Return the folder of a search or confirm trial."""
        return self.trials / f"{number:04d}"

    def params_json(self, number: int) -> Path:
        """Return the path of what a search or confirm trial trains."""
        return self.trial(number) / "params.json"

    def curve(self, number: int) -> Path:
        """Return the path of a search or confirm trial's curve."""
        return self.trial(number) / "curve.csv"

    def checkpoint(self, number: int) -> Path:
        """Return the folder of the model that a trial has trained."""
        return self.trial(number) / "checkpoint"

    def model(self, number: int) -> Path:
        """Return the path of the model that a trial has trained, where it was kept."""
        return self.checkpoint(number) / "model.safetensors"

    def checkpoints_of(self, number: int) -> Path:
        """Return the folder of the checkpoints from which an interrupted trial goes on."""
        return self.checkpoints / f"{number:04d}"

    # --- the study as a whole -------------------------------------------------------------------------------

    def create(self, study: Mapping[str, Any]) -> None:
        """Make the directory and write study.yaml. Raises InputError where it exists, else ResourceError."""
        if self.root.exists() and not (self.root.is_dir() and not any(self.root.iterdir())):
            raise InputError(
                f"--name: {self.root} exists already; choose another name, or go on with it: tune-lr resume {self.root}"
            )
        try:
            self.range_test.mkdir(parents=True)
            self.trials.mkdir()
            files.write_yaml(self.study_yaml, {"format_version": FORMAT_VERSION, **study})
        except OSError as error:
            what = f"{self.root}: cannot be written ({error.strerror}); give --out a directory that can"
            raise ResourceError(what) from None

    def remove(self) -> None:
        """Delete the study."""
        shutil.rmtree(self.root)

    def read_study(self) -> dict[str, Any]:
        """Return study.yaml. Raises ResourceError where there is no study, or one of another format."""
        study = files.read_yaml(self.study_yaml)
        if study.get("format_version") != FORMAT_VERSION:
            raise ResourceError(
                f"{self.study_yaml}: format_version is {study.get('format_version')!r}; "
                f"this version of tune-lr reads {FORMAT_VERSION}"
            )
        if isinstance(study.get("config"), dict):
            study["config"].setdefault("lengths", "full")  # that of versions that had no others
        return study

    def write_record(self, record: StudyRecord) -> None:
        """Write study.yaml anew."""
        files.write_yaml(self.study_yaml, {"format_version": FORMAT_VERSION, **record.to_dict()})

    def read_record(self) -> StudyRecord:
        """Return study.yaml with everything in it that a study needs to go on.

        Raises ResourceError where something is missing, InputError where the configuration is wrong.
        """
        study = self.read_study()
        for key, kind in FIELDS.items():
            if not isinstance(study.get(key), kind):
                raise ResourceError(
                    f"{self.study_yaml}: {key} is missing or no {kind.__name__}; is the file cut short?"
                )
        return StudyRecord.from_dict(study, source=str(self.study_yaml))

    def is_study(self, study_id: str) -> bool:
        """Return whether the study of that id lies here, as this machine sees it."""
        try:
            return bool(self.read_study().get("id") == study_id)
        except ResourceError:
            return False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the study for this process.

        Raises ResourceError where another process holds it, and for whatever the storage refuses in the meantime.
        """
        try:
            with lock.locked(self.lock_file):
                yield
        except OSError as error:
            if error.errno not in STORAGE_ERRORS:
                raise
            raise self.trouble(error) from None

    def trouble(self, error: OSError) -> ResourceError:
        """Return an error that says what the storage has refused, and how to go on."""
        what = f"{error.filename or self.root}: cannot be read or written ({error.strerror or one_line(error)})"
        return ResourceError(f"{what}; make room or mend it, then go on with: tune-lr resume {self.root}")

    def driver(self) -> str | None:
        """Return who holds the study, as "process 12 on host"; None where nobody does."""
        return lock.holder(self.lock_file)

    # --- trials ---------------------------------------------------------------------------------------------

    def start_trial(self, number: int, params: Mapping[str, Any]) -> None:
        """Make the folder of a search or confirm trial and write params.json."""
        self.trial(number).mkdir(parents=True, exist_ok=True)
        files.write_json(self.params_json(number), params)

    def read_trial(self, number: int) -> TrialSpec:
        """Return what a search or confirm trial trains. Raises ResourceError where params.json cannot be read."""
        return TrialSpec.from_dict(self.read_json(self.params_json(number)))

    def range_curves(self) -> list[Path]:
        """Return the paths of the ramps' curves, in the order of their number."""
        return sorted(self.range_test.glob("curve-*.csv"), key=lambda path: int(path.stem.split("-")[1]))

    def numbers(self) -> set[int]:
        """Return the numbers of the trials that have files."""
        folders = {int(path.name) for path in self.trials.glob("[0-9]*") if path.name.isdecimal()}
        return folders | {int(path.stem.split("-")[1]) for path in self.range_curves()}

    def has_points(self) -> bool:
        """Return whether anything was trained: some curve has more than its header."""
        return any(curves.has_points(path) for path in [*self.range_curves(), *self.trials.glob("*/curve.csv")])

    def write_checkpoint(self, number: int, checkpoint: Checkpoint, keep: int) -> None:
        """Write a trial's checkpoint, whole or not at all, and leave its newest `keep`. Raises OSError."""
        checkpoints.write_checkpoint(self.checkpoints_of(number), checkpoint, keep)

    def newest_checkpoint(self, number: int, max_step: int) -> tuple[Checkpoint | None, list[str]]:
        """Return a trial's newest whole checkpoint of a step up to `max_step`, and what is wrong with newer ones."""
        return checkpoints.newest_checkpoint(self.checkpoints_of(number), max_step)

    def remove_checkpoints(self, number: int) -> None:
        """Delete the checkpoints of a trial that has ended."""
        shutil.rmtree(self.checkpoints_of(number), ignore_errors=True)
        with suppress(OSError):  # others are there, or none ever was
            self.checkpoints.rmdir()

    # --- what is derived from them --------------------------------------------------------------------------

    def write_rows(self, rows: Sequence[TrialRow]) -> None:
        """Write trials.csv."""
        tables.write_rows(self.trials_csv, rows)

    def read_rows(self) -> list[TrialRow]:
        """Return the rows of trials.csv. Raises OSError where there is none."""
        return tables.read_rows(self.trials_csv)

    def write_answer(self, answer: Answer | None) -> None:
        """Write best.yaml, or delete it where there is no answer."""
        if answer is None:
            self.best_yaml.unlink(missing_ok=True)
        else:
            files.write_yaml(self.best_yaml, answer.to_dict())

    def read_answer(self) -> Answer | None:
        """Return the answer in best.yaml; None where there is none (yet). Raises ResourceError where it is damaged."""
        if not self.best_yaml.exists():
            return None
        try:
            return Answer.from_dict(files.read_yaml(self.best_yaml))
        except (KeyError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {one_line(error)}"
            mend = f"`tune-lr report {self.root}` writes it again"
            raise ResourceError(f"{self.best_yaml}: is not what tune-lr writes ({what}); {mend}") from None

    def write_predicted_curve(self, number: int, curve: PredictedCurve) -> None:
        """Add what is predicted of a trial's validation curve to predicted_curves.json."""
        curves = self.read_json(self.predicted_curves_json) if self.predicted_curves_json.exists() else {}
        files.write_json(self.predicted_curves_json, {**curves, str(number): curve.to_dict()})

    def read_predicted_curve(self, number: int) -> PredictedCurve | None:
        """Return what is predicted of a trial's validation curve; None where that was not written down."""
        curves = self.read_json(self.predicted_curves_json) if self.predicted_curves_json.exists() else {}
        curve = curves.get(str(number))
        return None if curve is None else PredictedCurve.from_dict(curve)

    def read_bounds(self) -> LRBounds:
        """Return the bounds in bounds.json; of several combinations of batch size and optimizer, the study's own.

        Raises ResourceError where the file cannot be read.
        """
        bounds = self.read_json(self.bounds_json)
        bounds.pop("combinations", None)
        return LRBounds.from_dict(bounds)

    def read_json(self, path: Path) -> dict[str, Any]:
        """Return the mapping in a JSON file of the study. Raises ResourceError where it cannot be read."""
        try:
            return files.read_json(path)
        except (OSError, ValueError):
            raise ResourceError(f"{path}: missing or cut short; `tune-lr report {self.root}` writes it again") from None
