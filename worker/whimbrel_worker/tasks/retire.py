"""Ends what a migration keeps at both ends: streams that it enabled, and its rows in the target's control tables.

Of a migration that is over all goes but a tombstone. Of one whose resource was deleted on its way only what the source
retains for it goes, where it retains anything: see `_abandon`. The data in the target are never touched.
"""

import logging

from whimbrel_api.reports import CANCELLED, SWITCHED, Record
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.sharding import LEFT, enabled_here, sharded_ends

_log = logging.getLogger(__name__)
ABANDON = "abandon"
"""The step in the task file's `fence` that asks only to leave nothing behind in the source."""
_ENDS = (SWITCHED, CANCELLED)


def run(context: TaskContext) -> None:
    """Retire the migration, or abandon it; both safe to repeat."""
    control = context.target.control()
    record = control.record()
    if record.exists and context.file.fence.step == ABANDON:
        _abandon(context, record)
    elif record.exists:
        end = _end_of(record)
        if end is None:
            raise _not_over(context)
        _put_back(context, record)
        control.retire([end, *_frozen(context, record, end)])
    after = control.record()
    context.report.update(record=after, epoch=after.epoch)


def _abandon(context: TaskContext, record: Record) -> None:
    """Cancel it, if streams were enabled for it: without them nobody can go on from its positions.

    Where the source keeps nothing for it, the migration stays as it is: a resource of the same name goes on.
    """
    control = context.target.control()
    if not enabled_here(control):
        return
    if _end_of(record) is None:
        control.raise_epoch("cancelled", "the resource was deleted")
    _put_back(context, record)


def _end_of(record: Record) -> str | None:
    """The step by which the migration ended; None where it has not, or went on after a rollback."""
    newest = record.traffic
    return newest.step if newest is not None and newest.step in _ENDS else None


def _frozen(context: TaskContext, record: Record, end: str) -> list[str]:
    """The journalled freeze of the source that stands, if one does: after a switch it stays, with how it was before.

    Raises ConfigurationError where it should have been undone and is not: nothing else tells how.
    """
    standing = record.standing_freeze
    if standing is not None and end == "cancelled":
        raise ConfigurationError(
            "the source is still frozen, so the migration is not retired",
            where=context.file.migration,
            why=f"the target's journal holds {standing.step} and no unfrozen after it",
            todo="nothing, if the source is being opened just now; else see the events of the migration for what fails",
        )
    return [standing.step] if standing is not None else []


def _put_back(context: TaskContext, record: Record) -> None:
    """Disable the streams that were enabled here and are still on.

    One that was put back at the end, and that somebody has enabled since, has another ARN: it is left alone.
    """
    ends = sharded_ends(context)
    names = sorted(enabled_here(context.target.control())) if ends is not None else []
    if ends is None or not names:
        return
    rows = ends.target.shards().all()
    ours, known = {row.ref.stream for row in rows}, {row.ref.table for row in rows}
    unsettled = record.last(LEFT) is not None or _end_of(record) is None
    now = ends.source.enabled_streams(names)
    mine = [name for name, arn in now.items() if arn in ours or (unsettled and name not in known)]
    for name in sorted(now.keys() - set(mine)):
        _log.info(
            "the stream of table %s is on, but it is not the one that was enabled here: left as it is",
            name,
            extra={"table": name},
        )
    ends.source.restore_streams(mine)


def _not_over(context: TaskContext) -> ConfigurationError:
    return ConfigurationError(
        "the migration is not over and cannot be retired",
        where=context.file.migration,
        why="the target's journal holds neither its switch nor its cancellation",
        todo="cut over or cancel it first; until then take spec.retire out",
    )
