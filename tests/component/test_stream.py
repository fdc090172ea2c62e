"""The stream task as a real process: MySQL's log arrives in the target, whatever its transactions look like."""

import random
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from support.churn import CHURNED, churn, make_churned
from support.streams import Lab, WorkerProcess
from support.unique import follow_with_indexes

ALL_TYPES = """CREATE TABLE every_type (
  id BIGINT PRIMARY KEY, t TINYINT, tu TINYINT UNSIGNED, s SMALLINT, su SMALLINT UNSIGNED, m MEDIUMINT,
  mu MEDIUMINT UNSIGNED, i INT, iu INT UNSIGNED, b BIGINT, bu BIGINT UNSIGNED, d DECIMAL(20,6), dz DECIMAL(65,30),
  f FLOAT, g DOUBLE, c CHAR(10), v VARCHAR(200), vl VARCHAR(40) CHARACTER SET latin1, tx TEXT, lt LONGTEXT,
  bi BINARY(6), vb VARBINARY(50), bl BLOB, da DATE, dt DATETIME, dt6 DATETIME(6), ts TIMESTAMP NULL,
  ts3 TIMESTAMP(3) NULL, ti TIME, ti2 TIME(2), y YEAR, flag TINYINT(1))"""
EXTREMES = [
    "(1, -128, 255, -32768, 65535, -8388608, 16777215, -2147483648, 4294967295, -9223372036854775808,"
    " 18446744073709551615, -99999999999999.999999,"
    " 99999999999999999999999999999999999.999999999999999999999999999999, -3.4e38, 1.7e308, 'ab  ',"
    " 'tab\\tback\\\\quote\"{},', 'é', '', REPEAT('x', 100000), x'610000', x'00ff', x'', '1000-01-01',"
    " '9999-12-31 23:59:59', '2024-02-29 12:00:00.000001', '1970-01-01 00:00:01', '2038-01-19 03:14:07.999',"
    " '00:00:00', '23:59:59.99', 1901, 1)",
    "(2, 127, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -0.0, 'é日本😀', '😀', 'ÿ', 'NULL', NULL, x'', NULL, x'5c5c',"
    " '2024-01-01', '2024-01-01 00:00:00', NULL, NULL, NULL, '12:34:56', NULL, 2155, 0)",
    "(3" + ", NULL" * 31 + ")",
    "(4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0.1, 0.000000000000000000000000000001, 0.1, 0.1, '', '', '', 'a\\nb', 'c', 'x',"
    " 'y', 'z', '2024-01-01', '2024-01-01', '2024-01-01', '2024-01-01', '2024-01-01', '1:2:3', '1:2:3.4', 2024, 7)",
]


def test_every_type_arrives_as_a_snapshot_would_bring_it(lab: Lab) -> None:
    lab.execute(ALL_TYPES)
    lab.prepare()
    worker = lab.stream()
    lab.execute(*[f"INSERT INTO every_type VALUES {row}" for row in EXTREMES])
    lab.execute(
        "INSERT INTO every_type (id) VALUES (50)", "UPDATE every_type SET f = 1.1, lt = REPEAT('y', 70000) WHERE id = 2"
    )
    lab.execute("DELETE FROM every_type WHERE id = 50", "UPDATE every_type SET id = 40 WHERE id = 4")
    lab.drain(worker)
    assert lab.differences(["every_type"]) == []
    assert worker.retire().stream is not None


