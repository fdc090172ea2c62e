"""Reading both sides for a comparison: a thread each, a few batches ahead, in short statements. Joins nothing."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from whimbrel_worker.engine.compare.items import Segment, holds_items, matched_items, unmatched_items
from whimbrel_worker.engine.compare.merge import Batch, Step, matched, merge, unmatched
from whimbrel_worker.engine.ports import SourceReader, TargetReader
from whimbrel_worker.values.columns import Row, Table

T = TypeVar("T")

CHUNK_ROWS = 20_000
"""Rows of one source statement: long enough to be cheap, short enough not to hold an old view of the rows open."""
BATCH_ROWS = 2_000
KEYS_AT_ONCE = 2_000
"""Keys of one lookup."""
_FIRST_PORTION, _SMALLEST_PORTION, _PORTION_BYTES = 100, 10, 4 << 20
_AHEAD = 2
_PATIENCE = 0.2


class Ahead(Generic[T]):
    """Runs an iterator in a thread of its own, at most two items ahead. Its errors come out where it is read."""

    def __init__(self, items: Iterable[T], name: str) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(_AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item, None):
                    break
            if isinstance(self._items, Generator):
                self._items.close()
            self._put(None, None)
        except BaseException as error:  # noqa: BLE001 - raised again by the reader of this queue
            self._put(None, error)

    def _put(self, item: T | None, error: BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put((item, error), timeout=_PATIENCE)
            except queue.Full:
                continue
            return True
        return False


def source_batches(reader: SourceReader, table: Table) -> Iterator[Batch]:
    """All rows of the source in its own key order, in statements of bounded length."""
    low = None
    while True:
        high = reader.boundary(table, low, CHUNK_ROWS)
        for block in reader.rows(table, low, high, BATCH_ROWS):
            yield list(block)
        if high is None:
            return
        low = high


def in_order(source: SourceReader, target: TargetReader, table: Table) -> Iterator[Step]:
    """Compare a table whose keys both sides order alike."""
    with (
        Ahead(source_batches(source, table), "source") as rows,
        Ahead(target.range(table, None, None), "target") as others,
    ):
        yield from merge(table, rows, others)


def by_lookup(source: SourceReader, target: TargetReader, table: Table) -> Iterator[Step]:
    """Compare a table whose sides order keys differently: the source's rows by lookup, then the target's keys."""
    yield from forth(target, table, source_batches(source, table))
    yield from back(source, table, _target_keys(target, table))


def forth(target: TargetReader, table: Table, rows: Iterable[Batch]) -> Iterator[Step]:
    """Look the source's rows up in the target."""
    compare = matched_items if holds_items(table) else matched
    with Ahead(rows, "source") as read, Ahead(_with_partners(target, table, read), "target") as pairs:
        for batch, found in pairs:
            yield compare(table, batch, found)


def back(source: SourceReader, table: Table, keys: Iterable[Batch]) -> Iterator[Step]:
    """Look the target's keys up in the source."""
    compare = unmatched_items if holds_items(table) else unmatched
    with Ahead(keys, "target") as read, Ahead(_with_owners(source, table, read), "source") as pairs:
        for batch, found in pairs:
            step = compare(table, batch, found)
            step.looked_up = len(batch)
            yield step


def segment_batches(reader: SourceReader, table: Table, segment: Segment) -> Iterator[Batch]:
    """The items of a segment of the source."""
    for block in reader.rows(table, segment.low, segment.high, BATCH_ROWS):
        yield list(block)


def _with_partners(target: TargetReader, table: Table, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Batch]]:
    for batch in batches:
        yield batch, looked_up(target.by_keys, table, [table.key_of(row) for row in batch])


def _with_owners(source: SourceReader, table: Table, keys: Iterable[Batch]) -> Iterator[tuple[Batch, Batch]]:
    if holds_items(table):
        yield from _owned_items(source, table, keys)
        return
    for batch in keys:
        yield batch, looked_up(source.by_keys, table, batch)


def _owned_items(source: SourceReader, table: Table, keys: Iterable[Batch]) -> Iterator[tuple[Batch, Batch]]:
    """Of what the source gives only the keys are kept, and so much is asked for at once as is not too large."""
    portion = _FIRST_PORTION
    for batch in keys:
        owned: list[Row] = []
        start = 0
        while start < len(batch):
            rows = source.by_keys(table, batch[start : start + portion])
            owned += [table.key_of(row) for row in rows]
            start, portion = start + portion, portion_after(rows)
        yield batch, owned


def portion_after(rows: Sequence[Row]) -> int:
    """How many items like these to ask for at once."""
    size = sum(len(row[-1]) for row in rows if isinstance(row[-1], bytes))
    return max(_SMALLEST_PORTION, min(KEYS_AT_ONCE, _PORTION_BYTES * len(rows) // size)) if size else KEYS_AT_ONCE


def _target_keys(target: TargetReader, table: Table) -> Iterator[Batch]:
    keys = target.keys_after(table, None, KEYS_AT_ONCE)
    while keys:
        yield keys
        keys = target.keys_after(table, keys[-1], KEYS_AT_ONCE)


def looked_up(by_keys: Callable[[Table, Sequence[Row]], Sequence[Row]], table: Table, keys: Sequence[Row]) -> list[Row]:
    """The rows under these keys, a bounded number at once."""
    return [
        row for start in range(0, len(keys), KEYS_AT_ONCE) for row in by_keys(table, keys[start : start + KEYS_AT_ONCE])
    ]
