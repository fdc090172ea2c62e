"""Tables of items in memory, read by segments and keys as a DynamoDB endpoint lets them be read. Compares nothing."""

import json
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from zlib import crc32

from whimbrel_worker.errors import Transient
from whimbrel_worker.values.columns import Column, Kind, Row, Table
from whimbrel_worker.values.items import ItemBlock

Item = dict[str, Any]


def item_table(name: str = "src1", *, sort_key: bool = False, rows: int = 0) -> Table:
    """A table with the key `id`, and the sort key `at` where it is asked for."""
    names = [("id", "S"), ("at", "N")] if sort_key else [("id", "S")]
    keys = [
        Column(key, Kind.ATTRIBUTE, kind, kind, nullable=False, collated=True) for key, kind in names
    ]  # fmt: skip
    item = Column("item", Kind.ITEM, "item", "item", nullable=False)
    return Table("", name, "", name, (*keys, item), tuple(range(len(keys))), rows_estimate=rows)


def cell(attribute: Item) -> bytes:
    return json.dumps(attribute, separators=(",", ":")).encode()


@dataclass
class Side:
    """One side's items of one table. `salt` gives each side a hash of its own; `backwards` turns the attributes."""

    salt: bytes = b""
    page: int = 7
    backwards: bool = False
    trouble: random.Random | None = None
    items: dict[tuple[bytes, ...], Item] = field(default_factory=dict)
    reads: int = 0
    open_segments: list[tuple[Any, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, item: Item, names: Sequence[str] = ("id",)) -> None:
        with self.lock:
            self.items[tuple(cell(item[name]) for name in names)] = item

    def delete(self, key: str) -> None:
        with self.lock:
            del self.items[(cell({"S": key}),)]

    def rows(
        self, table: Table, low: tuple[str, ...] | None, high: tuple[str, ...] | None, batch: int
    ) -> Iterator[Sequence[Row]]:
        """As the source's reader does: one segment, or the rest of it after a bookmark."""
        bound = low or high
        total = int(bound[0].split("/")[1]) if bound else 1
        index = int(low[0].split("/")[0]) if low else 0
        self.open_segments.append((low, high))
        start = int(low[1]) if low and len(low) > 1 else 0
        yield from self._pages(table, index, total, start)

    def segment_keys(self, table: Table, index: int, total: int) -> Iterator[Sequence[Row]]:
        """As the target's reader does."""
        for block in self._pages(table, index, total, 0):
            yield [table.key_of(row) for row in block]

    def by_keys(self, table: Table, keys: Sequence[Row]) -> Sequence[Row]:
        self._fail()
        with self.lock:
            wanted = [cast("tuple[bytes, ...]", tuple(key)) for key in keys]
            found = [self._bytes(self.items[key]) for key in wanted if key in self.items]
        return ItemBlock(found, [column.name for column in table.key_columns])

    def count(self, table: Table) -> int:
        return len(self.items)

    def _pages(self, table: Table, index: int, total: int, start: int) -> Iterator[ItemBlock]:
        names = [column.name for column in table.key_columns]
        with self.lock:
            mine = [key for key in self.items if crc32(self.salt + b"".join(key)) % total == index]
        for position in range(start, len(mine), self.page):
            self._fail()
            with self.lock:
                keys = [key for key in mine[position : position + self.page] if key in self.items]
                found = [self._bytes(self.items[key]) for key in keys]
            self.reads += len(found)
            yield ItemBlock(found, names, (f"{index}/{total}", str(position + self.page)))

    def _bytes(self, item: Item) -> bytes:
        members = reversed(item.items()) if self.backwards else item.items()
        return json.dumps(dict(members), separators=(",", ":"), ensure_ascii=False).encode()

    def _fail(self) -> None:
        if self.trouble is not None and self.trouble.random() < 0.15:
            raise Transient("the connection was lost")
