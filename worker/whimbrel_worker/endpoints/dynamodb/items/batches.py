"""Cuts writes into batches of items and keys for one table each, and makes requests of them. Pure; nothing is sent.

Items are passed on as the bytes that the source gave.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import orjson

from whimbrel_worker.endpoints.dynamodb.calls.pace import write_units
from whimbrel_worker.engine.ports import Delete, Write
from whimbrel_worker.values.columns import Table
from whimbrel_worker.values.items import ItemBlock, batch_write_body, key_bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """How large one request may be."""

    requests: int
    bytes: int


@dataclass(slots=True)
class Batch:
    """Items to put and keys (JSON objects) to delete in one table; no key twice."""

    table: Table
    items: list[bytes] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.items) + len(self.keys)

    @property
    def size(self) -> int:
        """Bytes of items and keys."""
        return sum(map(len, self.items)) + sum(map(len, self.keys))

    @property
    def units(self) -> int:
        """Write capacity units, by the length of the items' JSON: an upper bound without the indexes' share."""
        return sum(map(write_units, map(len, self.items))) + len(self.keys)

    def halves(self) -> "tuple[Batch, Batch]":
        """The same in two parts of about equal number."""
        items, keys = len(self.items) // 2, (len(self.keys) + len(self.items) % 2) // 2
        return (
            Batch(self.table, self.items[:items], self.keys[:keys]),
            Batch(self.table, self.items[items:], self.keys[keys:]),
        )

    def body(self, *, metered: bool = False) -> bytes:
        """BatchWriteItem's request; `metered` asks what it consumes."""
        body = batch_write_body(self.table.target_name, self.items, self.keys)
        return body[:-1] + b',"ReturnConsumedCapacity":"TOTAL"}' if metered else body

    def transaction(self, check: bytes) -> bytes:
        """TransactWriteItems' request, with a ConditionCheck in front."""
        name = orjson.dumps(self.table.target_name)
        puts = [b'{"Put":{"TableName":%b,"Item":%b}}' % (name, item) for item in self.items]
        deletes = [b'{"Delete":{"TableName":%b,"Key":%b}}' % (name, key) for key in self.keys]
        return b'{"TransactItems":[' + b",".join([check, *puts, *deletes]) + b"]}"

    def unprocessed(self, reply: bytes) -> "Batch":
        """What a reply of BatchWriteItem says is still to be written; empty for nothing."""
        if b'"UnprocessedItems":{}' in reply or b'"UnprocessedItems"' not in reply:
            return Batch(self.table)
        requests = orjson.loads(reply)["UnprocessedItems"].get(self.table.target_name, ())
        return Batch(
            self.table,
            [orjson.dumps(request["PutRequest"]["Item"]) for request in requests if "PutRequest" in request],
            [orjson.dumps(request["DeleteRequest"]["Key"]) for request in requests if "DeleteRequest" in request],
        )


def consumed(reply: bytes) -> float | None:
    """Capacity units that a metered call consumed, the indexes' share included; None where the reply does not say."""
    said = orjson.loads(reply).get("ConsumedCapacity")
    return sum(float(table.get("CapacityUnits", 0.0)) for table in said) if said else None


def batches_of(writes: Sequence[Write], limits: Limits) -> Iterator[Batch]:
    """Batches for all writes; where a key stands in them more than once, the last one counts."""
    if len(writes) == 1 and not isinstance(writes[0], Delete) and isinstance(writes[0].rows, ItemBlock):
        yield from _cut(Batch(writes[0].table, writes[0].rows.items), limits)
        return
    for batch in _merged(writes):
        yield from _cut(batch, limits)


def _merged(writes: Sequence[Write]) -> Iterator[Batch]:
    """One batch of any size for each table; a block of a Scan's page holds no key twice and is not opened alone."""
    tables: dict[str, tuple[Table, dict[tuple[object, ...], bytes | None]]] = {}
    for write in writes:
        _, last = tables.setdefault(write.table.target_name, (write.table, {}))
        if isinstance(write, Delete):
            last.update((tuple(key), None) for key in write.keys)
        else:
            last.update((write.table.key_of(row), _item(row[-1])) for row in write.rows)
    for table, last in tables.values():
        names = [column.name for column in table.key_columns]
        keys = [key_bytes(names, _cells(key)) for key, item in last.items() if item is None]
        yield Batch(table, [item for item in last.values() if item is not None], keys)


def _cut(batch: Batch, limits: Limits) -> Iterator[Batch]:
    for first in range(0, len(batch.items), limits.requests):
        yield from _small(Batch(batch.table, batch.items[first : first + limits.requests]), limits)
    for first in range(0, len(batch.keys), limits.requests):
        yield Batch(batch.table, [], batch.keys[first : first + limits.requests])


def _small(batch: Batch, limits: Limits) -> Iterator[Batch]:
    if len(batch) > 1 and batch.size > limits.bytes:
        for half in batch.halves():
            yield from _small(half, limits)
    else:
        yield batch


def _item(cell: object) -> bytes:
    if not isinstance(cell, bytes):
        raise TypeError("a row of an item table ends with the item as JSON bytes")
    return cell


def _cells(key: Iterable[object]) -> list[bytes]:
    return [_item(cell) for cell in key]
