"""Lag: the age of the oldest source commit that is not in the target yet. Pure: times and positions in, a sample out.

All times are the source's clock, in seconds since 1970. The log comes in commit order, so the oldest commit that was
read and is not written yet is the oldest one missing; its age is the lag. Where nothing is pending, what has not been
read may still be missing: only a position that the source itself gave at a known time, and that is in the target,
proves that nothing committed before that time is. If it was in the target when it was asked for, that is lag 0, as of
that time. A later proof, or none, gives an upper bound; without a fresh word from the source the lag is unknown.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_FRESH_INTERVALS = 3
_READINGS = 64


@dataclass(frozen=True, slots=True)
class Reading:
    """The source's position, asked for at a time: every commit before `at` is in it."""

    position: str
    at: float


@dataclass(frozen=True, slots=True)
class Sample:
    """The lag at a time; None is unknown. `end_of_log_at`: up to when the target provably holds everything."""

    seconds: float | None
    observed_at: float
    end_of_log_at: float | None


class LagMeter:
    """Turns readings of the source and the state of the work into samples.

    `covers(position, other)` says whether a position holds all that the other does; `interval` is the time in seconds
    between two readings.
    """

    def __init__(self, covers: Callable[[str, str], bool], interval: float) -> None:
        self._covers = covers
        self._fresh = _FRESH_INTERVALS * interval
        self._unproven: deque[Reading] = deque(maxlen=_READINGS)
        self._proven: float | None = None
        self._read_at: float | None = None
        self._zero_at: float | None = None
        self._new = False
        self._unread: deque[Reading] = deque(maxlen=_READINGS)
        self._fetched: float | None = None

    def read(self, reading: Reading) -> None:
        """Take in what the source said."""
        self._unproven.append(reading)
        self._unread.append(reading)
        self._read_at, self._new = reading.at, True

    def sample(self, now: float, routed: str, oldest_pending: float | None, newest_routed: float | None) -> Sample:
        """The lag now.

        `routed`: the position up to which the log has been read; `oldest_pending`: when the oldest transaction that was
        read and is not wholly in the target was committed; `newest_routed`: when the last one that was read was.
        Take `routed` before the other two: what is complete then stays complete. Call it right after `read`.
        """
        self._prove(routed, oldest_pending)
        if self._new and self._proven == self._read_at and oldest_pending is None:
            self._zero_at = self._read_at
        self._new = False
        if oldest_pending is not None:
            return Sample(max(0.0, now - oldest_pending), now, self._proven)
        if self._read_at is None or now - self._read_at > self._fresh:
            return Sample(None, now, self._proven)
        if self._zero_at == self._read_at:
            return Sample(0.0, self._read_at, self._proven)
        since = max((moment for moment in (self._proven, newest_routed) if moment is not None), default=None)
        return Sample(None if since is None else max(0.0, now - since), now, self._proven)

    def fetch_lag(self, now: float, routed: str, newest_routed: float | None) -> float | None:
        """How far behind the reading of the log is, in seconds; None where the source has not said lately where it is.

        0 while all that the source had at its newest reading was read; else the age of the newest that was, whether
        the source's word or a commit shows it. The arguments are those of `sample`.
        """
        while self._unread and self._covers(routed, self._unread[0].position):
            self._fetched = self._unread.popleft().at
        if self._read_at is None or now - self._read_at > self._fresh:
            return None
        if not self._unread:
            return 0.0
        since = max((moment for moment in (self._fetched, newest_routed) if moment is not None), default=None)
        return None if since is None else max(0.0, now - since)

    def _prove(self, routed: str, oldest_pending: float | None) -> None:
        """A reading is proven when the log was read up to it and nothing committed before it is pending."""
        while self._unproven:
            reading = self._unproven[0]
            if oldest_pending is not None and oldest_pending <= reading.at:
                return
            if not self._covers(routed, reading.position):
                return
            self._proven = reading.at
            self._unproven.popleft()
