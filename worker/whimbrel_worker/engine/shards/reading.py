"""One shard in the hands of this worker: read a page, write it, commit the position. Whose thread it is, pool says.

A page is in the target before its position is committed; what happens in between is done again, which changes nothing,
because a page's writes are whole items and whole deletes in the order of the shard. A page that could not be written is
kept and tried again, so no page is passed over.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol

from whimbrel_api.logs import lines_about
from whimbrel_worker.engine.retry import Backoff
from whimbrel_worker.engine.shard_ports import (
    NOBODY,
    Holder,
    ItemWriter,
    Page,
    ShardReader,
    ShardRow,
    ShardStore,
)
from whimbrel_worker.engine.shards.batch import writes_of
from whimbrel_worker.engine.shards.lag import EmptyRun, advanced
from whimbrel_worker.engine.shards.lineage import is_open
from whimbrel_worker.errors import Incompatible, SourceLogLost, Transient
from whimbrel_worker.failpoints import reach
from whimbrel_worker.values.columns import Table

_LOG = logging.getLogger(__name__)
PAGE_SECONDS: Final = 0.2
"""GetRecords may be called five times a second for a shard."""
IDLE_SECONDS: Final = 1.0
_IDLE_LOOKS_A_SECOND: Final = 500.0
"""A worker with more idle shards than this looks at each more rarely than every IDLE_SECONDS."""
_AGAIN = Backoff(base=0.2, cap=10.0, attempts=1_000_000)
_BEAT_SECONDS: Final = (1.0, 5.0)
_BEATS_A_SECOND: Final = 50.0
_PROOF_SECONDS: Final = 2.0


@dataclass(slots=True)
class Terms:
    """What all shards of a worker have in common.

    `stops_gone` stops a table that the source has no more; `held`: how many shards there are; `hurry`: no waiting for
    changes.
    """

    source: ShardReader
    store: ShardStore
    writer: ItemWriter
    holder: Holder
    keep_ttl: bool
    notice: Callable[[Transient], None]
    stops_gone: Callable[[str], bool]
    held: int = 1
    hurry: bool = False

    def idle_seconds(self) -> float:
        """How long a shard is left alone at most that gives nothing."""
        return max(IDLE_SECONDS, self.held / _IDLE_LOOKS_A_SECOND)

    def beat_seconds(self) -> float:
        """How old a shard's row may get; more for many shards, never more than five seconds."""
        return min(max(_BEAT_SECONDS[0], self.held / _BEATS_A_SECOND), _BEAT_SECONDS[1])


class Stopper(Protocol):
    """Stops a table."""

    def __call__(self, name: str, reason: str) -> None:
        """Follow it no further, with why."""


