"""A build of ColossalAI's kernels that was killed leaves a lock, for which torch would wait for ever.

Seen with torch 2.5.1 (torch.utils.file_baton) and colossalai 0.5.0, whose optimizers build their kernels when they are
first used. tests/worker/compat/test_kernel_builds.py shows the lock and its removal.
"""

import time
from contextlib import suppress
from pathlib import Path

# A build in which no file has changed for so long was abandoned. All kernels of HybridAdam together took 103 and 138 s.
ABANDONED_S = 300.0


def forget_abandoned_build(folder: Path) -> None:
    """Remove the lock of a build in this folder that was killed.

    A build that goes on, here or on another node with the same home, writes a file now and then; its lock stays.
    """
    with suppress(FileNotFoundError):  # what a build makes and removes meanwhile
        written = [file.stat().st_mtime for file in folder.glob("*")]
        if written and time.time() - max(written) > ABANDONED_S:
            (folder / "lock").unlink()
