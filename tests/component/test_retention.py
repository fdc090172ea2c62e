"""The retention deadline over real servers: never later than the source forgets, and standing still with the lag."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pymysql.cursors import Cursor

from support.item_moves import ItemMove, fill
from support.moves import Move, Tasks, order
from support.patience import eventually
from whimbrel_api.reports import StreamResult
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_worker.endpoints.mysql.source import MySQLSource
from whimbrel_worker.endpoints.postgres.server import PROFILE
from whimbrel_worker.secrets import Secrets

pytestmark = pytest.mark.timeout(120)
DAY = timedelta(days=1)


@contextmanager
def kept_for(mysql: MySQLServer, seconds: int) -> Iterator[Cursor]:
    """The server keeps its binary log for so long while the block runs."""
    with closing(mysql.connect()) as connection, connection.cursor() as cursor:
        before = value(cursor, "SELECT @@GLOBAL.binlog_expire_logs_seconds")
        cursor.execute("SET GLOBAL binlog_expire_logs_seconds = %s", (seconds,))
        try:
            yield cursor
        finally:
            cursor.execute("SET GLOBAL binlog_expire_logs_seconds = %s", (before,))


def value(cursor: Cursor, statement: str) -> Any:
    cursor.execute(statement)
    row = cursor.fetchone()
    assert row is not None
    return row[0]


@contextmanager
def streaming(move: Tasks) -> Iterator[None]:
    """The stream as a process of its own; retired at the end."""
    file, process = move.task("stream"), move.start("stream")
    try:
        yield
        order(file, retire=True)
        assert process.wait(60) == ExitCode.DONE, move.log("stream")
    finally:
        order(file)
        process.kill()
        process.wait()


def told(move: Tasks) -> StreamResult:
    file = move.task("stream")
    found = move.report(file).stream if Path(file.report_file).exists() else None
    return found if found is not None else StreamResult()


def copied(move: Tasks) -> None:
    move.prepare()
    code, report = move.run("snapshot")
    assert code == ExitCode.DONE, report.last_error
    assert report.stream is not None
    assert report.stream.retention_deadline is not None, "said during the copy too"


def test_mysql_keeps_a_commit_for_at_least_as_long_as_it_is_counted_on(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    """The oldest commit that is needed, and the log's period, are what the deadline is made of."""
    with kept_for(mysql, 3) as cursor:
        spec = postgres_move.task("inspect")
        assert spec.source.mysql is not None
        found = MySQLSource(spec.source.mysql, Secrets(spec.secrets), spec.tables, PROFILE)
        assert found.retention() == 3
        cursor.execute(f"CREATE TABLE `{mysql_database}`.t (id INT PRIMARY KEY)")
        committed = time.time()
        cursor.execute(f"INSERT INTO `{mysql_database}`.t VALUES (1)")
        needed = str(value(cursor, "SELECT @@GLOBAL.gtid_executed"))

        def purged() -> bool:
            cursor.execute("FLUSH BINARY LOGS")
            cursor.execute("SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_purged)", (needed,))
            row = cursor.fetchone()
            return bool(row and row[0])

        eventually(purged, seconds=30, often=0.2)
        assert time.time() - committed >= 3


def test_the_deadline_of_a_stream_that_cannot_write_stands_still(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    options = {"stream": {"checkpointInterval": "1s"}, "reportInterval": 0.2}
    postgres_move.options |= options
    with kept_for(mysql, 3600) as cursor:
        cursor.execute(f"CREATE TABLE `{mysql_database}`.t (id INT PRIMARY KEY)")
        copied(postgres_move)
        with streaming(postgres_move):
            eventually(lambda: told(postgres_move).retention_deadline, lambda: postgres_move.log("stream"))
            idle = told(postgres_move)
            assert idle.retention_seconds == 3600
            assert idle.retention_deadline is not None
            later = eventually(lambda: after(postgres_move, idle.retention_deadline))
            assert later > idle.retention_deadline, "an idle source is read to its end"
            with psycopg.connect(postgres_move.conninfo) as holder:
                holder.execute(f'LOCK TABLE "{mysql_database}".t IN ACCESS EXCLUSIVE MODE'.encode())
                committed = time.time()
                cursor.execute(f"INSERT INTO `{mysql_database}`.t VALUES (1)")
                behind = eventually(lambda: lagging(postgres_move, 3.0), lambda: told(postgres_move))
                holder.rollback()
            assert behind.retention_deadline is not None
            assert behind.retention_deadline.timestamp() <= committed + 3600 + 0.5
            eventually(lambda: after(postgres_move, behind.retention_deadline), lambda: told(postgres_move))
    assert postgres_move.differences([f"{mysql_database}.t"]) == []


def after(move: Tasks, moment: datetime | None) -> datetime | None:
    """The deadline, once it is later than that."""
    deadline = told(move).retention_deadline
    return deadline if deadline is not None and moment is not None and deadline > moment else None


def lagging(move: Tasks, seconds: float) -> StreamResult | None:
    found = told(move)
    return found if found.lag_seconds is not None and found.lag_seconds > seconds else None


def test_dynamodb_streams_keep_what_comes_next_for_a_day_after_the_last_look(moving: ItemMove) -> None:
    moving.options |= {"reportInterval": 0.2}
    table = moving.table("orders")
    fill(moving.origin, table, range(20))
    copied(moving)
    with streaming(moving):
        fill(moving.origin, table, range(20, 25))
        eventually(lambda: told(moving).quiet, lambda: moving.log("stream"))
        quiet = told(moving)
        assert quiet.retention_seconds == DAY.total_seconds()
        assert quiet.retention_deadline is not None
        left = quiet.retention_deadline - moving.report(moving.task("stream")).observed_at
        assert DAY - timedelta(seconds=30) < left <= DAY + timedelta(seconds=2)
        eventually(lambda: after(moving, quiet.retention_deadline), lambda: told(moving))
    assert moving.differences(table) == []