class Reading:
    """A claimed shard. `step` belongs to one thread at a time; `beat` may come from another."""

    def __init__(self, table: Table, row: ShardRow, terms: Terms, stop_table: Stopper) -> None:
        self.ref = row.ref
        self._table, self._terms, self._stop_table = table, terms, stop_table
        self._row = self._seen = row
        self._pages: Iterator[Page] | None = None
        self._pending: tuple[Page, ShardRow, EmptyRun] | None = None
        self._run, self._idle = EmptyRun(), PAGE_SECONDS
        self._delays = _AGAIN.delays()
        self._commit_lock = threading.Lock()
        self._committed_at = time.monotonic()
        self._left = False
        self.dropped = False
        """Whether the pool is to give it back after the page that is under way."""

    @property
    def row(self) -> ShardRow:
        """The shard as it is now: what the control table says, or a little newer where only empty pages came."""
        return self._seen

    def step(self) -> float | None:
        """Bring one page into the target. Seconds to wait before the next one; None when there is none for ever."""
        with lines_about(table=self.ref.table):
            return self._step()

    def _step(self) -> float | None:
        began = time.monotonic()
        try:
            wait = self._bring()
        except Transient as failure:
            self._pages = None
            self._terms.notice(failure)
            return next(self._delays)
        except Incompatible as error:
            self._stop_table(self.ref.table, str(error))
            return None
        self._pending, self._delays = None, _AGAIN.delays()
        if not is_open(self._row):
            return None
        return max(0.0, wait - (time.monotonic() - began))

    def _bring(self) -> float:
        """The pending page or the next one. Seconds until the next one, counted from its beginning."""
        try:
            if self._pending is None:
                self._pending = self._read()
        except SourceLogLost:
            if not self._terms.stops_gone(self.ref.table):
                raise
            raise Incompatible("the table is gone", where=self.ref.table) from None
        return self._write(*self._pending)

    def _read(self) -> tuple[Page, ShardRow, EmptyRun]:
        """The next page, with the row and the run after it; what of them counts `_write` says."""
        if self._pages is None:
            self._pages = self._terms.source.read(self._table, self._seen)
        page = next(self._pages, None)
        if page is None:
            self._pages = None
            raise Transient(
                f"reading shard {self.ref.shard} broke off without saying that it is at its end", where=self.ref.table
            )
        return page, self._seen, self._run

    def _write(self, page: Page, before: ShardRow, run: EmptyRun) -> float:
        changes = 0
        if page.changes:
            batch = writes_of(self._table, page.changes, skip_before=before.skip_before, keep_ttl=self._terms.keep_ttl)
            reach("stream.before_write")
            if batch.writes:
                self._terms.writer.write(batch.writes, self._prove)
            changes = batch.changes
            reach("stream.after_write")
        row, self._run = advanced(before, page, run, changes)
        self._seen = row
        if page.changes or page.position or page.ended or self._is_due(row):
            self._commit(row)
        if page.changes:
            self._idle = PAGE_SECONDS
        else:
            self._idle = PAGE_SECONDS if self._terms.hurry else min(2 * self._idle, self._terms.idle_seconds())
        return self._idle

    def _is_due(self, row: ShardRow) -> bool:
        if (row.quiet_since > 0) is not (self._row.quiet_since > 0):
            return True
        return time.monotonic() - self._committed_at >= self._terms.beat_seconds()

    def _commit(self, row: ShardRow) -> None:
        with self._commit_lock:
            asked_at, row = time.monotonic(), replace(row, beat_at=time.time())
            self._terms.store.commit(row, self._terms.holder)
            self._row = row
            self._committed_at = asked_at

    def _prove(self) -> float:
        """See that this worker still holds the shard, unless that was proven a moment ago. When proof was asked for.

        A process that was stopped for a while may hold it no more: FencedOut. What is written between two proofs by a
        worker that was succeeded is the window that a target without transactions leaves open; the successor's later
        writes and the comparison are what remains against it.
        """
        with self._commit_lock:
            if time.monotonic() - self._committed_at > _PROOF_SECONDS:
                self._commit_again()
            return self._committed_at

    def beat(self) -> None:
        """Show that the owner lives although a page takes long. Raises FencedOut when another holds the shard."""
        if time.monotonic() - self._committed_at < _BEAT_SECONDS[1] or not self._commit_lock.acquire(blocking=False):
            return
        try:
            if is_open(self._row) and not self._left:
                self._commit_again()
        finally:
            self._commit_lock.release()

    def _commit_again(self) -> None:
        asked_at = time.monotonic()
        self._terms.store.commit(replace(self._row, beat_at=time.time()), self._terms.holder)
        self._committed_at = asked_at

    def let_go(self) -> None:
        """Give the shard back; nothing of it is under way. Where that fails it comes back as a lost one."""
        with self._commit_lock:
            self._left = True
        try:
            if is_open(self._row):
                self._terms.store.claim(self._row, NOBODY)
        except Transient as failure:
            self._terms.notice(failure)
        self.close()

    def close(self) -> None:
        """Leave the source's pages."""
        pages, self._pages = self._pages, None
        if pages is not None:
            with contextlib.suppress(AttributeError):
                pages.close()  # type: ignore[attr-defined]  # generators have it: it frees the connection
