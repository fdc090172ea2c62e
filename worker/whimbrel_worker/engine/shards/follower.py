"""One worker of a sharded stream: claims its share of the shards, has them read, finds new ones, gives back lost ones.

Threads: the pool's, which read and write; one that looks at the control table, beats and claims; one that lists
streams. The first error of any ends the work of all and is raised by `check`.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from whimbrel_worker.engine.ports import Session
from whimbrel_worker.engine.shard_ports import Holder, ShardReader, ShardRef, ShardRow, ShardTaker
from whimbrel_worker.engine.shards.discovery import Discovery
from whimbrel_worker.engine.shards.lag import least_proven
from whimbrel_worker.engine.shards.lineage import inherited, is_open, parent_refs, readable
from whimbrel_worker.engine.shards.pool import Pool
from whimbrel_worker.engine.shards.reading import Reading, Terms
from whimbrel_worker.engine.shards.sharing import Sharing
from whimbrel_worker.engine.shards.tables import Followed
from whimbrel_worker.errors import Transient

_LOG = logging.getLogger(__name__)
LOST_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.5
_LOOK_SHARE: Final = 10.0
"""Looking at all rows takes at most one part in so many of the time."""
_BEAT_SECONDS: Final = 5.0
_CLOCK_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """`index` among `workers()`; `base`: the start of the copy on the source's clock; `keep_ttl`: see batch."""

    index: int
    workers: Callable[[], int]
    base: float
    keep_ttl: bool = True
    threads: int = 16


