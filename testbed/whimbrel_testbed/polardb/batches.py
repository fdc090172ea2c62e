"""BatchWriteItem in one PostgreSQL transaction; GetItem and BatchGetItem, whose documents nobody opens on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from whimbrel_testbed.polardb.catalogue import Body, Catalogue
from whimbrel_testbed.polardb.conditions import project
from whimbrel_testbed.polardb.limits import BATCH_BYTES, BATCH_GETS, BATCH_WRITES
from whimbrel_testbed.polardb.parser import parse_projection
from whimbrel_testbed.polardb.placeholders import Placeholders, no_legacy_parameters
from whimbrel_testbed.polardb.refusals import InvalidError, item_not_json
from whimbrel_testbed.polardb.store import Connection, Store
from whimbrel_testbed.polardb.tables import Table
from whimbrel_testbed.polardb.values import Item
from whimbrel_testbed.polardb.writes import as_json, checked_item

_DUPLICATES = "Provided list of item keys contains duplicates"


@dataclass
class _TableBatch:
    table: Table
    puts: list[Item]
    deletes: list[Item]

    def run(self, connection: Connection) -> None:
        if self.puts:
            connection.execute(self.table.layout.put, [as_json(self.puts)])
        if self.deletes:
            connection.execute(self.table.layout.delete, [as_json(self.deletes)])


def _run_all(batches: Sequence[_TableBatch], connection: Connection) -> None:
    for batch in batches:
        batch.run(connection)


class Batches:
    """The calls on many items."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store, self._catalogue = store, catalogue

    def write(self, body: Body) -> Body:
        """BatchWriteItem: all or nothing, so nothing is ever unprocessed."""
        requests = _requests(body)
        total = sum(len(each) for each in requests.values())
        if total > BATCH_WRITES:
            raise InvalidError(
                f"1 validation error detected: Value at 'requestItems' failed to satisfy constraint: {total} requests; "
                f"Map value must satisfy constraint: [Member must have length less than or equal to {BATCH_WRITES}, "
                "Member must have length greater than or equal to 1]"
            )
        batches = [self._table_batch(name, requests[name]) for name in sorted(requests)]
        if len(batches) == 1 and not (batches[0].puts and batches[0].deletes):
            self._store.run(batches[0].run)
        else:
            self._store.transaction(partial(_run_all, batches))
        return {"UnprocessedItems": {}}

    def _table_batch(self, name: str, requests: Sequence[Body]) -> _TableBatch:
        table, batch = self._catalogue.table(name), _TableBatch(self._catalogue.table(name), [], [])
        for request in requests:
            if list(request) == ["PutRequest"]:
                batch.puts.append(checked_item(table, request["PutRequest"].get("Item")))
            elif list(request) == ["DeleteRequest"]:
                batch.deletes.append(table.check_key(request["DeleteRequest"].get("Key")))
            else:
                raise InvalidError("Supplied AttributeValue has more than one datatypes set, or neither Put nor Delete")
        no_duplicates(table, [*batch.puts, *batch.deletes])
        # One order for all writers, so that two batches over the same items do not block each other.
        batch.puts.sort(key=table.key_texts)
        batch.deletes.sort(key=table.key_texts)
        return batch

    def get(self, body: Body) -> bytes:
        """GetItem, always consistent."""
        no_legacy_parameters(body)
        table = self._catalogue.table(body.get("TableName"))
        key = table.check_key(body.get("Key"))
        show = projection(body)
        row = self._store.run(lambda c: c.execute(table.layout.get_one, table.key_texts(key)).fetchone())
        return b'{"Item":' + show(row[0]) + b"}" if row else b"{}"

    def get_many(self, body: Body) -> bytes:
        """BatchGetItem: at most 16 MB; what does not fit is in UnprocessedKeys."""
        requests = _requests(body)
        if sum(len(each.get("Keys") or []) for each in requests.values()) > BATCH_GETS:
            raise InvalidError("Too many items requested for the BatchGetItem call")
        responses, left, budget = [], {}, BATCH_BYTES
        for name, request in requests.items():
            table, show = self._catalogue.table(name), projection(request)
            keys = [table.check_key(key) for key in request.get("Keys") or []]
            no_duplicates(table, keys)
            found, cut = self._found(table, keys, budget)
            budget -= sum(map(len, found))
            responses.append(orjson.dumps(name) + b":[" + b",".join(map(show, found)) + b"]")
            if cut < len(keys):
                left[name] = {**request, "Keys": keys[cut:]}
        return b'{"Responses":{' + b",".join(responses) + b'},"UnprocessedKeys":' + orjson.dumps(left) + b"}"

    def _found(self, table: Table, keys: list[Item], budget: int) -> tuple[list[bytes], int]:
        """Return the documents within the budget of bytes, and how many of the keys have been looked at."""
        if not keys:
            raise InvalidError("The list of keys in RequestItems for BatchGetItem is required")
        rows = self._store.run(lambda c: c.execute(table.layout.get, [as_json(keys)]).fetchall())
        found: list[bytes] = []
        for place, document in rows:
            budget -= len(document)
            if budget < 0:
                return found, place - 1
            found.append(document)
        return found, len(keys)


def no_duplicates(table: Table, items: list[Item]) -> None:
    """Refuse a call that names a key twice."""
    if len({tuple(table.key_texts(item)) for item in items}) != len(items):
        raise InvalidError(_DUPLICATES)


def _requests(body: Body) -> dict[str, Any]:
    requests = body.get("RequestItems")
    if not isinstance(requests, dict):
        raise item_not_json("RequestItems is not a JSON object")
    if not requests or not all(requests.values()):
        raise InvalidError(
            "1 validation error detected: Value at 'requestItems' failed to satisfy constraint: "
            "Member must have length greater than or equal to 1"
        )
    return requests


def projection(body: Body) -> Callable[[bytes], bytes]:
    """Return what brings a document to the form asked for by ProjectionExpression."""
    placeholders = Placeholders(body)
    text = body.get("ProjectionExpression")
    paths = parse_projection(text, placeholders) if text is not None else []
    placeholders.all_used()
    if not paths:
        return lambda document: document
    return lambda document: orjson.dumps(project(orjson.loads(document), paths))
