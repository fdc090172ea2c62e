"""`spec.paused` over real servers: all workers gone within 30 s whatever they do, and nothing lost by it."""

import random
import time
from collections.abc import Callable

import pytest
from pymysql.cursors import Cursor

from support.churn import CHURNED, churning, make_churned
from support.item_faults import working
from support.item_moves import ItemMove, fill
from support.live_run import LiveRun, Run, at_least
from support.moves import Move
from support.patience import eventually
from whimbrel_api.base import Condition
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.mysql import MySQLServer

pytestmark = pytest.mark.timeout(240)
MOST_SECONDS = 30.0
SLOW_COPY = {"workers": 2, "chunkRows": 200, "rateLimit": {"rowsPerSecond": 400}}


def condition(status: MigrationStatus, kind: str) -> Condition:
    return next(each for each in status.conditions if each.type == kind)


def paused(live: Run) -> float:
    """Pause it; after how many seconds no worker was left."""
    began = time.monotonic()
    live.store.patch_spec(live.key, {"paused": True})
    eventually(lambda: live.workers() == {}, live.log, seconds=MOST_SECONDS, often=0.05)
    took = time.monotonic() - began
    live.until(lambda status: condition(status, "Paused").status == "True")
    return took


def resumed(live: Run) -> None:
    live.store.patch_spec(live.key, {"paused": False})
    live.until(lambda status: condition(status, "Paused").status == "False")


def copying(status: MigrationStatus) -> bool:
    return status.phase is Phase.SNAPSHOT and status.snapshot.rows_copied > 0


def paused_in_copy_and_stream(live: Run, rng: random.Random) -> None:
    """Under traffic: paused in the copy, taken up, paused in the stream until its retention runs out, taken up."""
    with live.started():
        live.until(copying)
        time.sleep(rng.uniform(0, 1.0))  # the moment of the pause, not a wait for anything
        print(f"the copy's workers were gone after {paused(live):.2f} s")
        held = live.status()
        assert held.phase is Phase.SNAPSHOT
        resumed(live)
        copied = live.until(lambda status: status.snapshot.rows_copied > held.snapshot.rows_copied)
        assert copied.epoch == held.epoch
        live.until(at_least(Phase.CATCH_UP))
        live.until(lambda status: bool(status.stream.position) and status.stream.changes_applied > 0)
        time.sleep(rng.uniform(0, 1.0))
        print(f"the stream's workers were gone after {paused(live):.2f} s")
        near = live.until(lambda status: condition(status, "RetentionNear").status == "True")
        assert near.stream.retention_deadline is not None
        assert near.checkpoint.position
        assert live.workers() == {}, "somebody moved on while it was paused"
        said = condition(near, "RetentionNear")
        assert said.reason == "RetentionNear"
        assert "whimbrel resume shop" in said.message
        assert near.stream.retention_deadline.isoformat(timespec="seconds") in said.message
        resumed(live)
        live.until(lambda status: condition(status, "RetentionNear").status == "False")
        live.until(lambda status: status.stream.changes_applied > 0)
    assert "RetentionNear" in [event.reason for event in live.events()]


def settled(live: Run, differences: Callable[[], list[str]]) -> None:
    """The traffic has ended: after a while both sides are the same."""
    with live.started():
        eventually(lambda: differences() == [], lambda: (differences(), live.log()), often=0.5)


@pytest.mark.parametrize("seed", [3])
def test_mysql_paused_at_random_moments(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str, seed: int
) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    stream = {"retentionGuard": 0.05, "checkpointInterval": "1s"}
    live = LiveRun(postgres_move, mysql, mysql_database, snapshot=SLOW_COPY, stream=stream)
    make_churned(live, 700)

    def differences() -> list[str]:
        return live.differences(CHURNED)

    with mysql.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@GLOBAL.binlog_expire_logs_seconds")
        before = cursor.fetchone()[0]
        cursor.execute("SET GLOBAL binlog_expire_logs_seconds = 120")
        try:
            with churning(live, rng, 700):
                paused_in_copy_and_stream(live, rng)
            settled(live, differences)
        finally:
            cursor.execute("SET GLOBAL binlog_expire_logs_seconds = %s", (before,))


@pytest.mark.parametrize("seed", [4])
def test_items_paused_at_random_moments(moving: ItemMove, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    table = moving.table("orders")
    fill(moving.origin, table, range(1500), seed)
    live = Run(moving, snapshot=SLOW_COPY, stream={"retentionGuard": 0.0001})

    def differences() -> list[str]:
        return moving.differences(table)

    with working(moving, table, seed, 1500, pause=0.05):
        paused_in_copy_and_stream(live, rng)
    settled(live, differences)


def test_a_cancelled_migration_leaves_no_client_on_the_source_and_the_target_as_it_is(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    with mysql.connect(mysql_database) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY)")
        cursor.execute("INSERT INTO t VALUES (1), (2)")
        postgres_move.prepare()
        assert postgres_move.run("snapshot")[0] == ExitCode.DONE
        stream = postgres_move.start("stream")
        try:
            eventually(lambda: clients(cursor, mysql) == 1, lambda: postgres_move.log("stream"))
            assert postgres_move.run("fence", fence={"step": "cancelled"})[0] == ExitCode.DONE
            cursor.execute("INSERT INTO t VALUES (3)")
            assert stream.wait(MOST_SECONDS) == ExitCode.FENCED_OUT, postgres_move.log("stream")
        finally:
            stream.kill()
            stream.wait()
        eventually(lambda: clients(cursor, mysql) == 0)
    assert postgres_move.look(f'SELECT id FROM "{mysql_database}".t ORDER BY id') == [(1,), (2,)]
    steps = [step for (step,) in postgres_move.look("SELECT step FROM whimbrel.journal ORDER BY number")]
    assert steps[-1] == "cancelled"


def clients(cursor: Cursor, mysql: MySQLServer) -> int:
    """How many replication clients the migration's account has."""
    count = "SELECT count(*) FROM information_schema.processlist WHERE user = %s AND command LIKE 'Binlog Dump%%'"
    cursor.execute(count, (mysql.migration.user,))
    found = cursor.fetchone()
    assert found is not None
    return int(found[0])
