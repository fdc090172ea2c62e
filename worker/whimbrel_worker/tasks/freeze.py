"""Waits until the source has come to rest and reports the position at which it did. Stops nobody's writes itself."""

import time

from whimbrel_api.reports import FreezeResult
from whimbrel_worker.tasks.context import TaskContext

_POLL_SECONDS = 0.25


def run(context: TaskContext) -> None:
    """Poll the position until it has been the same for long enough."""
    wanted = context.file.freeze.quiet_seconds
    position, since = context.source.position(), time.monotonic()
    while (quiet := time.monotonic() - since) < wanted:
        context.report.update(freeze=FreezeResult(quiet_seconds=round(quiet, 1), last_position=position))
        context.wait(min(_POLL_SECONDS, wanted))
        now = context.source.position()
        if now != position:
            position, since = now, time.monotonic()
    context.report.update(freeze=FreezeResult(position=position, quiet_seconds=quiet, last_position=position))
