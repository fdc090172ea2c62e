"""Waits until the source has come to rest and reports the position at which it did; stops the writers first if told.

What was written after a position that the task is given is named by table.
"""

import time
from collections.abc import Callable

from whimbrel_api.reports import FreezeResult
from whimbrel_worker.engine.compare.changed_keys import KEYS_PER_TABLE, changed_keys
from whimbrel_worker.tasks import shard_freeze
from whimbrel_worker.tasks.acknowledge import acknowledge_rest
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.sharding import sharded_ends
from whimbrel_worker.tasks.source_freeze import freezing_of, stop_writes

_POLL_SECONDS = 0.25


def run(context: TaskContext) -> None:
    """Poll the position until it has been the same for long enough, with nobody able to write where that is asked."""
    held = _stopped(context)
    ends = sharded_ends(context)
    if ends is not None:
        shard_freeze.run(context, ends, held)
        return
    position, quiet = _at_rest(context)
    while not held():
        position, quiet = _at_rest(context)
    told = FreezeResult(
        position=position, quiet_seconds=quiet, last_position=position, tables=written_since(context, position)
    )
    acknowledge_rest(context, told)
    context.report.update(freeze=told)


def _stopped(context: TaskContext) -> Callable[[], bool]:
    """Stop the writers where that is asked for. The result says whether they still are; if not it stops them anew.

    One that was signing in while its account was locked is such a case.
    """
    policy = context.file.freeze.stop_writes
    if policy is None:
        return lambda: True
    freezing = freezing_of(context)
    detail = stop_writes(context, policy)

    def held() -> bool:
        if freezing.holds(detail):
            return True
        stop_writes(context, policy)
        return False

    return held


def _at_rest(context: TaskContext) -> tuple[str, float]:
    """The position once it has been the same for long enough, and for how long in seconds."""
    wanted = context.file.freeze.quiet_seconds
    position, since = context.source.position(), time.monotonic()
    while (quiet := time.monotonic() - since) < wanted:
        context.report.update(freeze=FreezeResult(quiet_seconds=round(quiet, 1), last_position=position))
        context.wait(min(_POLL_SECONDS, wanted))
        now = context.source.position()
        if now != position:
            position, since = now, time.monotonic()
    return position, quiet


def written_since(context: TaskContext, position: str) -> dict[str, int]:
    """In which tables how many rows were written since the position that was given; DDL counts as one."""
    since = context.file.freeze.since
    if not since or since == position:
        return {}
    tables, _ = context.source.discover()
    found = changed_keys(context.source, tables, since, position, check=context.check_stop)
    rows = {name: len(keys) for name, keys in found.keys.items()}
    rows |= dict.fromkeys(found.stopped, 1) | dict.fromkeys(found.crowded, KEYS_PER_TABLE)
    return dict(sorted(rows.items())[: shard_freeze.TABLES_TOLD])
