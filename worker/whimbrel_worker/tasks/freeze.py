"""Waits until the source has come to rest and reports the position at which it did. Stops nobody's writes itself."""

import time

from whimbrel_api.reports import FreezeResult
from whimbrel_worker.tasks import shard_freeze
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.sharding import sharded_ends

_POLL_SECONDS = 0.25


def run(context: TaskContext) -> None:
    """Poll the position until it has been the same for long enough."""
    ends = sharded_ends(context)
    if ends is not None:
        shard_freeze.run(context, ends)
        return
    wanted = context.file.freeze.quiet_seconds
    position, since = context.source.position(), time.monotonic()
    while (quiet := time.monotonic() - since) < wanted:
        context.report.update(freeze=FreezeResult(quiet_seconds=round(quiet, 1), last_position=position))
        context.wait(min(_POLL_SECONDS, wanted))
        now = context.source.position()
        if now != position:
            position, since = now, time.monotonic()
    context.report.update(freeze=FreezeResult(position=position, quiet_seconds=quiet, last_position=position))
