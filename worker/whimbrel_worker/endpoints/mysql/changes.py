"""MySQL's binary log as the engine's change log: wanted tables, columns in the engine's order. Decoding is in binlog/.

Rows are matched to columns by the names that the log itself carries, so columns that are not migrated (generated
or invisible ones) fall away, and a table whose columns are no longer those that were found in the source is stopped.
"""

import logging
import operator
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from whimbrel_worker.endpoints.mysql.binlog import tablemap as types
from whimbrel_worker.endpoints.mysql.binlog.gtid import GtidSet
from whimbrel_worker.endpoints.mysql.binlog.model import (
    BinlogColumn,
    Heartbeat,
    RowsEvent,
    Statement,
    TableIncompatible,
    TableInfo,
    TransactionBegin,
    TransactionEnd,
)
from whimbrel_worker.endpoints.mysql.binlog.model import Event as BinlogEvent
from whimbrel_worker.endpoints.mysql.binlog.stream import BinlogStream
from whimbrel_worker.endpoints.mysql.changes_ddl import tables_stopped_by
from whimbrel_worker.endpoints.mysql.connect import MySQLConnector
from whimbrel_worker.engine.ports import Begin, Changes, End, Event, Idle, StoppedTable
from whimbrel_worker.values.columns import Cell, Kind, Table

_LOG = logging.getLogger(__name__)
_POLL_SECONDS: Final = 0.25
_DEFINITIONS: Final = 4096
_SERVER_IDS: Final = (2**31, 2**32 - 1)
"""The upper half, which people seldom give to replicas."""
_INTEGERS: Final = frozenset({types.TINY, types.SHORT, types.INT24, types.LONG, types.LONGLONG, types.YEAR})
_FLOATS: Final = frozenset({types.FLOAT, types.DOUBLE})
_TEXTUAL: Final = frozenset({Kind.TEXT, Kind.BYTES, Kind.DATE, Kind.DATETIME, Kind.TIMESTAMP, Kind.TIME})

Pick = Callable[[Sequence[Any]], tuple[Cell, ...]]


class GtidTracker:
    """Implements ports.PositionTracker with a GTID set."""

    __slots__ = ("_gtids", "add", "contains")

    def __init__(self, position: str) -> None:
        self._gtids = GtidSet.parse(position)
        self.add = self._gtids.add_gtid
        self.contains = self._gtids.contains

    def __str__(self) -> str:
        return self._gtids.position()


@dataclass(frozen=True, slots=True)
class _Mapped:
    """A definition that the log showed, and how its rows become the table's; `info` keeps the object alive."""

    info: TableInfo
    table: Table
    pick: Pick | None


