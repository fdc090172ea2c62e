"""Lets the forward stream begin anew after a rollback: streams on, and every shard from where it stands now.

Nobody writes while this runs: the target is frozen, what was on its way back has arrived, and the source is opened only
after the journal has the rollback. So a position taken now misses nothing, and one taken again after a crash neither.
"""

import logging

from whimbrel_api.reports import ROLLED_BACK, SWITCHED, Record
from whimbrel_worker.errors import ConfigurationError, FencedOut
from whimbrel_worker.failpoints import reach
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.sharding import ItemEnds, remember_enabled, sharded_ends
from whimbrel_worker.values.columns import Table

_LOG = logging.getLogger(__name__)


def require_switched(context: TaskContext, record: Record) -> None:
    """Raise FencedOut unless the rollback is of the switch that the journal ends with, and of its attempt.

    The attempt is raised before the journal has the rollback: one that died in between is done again, but not one that
    the journal holds before a later switch.
    """
    fence, newest = context.file.fence, record.traffic
    attempt = fence.plan_attempt
    known = any((entry.step, entry.detail) == (ROLLED_BACK, fence.detail) for entry in record.journal)
    fits = record.plan_attempt == attempt - 1 or (record.plan_attempt == attempt and not known)
    if newest is not None and newest.step == SWITCHED and fits:
        return
    raise FencedOut(
        f"attempt {attempt - 1} is not rolled back",
        where=context.file.migration,
        why=f"the plan is at attempt {record.plan_attempt}, the journal's last word is {newest.step if newest else ''}",
        todo="nothing: the order was an old one",
    )


def reopen(context: TaskContext, record: Record) -> None:
    """Enable missing streams and keep where each shard stands now, instead of all that was kept before."""
    ends = sharded_ends(context)
    if ends is None:
        raise ConfigurationError(
            "this migration cannot be rolled back",
            where=context.file.migration,
            why="changes flow back to DynamoDB only",
            todo="report this: the operator asks for it where there is a way back alone",
        )
    control, tables = ends.target.control(), _followed(ends)
    for name in ends.source.prepare_streams(tables, before=lambda names: remember_enabled(control, names)):
        _LOG.info("the stream of table %s was enabled; it is disabled again at the end", name, extra={"table": name})
    began = ends.source.position()
    rows = ends.source.capture(tables)
    reach("reopen.captured")
    ends.target.shards(record.epoch).replace(rows)
    control.restart(began)


def _followed(ends: ItemEnds) -> list[Table]:
    """The tables that were copied and are still there; a stopped one stays so."""
    copied = {row.name for row in ends.target.control().tables() if row.state == "Copied"}
    return [table for table in ends.source.discover()[0] if table.name in copied]
