"""Checkpoints of a trial that has not ended: a folder of `step-000310/` folders, each with one file a rank.

A checkpoint is whole or it is not there. Its manifest has the SHA-256 of every file, so that a damaged one is noticed
and an older one is taken instead.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_lr.errors import one_line
from tune_lr.store.files import make_renames_durable, write_durably

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A trial's state after `step` optimizer steps, which took `seconds`: one file a rank, bytes by file name."""

    step: int
    seconds: float
    files: Mapping[str, bytes]


def write_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Write a checkpoint into a trial's folder and leave the newest `keep` of them. Raises OSError."""
    for stale in folder.glob(".*"):  # of a writer that was killed
        shutil.rmtree(stale, ignore_errors=True)
    temporary = folder / f".{uuid.uuid4().hex}"
    temporary.mkdir(parents=True)
    try:
        _fill(temporary, checkpoint)
        target = folder / _name(checkpoint.step)
        if target.exists():  # damaged, or of a slot that was lost
            shutil.rmtree(target)
        temporary.rename(target)
        make_renames_durable(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    steps = _steps(folder)
    # A checkpoint of a later step is damaged: otherwise the trial would have gone on from there.
    kept = [step for step in steps if step <= checkpoint.step][:keep]
    for step in set(steps) - set(kept):
        shutil.rmtree(folder / _name(step), ignore_errors=True)


def newest_checkpoint(folder: Path, max_step: int) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest whole checkpoint of a step up to `max_step`, and what is wrong with each newer one.

    The checkpoint is None where there is none.
    """
    refused: list[str] = []
    for step in _steps(folder):
        if step <= max_step:
            try:
                return _read(folder, step), refused
            except (OSError, ValueError) as error:
                refused.append(f"its checkpoint at step {step} is damaged ({one_line(error)})")
    return None, refused


def _fill(folder: Path, checkpoint: Checkpoint) -> None:
    for name, data in checkpoint.files.items():
        write_durably(folder / name, data)
    files = {name: hashlib.sha256(data).hexdigest() for name, data in checkpoint.files.items()}
    manifest = {"step": checkpoint.step, "seconds": checkpoint.seconds, "files": files}
    sealed = {"manifest": manifest, "sha256": _sha256_of_json(manifest)}
    write_durably(folder / MANIFEST, json.dumps(sealed, indent=2).encode())


def _read(folder: Path, step: int) -> Checkpoint:
    """Raises OSError or ValueError where the checkpoint is not what was written."""
    inner = folder / _name(step)
    try:
        sealed = json.loads((inner / MANIFEST).read_bytes())
        manifest = sealed["manifest"]
        whole = _sha256_of_json(manifest) == sealed["sha256"] and manifest["step"] == step
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise ValueError(f"{MANIFEST} is not what was written")
    files = {name: (inner / name).read_bytes() for name in manifest["files"]}
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != manifest["files"][name]:
            raise ValueError(f"{name} is not what was written")
    return Checkpoint(step, manifest["seconds"], files)


def _steps(folder: Path) -> list[int]:
    """The steps of the checkpoints that are there, the newest first."""
    steps = (path.name.removeprefix("step-") for path in folder.glob("step-*"))
    return sorted((int(step) for step in steps if step.isdecimal()), reverse=True)


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _sha256_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