class MySQLChangeLog:
    """Implements ports.ChangeLog. One object for each connection: after an error or `close` it is spent."""

    def __init__(self, connector: MySQLConnector, since: str, tables: Sequence[Table], heartbeat: float = 1.0) -> None:
        """`connector` signs in; `since` is a GTID set; `heartbeat` in seconds. Raises as BinlogStream does."""
        self._wanted = {(table.source_schema, table.source_name): table for table in tables}
        self._mapped: dict[int, _Mapped] = {}
        self._closed = threading.Event()
        server_id = random.SystemRandom().randrange(*_SERVER_IDS)
        self._stream = BinlogStream(connector.connect(), GtidSet.parse(since), server_id, heartbeat, self._is_wanted)

    def __iter__(self) -> Iterator[Event]:
        """Events in log order until `close`."""
        try:
            while not self._closed.is_set():
                for event in self._stream.poll(_POLL_SECONDS):
                    yield from self._translate(event)
        finally:
            self._stream.close()

    def close(self) -> None:
        """Make the iteration end within a moment; safe from another thread."""
        self._closed.set()

    def tracker(self, position: str) -> GtidTracker:
        """A tracker that starts at a position."""
        return GtidTracker(position)

    def _is_wanted(self, database: str, table: str) -> bool:
        return (database, table) in self._wanted

    def _translate(self, event: BinlogEvent) -> Iterator[Event]:
        if isinstance(event, RowsEvent):
            yield from self._rows(event)
        elif isinstance(event, TransactionBegin):
            yield Begin(event.gtid, event.commit_timestamp_us / 1e6)
        elif isinstance(event, TransactionEnd):
            yield End(event.gtid)
        elif isinstance(event, Heartbeat):
            yield Idle()
        elif isinstance(event, TableIncompatible):
            yield from self._stop(event.table.name, event.reason)
        else:
            yield from self._statement(event)

    def _rows(self, event: RowsEvent) -> Iterator[Event]:
        mapped = self._mapped.get(id(event.table))
        if mapped is None:
            table = self._wanted.get((event.table.database, event.table.table))
            if table is None:
                return
            reason = _mismatch(event.table, table)
            if reason:
                yield from self._stop(table.name, reason)
                return
            if len(self._mapped) >= _DEFINITIONS:
                self._mapped.clear()
            mapped = self._mapped[id(event.table)] = _Mapped(event.table, table, _pick(event.table, table))
        yield Changes(mapped.table, _PAIRS[event.kind](event.rows, mapped.pick))

    def _statement(self, event: Statement) -> Iterator[Event]:
        names = [table.name for table in self._wanted.values()]
        stopped = tables_stopped_by(event.database, event.sql, names)
        for stop in stopped:
            yield from self._stop(stop.name, stop.reason)
        if not stopped:
            _LOG.debug("a statement that touches no followed table is passed over: %.500s", event.sql)

    def _stop(self, name: str, reason: str) -> Iterator[Event]:
        for place, table in list(self._wanted.items()):
            if table.name == name:
                del self._wanted[place]
                self._mapped = {key: mapped for key, mapped in self._mapped.items() if mapped.table is not table}
                yield StoppedTable(name, reason)


def _mismatch(info: TableInfo, table: Table) -> str:
    """Why rows of this definition cannot be the table's; empty when they can."""
    logged = {column.name: column for column in info.columns}
    missing = [column.name for column in table.columns if column.name not in logged]
    if missing:
        return (
            f"the change log's rows have no column {', '.join(missing)}: the table was altered in the source since, or"
            " binlog_row_metadata is not FULL; migrate this table anew"
        )
    altered = [column.name for column in table.columns if not _fits(logged[column.name], column.kind)]
    if altered:
        return (
            f"the change log's rows have another type in column {', '.join(altered)}: the table was altered in the"
            " source since; migrate this table anew"
        )
    return ""


def _fits(logged: BinlogColumn, kind: Kind) -> bool:
    """Whether the log's cells are of the Python type that this kind's encoders take (see columns.Cell)."""
    if kind in _TEXTUAL:
        return logged.type_code not in _INTEGERS | _FLOATS
    return logged.type_code not in (types.STRING, types.VARCHAR, types.BLOB)


def _pick(info: TableInfo, table: Table) -> Pick | None:
    """How to get the table's cells out of a logged row; None where the row is right as it stands."""
    names = [column.name for column in info.columns]
    positions = [names.index(column.name) for column in table.columns]
    if positions == list(range(len(names))):
        return None
    if len(positions) == 1:
        only = positions[0]
        return lambda row: (row[only],)
    return operator.itemgetter(*positions)


_Pair = tuple[tuple[Cell, ...] | None, tuple[Cell, ...] | None]


def _inserts(rows: list[Any], pick: Pick | None) -> list[_Pair]:
    return [(None, row) for row in (map(pick, rows) if pick else rows)]


def _deletes(rows: list[Any], pick: Pick | None) -> list[_Pair]:
    return [(row, None) for row in (map(pick, rows) if pick else rows)]


def _updates(rows: list[Any], pick: Pick | None) -> list[_Pair]:
    return [(pick(before), pick(after)) for before, after in rows] if pick else rows


_PAIRS: Final[dict[str, Callable[[list[Any], Pick | None], list[_Pair]]]] = {
    "insert": _inserts, "delete": _deletes, "update": _updates,
}  # fmt: skip
