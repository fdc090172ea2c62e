"""How the control tables look and are made: one statement a transaction, as Aurora DSQL asks. No row is written here.

`version` in the table of migrations tells a later Whimbrel which layout it finds.
"""

import time

import psycopg
from psycopg import sql

from whimbrel_worker.endpoints.postgres.connector import Connector
from whimbrel_worker.endpoints.postgres.failures import translate
from whimbrel_worker.endpoints.postgres.names import CONTROL_SCHEMA, control_table, identifier
from whimbrel_worker.engine.retry import Backoff
from whimbrel_worker.errors import Transient
from whimbrel_worker.libpq import Connection, lost

LAYOUT_VERSION = 1

_TABLES = {
    "migrations": """
        migration text PRIMARY KEY, version integer NOT NULL, source_id text NOT NULL, epoch bigint NOT NULL,
        plan_attempt integer NOT NULL, start_position text NOT NULL, validated_through text NOT NULL,
        created_at timestamptz NOT NULL""",
    "workers": """
        migration text, task text, idx integer, epoch bigint NOT NULL, attempt bigint NOT NULL,
        sequence bigint NOT NULL, position text NOT NULL, heartbeat timestamptz NOT NULL,
        PRIMARY KEY (migration, task, idx)""",
    "tables": """
        migration text, name text, state text NOT NULL, rows_estimate bigint NOT NULL, message text NOT NULL,
        owner integer, owner_attempt bigint, PRIMARY KEY (migration, name)""",
    "chunks": """
        migration text, tbl text, number integer, low text, high text, state text NOT NULL, owner integer,
        owner_attempt bigint, resume_after text, copied bigint NOT NULL, PRIMARY KEY (migration, tbl, number)""",
    "journal": """
        migration text, number integer, step text NOT NULL, detail text NOT NULL, recorded_at timestamptz NOT NULL,
        PRIMARY KEY (migration, number)""",
}
_RACED = {"23505", "42710", "42P06", "42P07", "XX000", "40001"}


def ensure_layout(connector: Connector) -> None:
    """Make the control schema and what is missing of its tables. Safe to repeat and to race."""
    connection = connector.connect()
    try:
        if not layout_exists(connection):
            for statement in _statements():
                run_ddl(connection, statement, connector.where)
    finally:
        connection.close()


def layout_exists(connection: Connection) -> bool:
    """Whether all control tables are there."""
    return tables_there(connection) >= set(_TABLES)


def tables_there(connection: Connection) -> frozenset[str]:
    """The control tables that are there. Where all migrations are retired, only the tombstones' are."""
    found = connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (CONTROL_SCHEMA,)
    ).fetchall()
    return frozenset(str(name) for (name,) in found)


def run_ddl(connection: Connection, statement: sql.Composed, where: str) -> str:
    """One DDL statement in a transaction of its own; lost races and stale catalogues (OC001) are tried again.

    Returns the first cell of the answer, such as the id of an asynchronous job, or nothing.
    """
    for delay in Backoff(base=0.1, attempts=20).delays():
        try:
            cursor = connection.execute(statement, ())
            answer = cursor.fetchone() if cursor.description else None
        except psycopg.Error as error:
            failure = translate(error, where)
            if error.sqlstate not in _RACED or lost(error) or _about_rows(error):
                raise failure from None
            time.sleep(delay)
        else:
            return str(answer[0]) if answer else ""
    raise Transient("the target's schema keeps changing under a statement", where=where, todo="it is tried again")


def _about_rows(error: psycopg.Error) -> bool:
    """A unique violation of the user's rows, not of the catalogue that two racing statements both write."""
    return error.sqlstate == "23505" and error.diag.schema_name != "pg_catalog"


def _statements() -> list[sql.Composed]:
    schema = sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(identifier(CONTROL_SCHEMA))
    tables = [
        sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(control_table(name), sql.SQL(columns))
        for name, columns in _TABLES.items()
    ]
    return [schema, *tables]
