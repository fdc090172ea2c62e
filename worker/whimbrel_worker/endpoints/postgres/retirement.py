"""Takes a finished migration's rows out of the control tables, and the tables that nobody needs any more.

What stays is a tombstone: the migration's own row, its journalled end, and `retired`. By it a later Whimbrel knows that
the target is live and copies nothing over it. So the tables of migrations and of the journal are never dropped.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from psycopg import sql

from whimbrel_worker.endpoints.postgres.connector import Connector
from whimbrel_worker.endpoints.postgres.layout import run_ddl, tables_there
from whimbrel_worker.endpoints.postgres.names import control_table, identifier
from whimbrel_worker.libpq import Connection

T = TypeVar("T")
Transact = Callable[[Callable[[Connection], T]], T]

WORK: Final[Mapping[str, tuple[str, ...]]] = {
    "chunks": ("tbl", "number"),
    "workers": ("task", "idx"),
    "tables": ("name",),
}
"""The tables that serve a migration under way only, with their keys behind the migration's name."""
_ROWS_AT_ONCE: Final = 1000
"""Aurora DSQL changes at most 3,000 rows in a transaction."""
_NOT_RETIRED: Final = sql.SQL(
    "SELECT count(*) FROM {} AS m WHERE m.migration <> %s AND NOT EXISTS"
    " (SELECT 1 FROM {} AS j WHERE j.migration = m.migration AND j.step = 'retired')"
).format(control_table("migrations"), control_table("journal"))


def clear_rows(transact: "Transact[int]", migration: str) -> None:
    """Delete the rows of chunks, workers and tables. Safe to repeat."""
    for name, key in WORK.items():
        while transact(lambda connection, name=name, key=key: _delete_some(connection, migration, name, key)):  # type: ignore[misc]
            pass


def _delete_some(connection: Connection, migration: str, name: str, key: tuple[str, ...]) -> int:
    if name not in tables_there(connection):
        return 0
    columns = sql.SQL(", ").join(identifier(column) for column in key)
    statement = sql.SQL(
        "DELETE FROM {table} WHERE migration = %(m)s AND ({key}) IN"
        " (SELECT {key} FROM {table} WHERE migration = %(m)s LIMIT %(most)s)"
    ).format(table=control_table(name), key=columns)
    return connection.execute(statement, {"m": migration, "most": _ROWS_AT_ONCE}).rowcount


def bury(connection: Connection, migration: str, kept: Sequence[str]) -> None:
    """Leave the tombstone: of the journal the newest entry of each step, of the migration's row what it is known by.

    A journal may be long, but not longer than a transaction takes: few of its steps are repeated.
    """
    connection.execute(
        sql.SQL(
            "DELETE FROM {table} WHERE migration = %(m)s AND number IN (SELECT number FROM {table}"
            " WHERE migration = %(m)s AND step <> 'retired' AND number NOT IN (SELECT max(number) FROM {table}"
            " WHERE migration = %(m)s AND step = ANY(%(kept)s) GROUP BY step) ORDER BY number LIMIT %(most)s)"
        ).format(table=control_table("journal")),
        {"m": migration, "kept": list(kept), "most": _ROWS_AT_ONCE},
    )
    connection.execute(
        sql.SQL("UPDATE {} SET start_position = '', validated_through = '' WHERE migration = %s").format(
            control_table("migrations")
        ),
        (migration,),
    )


def drop_unneeded(connector: Connector, transact: "Transact[bool]", migration: str) -> None:
    """Drop the tables in WORK if every other migration is retired as well.

    Looked at again before each: Aurora DSQL takes no DROP in one transaction with the look. Should a migration begin
    in between, its schema task fails for the missing table, is run again and makes the table anew.
    """
    for name in WORK:
        if not transact(lambda connection, name=name: _unneeded(connection, migration, name)):  # type: ignore[misc]
            continue
        connection = connector.connect()
        try:
            statement = sql.SQL("DROP TABLE IF EXISTS {}").format(control_table(name))
            run_ddl(connection, statement, connector.where)
        finally:
            connection.close()


def _unneeded(connection: Connection, migration: str, name: str) -> bool:
    if name not in tables_there(connection):
        return False
    others = connection.execute(_NOT_RETIRED, (migration,)).fetchall()[0][0]
    rows = connection.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(control_table(name)), ()).fetchall()
    return not others and not rows
