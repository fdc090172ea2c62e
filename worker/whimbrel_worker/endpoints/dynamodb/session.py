"""A session on a DynamoDB target: items first, then one control row by a condition, then the chunk's. No request to
write items stands here.

There is no transaction over items and control rows, so the order carries the promise: a position or a chunk's
progress never speaks of items that are not in the target. Whatever dies in between, the successor writes the same
items again, whole and by key, which changes nothing.

What a crash leaves: after the items – progress behind them, they are written again; after the worker's row and before
the chunk's – the same; a chunk's progress is guarded by its holder and never goes back.

The window that remains without `fencedWrites`: a worker that is stopped after it saw that it holds its row, and goes on
when a successor has it, still sends what it was sending. Proof of holding the row is asked for again after
`_PROOF_SECONDS`, and no batch leaves on a proof older than the writer allows, so one that was away for longer writes at
most those requests (16 batches); one that was away for less, at most the batches of one page. What it writes is what
the source held when it read; the final comparison reads every item and finds one that went back. With `fencedWrites`
every batch is a transaction that checks the row, and nothing remains.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from whimbrel_worker.endpoints.dynamodb.control.chunks import update_chunk
from whimbrel_worker.endpoints.dynamodb.control.control_rows import ControlTable
from whimbrel_worker.endpoints.dynamodb.control.fence import Fence
from whimbrel_worker.endpoints.dynamodb.control.worker_rows import WorkerRow, advance, beat, retake_row, take_row
from whimbrel_worker.endpoints.dynamodb.items.writer import BatchWriter
from whimbrel_worker.engine.ports import ChunkProgress, Identity, SessionState, Tally, Write
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.errors import FencedOut, Transient
from whimbrel_worker.failpoints import reach

_log = logging.getLogger(__name__)
_PROOF_SECONDS: Final = 5.0
_RETAKE_STEPS: Final = (2, 1 << 20)
"""How far a worker that resolves a lost reply raises its attempt: by a number that no other worker will."""
_TRIES: Final = 5


def _nothing() -> None:
    pass


class ItemSession:
    """Implements ports.Session for DynamoDB targets; `epoch` is the one the operator gave this worker.

    `alive` is called in the committing thread before a write and every few seconds of it; what it raises ends the
    write.
    """

    def __init__(
        self, control: ControlTable, writer: BatchWriter, fence: Fence, identity: Identity, *, epoch: int, tally: Tally
    ) -> None:
        self.tally = tally
        self.alive: Callable[[], None] = _nothing
        self._control, self._writer, self._fence, self._identity = control, writer, fence, identity
        self._epoch = epoch
        self._row: WorkerRow | None = None
        self._proven_at = 0.0

    def take(self) -> SessionState:
        """Take the row as (epoch, attempt + 1)."""
        asked_at = time.monotonic()
        row = retrying(lambda: take_row(self._control, self._identity, self._epoch), noticed=self._notice)
        self._hold(row, asked_at)
        return SessionState(row.epoch, row.attempt, row.position)

    def commit(
        self, writes: Sequence[Write], *, position: str | None = None, progress: ChunkProgress | None = None
    ) -> None:
        """Write all of it, then the control rows; parts that are written again on the way change nothing."""
        row = self._held()
        if writes:
            self._writer.write(writes, self._prove)
        reach(f"{self._identity.task}.before_commit")
        self._advance(row.position if position is None else position)
        if progress is not None:
            reach(f"{self._identity.task}.before_progress")
            self._record(progress)
        reach(f"{self._identity.task}.after_commit")
        self.tally.transactions += 1

    def prove(self, patience: Backoff | None = None) -> None:
        """See that the row is still held, now. Raises FencedOut otherwise, Transient when the patience has ended."""
        self._proven_at = float("-inf")
        self._proof(patience)

    def close(self) -> None:
        """End the session; the row stays."""
        self._fence.let_go(self._identity)

    def _held(self) -> WorkerRow:
        if self._row is None:
            raise FencedOut("the session writes before it took its control row", where=str(self._identity))
        return self._row

    def _hold(self, row: WorkerRow, asked_at: float) -> None:
        self._row, self._proven_at = row, asked_at
        self._fence.hold(self._identity, row)

    def _prove(self) -> float:
        """See that the row is still held, and beat, unless that was proven a moment ago. When proof was asked for.

        The moment of asking counts, by the monotonic clock: the process may be stopped right after the answer.
        """
        self.alive()
        return self._proof()

    def _proof(self, patience: Backoff | None = None) -> float:
        asked_at = time.monotonic()
        if asked_at - self._proven_at > _PROOF_SECONDS:
            retrying(lambda: beat(self._control, self._identity, self._held()), backoff=patience, noticed=self._notice)
            self._proven_at = asked_at
        return self._proven_at

    def _advance(self, position: str) -> None:
        """Move the row on by one, whichever try does it; a reply that is lost is resolved by a new attempt."""
        sequence = self._held().sequence + 1
        for _ in range(_TRIES):
            asked_at = time.monotonic()
            if (row := self._try_advance(position)) is not None:
                self._hold(row, asked_at)
                return
            self._resolve()
            if self._held().sequence >= sequence:
                _log.debug("a lost reply was resolved: the control row had moved on (%s)", self._identity)
                return
        raise Transient("the control row does not move on", where=str(self._identity), todo="it is tried again")

    def _try_advance(self, position: str) -> WorkerRow | None:
        try:
            return advance(self._control, self._identity, self._held(), position)
        except Transient as failure:
            self._notice(failure)
            return None

    def _resolve(self) -> None:
        """Take a new attempt, which makes a late copy of the old call fail, and see what the row holds."""
        held, asked_at = self._held(), time.monotonic()
        step = random.randrange(*_RETAKE_STEPS)  # noqa: S311 - tells workers apart, guards nothing
        with self._fence.changing():
            row = retrying(lambda: retake_row(self._control, self._identity, held, step), noticed=self._notice)
            self._hold(row, asked_at)

    def _record(self, progress: ChunkProgress) -> None:
        attempt = self._held().attempt
        retrying(lambda: update_chunk(self._control, self._identity, attempt, progress), noticed=self._notice)

    def _notice(self, failure: Transient) -> None:
        self.tally.retries += 1
        _log.debug("trying again: %s", failure)
