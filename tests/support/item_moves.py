"""Migrations of item tables for tests: task files over DynamoDB endpoints, and items of every type to move."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.moves import Tasks
from whimbrel_testbed.dynamodb.compare import Endpoint, client_of, independent_compare, items

Item = dict[str, dict[str, Any]]


@dataclass
class ItemMove(Tasks):
    """One migration of the tables under a prefix; the source's endpoint may be a proxy's."""

    origin: Endpoint = field(kw_only=True)
    goal: Endpoint = field(kw_only=True)
    prefix: str = field(kw_only=True)
    through: str = field(default="", kw_only=True)
    """Another endpoint by which the product reaches the source."""
    kinesis: Sequence[Mapping[str, Any]] = field(default=(), kw_only=True)
    """The source's `kinesisStreams`."""

    def source(self) -> dict[str, Any]:
        keys = {"accessKeyId": self.origin.access_key_id, "secretAccessKey": self.origin.secret_access_key}
        self.secret("source", **keys)
        endpoint = self.through or self.origin.endpoint
        return {
            "dynamodb": {
                "region": self.origin.region, "endpoint": endpoint, "credentialsSecretRef": {"name": "source"},
                "kinesisStreams": list(self.kinesis),
            }
        }  # fmt: skip

    def table(self, name: str, **fields: Any) -> str:
        """Make a table in the source with a partition key `pk` (S) and a sort key `sk` (N)."""
        whole = self.prefix + name
        client_of(self.origin).create_table(**(definition(whole) | fields))
        return whole

    def differences(self, *tables: str) -> list[str]:
        """What a comparison that shares no code with the product finds."""
        return independent_compare(self.origin, self.goal, tables)

    def source_items(self, table: str) -> list[Item]:
        return [dict(item) for item in items(client_of(self.origin), table)]  # type: ignore[arg-type]

    def target_items(self, table: str) -> list[Item]:
        return [dict(item) for item in items(client_of(self.goal), table)]  # type: ignore[arg-type]


def item_move(directory: Path, origin: Endpoint, goal: Endpoint, prefix: str, **more: Any) -> ItemMove:
    """A move of the tables under a prefix, to PolarDB's endpoint unless `target` says more."""
    target = {"endpoint": goal.endpoint, "region": goal.region, "credentialsSecretRef": {"name": "target"}}
    made = ItemMove(
        directory, {"dynamodb": target | more.pop("target", {})}, {}, {"include": [f"{prefix}*"]},
        origin=origin, goal=goal, prefix=prefix, **more,
    )  # fmt: skip
    made.secret("target", accessKeyId=goal.access_key_id, secretAccessKey=goal.secret_access_key)
    return made


def definition(name: str) -> dict[str, Any]:
    """CreateTable's parameters for a table with both keys, on demand."""
    return {
        "TableName": name,
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "N"},
        ],
        "KeySchema": [
            {"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        "BillingMode": "PAY_PER_REQUEST",
    }  # fmt: skip


def an_item(number: int, rng: random.Random) -> Item:
    """An item of about 250 bytes with values of every type."""
    return {
        "pk": {"S": f"k{number % 97:03d}"},
        "sk": {"N": str(number)},
        "name": {"S": "".join(rng.choices('abcäß"\\ \n€😀', k=rng.randint(0, 12)))},
        "exact": {"N": str(rng.randint(-(10**37), 10**37))},
        "raw": {"B": rng.randbytes(8)},
        "flag": {"BOOL": rng.random() < 0.5},
        "nothing": {"NULL": True},
        "tags": {"SS": sorted({f"t{rng.randint(0, 9)}" for _ in range(3)})},
        "sizes": {"NS": sorted({str(rng.randint(0, 99)) for _ in range(3)})},
        "deep": {"M": {"list": {"L": [{"N": str(number)}, {"S": ""}, {"M": {}}]}}},
    }


def fill(endpoint: Endpoint, table: str, numbers: Sequence[int], seed: int = 1) -> None:
    """Put items with these numbers."""
    client, rng = client_of(endpoint), random.Random(seed)
    for batch in _batches([{"PutRequest": {"Item": an_item(number, rng)}} for number in numbers]):
        request: Mapping[str, Any] = {table: batch}
        while request:
            request = client.batch_write_item(RequestItems=request).get("UnprocessedItems") or {}


def _batches(requests: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(requests), 25):
        yield requests[start : start + 25]
