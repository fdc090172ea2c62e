"""The target's tables: what is there, what is made. Which tables are wanted is decided elsewhere."""

from psycopg import sql

from whimbrel_worker.endpoints.postgres.connector import Connection, Connector
from whimbrel_worker.endpoints.postgres.indexes import IndexBuilder
from whimbrel_worker.endpoints.postgres.layout import run_ddl
from whimbrel_worker.endpoints.postgres.names import identifier, target_table
from whimbrel_worker.engine.ports import ExistingColumn, Profile
from whimbrel_worker.values.columns import Column, Table


class PostgresSchema:
    """Implements ports.TargetSchema; one DDL statement a transaction."""

    def __init__(self, connector: Connector, profile: Profile) -> None:
        self._connector, self._profile = connector, profile
        self._connection: Connection | None = None

    def existing(self, table: Table) -> tuple[list[ExistingColumn], tuple[str, ...]] | None:
        """Columns and key of the target's table, or None when there is none."""
        connection = self._open()
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
        found = self._open().execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(target_table(table)), ()).fetchone()
        return found is not None

    def create(self, table: Table) -> None:
        """Make schema and table if missing, without secondary indexes."""
        connection = self._open()
        if not self._schema_exists(connection, table.target_schema):
            run_ddl(connection, _create_schema(table), table.name)
        if self._oid(connection, table) is None:
            run_ddl(connection, create_table(table), table.name)

    def create_indexes(self, table: Table) -> None:
        """Make the secondary indexes that are missing and wait for them, without stopping writes.

        Raises Incompatible when the rows do not let an index be built.
        """
        builder = IndexBuilder(self._open(), self._profile)
        for index in table.indexes:
            builder.build(table, index)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connector.connect()
        return self._connection

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
