"""Which shards may be read now, and what a new listing adds to those that are known. Pure: rows and listings in.

A shard is read once its parent is Done, so that a key's records are applied in order over splits and rolls. All shards
that were listed at the capture are rows, closed ones too, and later ones are added only where their parent is a row or
added with them, parents first. A row's parent that is no row was therefore gone before the capture: all its records
are older than the copy, and the child may be read. A new shard whose parent is neither known nor listed says the
opposite: the parent came after the capture and was trimmed before anybody saw it. Its records are lost.
"""

from collections.abc import Iterable, Mapping, Sequence

from whimbrel_worker.engine.shard_ports import BEGINNING, FROM_HERE, Shard, ShardRef, ShardRow, ShardState
from whimbrel_worker.errors import SourceLogLost

_ANEW = "nothing can be followed any more: begin a new migration of this table with a name of its own"


def number(position: str) -> int:
    """A position as a number that grows with it; -1 at the beginning. Sequence numbers have any number of digits."""
    if position == BEGINNING:
        return -1
    return int(position.removeprefix(FROM_HERE)) - 1 if position.startswith(FROM_HERE) else int(position)


def is_open(row: ShardRow) -> bool:
    """Whether there is still something to read, or may be."""
    return row.state is not ShardState.DONE


def readable(rows: Iterable[ShardRow]) -> list[ShardRow]:
    """The rows that may be read now, whoever reads them."""
    known = {row.ref: row for row in rows}
    return [row for row in known.values() if is_open(row) and not _waits(row, known)]


def _waits(row: ShardRow, known: Mapping[ShardRef, ShardRow]) -> bool:
    parent = parent_of(row, known)
    return parent is not None and is_open(parent)


def parent_of(row: ShardRow, known: Mapping[ShardRef, ShardRow]) -> ShardRow | None:
    """The parent's row; None where the shard has none or it was gone before the capture."""
    return known.get(ShardRef(row.ref.table, row.ref.stream, row.parent)) if row.parent else None


def leaves(rows: Iterable[ShardRow]) -> list[ShardRow]:
    """The Done rows that no row has as its parent: a child may come yet."""
    known = list(rows)
    parents = {(row.ref.table, row.ref.stream, row.parent) for row in known}
    return [row for row in known if not is_open(row) and (row.ref.table, row.ref.stream, row.ref.shard) not in parents]


def newcomers(table: str, rows: Sequence[ShardRow], listed: Sequence[Shard]) -> list[list[ShardRow]]:
    """What a listing of the table's stream adds to its `rows`, by generations: each is to be kept before the next.

    Raises SourceLogLost where the stream is another one, or where a shard was trimmed that nobody has read.
    """
    _refuse_other_stream(table, rows, listed)
    known = {row.ref.shard: row for row in rows}
    fresh = {shard.ref.shard: shard for shard in listed if shard.ref.shard not in known}
    _refuse_orphans(table, known, fresh)
    generations: list[list[ShardRow]] = []
    while fresh:
        ready = [shard for shard in fresh.values() if shard.parent not in fresh]
        if not ready:
            raise SourceLogLost(
                f"the shards of table {table} name each other as parents in a circle", where=table,
                why=", ".join(sorted(fresh)[:5]), todo=_ANEW,
            )  # fmt: skip
        generations.append([_row(shard, known) for shard in ready])
        known |= {row.ref.shard: row for row in generations[-1]}
        fresh = {name: shard for name, shard in fresh.items() if name not in known}
    return generations


def _row(shard: Shard, known: Mapping[str, ShardRow]) -> ShardRow:
    """All that a child holds is newer than its parent, so what is proven of the parent holds for the child."""
    parent = known.get(shard.parent)
    return ShardRow(shard.ref, parent=shard.parent, read_to=parent.read_to if parent is not None else 0.0)


def _refuse_other_stream(table: str, rows: Sequence[ShardRow], listed: Sequence[Shard]) -> None:
    kept, seen = {row.ref.stream for row in rows}, {shard.ref.stream for shard in listed}
    if kept and seen and kept != seen:
        raise SourceLogLost(
            f"the stream of table {table} is not the one that was followed", where=table,
            why=f"followed {', '.join(sorted(kept))}, now it is {', '.join(sorted(seen))}: it was disabled and enabled"
            " again, and what was written in between is in neither",
            todo=_ANEW,
        )  # fmt: skip


def _refuse_orphans(table: str, known: Mapping[str, ShardRow], fresh: Mapping[str, Shard]) -> None:
    for shard in fresh.values():
        if shard.parent and shard.parent not in known and shard.parent not in fresh:
            raise SourceLogLost(
                f"shard {shard.parent} of table {table} came and was trimmed before it was read", where=table,
                why=f"its child {shard.ref.shard} is listed, itself it is not any more: the stream keeps 24 hours",
                todo=_ANEW,
            )  # fmt: skip