class Follower:
    """`session` holds the worker's control row already, at `attempt`."""

    def __init__(
        self, source: ShardReader, target: ShardTaker, followed: Followed, options: Options, *,
        session: Session, attempt: int, notice: Callable[[Transient], None],
    ) -> None:  # fmt: skip
        self._source, self._store, self._session = source, target.shards(), session
        self._followed, self.options, self._notice = followed, options, notice
        self._holder = Holder(options.index, attempt)
        self._sharing = Sharing(options.index)
        self._pool = Pool(options.threads, self._ended, self._fail)
        self._discovery = Discovery(
            source, self._store, followed, rows=lambda: self._rows, found=self._wake, notice=notice,
            workers=options.workers,
        )  # fmt: skip
        self._terms = Terms(
            source, self._store, target.writer(), self._holder, options.keep_ttl, notice, self._discovery.stops_gone
        )
        self._rows: Sequence[ShardRow] = ()
        self._orphans: set[ShardRef] = set()
        self._stopping, self._look_now = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._offset = 0.0
        self._clock_due = self._beat_due = 0.0
        self._watchers: list[threading.Thread] = []

    def start(self) -> None:
        """Give back what this index held in an earlier life, and begin."""
        self._store.release(self._holder)
        self._rows = self._store.all()
        for name, work in (("sharing", self._share), ("discovery", lambda: self._discovery.run(self._stopping))):
            thread = threading.Thread(target=self._guard, args=(work,), name=name, daemon=True)
            self._watchers.append(thread)
            thread.start()

    def check(self) -> None:
        """Raise what ended a thread, if anything did."""
        if self._error is not None:
            raise self._error

    def finish(self) -> bool:
        """Do the pages that are under way, begin none, and give all shards back. Whether all of it was done."""
        self._stopping.set()
        self._look_now.set()
        ended = self._pool.finish()
        for thread in self._watchers:
            thread.join(_BEAT_SECONDS)
        ended = ended and not any(thread.is_alive() for thread in self._watchers)
        if ended and self._error is None:
            self._give_back()
        return ended

    def _give_back(self) -> None:
        """Where it fails, the next attempt of this index does it, or another worker after a while."""
        for reading in self._pool.readings():
            reading.close()
        try:
            self._store.release(self._holder)
        except Transient as failure:
            self._notice(failure)

    def hurry(self, urgent: bool) -> None:
        """Ask idle shards as often as is allowed (or no longer)."""
        if urgent and not self._terms.hurry:
            self._pool.hasten()
        self._terms.hurry = urgent

    def rows(self) -> Sequence[ShardRow]:
        """The rows of all followed tables: as this worker's own shards stand, the others by the last look."""
        own = {reading.ref: reading.row for reading in self._pool.readings()}
        return self._followed.of([own.get(row.ref, row) for row in self._rows])

    def now(self) -> float:
        """The source's clock, in seconds since 1970."""
        return time.time() + self._offset

    @property
    def offset(self) -> float:
        """How far the source's clock is ahead of this worker's, in seconds."""
        return self._offset

    # The thread that looks at the control table

    def _share(self) -> None:
        while not self._stopping.is_set():
            self._look_now.clear()
            began = time.monotonic()
            try:
                self._look()
            except Transient as failure:
                self._notice(failure)
            took = time.monotonic() - began
            self._look_now.wait(max(_LOOK_SECONDS, _LOOK_SHARE * took))

    def _look(self) -> None:
        self._set_clock()
        self._beat()
        self._rows = self._store.all()
        rows = self.rows()
        known = {row.ref: row for row in rows}
        wishes = self._sharing.wishes(self._certainly_readable(rows, known), self.options.workers())
        for row in wishes.give:
            self._pool.drop(row.ref)
        for row in wishes.take:
            if self._stopping.is_set():
                return
            self._claim(row, inherited(row, known))
        self._terms.held = len(self._pool.readings())
        self._drop_stopped()

    def _certainly_readable(self, rows: Sequence[ShardRow], known: Mapping[ShardRef, ShardRow]) -> list[ShardRow]:
        """The rows that can be read now. One without a parent's row counts from the second look on.

        Rows are read page by page: of two that are added meanwhile, parents first, only the child may be seen.
        """
        before = self._orphans
        self._orphans = {row.ref for row in rows if any(parent not in known for parent in parent_refs(row))}
        return [row for row in readable(rows) if row.ref not in self._orphans or row.ref in before]

    def _claim(self, row: ShardRow, proven: float) -> None:
        table = self._followed.get(row.ref.table)
        if table is None or self._pool.holds(row.ref) or not self._store.claim(row, self._holder):
            return
        proven = max(row.read_to, proven)
        held = replace(row, owner=self._holder.index, attempt=self._holder.attempt, read_to=proven)
        self._pool.add(Reading(table, held, self._terms, self._followed.stop))

    def _drop_stopped(self) -> None:
        for reading in self._pool.readings():
            if self._followed.get(reading.ref.table) is None:
                self._pool.drop(reading.ref)

    def _beat(self) -> None:
        """Show that this worker lives, see that it still may, and give back what dead ones hold."""
        for reading in self._pool.readings():
            reading.beat()
        if time.monotonic() < self._beat_due:
            return
        self._beat_due = time.monotonic() + _BEAT_SECONDS
        least = least_proven(self.rows(), self.now(), self.options.base)
        self._session.commit([], position=self._source.moment(least))
        lost = self._store.release_lost(LOST_SECONDS)
        if lost:
            _LOG.warning("%d shards were given back: their workers have not written for %.0f s", lost, LOST_SECONDS)

    def _set_clock(self) -> None:
        if time.monotonic() < self._clock_due:
            return
        before = time.time()
        self._offset = self._source.clock() - (before + time.time()) / 2
        self._clock_due = time.monotonic() + _CLOCK_SECONDS

    # What the threads have in common

    def _wake(self) -> None:
        self._look_now.set()

    def _ended(self, reading: Reading) -> None:
        """A shard has left the pool."""
        row = reading.row
        if not is_open(row):
            self._rows = [row if known.ref == row.ref else known for known in self._rows]
            self._discovery.ended(row.ref)
        self._wake()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed to the task, which raises it
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._stopping.set()
        self._look_now.set()
