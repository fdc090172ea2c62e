"""The control table on a DynamoDB target and conditional access to one migration's rows in it. What rows mean, other
modules say.

One table, partition key `migration` (`namespace/name`), sort key `entry`: "migration", "worker#<task>#<00000>",
"table#<name>", "chunk#<table>#<000000>", "journal#<000000>", "acknowledged#<000000>#<step>#…", "shard#…", "tips#…",
"recreated#<name>". `#` cannot stand in a table's name. Only basic features are used, because other endpoints than
Amazon's have little more: single-item conditional updates that return the row as it is then, which makes them the
strong read too where ConsistentRead cannot be asked for.
"""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused
from whimbrel_worker.endpoints.dynamodb.calls.retries import Unanswered
from whimbrel_worker.engine.retry import Backoff
from whimbrel_worker.errors import Transient
from whimbrel_worker.values.behaviour import Behaviour

CONTROL_TABLE: Final = "whimbrel-control"
PARTITION: Final = "migration"
ENTRY: Final = "entry"
CONDITION_FAILED: Final = "ConditionalCheckFailedException"
NO_TABLE: Final = "ResourceNotFoundException"
TABLE_EXISTS: Final = "ResourceInUseException"
_NAME = re.compile(r"#(\w+)")
_CREATION_SECONDS = 120.0
_PAGE = 1000
_LOST = Backoff(base=0.05, cap=1.0, attempts=5)

