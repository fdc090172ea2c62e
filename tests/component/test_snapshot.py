"""The snapshot, end to end, on real servers: every type, hostile names, odd keys, several workers."""

from contextlib import closing

import pytest

from support.moves import Move
from whimbrel_testbed.mysql import MySQLServer

EVERY_TYPE = """
CREATE TABLE every_type (
  id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  i8 TINYINT, u8 TINYINT UNSIGNED, flag TINYINT(1), i16 SMALLINT, u16 SMALLINT UNSIGNED, i24 MEDIUMINT,
  u24 MEDIUMINT UNSIGNED, i32 INT, u32 INT UNSIGNED, i64 BIGINT, u64 BIGINT UNSIGNED, z INT(6) ZEROFILL,
  small DECIMAL(5,2), large DECIMAL(65,30), whole DECIMAL(20,0), f32 FLOAT, f64 DOUBLE,
  c CHAR(10), v VARCHAR(255), v0 VARCHAR(0), long_v VARCHAR(20000) CHARACTER SET latin1, l1 VARCHAR(40) CHARACTER SET
  latin1, tt TINYTEXT, t TEXT,
  mt MEDIUMTEXT, lt LONGTEXT, b BINARY(4), vb VARBINARY(300), tb TINYBLOB, bl BLOB, mb MEDIUMBLOB, lb LONGBLOB,
  d DATE, dt DATETIME, dt6 DATETIME(6), ts TIMESTAMP NULL, ts3 TIMESTAMP(3) NULL, t0 TIME, t6 TIME(6), y YEAR
)"""
FULL_ROW = (
    "18446744073709551615, -128, 255, 7, -32768, 65535, -8388608, 16777215, -2147483648, 4294967295,"
    " -9223372036854775808, 18446744073709551615, 42, -999.99,"
    " 12345678901234567890123456789012345.000000000000000000000000000001,"
    " 99999999999999999999, 0.1, 0.1, 'c', 'tab\\tnew\\nline\\r\\\\ \"quote\" {brace} \\'', '', REPEAT('ü', 16000),"
    " _utf8mb4'Ä€', '', 'NULL', '\\\\N', REPEAT('😀', 70000), x'00ff',"
    " x'f8f9fafbfcfdfeff5c0a', x'', REPEAT(x'00', 300),"
    " REPEAT(x'fb', 70000), REPEAT(x'f8', 250), '9999-12-31', '1000-01-01 00:00:00', '2024-02-29 23:59:59.999999',"
    " '2038-01-19 03:14:07', '1970-01-01 00:00:01.001', '00:00:00', '23:59:59.999999', 2155"
)


