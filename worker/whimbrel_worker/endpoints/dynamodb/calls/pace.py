"""How many calls at once and how many capacity units a second a service is asked for. It makes no call itself."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

_COOL_DOWN_SECONDS = 0.5
"""Throttled calls of one burst cut the pace once."""
_LOOK_SECONDS = 0.2
_BURST_SECONDS = 1.0


class Pace:
    """Adaptive concurrency: additive increase, multiplicative decrease, as TCP's congestion avoidance (RFC 5681) does.

    Up to `limit` slots are held at once. A round of calls that went well adds one slot, as long as all were in use; a
    throttled call halves them, once a cool-down. Safe for many threads.
    """

    def __init__(
        self, most: int, *, least: int = 1, start: int = 4, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most, self.limit = most, min(start, most)
        self._least, self._clock = least, clock
        self._busy = self._busiest = self._went_well = 0
        self._calm_from = float("-inf")
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def slot(self, stop: threading.Event | None = None) -> Iterator[None]:
        """Hold one of the slots; waits for one. A set `stop` lets it through at once, so that the caller can end."""
        with self._changed:
            while self._busy >= self.limit and not (stop is not None and stop.is_set()):
                self._changed.wait(_LOOK_SECONDS)
            self._busy += 1
            self._busiest = max(self._busiest, self._busy)
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._count()
                self._changed.notify_all()

    def _count(self) -> None:
        self._went_well += self._clock() >= self._calm_from
        if self._went_well >= self.limit:
            if self._busiest >= self.limit:
                self.limit = min(self.most, self.limit + 1)
            self._went_well, self._busiest = 0, self._busy

    def throttled(self) -> None:
        """A call was told to slow down, or came back with some of its items unprocessed."""
        with self._changed:
            now = self._clock()
            if now >= self._calm_from:
                self._calm_from = now + _COOL_DOWN_SECONDS
                self.limit = max(self._least, self.limit // 2)
            self._went_well = 0


class Units:
    """Capacity units a second, shared by all threads of a worker; None for no limit.

    What a call costs is known only from its reply, so `spend` may go into debt and `wait` waits until it is paid.
    """

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock, self._lock = rate, clock, threading.Lock()
        self._paid_at = 0.0

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all: only then is the consumed capacity worth asking."""
        return self._rate is not None

    def spend(self, units: float) -> None:
        """Count units that a call has consumed, or will. Unused time counts for one second at most."""
        if self._rate is not None:
            with self._lock:
                self._paid_at = max(self._paid_at, self._clock() - _BURST_SECONDS) + units / self._rate

    def owed_seconds(self) -> float:
        """How long until earlier calls are paid for."""
        return 0.0 if self._rate is None else max(0.0, self._paid_at - self._clock())

    def wait(self, stop: threading.Event) -> None:
        """Wait until earlier calls are paid for, or until told to stop."""
        while (seconds := self.owed_seconds()) > 0 and not stop.wait(seconds):
            pass


def write_units(size: int) -> int:
    """Write capacity units of an item of so many bytes: one for each 1 KB begun (Developer Guide, "Capacity units")."""
    return max(1, -(-size // 1024))


def read_units(size: int, consistent: bool) -> float:
    """Read capacity units of so many bytes read together: one for each 4 KB begun, half where not consistent."""
    units = max(1, -(-size // 4096))
    return float(units) if consistent else units / 2
