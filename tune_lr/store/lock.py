"""The lock of a study: one driver at a time. The kernel lets go of it when its process ends, however it ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tune_lr.errors import ResourceError

PATIENCE_S = 0.5  # `holder` takes the lock for a moment
POLL_S = 0.05
SOMEBODY = "another process"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file of a study for this process. Raises ResourceError where another process holds it."""
    with path.open("a+", encoding="utf-8") as file:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    owner = file.read().strip() or SOMEBODY
                    raise ResourceError(f"{path.parent}: in use by {owner}; one driver a study") from None
            time.sleep(POLL_S)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield


def holder(path: Path) -> str | None:
    """Return who holds the lock file, as "process 12 on host"; None where nobody does."""
    try:
        with path.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return file.read().strip() or SOMEBODY
    except FileNotFoundError:
        pass
    return None
