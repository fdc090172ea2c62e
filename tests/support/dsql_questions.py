"""The questions put to Aurora DSQL and to its stand-in: limits, refusals, sign-in. How one asks: dsql_answers."""

from __future__ import annotations

import time
from typing import Any

from support.dsql_answers import Answer, Asked, Question, answer_of, connecting, run, script, statement, value
from support.named_dsql import NamedDSQL

_LONG_WAIT = 65 * 60.0


def rows_over_the_limit(asked: Asked) -> Answer:
    with asked.table() as (connection, name):
        run(connection, "BEGIN")
        run(connection, f"INSERT INTO {name} SELECT generate_series(10, 3009), ''")
        return answer_of(lambda: run(connection, f"INSERT INTO {name} VALUES (5000, '')").statusmessage)


def rows_at_the_limit(asked: Asked) -> Answer:
    with asked.table() as (connection, name):
        return answer_of(lambda: run(connection, f"INSERT INTO {name} SELECT generate_series(10, 3009), ''").rowcount)


def bytes_over_the_limit(asked: Asked) -> Answer:
    with asked.table() as (connection, name):
        run(connection, "BEGIN")
        for number in range(11):
            run(connection, f"INSERT INTO {name} VALUES (%s, %s)", (number + 10, "x" * 1_000_000))
        return answer_of(lambda: run(connection, "COMMIT").statusmessage)


def a_value_over_the_limit(asked: Asked) -> Answer:
    with asked.table() as (connection, name):
        return answer_of(lambda: run(connection, f"INSERT INTO {name} VALUES (9, %s)", ("x" * 1_048_577,)).rowcount)


def a_row_over_the_limit(asked: Asked) -> Answer:
    with asked.connection() as connection:
        name, text = asked.fresh(), "x" * 1_000_000
        run(connection, f"CREATE TABLE {name} (id int PRIMARY KEY, a text, b text, c text)")
        return answer_of(lambda: run(connection, f"INSERT INTO {name} VALUES (1, %s, %s, %s)", (text,) * 3).rowcount)


def a_message_over_the_limit(asked: Asked) -> Answer:
    with asked.connection() as connection:
        return answer_of(lambda: run(connection, "SELECT length(%s::text)", ("x" * (10 * 1024 * 1024),)).fetchone())


def the_second_to_commit(asked: Asked) -> Answer:
    with asked.table() as (first, name), asked.connection() as second:
        run(second, f"SELECT v FROM {name}")
        run(second, "BEGIN")
        run(second, f"SELECT v FROM {name} WHERE id = 1")
        run(first, f"UPDATE {name} SET v = 'first' WHERE id = 1")
        run(second, f"UPDATE {name} SET v = 'second' WHERE id = 1")
        return answer_of(lambda: run(second, "COMMIT").statusmessage)


def an_open_transaction_in_the_way(asked: Asked) -> Answer:
    """Whether a statement waits for another's uncommitted change: nobody waits where concurrency is optimistic."""
    with asked.table() as (quick, name), asked.connection() as idle:
        run(idle, f"SELECT v FROM {name}")
        run(idle, "BEGIN")
        run(idle, f"UPDATE {name} SET v = 'idle' WHERE id = 1")
        return answer_of(lambda: run(quick, f"UPDATE {name} SET v = 'quick' WHERE id = 1").rowcount)


def the_catalogue_changed_under_a_transaction(asked: Asked) -> Answer:
    with asked.table() as (maker, name), asked.connection() as writer:
        run(writer, f"SELECT v FROM {name}")
        run(writer, "BEGIN")
        run(writer, f"UPDATE {name} SET v = 'x' WHERE id = 1")
        run(maker, f"ALTER TABLE {name} ADD COLUMN late int")
        return answer_of(lambda: writer.execute("COMMIT").statusmessage)


def an_upsert_counts_every_row(asked: Asked) -> Answer:
    with asked.table() as (connection, name):
        told = f"INSERT INTO {name} VALUES (1, 'x'), (2, 'x'), (7, 'x') ON CONFLICT (id) DO UPDATE SET v = excluded.v"
        return answer_of(lambda: run(connection, told).rowcount)


