"""The study directory: every path and every file format, in one place.

    study.yaml        the resolved configuration
    study.journal     Optuna's journal, the record of truth
    study.lock        held by the one driver
    study.stop        asks that driver to stop, from any host
    driver.log        what Ray says while it runs; nothing else reads it
    bounds.json       the answer of the LR range test
    widened.json      where the search went on beyond those bounds, if it did
    range_test/       curve-K.csv, one a replicate; range_test.png
    trials/0007/      params.json, curve.csv, checkpoint/
    resume/0007/      step-000310/: the last checkpoints of a trial that has not ended
    trials.csv        one row a trial, of every phase
    best.yaml         the winner
    report.html       self-contained
    plots/            the report's pictures as PNG
    wandb/            offline runs

Files that are derived from others are replaced atomically, so that a reader sees the old or the new one. Curves
are appended to, one report at a time, by the driver alone.
"""

import csv
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tune_lr.errors import InputError, ResourceError, one_line
from tune_lr.records.row import TrialRow

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
# What study.yaml holds, in its order: where the last is there, the configuration is whole.
RECORD = {
    "name": str,
    "id": str,
    "python_path": list,
    "phases": list,
    "config": dict,
    "packages": dict,
    "hardware": dict,
}
# What a file system may refuse at any time, as far as a user can mend it.
STORAGE_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ESTALE
}  # fmt: skip
STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

RANGE_CURVE_COLUMNS = ("step", "lr", "loss")
CURVE_COLUMNS = ("step", "lr", "train_loss")  # then val_loss, and val_<metric> for each metric of the workload
ROW_COLUMNS = ("number", "phase", "state", "lr_schedule", "lr")  # then the parameters, then the columns below
ROW_TAIL_COLUMNS = ("seed", "steps", "val_loss", "duration_s", "started_s", "slot", "reason", "label")


@dataclass(frozen=True)
class Checkpoint:
    """A trial's state after `step` steps, which took `seconds`: the bytes of one file a rank, by their names."""

    step: int
    seconds: float
    files: Mapping[str, bytes]


def check_study_name(name: str) -> str:
    """Returns `name`, or raises InputError where it could leave the folder or trouble a file system."""
    if not STUDY_NAME.fullmatch(name):
        raise InputError(
            f"--name: not a study name (got {name[:80]!r}); 1 to 64 letters, digits, '.', '_' and '-', "
            "the first one a letter or a digit"
        )
    return name


