"""The tables there are: making, changing, describing and dropping them, TTL and tags.

A table's description is the COMMENT of its PostgreSQL table, so that the database holds tables of items only and a
publication FOR ALL TABLES carries nothing else.
"""

from __future__ import annotations

import threading
import time
import uuid
from functools import partial
from typing import Any

import orjson

from whimbrel_testbed.polardb import definitions
from whimbrel_testbed.polardb.layout import SCHEMA
from whimbrel_testbed.polardb.limits import PAGE_ITEMS
from whimbrel_testbed.polardb.refusals import InvalidError, RefusedError, table_not_found
from whimbrel_testbed.polardb.store import Connection, Store
from whimbrel_testbed.polardb.tables import Table

Body = dict[str, Any]
_ACCOUNT = "000000000000"
_DESCRIBED = (
    "SELECT obj_description(c.oid, 'pg_class') FROM pg_class c "
    "WHERE c.relnamespace = %s::regnamespace AND c.relkind = 'r'"
)


class Catalogue:
    """The tables by name, read from the database at the start."""

    def __init__(self, store: Store, region: str) -> None:
        self._store, self._region, self._lock = store, region, threading.Lock()
        self._tables: dict[str, Table] = {}
        self.reload()

    def reload(self) -> None:
        """Read all descriptions again."""
        rows = self._store.run(lambda connection: connection.execute(_DESCRIBED, [SCHEMA]).fetchall())
        tables = [Table(orjson.loads(text)) for (text,) in rows if text]
        self._tables = {table.name: table for table in tables}

    def table(self, name: Any) -> Table:
        """Return a table, named by its name or its ARN, or refuse the call."""
        if not isinstance(name, str) or not name:
            raise InvalidError("The parameter 'TableName' is required but was not present in the request")
        short = name.rpartition("table/")[2] if name.startswith("arn:") else name
        table = self._tables.get(short)
        if table is None:
            raise table_not_found(short)
        return table

    def create(self, body: Body) -> Body:
        """CreateTable; the table is ACTIVE at once. Billing and throughput are taken and forgotten."""
        asked = definitions.table(body)
        asked |= {"CreationDateTime": time.time(), "TableId": str(uuid.uuid4())}
        table = Table(asked)
        with self._lock:
            if table.name in self._tables:
                raise RefusedError("ResourceInUseException", f"Table already exists: {table.name}")
            self._store.transaction(partial(_make, table))
            self._tables[table.name] = table
        return {"TableDescription": self._description(table, (0, 0))}

    def delete(self, body: Body) -> Body:
        """DeleteTable; the table is gone at once."""
        with self._lock:
            table = self.table(body.get("TableName"))
            drop = table.layout.drop
            self._store.run(lambda connection: connection.execute(drop, [], prepare=False))
            del self._tables[table.name]
        return {"TableDescription": self._description(table, (0, 0)) | {"TableStatus": "DELETING"}}

    def update(self, body: Body) -> Body:
        """UpdateTable: indexes come and go; billing and throughput are ignored; streams are refused."""
        with self._lock:
            table = self.table(body.get("TableName"))
            self._change(definitions.updated(table.asked, body))
        return {"TableDescription": self.describe(body)["Table"]}

    def _change(self, asked: Body) -> None:
        changed = Table(asked)
        comment = changed.layout.comment(changed.text())
        self._store.run(lambda connection: connection.execute(comment, [], prepare=False))
        self._tables[changed.name] = changed

    def describe(self, body: Body) -> Body:
        """DescribeTable: counts the items as they are now; no billing, no capacity, no stream."""
        table = self.table(body.get("TableName"))
        totals = self._store.run(lambda connection: connection.execute(table.layout.totals, []).fetchone())
        return {"Table": self._description(table, (0, 0) if totals is None else (totals[0], totals[1]))}

    def names(self, body: Body) -> Body:
        """ListTables: 100 names a page unless Limit is set."""
        limit, start = body.get("Limit", PAGE_ITEMS), body.get("ExclusiveStartTableName") or ""
        if not isinstance(limit, int) or not 1 <= limit <= PAGE_ITEMS:
            raise InvalidError(
                f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: "
                "Member must have value between 1 and 100"
            )
        names = sorted(name for name in list(self._tables) if name > start)
        page: Body = {"TableNames": names[:limit]}
        return page | ({"LastEvaluatedTableName": names[limit - 1]} if len(names) > limit else {})

    def arn(self, table: Table) -> str:
        """Return a table's ARN."""
        return f"arn:aws:dynamodb:{self._region}:{_ACCOUNT}:table/{table.name}"

    def _description(self, table: Table, totals: tuple[int, int]) -> Body:
        asked, arn = table.asked, self.arn(table)
        description = {name: asked[name] for name in ("AttributeDefinitions", "TableName", "KeySchema", "TableId")}
        description |= {
            "TableStatus": "ACTIVE", "CreationDateTime": asked["CreationDateTime"], "TableArn": arn,
            "ItemCount": totals[0], "TableSizeBytes": totals[1],
        }  # fmt: skip
        for title in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes"):
            if asked.get(title):
                description[title] = [self._index(each, arn, title) for each in asked[title]]
        return description

    def _index(self, asked: Body, arn: str, title: str) -> Body:
        described = {**asked, "IndexArn": f"{arn}/index/{asked['IndexName']}"}
        return described | ({"IndexStatus": "ACTIVE"} if title.startswith("Global") else {})

    def set_ttl(self, body: Body) -> Body:
        """UpdateTimeToLive; expired items go when the control is told to (control.expire)."""
        asked = body.get("TimeToLiveSpecification") or {}
        if not asked.get("AttributeName") or not isinstance(asked.get("Enabled"), bool):
            raise InvalidError("TimeToLiveSpecification needs AttributeName and Enabled")
        with self._lock:
            table = self.table(body.get("TableName"))
            enabled = table.asked.get("TimeToLive")
            if asked["Enabled"] and enabled:
                raise InvalidError("TimeToLive is already enabled")
            if not asked["Enabled"] and not enabled:
                raise InvalidError("TimeToLive is already disabled")
            if enabled and enabled != asked["AttributeName"]:
                raise InvalidError(
                    "TimeToLive is active on a different AttributeName: current AttributeName is " + enabled
                )
            self._change({**table.asked, "TimeToLive": asked["AttributeName"] if asked["Enabled"] else None})
        return {"TimeToLiveSpecification": asked}

    def ttl(self, body: Body) -> Body:
        """DescribeTimeToLive."""
        name = self.table(body.get("TableName")).asked.get("TimeToLive")
        status = {"TimeToLiveStatus": "ENABLED", "AttributeName": name} if name else {"TimeToLiveStatus": "DISABLED"}
        return {"TimeToLiveDescription": status}

    def tag(self, body: Body) -> Body:
        """TagResource."""
        with self._lock:
            table = self.table(body.get("ResourceArn"))
            self._change({**table.asked, "Tags": {**(table.asked.get("Tags") or {}), **definitions.tags(body)}})
        return {}

    def untag(self, body: Body) -> Body:
        """UntagResource."""
        gone = body.get("TagKeys") or []
        with self._lock:
            table = self.table(body.get("ResourceArn"))
            tags = table.asked.get("Tags") or {}
            self._change({**table.asked, "Tags": {key: tags[key] for key in tags if key not in gone}})
        return {}

    def tags(self, body: Body) -> Body:
        """ListTagsOfResource."""
        tags = self.table(body.get("ResourceArn")).asked.get("Tags") or {}
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def expiring(self) -> list[tuple[Table, str]]:
        """Return the tables with TTL and their attribute."""
        return [
            (table, table.asked["TimeToLive"]) for table in list(self._tables.values()) if table.asked.get("TimeToLive")
        ]


def _make(table: Table, connection: Connection) -> None:
    for statement in [*table.layout.create, table.layout.comment(table.text())]:
        connection.execute(statement, [], prepare=False)
