"""What a page of one shard becomes: the last state of each key as writes. No I/O, no positions."""

from collections.abc import Sequence
from dataclasses import dataclass

from whimbrel_worker.engine.ports import Delete, Upsert, Write
from whimbrel_worker.engine.shard_ports import ItemChange
from whimbrel_worker.values.columns import Cell, Row, Table


@dataclass(frozen=True, slots=True)
class PageWrites:
    """The writes of a page, no key twice, and how many of its changes they stand for."""

    writes: Sequence[Write]
    changes: int


def writes_of(table: Table, changes: Sequence[ItemChange], *, skip_before: float, keep_ttl: bool) -> PageWrites:
    """The last state of each key after these changes.

    Changes from before `skip_before` (seconds since 1970, source clock) were in the table before the copy. Without
    `keep_ttl` the service's own deletes are left out first, so that what came before them still counts.
    """
    wanted = [each for each in changes if each.at >= skip_before and (keep_ttl or not each.by_ttl)]
    last: dict[tuple[Cell, ...], Row | None] = {}
    for change in wanted:
        last[tuple(change.key)] = change.after
    rows = [row for row in last.values() if row is not None]
    keys = [key for key, row in last.items() if row is None]
    writes: list[Write] = [Upsert(table, rows)] if rows else []
    if keys:
        writes.append(Delete(table, keys))
    return PageWrites(writes, len(wanted))
