"""The finished study that several tests share, as a record; tests/conftest.py makes it."""

from dataclasses import dataclass
from pathlib import Path

from tune_lr.store.study_dir import StudyDir

# A key that is configured while that study runs, offline; tests/test_security.py looks for it.
CANARY = "ca0a71" * 6 + "5eed"


@dataclass(frozen=True)
class Finished:
    directory: StudyDir
    output: str
    ray: Path  # where its Ray has left its logs
