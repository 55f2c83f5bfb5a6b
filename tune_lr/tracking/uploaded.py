"""Which runs a W&B server has taken whole: a line of JSON each, in `wandb/uploaded.jsonl` of the study directory."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tune_lr.tracking.key import server_url

UPLOADED = "uploaded.jsonl"


class Uploaded(NamedTuple):
    """A run that a server has: its id, and the state and the steps of its trial."""

    run: str
    state: str
    steps: int


class Uploads:
    """The runs that the server of today has taken, as it was written down in the folder `wandb` of a study."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / UPLOADED

    def add(self, run: Uploaded) -> None:
        """Write down that the server has the run."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"server": server_url(), **run._asdict()}) + "\n")

    def __iter__(self) -> Iterator[Uploaded]:
        with suppress(FileNotFoundError):
            for line in self._path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, KeyError):  # cut short by a kill: that run is sent again
                    entry = json.loads(line)
                    if entry["server"] == server_url():
                        yield Uploaded(entry["run"], entry["state"], entry["steps"])
