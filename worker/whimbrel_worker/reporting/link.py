"""Says once that reports do not arrive and once that they do again. Sends nothing itself."""

import logging
import time

from whimbrel_worker.reporting.ports import Undelivered

_log = logging.getLogger(__name__)


class Link:
    """Whether a place takes reports, as far as the log is concerned: each cause once an outage, so it cannot flood."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._lost_at: float | None = None
        self._causes: set[str] = set()

    def lost(self, trouble: Undelivered) -> None:
        """A try has failed."""
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        if trouble.kind not in self._causes:
            self._causes.add(trouble.kind)
            _log.warning(
                "%s: reports and orders do not get through: %s; the work goes on, it is tried again",
                self._where,
                trouble,
            )

    def found(self) -> None:
        """A try has succeeded."""
        if self._lost_at is not None:
            _log.info("%s: reports get through again after %.0f s", self._where, time.monotonic() - self._lost_at)
            self._lost_at = None
            self._causes.clear()