Value = str | int | float | bool | frozenset[str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row as the table holds it; absent attributes read as empty."""

    key: str
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether the attribute is there."""
        return name in self.attributes

    def text(self, name: str) -> str:
        """A string."""
        return str(self.attributes.get(name, {}).get("S", ""))

    def number(self, name: str, default: int = 0) -> int:
        """An integer."""
        return int(self.attributes.get(name, {}).get("N", default))

    def seconds(self, name: str) -> float:
        """A number with a fraction."""
        return float(self.attributes.get(name, {}).get("N", 0.0))

    def texts(self, name: str) -> list[str]:
        """A set of strings, sorted."""
        return sorted(self.attributes.get(name, {}).get("SS", ()))


class ControlTable:
    """One migration's rows. Every method is one call, or the pages of one query, and raises Transient or Refused.

    Transient from an update means that whether it happened is not known.
    """

    def __init__(self, client: Client, behaviour: Behaviour, migration: str) -> None:
        self.client, self.migration = client, migration
        self._behaviour = behaviour

    @property
    def where(self) -> str:
        """The place for messages."""
        return f"{self.client.where}, table {CONTROL_TABLE}"

    def ensure(self) -> None:
        """Make the table if it is missing and wait until it is active. Safe to repeat and to race."""
        if self._status() is None:
            self._create()
        ends = time.monotonic() + _CREATION_SECONDS
        while self._status() != "ACTIVE":
            if time.monotonic() > ends:
                raise Transient("the control table does not become active", where=self.where, todo="it is tried again")
            time.sleep(0.2)

    def get(self, entry: str) -> Entry | None:
        """One row, read as strongly as the endpoint can."""
        request = {"TableName": CONTROL_TABLE, "Key": self.key(entry), **self._consistent()}
        found = self.client.ask("GetItem", request).get("Item")
        return None if found is None else Entry(entry, found)

    def entries(
        self, prefix: str, *, start: str = "", newest_first: bool = False, most: int = 0, page: int = _PAGE
    ) -> Iterator[Entry]:
        """Rows whose key begins with the prefix, in its order; from `start` on; `most` of them where it is not 0.

        `page`: how many to ask for at once; few for who will often stop early.
        """
        low = start or prefix
        request: dict[str, object] = {
            "TableName": CONTROL_TABLE,
            "KeyConditionExpression": "#m = :m AND #e BETWEEN :low AND :high",
            "ExpressionAttributeNames": {"#m": PARTITION, "#e": ENTRY},
            "ExpressionAttributeValues": {
                ":m": {"S": self.migration}, ":low": {"S": low}, ":high": {"S": prefix + "\U0010ffff"},
            },
            "ScanIndexForward": not newest_first,
        }  # fmt: skip
        return self._queried(request, most, page)

    def everything(self) -> Iterator[Entry]:
        """All of the migration's rows, whatever they are."""
        request: dict[str, object] = {
            "TableName": CONTROL_TABLE,
            "KeyConditionExpression": "#m = :m",
            "ExpressionAttributeNames": {"#m": PARTITION},
            "ExpressionAttributeValues": {":m": {"S": self.migration}},
        }
        return self._queried(request, 0, _PAGE)

    def _queried(self, request: dict[str, object], most: int, page: int) -> Iterator[Entry]:
        request |= self._consistent()
        given = 0
        while True:
            request["Limit"] = min(most - given, page) if most else page
            found = self.client.ask("Query", request)
            for item in found.get("Items", ()):
                given += 1
                yield Entry(item[ENTRY]["S"], item)
            if "LastEvaluatedKey" not in found or (most and given >= most):
                return
            request["ExclusiveStartKey"] = found["LastEvaluatedKey"]

    def update(
        self, entry: str, expression: str, *, where: str = "", values: Mapping[str, Value] | None = None
    ) -> Entry | None:
        """Change one row, made if missing, if the condition `where` holds: the row afterwards; None where it does not.

        Attributes are written as `#name` in both expressions, values as `:name`. A call whose reply is lost is made
        again, so callers must know their own change again, or take one that did not happen twice for a lost race.
        """
        request: dict[str, object] = {
            "TableName": CONTROL_TABLE,
            "Key": self.key(entry),
            "UpdateExpression": expression,
            "ReturnValues": "ALL_NEW",
            **expressions(where, expression, values or {}),
        }
        try:
            return Entry(entry, self._update(request)["Attributes"])
        except Refused as refusal:
            if refusal.code == CONDITION_FAILED:
                return None
            raise

    def delete(self, entry: str) -> None:
        """Remove one row, if it is there."""
        self.client.ask("DeleteItem", {"TableName": CONTROL_TABLE, "Key": self.key(entry)})

    def key(self, entry: str) -> dict[str, dict[str, str]]:
        """A row's primary key."""
        return {PARTITION: {"S": self.migration}, ENTRY: {"S": entry}}

    def clock(self) -> float:
        """The endpoint's clock, in seconds since 1970: the one that all workers of a migration share."""
        return self.client.clock()

    def _update(self, request: Mapping[str, object]) -> dict[str, Any]:
        for delay in _LOST.delays():
            try:
                return self.client.ask("UpdateItem", request)
            except Unanswered:
                if self.client.stop.wait(delay):
                    raise
        return self.client.ask("UpdateItem", request)

    def _consistent(self) -> dict[str, bool]:
        return {"ConsistentRead": True} if self._behaviour.consistent_reads else {}

    def _status(self) -> str | None:
        try:
            return str(self.client.ask("DescribeTable", {"TableName": CONTROL_TABLE})["Table"]["TableStatus"])
        except Refused as refusal:
            if refusal.code == NO_TABLE:
                return None
            raise

    def _create(self) -> None:
        request: dict[str, object] = {
            "TableName": CONTROL_TABLE,
            "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in (PARTITION, ENTRY)],
            "KeySchema": [
                {"AttributeName": PARTITION, "KeyType": "HASH"},
                {"AttributeName": ENTRY, "KeyType": "RANGE"},
            ],
        }
        if self._behaviour.billing:
            request["BillingMode"] = "PAY_PER_REQUEST"
        try:
            self.client.ask("CreateTable", request)
        except Refused as refusal:
            if refusal.code != TABLE_EXISTS:
                raise


def expressions(where: str, expression: str, values: Mapping[str, Value]) -> dict[str, object]:
    """A request's condition with the names and values that it and the update use."""
    request: dict[str, object] = {}
    if where:
        request["ConditionExpression"] = where
    if names := set(_NAME.findall(f"{expression} {where}")):
        request["ExpressionAttributeNames"] = {f"#{name}": name for name in sorted(names)}
    if values:
        request["ExpressionAttributeValues"] = {f":{name}": typed(value) for name, value in values.items()}
    return request


def typed(value: Value) -> dict[str, object]:
    """A value as DynamoDB's JSON has it."""
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, frozenset):
        return {"SS": sorted(value)}
    return {"N": str(value) if isinstance(value, int) else f"{value:.6f}"}
