"""The last failure that is tried again, as long as it is news for the report. What is tried again, tasks know."""

import logging
import time
from typing import Final

from whimbrel_api.repeats import Repeats
from whimbrel_worker.errors import Transient
from whimbrel_worker.tasks.context import TaskContext

_LOG = logging.getLogger(__name__)
_NOTICE_SECONDS: Final = 30.0
_MINUTE: Final = 60.0


class Retries:
    """Says in the log what is tried again: each failure once a minute, its repetitions at DEBUG. From any thread."""

    def __init__(self) -> None:
        self._repeats = Repeats(_MINUTE)

    def say(self, log: logging.Logger, line: str, failure: Transient) -> None:
        """`line` has one place, for the failure."""
        self._repeats.log(log, logging.WARNING, (line, failure.what, failure.where), line, failure)


class Notices:
    """Tells of failures that pass; the last is taken back once nothing has failed for a while."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context
        self._heard_at, self._shown = 0.0, False
        self._retries = Retries()

    def hear(self, failure: Transient) -> None:
        """Report it; from any thread."""
        self._retries.say(_LOG, "tried again: %s", failure)
        self._context.target.tally.retries += 1
        self._heard_at, self._shown = time.monotonic(), True
        self._context.report.update(last_error=failure.report())

    def fade(self) -> None:
        """Take it back when it is old."""
        if self._shown and time.monotonic() - self._heard_at > _NOTICE_SECONDS:
            self._shown = False
            self._context.report.update(last_error=None)
