"""One client's session: units of its messages run against the backend, under Aurora DSQL's rules for transactions."""

from __future__ import annotations

import asyncio
import time

from whimbrel_testbed.dsql import refusals, wire
from whimbrel_testbed.dsql.backend import Backend, Reply, Sink
from whimbrel_testbed.dsql.classify import Kind, Statement
from whimbrel_testbed.dsql.client import COPY_MESSAGES, Client
from whimbrel_testbed.dsql.hub import Hub
from whimbrel_testbed.dsql.limits import CLIENT_SECONDS
from whimbrel_testbed.dsql.plan import Control, Local, Planner, Refuse, Step, Work
from whimbrel_testbed.dsql.refusals import Refusal, RefusedError
from whimbrel_testbed.dsql.transaction import Transaction, changed_rows

_CONFLICTS = frozenset({"40001", "40P01"})
_CANCELLED = "57014"
_LATE_SECONDS = 5.0

_EXISTS = frozenset({"42710", "42P06", "42P07"})


class CutError(ConnectionError):
    """The connection is cut on purpose."""


class AnsweredError(Exception):
    """The unit has failed, and the client's answer already holds the error."""


class Session:
    """A signed-in client and its backend connection."""

    def __init__(self, hub: Hub, client: Client, backend: Backend) -> None:
        self._hub, self._client, self._backend = hub, client, backend
        self.pid = backend.pid
        self.task: asyncio.Task[None] | None = None
        self._planner = Planner()
        self._transaction: Transaction | None = None
        self._lock = asyncio.Lock()
        self._busy_since = 0.0
        self._current: Statement | None = None
        self._skipping = False
        self._cancelled_at = float("-inf")
        self._catalogue_version = hub.catalogue_version

    # What the hub asks and orders.

    def busy_seconds(self) -> float:
        """How long the backend has been at a statement of this session; 0 where it is at none."""
        return time.monotonic() - self._busy_since if self._busy_since else 0.0

    def is_doomed(self) -> bool:
        """Whether this session's transaction will fail at its COMMIT."""
        return self._transaction is not None and self._transaction.doomed is not None

    def conflict(self) -> Refusal:
        """Return what a transaction in the way of this session's statement is told."""
        return refusals.OC001 if self._current and self._current.kind is Kind.DDL else refusals.OC000

    def cancelled(self) -> None:
        """Note that its statement is being cancelled for another's sake: that may come late, and hit the next one."""
        self._cancelled_at = time.monotonic()

    async def doom(self, reason: Refusal) -> bool:
        """Roll back this session's idle transaction for its locks; its COMMIT will fail. False where it is at work."""
        if self._lock.locked():
            return self._end_where_the_client_is_stuck()
        async with self._lock:
            transaction = self._transaction
            if transaction is None or not transaction.open:
                return False
            transaction.doomed = transaction.doomed or reason
            await self._roll_back(transaction)
        return True

    def _end_where_the_client_is_stuck(self) -> bool:
        """Cut a client that neither sends nor takes what its running statement needs."""
        stuck = self._client.waiting_seconds() > CLIENT_SECONDS
        if stuck:
            self.end()
        return stuck

    def end(self) -> None:
        """Cut the connection now."""
        if self.task:
            self.task.cancel()

    # Units and steps.

    async def run(self) -> None:
        """Serve the client until it leaves or is cut."""
        timer = asyncio.get_running_loop().call_later(self._hub.session_seconds(), self.end)
        try:
            while unit := await self._client.unit():
                await self._hub.unpaused()
                await self._run_unit(*unit)
        except RefusedError as refused:
            await self._client.stream(wire.error(refused.refusal))
        except CutError:
            self._hub.counters["cuts"] += 1
            self._client.abort()
        finally:
            timer.cancel()
            self._backend.close()

    async def _run_unit(self, end: bytes, messages: list[bytes]) -> None:
        if messages and not self._skipping:
            self._skipping = not await self._run_steps(self._planner.extended(messages))
        if end[0] == wire.QUERY:
            (text,), _ = wire.strings(end[5:], 1)
            self._skipping = not await self._run_steps(self._planner.query(text))
        elif end[0] == wire.FUNCTION_CALL:
            self._client.out += wire.error(refusals.unsupported("the function call protocol is not supported"))
        if end[0] != wire.FLUSH:
            await self._end_implicit()
            self._skipping = False
            self._client.out += wire.ready(self._status())
        await self._client.flush()

    async def _run_steps(self, steps: list[Step]) -> bool:
        """Run steps until one fails; False where one has failed."""
        try:
            for step in steps:
                await self._step(step)
        except AnsweredError:
            return False
        except RefusedError as refused:
            if refused.refusal.severity != "ERROR":
                raise
            if self._transaction:
                self._transaction.failed = True
                await self._abandon()
            self._refuse(refused.refusal)
            return False
        return True

    def _refuse(self, refusal: Refusal) -> None:
        if refusal == refusals.OC000:
            self._hub.counters["conflicts"] += 1
        self._client.out += wire.error(refusal)

    async def _step(self, step: Step) -> None:
        if isinstance(step, Local):
            self._client.out += step.data
        elif isinstance(step, Control):
            await self._control(step.statement)
        elif self._transaction and self._transaction.failed:
            raise RefusedError(refusals.ABORTED)
        elif isinstance(step, Refuse):
            raise RefusedError(step.refusal)
        else:
            await self._work(step)

    def _status(self) -> str:
        if self._transaction is None:
            return "I"
        return "E" if self._transaction.failed else "T"

    # Transactions.

    async def _control(self, statement: Statement) -> None:
        transaction = self._transaction
        tag = statement.tag
        if statement.kind is Kind.BEGIN:
            self._begin(statement)
        elif statement.kind is Kind.ROLLBACK:
            await self._abandon()
            self._transaction = None
        elif transaction is not None:
            tag = "ROLLBACK" if transaction.failed else tag
            refusal = await self._commit(transaction)
            if refusal:
                raise RefusedError(refusal)
        self._client.out += wire.complete(tag)

    def _begin(self, statement: Statement) -> None:
        if self._transaction is None:
            self._transaction = Transaction(explicit=True, begin=statement.text)
        elif self._transaction.failed:
            raise RefusedError(refusals.ABORTED)
        else:
            self._transaction.explicit = True

    async def _end_implicit(self) -> None:
        transaction = self._transaction
        if transaction is None or transaction.explicit:
            return
        refusal = await self._commit(transaction)
        if refusal:
            if self._client.last_complete >= 0:
                del self._client.out[self._client.last_complete :]
            self._refuse(refusal)

    async def _commit(self, transaction: Transaction) -> Refusal | None:
        """End the transaction: committed, or rolled back for the reason that is returned."""
        async with self._lock:
            refusal = None if transaction.failed else self._verdict(transaction)
            if refusal or transaction.failed:
                await self._roll_back(transaction)
            elif transaction.open:
                refusal = await self._commit_backend(transaction)
            self._transaction = None
        return refusal

    def _verdict(self, transaction: Transaction) -> Refusal | None:
        refusal = transaction.verdict(self._hub.limits) or (self._stale_catalogue() if transaction.wrote else None)
        if not refusal and transaction.wrote and self._hub.chance(self._hub.dials.conflict_rate):
            return refusals.OC000
        return refusal

    async def _commit_backend(self, transaction: Transaction) -> Refusal | None:
        if transaction.wrote and self._hub.draw("drop_before_commit"):
            await self._roll_back(transaction)
            raise CutError
        reply = await self._exchange(wire.command("COMMIT") + wire.SYNC_MESSAGE, wire.COMMAND_ANSWERS)
        if reply.error:
            return refusals.OC000 if self._conflicts(reply) else _refusal(reply.error)
        self._committed(transaction)
        if transaction.wrote and self._hub.draw("drop_after_commit"):
            raise CutError
        return None

    def _committed(self, transaction: Transaction) -> None:
        hub = self._hub
        if transaction.wrote or transaction.ddl:
            hub.counters["commits"] += 1
            hub.counters["rows"] += transaction.rows
        if transaction.ddl:
            hub.catalogue_version += 1
            self._catalogue_version = hub.catalogue_version
            hub.created(transaction.created)
        if transaction.job:
            hub.jobs.submitted()

    async def _abandon(self) -> None:
        if self._transaction:
            async with self._lock:
                await self._roll_back(self._transaction)

    async def _roll_back(self, transaction: Transaction) -> None:
        """Roll back on the backend (the lock is held)."""
        if transaction.open:
            reply = await self._exchange(wire.command("ROLLBACK") + wire.SYNC_MESSAGE, wire.COMMAND_ANSWERS)
            if reply.error:
                # A cancellation that came too late for its statement has hit the ROLLBACK.
                await self._exchange(wire.command("ROLLBACK") + wire.SYNC_MESSAGE, wire.COMMAND_ANSWERS)
            transaction.open = False

    def _stale_catalogue(self) -> Refusal | None:
        stale = self._catalogue_version < self._hub.catalogue_version
        self._catalogue_version = self._hub.catalogue_version
        if not (stale and self._hub.dials.oc001_after_ddl):
            return None
        self._hub.counters["stale_catalogues"] += 1
        return refusals.OC001

    # Statements.

    async def _work(self, step: Work) -> None:
        refusal = self._may_run(step)
        if refusal:
            raise RefusedError(refusal)
        if step.has(Kind.WAIT):
            await self._hub.jobs.finished()
        if self._transaction is None and step.takes_part:
            self._transaction = Transaction(explicit=False)
        self._current = step.statements[-1] if step.statements else None
        if self._transaction is not None:
            await self._in_transaction(self._transaction, step)
            return
        async with self._lock:
            reply = await self._exchange(step.payload, 0, self._sink(step))
        self._answer(step, reply)

    def _may_run(self, step: Work) -> Refusal | None:
        if step.copies and not self._hub.dials.copy_supported:
            return refusals.COPY
        if step.copies and not step.simple:
            return refusals.EXTENDED_COPY
        rules = (self._transaction.rule(statement) for statement in step.statements if self._transaction)
        return next(filter(None, rules), None) or (self._stale_catalogue() if step.statements else None)

    async def _in_transaction(self, transaction: Transaction, step: Work) -> None:
        async with self._lock:
            reply = await self._attempt(transaction, step)
            if self._conflicts(reply) and transaction.doomed is None and transaction.explicit and not reply.streamed:
                self._hub.counters["doomed"] += 1
                transaction.doomed = refusals.OC000
                await self._roll_back(transaction)
                reply = await self._attempt(transaction, step, again=True)
            if reply.copy_in:
                reply = await self._copy_in(transaction, reply)
            refusal = self._judge(transaction, step, reply)
            if refusal or reply.error:
                transaction.failed = True
                await self._roll_back(transaction)
        self._answer(step, reply, refusal)
        transaction.note(step)
        for statement, (_, tag) in zip(step.statements, reply.tags, strict=False):
            await self._hub.throttle(statement.table, changed_rows(statement, tag))

    async def _attempt(self, transaction: Transaction, step: Work, *, again: bool = False) -> Reply:
        """Send a step, behind BEGIN and what the transaction has done where the backend has no transaction open."""
        if transaction.doomed and not transaction.open and not (transaction.replayable and step.replayable):
            return Reply(error={"C": "40001"})
        front, skip = b"", 0
        if not transaction.open:
            closes = [wire.close_statement(name) for name in step.parsed] if again else []
            front = b"".join([wire.command(transaction.begin), *transaction.log, *closes])
            skip = wire.COMMAND_ANSWERS + transaction.log_answers + len(closes)
        transaction.open = True
        return await self._exchange(front + step.payload, skip, None if step.takes_part else self._sink(step))

    async def _copy_in(self, transaction: Transaction, reply: Reply) -> Reply:
        """Let the client's COPY data through (the lock is held)."""
        await self._stream(bytes(reply.data))
        while True:
            message = await self._client.message()
            if message is None:
                raise CutError
            if message[0] in COPY_MESSAGES:
                self._backend.write(message)
                await self._backend.drain()
            if message[0] == wire.COPY_DATA:
                transaction.size += len(message) - 5
            elif message[0] in COPY_MESSAGES:
                return await self._backend.collect()

    def _judge(self, transaction: Transaction, step: Work, reply: Reply) -> Refusal | None:
        """Count rows and bytes; return why the step fails though the backend took it, or what its error means here."""
        if reply.error and (transaction.doomed or self._conflicts(reply)):
            del reply.data[reply.error_at :]
            return transaction.doomed or refusals.OC000
        if reply.error and step.has(Kind.DDL) and _catalogue_race(step, reply.error):
            del reply.data[reply.error_at :]
            return refusals.OC001
        transaction.size += step.written_bytes
        for statement, (place, tag) in zip(step.statements, reply.tags, strict=False):
            transaction.rows += changed_rows(statement, tag)
            if transaction.rows > self._hub.limits.rows_per_transaction:
                del reply.data[place:]
                reply.tags = [known for known in reply.tags if known[0] < place]
                return refusals.ROW_LIMIT
        return None

    def _answer(self, step: Work, reply: Reply, refusal: Refusal | None = None) -> None:
        """Add the backend's answer to the client's; raises where it ends the unit."""
        data = bytes(reply.data)
        tag = step.statements[0].tag if step.statements else ""
        if tag and reply.tags:
            place, old = reply.tags[0]
            data = data[:place] + wire.complete(tag) + data[place + len(wire.complete(old)) :]
        shorter = data if reply.streamed or not step.simple else wire.without_extended(data)
        if reply.tags:
            self._client.last_complete = len(self._client.out) + reply.tags[-1][0] - (len(data) - len(shorter))
        self._client.out += shorter
        if refusal:
            raise RefusedError(refusal)
        if reply.error:
            raise AnsweredError

    async def _stream(self, data: bytes) -> None:
        await self._client.flush()
        await self._client.stream(data)

    def _sink(self, step: Work) -> Sink:
        """Return where a long answer goes while it arrives."""
        first = step.simple

        async def sink(data: bytes) -> None:
            nonlocal first
            await self._stream(wire.without_extended(data) if first else data)
            first = False

        return sink

    async def _exchange(self, payload: bytes, skip: int = 0, sink: Sink | None = None) -> Reply:
        """Send messages that end in a Sync or are a Query, and collect the answer (the lock is held)."""
        self._busy_since = time.monotonic()
        try:
            self._backend.write(payload)
            return await self._backend.collect(skip, sink)
        finally:
            self._busy_since = 0.0

    def _conflicts(self, reply: Reply) -> bool:
        """Whether another transaction was first: by PostgreSQL's word, or because it was given the way."""
        code = reply.error.get("C") if reply.error is not None else None
        by_us = time.monotonic() - self._cancelled_at < _LATE_SECONDS
        return code in _CONFLICTS or (code == _CANCELLED and by_us)


def _catalogue_race(step: Work, error: dict[str, str]) -> bool:
    """Whether two sessions' DDL has met in PostgreSQL's catalogue, which is no transaction conflict there."""
    if error.get("C") in _EXISTS:
        return any("IF NOT EXISTS" in statement.text.upper() for statement in step.statements)
    raced = error.get("C") == "XX000" and "concurrently" in error.get("M", "")
    return raced or (error.get("C") == "23505" and error.get("n", "").startswith("pg_"))


def _refusal(error: dict[str, str]) -> Refusal:
    return Refusal(error.get("C", "XX000"), error.get("M", "unknown error"), error.get("H", ""))
