"""Waiting in tests: a condition is asked for again and again until it holds, or the patience ends."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 60.0


def eventually(
    holds: Callable[[], Any], told: Callable[[], object] = lambda: "", *, seconds: float = PATIENCE, often: float = 0.1
) -> Any:
    """What holds once it does; else an AssertionError with what `told` says."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, told()
        time.sleep(often)
    return found


@contextmanager
def beside(work: Callable[[threading.Event], object], pause: float) -> Iterator[threading.Event]:
    """Do something each `pause` seconds in a thread of its own, until the event is set or the block is left."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(pause):
            work(stop)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()
