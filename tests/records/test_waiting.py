"""What is waited for is told after 15 s, then once a minute, and never where the wait is short."""

import threading

import pytest

from tune_lr.records import waiting
from tune_lr.records.waiting import Waiting, told_while


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_wait_is_told_after_15_s_and_then_once_a_minute() -> None:
    clock = Clock()
    told: list[str] = []
    thing = Waiting(told.append, clock)
    for _ in range(400):  # 200 s
        thing.look(100.0, lambda: "room")
        clock.now += 0.5
    assert told == [
        "waiting for room (15 s so far)",
        "waiting for room (75 s so far)",
        "waiting for room (2 min so far)",
        "waiting for room (3 min so far)",
    ]


def test_a_wait_that_has_ended_begins_anew() -> None:
    clock = Clock()
    told: list[str] = []
    thing = Waiting(told.append, clock)
    for begin in (100.0, 114.0, 128.0):  # three waits of 14 s
        for second in range(14):
            clock.now = begin + second
            thing.look(begin, lambda: "a lock")
    thing.look(None, lambda: "a lock")
    assert told == []
    clock.now = 143.0
    thing.look(128.0, lambda: "a lock")
    assert told == ["waiting for a lock (15 s so far)"]


def test_a_block_that_takes_long_is_told_from_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_S", 0.01)
    monkeypatch.setattr(waiting, "_POLL_S", 0.01)
    told: list[str] = []
    heard = threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        heard.set()

    with told_while("Ray to start", tell):
        assert heard.wait(30)
    assert told == ["waiting for Ray to start (0 s so far)"]
    with told_while("Ray to start", None):  # nobody listens
        pass
