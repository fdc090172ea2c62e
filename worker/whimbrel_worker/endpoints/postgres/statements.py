"""The statements that write rows: COPY, upserts from arrays and from VALUES, deletes. Transactions stand in session.

Array elements are cast to types without length or precision: an explicit cast to varchar(n) would cut a value in
silence, while assignment to the column refuses it (PostgreSQL manual, "Character Types").
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from psycopg import sql

from whimbrel_worker.endpoints.postgres.connector import Literal
from whimbrel_worker.endpoints.postgres.names import column_list, identifier, target_table
from whimbrel_worker.engine.ports import Delete, Insert, Upsert, Write
from whimbrel_worker.errors import Incompatible, Transient
from whimbrel_worker.libpq import Connection
from whimbrel_worker.values.columns import Column, Row, Table
from whimbrel_worker.values.literals import array_literals, copy_block, parameter

_PARAMETERS = 32_000
_LENGTH = re.compile(r"\([0-9, ]+\)")


def execute(connection: Connection, write: Write, path: str) -> tuple[int, int]:
    """Carry out one write and compare the row count with what was sent. Returns (rows, bytes of parameters)."""
    if isinstance(write, Delete):
        return _delete(connection, write, path)
    if isinstance(write, Insert) and path == "copy":
        return _copy(connection, write)
    rows_of = _upsert_values if path == "values" else _upsert_arrays
    return rows_of(connection, write)


def _copy(connection: Connection, write: Insert) -> tuple[int, int]:
    block = copy_block(write.table.columns, write.rows)
    with connection.cursor() as cursor:
        with cursor.copy(_copy_statement(write.table)) as copy:
            copy.write(block)
        _expect(cursor.rowcount, len(write.rows), write.table)
    return len(write.rows), len(block)


def _upsert_arrays(connection: Connection, write: Insert | Upsert) -> tuple[int, int]:
    table = write.table
    arrays = array_parameters(table.columns, write.rows)
    cursor = connection.execute(_upsert_statement(table), arrays)
    _expect(cursor.rowcount, len(write.rows), table)
    return len(write.rows), sum(map(len, arrays))


def _upsert_values(connection: Connection, write: Insert | Upsert) -> tuple[int, int]:
    table, size = write.table, 0
    portion = max(1, _PARAMETERS // len(table.columns))
    for start in range(0, len(write.rows), portion):
        rows = write.rows[start : start + portion]
        cells = [_literal(column, cell) for row in rows for column, cell in zip(table.columns, row, strict=True)]
        cursor = connection.execute(_values_statement(table, len(rows)), cells)
        _expect(cursor.rowcount, len(rows), table)
        size += sum(len(cell) for cell in cells if cell is not None)
    return len(write.rows), size


def _delete(connection: Connection, write: Delete, path: str) -> tuple[int, int]:
    columns = write.table.key_columns
    if path == "values":
        return _delete_values(connection, write)
    arrays = array_parameters(columns, write.keys)
    cursor = connection.execute(_delete_statement(write.table), arrays)
    _expect_at_most(cursor.rowcount, len(write.keys), write.table)
    return len(write.keys), sum(map(len, arrays))


def _delete_values(connection: Connection, write: Delete) -> tuple[int, int]:
    columns, size = write.table.key_columns, 0
    portion = max(1, _PARAMETERS // len(columns))
    for start in range(0, len(write.keys), portion):
        keys = write.keys[start : start + portion]
        cells = [_literal(column, cell) for key in keys for column, cell in zip(columns, key, strict=True)]
        cursor = connection.execute(_delete_values_statement(write.table, len(keys)), cells)
        _expect_at_most(cursor.rowcount, len(keys), write.table)
        size += sum(len(cell) for cell in cells if cell is not None)
    return len(write.keys), size


def array_parameters(columns: Sequence[Column], rows: Sequence[Row]) -> list[Literal]:
    """Rows as one array literal a column, for `unnest`."""
    return [Literal(literal) for literal in array_literals(columns, rows)]


def _literal(column: Column, cell: bytes | float | None) -> Literal | None:
    text = parameter(column.kind, cell)
    return None if text is None else Literal(text)


def _expect(count: int, sent: int, table: Table) -> None:
    if count != sent:
        raise Transient(
            f"the target took {count} of {sent} rows without an error",
            where=table.name,
            why="a statement's row count must equal what was sent",
            todo="the transaction is rolled back and tried again; if it stays, stop and look at the target table",
        )


def _expect_at_most(count: int, sent: int, table: Table) -> None:
    if count > sent:
        raise Incompatible(
            f"a delete of {sent} keys hit {count} rows",
            where=table.name,
            why="the target's table holds a key more than once",
            todo="give the target table the primary key of the source",
        )


def element_type(column: Column) -> sql.SQL:
    """The column's target type without length or precision."""
    return sql.SQL(_LENGTH.sub("", column.target_type))  # types come from our own mapping or a checked override