def an_index_job(asked: Asked) -> Answer:
    """The length of a job's id, how it ends, and whether the index is valid then."""
    with asked.table() as (connection, name):
        index = name.replace(".", "_")
        (job,) = run(connection, f"CREATE INDEX ASYNC {index} ON {name} (v)").fetchone() or ("",)
        run(connection, f"CALL sys.wait_for_job('{job}')")
        told = f"SELECT status::text, job_type::text FROM sys.jobs WHERE job_id = '{job}'"
        valid = f"SELECT indisvalid FROM pg_index WHERE indexrelid = '{asked.schema}.{index}'::regclass"
        return answer_of(lambda: (len(job), run(connection, told).fetchone(), run(connection, valid).fetchone()))


def the_columns_of_jobs(asked: Asked) -> Answer:
    with asked.connection() as connection:
        found = run(connection, "SELECT * FROM sys.jobs LIMIT 0").description or []
        return Answer("", ", ".join(sorted(column.name for column in found)))


def an_expired_token(asked: Asked) -> Answer:
    password = asked.cluster.token(expires_in=1)
    time.sleep(2.5)  # time itself is what is waited for

    def attempt() -> object:
        with asked.connection(password=password) as connection:
            return connection.execute("SELECT 1").fetchone()

    return answer_of(attempt)


def a_transaction_of_301_seconds(asked: Asked) -> Answer:
    with asked.table() as (connection, name):
        run(connection, "BEGIN")
        run(connection, f"UPDATE {name} SET v = 'old' WHERE id = 1")
        for _ in range(43):
            time.sleep(7)
            run(connection, "SELECT 1")
        return answer_of(lambda: run(connection, "COMMIT").statusmessage)


def a_session_of_65_minutes(asked: Asked) -> Answer:
    with asked.connection() as connection:

        def use() -> object:
            end = time.monotonic() + _LONG_WAIT
            while time.monotonic() < end:
                run(connection, "SELECT 1")
                time.sleep(5)
            return "still there"

        return answer_of(use)


def _other_action(cluster: NamedDSQL) -> dict[str, Any]:
    other = "DbConnect" if cluster.user == "admin" else "DbConnectAdmin"
    return {"password": cluster.token(action=other)}


def _columns(count: int) -> str:
    return ", ".join(f"c{number} int" for number in range(count))


REFUSED = {
    "TRUNCATE": "TRUNCATE {t}",
    "an extension": "CREATE EXTENSION pgcrypto",
    "CREATE TABLE AS": "CREATE TABLE {n} AS SELECT 1 AS x",
    "a temporary table": "CREATE TEMP TABLE whimbrel_temporary (id int)",
    "an unlogged table": "CREATE UNLOGGED TABLE {n} (id int)",
    "a trigger": "CREATE TRIGGER g BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION f()",
    "an enum": "CREATE TYPE {n} AS ENUM ('sad')",
    "LISTEN": "LISTEN whimbrel",
    "VACUUM": "VACUUM {t}",
    "ALTER SYSTEM": "ALTER SYSTEM SET work_mem = '1MB'",
    "a synchronous index": "CREATE INDEX ON {t} (v)",
    "an index over jsonb": "CREATE TABLE {n} (id jsonb PRIMARY KEY)",
    "a column with a default added": "ALTER TABLE {t} ADD COLUMN w int DEFAULT 1",
    "a CHECK added": "ALTER TABLE {t} ADD CONSTRAINT whimbrel_c CHECK (id > 0)",
    "a primary key added": "ALTER TABLE {t} ADD PRIMARY KEY (id)",
    "a column's type changed": "ALTER TABLE {t} ALTER COLUMN v TYPE varchar",
    "a column made NOT NULL": "ALTER TABLE {t} ALTER COLUMN v SET NOT NULL",
    "statement_timeout": "SET statement_timeout = 5",
    "lock_timeout": "SET lock_timeout = 5",
    "synchronous_commit": "SET synchronous_commit TO off",
    "serializable": "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "read committed": "BEGIN ISOLATION LEVEL READ COMMITTED",
    "COPY in": "COPY {t} FROM STDIN",
    "serial": "CREATE TABLE {n} (id serial PRIMARY KEY)",
    "an identity of int": "CREATE TABLE {n} (id int GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY)",
    "an identity without CACHE": "CREATE TABLE {n} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)",
    "an identity with a small CACHE": "CREATE TABLE {n} (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 100))",
    "bit": "CREATE TABLE {n} (id bit(3))",
    "money": "CREATE TABLE {n} (id int, m money)",
    "xml": "CREATE TABLE {n} (id int, m xml)",
    "inet": "CREATE TABLE {n} (id int, m inet)",
    "an array": "CREATE TABLE {n} (id int, m int[])",
    "a range": "CREATE TABLE {n} (id int, m int4range)",
    "a char too long": "CREATE TABLE {n} (id int, c char(4097))",
    "a varchar too long": "CREATE TABLE {n} (id int, c varchar(65536))",
    "too many columns": f"CREATE TABLE {{n}} ({_columns(256)})",
    "too many key columns": f"CREATE TABLE {{n}} ({_columns(9)}, PRIMARY KEY (c0, c1, c2, c3, c4, c5, c6, c7, c8))",
}

