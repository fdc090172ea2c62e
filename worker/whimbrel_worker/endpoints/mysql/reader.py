"""Reads rows of a MySQL source in key order, many at a time, without making an object a cell; implements
ports.SourceReader."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from whimbrel_worker.endpoints.mysql import sqltext
from whimbrel_worker.endpoints.mysql.connect import Connection, MySQLConnector, guarded
from whimbrel_worker.endpoints.mysql.result import Result
from whimbrel_worker.values.blocks import RowBlock
from whimbrel_worker.values.columns import Row, Table
from whimbrel_worker.values.keys import key_text

_KEYS_A_STATEMENT: Final = 500
LARGEST_BATCH: Final = 4 << 20
"""Bytes after which a batch ends, so that a worker's memory does not depend on its rows."""


class MySQLReader:
    """One connection, opened when it is needed. `indexes` names the index of each table's key."""

    def __init__(self, connector: MySQLConnector, indexes: Mapping[str, str], batch_bytes: int) -> None:
        self._connector, self._indexes = connector, indexes
        self._batch_bytes = min(batch_bytes, LARGEST_BATCH)
        self._connection: Connection | None = None

    def rows(
        self, table: Table, low: tuple[str, ...] | None, high: tuple[str, ...] | None, batch: int
    ) -> Iterator[RowBlock]:
        """Rows of (low, high] ordered by key, in batches that are bounded in bytes too."""
        statement = sqltext.select_range(table, low, high, self._index(table))
        return self._read(statement, table.name, batch, sqltext.hexed_columns(table))

    def by_keys(self, table: Table, keys: Sequence[Row]) -> Sequence[Row]:
        """The rows that have these keys, in any order."""
        texts = [key_text(table, key) for key in keys]
        found: list[Row] = []
        for start in range(0, len(texts), _KEYS_A_STATEMENT):
            statement = sqltext.select_keys(table, texts[start : start + _KEYS_A_STATEMENT])
            for block in self._read(statement, table.name, _KEYS_A_STATEMENT, sqltext.hexed_columns(table)):
                found.extend(block)
        return found

    def boundary(self, table: Table, after: tuple[str, ...] | None, rows: int) -> tuple[str, ...] | None:
        """The key of the row `rows` further on, or None when fewer are left."""
        statement = sqltext.select_boundary(table, after, rows, self._index(table))
        found = [row for block in self._read(statement, table.name, 1) for row in block]
        return key_text(table, found[0]) if found else None

    def count(self, table: Table) -> int:
        """How many rows there are now."""
        found = [row for block in self._read(sqltext.select_count(table), table.name, 1) for row in block]
        return int(found[0][0] or 0)

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.open:
            connection._force_close()  # type: ignore[attr-defined]  # a polite close would first read the rest of a result

    def _index(self, table: Table) -> str | None:
        return self._indexes.get(table.name)

    def _read(self, statement: str, where: str, batch: int, hexed: frozenset[int] = frozenset()) -> Iterator[RowBlock]:
        finished = False
        try:
            with guarded(where):
                connection = self._open()
                yield from Result(connection, statement, where, hexed).blocks(batch, self._batch_bytes)
            finished = True
        finally:
            if not finished:
                self.close()

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._connector.connect()
        return self._connection
