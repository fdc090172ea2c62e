"""One worker of the snapshot: plans tables, claims chunks, copies them, waits for the others' to end. Pure of any
one system.

A chunk's rows and its progress commit in one transaction, so a row is written once however often workers die; the
position from which changes are replayed later is fixed before the first read.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from whimbrel_api.logs import lines_about
from whimbrel_api.repeats import Repeats
from whimbrel_worker.engine.bookmarks import bookmark_of
from whimbrel_worker.engine.copy.pipeline import Batch, read_ahead
from whimbrel_worker.engine.copy.plan import plan_chunks
from whimbrel_worker.engine.ports import (
    Chunk,
    ChunkProgress,
    ControlStore,
    Insert,
    Problem,
    Session,
    Source,
    SourceReader,
    TableRow,
    Tally,
    Target,
    Upsert,
)
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.engine.throttle import Throttle
from whimbrel_worker.errors import Incompatible, Transient
from whimbrel_worker.values.columns import Table

_log = logging.getLogger(__name__)
T = TypeVar("T")

COMPLETE: Final = "snapshot-complete"
HELD_ROWS: Final = "the target's table held rows before the copy; rows with the same key are overwritten"
_LOST_SECONDS: Final = 60.0
_HEARTBEAT_SECONDS: Final = 15.0
_LOG_CHECK_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 1.0
_REPEAT_SECONDS: Final = 60.0
_WAIT_SECONDS: Final = (0.2, 2.0)
_ACTIVE: Final = ("Planning", "Copying")


class Guide(Protocol):
    """What the copy asks of the task around it."""

    def wait(self, seconds: float) -> None:
        """Wait; raises when the worker is to stop."""

    def rate(self) -> float | None:
        """Rows a second that this worker may copy, or None."""

    def progress(self, tables: Sequence[TableRow]) -> None:
        """Hear where all tables stand; called often."""


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """How the work is cut and shared out. `follows` says whether changes are replayed afterwards."""

    index: int
    chunk_rows: int
    tables_in_parallel: int
    follows: bool = True


@dataclass(slots=True)
class Copier:
    """A worker with its session; `run` returns when no chunk is left, whoever copied it.

    `source_tally` counts how often the source is asked again.
    """

    source: Source
    target: Target
    options: CopyOptions
    guide: Guide
    source_tally: Tally = field(default_factory=Tally)
    _control: ControlStore = field(init=False)
    _session: Session = field(init=False)
    _attempt: int = field(default=0, init=False)
    _tables: Mapping[str, Table] = field(default_factory=dict, init=False)
    _problems: Sequence[Problem] = field(default=(), init=False)
    _overwrite: dict[str, bool] = field(default_factory=dict, init=False)
    _throttle: Throttle = field(default_factory=Throttle, init=False)
    _next_log_check: float = field(default=0.0, init=False)
    _next_look: float = field(default=0.0, init=False)
    _beaten: float = field(default=0.0, init=False)
    _start: str = field(default="", init=False)
    _repeats: Repeats = field(default_factory=lambda: Repeats(_REPEAT_SECONDS), init=False)

    def __post_init__(self) -> None:
        self._control = self.target.control()
        self._session = self.target.session("snapshot", self.options.index)

    def run(self) -> None:
        """Copy until nothing is left. Raises FencedOut, SourceLogLost, ConfigurationError or Transient."""
        _keep_freed_memory()
        try:
            self._attempt = self._session.take().attempt
            self._control.release(self.options.index, self._attempt)
            self._start = self._control.fix_start_position(self._asked(self.source.position))
            tables, self._problems = self._asked(self.source.discover)
            self._tables = {table.name: table for table in tables}
            _log.info("%d tables are there to copy; what changes from %s on is read later", len(tables), self._start)
            with self.source.reader() as reader:
                self._work(reader)
            self._complete()
        finally:
            self._session.close()

    def _work(self, reader: SourceReader) -> None:
        waits = _growing(*_WAIT_SECONDS)
        while True:
            self._look_around()
            if self._copy_one(reader) or self._plan_one(reader):
                waits = _growing(*_WAIT_SECONDS)
                continue
            if self._control.unfinished_chunks() == 0:
                return
            if self._control.release_lost(_LOST_SECONDS):
                _log.warning("chunks of a worker that has not written for %.0f s are copied by others", _LOST_SECONDS)
                continue
            self.guide.wait(next(waits))

    def _complete(self) -> None:
        self._control.settle_tables()
        tables = self._control.tables()
        if not tables:
            raise Transient(
                "the control tables hold no table to copy", why="they are being made, or were made anew meanwhile",
                todo="nothing: the copy is started again; if this stays, cancel and begin a new migration",
            )  # fmt: skip
        self.guide.progress(tables)
        if self._control.record().last(COMPLETE) is None:
            self._control.journal(COMPLETE)

    # --- planning ---

    def _plan_one(self, reader: SourceReader) -> bool:
        rows = self._control.tables()
        if sum(row.state in _ACTIVE for row in rows) >= self.options.tables_in_parallel:
            return False
        name = self._control.claim_planning(self.options.index, self._attempt)
        if name is None:
            return False
        table = self._tables.get(name)
        if table is None:
            self._stop_table(name, self._why_missing(name))
            return True
        with self._stopping(name):
            self._note_held_rows(table)
            self._asked(lambda: plan_chunks(table, self.options.chunk_rows, reader, self._control, self._beat))
        return True

    def _note_held_rows(self, table: Table) -> None:
        """Rows that were there before the first chunk rule out plain inserts; the table's row keeps that."""
        if not self._control.chunks(table.name) and self.target.schema().has_rows(table):
            self._control.set_table(table.name, "Planning", HELD_ROWS)

    def _why_missing(self, name: str) -> str:
        found = [problem for problem in self._problems if problem.fatal and problem.where.startswith(name)]
        if found:
            return f"{found[0].what}; {found[0].why}; {found[0].todo}"
        return "the table is no longer in the source, or the account may not read it; restore it or exclude it"

    # --- copying ---

    def _copy_one(self, reader: SourceReader) -> bool:
        chunk = self._control.claim_chunk(self.options.index, self._attempt)
        if chunk is None:
            return False
        table = self._tables.get(chunk.table)
        if table is None:
            self._stop_table(chunk.table, self._why_missing(chunk.table))
            return True
        with self._stopping(chunk.table):
            self._copy_chunk(reader, table, chunk)
            self._control.settle_tables()
        return True

    def _copy_chunk(self, reader: SourceReader, table: Table, chunk: Chunk) -> None:
        """Copy all of a chunk, reading on from the last committed row when the source fails on the way."""
        progress, delays = ChunkProgress(chunk, chunk.resume_after, chunk.rows, done=False), Backoff().delays()
        while True:
            before = progress.rows
            progress, failure = self._copy_rest(reader, table, progress)
            if failure is None:
                return
            delays = delays if progress.rows == before else Backoff().delays()
            self._wait_or_raise(failure, delays)

    def _copy_rest(
        self, reader: SourceReader, table: Table, progress: ChunkProgress
    ) -> tuple[ChunkProgress, Transient | None]:
        """Copy until the chunk is done or reading fails; a failure to write is the caller's end."""
        chunk, low = progress.chunk, progress.resume_after or progress.chunk.low
        write = Upsert if self._held_rows(table.name) else Insert
        rows = reader.rows(table, low, chunk.high, self.target.profile.rows_per_transaction)
        with read_ahead(iter(rows)) as following:
            while True:
                try:
                    batch = following()
                except Transient as failure:
                    return progress, failure
                progress = _advanced(table, progress, batch)
                self._hold_back()
                self._session.commit([] if batch is None else [write(table, batch)], progress=progress)
                self._beaten = time.monotonic()
                if batch is None:
                    return progress, None
                self._throttle.spend(len(batch), self.guide.rate())
                self._look_around()

    def _held_rows(self, name: str) -> bool:
        if name not in self._overwrite:
            # Of this table only: one that is not planned yet may come to hold that mark later.
            self._overwrite[name] = any(row.name == name and row.message == HELD_ROWS for row in self._control.tables())
        return self._overwrite[name]

    def _hold_back(self) -> None:
        """Wait for the rate limit, showing meanwhile that this worker lives."""
        while (seconds := self._throttle.wait_seconds(self.guide.rate())) > 0:
            self.guide.wait(min(seconds, 1.0))
            self._beat()

    # --- around it ---

    def _look_around(self) -> None:
        """Stop when told to, tell where things stand, and see that the source still keeps the changes."""
        self.guide.wait(0)
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self.guide.progress(self._control.tables())
        if self.options.follows and now >= self._next_log_check:
            self._next_log_check = now + _LOG_CHECK_SECONDS
            self._asked(lambda: self.source.check_log(self._start))

    def _beat(self) -> None:
        """Show that this worker lives, so that nobody takes over what it holds."""
        self.guide.wait(0)
        if time.monotonic() - self._beaten > _HEARTBEAT_SECONDS:
            self._session.commit([])
            self._beaten = time.monotonic()

    def _asked(self, question: Callable[[], T]) -> T:
        """The source's answer; a source that is away is asked again while this worker shows that it lives."""
        return retrying(question, noticed=self._note_retry, wait=self._wait)

    def _wait(self, seconds: float) -> None:
        self.guide.wait(seconds)
        self._beat()

    def _note_retry(self, failure: Transient) -> None:
        self.source_tally.retries += 1
        line = "reading is tried again: %s"
        self._repeats.log(_log, logging.WARNING, (failure.what, failure.where), line, failure)

    def _wait_or_raise(self, failure: Transient, delays: Iterator[float]) -> None:
        delay = next(delays, None)
        if delay is None:
            raise failure
        self._note_retry(failure)
        self._wait(delay)

    @contextlib.contextmanager
    def _stopping(self, name: str) -> Iterator[None]:
        """What cannot be carried stops its table; the others go on."""
        with lines_about(table=name):
            try:
                yield
            except Incompatible as error:
                self._stop_table(name, str(error))

    def _stop_table(self, name: str, message: str) -> None:
        _log.error("table %s is stopped: %s", name, message, extra={"table": name})
        self._control.set_table(name, "Stopped", message)


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed up to 32 MiB: freeing one large piece raises its limits (mallopt(3),
    M_MMAP_THRESHOLD).

    Otherwise every batch's buffers are given back to the kernel and faulted in again, which costs more than copying
    them.
    """
    bytes(16 << 20)


def _advanced(table: Table, progress: ChunkProgress, batch: Batch | None) -> ChunkProgress:
    """The progress once this batch is committed; None is the end of the chunk."""
    if batch is None:
        return replace(progress, done=True)
    return replace(progress, resume_after=bookmark_of(table, batch), rows=progress.rows + len(batch))


def _growing(first: float, longest: float) -> Iterator[float]:
    while True:
        yield first
        first = min(2 * first, longest)
