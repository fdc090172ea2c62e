"""A sharded source with the spool in front: one that reads from the disk first, one that reads onto it. No files here.

A follower that collects is the one that applies, over other ends: the source keeps each page before it gives it out,
the writer lets it go, and the store shows how far the disk is while the control table goes on to say what is in the
target.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from whimbrel_worker.engine.ports import Problem, Write
from whimbrel_worker.engine.shard_ports import (
    Holder,
    ItemWriter,
    Page,
    Shard,
    ShardReader,
    ShardRef,
    ShardRow,
    ShardState,
    ShardStore,
    ShardTaker,
)
from whimbrel_worker.engine.spool.spool import Spool
from whimbrel_worker.errors import WorkerError
from whimbrel_worker.values.columns import Table


@dataclass(slots=True)
class Passing:
    """Implements shard_ports.ShardReader by another one, but for `read`."""

    source: ShardReader
    spool: Spool

    def clock(self) -> float:
        """The source's clock."""
        return self.source.clock()

    def moment(self, at: float) -> str:
        """A moment as a position."""
        return self.source.moment(at)

    def discover(self) -> tuple[list[Table], list[Problem]]:
        """The source's tables."""
        return self.source.discover()

    def shards(self, table: Table) -> list[Shard]:
        """The shards of the table's stream now."""
        return self.source.shards(table)


@dataclass(slots=True)
class SpooledSource(Passing):
    """Gives what was collected first, then what the source still has."""

    def read(self, table: Table, row: ShardRow) -> Iterator[Page]:
        """Pages after the row's position. Raises SourceLogLost for damage, and for a gap between disk and source."""
        for page in self.spool.pages_after(row.ref, row.position):
            yield page
            if page.ended:
                return
            newest = page.changes[-1]
            row = replace(row, position=newest.sequence, last_change_at=max(row.last_change_at, newest.at))
        yield from self.source.read(table, row)


@dataclass(slots=True)
class CollectedSource(Passing):
    """Reads what is not collected yet, and keeps it before it gives it out."""

    holder: Holder
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _kept: int = field(default=0, init=False)

    @property
    def kept(self) -> int:
        """How many changes were kept since this began."""
        return self._kept

    def read(self, table: Table, row: ShardRow) -> Iterator[Page]:
        """Pages after what is collected; each of them is on the disk. The last one again where all is there."""
        writer = self.spool.writer(row.ref, row.position, self.holder)
        try:
            if writer.ended:
                yield Page((), self.source.clock(), ended=True)
                return
            for page in self.source.read(table, replace(row, position=writer.position)):
                if page.changes or page.ended:
                    writer.append(page)
                    with self._lock:
                        self._kept += len(page.changes)
                yield page
        finally:
            writer.close()


class Forgetful:
    """Implements shard_ports.ItemWriter for changes that are kept already."""

    def write(self, writes: Sequence[Write], proof: Callable[[], float] | None = None) -> None:
        """Nothing is to be done."""


class _PassingStore:
    """Implements shard_ports.ShardStore by another one."""

    def __init__(self, store: ShardStore, spool: Spool) -> None:
        self._store, self._spool = store, spool

    def add(self, rows: Sequence[ShardRow]) -> None:
        """Add shards that are not there yet."""
        self._store.add(rows)

    def all(self) -> list[ShardRow]:
        """All shards."""
        return self._store.all()

    def claim(self, row: ShardRow, holder: Holder) -> bool:
        """Take a shard, or give it back."""
        return self._store.claim(row, holder)

    def commit(self, row: ShardRow, holder: Holder) -> None:
        """Write position, state and figures. Raises FencedOut."""
        self._store.commit(row, holder)

    def release(self, holder: Holder) -> None:
        """Give back all that this worker holds."""
        self._store.release(holder)

    def release_lost(self, older_than_seconds: float) -> int:
        """Give back the shards of lost workers."""
        return self._store.release_lost(older_than_seconds)

    def keep_tips(self, name: str, tips: Mapping[ShardRef, str]) -> None:
        """Keep positions of shards under a name."""
        self._store.keep_tips(name, tips)

    def tips(self, name: str) -> Mapping[ShardRef, str] | None:
        """What was kept under that name."""
        return self._store.tips(name)


class CollectingStore(_PassingStore):
    """The control table's shards with the disk's ends over them.

    A shard that is kept to its end shows as Done, so that its children are read. What is written to the control table
    is who holds a shard and that it lives: never a position, because nothing of this is in the target.
    """

    def __init__(self, store: ShardStore, spool: Spool) -> None:
        super().__init__(store, spool)
        self._known: dict[ShardRef, ShardRow] = {}

    def add(self, rows: Sequence[ShardRow]) -> None:
        """Add shards that are not there yet. What is proven of a parent here is proven of the disk, not the target."""
        super().add([replace(row, read_to=0.0) for row in rows])

    def all(self) -> list[ShardRow]:
        """All shards, Done where they need not be read any more."""
        rows = self._store.all()
        self._known = {row.ref: row for row in rows}
        return [self._shown(row) for row in rows]

    def claim(self, row: ShardRow, holder: Holder) -> bool:
        """Take a shard, or give it back."""
        return self._store.claim(self._as_kept(row), holder)

    def commit(self, row: ShardRow, holder: Holder) -> None:
        """Show that the holder lives. Raises FencedOut."""
        self._store.commit(self._as_kept(row), holder)

    def _shown(self, row: ShardRow) -> ShardRow:
        if row.state is not ShardState.DONE and self._spool.ended(row.ref):
            return replace(row, state=ShardState.DONE)
        return row

    def _as_kept(self, row: ShardRow) -> ShardRow:
        """The row as the control table has it, with who holds it and since when as `row` says."""
        known = self._known.get(row.ref)
        if known is None:
            raise WorkerError("a shard is written that was never listed", where=row.ref.shard)
        return replace(known, owner=row.owner, attempt=row.attempt, beat_at=row.beat_at)


class DroppingStore(_PassingStore):
    """The control table's shards; what of a shard lies on the disk goes once the control table says that it is Done."""

    def commit(self, row: ShardRow, holder: Holder) -> None:
        """Write position, state and figures; then drop what is not needed any more. Raises FencedOut."""
        self._store.commit(row, holder)
        if row.state is ShardState.DONE:
            self._spool.drop(row.ref)


@dataclass(frozen=True, slots=True)
class SpooledTarget:
    """Implements shard_ports.ShardTaker: another store and, to collect, a writer that writes nothing."""

    store: ShardStore
    items: ItemWriter

    def shards(self) -> ShardStore:
        """The shards."""
        return self.store

    def writer(self) -> ItemWriter:
        """Writes items, or lets them go."""
        return self.items


def collecting(source: ShardReader, target: ShardTaker, spool: Spool, holder: Holder) -> tuple[
    CollectedSource, SpooledTarget
]:  # fmt: skip
    """Both ends for a follower that only collects."""
    ends = SpooledTarget(CollectingStore(target.shards(), spool), Forgetful())
    return CollectedSource(source, spool, holder), ends


def applying(source: ShardReader, target: ShardTaker, spool: Spool) -> tuple[SpooledSource, SpooledTarget]:
    """Both ends for a follower that applies what was collected, and then what comes."""
    return SpooledSource(source, spool), SpooledTarget(DroppingStore(target.shards(), spool), target.writer())