def test_the_same_key_again_and_again_and_keys_that_move(lab: Lab) -> None:
    lab.execute(
        "CREATE TABLE items (id INT PRIMARY KEY, v VARCHAR(20), n INT)",
        "CREATE TABLE pairs (a INT, b VARCHAR(10) COLLATE utf8mb4_bin, n INT, PRIMARY KEY (b, a))",
    )
    lab.prepare()
    worker = lab.stream()
    lab.execute(
        "INSERT INTO items VALUES (1,'a',0),(2,'b',0),(3,'c',0),(4,'d',0)",
        *[f"UPDATE items SET n = {n} WHERE id = 1" for n in range(50)],
        "UPDATE items SET id = 10 WHERE id = 1", "INSERT INTO items VALUES (1,'new',1)",
        "UPDATE items SET id = 11 WHERE id = 10", "UPDATE items SET id = 10 WHERE id = 2",
        "BEGIN", "UPDATE items SET id = -1 WHERE id = 3", "UPDATE items SET id = 3 WHERE id = 4",
        "UPDATE items SET id = 4 WHERE id = -1", "COMMIT",
        "DELETE FROM items WHERE id = 11", "INSERT INTO items VALUES (11,'back',2)", "DELETE FROM items WHERE id = 11",
        "UPDATE items SET id = id + 100 ORDER BY id DESC",
        "BEGIN", "INSERT INTO pairs VALUES (1,'x',1),(1,'X',2),(2,'x',3)",
        "UPDATE pairs SET b = 'y' WHERE b = 'x'", "UPDATE pairs SET b = 'x' WHERE b = 'X'",
        "UPDATE items SET n = 7", "DELETE FROM pairs WHERE a = 2", "COMMIT",
    )  # fmt: skip
    lab.drain(worker)
    assert lab.differences(["items", "pairs"]) == []
    assert lab.look(f'SELECT count(*) FROM "{lab.database}".items')[0][0] == 4


def test_unique_values_that_move_between_rows(lab: Lab) -> None:
    lab.execute("CREATE TABLE users (id INT PRIMARY KEY, mail VARCHAR(20) UNIQUE, n INT)")
    lab.execute("INSERT INTO users VALUES (1,'a',0),(2,'b',0),(3,'c',0)")
    lab.prepare(start=False)
    worker = follow_with_indexes(lab, ["users"])
    rng = random.Random(7)
    print("seed 7")
    for _ in range(40):
        first, second = rng.sample([1, 2, 3], 2)
        lab.execute(
            "BEGIN", f"SET @a = (SELECT mail FROM users WHERE id = {first})",
            f"SET @b = (SELECT mail FROM users WHERE id = {second})",
            f"UPDATE users SET mail = 'tmp' WHERE id = {first}", f"UPDATE users SET mail = @a WHERE id = {second}",
            f"UPDATE users SET mail = @b, n = n + 1 WHERE id = {first}", "COMMIT",
            f"DELETE FROM users WHERE id = {first}", f"INSERT INTO users VALUES ({first + 3}, @b, 9)",
            f"UPDATE users SET id = {first} WHERE id = {first + 3}",
        )  # fmt: skip
    lab.drain(worker)
    assert lab.differences(["users"]) == []
    assert worker.retire().tables[0].state == "Following"


def test_a_big_transaction_is_cut_and_its_position_comes_at_its_end(lab: Lab) -> None:
    lab.execute("CREATE TABLE big (id INT PRIMARY KEY, v VARCHAR(100))", "CREATE TABLE small (id INT PRIMARY KEY)")
    lab.prepare()
    before = lab.position()
    worker = lab.stream(flush="20ms")
    with closing(lab.mysql.connect(lab.database, autocommit=False)) as connection, connection.cursor() as cursor:
        for start in range(0, 50_000, 5000):
            cursor.executemany("INSERT INTO big VALUES (%s, %s)", [(n, "x" * 80) for n in range(start, start + 5000)])
        cursor.execute("INSERT INTO small VALUES (1)")
        connection.commit()
    rows, positions = 0, {before}
    while rows < 50_000:
        positions |= set(lab.positions().values()) if 0 < rows < 50_000 else set()
        rows = lab.look(f'SELECT count(*) FROM "{lab.database}".big')[0][0]
        worker.wait_for(lambda: True, "alive")
    lab.drain(worker)
    assert lab.differences(["big", "small"]) == []


