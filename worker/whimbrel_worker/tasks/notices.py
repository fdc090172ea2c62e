"""The last failure that is tried again, as long as it is news for the report. What is tried again, tasks know."""

import logging
import time
from typing import Final

from whimbrel_worker.errors import Transient
from whimbrel_worker.tasks.context import TaskContext

_LOG = logging.getLogger(__name__)
_NOTICE_SECONDS: Final = 30.0


class Notices:
    """Tells of failures that pass; the last is taken back once nothing has failed for a while."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context
        self._heard_at, self._shown = 0.0, False

    def hear(self, failure: Transient) -> None:
        """Report it; from any thread."""
        _LOG.warning("tried again: %s", failure)
        self._context.target.tally.retries += 1
        self._heard_at, self._shown = time.monotonic(), True
        self._context.report.update(last_error=failure.report())

    def fade(self) -> None:
        """Take it back when it is old."""
        if self._shown and time.monotonic() - self._heard_at > _NOTICE_SECONDS:
            self._shown = False
            self._context.report.update(last_error=None)
