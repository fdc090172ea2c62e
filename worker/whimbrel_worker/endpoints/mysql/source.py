"""A MySQL server as the engine sees it: its parts over one connector. Statements and judgements stand in them."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import pymysql

from whimbrel_api.endpoints import MySQLSource as MySQLSpec
from whimbrel_api.migration import Tables
from whimbrel_worker.endpoints.mysql import sqltext
from whimbrel_worker.endpoints.mysql.binlog.gtid import GtidSet
from whimbrel_worker.endpoints.mysql.catalogue import read_catalogue
from whimbrel_worker.endpoints.mysql.checks import check_server
from whimbrel_worker.endpoints.mysql.connect import Connection, MySQLConnector, guarded, query
from whimbrel_worker.endpoints.mysql.discover import Discovery, discover
from whimbrel_worker.endpoints.mysql.failures import GRANT_ADVICE, code_and_message
from whimbrel_worker.endpoints.mysql.reader import MySQLReader
from whimbrel_worker.engine.ports import ChangeLog, Problem, Profile
from whimbrel_worker.errors import SourceLogLost
from whimbrel_worker.secrets import Secrets
from whimbrel_worker.values.columns import Table

_TABLES_A_PROBE = 100
_DENIED = {1142, 1143, 1044}
_LITERAL_BYTES_PER_RAW = 2
"""Text parameters are at most twice as long as what they are made of: hex digits, escapes."""

_EXPIRY = ("binlog_expire_logs_seconds", "binlog_expire_logs_auto_purge", "expire_logs_days")
_DAY_SECONDS = 86400.0


class MySQLSource:
    """Implements ports.Source. `target` says what the other side can hold."""

    def __init__(self, spec: MySQLSpec, secrets: Secrets, tables: Tables, target: Profile) -> None:
        self.connector = MySQLConnector(spec, secrets)
        self._tables, self._target = tables, target
        self._found: Discovery | None = None

    def check(self) -> list[Problem]:
        """Settings, privileges and version."""
        with self._connected() as connection:
            return check_server(connection)

    def identity(self) -> str:
        """The server's UUID."""
        return self._value("SELECT @@GLOBAL.server_uuid")

    def version(self) -> str:
        """The server's version."""
        return self._value("SELECT VERSION()")

    def discover(self) -> tuple[list[Table], list[Problem]]:
        """The wanted tables that can be carried, and all problems."""
        with self._connected() as connection:
            found = discover(read_catalogue(connection), self._tables, self._target)
            found.problems += _unreadable(connection, found.tables)
        self._found = found
        return found.tables, found.problems

    def position(self) -> str:
        """All transactions that the server has committed."""
        return GtidSet.parse(self._value("SELECT @@GLOBAL.gtid_executed")).position()

    def clock(self) -> float:
        """The server's clock now, in seconds since 1970."""
        return float(self._value("SELECT UNIX_TIMESTAMP(SYSDATE(6))"))

    def covers(self, position: str, other: str) -> bool:
        """Whether `position` holds all that `other` does."""
        return GtidSet.parse(other).issubset(GtidSet.parse(position))

    def least(self, positions: Sequence[str]) -> str:
        """The greatest position that every one of these holds."""
        if not positions:
            return ""
        first, *others = (GtidSet.parse(position) for position in positions)
        for other in others:
            first = first.intersection(other)
        return first.position()

    def check_log(self, since: str) -> None:
        """Raise SourceLogLost unless the log still has all changes after a position."""
        with self._connected() as connection:
            rows = query(connection, "SELECT @@GLOBAL.gtid_purged, @@GLOBAL.gtid_executed")
        purged, executed = (GtidSet.parse(str(text)) for text in rows[0])
        _refuse_lost(GtidSet.parse(since), purged, executed, self.connector.where)

    def retention(self) -> float | None:
        """For how many seconds the server keeps a transaction; None where no period is set.

        A file of the binary log is taken away when it has not been written to for the period, so a transaction stays
        for at least that long after its commit (MySQL Reference Manual, "binlog_expire_logs_seconds"). PURGE BINARY
        LOGS, and services that purge by rules of their own, such as Amazon RDS, are not seen here.
        """
        with self._connected() as connection:
            rows = query(connection, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN {_EXPIRY}")
        return expiry({str(name).lower(): str(value) for name, value in rows})

    @contextlib.contextmanager
    def reader(self) -> Iterator[MySQLReader]:
        """A reading session."""
        if self._found is None:
            self.discover()
        indexes = self._found.key_indexes if self._found else {}
        reader = MySQLReader(self.connector, indexes, self._target.bytes_per_transaction // _LITERAL_BYTES_PER_RAW)
        try:
            yield reader
        finally:
            reader.close()

    def changes(self, since: str, tables: Sequence[Table]) -> ChangeLog:
        """The changes after a position."""
        from whimbrel_worker.endpoints.mysql.changes import MySQLChangeLog

        return MySQLChangeLog(self.connector, since, tables)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        with contextlib.closing(self.connector.connect()) as connection, guarded(self.connector.where):
            yield connection

    def _value(self, statement: str) -> str:
        with self._connected() as connection:
            return str(query(connection, statement)[0][0])


def expiry(settings: Mapping[str, str]) -> float | None:
    """The binary log's period in seconds by the server's settings, None for none; the days count without seconds."""
    if settings.get("binlog_expire_logs_auto_purge", "ON").upper() in ("OFF", "0"):
        return None
    seconds = float(settings.get("binlog_expire_logs_seconds") or 0)
    return seconds or float(settings.get("expire_logs_days") or 0) * _DAY_SECONDS or None


def _refuse_lost(since: GtidSet, purged: GtidSet, executed: GtidSet, where: str) -> None:
    missing = purged.difference(since)
    if missing:
        raise SourceLogLost(
            "the source's binary log no longer reaches back to the checkpoint",
            where=where,
            why=f"the transactions {str(missing)[:1000]} were purged before they were read",
            todo="raise binlog_expire_logs_seconds, empty the target's tables and begin a new migration",
        )
    unknown = since.difference(executed)
    if unknown:
        raise SourceLogLost(
            "the source does not know transactions that were already copied from it",
            where=where,
            why=f"{str(unknown)[:1000]} is not in its gtid_executed: it was restored or reset, or is a replica behind",
            todo="point the migration at the server that has them, or begin a new migration",
        )


def _unreadable(connection: Connection, tables: Sequence[Table]) -> Iterator[Problem]:
    """Tables that INFORMATION_SCHEMA shows and SELECT refuses; the first of each hundred."""
    for start in range(0, len(tables), _TABLES_A_PROBE):
        try:
            query(connection, sqltext.probe_select(tables[start : start + _TABLES_A_PROBE]))
        except pymysql.err.OperationalError as error:
            code, message = code_and_message(error)
            if code not in _DENIED:
                raise
            yield Problem(
                "the account may not read a table that is to move",
                where=tables[start].source_schema,
                why=message,
                todo=f"as an administrator: {GRANT_ADVICE}",
            )
