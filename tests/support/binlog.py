"""Reads a stretch of a server's change log for the tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from whimbrel_testbed.mysql import MySQLAccess, MySQLServer
from whimbrel_worker.endpoints.mysql.binlog.gtid import GtidSet
from whimbrel_worker.endpoints.mysql.binlog.model import Event, RowsEvent, TransactionEnd
from whimbrel_worker.endpoints.mysql.binlog.stream import BinlogStream


def query(access: MySQLAccess | MySQLServer, sql: str, arguments: Any = None, **options: Any) -> list[Any]:
    """All rows of one statement on a connection of its own."""
    with closing(access.connect(**options)) as connection, connection.cursor() as cursor:
        cursor.execute(sql, arguments)
        return list(cursor.fetchall())


def executed(mysql: MySQLServer) -> GtidSet:
    """The source's position now."""
    return GtidSet.parse(query(mysql, "SELECT @@GLOBAL.gtid_executed")[0][0])


@contextmanager
def open_stream(
    mysql: MySQLServer,
    start: GtidSet,
    wanted: Callable[[str, str], bool] = lambda *_: True,
    *,
    server_id: int = 5001,
    heartbeat: float = 0.2,
    access: MySQLAccess | None = None,
) -> Iterator[BinlogStream]:
    """A stream from ``start`` under the migration's account."""
    connection = (access or mysql.migration).connect()
    with BinlogStream(connection, start, server_id, heartbeat, wanted) as stream:
        yield stream


def read_to(stream: BinlogStream, start: GtidSet, end: GtidSet, seconds: float = 60) -> list[Event]:
    """The events up to the end of the last transaction of ``end``."""
    events: list[Event] = []
    seen, deadline = start.copy(), time.monotonic() + seconds
    while not end.issubset(seen):
        assert time.monotonic() < deadline, f"after {seconds} s only {seen} of {end} has come"
        for event in stream.poll(1):
            events.append(event)
            if isinstance(event, TransactionEnd):
                seen.add(event.source, event.number)
    return events


def changes(mysql: MySQLServer, start: GtidSet, wanted: Callable[[str, str], bool] = lambda *_: True) -> list[Event]:
    """All events from ``start`` to the source's position now."""
    with open_stream(mysql, start, wanted) as stream:
        return read_to(stream, start, executed(mysql))


def rows_of(events: list[Event], table: str) -> list[RowsEvent]:
    """The rows events of one table."""
    return [event for event in events if isinstance(event, RowsEvent) and event.table.table == table]


def replay(events: list[Event], table: str, keys: int = 1) -> dict[Any, Any]:
    """A table's rows after its changes, by their first columns; every before image must be what is there."""
    state: dict[Any, Any] = {}
    for event in rows_of(events, table):
        for change in event.rows:
            before, after = change if event.kind == "update" else (None, change)
            if event.kind == "delete":
                before, after = change, None
            if before is not None:
                assert state.pop(before[:keys]) == before
            if after is not None:
                assert after[:keys] not in state
                state[after[:keys]] = after
    return state