class StudyDir:
    """Names every path of one study and reads and writes every file format in it."""

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
        self.range_test = self.root / "range_test"
        self.range_test_png = self.range_test / "range_test.png"
        self.trials = self.root / "trials"
        self.checkpoints = self.root / "resume"
        self.trials_csv = self.root / "trials.csv"
        self.best_yaml = self.root / "best.yaml"
        self.report_html = self.root / "report.html"
        self.plots = self.root / "plots"
        self.wandb = self.root / "wandb"

    # --- the study as a whole -------------------------------------------------------------------------------

    def create(self, study: Mapping[str, Any]) -> None:
        """Makes the directory and writes study.yaml. Refuses one that exists."""
        if self.root.exists() and not (self.root.is_dir() and not any(self.root.iterdir())):
            raise InputError(
                f"--name: {self.root} exists already; choose another name, or go on with it: tune-lr resume {self.root}"
            )
        try:
            self.range_test.mkdir(parents=True)
            self.trials.mkdir()
            self.write_yaml(self.study_yaml, {"format_version": FORMAT_VERSION, **study})
        except OSError as error:
            what = f"{self.root}: cannot be written ({error.strerror}); give --out a directory that can"
            raise ResourceError(what) from None

    def remove(self) -> None:
        """Deletes the study."""
        shutil.rmtree(self.root)

    def read_study(self) -> dict[str, Any]:
        """study.yaml. Raises ResourceError where there is no study, or one of another format."""
        study = self.read_yaml(self.study_yaml)
        if study.get("format_version") != FORMAT_VERSION:
            raise ResourceError(
                f"{self.study_yaml}: format_version is {study.get('format_version')!r}; "
                f"this version of tune-lr reads {FORMAT_VERSION}"
            )
        return study

    def read_resumable(self) -> dict[str, Any]:
        """study.yaml with everything in it that a study needs to go on. Raises ResourceError."""
        study = self.read_study()
        for key, kind in RECORD.items():
            if not isinstance(study.get(key), kind):
                raise ResourceError(
                    f"{self.study_yaml}: {key} is missing or no {kind.__name__}; is the file cut short?"
                )
        return study

    def is_study(self, ident: str) -> bool:
        """Whether the study of that id lies here, as this machine sees it."""
        try:
            return bool(self.read_study().get("id") == ident)
        except ResourceError:
            return False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the study for this process. The kernel lets go of it when the process ends, however it ends. What the
        storage refuses in the meantime is raised as ResourceError."""
        with self._storage(), open(self.lock_file, "a+") as file:
            patience = time.monotonic() + 0.5  # for `driver`, which takes the lock for a moment
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > patience:
                        file.seek(0)
                        owner = file.read().strip() or "another process"
                        raise ResourceError(f"{self.root}: in use by {owner}; one driver a study") from None
                time.sleep(0.05)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {os.uname().nodename}")
            file.flush()
            yield

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in STORAGE_ERRORS:
                raise
            raise self.trouble(error) from None

    def trouble(self, error: OSError) -> ResourceError:
        """What the storage has refused, and how to go on."""
        what = f"{error.filename or self.root}: cannot be read or written ({error.strerror or one_line(error)})"
        return ResourceError(f"{what}; make room or mend it, then go on with: tune-lr resume {self.root}")

    def driver(self) -> str | None:
        """Who holds the study, as "process 12 on host"; None where nobody does."""
        try:
            with open(self.lock_file) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:
                    return file.read().strip() or "another process"
        except FileNotFoundError:
            pass
        return None

    # --- curves ---------------------------------------------------------------------------------------------

    def range_curve(self, replicate: int) -> Path:
        return self.range_test / f"curve-{replicate}.csv"

    def trial(self, number: int) -> Path:
        return self.trials / f"{number:04d}"

    def curve(self, number: int) -> Path:
        return self.trial(number) / "curve.csv"

    def checkpoint(self, number: int) -> Path:
        return self.trial(number) / "checkpoint"

    def start_trial(self, number: int, params: Mapping[str, Any]) -> None:
        """Makes the folder of a search or confirm trial and writes params.json."""
        self.trial(number).mkdir(parents=True, exist_ok=True)
        self.write_json(self.trial(number) / "params.json", params)

    def start_curve(self, path: Path, columns: Sequence[str]) -> None:
        """Begins a curve anew."""
        with open(path, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(columns)

    def append_curve(self, path: Path, points: Iterable[Sequence[float | None]]) -> None:
        """Appends points, in the order of the file's columns; None is left empty."""
        with open(path, "a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([_cell(value) for value in point] for point in points)

    def cut_curve(self, path: Path, step: int) -> None:
        """Leaves the points up to that step: an interrupted trial goes on from there."""
        with open(path, newline="") as file:
            header, *lines = [line for line in file if line.endswith("\n")]
        with _replacing(path) as file:
            file.writelines([header, *(line for line in lines if int(line.partition(",")[0]) <= step)])

    def read_curve(self, path: Path) -> dict[str, list[float]]:
        """Columns by name; what was not measured is NaN. A torn last line is left out. Raises ResourceError."""
        try:
            with open(path, newline="") as file:
                reader = csv.reader(line for line in file if line.endswith("\n"))
                header = next(reader, None)
                if header is None:
                    raise ResourceError(f"{path}: empty; `tune-lr resume` runs an unfinished trial again")
                columns: dict[str, list[float]] = {name: [] for name in header}
                for record in reader:
                    for name, text in zip(header, record, strict=True):
                        columns[name].append(float(text) if text else math.nan)
        except (OSError, ValueError, csv.Error) as error:
            raise ResourceError(f"{path}: cannot be read as a curve ({one_line(error)}); put the file back") from None
        return columns

    def range_curves(self) -> list[Path]:
        """The ramps' files, in the order of their number."""
        return sorted(self.range_test.glob("curve-*.csv"), key=lambda path: int(path.stem.split("-")[1]))

    def numbers(self) -> set[int]:
        """Of the trials that have files."""
        folders = {int(path.name) for path in self.trials.glob("[0-9]*") if path.name.isdecimal()}
        return folders | {int(path.stem.split("-")[1]) for path in self.range_curves()}

    def has_points(self) -> bool:
        """Whether anything was trained: some curve has more than its header."""
        curves = [*self.range_curves(), *self.trials.glob("*/curve.csv")]
        return any(len(path.read_bytes().splitlines()) > 1 for path in curves)

    # --- checkpoints ----------------------------------------------------------------------------------------

    def checkpoints_of(self, number: int) -> Path:
        return self.checkpoints / f"{number:04d}"

    def write_checkpoint(self, number: int, checkpoint: Checkpoint, keep: int) -> None:
        """Writes it, whole or not at all, and leaves the newest `keep` of the trial. Raises OSError."""
        folder = self.checkpoints_of(number)
        for stale in folder.glob(".*"):  # of a writer that was killed
            shutil.rmtree(stale, ignore_errors=True)
        temporary = folder / f".{uuid.uuid4().hex}"
        temporary.mkdir(parents=True)
        try:
            for name, data in checkpoint.files.items():
                _write_durably(temporary / name, data)
            files = {name: hashlib.sha256(data).hexdigest() for name, data in checkpoint.files.items()}
            manifest = {"step": checkpoint.step, "seconds": checkpoint.seconds, "files": files}
            sealed = {"manifest": manifest, "sha256": _sha256_of_json(manifest)}
            _write_durably(temporary / MANIFEST, json.dumps(sealed, indent=2).encode())
            target = folder / _checkpoint_name(checkpoint.step)
            if target.exists():  # damaged, or of a slot that was lost
                shutil.rmtree(target)
            temporary.rename(target)
            _make_durable(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        steps = self._checkpoint_steps(number)  # newer ones are damaged, or it would not have gone on from before them
        kept = [step for step in steps if step <= checkpoint.step][:keep]
        for step in set(steps) - set(kept):
            shutil.rmtree(folder / _checkpoint_name(step), ignore_errors=True)

    def newest_checkpoint(self, number: int, most: int) -> tuple[Checkpoint | None, list[str]]:
        """The newest of the trial's that is whole and of a step up to `most`, and what is wrong with newer ones."""
        refused: list[str] = []
        for step in self._checkpoint_steps(number):
            if step <= most:
                try:
                    return self._read_checkpoint(number, step), refused
                except (OSError, ValueError) as error:
                    refused.append(f"its checkpoint at step {step} is damaged ({one_line(error)})")
        return None, refused

    def remove_checkpoints(self, number: int) -> None:
        """To be called when the trial has ended."""
        shutil.rmtree(self.checkpoints_of(number), ignore_errors=True)
        with suppress(OSError):  # others are there, or none ever was
            self.checkpoints.rmdir()

    def _checkpoint_steps(self, number: int) -> list[int]:
        """The newest first."""
        steps = (path.name.removeprefix("step-") for path in self.checkpoints_of(number).glob("step-*"))
        return sorted((int(step) for step in steps if step.isdecimal()), reverse=True)

    def _read_checkpoint(self, number: int, step: int) -> Checkpoint:
        folder = self.checkpoints_of(number) / _checkpoint_name(step)
        try:
            sealed = json.loads((folder / MANIFEST).read_bytes())
            manifest = sealed["manifest"]
            whole = _sha256_of_json(manifest) == sealed["sha256"] and manifest["step"] == step
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise ValueError(f"{MANIFEST} is not what was written")
        files = {name: (folder / name).read_bytes() for name in manifest["files"]}
        for name, data in files.items():
            if hashlib.sha256(data).hexdigest() != manifest["files"][name]:
                raise ValueError(f"{name} is not what was written")
        return Checkpoint(step, manifest["seconds"], files)

    # --- trials.csv -----------------------------------------------------------------------------------------

    def write_rows(self, rows: Sequence[TrialRow]) -> None:
        parameters = sorted({name for row in rows for name in row.parameters})
        metrics = sorted({name for row in rows for name in row.metrics} - {"val_loss"})
        header = [*ROW_COLUMNS, *parameters, *ROW_TAIL_COLUMNS[:3], *metrics, *ROW_TAIL_COLUMNS[3:]]
        lines = []
        for row in rows:
            cells = {**vars(row), **row.parameters, **row.metrics}
            lines.append([_cell(cells.get(name)) for name in header])
        with _replacing(self.trials_csv) as file:
            csv.writer(file, lineterminator="\n").writerows([header, *lines])

    def read_rows(self) -> list[TrialRow]:
        with open(self.trials_csv, newline="") as file:
            return [_row(record) for record in csv.DictReader(file)]

    # --- YAML and JSON --------------------------------------------------------------------------------------

    def write_yaml(self, path: Path, value: Mapping[str, Any]) -> None:
        with _replacing(path) as file:
            yaml.dump(dict(value), file, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)

    def read_yaml(self, path: Path) -> dict[str, Any]:
        try:
            value = yaml.safe_load(path.read_text())
        except FileNotFoundError:
            raise ResourceError(f"{path}: there is no such file; is {path.parent} a study directory?") from None
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            raise ResourceError(f"{path}: cannot be read as YAML") from None
        if not isinstance(value, dict):
            raise ResourceError(f"{path}: empty or cut short")
        return value

    def write_json(self, path: Path, value: Mapping[str, Any]) -> None:
        with _replacing(path) as file:
            json.dump(value, file, indent=2, allow_nan=False)
            file.write("\n")

    def read_json(self, path: Path) -> dict[str, Any]:
        try:
            value = json.loads(path.read_text())
        except (OSError, ValueError):
            raise ResourceError(f"{path}: missing or cut short; `tune-lr report {self.root}` writes it again") from None
        assert isinstance(value, dict)
        return value


class _Dumper(yaml.SafeDumper):
    """Multi-line text as a block, so that code can be read and pasted; floats in digits that YAML reads back."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    text = repr(value)
    if "e" in text and "." not in text:  # YAML 1.1 reads 1e-05 as text, and 1.0e-05 as a number
        text = text.replace("e", ".0e")
    return (
        dumper.represent_float(value)
        if not math.isfinite(value)
        else dumper.represent_scalar("tag:yaml.org,2002:float", text)
    )


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(float, _represent_float)


def _checkpoint_name(step: int) -> str:
    return f"step-{step:06d}"


def _sha256_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _write_durably(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _make_durable(folder: Path) -> None:
    """What was renamed in it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.replace("\r", " ")  # csv leaves a carriage return unquoted, and then cannot read it
    return repr(float(value)) if isinstance(value, float) else str(value)  # numpy's floats say so in their repr


def _row(record: Mapping[str, str]) -> TrialRow:
    fixed = {*ROW_COLUMNS, *ROW_TAIL_COLUMNS}
    return TrialRow(
        number=int(record["number"]),
        phase=record["phase"],
        state=record["state"],
        lr_schedule=record["lr_schedule"],
        lr=float(record["lr"]) if record["lr"] else math.nan,
        parameters={
            name: _parsed(text) for name, text in record.items() if ("." in name or name == "batch_size") and text
        },
        seed=int(record["seed"]),
        steps=int(record["steps"]),
        metrics={
            name: float(text)
            for name, text in record.items()
            if text and name.startswith("val_") and (name == "val_loss" or name not in fixed)
        },
        duration_s=float(record["duration_s"]),
        started_s=float(record["started_s"]),
        slot=int(record["slot"]),
        reason=record["reason"],
        label=record["label"],
    )


def _parsed(text: str) -> Any:
    """A parameter as it was before it became text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"True": True, "False": False}.get(text, text)