QUESTIONS: dict[str, Question] = {
    **{f"refused: {name}": statement(text) for name, text in REFUSED.items()},
    "3,000 rows in a transaction": rows_at_the_limit,
    "3,001 rows in a transaction": rows_over_the_limit,
    "11 MB in a transaction": bytes_over_the_limit,
    "a text of 1 MiB and a byte": a_value_over_the_limit,
    "a row of 3 MB": a_row_over_the_limit,
    "a message over 10 MiB": a_message_over_the_limit,
    "two DDL statements in a transaction": script(
        "BEGIN", "CREATE TABLE {n} (id int)", "ALTER TABLE {t} ADD COLUMN w int"
    ),
    "DDL after DML": script("BEGIN", "UPDATE {t} SET v = 'x' WHERE id = 1", "CREATE TABLE {n} (id int)"),
    "DML after DDL": script("BEGIN", "CREATE TABLE {n} (id int)", "UPDATE {t} SET v = 'x' WHERE id = 1"),
    "a savepoint": script("BEGIN", "SAVEPOINT s"),
    "a duplicate key": statement("INSERT INTO {t} VALUES (1, 'again')"),
    "the time zone set": statement("SET TimeZone = 'UTC'"),
    "a cursor": script("BEGIN", "DECLARE c CURSOR FOR SELECT v FROM {t}"),
    "isolation, time zone, encoding": value(
        "SELECT 1", "SELECT current_setting('transaction_isolation'), current_setting('TimeZone'),"
        " current_setting('server_encoding')",
    ),
    "numeric without digits": value(
        "CREATE TABLE {n} (a numeric)", "INSERT INTO {n} VALUES (1.23456789) RETURNING a::text"
    ),
    "the later to commit": the_second_to_commit,
    "an open transaction blocks nobody": an_open_transaction_in_the_way,
    "DDL under an open transaction": the_catalogue_changed_under_a_transaction,
    "an upsert's row count": an_upsert_counts_every_row,
    "an index job": an_index_job,
    "sys.jobs": the_columns_of_jobs,
    "sign-in: no token": connecting(lambda _: {"password": "whimbrel"}),
    "sign-in: a token for the other action": connecting(_other_action),
    "sign-in: a token for another host": connecting(lambda told: {"password": told.token(host=f"x{told.endpoint}")}),
    "sign-in: an expired token": an_expired_token,
    "sign-in: without TLS": connecting(lambda _: {"sslmode": "disable"}),
    "sign-in: TLS at once": connecting(lambda _: {"sslnegotiation": "direct"}),
    "sign-in: a start-up parameter": connecting(lambda _: {"options": "-c statement_timeout=1000"}),
}  # fmt: skip

LONG: dict[str, Question] = {
    "a transaction of 301 s": a_transaction_of_301_seconds,
    "a session of 65 minutes": a_session_of_65_minutes,
}
"""Asked only where WHIMBREL_AWS_LONG=1 is set."""
