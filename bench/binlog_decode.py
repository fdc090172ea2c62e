"""How much CPU decoding the change log costs: ours against the PyPI package mysql-replication, one run, one log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import UpdateRowsEvent, WriteRowsEvent

from whimbrel_testbed.bench_table import load_bench_rows
from whimbrel_testbed.mysql import MySQLAccess, MySQLServer
from whimbrel_worker.endpoints.mysql.binlog.gtid import GtidSet
from whimbrel_worker.endpoints.mysql.binlog.model import Heartbeat, RowsEvent
from whimbrel_worker.endpoints.mysql.binlog.stream import BinlogStream

OWN = "whimbrel"
_TABLE = "binlog_bench.changed"
_UPDATES = """
CREATE PROCEDURE binlog_bench.change_each(IN last INT)
BEGIN
  DECLARE i INT DEFAULT 1;
  WHILE i <= last DO
    UPDATE binlog_bench.changed SET c_int = c_int + 1, c_decimal = c_decimal + 1 WHERE id = i;
    SET i = i + 1;
  END WHILE;
END"""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One decoder's work on one kind of change."""

    change: str
    decoder: str
    rows: int
    cpu_seconds: float
    wall_seconds: float
    ratio: float
    """Its rate by CPU over the package's."""

    @property
    def rows_per_cpu_second(self) -> float:
        """The rate that machines can be compared by least badly."""
        return self.rows / self.cpu_seconds


def measure(mysql: MySQLServer, rows: int = 100_000, peer_rows: int = 20_000) -> list[Measurement]:
    """Time one-row updates, each a transaction, and bulk inserts of the 16-column bench table.

    The package decodes only the first ``peer_rows`` of the same log, because it takes half a minute for all of them.
    """
    results: list[Measurement] = []
    for change, start in _fill(mysql, rows):
        own = _timed(lambda start=start: _decode_ours(mysql, start, rows))
        peer = _timed(lambda start=start: _decode_peer(mysql, start, peer_rows))
        ratio = (own[0] / own[1]) / (peer[0] / peer[1])
        results += [Measurement(change, OWN, *own, ratio), Measurement(change, "mysql-replication", *peer, 1.0)]
    return results


def _fill(mysql: MySQLServer, rows: int) -> Iterator[tuple[str, str]]:
    start = _executed(mysql.admin)
    load_bench_rows(mysql, _TABLE, rows, logged=True)
    yield "bulk inserts", start
    with closing(mysql.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("DROP PROCEDURE IF EXISTS binlog_bench.change_each")
        cursor.execute(_UPDATES)
        start = _executed(mysql.admin)
        cursor.execute("CALL binlog_bench.change_each(%s)", (rows,))
    yield "one-row updates", start


def _executed(access: MySQLAccess) -> str:
    with closing(access.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@GLOBAL.gtid_executed")
        row = cursor.fetchone()
    return str(row[0]).replace("\n", "") if row else ""


def _timed(decode: Any) -> tuple[int, float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    rows = decode()
    return rows, time.process_time() - cpu, time.perf_counter() - wall


def _decode_ours(mysql: MySQLServer, start: str, rows: int) -> int:
    seen = 0
    connection = mysql.migration.connect()
    with BinlogStream(connection, GtidSet.parse(start), 4001, 1.0, lambda *_: True) as stream:
        for event in stream:
            seen += len(event.rows) if isinstance(event, RowsEvent) else 0
            if seen >= rows or isinstance(event, Heartbeat):
                break
    if seen < rows:
        raise RuntimeError(f"the log ended after {seen} rows of {rows}")
    return seen


def _decode_peer(mysql: MySQLServer, start: str, rows: int) -> int:
    settings = {
        "host": mysql.host, "port": mysql.port, "user": mysql.user, "passwd": mysql.password,
        "ssl_ca": mysql.ca_file, "ssl_verify_cert": True, "ssl_verify_identity": True,
    }  # fmt: skip
    stream = BinLogStreamReader(
        connection_settings=settings, server_id=4002, blocking=True, only_events=[WriteRowsEvent, UpdateRowsEvent],
        auto_position=start or "00000000-0000-0000-0000-000000000000:1", enable_logging=False,
    )  # fmt: skip
    seen = 0
    try:
        for event in stream:
            seen += len(event.rows)
            if seen >= rows:
                return seen
    finally:
        stream.close()
    raise RuntimeError(f"mysql-replication ended after {seen} rows of {rows}")


def table(results: list[Measurement]) -> str:
    """The results as lines of text."""
    lines = [f"{'change':<16} {'decoder':<18} {'rows':>8} {'CPU s':>7} {'krows / CPU s':>14} {'ratio':>6}"]
    for one in results:
        rate = one.rows_per_cpu_second / 1000
        lines.append(
            f"{one.change:<16} {one.decoder:<18} {one.rows:>8} {one.cpu_seconds:>7.2f} {rate:>14.1f} {one.ratio:>6.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run against a server of its own and print the table."""
    from whimbrel_testbed.mysql import mysql_server

    with mysql_server() as mysql:
        print(table(measure(mysql)))


if __name__ == "__main__":
    main()
