"""Changes that wait to be written: the last state of each key. Pure."""

from collections.abc import Mapping

from whimbrel_worker.engine.ports import Delete, Upsert, Write
from whimbrel_worker.engine.reverse_ports import Key
from whimbrel_worker.values.columns import Table


class Buffer:
    """Items by table and key; None for those that are to be deleted."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[Key, bytes | None]] = {}
        self.changes = 0
        """How many changes these are."""
        self.bytes = 0
        """How large they were when they came."""

    def __bool__(self) -> bool:
        return bool(self._tables)

    def __contains__(self, table: str) -> bool:
        return table in self._tables

    def put(self, table: str, key: Key, item: bytes | None) -> None:
        """One more change; an earlier one of the same key is forgotten."""
        self._tables.setdefault(table, {})[key] = item
        self.changes += 1
        self.bytes += len(item or b"")

    def drop(self, table: str) -> None:
        """Forget a table's changes."""
        self._tables.pop(table, None)

    def clear(self) -> None:
        """Forget all."""
        self._tables.clear()
        self.changes = self.bytes = 0

    def writes(self, tables: Mapping[str, Table]) -> list[Write]:
        """All of it, no key twice."""
        writes: list[Write] = []
        for name, items in self._tables.items():
            rows = [(*key, item) for key, item in items.items() if item is not None]
            keys = [key for key, item in items.items() if item is None]
            writes += [Upsert(tables[name], rows)] if rows else []
            writes += [Delete(tables[name], keys)] if keys else []
        return writes
