"""`whimbrel run` while a server is away: said in words, tried again with growing waits, nothing lost."""

import time
from contextlib import closing
from dataclasses import replace

import pytest

from support.live_run import LiveRun, at_least
from support.moves import Move
from whimbrel_api.migration import Phase
from whimbrel_testbed.mysql import MySQLServer, mysql_server
from whimbrel_testbed.processes import free_port

pytestmark = pytest.mark.timeout(180)
STREAM = "stream-0"


def failures(live: LiveRun, name: str) -> int:
    """How often that task has failed so far."""
    known = next((each.known() for each in live.store.instances(live.key) if each.name == name), None)
    return known.failures if known is not None else 0


def starts(live: LiveRun) -> int:
    """How many processes have signed in to the task's log."""
    return sum(
        "whimbrel_worker.runner: begins" in line for line in live.store.log_tail(live.key, 1000).get("preflight-0", ())
    )


def test_an_unreachable_source_is_named_and_tried_again_with_growing_waits(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    move = postgres_move
    move.mysql = replace(move.mysql, port=free_port())
    live = LiveRun(move, mysql, mysql_database)
    with live.started() as run:
        live.until(lambda _: failures(live, "preflight-0") >= 1)
        first = time.monotonic()
        status = live.until(lambda _: failures(live, "preflight-0") >= 3)
        assert time.monotonic() - first >= 2.0, "the second and third wait are longer than a second each"
        assert run.poll() is None, "it goes on"
        assert starts(live) <= 4
        said = " | ".join(condition.message for condition in status.conditions)
    assert status.phase is Phase.PREFLIGHT
    assert "the source cannot be reached" in said
    assert f"127.0.0.1:{move.mysql.port}" in said
    assert "network policy" in said


def test_a_source_that_dies_and_comes_back_loses_nothing(postgres_move: Move, mysql_database: str) -> None:
    """The stream's worker outlives the outage, says unknown rather than 0, and does not hammer at the door."""
    with mysql_server() as server:
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {mysql_database}_away")
        database = f"{mysql_database}_away"
        move = postgres_move
        move.mysql, move.tables = server.migration, {"include": [f"{database}.*"]}
        live = LiveRun(move, server, database)
        live.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)")
        with live.started() as run:
            live.until(at_least(Phase.FOLLOWING))
            live.execute("INSERT INTO t VALUES (2, 2)")
            server.kill()
            closed = live.until(
                lambda status: any(
                    each.type == "LagWithinThreshold" and each.status != "True" for each in status.conditions
                )
            )
            assert closed.stream.lag_seconds is None or closed.stream.lag_seconds > 0
            assert failures(live, STREAM) <= 2
            server.start()
            live.execute("INSERT INTO t VALUES (3, 3)")
            live.until(lambda _: live.move.look(f'SELECT count(*) FROM "{database}".t') == [(3,)])
            assert run.poll() is None
            lines = live.store.log_tail(live.key, 1000)[STREAM]
            assert len([line for line in lines if " WARNING " in line or " ERROR " in line]) <= 6, "no flood"
        assert live.differences(["t"]) == []