def test_empty_transactions_move_the_position_of_an_idle_stream(stream_to_postgres: Lab) -> None:
    lab = stream_to_postgres
    lab.execute("CREATE TABLE t (id INT PRIMARY KEY)")
    lab.prepare()
    worker = lab.stream(checkpoint="300ms")
    worker.wait_for(lambda: worker.stream().lag_seconds == 0, "the end of the log is proven")
    lab.execute("CREATE TABLE IF NOT EXISTS t (id INT PRIMARY KEY)", "SET gtid_next = AUTOMATIC", "FLUSH TABLES")
    goal = lab.position()
    worker.wait_for(lambda: set(lab.positions().values()) == {goal}, "all lanes' rows hold the source's position", 10)
    worker.wait_for(lambda: worker.stream().position == goal, "so does the report")
    assert worker.stream().changes_applied == 0


def test_the_lag_of_a_trickle_is_small_and_zero_comes_only_with_proof(stream_to_postgres: Lab) -> None:
    lab = stream_to_postgres
    lab.execute("CREATE TABLE t (id INT PRIMARY KEY, n INT)", "INSERT INTO t VALUES (1, 0)")
    lab.prepare()
    worker = lab.stream(flush="200ms")
    worker.wait_for(lambda: worker.stream().lag_seconds == 0, "lag 0")
    samples = []
    for number in range(60):
        lab.execute(f"UPDATE t SET n = {number}")
        samples.append(worker.stream().lag_seconds)
        time.sleep(0.02)  # the traffic's pace
    assert all(sample is not None and sample < 2 for sample in samples), samples
    lab.drain(worker)
    worker.wait_for(lambda: worker.stream().lag_seconds == 0, "lag 0 again")
    lab.mysql.suspend()
    try:
        worker.wait_for(lambda: worker.stream().lag_seconds is None, "a silent source makes the lag unknown", 15)
    finally:
        lab.mysql.resume()
    worker.wait_for(lambda: worker.stream().lag_seconds == 0, "it comes back", 30)