def load(mysql: MySQLServer, database: str, *statements: str) -> None:
    with closing(mysql.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION cte_max_recursion_depth = 1000000")
        for statement in statements:
            cursor.execute(statement)


def numbers(count: int) -> str:
    return f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"


def test_every_type_arrives(move: Move, mysql: MySQLServer, mysql_database: str) -> None:
    nulls = ", ".join(["NULL"] * 40)
    load(
        mysql,
        mysql_database,
        EVERY_TYPE,
        f"INSERT INTO every_type VALUES ({FULL_ROW})",
        f"INSERT INTO every_type VALUES (0, {nulls}), (1, {nulls})",
        "INSERT INTO every_type (id, f64, f32, small, v, dt) VALUES (2, -0.0, 1e-30, 0.00, ' pad ', '2024-01-01'), "
        "(3, 1.7976931348623157e308, 3.4e38, -0.01, 'a', '2024-01-01 00:00:01')",
    )
    move.prepare()
    code, report = move.run("snapshot")
    assert code == 0, report.last_error
    assert move.differences([f"{mysql_database}.every_type"]) == []
    assert report.rows_done == 5
    assert (report.tables[0].state, report.tables[0].rows_copied) == ("Copied", 5)
    found = move.look(
        f'SELECT f32::text, large::text, lb, z, ts::text FROM "{mysql_database}".every_type WHERE id > 100'
    )
    assert found[0][:2] == ("0.1", "12345678901234567890123456789012345.000000000000000000000000000001")
    assert found[0][2:4] == (b"\xf8" * 250, 42)


def test_keys_and_names_of_all_sorts(move: Move, mysql: MySQLServer, mysql_database: str) -> None:
    hostile = 'or%der `by` "x" \' \\ {é} select'
    key = "CHARACTER SET utf8mb4 COLLATE"
    load(
        mysql,
        mysql_database,
        "CREATE TABLE pair (b INT, a VARCHAR(20), c INT, PRIMARY KEY (a, b))",
        f"INSERT INTO pair {numbers(2000)} SELECT i % 40, CONCAT('k', i DIV 40), i FROM n",
        "CREATE TABLE triple (a SMALLINT, b DATE, c DECIMAL(6,2), v TEXT, PRIMARY KEY (a, b, c))",
        f"INSERT INTO triple {numbers(1500)}"
        " SELECT i % 3 - 1, DATE_ADD('2024-01-01', INTERVAL i % 7 DAY), i / 100, i FROM n",
        f"CREATE TABLE ci (k VARCHAR(30) {key} utf8mb4_0900_ai_ci PRIMARY KEY, v INT)",
        f"CREATE TABLE pad (k VARCHAR(30) {key} utf8mb4_general_ci PRIMARY KEY, v INT)",
        "CREATE TABLE lat (k VARCHAR(30) CHARACTER SET latin1 COLLATE latin1_swedish_ci PRIMARY KEY, v INT)",
        *(
            f"INSERT INTO {name} {numbers(600)} SELECT CONCAT(ELT(i % 6 + 1, 'a', 'B', 'é', 'Z', 'ß', ' '), i, "
            "ELT(i % 3 + 1, '', '\\t', '\\\\')), i FROM n"
            for name in ("ci", "pad", "lat")
        ),
        "CREATE TABLE clock (at TIMESTAMP(6), t TIME(3), PRIMARY KEY (at, t))",
        f"INSERT INTO clock {numbers(700)}"
        " SELECT DATE_ADD('2024-03-31 00:59:00.5', INTERVAL i SECOND), SEC_TO_TIME(i) FROM n",
        f"CREATE TABLE `{hostile.replace('`', '``')}` (`{hostile.replace('`', '``')}` INT PRIMARY KEY, `select` TEXT)",
        f"INSERT INTO `{hostile.replace('`', '``')}` {numbers(500)} SELECT i, CONCAT('v', i) FROM n",
        f"CREATE TABLE `{'n' * 63}` (id INT PRIMARY KEY, `{'c' * 63}` INT)",
        f"INSERT INTO `{'n' * 63}` VALUES (1, 1)",
        "CREATE TABLE `empty` (id INT PRIMARY KEY)",
        "CREATE TABLE only_key (id INT PRIMARY KEY)",
        f"INSERT INTO only_key {numbers(450)} SELECT i FROM n",
    )
    move.prepare()
    code, report = move.run("snapshot", snapshot={"chunkRows": 100})
    assert code == 0, report.last_error
    names = ["pair", "triple", "ci", "pad", "lat", "clock", hostile, "n" * 63, "empty", "only_key"]
    assert move.differences([f"{mysql_database}.{name}" for name in names]) == []
    assert {table.state for table in report.tables} == {"Copied"}
    chunks = dict(move.look("SELECT tbl, count(*) FROM whimbrel.chunks GROUP BY tbl"))
    assert chunks[f"{mysql_database}.pair"] == 21


def test_binary_keys(postgres_move: Move, mysql: MySQLServer, mysql_database: str) -> None:
    load(
        mysql,
        mysql_database,
        "CREATE TABLE bin (k VARBINARY(20), n BINARY(3), PRIMARY KEY (k, n))",
        f"INSERT INTO bin {numbers(900)} SELECT UNHEX(LPAD(HEX(i * 71 % 1000), 4, '0')), UNHEX('fb0a') FROM n",
    )
    postgres_move.prepare()
    code, report = postgres_move.run("snapshot", snapshot={"chunkRows": 100})
    assert code == 0, report.last_error
    assert postgres_move.differences([f"{mysql_database}.bin"]) == []


def test_rows_that_do_not_fit_one_transaction_are_split_by_bytes(
    move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    load(
        mysql,
        mysql_database,
        "CREATE TABLE blobs (id INT PRIMARY KEY, data MEDIUMBLOB, note LONGTEXT)",
        f"INSERT INTO blobs {numbers(40)} SELECT i, REPEAT(UNHEX('00fb5c27'), 200000), REPEAT('\"\\\\', 100000) FROM n",
    )
    move.prepare()
    code, report = move.run("snapshot")
    assert code == 0, report.last_error
    assert move.differences([f"{mysql_database}.blobs"]) == []
    assert report.counters.transactions > 8


def test_two_workers_share_the_work(move: Move, mysql: MySQLServer, mysql_database: str) -> None:
    load(
        mysql,
        mysql_database,
        "CREATE TABLE shared (id INT PRIMARY KEY, v VARCHAR(50))",
        f"INSERT INTO shared {numbers(20000)} SELECT i, CONCAT('value ', i) FROM n",
        *(f"CREATE TABLE small_{i} AS SELECT * FROM shared LIMIT 10" for i in range(5)),
        *(f"ALTER TABLE small_{i} ADD PRIMARY KEY (id)" for i in range(5)),
    )
    move.prepare()
    workers = [
        move.start("snapshot", index=index, workers=2, snapshot={"chunkRows": 500, "tablesInParallel": 2})
        for index in range(2)
    ]
    for index, worker in enumerate(workers):
        assert worker.wait(120) == 0, move.log("snapshot", index)
    assert (
        move.differences([f"{mysql_database}.{name}" for name in ("shared", *(f"small_{i}" for i in range(5)))]) == []
    )
    owners = move.look("SELECT DISTINCT owner FROM whimbrel.chunks ORDER BY owner")
    assert owners == [(0,), (1,)]
    assert len(move.look("SELECT 1 FROM whimbrel.journal WHERE step = 'snapshot-complete'")) == 1


def test_a_value_that_the_target_refuses_stops_its_table_only(
    move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    load(
        mysql,
        mysql_database,
        "SET SESSION sql_mode = ''",
        "CREATE TABLE good (id INT PRIMARY KEY)",
        "INSERT INTO good VALUES (1), (2)",
        "CREATE TABLE zero_date (id INT PRIMARY KEY, d DATE)",
        "INSERT INTO zero_date VALUES (1, '2024-01-01'), (2, '0000-00-00')",
        "CREATE TABLE long_time (id INT PRIMARY KEY, t TIME)",
        "INSERT INTO long_time VALUES (1, '838:59:59')",
        "CREATE TABLE nul (id INT PRIMARY KEY, v VARCHAR(9))",
        "INSERT INTO nul VALUES (1, 'a\\0b')",
    )
    move.prepare()
    code, report = move.run("snapshot")
    assert code == 0, report.last_error
    states = {table.name.partition(".")[2]: table for table in report.tables}
    assert states["good"].state == "Copied"
    for name in ("zero_date", "long_time", "nul"):
        assert states[name].state == "Stopped", name
        assert f"{mysql_database}.{name}" in states[name].message
    assert "0000-00-00" in states["zero_date"].message
    assert move.differences([f"{mysql_database}.good"]) == []


def test_a_table_that_vanishes_is_stopped_with_its_name(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    load(mysql, mysql_database, "CREATE TABLE gone (id INT PRIMARY KEY)", "CREATE TABLE kept (id INT PRIMARY KEY)")
    postgres_move.prepare()
    load(mysql, mysql_database, "DROP TABLE gone", "INSERT INTO kept VALUES (1)")
    code, report = postgres_move.run("snapshot")
    assert code == 0, report.last_error
    states = {table.name: table for table in report.tables}
    assert states[f"{mysql_database}.gone"].state == "Stopped"
    assert "no longer in the source" in states[f"{mysql_database}.gone"].message
    assert postgres_move.differences([f"{mysql_database}.kept"]) == []


def test_the_start_position_is_from_before_the_first_read_and_stays(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    load(mysql, mysql_database, "CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    postgres_move.prepare()
    assert postgres_move.run("snapshot")[0] == 0
    first = postgres_move.run("inspect")[1].record
    load(mysql, mysql_database, "INSERT INTO t VALUES (2)")
    assert postgres_move.run("snapshot")[0] == 0
    again = postgres_move.run("inspect")[1].record
    assert first is not None
    assert again is not None
    assert first.start_position
    assert again.start_position == first.start_position
    assert again.snapshot_complete


def test_rows_from_before_the_copy_are_overwritten_by_key(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    load(
        mysql,
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)",
        "INSERT INTO t VALUES (1, 'new'), (2, 'new')",
    )
    postgres_move.prepare()
    postgres_move.look(f"INSERT INTO \"{mysql_database}\".t VALUES (1, 'old') RETURNING 1")
    code, report = postgres_move.run("snapshot")
    assert code == 0, report.last_error
    assert postgres_move.differences([f"{mysql_database}.t"]) == []
    assert "held rows before the copy" in report.tables[0].message


@pytest.mark.parametrize("by_order", [False, True])
def test_the_rate_limit_holds(postgres_move: Move, mysql: MySQLServer, mysql_database: str, by_order: bool) -> None:
    import time

    from support.moves import order

    load(
        mysql,
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY)",
        f"INSERT INTO t {numbers(3000)} SELECT i FROM n",
    )
    postgres_move.prepare()
    options = {"chunkRows": 500} | ({} if by_order else {"rateLimit": {"rowsPerSecond": 1500}})
    if by_order:
        order(postgres_move.task("snapshot"), rowsPerSecond=1500)
    before = time.monotonic()
    assert postgres_move.run("snapshot", snapshot=options)[0] == 0
    # The last batch of 500 goes when the 2,500 before it are paid for, and one second is free.
    assert time.monotonic() - before > (3000 - 500) / 1500 - 1.0
