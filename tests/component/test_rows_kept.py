"""Rows that a race or a border case could lose: each of these tests was seen to fail before its remedy was there."""

import threading
import time
from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest

from support.moves import Move
from support.streams import Lab
from support.targets import TargetCase, prepared
from whimbrel_api.tasks import ExitCode, FreezeOptions, TaskKind
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_worker.engine.ports import TableRow
from whimbrel_worker.errors import FencedOut

WAIT_SECONDS = 20.0


def load(mysql: MySQLServer, database: str, *statements: str) -> None:
    with closing(mysql.connect(database)) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_source_without_a_single_gtid(stream_to_postgres: Lab) -> None:
    """Its position is empty, which must not read like none: a later worker would set the start after the first read."""
    lab = stream_to_postgres
    lab.execute(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT)",
        "INSERT INTO t VALUES (1, 1), (2, 1)",
        "RESET BINARY LOGS AND GTIDS",
    )
    lab.prepare(start=False)
    first = lab.snapshot()
    assert first.ended() == 0, first.log()
    lab.execute("UPDATE t SET v = 2 WHERE id = 1")
    second = lab.snapshot()
    assert second.ended() == 0, second.log()
    lab.drain(lab.stream())
    assert lab.differences(["t"]) == []


def test_a_source_without_a_gtid_can_be_drained(stream_to_postgres: Lab) -> None:
    lab = stream_to_postgres
    lab.execute("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)", "RESET BINARY LOGS AND GTIDS")
    lab.prepare(start=False)
    assert lab.snapshot().ended() == 0
    frozen = lab.start(lab.file(TaskKind.FREEZE, freeze=FreezeOptions(quiet_seconds=0.5)))
    assert frozen.ended() == 0, frozen.log()
    report = frozen.report()
    assert report is not None
    assert report.freeze is not None
    position = report.freeze.position
    assert position
    worker = lab.stream()
    worker.order(drain_to=position)
    worker.wait_for(lambda: worker.stream().drained_to == position, "drained", WAIT_SECONDS)


def lock_waiters(case: TargetCase) -> int:
    found = case.look("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    return int(str(found[0][0]))


def test_a_worker_that_makes_its_row_during_a_fence_is_fenced(postgres_case: TargetCase) -> None:
    """The fence cannot see the new row, and the worker has read the old epoch: without a conflict it would go on."""
    target = prepared(postgres_case)
    session = target.session("stream", 7)
    taking = threading.Thread(target=session.take)
    raising = threading.Thread(target=lambda: target.control().raise_epoch("switched", ""))
    with psycopg.connect(postgres_case.direct) as blocker:
        blocker.execute(
            "INSERT INTO whimbrel.workers (migration, task, idx, epoch, attempt, sequence, position, heartbeat)"
            " VALUES ('default/case', 'stream', 7, 1, 1, 0, '', now())"
        )
        taking.start()
        wait_for(lambda: lock_waiters(postgres_case) == 1)
        raising.start()
        wait_for(lambda: not raising.is_alive() or lock_waiters(postgres_case) == 2)
        blocker.rollback()
    taking.join()
    raising.join()
    with pytest.raises(FencedOut):
        session.commit([], position="late")


def test_rows_held_in_a_table_that_is_planned_later(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    load(
        mysql,
        mysql_database,
        "CREATE TABLE a (id INT PRIMARY KEY, v TEXT)",
        "INSERT INTO a VALUES (1, 'new'), (2, 'new')",
        "CREATE TABLE b (id INT PRIMARY KEY, v TEXT)",
        "INSERT INTO b VALUES (1, 'new')",
    )
    postgres_move.prepare()
    for table in "ab":
        postgres_move.look(f"INSERT INTO \"{mysql_database}\".{table} VALUES (1, 'old') RETURNING 1")
    code, report = postgres_move.run("snapshot")
    assert code == 0, report.last_error
    assert {table.name: table.state for table in report.tables} == {
        f"{mysql_database}.a": "Copied",
        f"{mysql_database}.b": "Copied",
    }
    assert postgres_move.differences([f"{mysql_database}.{name}" for name in "ab"]) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [("", "CREATE UNIQUE INDEX u ON t (v)"), ("CREATE UNIQUE INDEX u ON t (v)", "DROP INDEX u ON t")],
)
def test_a_table_does_not_change_lanes_unseen(stream_to_postgres: Lab, before: str, after: str) -> None:
    """With its unique index a table gets into or out of the ordered lane, whose position says nothing of the others."""
    lab = stream_to_postgres
    lab.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)", *filter(None, [before]))
    lab.prepare(start=False)
    assert lab.snapshot().ended() == 0
    worker = lab.stream()
    lab.drain(worker)
    worker.retire()
    lab.execute("UPDATE t SET v = 2")
    behind, ahead = ("idx > 0", "idx = 0") if not before else ("idx = 0", "idx > 0")
    lab.look(f"UPDATE whimbrel.workers SET position = '{lab.position()}' WHERE task = 'stream' AND {ahead} RETURNING 1")
    assert lab.look(f"SELECT 1 FROM whimbrel.workers WHERE task = 'stream' AND {behind}")
    lab.execute(after)
    lab.drain(lab.stream())
    state = lab.look("SELECT state FROM whimbrel.tables")
    assert state == [("Stopped",)] or lab.differences(["t"]) == []


def test_a_copy_without_a_table_is_not_complete(postgres_move: Move, mysql: MySQLServer, mysql_database: str) -> None:
    """Control tables that are only being made hold no table yet: nothing left to copy is not everything copied."""
    load(mysql, mysql_database, "CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    postgres_move.prepare()
    postgres_move.look("DELETE FROM whimbrel.tables")
    code, _ = postgres_move.run("snapshot")
    assert code == ExitCode.FAILED
    record = postgres_move.run("inspect")[1].record
    assert record is not None
    assert not record.snapshot_complete


def test_a_planning_that_was_cut_short_is_given_back(case: TargetCase) -> None:
    """Else it counts as a table being copied, and with as many of them as may be the worker waits for itself."""
    control = prepared(case).control()
    control.add_tables([TableRow("shop.a", "Pending"), TableRow("shop.b", "Pending")])
    assert control.claim_planning(0, 1) == "shop.a"
    assert control.claim_planning(1, 1) == "shop.b"
    control.release(0, 2)
    assert {row.name: row.state for row in control.tables()} == {"shop.a": "Pending", "shop.b": "Planning"}