def test_a_drain_is_reported_only_when_the_target_holds_the_position(stream_to_postgres: Lab) -> None:
    lab = stream_to_postgres
    lab.execute("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    lab.prepare()
    worker = lab.stream(checkpoint="60s", flush="10s")
    with closing(lab.mysql.connect(lab.database)) as connection, connection.cursor() as cursor:
        for start in range(5):
            cursor.executemany("INSERT INTO t VALUES (%s, 0)", [(start * 1000 + n,) for n in range(1000)])
    began = time.monotonic()
    position = lab.drain(worker)
    assert time.monotonic() - began < 8, "a drain waits for no interval"
    assert set(lab.positions().values()) == {position}
    assert lab.look(f'SELECT count(*) FROM "{lab.database}".t') == [(5000,)]
    report = worker.retire()
    assert report.stream is not None
    assert report.stream.drained_to == position, "the last report still says it"


@pytest.mark.parametrize("signal", ["terminate", "retire"])
def test_told_to_end_it_writes_what_it_has(stream_to_postgres: Lab, signal: str) -> None:
    lab = stream_to_postgres
    lab.execute("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    lab.prepare()
    worker = lab.stream(flush="30s", checkpoint="60s")
    worker.wait_for(lambda: worker.stream().lag_seconds == 0, "it follows")
    lab.execute("INSERT INTO t VALUES (1,1),(2,2)")
    worker.wait_for(lambda: (worker.stream().lag_seconds or 0) > 0.2, "the change is pending")
    if signal == "retire":
        worker.retire()
    else:
        assert worker.terminate() == 5, worker.log()
    assert lab.differences(["t"]) == []
    assert set(lab.positions().values()) == {lab.position()}


def applied_some(worker: WorkerProcess) -> Callable[[], bool]:
    return lambda: worker.stream().changes_applied > 20


def test_lanes_from_4_to_2_to_4(lab: Lab) -> None:
    make_churned(lab)
    lab.prepare()
    rng = random.Random(11)
    print("seed 11")
    for lanes in (4, 2, 4):
        worker = lab.stream(lanes=lanes, checkpoint="60s")
        churn(lab, rng, 100)
        worker.wait_for(applied_some(worker), "some are applied")
        worker.kill()
    worker = lab.stream(lanes=2)
    lab.drain(worker)
    assert set(lab.positions()) == {0, 1, 2}
    assert lab.differences(CHURNED) == []


def test_ddl_stops_its_table_and_the_others_go_on(lab: Lab) -> None:
    lab.execute("CREATE TABLE kept (id INT PRIMARY KEY)", "CREATE TABLE altered (id INT PRIMARY KEY, n INT)")
    lab.prepare()
    worker = lab.stream()
    worker.wait_for(lambda: worker.stream().lag_seconds == 0, "it follows")
    lab.execute(
        "INSERT INTO kept VALUES (1)", "INSERT INTO altered VALUES (1, 1)", "CREATE TABLE fresh (id INT PRIMARY KEY)",
        "ALTER TABLE altered ADD COLUMN extra INT FIRST", "INSERT INTO altered VALUES (2, 2, 2)",
        "INSERT INTO kept VALUES (2)",
    )  # fmt: skip
    lab.drain(worker)
    report = worker.retire()
    states = {table.name.partition(".")[2]: table for table in report.tables}
    assert {name: table.state for name, table in states.items()} == {"kept": "Following", "altered": "Stopped"}
    assert "ALTER TABLE altered ADD COLUMN extra INT FIRST" in states["altered"].message
    assert lab.differences(["kept"]) == []
    assert lab.look(f'SELECT id FROM "{lab.database}".altered WHERE id > 1') == []
    again = lab.stream()
    lab.execute("INSERT INTO kept VALUES (3)")
    lab.drain(again)
    assert "ALTER TABLE altered" in stopped(again, lab)[0]
    assert "made after the migration began" in stopped(again, lab)[1]
    assert again.terminate() == 5
    lab.execute("DROP TABLE kept")
    assert any("has no such table any more" in message for message in stopped(lab.stream(), lab))


def test_a_value_that_the_target_refuses_stops_its_table(lab: Lab) -> None:
    lab.execute("CREATE TABLE kept (id INT PRIMARY KEY, n INT)", "CREATE TABLE nul (id INT PRIMARY KEY, v VARCHAR(10))")
    lab.prepare()
    worker = lab.stream()
    lab.execute(
        "INSERT INTO nul VALUES (1, 'good')", "BEGIN", "INSERT INTO kept VALUES (1, 1), (2, 2), (3, 3), (4, 4)",
        "INSERT INTO nul VALUES (2, 'a\\0b')", "UPDATE kept SET n = 9", "COMMIT", "INSERT INTO nul VALUES (3, 'later')",
    )  # fmt: skip
    lab.drain(worker)
    assert lab.differences(["kept"]) == []
    (message,) = stopped(worker, lab)
    assert "does not take a value" in message


def stopped(worker: WorkerProcess, lab: Lab) -> list[str]:
    worker.wait_for(lambda: worker.stream().position != "", "it reports")
    report = worker.report()
    assert report is not None
    return [table.message for table in report.tables if table.state == "Stopped"]


def test_hostile_names_and_columns_that_are_not_carried(lab: Lab) -> None:
    lab.execute(
        "CREATE TABLE `we``ird \"t; --` (`a\"b` INT, `id``%s` INT PRIMARY KEY, `x'y` VARCHAR(9) NOT NULL DEFAULT '')",
        "INSERT INTO `we``ird \"t; --` VALUES (1, 1, 'a')",
    )
    lab.prepare()
    worker = lab.stream()
    lab.execute(
        "INSERT INTO `we``ird \"t; --` VALUES (2, 2, 'b')", 'UPDATE `we``ird "t; --` SET `a"b` = 5 WHERE `id``%s` = 2'
    )
    lab.drain(worker)
    assert lab.look(f'SELECT * FROM "{lab.database}"."we`ird ""t; --"') == [(5, 2, "b")]
