"""Hears SIGTERM and SIGINT in a thread of its own, so that nothing in the task's thread keeps the word back.

A handler in Python runs between two instructions of the main thread: not while that waits inside a database's library,
and with its locks held, which setting an event may need.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

_HEARD = (signal.SIGTERM, signal.SIGINT)
_END = b"\0"


@contextlib.contextmanager
def watching(told: Callable[[], None]) -> Iterator[None]:
    """Call `told` on each of the two signals while the block runs. For the main thread only."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handlers = {each: signal.signal(each, _woken) for each in _HEARD}
    thread = threading.Thread(target=_listen, args=(reading, told), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
        signal.set_wakeup_fd(before)
        os.write(writing, _END)
        thread.join()
        os.close(reading)
        os.close(writing)


def _woken(_signal: int, _frame: object) -> None:
    """Nothing: the number has gone into the pipe already."""


def _listen(reading: int, told: Callable[[], None]) -> None:
    while (number := os.read(reading, 1)) != _END:
        if number[0] in _HEARD:
            told()
