"""Writes items to a DynamoDB target: many batches at once, each again until it is taken whole. No control row here.

Within one call no key is written twice, so the batches may go in any order. What is refused for its content is found
by halving the batch, so that the message names its table. Amazon DynamoDB API reference, "BatchWriteItem": items that
come back as UnprocessedItems are no error and must be written again with backoff.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Final

import orjson

from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused
from whimbrel_worker.endpoints.dynamodb.calls.pace import Pace, Units
from whimbrel_worker.endpoints.dynamodb.calls.retries import Throttled
from whimbrel_worker.endpoints.dynamodb.control.fence import Fence
from whimbrel_worker.endpoints.dynamodb.items.batches import Batch, Limits, batches_of, consumed
from whimbrel_worker.engine.fenced import succeeded
from whimbrel_worker.engine.ports import Tally, Write
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.errors import Incompatible, Transient, WorkerError
from whimbrel_worker.values.behaviour import Behaviour

_BEAT_SECONDS: Final = 2.0
_STALE_SECONDS: Final = 10.0
"""Sessions prove anew after five seconds, so that no healthy worker comes near."""
_LOOK_SECONDS: Final = 0.1
_CHECK_LOST: Final = "ConditionalCheckFailed"
_CANCELLED: Final = "TransactionCanceledException"
_NO_TABLE: Final = "ResourceNotFoundException"
_CONTENT: Final = frozenset(
    {"ValidationException", "RequestEntityTooLarge", "ItemCollectionSizeLimitExceededException", _CANCELLED}
)
_AGAIN: Final = Backoff(base=0.05, cap=5.0, attempts=60)
"""For batches of which nothing at all is taken: a few minutes."""
_TRANSACTION_PRICE: Final = 2
"""A transaction consumes twice the units (Developer Guide, "Capacity units")."""
_TRANSACTION_BYTES: Final = 3 << 20
"""A transaction holds 4 MB at most."""


class _Stale(Exception):
    """A request may not leave on a proof that is that old. Never leaves this module."""


class _Work:
    """The batches of one call, and when it was last proven that its worker may write. Safe for many threads.

    A process that was stopped for a while (SIGSTOP, a frozen node) finds its proof stale: it sends nothing more until
    it has a new one, or has learnt that it is succeeded.
    """

    def __init__(self, waiting: deque[Batch], proven_at: float | None) -> None:
        self.waiting, self.proven_at = waiting, proven_at
        self._given_up = threading.Event()

    def pop(self) -> Batch | None:
        """The next batch; None when there is none left."""
        try:
            return self.waiting.popleft()
        except IndexError:
            return None

    def give_up(self) -> None:
        """Nothing more is to be sent."""
        self.waiting.clear()
        self._given_up.set()

    def may_send(self) -> bool:
        """Whether to send another request; waits while the proof is stale."""
        while self._is_stale():
            if self._given_up.wait(_LOOK_SECONDS):
                break
        return not self._given_up.is_set()

    def require_proof(self) -> None:
        """Called right before a request leaves: the process may have stood still since `may_send`. Raises _Stale."""
        if self._is_stale():
            raise _Stale

    def _is_stale(self) -> bool:
        return self.proven_at is not None and time.monotonic() - self.proven_at > _STALE_SECONDS


class BatchWriter:
    """Implements engine.shard_ports.ItemWriter. Safe for many threads; `fence` makes every batch a checked transaction.

    Without a fence a copy of a request that was given up as lost may still arrive after a later write of the same key;
    no condition guards against that, only the comparison finds it.
    """

    def __init__(
        self, client: Client, behaviour: Behaviour, pace: Pace, units: Units, *, tally: Tally, fence: Fence | None
    ) -> None:
        self._client, self._pace, self._units, self._tally, self._fence = client, pace, units, tally, fence
        self._price = 1 if fence is None else _TRANSACTION_PRICE
        self._metered = behaviour.capacity and units.limited and fence is None
        self._limits = Limits(behaviour.batch_items, behaviour.batch_bytes)
        if fence is not None:
            self._limits = Limits(behaviour.transaction_items - 1, min(behaviour.batch_bytes, _TRANSACTION_BYTES))
        self._pool = ThreadPoolExecutor(pace.most, thread_name_prefix="write")
        self._counting, self._paying = threading.Lock(), threading.Lock()

    def write(self, writes: Sequence[Write], proof: Callable[[], float] | None = None) -> None:
        """All of it is in the target when this returns. Raises FencedOut, Incompatible (naming the table) or Transient.

        `proof` is called first and every few seconds: it sees that the worker may still write, and says when that was
        asked for (monotonic clock); what it raises ends the writing. Nothing is under way when this returns or raises.
        """
        work = _Work(deque(batches_of(writes, self._limits)), None if proof is None else proof())
        if len(work.waiting) == 1 and proof is None:
            self._pump(work)
            return
        pumps = [self._pool.submit(self._pump, work) for _ in range(min(self._pace.most, len(work.waiting)))]
        try:
            self._await(pumps, work, proof)
        finally:
            work.give_up()
            wait(pumps)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    @staticmethod
    def _await(pumps: Sequence[Future[None]], work: _Work, proof: Callable[[], float] | None) -> None:
        left = set(pumps)
        while left:
            done, left = wait(left, timeout=_BEAT_SECONDS, return_when=FIRST_EXCEPTION)
            for pump in done:
                pump.result()
            if left and proof is not None:
                work.proven_at = proof()

    def _pump(self, work: _Work) -> None:
        while (batch := self._next(work)) is not None:
            self._write(batch, work)

    def _next(self, work: _Work) -> Batch | None:
        """A batch that is paid for; one thread waits at a time, so that the limit makes no bursts."""
        if not self._units.limited:
            return work.pop()
        with self._paying:
            self._units.wait(self._client.stop)
            batch = work.pop()
            self._units.spend(0 if batch is None else batch.units * self._price)
            return batch

    def _write(self, batch: Batch, work: _Work) -> None:
        """Write a batch to the end; one that is refused for its content in halves, down to the item that is wrong."""
        try:
            self._write_whole(batch, work)
        except Refused as refusal:
            if refusal.code == _NO_TABLE:
                raise _no_table(batch, refusal) from None
            if refusal.code not in _CONTENT:
                raise
            if len(batch) == 1:
                raise _wrong_item(batch, refusal) from None
        else:
            self._count(batch)
            return
        for half in batch.halves():
            self._write(half, work)

    def _write_whole(self, batch: Batch, work: _Work) -> None:
        delays, left = _AGAIN.delays(), batch
        while True:
            if not work.may_send():
                raise Transient("the write was given up", where=batch.table.name)
            try:
                with self._pace.slot(self._client.stop):
                    rest = self._send(left, work)
            except _Stale:
                continue
            if not len(rest):
                return
            self._note_unprocessed()
            if len(rest) < len(left):
                delays = _AGAIN.delays()
            delay, left = next(delays, None), rest
            if delay is None or self._client.stop.wait(delay):
                raise _not_taken(batch, rest)

    def _send(self, batch: Batch, work: _Work) -> Batch:
        """What is still to be written after one request."""
        if self._fence is None:
            body = batch.body(metered=self._metered)
            reply = self._client.call("BatchWriteItem", body, heard=self._hear, allowed=work.require_proof)
            rest = batch.unprocessed(reply)
            if self._metered and (used := consumed(reply)) is not None:
                self._units.spend(used - (batch.units - rest.units))
            return rest
        self._transact(self._fence, batch)
        return Batch(batch.table)

    def _transact(self, fence: Fence, batch: Batch) -> None:
        """One checked transaction, again where the session changed its own row meanwhile. Raises FencedOut."""
        check = fence.check()
        while not self._transacted(batch.transaction(orjson.dumps(check))):
            before, check = check, fence.check()
            if check == before:
                raise succeeded(
                    self._client.where,
                    "the transaction's check of this worker's row did not hold, so nothing of it was written",
                )

    def _transacted(self, body: bytes) -> bool:
        """False where the check did not hold. Whole items may be put twice, so a lost reply is simply asked again."""
        try:
            retrying(lambda: self._client.call("TransactWriteItems", body, heard=self._hear), backoff=_AGAIN)
        except Refused as refusal:
            if refusal.code == _CANCELLED and refusal.reasons[:1] == (_CHECK_LOST,):
                return False
            raise
        return True

    def _hear(self, failure: Transient) -> None:
        if isinstance(failure, Throttled):
            self._pace.throttled()

    def _note_unprocessed(self) -> None:
        self._pace.throttled()
        with self._counting:
            self._tally.retries += 1
            self._tally.throttled += 1

    def _count(self, batch: Batch) -> None:
        with self._counting:
            self._tally.rows += len(batch)
            self._tally.bytes += batch.size


def _key_names(batch: Batch) -> str:
    return ", ".join(column.name for column in batch.table.key_columns)


def _no_table(batch: Batch, refusal: Refused) -> WorkerError:
    return Incompatible(
        f"the target has no table {batch.table.target_name} any more",
        where=batch.table.name,
        why=refusal.what,
        todo="see who removed it; begin a new migration for it, since what was copied is gone",
    )


def _wrong_item(batch: Batch, refusal: Refused) -> WorkerError:
    kind = "an item" if batch.items else "the removal of an item"
    return Incompatible(
        f"the target refuses {kind} of {batch.table.name}",
        where=batch.table.name,
        why=f"{refusal.why or refusal.what} (key attributes: {_key_names(batch)}; {batch.size} bytes)",
        todo="find it by a comparison (kind Validation), whose file of differences names its key; correct or remove "
        "it, or exclude the table",
    )


def _not_taken(batch: Batch, rest: Batch) -> Transient:
    return Transient(
        f"the target gives back items of {batch.table.name} as unprocessed again and again",
        where=batch.table.name,
        why=f"{len(rest)} of {len(batch)} items of a batch are still to be written",
        todo="raise the table's write capacity or lower the limits; it is tried again",
    )
