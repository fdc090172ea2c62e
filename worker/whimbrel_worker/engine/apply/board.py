"""Where the one thread that reads the log meets the lanes that write: batches, bounds, positions. No I/O, no threads.

The reader puts changes into each lane's open batch; a lane takes it when it is full, old enough, or wanted at once. A
full batch is sealed while its lane is still busy; the reader waits when too much is pending, so memory is bounded
whatever a source transaction's size.

A batch is closed with the position of the last source transaction that was read to its end: all that this transaction
and those before it changed in the lane is in this batch or an earlier one. A transaction that is cut into several
batches therefore moves the position at its end only.

After a start the lanes may stand at different positions. The log is read again from the least one, and each lane passes
over the transactions that its own position holds, until all have met.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from whimbrel_worker.engine.apply.batch import Batch
from whimbrel_worker.engine.apply.plan import ORDERED_LANE, TablePlan
from whimbrel_worker.engine.ports import PositionTracker
from whimbrel_worker.values.columns import Row

_MEETING_INTERVAL = 256
_POLL_SECONDS = 0.02
_HURRY_SECONDS = 0.03
"""Batches of single changes would only slow a backlog down."""
_IDLE_FACTOR = 10
_ADVANCE_SECONDS = 1.0
"""How old an idle lane's position may get while any of the tables changes."""


class Closed(Exception):
    """Another thread has ended the work."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a batch, of all that is pending, and times in seconds."""

    batch_rows: int
    batch_bytes: int
    flush: float
    checkpoint: float
    pending_rows: int = 40_000
    pending_bytes: int = 24_000_000
    sealed: int = 2


