"""Waits until no shard gives a change any more and reports the positions at which it was so, under a short name.

The name is made of the positions alone, and the moment before it of the newest change, so that two freezes have equal
positions exactly where nothing was written between them. Stops nobody's writes itself.
"""

import contextlib
from collections.abc import Callable, Iterable
from math import floor

from whimbrel_api.reports import FreezeResult
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.engine.shard_ports import ShardedEnds, ShardRow
from whimbrel_worker.engine.shards.lineage import number
from whimbrel_worker.engine.shards.stillness import Stillness
from whimbrel_worker.engine.shards.tips import digest
from whimbrel_worker.tasks.acknowledge import acknowledge_rest
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.values.columns import Table
from whimbrel_worker.values.moments import freeze_position, seconds_of

TABLES_TOLD = 100
_START = Backoff(base=0.2, cap=10.0, attempts=20)


def run(context: TaskContext, ends: ShardedEnds, held: Callable[[], bool]) -> None:
    """Watch until quiet, keep the tips, report the position. Raises SourceLogLost and what else ends the work.

    It is watched again until nobody could write all the while, as far as `held` says.
    """
    wanted, store = context.file.freeze.quiet_seconds, ends.target.shards()
    tables = retrying(lambda: _tables(ends), backoff=_START)
    base = seconds_of(ends.target.control().record().start_position)
    stillness = Stillness(ends.source, store, tables, context.wait)

    def heard(quiet: float) -> None:
        last = _position(ends, stillness.rows(), base)
        context.report.update(freeze=FreezeResult(quiet_seconds=round(quiet, 1), last_position=last))

    rows = stillness.until_quiet(wanted, heard)
    while not held():
        rows = stillness.until_quiet(wanted, heard)
    tips = {row.ref: number(row.position) for row in rows}
    kept = {ref: str(tip) for ref, tip in tips.items() if tip >= 0}
    retrying(lambda: store.keep_tips(digest(tips), kept), backoff=_START)
    position = _position(ends, rows, base)
    moved = context.file.freeze.since not in ("", position)
    written = dict(list(stillness.records().items())[:TABLES_TOLD]) if moved else {}
    told = FreezeResult(position=position, quiet_seconds=wanted, last_position=position, tables=written)
    acknowledge_rest(context, told)
    context.report.update(freeze=told)


class _Moved(Exception):
    """A record was seen; nothing needs to be waited for any more."""


def moved_since(context: TaskContext, ends: ShardedEnds) -> FreezeResult | None:
    """What was written since the position that the task was given; None where no shard gives a record for so long."""
    since, wanted = context.file.freeze.since, context.file.freeze.quiet_seconds
    base = seconds_of(ends.target.control().record().start_position)
    stillness = Stillness(ends.source, ends.target.shards(), _tables(ends), context.wait)

    def heard(_: float) -> None:
        if _position(ends, stillness.rows(), base) != since:
            raise _Moved

    with contextlib.suppress(_Moved):
        stillness.until_quiet(wanted, heard)
    position = _position(ends, stillness.rows(), base)
    if position == since:
        return None
    return FreezeResult(
        position=position, last_position=position, tables=dict(list(stillness.records().items())[:TABLES_TOLD])
    )


def _tables(ends: ShardedEnds) -> dict[str, Table]:
    """The tables that are followed."""
    followed = {row.name for row in ends.target.control().tables() if row.state != "Stopped"}
    tables, _ = ends.source.discover()
    return {table.name: table for table in tables if table.name in followed}


def _position(ends: ShardedEnds, rows: Iterable[ShardRow], base: float) -> str:
    """The moment is that of the newest change, or `base`, the start of the copy.

    In whole seconds, so that no way of keeping a fraction can make two of what is one.
    """
    rows = list(rows)
    newest = max((row.last_change_at for row in rows), default=0.0) or base
    name = digest({row.ref: number(row.position) for row in rows})
    return freeze_position(ends.source.moment(float(floor(newest + 0.0005))), name)
