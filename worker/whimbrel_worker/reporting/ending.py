"""Why and since when a worker is to end before its task is done, and how long its last word may take."""

import threading
import time

_LAST_WORD_SECONDS = 60.0
_SUPERSEDED_SECONDS = 5.0
"""A worker with a successor: its pod may be deleted and its token refused, and others speak for the instance now."""
_GRACE_SECONDS = 50.0
"""Of the 60 s that a pod has between SIGTERM and SIGKILL; the rest is for the way out."""


class Ending:
    """Shared by the signals, the reporting and the runner; a task sees only `stop`."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self.stop = stop or threading.Event()
        self.dismissed = ""
        self.fault = ""
        self._told_at: float | None = None
        self._last_word_seconds = _LAST_WORD_SECONDS

    def told(self) -> None:
        """A signal says to stop: the pod's grace runs from the first one on."""
        self._told_at = self._told_at or time.monotonic()
        self.stop.set()

    def dismiss(self, why: str) -> None:
        """Nobody wants this worker any more: stop, and tell nobody."""
        self.dismissed = why
        self.stop.set()

    def fail(self, what: str) -> None:
        """Something beside the task has broken: stop, and say so."""
        self.fault = self.fault or what
        self.stop.set()

    def superseded(self) -> None:
        """A successor holds the work: the last word is not worth a long wait."""
        self._last_word_seconds = _SUPERSEDED_SECONDS

    def deadline(self, since: float) -> float:
        """Until when a last word that was ready at `since` may be tried; both on the monotonic clock."""
        latest = since + self._last_word_seconds
        return latest if self._told_at is None else min(latest, self._told_at + _GRACE_SECONDS)
