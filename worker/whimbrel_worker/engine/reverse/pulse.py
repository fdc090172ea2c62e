"""Lag of the way back, by heartbeats that go through the source's log. Pure but for a lock. Times: seconds since 1970.

A heartbeat that was sent at a time and came back proves that everything committed before that time is in the target.
What is on its way for longer than the last one took bounds the lag from below, so the greater of both counts.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

FRESH_SECONDS: Final = 15.0
"""Without a heartbeat for so long, nothing is known any more."""
_OUTSTANDING: Final = 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """The lag in seconds, None where it is not known, and when that was so."""

    seconds: float | None
    at: float


class Pulse:
    """Heartbeats of one worker; `name` tells them from those of others. Safe for many threads."""

    def __init__(self, name: str) -> None:
        self._name, self._number = name, 0
        self._sent: OrderedDict[int, float] = OrderedDict()
        self._took, self._came_at, self._proven = 0.0, float("-inf"), float("-inf")
        self._lock = threading.Lock()

    def send(self, now: float) -> str:
        """The content of the next heartbeat, which goes out now."""
        with self._lock:
            self._number += 1
            self._sent[self._number] = now
            while len(self._sent) > _OUTSTANDING:
                # The oldest is what bounds the lag; those in the middle say nothing that others do not.
                del self._sent[next(iter(list(self._sent)[1:]))]
            return f"{self._name}:{self._number}"

    def came(self, content: bytes, now: float) -> None:
        """A heartbeat came back, and all before it is in the target; others' are nothing."""
        name, _, number = content.decode(errors="replace").rpartition(":")
        with self._lock:
            if name != self._name or not number.isdecimal() or int(number) not in self._sent:
                return
            self._took, self._came_at = max(0.0, now - self._sent[int(number)]), now
            self._proven = self._sent[int(number)]
            for earlier in [each for each in self._sent if each <= int(number)]:
                del self._sent[earlier]

    def forget(self) -> None:
        """Nothing is read for a while: what is on its way says nothing of the lag."""
        with self._lock:
            self._sent.clear()
            self._came_at = float("-inf")
            self._proven = float("-inf")

    def proven(self, now: float) -> float | None:
        """When the newest heartbeat that came back went out: all that was committed before has come. None for none."""
        with self._lock:
            return None if now - self._came_at > FRESH_SECONDS else self._proven

    def sample(self, now: float) -> Sample:
        """The lag now."""
        with self._lock:
            waiting = now - next(iter(self._sent.values())) if self._sent else 0.0
            if waiting > self._took and self._came_at > float("-inf"):
                return Sample(waiting, now)
            if now - self._came_at > FRESH_SECONDS:
                return Sample(None, now)
            return Sample(self._took, self._came_at)
