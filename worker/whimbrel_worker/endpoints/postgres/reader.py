"""Reads the target for a comparison: ranges, keys and counts, every cell as text. Nothing is compared here."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from psycopg import sql
from psycopg.pq.abc import PGresult

from whimbrel_worker.endpoints.postgres.connector import Connector, Kept, Literal
from whimbrel_worker.endpoints.postgres.failures import guarded
from whimbrel_worker.endpoints.postgres.names import column_list, identifier, target_table
from whimbrel_worker.endpoints.postgres.statements import array_parameters, element_type, unnest
from whimbrel_worker.engine.retry import retrying
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.values.canonical import from_target, target_expression
from whimbrel_worker.values.columns import Column, Row, Table
from whimbrel_worker.values.literals import parameter

_FIRST_BATCH, _LARGEST_BATCH = 64, 4096
_BATCH_BYTES = 4 << 20


class PostgresReader:
    """Implements ports.TargetReader."""

    def __init__(self, connector: Connector, max_age: float) -> None:
        self._where, self._kept = connector.where, Kept(connector, max_age)

    def range(self, table: Table, low: Row | None, high: Row | None) -> Iterator[Sequence[Row]]:
        """Rows of (low, high] ordered by key, in batches."""
        after, limit = low, _FIRST_BATCH
        while True:
            statement = _range_statement(table, after is None, high is None)
            rows = self._select(table.columns, statement, [*_bounds(table, after, high), _number(limit)])
            if rows:
                yield rows
            if len(rows) < limit:
                return
            after, limit = table.key_of(rows[-1]), next_limit(rows)

    def by_keys(self, table: Table, keys: Sequence[Row]) -> Sequence[Row]:
        """The rows that have these keys, in any order."""
        return (
            self._select(table.columns, _keys_statement(table), array_parameters(table.key_columns, keys))
            if keys
            else []
        )

    def keys_after(self, table: Table, after: Row | None, limit: int) -> Sequence[Row]:
        """The next keys in the target's own order."""
        bounds = _bounds(table, after, None)
        return self._select(table.key_columns, _walk_statement(table, after is None), [*bounds, _number(limit)])

    def segment_keys(self, table: Table, index: int, total: int) -> Iterator[Sequence[Row]]:
        """There are no segments here: keys are in order."""
        raise ConfigurationError(
            "this target keeps rows, which are not divided into segments",
            where=f"{self._where}, table {table.name}",
            why=f"segment {index} of {total} was asked for",
            todo="compare items with a dynamodb target",
        )

    def count(self, table: Table) -> int:
        """How many rows there are now."""
        statement = sql.SQL("SELECT count(*)::text FROM {}").format(target_table(table))
        counted = self._rows(statement, [])[0][0]
        return int(counted or 0)

    def close(self) -> None:
        """Close the connection."""
        self._kept.close()

    def _select(
        self, columns: Sequence[Column], statement: sql.Composed, parameters: Sequence[Literal | None]
    ) -> Sequence[Row]:
        return from_target(columns, self._rows(statement, parameters))

    def _rows(self, statement: sql.Composed, parameters: Sequence[Literal | None]) -> list[tuple[bytes | None, ...]]:
        return retrying(lambda: self._rows_once(statement, parameters))

    def _rows_once(
        self, statement: sql.Composed, parameters: Sequence[Literal | None]
    ) -> list[tuple[bytes | None, ...]]:
        with guarded(self._where):
            cursor = self._kept.get().execute(statement, parameters)
            return _raw_rows(cursor.pgresult)


def _raw_rows(result: PGresult | None) -> list[tuple[bytes | None, ...]]:
    """All cells as the server sent them: decoding each to Python and back would cost more than the comparison."""
    if result is None:
        return []
    columns = range(result.nfields)
    value = result.get_value
    return [tuple([value(row, column) for column in columns]) for row in range(result.ntuples)]


def next_limit(rows: Sequence[Row]) -> int:
    """How many rows to ask for next, so that a batch of rows like these stays small in bytes."""
    size = sum(len(cell) for row in rows for cell in row if isinstance(cell, bytes))
    return max(1, min(_LARGEST_BATCH, _BATCH_BYTES * len(rows) // max(size, 1)))


def _number(value: int) -> Literal:
    return Literal(b"%d" % value)


def _bounds(table: Table, low: Row | None, high: Row | None) -> list[Literal | None]:
    cells = [
        parameter(column.kind, cell)
        for bound in (low, high)
        if bound is not None
        for column, cell in zip(table.key_columns, bound, strict=True)
    ]
    return [None if cell is None else Literal(cell) for cell in cells]


def _select_list(columns: Sequence[Column], alias: str) -> sql.Composed:
    expressions = (
        sql.SQL(target_expression(column, f"{alias}." + identifier(column.name).as_string(None))) for column in columns
    )
    return sql.SQL(", ").join(expressions)


def _key_row(table: Table) -> sql.Composed:
    return sql.SQL("({})").format(column_list(table.key_columns))


def _parameter_row(table: Table) -> sql.Composed:
    cells = (sql.SQL("%s::{}").format(element_type(column)) for column in table.key_columns)
    return sql.SQL("({})").format(sql.SQL(", ").join(cells))


@lru_cache(maxsize=4096)
def _range_statement(table: Table, open_low: bool, open_high: bool) -> sql.Composed:
    conditions = [] if open_low else [sql.SQL("{} > {}").format(_key_row(table), _parameter_row(table))]
    conditions += [] if open_high else [sql.SQL("{} <= {}").format(_key_row(table), _parameter_row(table))]
    return sql.SQL("SELECT {} FROM {} AS t {} ORDER BY {} LIMIT %s::bigint").format(
        _select_list(table.columns, "t"),
        target_table(table),
        _where(conditions),
        column_list(table.key_columns),
    )


@lru_cache(maxsize=4096)
def _walk_statement(table: Table, open_low: bool) -> sql.Composed:
    conditions = [] if open_low else [sql.SQL("{} > {}").format(_key_row(table), _parameter_row(table))]
    return sql.SQL("SELECT {} FROM {} AS t {} ORDER BY {} LIMIT %s::bigint").format(
        _select_list(table.key_columns, "t"), target_table(table), _where(conditions), column_list(table.key_columns)
    )


@lru_cache(maxsize=4096)
def _keys_statement(table: Table) -> sql.Composed:
    names = [identifier(f"k{position}") for position in range(len(table.key))]
    matches = (
        sql.SQL("t.{} = wanted.{}").format(identifier(column.name), name)
        for column, name in zip(table.key_columns, names, strict=True)
    )
    return sql.SQL("SELECT {} FROM {} AS t JOIN {} AS wanted ({}) ON {}").format(
        _select_list(table.columns, "t"),
        target_table(table),
        unnest(table.key_columns),
        sql.SQL(", ").join(names),
        sql.SQL(" AND ").join(matches),
    )


def _where(conditions: Sequence[sql.Composed]) -> sql.Composed:
    return sql.SQL("WHERE {}").format(sql.SQL(" AND ").join(conditions)) if conditions else sql.Composed([])
