"""Snapshot workers that die, hang or lose their servers: nothing lost, nothing twice, by an independent comparison."""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from support.cut import kill_connections
from support.moves import Move
from whimbrel_testbed.dsql import DSQLServer
from whimbrel_testbed.mysql import MySQLServer, mysql_server

ROWS = 6000
OPTIONS: dict[str, Any] = {"snapshot": {"chunkRows": 700, "tablesInParallel": 3}}
SEEDS = [11, 22, 33]


def fill(mysql: MySQLServer, database: str) -> None:
    numbers = f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})"
    with closing(mysql.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION cte_max_recursion_depth = 1000000")
        cursor.execute("CREATE TABLE wide (a INT, b VARCHAR(30), v TEXT, bin VARBINARY(40), PRIMARY KEY (a, b))")
        cursor.execute(
            f"INSERT INTO wide {numbers} SELECT i % 90, CONCAT('K', i), IF(i % 5, REPEAT('x', i % 900), NULL),"
            " UNHEX(SHA2(i, 256)) FROM n"
        )
        cursor.execute("CREATE TABLE narrow (id INT PRIMARY KEY, n DECIMAL(9,3))")
        cursor.execute(f"INSERT INTO narrow {numbers} SELECT i, i / 7 FROM n")


def ends_equal(move: Move, database: str) -> None:
    assert move.differences([f"{database}.wide", f"{database}.narrow"]) == []
    copied = dict(move.look("SELECT tbl, sum(copied)::int FROM whimbrel.chunks GROUP BY tbl"))
    assert copied == {f"{database}.wide": ROWS, f"{database}.narrow": ROWS}


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("point", ["snapshot.after_commit", "snapshot.before_commit"])
def test_a_worker_killed_around_its_commits(
    move: Move, mysql: MySQLServer, mysql_database: str, point: str, seed: int
) -> None:
    print("seed", seed)
    rng = random.Random(f"{seed} {point}")
    fill(mysql, mysql_database)
    move.prepare()
    options: dict[str, Any] = {"snapshot": {"chunkRows": rng.choice([300, 700, 5000])}}
    for _ in range(2):
        worker = move.start("snapshot", failpoint=f"{point}:{rng.randint(1, 3)}", **options)
        assert worker.wait(60) == -signal.SIGKILL
    code, report = move.run("snapshot", **options)
    assert code == 0, report.last_error
    ends_equal(move, mysql_database)


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_3_and_21_lost_replies_conflicts_and_short_sessions(
    dsql_move: Move, moves_dsql: DSQLServer, mysql: MySQLServer, mysql_database: str, seed: int
) -> None:
    """Two workers copy to a target that loses replies to COMMIT, refuses commits and ends sessions."""
    print("seed", seed)
    move, before = dsql_move, moves_dsql.control.dials()
    fill(mysql, mysql_database)
    move.prepare()
    moves_dsql.control.set(
        drop_after_commit=0.15, drop_before_commit=0.05, conflict_rate=0.1, max_session_seconds=1.5, seed=seed
    )
    try:
        workers = [
            move.start("snapshot", index=index, workers=2, snapshot={"chunkRows": 300, "tablesInParallel": 3})
            for index in range(2)
        ]
        codes = [worker.wait(90) for worker in workers]
    finally:
        moves_dsql.control.set(**before)
    assert codes == [0, 0], move.log("snapshot", 0) + move.log("snapshot", 1)
    counters = [move.report(move.task("snapshot", index=index, workers=2)).counters for index in range(2)]
    assert sum(each.conflicts for each in counters) > 0
    assert sum(each.connections for each in counters) > 6, "connections were cut"
    ends_equal(move, mysql_database)


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_two_workers_of_which_one_is_killed_at_any_moment(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str, seed: int
) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    move = postgres_move
    fill(mysql, mysql_database)
    move.prepare()
    options: dict[str, Any] = {"snapshot": OPTIONS["snapshot"] | {"rateLimit": {"rowsPerSecond": 8000}}}
    first, second = (move.start("snapshot", index=index, workers=2, **options) for index in range(2))
    done = rng.randrange(1, 6)
    until(lambda: len(move.look("SELECT 1 FROM whimbrel.chunks WHERE state = 'done'")) >= done)
    os.kill(second.pid, signal.SIGKILL)
    second.wait()
    again = move.start("snapshot", index=1, workers=2, **options)
    assert first.wait(60) == 0, move.log("snapshot", 0)
    assert again.wait(60) == 0, move.log("snapshot", 1)
    ends_equal(move, mysql_database)


def test_a_zombie_worker_cannot_write_after_its_successor_came(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    move = postgres_move
    fill(mysql, mysql_database)
    move.prepare()
    options: dict[str, Any] = {"snapshot": OPTIONS["snapshot"] | {"rateLimit": {"rowsPerSecond": 4000}}}
    zombie = move.start("snapshot", **options)
    until(lambda: len(move.look("SELECT 1 FROM whimbrel.chunks WHERE state = 'done'")) >= 2)
    os.kill(zombie.pid, signal.SIGSTOP)
    try:
        successor = move.task("snapshot", **OPTIONS)
        successor = successor.model_copy(update={"report_file": str(move.directory / "successor.report")})
        from whimbrel_worker.runner import run_task

        assert run_task(successor) == 0, move.report(successor).last_error
    finally:
        os.kill(zombie.pid, signal.SIGCONT)
    assert zombie.wait(60) in (0, 4), move.log("snapshot")
    ends_equal(move, mysql_database)


def test_a_lost_workers_chunk_comes_back_without_it(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    move = postgres_move
    fill(mysql, mysql_database)
    move.prepare()
    lost = move.start("snapshot", index=1, workers=2, failpoint="snapshot.after_commit:3", **OPTIONS)
    assert lost.wait(60) == -signal.SIGKILL
    assert move.look("SELECT DISTINCT owner FROM whimbrel.chunks WHERE state = 'claimed'") == [(1,)]
    move.look("UPDATE whimbrel.workers SET heartbeat = heartbeat - interval '2 minutes'")
    code, report = move.run("snapshot", workers=2, **OPTIONS)
    assert code == 0, report.last_error
    ends_equal(move, mysql_database)


def test_told_to_stop_it_ends_at_a_checkpoint_and_goes_on_later(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    move = postgres_move
    fill(mysql, mysql_database)
    move.prepare()
    slow: dict[str, Any] = {"snapshot": OPTIONS["snapshot"] | {"rateLimit": {"rowsPerSecond": 2000}}}
    worker = move.start("snapshot", **slow)
    until(lambda: len(move.look("SELECT 1 FROM whimbrel.chunks WHERE state = 'done'")) >= 1)
    worker.terminate()
    assert worker.wait(20) == 5, move.log("snapshot")
    assert move.report(move.task("snapshot")).state == "Stopped"
    code, report = move.run("snapshot", **OPTIONS)
    assert code == 0, report.last_error
    ends_equal(move, mysql_database)


def cut_and_ends_equal(
    move: Move, mysql: MySQLServer, database: str, worker: subprocess.Popen[bytes], *, most: int, pause: float
) -> None:
    """Cut a worker's connections to the source every `pause` seconds, `most` of them or so; it ends well."""
    kills, ended = 0, threading.Event()
    with closing(mysql.connect()) as connection, connection.cursor() as cursor:
        while worker.poll() is None and kills < most:
            kills += kill_connections(cursor, move.mysql.user)
            ended.wait(pause)
    assert worker.wait(60) == 0, move.log("snapshot")
    assert kills > 2
    ends_equal(move, database)


def test_connections_to_the_source_that_are_cut_again_and_again(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    move = postgres_move
    fill(mysql, mysql_database)
    move.prepare()
    options: dict[str, Any] = {"snapshot": OPTIONS["snapshot"] | {"rateLimit": {"rowsPerSecond": 6000}}}
    worker = move.start("snapshot", **options)
    cut_and_ends_equal(move, mysql, mysql_database, worker, most=8, pause=0.25)


def test_connections_to_the_source_that_are_cut_from_the_first_moment(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    move = postgres_move
    fill(mysql, mysql_database)
    move.prepare()
    worker = move.start("snapshot", **OPTIONS)
    cut_and_ends_equal(move, mysql, mysql_database, worker, most=12, pause=0.005)


@contextmanager
def own_source(move: Move) -> Iterator[tuple[MySQLServer, str]]:
    """The migration prepared on a server of its own that a test may break, and its database."""
    with mysql_server() as server:
        database = move.tables["include"][0][:-2]
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {database}")
        fill(server, database)
        move.mysql = server.migration
        move.prepare()
        yield server, database


def test_the_source_restarts_in_the_middle(postgres_move: Move) -> None:
    move = postgres_move
    with own_source(move) as (server, database):
        worker = move.start("snapshot", snapshot=OPTIONS["snapshot"] | {"rateLimit": {"rowsPerSecond": 4000}})
        until(lambda: len(move.look("SELECT 1 FROM whimbrel.chunks WHERE state = 'done'")) >= 2)
        server.kill()
        server.start()
        assert worker.wait(90) == 0, move.log("snapshot")
        ends_equal(move, database)


def test_a_log_purged_during_the_copy_stops_it_with_the_reason(postgres_move: Move) -> None:
    move = postgres_move
    with own_source(move) as (server, database):
        worker = move.start("snapshot", failpoint="snapshot.after_commit:2", **OPTIONS)
        assert worker.wait(60) == -signal.SIGKILL
        with closing(server.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO narrow VALUES (1000000, 1)")
            cursor.execute("FLUSH BINARY LOGS")
            cursor.execute("PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY")
        code, report = move.run("snapshot", **OPTIONS)
    assert code == 3
    assert report.last_error is not None
    assert "no longer reaches back to the checkpoint" in report.last_error.what