@dataclass(slots=True, eq=False)
class Lane:
    """One lane's batches and how far it is."""

    index: int
    tracker: PositionTracker
    wakeup: threading.Condition
    written: str = ""
    filling: Batch = field(default_factory=Batch)
    sealed: deque[Batch] = field(default_factory=deque)
    in_flight: Batch | None = None
    committed_at: float = 0.0

    def pending(self) -> Iterable[Batch]:
        """All batches that hold changes which are not in the target yet."""
        yield from (batch for batch in (self.in_flight, *self.sealed, self.filling) if batch and batch.changes)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is. Times are commit times on the source, in seconds since 1970; None where there is none."""

    oldest_pending: float | None
    newest_routed: float | None
    newest_applied: float | None
    changes_applied: int


class Board:
    """The meeting place. `begin`, `change`, `end` belong to the reader; `take` and `done` to the lanes."""

    def __init__(
        self, limits: Limits, tracker: PositionTracker, lanes: Sequence[tuple[PositionTracker, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`tracker` follows the log; each lane comes with its own tracker and the position that its row holds."""
        self._limits, self._clock = limits, clock
        self._lock = threading.Lock()
        self._space = threading.Condition(self._lock)
        self.lanes = [
            Lane(index, own, threading.Condition(self._lock), written=held, committed_at=clock())
            for index, (own, held) in enumerate(lanes)
        ]
        self._tracker = tracker
        self._trackers = [tracker, *(lane.tracker for lane in self.lanes)]
        self._meeting = True
        self._version = 0
        self._texts: dict[int, tuple[int, str]] = {}
        self._skip: frozenset[int] = frozenset()
        self._open_since: float | None = None
        self._changed_at = float("-inf")
        self._routed: float | None = None
        self._applied: float | None = None
        self._changes = 0
        self._pending_rows = self._pending_bytes = 0
        self._pressed = self._urgent = self._finishing = self._closed = False
        self._meet()

    # The reader's side

    def begin(self, transaction: str, committed_at: float) -> None:
        """A source transaction starts."""
        self._open_since = committed_at
        if self._meeting:
            self._skip = frozenset(lane.index for lane in self.lanes if lane.tracker.contains(transaction))

    def change(self, plan: TablePlan, rows: Sequence[tuple[Row | None, Row | None]]) -> None:
        """Changes of the open transaction to one table; waits while too much is pending."""
        with self._lock:
            while self._crowded() and not self._closed:
                self._space.wait()
            self._changed_at = self._clock()
            for before, after in rows:
                self._route(plan, before, after)

    def _route(self, plan: TablePlan, before: Row | None, after: Row | None) -> None:
        key_of = plan.key_of
        if after is None:
            if before is not None:
                self._put(plan, key_of(before), None, released=plan.unique_of is not None)
            return
        key = key_of(after)
        released = False
        if before is not None:
            old = key_of(before)
            if old != key:
                self._put(plan, old, None, released=plan.unique_of is not None)
            elif plan.unique_of is not None:
                released = plan.unique_of(before) != plan.unique_of(after)
        self._put(plan, key, after, released=released)

    def _put(self, plan: TablePlan, key: object, row: Row | None, *, released: bool) -> None:
        index = plan.lane_of(key)
        if index in self._skip:
            return
        lane = self.lanes[index]
        batch = lane.filling
        if batch.rows + 1 >= self._limits.batch_rows or batch.bytes >= self._limits.batch_bytes:
            self._seal(lane)
            batch = lane.filling
        rows, size = batch.rows, batch.bytes
        batch.put(plan, key, row)
        if released:
            batch.release(plan, key)
        self._pending_rows += batch.rows - rows
        self._pending_bytes += batch.bytes - size
        batch.newest = self._open_since or 0.0
        batch.changes += 1
        if batch.changes == 1:
            batch.oldest, batch.since = batch.newest, self._clock()
            lane.wakeup.notify()

    def _seal(self, lane: Lane) -> None:
        """Close the full batch and wait until there is room for another one."""
        lane.filling.position = self._position(lane)
        lane.sealed.append(lane.filling)
        lane.filling = Batch()
        lane.wakeup.notify()
        while not self._closed and (len(lane.sealed) > self._limits.sealed or self._crowded()):
            self._space.wait()
        if self._closed:
            raise Closed

    def _crowded(self) -> bool:
        """Whether the reader must wait; then no lane waits for its time."""
        crowded = self._pending_rows > self._limits.pending_rows or self._pending_bytes > self._limits.pending_bytes
        if crowded and not self._pressed:
            self._wake_lanes()
        self._pressed = crowded
        return crowded

    def end(self, transaction: str) -> None:
        """The open transaction is complete: positions may move over it."""
        with self._lock:
            for tracker in self._trackers:
                tracker.add(transaction)
            self._version += 1
            self._routed, self._open_since = self._open_since, None
            if self._meeting and self._version % _MEETING_INTERVAL == 0:
                self._meet()
            self._cut_ordered()

    def _cut_ordered(self) -> None:
        """Seal the ordered lane's batch here when the next transaction might have to be cut to fit into it."""
        lane = self.lanes[ORDERED_LANE]
        batch, limits = lane.filling, self._limits
        if 2 * batch.rows >= limits.batch_rows or 2 * batch.bytes >= limits.batch_bytes:
            self._seal(lane)

    def _meet(self) -> None:
        """Let all lanes share the log's own tracker once they stand where it stands."""
        texts = [str(tracker) for tracker in self._trackers]
        if all(text == texts[0] for text in texts):
            self._trackers, self._skip, self._meeting = [self._tracker], frozenset(), False
            for lane in self.lanes:
                lane.tracker = self._tracker

    # The lanes' side

    def take(self, index: int) -> Batch | None:
        """Wait for work: a batch, or an empty one that only moves the position; None when all is written at the end."""
        lane = self.lanes[index]
        with self._lock:
            while not self._closed:
                if lane.sealed:
                    return self._hand_out(lane, lane.sealed.popleft())
                wait = self._wait(lane)
                if wait is None:
                    return None
                if wait <= 0:
                    return self._hand_out(lane, self._cut(lane))
                lane.wakeup.wait(wait)
        raise Closed

    def _cut(self, lane: Lane) -> Batch:
        batch, lane.filling = lane.filling, Batch()
        batch.position = self._position(lane)
        return batch

    def _hand_out(self, lane: Lane, batch: Batch) -> Batch:
        lane.in_flight = batch
        self._space.notify()
        return batch

    def _wait(self, lane: Lane) -> float | None:
        """Seconds until the lane's open batch is due; None when the lane has nothing left to do for ever."""
        now = self._clock()
        if lane.filling.changes:
            if self._finishing:
                return 0
            if lane.index == ORDERED_LANE and self._open_since is not None:
                return _POLL_SECONDS
            hurry = self._urgent or self._pressed
            return lane.filling.since + (min(_HURRY_SECONDS, self._limits.flush) if hurry else self._limits.flush) - now
        if self._finishing or self._urgent:
            if self._position(lane) != lane.written:
                return 0
            return None if self._finishing else _POLL_SECONDS
        return self._until_checkpoint(lane, now)

    def _until_checkpoint(self, lane: Lane, now: float) -> float:
        """An idle lane writes its position now and then, and rarely though it has not moved: a fenced one finds out.

        While others of the tables change, that is within a second: comparisons wait until all lanes are there.
        """
        active = now - self._changed_at < self._limits.checkpoint
        advance = min(_ADVANCE_SECONDS, self._limits.checkpoint) if active else self._limits.checkpoint
        due = lane.committed_at + advance
        if now < due:
            return due - now
        if self._position(lane) != lane.written:
            return 0
        last = lane.committed_at + _IDLE_FACTOR * self._limits.checkpoint
        return min(last - now, max(_POLL_SECONDS, min(_ADVANCE_SECONDS, advance) / 4))

    def done(self, index: int) -> None:
        """The batch that the lane took is in the target."""
        lane = self.lanes[index]
        with self._lock:
            batch, lane.in_flight = lane.in_flight, None
            if batch is None:
                raise RuntimeError(f"lane {index} has written a batch that it never took")
            lane.written, lane.committed_at = batch.position, self._clock()
            self._pending_rows -= batch.rows
            self._pending_bytes -= batch.bytes
            self._changes += batch.changes
            if batch.changes:
                self._applied = max(self._applied or 0.0, batch.newest)
            self._space.notify()

    def _position(self, lane: Lane) -> str:
        """The lane's position as text, made once for each position."""
        version, text = self._texts.get(id(lane.tracker), (-1, ""))
        if version != self._version:
            text = str(lane.tracker)
            self._texts[id(lane.tracker)] = (self._version, text)
        return text

    # Everybody's side

    def position(self) -> str:
        """How far the log has been read, in whole transactions."""
        with self._lock:
            return str(self._tracker)

    def written(self) -> list[str]:
        """The positions that the lanes' rows hold in the target."""
        with self._lock:
            return [lane.written for lane in self.lanes]

    @property
    def between_transactions(self) -> bool:
        """Whether the reader stands at the end of a source transaction."""
        return self._open_since is None

    def progress(self) -> Progress:
        """How far the work is."""
        with self._lock:
            oldest = [batch.oldest for lane in self.lanes for batch in lane.pending()]
            if self._open_since is not None:
                oldest.append(self._open_since)
            return Progress(min(oldest, default=None), self._routed, self._applied, self._changes)

    def hurry(self, urgent: bool) -> None:
        """Write everything at once and keep positions fresh (or no longer)."""
        with self._lock:
            if urgent and not self._urgent:
                self._wake_lanes()
            self._urgent = urgent

    def finish(self) -> None:
        """Nothing more will be put: the lanes write what there is and their positions, then end."""
        with self._lock:
            self._finishing = True
            self._wake_lanes()

    def close(self) -> None:
        """End the work now; everybody who waits here gets Closed."""
        with self._lock:
            self._closed = True
            self._wake_lanes()
            self._space.notify_all()

    def _wake_lanes(self) -> None:
        for lane in self.lanes:
            lane.wakeup.notify_all()
