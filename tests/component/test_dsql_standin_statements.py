"""What the DSQL stand-in refuses, by the recorded facts, and its asynchronous DDL; transactions: elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from whimbrel_testbed.dsql import DSQLServer, dsql_server

Connection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="module")
def server() -> Iterator[DSQLServer]:
    with dsql_server() as started:
        with psycopg.connect(**started.conninfo(), autocommit=True) as connection:
            connection.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        yield started


@pytest.fixture
def connection(server: DSQLServer) -> Iterator[Connection]:
    with psycopg.connect(**server.conninfo(), autocommit=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def lasting(server: DSQLServer) -> Iterator[Connection]:
    with psycopg.connect(**server.conninfo(), autocommit=True) as opened:
        yield opened


UNSUPPORTED = {
    "TRUNCATE t": "Truncate",
    "CREATE EXTENSION pgcrypto": "CreateExtension",
    "CREATE DATABASE other": "Createdb",
    "CREATE TABLE c AS SELECT 1 AS x": "CreateTableAs",
    "CREATE TABLE c (x) AS SELECT 1": "CreateTableAs",
    "SELECT 1 AS x INTO c": "CreateTableAs",
    "CREATE TYPE pair AS (a int, b int)": "CompositeType",
    "CREATE TYPE span AS RANGE (subtype = int4)": "CreateRange",
    "CREATE TABLESPACE s LOCATION '/tmp'": "CreateTableSpace",
    "CREATE FOREIGN TABLE f (x int) SERVER s": "CreateForeignTable",
    "LISTEN c": "Listen",
    "NOTIFY c": "Notify",
    "UNLISTEN c": "Unlisten",
    "ALTER SYSTEM SET work_mem = '1MB'": "AlterSystem",
    "/* a comment; */ -- another\n TRUNCATE t": "Truncate",
    "SAVEPOINT s": "Savepoint",
    "ROLLBACK TO SAVEPOINT s": "Savepoint",
}
REFUSED = {
    "CREATE TEMP TABLE c (id int)": "TEMPORARY or TEMP table not supported for CREATE TABLE",
    "CREATE TEMPORARY TABLE c (id int)": "TEMPORARY or TEMP table not supported for CREATE TABLE",
    "CREATE UNLOGGED TABLE c (id int)": "UNLOGGED table not supported for CREATE TABLE",
    "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()": "CREATE TRIGGER not supported",
    "CREATE TYPE mood AS ENUM ('sad')": "CREATE TYPE not supported",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$":
        "CREATE FUNCTION with language plpgsql not supported",
    "VACUUM t": "unsupported VACUUM statement",
    "CREATE INDEX ON t (v)": "unsupported mode. please use CREATE INDEX ASYNC.",
    "CREATE INDEX CONCURRENTLY ON t (v)": "unsupported mode. please use CREATE INDEX ASYNC.",
    "ALTER TABLE t ADD COLUMN w int DEFAULT 1": "ALTER TABLE ADD COLUMN with constraint not supported",
    "ALTER TABLE t ADD COLUMN w int NOT NULL": "ALTER TABLE ADD COLUMN with constraint not supported",
    "ALTER TABLE t ADD CONSTRAINT c CHECK (id > 0)": "unsupported ALTER TABLE ADD CONSTRAINT statement",
    "ALTER TABLE t ADD PRIMARY KEY (id)": "unsupported ALTER TABLE ADD CONSTRAINT statement",
    "ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (id) REFERENCES t (id)":
        "unsupported ALTER TABLE ADD CONSTRAINT statement",
    "ALTER TABLE t ALTER COLUMN v TYPE varchar": "unsupported ALTER TABLE statement",
    "ALTER TABLE t ALTER COLUMN v SET NOT NULL": "unsupported ALTER TABLE statement",
    "SET statement_timeout = 5": 'setting configuration parameter "statement_timeout" not supported',
    "SET LOCAL lock_timeout = 5": 'setting configuration parameter "lock_timeout" not supported',
    "SET SESSION synchronous_commit TO off": 'setting configuration parameter "synchronous_commit" not supported',
    "BEGIN ISOLATION LEVEL SERIALIZABLE": "only the REPEATABLE READ isolation level is supported",
    "COPY t FROM STDIN": "COPY is not supported",
    "CREATE TABLE c (id bit(3))": "datatype bit not supported",
    "CREATE TABLE c (id int, m money)": "datatype money not supported",
    "CREATE TABLE c (id int, m xml)": "datatype xml not supported",
    "CREATE TABLE c (id int, m inet)": "datatype inet not supported",
    "CREATE TABLE c (id int, m int[])": "datatype array not supported",
    "CREATE TABLE c (id int, m numeric(10,2)[])": "datatype array not supported",
    "CREATE TABLE c (id int, m int4range)": "datatype int4range not supported",
    "ALTER TABLE t ADD COLUMN m money": "datatype money not supported",
    "CREATE TABLE c (id int GENERATED ALWAYS AS IDENTITY (CACHE 1))": "sequences and identity columns must be bigint",
}  # fmt: skip


@pytest.mark.parametrize("statement", UNSUPPORTED)
def test_unsupported_statements(lasting: Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
        lasting.execute(statement)
    assert caught.value.diag.message_primary == f"unsupported statement: {UNSUPPORTED[statement]}"


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("statement", REFUSED)
def test_refused_statements(lasting: Connection, statement: str, extended: bool) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
        lasting.execute(statement, prepare=True) if extended else lasting.execute(statement)
    assert caught.value.diag.message_primary == REFUSED[statement]
    assert lasting.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("kind", ["serial", "bigserial"])
def test_serial_does_not_exist(connection: Connection, kind: str) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject, match=f'type "{kind}" does not exist'):
        connection.execute(f"CREATE TABLE c (id {kind} PRIMARY KEY)")


@pytest.mark.parametrize("cache", ["", "(CACHE 100)"])
def test_identity_needs_a_cache_of_one_or_many(connection: Connection, cache: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="CACHE"):
        connection.execute(f"CREATE TABLE c (id bigint GENERATED ALWAYS AS IDENTITY {cache})")


def test_what_is_allowed(connection: Connection) -> None:
    for statement in (
        "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TABLE allowed (id bigint GENERATED BY DEFAULT AS IDENTITY (CACHE 65536) PRIMARY KEY, n numeric,"
        " d decimal(5,1), \"numeric\" text, c char(3) CHECK (c <> 'a,b'), ts timestamp with time zone DEFAULT now(),"
        " j jsonb, p positive)",
        "ALTER TABLE allowed ADD COLUMN late numeric",
        "ALTER TABLE allowed ADD CONSTRAINT k CHECK (id > 0) NOT VALID",
        "ALTER TABLE allowed ALTER COLUMN id RESTART WITH 1000",
        "ALTER TABLE allowed RENAME COLUMN late TO later",
        "ALTER TABLE allowed DROP COLUMN later",
        "CREATE SEQUENCE s CACHE 1",
        "SET search_path = public",
        "SHOW search_path",
    ):
        connection.execute(statement)
    row = connection.execute(
        "INSERT INTO allowed (n, d) VALUES (1.23456789, 1.25) RETURNING n::text, d::text"
    ).fetchone()
    assert row == ("1.234568", "1.3")


def test_an_index_is_built_asynchronously(server: DSQLServer, connection: Connection) -> None:
    connection.execute("CREATE TABLE indexed (id int PRIMARY KEY, v text)")
    connection.execute("INSERT INTO indexed SELECT g, 'v' FROM generate_series(1, 100) g")
    (row,) = connection.execute("CREATE INDEX ASYNC indexed_v ON indexed USING btree (v) INCLUDE (id)").fetchall()
    job = str(row[0])
    assert len(job) == 26
    connection.execute("CALL sys.wait_for_job(%s)", (job,))
    state = connection.execute("SELECT status, details, job_type, object_name FROM sys.jobs WHERE job_id = %s", (job,))
    assert state.fetchone() == ("completed", None, "INDEX_BUILD", "public.indexed")
    with psycopg.connect(server.backend_conninfo) as behind:
        assert behind.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = 'indexed_v'::regclass"
        ).fetchone() == (True,)


def test_a_unique_index_over_duplicates_fails_as_a_job(connection: Connection) -> None:
    connection.execute("CREATE TABLE doubles (id int PRIMARY KEY, v int)")
    connection.execute("INSERT INTO doubles VALUES (1, 1), (2, 1)")
    (row,) = connection.execute("CREATE UNIQUE INDEX ASYNC doubles_v ON public.doubles (v)").fetchall()
    connection.execute("CALL sys.wait_for_job(%s)", row)
    state = connection.execute("SELECT status, details FROM sys.jobs WHERE job_id = %s", row).fetchone()
    assert state is not None
    assert state[0] == "failed"
    assert "could not create unique index" in str(state[1])


def test_an_index_on_a_missing_table_is_refused_at_once(connection: Connection) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("CREATE INDEX ASYNC ON missing (v)")


def test_an_index_is_checked_at_once(connection: Connection) -> None:
    connection.execute("CREATE TABLE documents (id int PRIMARY KEY, j jsonb, v text)")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        connection.execute("CREATE INDEX ASYNC ON documents (missing)")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="datatype jsonb not supported"):
        connection.execute("CREATE INDEX ASYNC ON documents (j)")
    connection.execute(
        "CREATE UNIQUE INDEX ASYNC IF NOT EXISTS \"a 'CREATE INDEX ' name\" ON documents (lower(v)) WHERE id > 0"
    )
    jobs = connection.execute("SELECT count(*) FROM sys.jobs WHERE object_name = 'public.documents'").fetchone()
    assert jobs == (1,)


def test_a_synchronous_index_on_an_empty_table_where_it_is_switched_on(connection: Connection) -> None:
    connection.execute("CREATE TABLE empty (id int PRIMARY KEY, v int)")
    connection.execute("SET disable_sync_create_index = off")
    connection.execute("CREATE INDEX empty_v ON empty (v)")
    connection.execute("INSERT INTO empty VALUES (1, 1)")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="please use CREATE INDEX ASYNC"):
        connection.execute("CREATE INDEX ON empty (v)")


def test_a_constraint_is_validated_asynchronously(connection: Connection) -> None:
    connection.execute("CREATE TABLE checked (id int PRIMARY KEY)")
    connection.execute("ALTER TABLE checked ADD CONSTRAINT positive CHECK (id > 0) NOT VALID")
    (row,) = connection.execute("ALTER TABLE ASYNC checked VALIDATE CONSTRAINT positive").fetchall()
    connection.execute("CALL sys.wait_for_job(%s)", row)
    assert connection.execute("SELECT convalidated FROM pg_constraint WHERE conname = 'positive'").fetchone() == (True,)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            "CREATE TABLE d1 (id int)",
            "CREATE TABLE d2 (id int)",
            "multiple ddl statements not supported in a transaction",
        ),
        (
            "INSERT INTO t VALUES (500)",
            "CREATE TABLE d1 (id int)",
            "ddl and dml are not supported in the same transaction",
        ),
        (
            "CREATE TABLE d1 (id int)",
            "INSERT INTO t VALUES (500)",
            "ddl and dml are not supported in the same transaction",
        ),
    ],
)
@pytest.mark.parametrize("at_once", [False, True])
def test_one_ddl_a_transaction_and_no_dml_beside_it(
    connection: Connection, first: str, second: str, message: str, at_once: bool
) -> None:
    connection.execute("SELECT 1" if at_once else "BEGIN")
    if not at_once:
        connection.execute(first)
    with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
        connection.execute(f"{first}; {second}" if at_once else second)
    assert caught.value.diag.message_primary == message
    connection.execute("ROLLBACK")
    found = connection.execute("SELECT to_regclass('d1'), (SELECT count(*) FROM t WHERE id = 500)").fetchone()
    assert found == (None, 0)


def test_the_row_limit_strikes_at_the_statement_that_crosses_it(connection: Connection) -> None:
    connection.execute("CREATE TABLE many (id int PRIMARY KEY)")
    assert connection.execute("INSERT INTO many SELECT generate_series(1, 3000)").rowcount == 3000
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match=r"^transaction row limit exceeded$"):
        connection.execute("UPDATE many SET id = -id; DELETE FROM many WHERE id = -1")
    with connection.transaction(force_rollback=True):
        connection.execute("INSERT INTO many SELECT generate_series(3001, 5999)")
        connection.execute("INSERT INTO many VALUES (6000)")
        with pytest.raises(psycopg.errors.ProgramLimitExceeded, match=r"^transaction row limit exceeded$"):
            connection.execute("INSERT INTO many VALUES (6001)")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("SELECT 1")
    assert connection.execute("SELECT count(*), min(id) FROM many").fetchone() == (3000, 1)


def test_the_row_limit_in_a_pipeline(connection: Connection) -> None:
    connection.execute("CREATE TABLE piped (id int PRIMARY KEY)")
    with connection.cursor() as cursor, pytest.raises(psycopg.errors.ProgramLimitExceeded):
        cursor.executemany("INSERT INTO piped VALUES (%s)", [(number,) for number in range(3001)])
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany("INSERT INTO piped VALUES (%s)", [(number,) for number in range(3000)])
    assert connection.execute("SELECT count(*) FROM piped").fetchone() == (3000,)


def test_the_size_limit_strikes_at_commit(connection: Connection) -> None:
    connection.execute("CREATE TABLE large (id int PRIMARY KEY, v text)")
    connection.execute("BEGIN")
    for number in range(11):
        connection.execute("INSERT INTO large VALUES (%s, %s)", (number, "x" * 1_000_000))
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match=r"^transaction size limit 10mb exceeded$"):
        connection.execute("COMMIT")
    assert connection.execute("SELECT count(*) FROM large").fetchone() == (0,)


def test_the_age_limit_strikes_at_commit(server: DSQLServer, connection: Connection) -> None:
    server.control.set(limits={"transaction_seconds": 0.05})
    try:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (600, 'x')")
        connection.execute("SELECT pg_sleep(0.1)")
        with pytest.raises(psycopg.errors.ProgramLimitExceeded, match=r"^transaction age limit of 300s exceeded$"):
            connection.execute("COMMIT")
    finally:
        server.control.set(limits={})
    assert connection.execute("SELECT count(*) FROM t WHERE id = 600").fetchone() == (0,)


def test_a_message_over_the_limit_ends_the_connection(connection: Connection) -> None:
    with pytest.raises(psycopg.Error) as caught:
        connection.execute("SELECT length(%s)", ("x" * (10 * 1024 * 1024),))
    assert caught.value.sqlstate in ("08P01", None)
    assert connection.closed


def test_values_are_limited(connection: Connection) -> None:
    connection.execute("CREATE TABLE wide (id int PRIMARY KEY, v text, b bytea)")
    connection.execute("INSERT INTO wide VALUES (1, %s)", ("x" * 1_048_576,))
    limit = "datatype limit greater than 1048576 bytes not supported for "
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match=limit + "text"):
        connection.execute("INSERT INTO wide VALUES (2, %s)", ("x" * 1_048_577,))
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match=limit + "bytea"):
        connection.execute("UPDATE wide SET b = %s", (b"x" * 1_048_577,))


def test_shapes_are_limited(connection: Connection) -> None:
    with pytest.raises(psycopg.errors.TooManyColumns):
        connection.execute("CREATE TABLE w (" + ", ".join(f"c{n} int" for n in range(256)) + ")")
    columns = ", ".join(f"c{n} int" for n in range(9))
    with pytest.raises(psycopg.errors.TooManyColumns):
        connection.execute(f"CREATE TABLE w ({columns}, PRIMARY KEY (c0, c1, c2, c3, c4, c5, c6, c7, c8))")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        connection.execute("CREATE TABLE w (id jsonb PRIMARY KEY)")
    for kind in ("char(4097)", "varchar(65536)", "character varying(65536)"):
        with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="datatype limit"):
            connection.execute(f"CREATE TABLE w (id {kind})")
    for number in range(9):
        connection.execute(f"CREATE SCHEMA s{number}")
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="schemas"):
        connection.execute("CREATE SCHEMA s9")
