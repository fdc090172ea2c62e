"""The control rows of workers: taken by compare-and-set, advanced in every transaction. The fence itself.

A SELECT does not fence under snapshot isolation; the UPDATE does, because two of them on one row conflict.
"""

from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from whimbrel_worker.endpoints.postgres.names import control_table
from whimbrel_worker.engine.fenced import epoch_over, succeeded
from whimbrel_worker.engine.ports import Identity
from whimbrel_worker.errors import Conflict, FencedOut
from whimbrel_worker.libpq import Connection

_WORKERS = control_table("workers")
_MIGRATIONS = control_table("migrations")


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A control row as its holder knows it."""

    epoch: int
    attempt: int
    sequence: int
    position: str


def take_row(connection: Connection, identity: Identity, epoch: int) -> WorkerRow:
    """Take the row as (epoch, attempt + 1), made if missing. Raises FencedOut when the epoch has moved on."""
    with connection.transaction():
        _require_epoch(connection, identity, epoch)
        found = _select(connection, identity)
        if found is not None:
            return _raise(connection, identity, epoch, found)
        _hold_epoch(connection, identity, epoch)
        return _insert(connection, identity, epoch)


def retake_row(connection: Connection, identity: Identity, held: WorkerRow, step: int) -> WorkerRow:
    """Take a new attempt of the caller's own row, `step` higher. Raises FencedOut when it is a successor's by now.

    Who asks what became of a COMMIT must not take the row away from a successor. The reply to this can get lost too:
    repeated with the same step, which no other worker takes, it knows its own attempt again.
    """
    with connection.transaction():
        _require_epoch(connection, identity, held.epoch)
        found = _select(connection, identity)
        if found is not None and found[1] == held.attempt + step:
            return WorkerRow(*found)
        if found is None or found[1] != held.attempt:
            raise _succeeded(identity, held)
        return _raise(connection, identity, held.epoch, found, step)


def _select(connection: Connection, identity: Identity) -> tuple[int, int, int, str] | None:
    return connection.execute(
        sql.SQL(
            "SELECT epoch, attempt, sequence, position FROM {} WHERE migration = %s AND task = %s AND idx = %s"
        ).format(_WORKERS),
        (identity.migration, identity.task, identity.index),
    ).fetchone()


def _require_epoch(connection: Connection, identity: Identity, epoch: int) -> None:
    found = connection.execute(
        sql.SQL("SELECT epoch FROM {} WHERE migration = %s").format(_MIGRATIONS), (identity.migration,)
    ).fetchone()
    if found is None or found[0] != epoch:
        raise epoch_over(epoch, found[0] if found else None, f"{identity.migration}, {identity.task} {identity.index}")


def _hold_epoch(connection: Connection, identity: Identity, epoch: int) -> None:
    """Conflict with whoever raises the epoch: a fence does not see a row that is only being made."""
    cursor = connection.execute(
        sql.SQL("UPDATE {} SET epoch = epoch WHERE migration = %s AND epoch = %s").format(_MIGRATIONS),
        (identity.migration, epoch),
    )
    if cursor.rowcount != 1:
        raise Conflict("the epoch was raised at the same moment", where=str(identity))


def _insert(connection: Connection, identity: Identity, epoch: int) -> WorkerRow:
    try:
        _insert_row(connection, identity, epoch)
    except psycopg.errors.UniqueViolation:
        raise Conflict("another worker made the control row at the same moment", where=str(identity)) from None
    return WorkerRow(epoch, 1, 0, "")


def _insert_row(connection: Connection, identity: Identity, epoch: int) -> None:
    connection.execute(
        sql.SQL(
            "INSERT INTO {} (migration, task, idx, epoch, attempt, sequence, position, heartbeat)"
            " VALUES (%s, %s, %s, %s, 1, 0, '', now())"
        ).format(_WORKERS),
        (identity.migration, identity.task, identity.index, epoch),
    )


def _raise(
    connection: Connection, identity: Identity, epoch: int, found: tuple[int, int, int, str], step: int = 1
) -> WorkerRow:
    held_epoch, attempt, sequence, position = found
    if held_epoch > epoch:
        raise FencedOut(f"epoch {epoch} of this worker is over", where=str(identity), why=f"its row is of {held_epoch}")
    cursor = connection.execute(
        sql.SQL(
            "UPDATE {} SET epoch = %s, attempt = attempt + %s, heartbeat = now() WHERE migration = %s AND task = %s"
            " AND idx = %s AND epoch = %s AND attempt = %s AND sequence = %s"
        ).format(_WORKERS),
        (epoch, step, identity.migration, identity.task, identity.index, held_epoch, attempt, sequence),
    )
    if cursor.rowcount != 1:
        raise Conflict("another worker took the control row at the same moment", where=str(identity))
    return WorkerRow(epoch, attempt + step, sequence, position)


def advance(connection: Connection, identity: Identity, row: WorkerRow, position: str) -> WorkerRow:
    """Move the row on by one inside the caller's transaction. Raises FencedOut unless it is still the caller's."""
    cursor = connection.execute(
        sql.SQL(
            "UPDATE {} SET sequence = sequence + 1, position = %s, heartbeat = now() WHERE migration = %s AND task = %s"
            " AND idx = %s AND epoch = %s AND attempt = %s AND sequence = %s"
        ).format(_WORKERS),
        (position, identity.migration, identity.task, identity.index, row.epoch, row.attempt, row.sequence),
    )
    if cursor.rowcount != 1:
        raise _succeeded(identity, row)
    return replace(row, sequence=row.sequence + 1, position=position)


def _succeeded(identity: Identity, row: WorkerRow) -> FencedOut:
    held = f"epoch {row.epoch}, attempt {row.attempt}, sequence {row.sequence}"
    return succeeded(f"{identity.migration}, {identity.task} {identity.index}", f"no row with {held}")
