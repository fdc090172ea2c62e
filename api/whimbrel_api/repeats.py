"""Which lines of a log are news, so that what only goes on does not flood it. How a line looks stands in logs."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

AGAIN_SECONDS: Final = 600.0
"""Seconds after which what still goes on is said once more."""
_MOST: Final = 4096


@dataclass
class _Said:
    """When a thing was said last, and how often it came since without being said."""

    at: float
    held_back: int = 0


class Repeats:
    """Says a thing once, and again `every` so many seconds with how often it came; else at DEBUG. From any thread.

    What the same thing is, the caller says by a key, as a line's figures differ each time. `clock` in seconds.
    """

    def __init__(self, every: float = AGAIN_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._clock = every, clock
        self._said: OrderedDict[Hashable, _Said] = OrderedDict()
        self._lock = threading.Lock()

    def log(self, log: logging.Logger, level: int, key: Hashable, line: str, *values: object, **more: Any) -> bool:
        """Log it at `level` if it is news, else at DEBUG. Whether it was news."""
        held_back = self._news(key)
        if held_back is None:
            log.debug(line, *values, **more)
            return False
        if held_back:
            line, values = f"{line} (and %d times before, since this was last said)", (*values, held_back)
        log.log(level, line, *values, **more)
        return True

    def _news(self, key: Hashable) -> int | None:
        """How often it was held back, where it is to be said now; None where it is not."""
        with self._lock:
            now, said = self._clock(), self._said.pop(key, None)
            if said is not None and now - said.at < self._every:
                self._said[key] = _Said(said.at, said.held_back + 1)
                return None
            self._said[key] = _Said(now)
            while len(self._said) > _MOST:
                self._said.popitem(last=False)
            return said.held_back if said is not None else 0
