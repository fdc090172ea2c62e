"""The MySQL source on a real server: ranges and their plans, memory, discovery at scale, privileges of the SQL it
sends."""

import random
import resource
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from whimbrel_api.base import SecretKeyRef, SecretRef, Tls
from whimbrel_api.endpoints import MySQLSource as MySQLSpec
from whimbrel_api.migration import Tables
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_worker.endpoints.mysql import sqltext
from whimbrel_worker.endpoints.mysql.source import MySQLSource
from whimbrel_worker.endpoints.postgres.server import PROFILE
from whimbrel_worker.errors import Incompatible, SourceLogLost
from whimbrel_worker.secrets import Secrets
from whimbrel_worker.values.columns import Kind, Table
from whimbrel_worker.values.keys import key_text


def load(mysql: MySQLServer, database: str, *statements: str) -> None:
    with closing(mysql.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION cte_max_recursion_depth = 1000000")
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def source(mysql: MySQLServer, mysql_database: str, tmp_path: Path) -> MySQLSource:
    (tmp_path / "username").write_text(mysql.migration.user)
    (tmp_path / "password").write_text(mysql.migration.password)
    (tmp_path / "ca.crt").write_bytes(Path(mysql.ca_file).read_bytes())
    spec = MySQLSpec(
        host=mysql.host,
        port=mysql.port,
        credentials_secret_ref=SecretRef(name="mysql"),
        tls=Tls(ca_secret_ref=SecretKeyRef(name="mysql")),
    )
    return MySQLSource(spec, Secrets({"mysql": str(tmp_path)}), Tables(include=[f"{mysql_database}.*"]), PROFILE)


def only(source: MySQLSource) -> Table:
    tables, problems = source.discover()
    assert not [problem for problem in problems if problem.fatal]
    (table,) = tables
    return table


KEYS = {
    "int pair": ("a INT, b INT", "i % 7 - 3, i DIV 7"),
    "text and date": (
        "a VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_as_ci, b DATE",
        "ELT(i % 5 + 1, 'a', 'É', 'e', 'zz', 'Ω'), DATE_ADD('2024-01-01', INTERVAL i DAY)",
    ),
    "latin1": (
        "a VARCHAR(20) CHARACTER SET latin1, b SMALLINT UNSIGNED",
        "ELT(i % 5 + 1, 'ä', 'a', '€', 'z', ''), i",
    ),
    "utf8mb3 with spaces": (
        "a VARCHAR(20) CHARACTER SET utf8mb3 COLLATE utf8mb3_general_ci, b INT",
        "CONCAT(ELT(i % 3 + 1, 'x', 'x\\t', 'X!'), i % 11), i",
    ),
    "decimal and binary": (
        "a DECIMAL(10,3), b VARBINARY(9)",
        "(i % 9) / 8 - 0.5, UNHEX(SHA2(i, 256) COLLATE utf8mb4_bin)",
    ),
    "moments": (
        "a DATETIME(6), b TIME(2)",
        "DATE_ADD('2024-02-29 23:59:59.5', INTERVAL i % 9 MICROSECOND), SEC_TO_TIME(i - 150)",
    ),
    "year and tiny": ("a YEAR, b BIGINT UNSIGNED", "2000 + i % 5, 18446744073709551615 - i"),
}


@pytest.mark.parametrize("case", KEYS)
def test_ranges_join_without_gap_or_overlap(
    mysql: MySQLServer, mysql_database: str, source: MySQLSource, case: str
) -> None:
    columns, values = KEYS[case]
    values = values.replace("UNHEX(SHA2(i, 256) COLLATE utf8mb4_bin)", "UNHEX(LEFT(SHA2(i, 256), 18))")
    load(
        mysql,
        mysql_database,
        f"CREATE TABLE t ({columns}, PRIMARY KEY (a, b))",
        "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
        f" SELECT {values} FROM n",
    )
    table = only(source)
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    with source.reader() as reader:
        whole = [row for block in reader.rows(table, None, None, 1000) for row in block]
        assert len(whole) == 300 == reader.count(table)
        pieces: list[Any] = []
        low = None
        while True:
            high = reader.boundary(table, low, rng.randrange(1, 60))
            pieces += [row for block in reader.rows(table, low, high, rng.randrange(1, 40)) for row in block]
            if high is None:
                break
            low = high
        assert pieces == whole
        some = [tuple(table.key_of(row)) for row in rng.sample(whole, 40)]
        assert sorted(reader.by_keys(table, some), key=repr) == sorted(
            (row for row in whole if table.key_of(row) in some), key=repr
        )
        assert explained(
            mysql, table, key_text(table, table.key_of(whole[100])), key_text(table, table.key_of(whole[200]))
        )


def explained(mysql: MySQLServer, table: Table, low: tuple[str, ...], high: tuple[str, ...]) -> bool:
    """Whether MySQL reads a range of the primary key without sorting, for the rows and for the boundary."""
    with closing(mysql.connect()) as connection, connection.cursor() as cursor:
        for statement in (
            sqltext.select_range(table, low, high, "PRIMARY"),
            sqltext.select_boundary(table, low, 50, "PRIMARY"),
        ):
            cursor.execute("EXPLAIN FORMAT=TRADITIONAL " + statement)
            (plan,) = cursor.fetchall()
            names = [item[0] for item in cursor.description]
            found = dict(zip(names, plan, strict=True))
            assert (found["type"], found["key"]) == ("range", "PRIMARY"), found
            assert "filesort" not in (found["Extra"] or ""), found
    return True


def test_a_batch_is_bounded_in_bytes_and_memory_with_it(
    mysql: MySQLServer, mysql_database: str, source: MySQLSource
) -> None:
    load(
        mysql,
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY, data MEDIUMBLOB)",
        "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120)"
        " SELECT i, REPEAT(UNHEX('fbff'), 500000) FROM n",
        "INSERT INTO t VALUES (500, REPEAT('x', 12000000)), (501, '')",
    )
    table = only(source)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with source.reader() as reader:
        sizes = [(len(block), block.size) for block in reader.rows(table, None, None, 50_000)]
    assert sum(rows for rows, _ in sizes) == 122
    assert max(size for _, size in sizes) < 14 << 20
    assert max(rows for rows, size in sizes if size < 4 << 20) < 10
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 80 << 10, f"{grown >> 10} MB more for 132 MB of rows"


