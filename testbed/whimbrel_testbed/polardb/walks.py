"""Walking a table's rows in the order of its keys or an index's, page by page, within DynamoDB's bound of bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from whimbrel_testbed.polardb.keyconditions import Clause
from whimbrel_testbed.polardb.layout import DOCUMENT, Key, after, quoted
from whimbrel_testbed.polardb.limits import PAGE_BYTES, PAGE_ITEMS
from whimbrel_testbed.polardb.store import Connection
from whimbrel_testbed.polardb.tables import Table
from whimbrel_testbed.polardb.values import Item

_HASHES = 2**64
_LOWEST_HASH = -(2**63)


@dataclass
class Walk:
    """The rows of a table that meet the clauses, by `keys` (with `hashed`: by the first one's hash before that).

    `keys` end with the table's own, so that no two rows are alike.
    """

    table: Table
    keys: list[Key]
    hashed: bool = False
    descending: bool = False
    clauses: list[Clause] = field(default_factory=list)

    def page(self, connection: Connection, start: Item | None, limit: int) -> tuple[list[bytes], bool]:
        """Return the documents after a start, at most `limit` and 1 MB of JSON; and whether that stopped the walk."""
        documents: list[bytes] = []
        size, chunk = 0, min(limit, PAGE_ITEMS)
        while True:
            found = self._rows(connection, start, chunk)
            for document in found:
                size += len(document)
                if size > PAGE_BYTES and documents:
                    return documents, True
                documents.append(document)
            if len(found) < chunk or len(documents) >= limit:
                return documents, len(documents) >= limit
            start = orjson.loads(documents[-1])
            likely = int((PAGE_BYTES - size) * len(documents) / size * 1.1)
            chunk = min(limit - len(documents), max(1, likely))

    def segment(self, number: int, total: int) -> None:
        """Keep to one of `total` equal ranges of hashes."""
        bounds = [str(_LOWEST_HASH + _HASHES * part // total) for part in (number, number + 1)]
        bounds[1] = str(int(bounds[1]) - 1)
        self.clauses.append(Clause(f"{self.keys[0].hash} BETWEEN %s::bigint AND %s::bigint", bounds))

    @property
    def _order(self) -> list[str]:
        return [self.keys[0].hash] * self.hashed + [key.sql for key in self.keys]

    def _after(self, start: Item) -> Clause:
        parameters = [self.keys[0].parameter_hash] * self.hashed + [key.parameter for key in self.keys]
        keys = [self.keys[0]] * self.hashed + self.keys
        values = [str(start[key.attribute][key.kind]) for key in keys]
        return Clause(after(self._order, parameters, descending=self.descending), values)

    def _rows(self, connection: Connection, start: Item | None, count: int) -> list[bytes]:
        clauses = self.clauses + ([self._after(start)] if start else [])
        where = " AND ".join(clause.sql for clause in clauses) or "true"
        order = ", ".join(part + (" DESC" if self.descending else "") for part in self._order)
        statement = (
            f"SELECT {quoted(DOCUMENT)} FROM {self.table.layout.table} WHERE {where} ORDER BY {order} LIMIT %s::bigint"
        )
        parameters = [value for clause in clauses for value in clause.parameters]
        return [row[0] for row in connection.execute(statement, [*parameters, str(count)])]
