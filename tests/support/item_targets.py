"""DynamoDB-compatible targets for tests: DynamoDB Local and the PolarDB stand-in behind the product's own client."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from whimbrel_testbed.dynamodb.client import delete_tables, dynamodb_client
from whimbrel_worker.endpoints.dynamodb.calls.access import Access
from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.retries import Patience
from whimbrel_worker.endpoints.dynamodb.target import DynamoDBTarget, TargetOptions
from whimbrel_worker.secrets import Secrets
from whimbrel_worker.values.behaviour import Behaviour
from whimbrel_worker.values.columns import Column, Kind, Table
from whimbrel_worker.values.items import ItemBlock

MIGRATION = "default/items"


class Server(Protocol):
    """What the test bed's servers have in common."""

    @property
    def endpoint(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def access_key_id(self) -> str: ...
    @property
    def secret_access_key(self) -> str: ...


@dataclass(frozen=True)
class ItemCase:
    """One target server with what a test needs of it; `endpoint` may be a proxy's."""

    name: str
    behaviour: Behaviour
    endpoint: str
    server: Server
    prefix: str
    directory: Path
    """The Secret's files."""
    options: TargetOptions = field(default_factory=TargetOptions)
    migration: str = MIGRATION

    def __post_init__(self) -> None:
        if not (self.directory / "accessKeyId").exists():
            (self.directory / "accessKeyId").write_text(self.server.access_key_id)
            (self.directory / "secretAccessKey").write_text(self.server.secret_access_key)

    def client(self) -> Client:
        access = Access(self.endpoint, self.server.region, Secrets({"target": str(self.directory)}), "target")
        return Client(access, patience=Patience(seconds=20.0))

    def target(self, epoch: int = 1, **options: Any) -> DynamoDBTarget:
        return DynamoDBTarget(self.client(), self.behaviour, replace(self.options, **options), self.migration, epoch)

    def through(self, endpoint: str) -> "ItemCase":
        return replace(self, endpoint=endpoint)

    @property
    def facts(self) -> dict[str, str]:
        return {
            "endpoint": self.server.endpoint, "region": self.server.region,
            "accessKeyId": self.server.access_key_id, "secretAccessKey": self.server.secret_access_key,
        }  # fmt: skip

    @property
    def direct(self) -> Any:
        """The AWS SDK's client of the server itself."""
        return dynamodb_client(self.facts)

    def table(self, name: str = "items", **definition: Any) -> Table:
        """A table of items with a partition key `pk` (S) and a sort key `sk` (N), under this test's prefix."""
        full = self.prefix + name
        columns = (
            Column("pk", Kind.ATTRIBUTE, "S", "S", nullable=False, collated=True),
            Column("sk", Kind.ATTRIBUTE, "N", "N", nullable=False, collated=True),
            Column("item", Kind.ITEM, "item", "item", nullable=False),
        )
        return Table("", full, "", full, columns, (0, 1), definition=json.dumps(DEFINITION | definition))

    def stored(self, table: Table) -> dict[tuple[str, str], dict[str, Any]]:
        """All items there, by key, as the AWS SDK reads them."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for page in self.direct.get_paginator("scan").paginate(TableName=table.target_name):
            found |= {(item["pk"]["S"], item["sk"]["N"]): item for item in page["Items"]}
        return found

    def control_row(self, entry: str) -> dict[str, Any] | None:
        key = {"migration": {"S": self.migration}, "entry": {"S": entry}}
        row: dict[str, Any] | None = self.direct.get_item(TableName="whimbrel-control", Key=key).get("Item")
        return row

    def clear(self) -> None:
        client = self.direct
        delete_tables(client, self.prefix)
        delete_tables(client, "whimbrel-control")


DEFINITION: dict[str, Any] = {
    "AttributeDefinitions": [
        {"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "N"},
    ],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
}  # fmt: skip


def key(number: int) -> tuple[bytes, bytes]:
    return b'{"S":"p%d"}' % (number % 7), b'{"N":"%d"}' % number


def item(number: int, text: str = "x") -> bytes:
    pk, sk = key(number)
    return b'{"pk":%b,"sk":%b,"text":%b}' % (pk, sk, json.dumps({"S": text}).encode())


def row(number: int, text: str = "x") -> tuple[bytes, ...]:
    return (*key(number), item(number, text))


def rows(numbers: Iterable[int], text: str = "x") -> list[tuple[bytes, ...]]:
    return [row(number, text) for number in numbers]


def block(numbers: Iterable[int], text: str = "x", bookmark: tuple[str, ...] | None = None) -> ItemBlock:
    """A page as the source gives it."""
    return ItemBlock([item(number, text) for number in numbers], ("pk", "sk"), bookmark)


def texts(found: dict[tuple[str, str], dict[str, Any]]) -> dict[int, str]:
    return {int(number): item["text"]["S"] for (_, number), item in found.items()}


def prepared(case: ItemCase, *tables: Table, **options: Any) -> DynamoDBTarget:
    """The target with its control table, a registered migration and the tables."""
    target = case.target(**options)
    target.control().ensure()
    target.control().register("source-1")
    for table in tables:
        target.schema().create(table)
    return target


def numbers_of(found: Sequence[Sequence[object]]) -> list[int]:
    """The sort keys of rows or keys, in order."""
    return sorted(int(json.loads(str(row[1], "utf-8"))["N"]) if isinstance(row[1], bytes) else -1 for row in found)