def unnest(columns: Sequence[Column]) -> sql.Composed:
    """A call of unnest with one array parameter a column."""
    arrays = (sql.SQL("%s::{}[]").format(element_type(column)) for column in columns)
    return sql.SQL("unnest({})").format(sql.SQL(", ").join(arrays))


@lru_cache(maxsize=4096)
def _copy_statement(table: Table) -> bytes:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(target_table(table), column_list(table.columns))
    return statement.as_bytes(None).replace(b"%%", b"%")  # psycopg takes COPY without parameters as it stands


@lru_cache(maxsize=4096)
def _upsert_statement(table: Table) -> sql.Composed:
    return sql.SQL("INSERT INTO {} ({}) SELECT * FROM {} {}").format(
        target_table(table), column_list(table.columns), unnest(table.columns), _on_conflict(table)
    )


@lru_cache(maxsize=4096)
def _values_statement(table: Table, rows: int) -> sql.Composed:
    cells = sql.SQL(", ").join(sql.SQL("%s::{}").format(element_type(column)) for column in table.columns)
    tuples = sql.SQL(", ").join([sql.SQL("({})").format(cells)] * rows)
    return sql.SQL("INSERT INTO {} ({}) VALUES {} {}").format(
        target_table(table), column_list(table.columns), tuples, _on_conflict(table)
    )


def _on_conflict(table: Table) -> sql.Composed:
    """DO UPDATE always: AWS's loader warns that DO NOTHING was seen to skip rows that did not conflict."""
    plain = [column for position, column in enumerate(table.columns) if position not in table.key]
    updates = (sql.SQL("{0} = excluded.{0}").format(identifier(column.name)) for column in plain or table.key_columns)
    return sql.SQL("ON CONFLICT ({}) DO UPDATE SET {}").format(
        column_list(table.key_columns), sql.SQL(", ").join(updates)
    )


@lru_cache(maxsize=4096)
def _delete_statement(table: Table) -> sql.Composed:
    names = [identifier(f"k{position}") for position in range(len(table.key))]
    matches = (
        sql.SQL("t.{} = gone.{}").format(identifier(column.name), name)
        for column, name in zip(table.key_columns, names, strict=True)
    )
    return sql.SQL("DELETE FROM {} AS t USING {} AS gone ({}) WHERE {}").format(
        target_table(table), unnest(table.key_columns), sql.SQL(", ").join(names), sql.SQL(" AND ").join(matches)
    )


@lru_cache(maxsize=4096)
def _delete_values_statement(table: Table, keys: int) -> sql.Composed:
    cells = sql.SQL(", ").join(sql.SQL("%s::{}").format(element_type(column)) for column in table.key_columns)
    tuples = sql.SQL(", ").join([sql.SQL("({})").format(cells)] * keys)
    return sql.SQL("DELETE FROM {} WHERE ({}) IN ({})").format(
        target_table(table), column_list(table.key_columns), tuples
    )
