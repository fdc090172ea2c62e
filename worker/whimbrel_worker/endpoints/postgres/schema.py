"""The target's tables: what is there, what is made. Which tables are wanted is decided elsewhere."""

import time
import zlib

from psycopg import sql

from whimbrel_worker.endpoints.postgres.connector import Connection, Connector
from whimbrel_worker.endpoints.postgres.layout import run_ddl
from whimbrel_worker.endpoints.postgres.names import identifier, target_table
from whimbrel_worker.engine.ports import ExistingColumn, Profile
from whimbrel_worker.errors import Transient
from whimbrel_worker.values.columns import Column, Index, Table

_INDEX_SECONDS = 6 * 3600.0


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
        """Make the secondary indexes that are missing and wait for them."""
        connection = self._open()
        present = self._index_names(connection, table)
        for index in table.indexes:
            if index_name(table, index) not in present:
                run_ddl(connection, create_index(table, index, self._profile.single_ddl), table.name)
        self._await_indexes(connection, table)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connector.connect()
        return self._connection

    def _await_indexes(self, connection: Connection, table: Table) -> None:
        """A job can be completed with an error in its details, so the catalogue has the last word."""
        wanted = {index_name(table, index) for index in table.indexes}
        deadline = time.monotonic() + _INDEX_SECONDS
        while not wanted <= self._index_names(connection, table, only_valid=True):
            if time.monotonic() > deadline:
                raise Transient("indexes are still being built", where=table.name, todo="see sys.jobs on the target")
            time.sleep(0.2)

    def _index_names(self, connection: Connection, table: Table, *, only_valid: bool = False) -> set[str]:
        rows = connection.execute(
            "SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
            " WHERE i.indrelid = %s AND (i.indisvalid OR NOT %s)",
            (self._oid(connection, table), only_valid),
        ).fetchall()
        return {name for (name,) in rows}

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


def create_index(table: Table, index: Index, asynchronous: bool) -> sql.Composed:
    """CREATE INDEX, ASYNC where the target makes indexes only so."""
    return sql.SQL("CREATE {}INDEX {}{} ON {} ({})").format(
        sql.SQL("UNIQUE " if index.unique else ""),
        sql.SQL("ASYNC " if asynchronous else ""),
        identifier(index_name(table, index)),
        target_table(table),
        sql.SQL(", ").join(identifier(name) for name in index.columns),
    )


def index_name(table: Table, index: Index) -> str:
    """Index names are unique in a PostgreSQL schema, in MySQL only in a table; 63 bytes at most."""
    name = f"{table.target_name}_{index.name}"
    if len(name.encode()) <= 63:
        return name
    digest = f"{zlib.crc32(name.encode()):08x}"
    return name.encode()[:54].decode(errors="ignore") + "_" + digest
