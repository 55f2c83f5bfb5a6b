"""How a running study is ended from outside: SIGINT and SIGTERM, `tune-lr stop`, and a cluster that is lost.

Whatever ends it, what was finished stands on disk, and the message says how to go on.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from tune_lr.errors import Interrupted
from tune_lr.store.study_dir import StudyDir

# How often a driver looks whether somebody wants it to stop.
STOP_POLL_S = 1.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible(directory: StudyDir, interrupt: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Have the first SIGINT or SIGTERM call `interrupt`, and a second one end the process.

    The block is given a function that takes the signals again, for after a library has set handlers of its own. Raises
    Interrupted at the end of the block where a signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # Python hands signals to the main thread alone: they are for whoever called this one
        return
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            end_at_once("ended at once", 128 + number, directory)  # the process's local Ray ends with it
        interrupt()

    def take_signals() -> None:
        for number in SIGNALS:
            signal.signal(number, handle)

    previous = {number: signal.getsignal(number) for number in SIGNALS}
    take_signals()
    try:
        yield take_signals
    except SystemExit as end:
        if end.code != signal.SIGTERM:  # this is how Ray, while it starts, takes that signal
            raise
        received.append(signal.SIGTERM)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        raise Interrupted(f"interrupted; go on with: tune-lr resume {directory.root}", received[0])


@contextmanager
def stoppable(directory: StudyDir, interrupt: Callable[[], None]) -> Iterator[None]:
    """Take the file that `tune-lr stop` leaves, here or on another host that shares the storage, for a SIGTERM.

    A study that runs in another thread than the main one has no handlers: a signal would end the program that it is a
    part of. There `interrupt` is called instead, and Interrupted is raised at the end of the block.
    """
    over = threading.Event()
    takes_signals = threading.current_thread() is threading.main_thread()
    stopped = threading.Event()

    def watch() -> None:
        while not over.wait(STOP_POLL_S):
            if directory.stop_file.exists():
                directory.stop_file.unlink(missing_ok=True)
                if takes_signals:
                    os.kill(os.getpid(), signal.SIGTERM)
                else:
                    stopped.set()
                    interrupt()
                return

    thread = threading.Thread(target=watch, name="tune-lr-stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()  # before the handlers are taken down: no SIGTERM comes later
    if stopped.is_set():
        raise Interrupted(f"interrupted; go on with: tune-lr resume {directory.root}", signal.SIGTERM)


def end_at_once(why: str, code: int, directory: StudyDir) -> NoReturn:
    """End the process for when nothing else can be waited for. Of what is on disk nothing is lost."""
    with suppress(Exception):  # stderr that cannot be written must not keep the process alive
        cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # the progress has hidden it
        sys.stderr.write(f"{cursor}\nerror: {why}; go on with: tune-lr resume {directory.root}\n")
        sys.stderr.flush()
    os._exit(code)
