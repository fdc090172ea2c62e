"""Which shards may be read now, and what a new listing adds to those that are known. Pure: rows and listings in.

A shard is read once its parents are Done, so that a key's records are applied in order over splits, rolls and merges: a
shard into which two were merged has two. All shards
that were listed at the capture are rows, closed ones too, and later ones are added only where their parent is a row or
added with them, parents first. A row's parent that is no row was therefore gone before the capture: all its records
are older than the copy, and the child may be read. A new shard whose parent is neither known nor listed says the
opposite: the parent came after the capture and was trimmed before anybody saw it. Its records are lost.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

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
    return any(is_open(parent) for parent in parents_of(row, known))


def parent_refs(row: ShardRow) -> list[ShardRef]:
    """The parents that the shard names: none, one, or two where it was merged."""
    return [ShardRef(row.ref.table, row.ref.stream, name) for name in (row.parent, row.adjacent) if name]


def parents_of(row: ShardRow, known: Mapping[ShardRef, ShardRow]) -> list[ShardRow]:
    """The parents' rows, without one that was gone before the capture."""
    return [known[ref] for ref in parent_refs(row) if ref in known]


def inherited(row: ShardRow, known: Mapping[ShardRef, ShardRow]) -> float:
    """What the parents proved: all that a child holds is newer than they are. 0 where there is none."""
    return min((parent.read_to for parent in parents_of(row, known)), default=0.0)


def leaves(rows: Iterable[ShardRow]) -> list[ShardRow]:
    """The Done rows that no row has as its parent: a child may come yet."""
    known = list(rows)
    parents = {ref for row in known for ref in parent_refs(row)}
    return [row for row in known if not is_open(row) and row.ref not in parents]


def newcomers(table: str, rows: Sequence[ShardRow], listed: Sequence[Shard]) -> list[list[ShardRow]]:
    """What a listing of the table's stream adds to its `rows`, by generations: each is to be kept before the next.

    Raises SourceLogLost where the stream is another one, or where a shard was trimmed that nobody has read.
    """
    _refuse_other_stream(table, rows, listed)
    known = {row.ref: row for row in rows}
    fresh = {shard.ref.shard: shard for shard in listed if shard.ref not in known}
    _refuse_orphans(table, {ref.shard for ref in known}, fresh)
    generations: list[list[ShardRow]] = []
    while fresh:
        ready = [shard for shard in fresh.values() if not {shard.parent, shard.adjacent} & fresh.keys()]
        if not ready:
            raise SourceLogLost(
                f"the shards of table {table} name each other as parents in a circle", where=table,
                why=", ".join(sorted(fresh)[:5]), todo=_ANEW,
            )  # fmt: skip
        generations.append([_row(shard, known) for shard in ready])
        known |= {row.ref: row for row in generations[-1]}
        fresh = {name: shard for name, shard in fresh.items() if shard.ref not in known}
    return generations


def _row(shard: Shard, known: Mapping[ShardRef, ShardRow]) -> ShardRow:
    row = ShardRow(shard.ref, parent=shard.parent, adjacent=shard.adjacent)
    return replace(row, read_to=inherited(row, known))


def _refuse_other_stream(table: str, rows: Sequence[ShardRow], listed: Sequence[Shard]) -> None:
    kept, seen = {row.ref.stream for row in rows}, {shard.ref.stream for shard in listed}
    if kept and seen and kept != seen:
        raise SourceLogLost(
            f"the stream of table {table} is not the one that was followed", where=table,
            why=f"followed {', '.join(sorted(kept))}, now it is {', '.join(sorted(seen))}: it was disabled and enabled"
            " again, and what was written in between is in neither",
            todo=_ANEW,
        )  # fmt: skip


def _refuse_orphans(table: str, known: Collection[str], fresh: Mapping[str, Shard]) -> None:
    for shard in fresh.values():
        for parent in filter(None, (shard.parent, shard.adjacent)):
            if parent not in known and parent not in fresh:
                raise SourceLogLost(
                    f"shard {parent} of table {table} came and was trimmed before it was read", where=table,
                    why=f"its child {shard.ref.shard} is listed, itself it is not any more: it is older than what the"
                    " stream keeps",
                    todo=_ANEW,
                )  # fmt: skip
