"""A fenced session: one connection, one control row, transactions that happen exactly once. No statement stands here.

Every transaction UPDATEs the session's own row WHERE epoch, attempt and sequence are the ones it holds; anything but
one row means that a successor has it. When the reply to COMMIT is lost the session takes a new attempt, which makes a
late commit of the old one fail, and then reads the sequence: only then it is known whether the transaction happened.
"""

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psycopg

from whimbrel_worker.endpoints.postgres import statements
from whimbrel_worker.endpoints.postgres.chunks import update_chunk
from whimbrel_worker.endpoints.postgres.connector import Connector, Kept
from whimbrel_worker.endpoints.postgres.failures import guarded, translate
from whimbrel_worker.endpoints.postgres.worker_rows import WorkerRow, advance, retake_row, take_row
from whimbrel_worker.engine.ports import ChunkProgress, Identity, Profile, SessionState, Tally, Write
from whimbrel_worker.engine.retry import retrying
from whimbrel_worker.errors import Conflict, FencedOut, Transient
from whimbrel_worker.failpoints import reach
from whimbrel_worker.libpq import Connection, lost

T = TypeVar("T")
_log = logging.getLogger(__name__)
_RETAKE_STEPS = (2, 1 << 20)
"""How far a worker that resolves a lost reply raises its attempt: by a number that no other worker will."""


class _OutcomeUnknown(Exception):
    """The connection ended during COMMIT."""


@dataclass(frozen=True, slots=True)
class _Work:
    writes: Sequence[Write]
    position: str
    progress: ChunkProgress | None


class FencedSession:
    """Implements ports.Session for targets that speak PostgreSQL's protocol."""

    def __init__(
        self, connector: Connector, profile: Profile, identity: Identity, *, epoch: int, write_path: str, tally: Tally
    ) -> None:
        self.tally = tally
        self._connector, self._profile, self._identity = connector, profile, identity
        self._epoch, self._path = epoch, write_path
        self._kept = Kept(connector, profile.connection_max_age, self._connected)
        self._row: WorkerRow | None = None

    def take(self) -> SessionState:
        """Take the row as (epoch, attempt + 1)."""
        row = self._again(lambda: take_row(self._kept.get(), self._identity, self._epoch))
        self._row = row
        return SessionState(row.epoch, row.attempt, row.position)

    def commit(
        self, writes: Sequence[Write], *, position: str | None = None, progress: ChunkProgress | None = None
    ) -> None:
        """Write all of it with the control row in one transaction, exactly once."""
        row = self._held()
        work = _Work(writes, row.position if position is None else position, progress)
        self._again(lambda: self._attempt(work, row.sequence + 1))
        self.tally.transactions += 1

    def close(self) -> None:
        """Close the connection; the row stays."""
        self._kept.close()

    def _held(self) -> WorkerRow:
        if self._row is None:
            raise FencedOut("the session writes before it took its control row", where=str(self._identity))
        return self._row

    def _attempt(self, work: _Work, sequence: int) -> None:
        """One try. `sequence` is what the row holds once the work is done, whichever try did it."""
        if self._held().sequence >= sequence:
            return
        connection = self._kept.get()
        try:
            rows, size = self._transaction(connection, work)
        except _OutcomeUnknown:
            self._resolve(sequence)
            return
        except BaseException:
            self._abandon(connection)
            raise
        self.tally.rows += rows
        self.tally.bytes += size

    def _transaction(self, connection: Connection, work: _Work) -> tuple[int, int]:
        rows = size = 0
        connection.execute("BEGIN")
        for write in work.writes:
            count, length = self._write(connection, write)
            rows, size = rows + count, size + length
        if work.progress is not None:
            update_chunk(connection, self._identity, self._held().attempt, work.progress)
        advanced = advance(connection, self._identity, self._held(), work.position)
        reach(f"{self._identity.task}.before_commit")
        self._commit(connection)
        self._row = advanced
        reach(f"{self._identity.task}.after_commit")
        return rows, size

    def _write(self, connection: Connection, write: Write) -> tuple[int, int]:
        try:
            return statements.execute(connection, write, self._path)
        except psycopg.Error as error:
            raise translate(error, write.table.name) from None

    def _commit(self, connection: Connection) -> None:
        try:
            cursor = connection.execute("COMMIT")
        except psycopg.Error as error:
            if lost(error) or connection.closed:
                raise _OutcomeUnknown from None
            raise translate(error, "COMMIT") from None
        if cursor.statusmessage != "COMMIT":
            raise Transient("the target rolled a transaction back at its COMMIT", where=str(self._identity))

    def _resolve(self, sequence: int) -> None:
        """Take a new attempt, then see whether the transaction happened; if it did not it is to be repeated."""
        self.close()
        self.tally.retries += 1
        held, step = self._held(), random.randrange(*_RETAKE_STEPS)  # noqa: S311 - tells workers apart, guards nothing
        self._row = self._again(lambda: retake_row(self._kept.get(), self._identity, held, step))
        if self._held().sequence < sequence:
            raise Transient("the connection ended during COMMIT and the transaction did not happen")
        _log.debug("a lost reply to COMMIT was resolved: the transaction had happened (%s)", self._identity)

    def _abandon(self, connection: Connection) -> None:
        if connection.closed or connection.broken:
            self.close()
            return
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            self.close()

    def _again(self, action: Callable[[], T]) -> T:
        def guarded_action() -> T:
            with guarded(self._connector.where):
                return action()

        return retrying(guarded_action, noticed=self._notice)

    def _notice(self, failure: Transient) -> None:
        self.tally.retries += 1
        self.tally.conflicts += isinstance(failure, Conflict)
        _log.debug("trying again: %s", failure)

    def _connected(self) -> None:
        self.tally.connections += 1
