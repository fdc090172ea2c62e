"""Readers that go on where they were when a connection breaks or the target refuses a read. Nothing is compared here.

A comparison may read for hours; a passing failure must not make it start again. Aurora DSQL refuses even reads (OC001)
after any DDL and ends each session after an hour.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from whimbrel_worker.engine.bookmarks import bookmark_of
from whimbrel_worker.engine.ports import SourceReader, TargetReader
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.errors import Transient
from whimbrel_worker.values.canonical import source_could_hold
from whimbrel_worker.values.columns import Cell, Row, Table

R = TypeVar("R", bound=Row)
M = TypeVar("M")

BACKOFF = Backoff(base=0.1, cap=5.0, attempts=12)


@dataclass(slots=True)
class _Resuming(Generic[R, M]):
    """An iteration that is opened again after the last batch it gave when it has failed in passing.

    `mark` says where a batch ends; None opens the iteration from its beginning.
    """

    open_after: Callable[[M | None], Iterator[Sequence[R]]]
    mark: Callable[[Sequence[R]], M | None]
    _after: M | None = None
    _open: Iterator[Sequence[R]] | None = field(default=None)

    def batches(self) -> Iterator[Sequence[R]]:
        """All batches that hold a row."""
        while (batch := retrying(self._next, backoff=BACKOFF)) is not None:
            if len(batch):
                self._after = self.mark(batch)
                yield batch

    def _next(self) -> Sequence[R] | None:
        if self._open is None:
            self._open = self.open_after(self._after)
        try:
            return next(self._open, None)
        except Transient:
            self._open = None
            raise


@dataclass(frozen=True, slots=True)
class SteadySource:
    """A SourceReader over another one."""

    reader: SourceReader

    def rows(
        self, table: Table, low: tuple[str, ...] | None, high: tuple[str, ...] | None, batch: int
    ) -> Iterator[Sequence[Row]]:
        """Rows of (low, high] ordered by key, in batches."""

        def open_after(after: tuple[str, ...] | None) -> Iterator[Sequence[Row]]:
            return self.reader.rows(table, low if after is None else after, high, batch)

        return _Resuming(open_after, lambda given: bookmark_of(table, given)).batches()

    def by_keys(self, table: Table, keys: Sequence[Row]) -> Sequence[Row]:
        """The rows that have these keys, in any order. Keys that only a target can hold have none."""
        possible = [key for key in keys if source_could_hold(table.key_columns, key)]
        return retrying(lambda: self.reader.by_keys(table, possible), backoff=BACKOFF) if possible else []

    def boundary(self, table: Table, after: tuple[str, ...] | None, rows: int) -> tuple[str, ...] | None:
        """The key of the row `rows` further on, or None when fewer are left."""
        return retrying(lambda: self.reader.boundary(table, after, rows), backoff=BACKOFF)

    def count(self, table: Table) -> int:
        """How many rows there are now."""
        return retrying(lambda: self.reader.count(table), backoff=BACKOFF)


@dataclass(frozen=True, slots=True)
class SteadyTarget:
    """A TargetReader over another one."""

    reader: TargetReader

    def range(self, table: Table, low: Row | None, high: Row | None) -> Iterator[Sequence[Row]]:
        """Rows of (low, high] ordered by key, in batches."""

        def open_after(after: Sequence[Cell] | None) -> Iterator[Sequence[Row]]:
            return self.reader.range(table, low if after is None else after, high)

        return _Resuming(open_after, lambda given: table.key_of(given[-1])).batches()

    def by_keys(self, table: Table, keys: Sequence[Row]) -> Sequence[Row]:
        """The rows that have these keys, in any order."""
        return retrying(lambda: self.reader.by_keys(table, keys), backoff=BACKOFF)

    def keys_after(self, table: Table, after: Row | None, limit: int) -> Sequence[Row]:
        """The next keys in the target's own order."""
        return retrying(lambda: self.reader.keys_after(table, after, limit), backoff=BACKOFF)

    def segment_keys(self, table: Table, index: int, total: int) -> Iterator[Sequence[Row]]:
        """All keys of a segment in batches. After a failure they come again from its first one: a key is looked at
        twice rather than never."""

        def open_again(_: None) -> Iterator[Sequence[Row]]:
            return self.reader.segment_keys(table, index, total)

        return _Resuming(open_again, lambda _: None).batches()

    def count(self, table: Table) -> int:
        """How many rows there are now."""
        return retrying(lambda: self.reader.count(table), backoff=BACKOFF)
