"""The target's tables: what is there, what is made. Which tables are wanted is decided elsewhere."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from psycopg import sql

from whimbrel_worker.endpoints.postgres.connector import Connector, Kept
from whimbrel_worker.endpoints.postgres.failures import guarded
from whimbrel_worker.endpoints.postgres.indexes import IndexBuilder
from whimbrel_worker.endpoints.postgres.layout import run_ddl
from whimbrel_worker.endpoints.postgres.names import identifier, target_table
from whimbrel_worker.engine.ports import ExistingColumn, Problem, Profile
from whimbrel_worker.engine.retry import retrying
from whimbrel_worker.engine.schema_match import differences
from whimbrel_worker.libpq import Connection
from whimbrel_worker.values.columns import Column, Index, Table

T = TypeVar("T")


class PostgresSchema:
    """Implements ports.TargetSchema; one DDL statement a transaction."""

    def __init__(self, connector: Connector, profile: Profile) -> None:
        self._profile, self._where = profile, connector.where
        self._kept = Kept(connector, profile.connection_max_age)

    def mismatches(self, table: Table) -> list[Problem] | None:
        """What keeps the target's table from taking the rows, and warnings; None when there is no such table."""
        found = self.existing(table)
        return None if found is None else list(differences(table, *found))

    def existing(self, table: Table) -> tuple[list[ExistingColumn], tuple[str, ...]] | None:
        """Columns and key of the target's table, or None when there is none."""
        return self._retried(lambda: self._existing(table))

    def _existing(self, table: Table) -> tuple[list[ExistingColumn], tuple[str, ...]] | None:
        connection = self._kept.get()
        oid = self._oid(connection, table)
        if oid is None:
            return None
        columns = connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull FROM pg_attribute"
            " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (oid,),
        ).fetchall()
        key = connection.execute(
            "SELECT a.attname FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid"
            " AND a.attnum = ANY(i.indkey) WHERE i.indrelid = %s AND i.indisprimary"
            " ORDER BY array_position(i.indkey::int2[], a.attnum)",
            (oid,),
        ).fetchall()
        return [ExistingColumn(*column) for column in columns], tuple(name for (name,) in key)

    def has_rows(self, table: Table) -> bool:
        """Whether the target's table holds a row."""
        statement = sql.SQL("SELECT 1 FROM {} LIMIT 1").format(target_table(table))
        return self._retried(lambda: self._kept.get().execute(statement, ()).fetchone() is not None)

    def create(self, table: Table) -> None:
        """Make schema and table if missing, without secondary indexes."""
        self._retried(lambda: self._create(table))

    def _create(self, table: Table) -> None:
        connection = self._kept.get()
        if not self._schema_exists(connection, table.target_schema):
            run_ddl(connection, _create_schema(table), table.name)
        if self._oid(connection, table) is None:
            run_ddl(connection, create_table(table), table.name)

    def create_indexes(self, table: Table) -> None:
        """Make the secondary indexes that are missing and wait for them, without stopping writes.

        Raises Incompatible when the rows do not let an index be built.
        """
        for index in table.indexes:
            self._retried(partial(self._build, table, index))

    def _build(self, table: Table, index: Index) -> None:
        IndexBuilder(self._kept.get(), self._profile).build(table, index)

    def _retried(self, action: Callable[[], T]) -> T:
        """The action's result; a stale catalogue or a lost connection is tried again, other errors are the worker's."""

        def once() -> T:
            with guarded(self._where):
                return action()

        return retrying(once)

    def close(self) -> None:
        """Close the connection."""
        self._kept.close()

    @staticmethod
    def _oid(connection: Connection, table: Table) -> int | None:
        found = connection.execute(
            "SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')",
            (table.target_schema, table.target_name),
        ).fetchone()
        return None if found is None else int(found[0])

    @staticmethod
    def _schema_exists(connection: Connection, name: str) -> bool:
        return connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (name,)).fetchone() is not None


def _create_schema(table: Table) -> sql.Composed:
    return sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(identifier(table.target_schema))


def create_table(table: Table) -> sql.Composed:
    """CREATE TABLE with its primary key and NOT NULLs."""
    columns = sql.SQL(", ").join(_column(column) for column in table.columns)
    key = sql.SQL(", ").join(identifier(column.name) for column in table.key_columns)
    return sql.SQL("CREATE TABLE IF NOT EXISTS {} ({}, PRIMARY KEY ({}))").format(target_table(table), columns, key)


def _column(column: Column) -> sql.Composed:
    suffix = sql.SQL("") if column.nullable else sql.SQL(" NOT NULL")
    return sql.SQL("{} {}{}").format(identifier(column.name), sql.SQL(column.target_type), suffix)
