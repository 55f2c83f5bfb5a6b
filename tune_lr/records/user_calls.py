"""Whether the user's own code is being called by a worker, so that it starts no other study there.

A script that calls `tune_lr.search` at its top, and has its workload in the same file, is imported by every worker:
without a guard each of them would start the study again.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tune_lr.errors import InputError

_running: list[str] = []


@contextmanager
def user_call(what: str) -> Iterator[None]:
    """Say that the block calls the user's code; `what` is what it does, such as "importing my_module"."""
    _running.append(what)
    try:
        yield
    finally:
        _running.pop()


def check_no_user_call(function: str) -> None:
    """Raise InputError where a worker is calling the user's code; `function` would start a study in it."""
    if _running:
        raise InputError(
            f"workload: {_running[-1]} calls tune_lr.{function}, and workers do so too; in the file that starts the "
            f'study put that call under `if __name__ == "__main__":`'
        )
