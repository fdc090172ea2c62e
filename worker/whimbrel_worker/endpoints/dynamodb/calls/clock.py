"""What a server's clock says, from the Date headers of its replies. Nothing is sent here."""

import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

_SECOND = 1.0


class Clock:
    """A server's clock as an offset to this machine's monotonic one. Safe for many threads.

    A Date header has whole seconds: the server's time while it answered lay in [date, date + 1), and that moment
    between sending and receiving. Each reply so bounds the offset from below and above; the bounds narrow to a few
    milliseconds with some traffic. Where new bounds contradict the old ones a clock drifts or was set: they move along.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic, self._wall = monotonic, wall
        self._lock = threading.Lock()
        self._least, self._most = 0.0, 0.0
        self._text, self._date = "", 0.0
        self.is_set = False

    def mark(self) -> float:
        """The moment a call is sent, for `learn`."""
        return self._monotonic()

    def learn(self, date: str | None, sent: float) -> None:
        """A reply with this Date header has come; one without, or one that cannot be read, says nothing."""
        received = self._monotonic()
        if date is None:
            return
        with self._lock:
            if date != self._text:
                self._text, self._date = date, _seconds(date)
            if self._date:
                self._narrow(self._date - received, self._date + _SECOND - sent)

    def _narrow(self, least: float, most: float) -> None:
        if self.is_set:
            width = self._most - self._least
            if least > self._most:
                most = min(most, least + width)
            elif most < self._least:
                least = max(least, most - width)
            else:
                least, most = max(least, self._least), min(most, self._most)
        self._least, self._most, self.is_set = least, most, True

    def now(self) -> float:
        """The server's time in seconds since 1970; this machine's own while no reply has told any."""
        if not self.is_set:
            return self._wall()
        with self._lock:
            return self._monotonic() + (self._least + self._most) / 2


def _seconds(date: str) -> float:
    """0 for what cannot be read."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return 0.0
