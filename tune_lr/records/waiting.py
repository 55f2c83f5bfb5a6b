"""What a person is told while nothing happens: what is waited for, first soon and then once a minute."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FIRST_S = 15.0  # after which a wait is told for the first time
AGAIN_S = 60.0  # between one telling and the next
_POLL_S = 0.5

Tell = Callable[[str], None]


class Waiting:
    """Tells about one thing that may have to be waited for. Whoever has it looks at it often."""

    def __init__(self, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._since: float | None = None
        self._next_s = FIRST_S

    def look(self, since: float | None, what: Callable[[], str]) -> None:
        """Tell what is waited for, where it is time to. `since` is by the clock; None where nothing is waited for."""
        if since != self._since:
            self._since = since
            self._next_s = FIRST_S
        if since is None:
            return
        waited_s = self._clock() - since
        if waited_s >= self._next_s:
            self._next_s = waited_s + AGAIN_S
            so_far = f"{waited_s / 60:.0f} min" if waited_s >= 90 else f"{waited_s:.0f} s"
            self._tell(f"waiting for {what()} ({so_far} so far)")


@contextmanager
def told_while(what: str, tell: Tell | None) -> Iterator[None]:
    """Tell, from a thread, what is waited for while the block runs; nothing where `tell` is None."""
    if tell is None:
        yield
        return
    over = threading.Event()
    waiting = Waiting(tell)
    since = time.monotonic()

    def watch() -> None:
        while not over.wait(_POLL_S):
            waiting.look(since, lambda: what)

    thread = threading.Thread(target=watch, name="tune-lr-waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