def test_a_row_that_no_memory_bound_could_hold_is_refused(
    mysql: MySQLServer, mysql_database: str, source: MySQLSource
) -> None:
    load(
        mysql,
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY, data LONGBLOB)",
        "INSERT INTO t VALUES (1, REPEAT('x', 17000000))",
    )
    table = only(source)
    with source.reader() as reader:
        with pytest.raises(Incompatible, match="16 MiB") as raised:
            list(reader.rows(table, None, None, 10))
        assert raised.value.where == table.name
        assert reader.count(table) == 1


def test_an_abandoned_result_does_not_disturb_the_next(
    mysql: MySQLServer, mysql_database: str, source: MySQLSource
) -> None:
    load(
        mysql,
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(200))",
        "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)"
        " SELECT i, REPEAT('x', 200) FROM n",
    )
    table = only(source)
    with source.reader() as reader:
        rows = reader.rows(table, None, None, 10)
        assert next(rows)[0][0] == b"1"
        del rows
        assert reader.boundary(table, None, 50_000) == ("50000",)
        assert reader.boundary(table, None, 50_001) is None


def test_a_thousand_tables_take_a_handful_of_queries(
    mysql: MySQLServer, mysql_database: str, source: MySQLSource
) -> None:
    load(mysql, mysql_database, *(f"CREATE TABLE t{number} (id INT PRIMARY KEY, v TEXT)" for number in range(300)))
    before = questions(mysql)
    tables, problems = source.discover()
    asked = questions(mysql) - before
    assert len(tables) == 300
    assert not [problem for problem in problems if problem.fatal]
    assert asked < 25


def questions(mysql: MySQLServer) -> int:
    with closing(mysql.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Questions'")
        row = cursor.fetchone()
    assert row is not None
    return int(row[1])


def test_discovery_of_a_table_with_everything(mysql: MySQLServer, mysql_database: str, source: MySQLSource) -> None:
    load(
        mysql,
        mysql_database,
        "CREATE TABLE parent (id INT PRIMARY KEY)",
        "CREATE TABLE t (id INT NOT NULL, code CHAR(4) NOT NULL, n INT DEFAULT 5, g INT AS (n * 2) STORED,"
        " w INT AS (n + 1) VIRTUAL,"
        " hidden INT INVISIBLE, note TEXT, PRIMARY KEY (code, id), UNIQUE KEY u (n, id), KEY p (note(10)),"
        " FULLTEXT KEY f (note),"
        " KEY e ((n + 1)), CONSTRAINT positive CHECK (n > 0), FOREIGN KEY (id) REFERENCES parent (id))",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.n = 6",
        "INSERT INTO parent VALUES (1)",
        "INSERT INTO t (id, code, hidden) VALUES (1, 'a', 9)",
    )
    tables, problems = source.discover()
    table = next(table for table in tables if table.source_name == "t")
    assert [column.name for column in table.columns] == ["id", "code", "n", "g", "w", "hidden", "note"]
    assert table.key == (1, 0)
    assert [(index.name, index.unique) for index in table.indexes] == [("id", False), ("u", True)]
    text = " | ".join(problem.what for problem in [*problems, *source.check()])
    assert "cannot see whether there are any" in text  # TRIGGER is a privilege of its own
    for kind in (
        "foreign keys",
        "CHECK constraints",
        "views",
        "column defaults",
        "invisibility",
        "prefix",
        "g is generated",
    ):
        assert kind in text, kind
    with source.reader() as reader:
        (block,) = reader.rows(table, None, None, 10)
    assert block[0] == (b"1", b"a", b"6", b"12", b"7", b"9", None)


def test_positions(mysql: MySQLServer, mysql_database: str, source: MySQLSource) -> None:
    before = source.position()
    load(mysql, mysql_database, "CREATE TABLE t (id INT PRIMARY KEY)")
    after = source.position()
    assert before != after
    assert source.covers(after, before)
    assert not source.covers(before, after)
    assert source.least([after, before, after]) == before
    source.check_log(before)
    with pytest.raises(SourceLogLost, match="does not know transactions"):
        source.check_log("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5")
    assert len(source.identity()) == 36


def test_float_keeps_all_its_digits(mysql: MySQLServer, mysql_database: str, source: MySQLSource) -> None:
    load(
        mysql,
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY, f FLOAT)",
        "INSERT INTO t VALUES (1, 16777217), (2, 0.1)",
    )
    table = only(source)
    assert table.columns[1].kind is Kind.FLOAT32
    with source.reader() as reader:
        (block,) = reader.rows(table, None, None, 10)
    assert [float(row[1] or 0) for row in block] == [16777216.0, 0.10000000149011612]


def test_a_table_dropped_under_way_is_incompatible(
    mysql: MySQLServer, mysql_database: str, source: MySQLSource
) -> None:
    load(mysql, mysql_database, "CREATE TABLE t (id INT PRIMARY KEY)")
    table = only(source)
    load(mysql, mysql_database, "DROP TABLE t")
    with source.reader() as reader, pytest.raises(Incompatible, match="no longer what it was"):
        list(reader.rows(replace(table), None, None, 10))
