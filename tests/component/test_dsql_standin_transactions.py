"""Transactions on the DSQL stand-in: optimistic conflicts, faults at COMMIT, pipelines, prepared statements, COPY."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from whimbrel_testbed.dsql import DSQLServer, dsql_server

pytestmark = pytest.mark.timeout(60)

Connection = psycopg.Connection[tuple[object, ...]]
OC000 = r"^change conflicts with another transaction \(OC000\)$"
OC001 = r"^schema has been updated by another transaction \(OC001\)$"
OFF = {
    "conflict_rate": 0, "oc001_after_ddl": False, "drop_after_commit": 0, "drop_before_commit": 0,
    "slow_fresh_table": 0, "copy_supported": False, "limits": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[DSQLServer]:
    with dsql_server() as started:
        with psycopg.connect(**started.conninfo(), autocommit=True) as connection:
            connection.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        yield started


@pytest.fixture
def connect(server: DSQLServer) -> Iterator[Callable[[], Connection]]:
    """Opens connections outside autocommit, with three rows in table t; dials are off afterwards."""
    opened: list[Connection] = []

    def new() -> Connection:
        opened.append(psycopg.connect(**server.conninfo()))
        return opened[-1]

    with psycopg.connect(server.backend_conninfo) as behind:
        behind.execute("TRUNCATE t")
        behind.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    yield new
    server.control.set(**OFF)
    for connection in opened:
        connection.close()


def content(server: DSQLServer) -> list[tuple[object, ...]]:
    with psycopg.connect(server.backend_conninfo) as behind:
        return behind.execute("SELECT id, v FROM t ORDER BY id").fetchall()


def wait_for_copied_rows(server: DSQLServer) -> None:
    deadline = time.monotonic() + 10
    with psycopg.connect(server.backend_conninfo, autocommit=True) as behind:
        while behind.execute("SELECT FROM pg_stat_progress_copy WHERE tuples_processed > 1000").fetchone() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_second_to_commit_fails_at_commit(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    first, second = connect(), connect()
    assert second.execute("SELECT v FROM t WHERE id = 1").fetchone() == ("a",)
    first.execute("UPDATE t SET v = 'first' WHERE id = 1")
    first.commit()
    assert second.execute("UPDATE t SET v = 'second' WHERE id = 1").rowcount == 1
    with pytest.raises(psycopg.errors.SerializationFailure, match=OC000):
        second.commit()
    assert second.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert content(server)[0] == (1, "first")


def test_an_open_transaction_blocks_nobody_and_loses(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    idle, quick = connect(), connect()
    idle.execute("INSERT INTO t VALUES (10, 'idle')")
    idle.execute("UPDATE t SET v = 'idle' WHERE id = 1")
    started = time.monotonic()
    quick.execute("UPDATE t SET v = 'quick' WHERE id = 1")
    quick.commit()
    assert time.monotonic() - started < 2
    assert idle.execute("SELECT v FROM t WHERE id = 10").fetchone() == ("idle",)
    assert idle.execute("UPDATE t SET v = 'still' WHERE id = 2").rowcount == 1
    with pytest.raises(psycopg.errors.SerializationFailure, match=OC000):
        idle.commit()
    assert content(server) == [(1, "quick"), (2, "b"), (3, "c")]


def test_two_that_wait_for_each_other_do_not_hang(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    together = threading.Barrier(2)
    outcomes: dict[str, bool] = {}

    def run(name: str, rows: tuple[int, int]) -> None:
        connection = connect()
        try:
            connection.execute("UPDATE t SET v = %s WHERE id = %s", (name, rows[0]))
            together.wait(10)
            connection.execute("UPDATE t SET v = %s WHERE id = %s", (name, rows[1]))
            connection.commit()
            outcomes[name] = True
        except psycopg.errors.SerializationFailure:
            outcomes[name] = False

    threads = [threading.Thread(target=run, args=case) for case in (("one", (1, 2)), ("two", (2, 1)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert sorted(outcomes.values()) == [False, True]
    winner = next(name for name, won in outcomes.items() if won)
    assert content(server)[:2] == [(1, winner), (2, winner)]


def test_autocommit_statements_conflict_at_once(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    holder, other = connect(), connect()
    other.autocommit = True
    holder.execute("UPDATE t SET v = 'holder' WHERE id = 1")
    assert other.execute("UPDATE t SET v = 'other' WHERE id = 1").rowcount == 1
    with pytest.raises(psycopg.errors.SerializationFailure, match=OC000):
        holder.commit()
    assert content(server)[0] == (1, "other")


def test_counting_up_from_many_connections_loses_nothing(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    connections = [connect() for _ in range(4)]
    connections[0].execute("UPDATE t SET v = '0'")
    connections[0].commit()
    done = [0] * len(connections)

    def count(index: int) -> None:
        chosen = random.Random(f"{seed}-{index}")
        for _ in range(25):
            rows = chosen.sample((1, 2, 3), 2)
            while True:
                try:
                    for row in rows:
                        connections[index].execute("UPDATE t SET v = (v::int + 1)::text WHERE id = %s", (row,))
                    connections[index].commit()
                    break
                except psycopg.errors.SerializationFailure:
                    connections[index].rollback()
            done[index] += 2

    threads = [threading.Thread(target=count, args=(index,)) for index in range(len(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == [50] * 4
    assert sum(int(str(v)) for _, v in content(server)) == 200


def test_after_an_error_everything_is_refused_until_rollback(
    server: DSQLServer, connect: Callable[[], Connection]
) -> None:
    connection = connect()
    connection.execute("INSERT INTO t VALUES (20, 'x')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("INSERT INTO t VALUES (1, 'x')")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        connection.execute("SELECT 1")
    assert connection.execute("COMMIT").statusmessage == "ROLLBACK"
    assert len(content(server)) == 3


def test_a_commit_whose_reply_is_lost_is_done(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    connection = connect()
    connection.execute("INSERT INTO t VALUES (30, 'kept')")
    server.control.set(drop_after_commit=1)
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    assert connection.broken
    assert content(server)[-1] == (30, "kept")
    again = connect()
    again.execute("INSERT INTO t VALUES (31, 'second')")
    again.commit()


def test_a_connection_cut_before_the_commit_keeps_nothing(
    server: DSQLServer, connect: Callable[[], Connection]
) -> None:
    connection = connect()
    connection.execute("INSERT INTO t VALUES (30, 'lost')")
    server.control.set(drop_before_commit=1)
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    assert len(content(server)) == 3


def test_the_conflict_rate_strikes_commits_that_wrote(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    server.control.set(conflict_rate=1.0)
    before = server.control.counters()["conflicts"]
    connection = connect()
    connection.execute("SELECT 1")
    connection.commit()
    connection.execute("INSERT INTO t VALUES (40, 'x')")
    with pytest.raises(psycopg.errors.SerializationFailure, match=OC000):
        connection.commit()
    connection.autocommit = True
    with pytest.raises(psycopg.errors.SerializationFailure, match=OC000):
        connection.execute("INSERT INTO t VALUES (40, 'x')")
    with pytest.raises(psycopg.errors.SerializationFailure, match=OC000):
        connection.execute("INSERT INTO t VALUES (%s, 'x')", (40,))
    assert server.control.counters()["conflicts"] == before + 3
    assert len(content(server)) == 3


def test_ddl_makes_other_sessions_stale_once(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    server.control.set(oc001_after_ddl=True)
    reader, maker = connect(), connect()
    reader.execute("SELECT 1")
    reader.rollback()
    maker.autocommit = True
    maker.execute("CREATE TABLE IF NOT EXISTS fresh (id int PRIMARY KEY)")
    maker.execute("SELECT 1")
    with pytest.raises(psycopg.errors.SerializationFailure, match=OC001):
        reader.execute("SELECT 1")
    reader.rollback()
    assert reader.execute("SELECT 1").fetchone() == (1,)


def test_ddl_passes_a_transaction_left_open(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    idle, maker = connect(), connect()
    idle.execute("INSERT INTO t VALUES (50, 'x')")
    maker.autocommit = True
    maker.execute("ALTER TABLE t ADD COLUMN extra int")
    with pytest.raises(psycopg.errors.SerializationFailure, match=OC001):
        idle.commit()
    maker.execute("ALTER TABLE t DROP COLUMN extra")


def test_ddl_from_two_sessions_at_once_ends_in_oc001_or_well(connect: Callable[[], Connection]) -> None:
    together = threading.Barrier(4)
    outcomes: list[str] = []

    def make() -> None:
        connection = connect()
        connection.autocommit = True
        for number in range(10):
            together.wait(20)
            try:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS raced; SELECT {number}" if number == 0 else
                                   f"CREATE TABLE IF NOT EXISTS raced.t{number} (id int PRIMARY KEY)")  # fmt: skip
                outcomes.append("done")
            except psycopg.Error as error:
                outcomes.append(str(error.sqlstate))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert set(outcomes) <= {"done", "40001"}
    assert len(outcomes) == 40
    assert outcomes.count("done") >= 10


def test_pipeline_mode(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    connection = connect()
    with connection.pipeline():
        for number in range(100, 200):
            connection.execute("INSERT INTO t VALUES (%s, 'p')", (number,))
        counted = connection.execute("SELECT count(*) FROM t WHERE v = 'p'")
        assert counted.fetchone() == (100,)
        connection.commit()
        connection.execute("DELETE FROM t WHERE id = 100")
    connection.commit()
    assert len(content(server)) == 102


def test_a_pipeline_goes_on_after_its_error(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    connection = connect()
    connection.autocommit = True
    with connection.pipeline() as pipeline:
        connection.execute("INSERT INTO t VALUES (60, 'one')")
        pipeline.sync()
        connection.execute("INSERT INTO t VALUES (1, 'twice')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            pipeline.sync()
        connection.execute("INSERT INTO t VALUES (61, 'two')")
    assert content(server)[-1] == (61, "two")


def test_a_conflict_inside_a_pipeline(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    first, second = connect(), connect()
    second.execute("SELECT 1 FROM t")
    first.execute("UPDATE t SET v = 'first' WHERE id = 1")
    first.commit()
    with second.pipeline():
        second.execute("UPDATE t SET v = %s WHERE id = 1", ("second",))
        second.execute("INSERT INTO t VALUES (%s, 'second')", (70,))
        with pytest.raises(psycopg.errors.SerializationFailure, match=OC000):
            second.commit()
    second.rollback()
    assert content(server) == [(1, "first"), (2, "b"), (3, "c")]


def test_named_prepared_statements_survive_a_conflict(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    first, second = connect(), connect()
    update = "UPDATE t SET v = %s WHERE id = %s"
    second.execute("SELECT 1 FROM t")
    first.execute(update, ("first", 1), prepare=True)
    first.commit()
    with second.pipeline():
        updated = second.execute(update, ("second", 1), prepare=True)
    assert updated.rowcount == 1
    with pytest.raises(psycopg.errors.SerializationFailure):
        second.commit()
    for number in (1, 2, 3):
        assert second.execute(update, ("again", number), prepare=True).rowcount == 1
    second.commit()
    assert content(server) == [(1, "again"), (2, "again"), (3, "again")]


def test_megabytes_of_parameters(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    connection = connect()
    rows = 2_999
    ids = "{" + ",".join(str(number) for number in range(1_000, 1_000 + rows)) + "}"
    values = "{" + ",".join("x" * 400 for _ in range(rows)) + "}"
    upsert = "INSERT INTO t SELECT * FROM unnest(%s::int[], %s::text[]) ON CONFLICT (id) DO UPDATE SET v = excluded.v"
    for _ in range(2):
        assert connection.execute(upsert, (ids, values)).rowcount == rows
        connection.commit()
    read = connection.execute("SELECT sum(length(v)) FROM t WHERE id >= 1000").fetchone()
    assert read == (400 * rows,)
    assert len(connection.execute("SELECT repeat('y', 1000) FROM generate_series(1, 5000)").fetchall()) == 5_000
    assert len(connection.execute("SELECT repeat('y', 1000) FROM generate_series(1, %s)", (5_000,)).fetchall()) == 5_000


def test_several_statements_in_one_query_are_one_transaction(
    server: DSQLServer, connect: Callable[[], Connection]
) -> None:
    connection = connect()
    connection.autocommit = True
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("INSERT INTO t VALUES (80, 'a;b'); INSERT INTO t VALUES (1, 'x')")
    cursor = connection.execute("SELECT 'a;b'; /* ; */ BEGIN; INSERT INTO t VALUES (81, $$;$$); COMMIT; SELECT 2")
    assert cursor.fetchone() == ("a;b",)
    while cursor.nextset():
        pass
    assert cursor.fetchone() == (2,)
    assert content(server)[-1] == (81, ";")


def test_copy_by_its_dial(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    server.control.set(copy_supported=True)
    connection = connect()
    with connection.cursor() as cursor, cursor.copy("COPY t (id, v) FROM STDIN") as copy:
        for number in range(1_000, 4_000):
            copy.write_row((number, "copied"))
    connection.commit()
    assert len(content(server)) == 3_003
    copying = connection.cursor().copy("COPY t (id, v) FROM STDIN")
    with pytest.raises(psycopg.errors.ProgramLimitExceeded), copying as copy:
        copy.write("".join(f"{number}\tx\n" for number in range(5_000, 8_001)))
    connection.rollback()
    with connection.cursor() as cursor, cursor.copy("COPY t TO STDOUT") as copy:
        assert sum(1 for _ in copy.rows()) == 3_003


def test_a_copy_whose_client_has_stopped_is_cut(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    server.control.set(copy_supported=True)
    stopped, quick = connect(), connect()
    quick.autocommit = True

    def copy_and_stop() -> None:
        with stopped.cursor().copy("COPY t (id, v) FROM STDIN") as copy:
            copy.write("".join(f"{number}\t{'x' * 1_000}\n" for number in range(90, 2_000)))
            wait_for_copied_rows(server)
            quick.execute("INSERT INTO t VALUES (90, 'quick')")

    with pytest.raises(psycopg.OperationalError):
        copy_and_stop()
    assert content(server)[-1] == (90, "quick")


def test_a_fresh_table_is_slow_by_its_dial(server: DSQLServer, connect: Callable[[], Connection]) -> None:
    connection = connect()
    connection.autocommit = True
    connection.execute("CREATE TABLE young (id int PRIMARY KEY)")
    server.control.set(slow_fresh_table=1_000)
    started = time.monotonic()
    connection.execute("INSERT INTO young SELECT generate_series(1, 500)")
    assert time.monotonic() - started >= 0.5


def test_a_statement_can_be_cancelled(connect: Callable[[], Connection]) -> None:
    connection = connect()
    timer = threading.Timer(0.2, connection.cancel_safe)
    timer.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(20)")
    timer.join()
    connection.rollback()
    assert connection.execute("SELECT 1").fetchone() == (1,)
