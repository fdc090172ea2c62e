"""The replication slot: made, looked at, dropped, and told apart from slots of others. Nothing is read from it here.

Fields: PostgreSQL manual, "pg_replication_slots"; columns of later versions are read where they are there.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from whimbrel_worker.endpoints.polardb.failures import guarded, slot_in_use, slot_lost, slot_missing, translate
from whimbrel_worker.endpoints.polardb.log.lsn import NOWHERE, format_lsn, parse_lsn
from whimbrel_worker.errors import ConfigurationError, SourceLogLost, Transient
from whimbrel_worker.libpq import Connection

PLUGIN: Final = "pgoutput"
HEARTBEAT: Final = "whimbrel.heartbeat"
_LOST_STATES: Final = frozenset({"lost"})
_POLL_SECONDS: Final = 0.2
_ROW: Final = """
SELECT row_to_json(s), pg_current_wal_lsn()::text,
       pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint,
       pg_size_bytes(current_setting('max_slot_wal_keep_size')), current_database()
FROM pg_replication_slots s WHERE slot_name = %s
"""


@dataclass(frozen=True, slots=True)
class SlotHealth:
    """A slot as the server reports it. Positions are 0, sizes None where the server tells none; sizes in bytes.

    `keep_bytes`: max_slot_wal_keep_size, None for no limit. `safe_bytes`: what may be written before the slot is in
    danger of being lost. `end`: the end of the server's log. `invalidation`: why the server gave it up (version 17).
    """

    name: str
    plugin: str
    database: str
    active: bool
    active_pid: int | None
    wal_status: str
    restart_lsn: int
    confirmed_lsn: int
    retained_bytes: int | None
    safe_bytes: int | None
    keep_bytes: int | None
    end: int
    invalidation: str = ""

    @property
    def lost(self) -> bool:
        """Whether the server has removed log that it needs; it never comes back."""
        return self.wal_status in _LOST_STATES or bool(self.invalidation)

    @property
    def behind_bytes(self) -> int:
        """How much log has been written since what was acknowledged."""
        return max(0, self.end - self.confirmed_lsn)


def look(connection: Connection, slot: str, where: str) -> SlotHealth | None:
    """The slot's state; None where there is none. Raises Transient or ConfigurationError."""
    with guarded(where):
        row = connection.execute(_ROW, (slot,)).fetchone()
    return None if row is None else _health(*row)


def _health(slot: dict[str, Any], end: str, retained: int | None, keep: int, _database: str) -> SlotHealth:
    return SlotHealth(
        name=slot["slot_name"],
        plugin=slot["plugin"] or "",
        database=slot["database"] or "",
        active=slot["active"],
        active_pid=slot["active_pid"],
        wal_status=slot["wal_status"] or "",
        restart_lsn=_position(slot["restart_lsn"]),
        confirmed_lsn=_position(slot["confirmed_flush_lsn"]),
        retained_bytes=retained,
        safe_bytes=slot["safe_wal_size"],
        keep_bytes=None if keep < 0 else keep,
        end=parse_lsn(end),
        invalidation=slot.get("invalidation_reason") or "",
    )


def _position(text: str | None) -> int:
    return NOWHERE if text is None else parse_lsn(text)


def check(
    health: SlotHealth | None, slot: str, position: int, database: str, where: str, *, read: int | None = None
) -> None:
    """See that the slot still has everything after `position`.

    `read`: what had been read when the slot was looked at, where the position may have moved on since.

    Raises SourceLogLost where it is missing, lost, ahead of the position, or behind a server whose log ends before it;
    ConfigurationError where it is not a slot of ours at all.
    """
    if health is None:
        raise slot_missing(where, slot)
    if health.plugin != PLUGIN or health.database != database:
        raise ConfigurationError(
            "the replication slot is of another kind",
            where=where,
            why=f"slot {slot} is of plugin {health.plugin or 'none'} and database {health.database or 'none'}; "
            f"needed are {PLUGIN} and {database}",
            todo="name another slot in spec.slotName, or drop this one if nobody needs it",
        )
    if health.lost:
        raise slot_lost(where, slot, f"wal_status {health.wal_status}, {health.invalidation or 'over its limit'}")
    if health.confirmed_lsn > position:
        raise slot_lost(
            where, slot, f"{_ahead(health, position)}: it was advanced by somebody, or dropped and made anew"
        )
    read = position if read is None else read
    if health.end < read:
        raise SourceLogLost(
            "the source's log ends before what was read from it already",
            where=where,
            why=f"it ends at {format_lsn(health.end)}, read was {format_lsn(read)}: the server was restored or "
            "replaced by one that lags behind",
            todo="point the reverse sync at the right server, or start it anew after a full comparison",
        )


