"""Backoff with full jitter, the one place where the worker waits before it tries again. What is worth it, callers know.

Full jitter: AWS Architecture Blog, "Exponential Backoff And Jitter".
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from whimbrel_worker.errors import Transient

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds: attempt n waits between 0 and min(cap, base * 2**n), `attempts` times at most."""

    base: float = 0.05
    cap: float = 5.0
    attempts: int = 40

    def delays(self, rng: random.Random | None = None) -> Iterator[float]:
        """The waits, one after the other."""
        rng = rng or random.Random()  # noqa: S311 - spreads retries, guards nothing
        for attempt in range(self.attempts):
            yield rng.uniform(0, min(self.cap, self.base * 2 ** min(attempt, 30)))


def retrying(
    action: Callable[[], T],
    *,
    backoff: Backoff | None = None,
    noticed: Callable[[Transient], None] | None = None,
    wait: Callable[[float], None] | None = None,
) -> T:
    """The action's result; Transient failures are tried again with backoff. `noticed` hears of each of them.

    `wait` waits that many seconds, by time.sleep where none is given; what it raises ends the trying, such as that the
    worker is to stop.
    """
    delays = (backoff or Backoff()).delays()
    while True:
        try:
            return action()
        except Transient as failure:
            delay = next(delays, None)
            if delay is None:
                raise
            if noticed is not None:
                noticed(failure)
        (wait or time.sleep)(delay)
