"""The operations by name, and one call from its body to its answer; HTTP stands in process.py."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import psycopg

from whimbrel_testbed.polardb.batches import Batches
from whimbrel_testbed.polardb.catalogue import Body, Catalogue
from whimbrel_testbed.polardb.layout import document_key
from whimbrel_testbed.polardb.limits import REQUEST_BYTES
from whimbrel_testbed.polardb.pages import Pages
from whimbrel_testbed.polardb.refusals import RefusedError, item_not_json, table_not_found
from whimbrel_testbed.polardb.store import Connection, Store
from whimbrel_testbed.polardb.transactions import Transactions
from whimbrel_testbed.polardb.writes import Writes

Operation = Callable[[Body], Body | bytes]
_LIMITS = {
    "AccountMaxReadCapacityUnits": 80000, "AccountMaxWriteCapacityUnits": 80000, "TableMaxReadCapacityUnits": 40000,
    "TableMaxWriteCapacityUnits": 40000,
}  # fmt: skip


class Engine:
    """Everything behind the HTTP server."""

    def __init__(self, conninfo: str, region: str) -> None:
        self.store = Store(conninfo)
        self.catalogue = Catalogue(self.store, region)
        self._operations = self._all()

    def _all(self) -> dict[str, Operation]:
        tables, writes = self.catalogue, Writes(self.store, self.catalogue)
        batches, pages = Batches(self.store, tables), Pages(self.store, tables)
        transactions = Transactions(self.store, tables)
        return {
            "CreateTable": tables.create, "DeleteTable": tables.delete, "UpdateTable": tables.update,
            "DescribeTable": tables.describe, "ListTables": tables.names,
            "UpdateTimeToLive": tables.set_ttl, "DescribeTimeToLive": tables.ttl,
            "TagResource": tables.tag, "UntagResource": tables.untag, "ListTagsOfResource": tables.tags,
            "PutItem": writes.put, "UpdateItem": writes.update, "DeleteItem": writes.delete,
            "GetItem": batches.get, "BatchGetItem": batches.get_many, "BatchWriteItem": batches.write,
            "Scan": pages.scan, "Query": pages.query,
            "TransactWriteItems": transactions.write, "TransactGetItems": transactions.read,
            "DescribeLimits": lambda _: dict(_LIMITS),
        }  # fmt: skip

    @property
    def operations(self) -> frozenset[str]:
        """The operations' names."""
        return frozenset(self._operations)

    def call(self, operation: str, payload: bytes) -> bytes:
        """Carry out one call; returns the answer's body. Raises RefusedError."""
        if len(payload) > REQUEST_BYTES:
            raise RefusedError("RequestEntityTooLarge", f"A request has at most {REQUEST_BYTES} bytes", status=413)
        body = _parsed(payload)
        try:
            answer = self._operations[operation](body)
        except psycopg.errors.UndefinedTable:
            # Somebody has dropped the table in PostgreSQL.
            self.catalogue.reload()
            raise table_not_found(str(body.get("TableName", "of this call"))) from None
        except (TypeError, AttributeError, KeyError) as error:
            # Members of another JSON type than the protocol's: the checks above look at values, not at every shape.
            traceback.print_exc()
            raise item_not_json(f"A member of the call is missing or of another type: {error!r}") from error
        return answer if isinstance(answer, bytes) else orjson.dumps(answer)

    def expire(self) -> int:
        """Delete all items whose TTL has passed, as the service does in its own time; returns how many there were."""
        gone = 0
        for table, attribute in self.catalogue.expiring():
            expires = document_key(attribute, "N").sql
            statement = f"DELETE FROM {table.layout.table} WHERE {expires} < %s::numeric"
            now = [str(int(time.time()))]
            gone += self.store.run(partial(_deleted, statement, now))
        return gone


def _deleted(statement: str, parameters: list[str], connection: Connection) -> int:
    return connection.execute(statement, parameters).rowcount


def _parsed(payload: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise item_not_json(f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise item_not_json("The body is not a JSON object")
    return body