def _ahead(health: SlotHealth, position: int) -> str:
    return f"it begins at {format_lsn(health.confirmed_lsn)}, after {format_lsn(position)}, the last position applied"


def create(connection: Connection, slot: str, where: str) -> int:
    """Make the slot, without a snapshot; returns where it begins: every commit after that is sent.

    Waits until all transactions that are open now have ended. Raises ConfigurationError where the slot is there
    already, Transient where one transaction stays open too long.
    """
    try:
        row = connection.execute(
            "SELECT lsn::text FROM pg_create_logical_replication_slot(%s, %s)", (slot, PLUGIN)
        ).fetchone()
    except psycopg.errors.DuplicateObject:
        raise ConfigurationError(
            "the replication slot is there already",
            where=where,
            why=f"somebody else made a slot {slot}",
            todo=f"name another one in spec.slotName, or: SELECT pg_drop_replication_slot('{slot}')",
        ) from None
    except psycopg.errors.QueryCanceled as error:
        raise Transient(
            "the replication slot cannot be made yet",
            where=where,
            why=f"a transaction that was open before does not end ({error.sqlstate})",
            todo="it is tried again; end the oldest one: SELECT pid, xact_start, query FROM pg_stat_activity "
            "WHERE xact_start IS NOT NULL ORDER BY xact_start",
        ) from None
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise _not_logical(error, where) from None
    except psycopg.Error as error:
        raise translate(error, where) from None
    if row is None:
        raise Transient("the source made no replication slot and did not say why", where=where)
    return parse_lsn(row[0])


def _not_logical(error: psycopg.Error, where: str) -> ConfigurationError:
    return ConfigurationError(
        "the source does not log what logical replication needs",
        where=where,
        why=error.diag.message_primary or str(error),
        todo="set wal_level to logical and restart the server; on PolarDB it is a parameter of the cluster",
    )


def drop(
    connection: Connection,
    slot: str,
    where: str,
    *,
    terminate: bool = False,
    patience: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
    rest: Callable[[float], None] = time.sleep,
) -> bool:
    """Drop the slot; False where there is none. `terminate`: end the process that reads it.

    Waits `patience` seconds for its reader to end. Raises Transient where it stays in use.
    """
    deadline = clock() + patience
    while (health := look(connection, slot, where)) is not None:
        if health.active_pid is not None and terminate:
            with guarded(where):
                connection.execute("SELECT pg_terminate_backend(%s)", (health.active_pid,))
        if health.active_pid is None and _dropped(connection, slot, where):
            return True
        if clock() >= deadline:
            raise slot_in_use(where, slot, health.active_pid)
        rest(_POLL_SECONDS)
    return False


def _dropped(connection: Connection, slot: str, where: str) -> bool:
    """Whether it could be dropped: another reader, or another one that drops it, may have come first."""
    try:
        connection.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
    except (psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
        return False
    except psycopg.Error as error:
        raise translate(error, where) from None
    return True


def beat(connection: Connection, content: str, where: str, prefix: str = HEARTBEAT) -> int:
    """Write a heartbeat into the log, without a table; it comes back as a Marker of the stream. Returns its position.

    An idle database sends no commit, so nothing could be acknowledged and its log would be kept for ever.
    """
    with guarded(where):
        row = connection.execute(
            "SELECT pg_logical_emit_message(true, %s::text, %s::text)::text", (prefix, content)
        ).fetchone()
    if row is None:
        raise Transient("the source answered a heartbeat with nothing", where=where)
    return parse_lsn(row[0])
