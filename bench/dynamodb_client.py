"""How much CPU an item costs on its way to and from DynamoDB: our client beside boto3's, one server, one run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import orjson

from whimbrel_testbed.dynamodb.client import dynamodb_client
from whimbrel_testbed.dynamodb.local import DynamoDBServer
from whimbrel_worker.endpoints.dynamodb.calls.access import Access
from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.secrets import Secrets
from whimbrel_worker.values.items import batch_write_body, cut_page

OWN = "whimbrel"
WRITE, READ = "write", "read"
_TABLE = "client-bench"
_BATCH = 25
_DEFINITION: dict[str, Any] = {
    "TableName": _TABLE,
    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}
Way = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One client's work in one direction."""

    direction: str
    client: str
    items: int
    cpu_seconds: float

    @property
    def micros_an_item(self) -> float:
        """CPU microseconds for each item."""
        return self.cpu_seconds / self.items * 1e6


def measure(server: DynamoDBServer, items: int = 20_000) -> list[Measurement]:
    """Write items of 250 B in batches of 25 and read them in pages of 1 MB, by each client."""
    theirs, texts = dynamodb_client(server.facts()), [_item(number) for number in range(items)]
    with _own(server) as ours:
        ours.ask("CreateTable", _DEFINITION)
        ways: list[tuple[str, str, Way]] = [
            (WRITE, OWN, lambda: _write_ours(ours, texts)),
            (READ, OWN, lambda: _read_ours(ours)),
            (READ, "boto3 client", lambda: _read_theirs(theirs)),
            (WRITE, "boto3 client", lambda: _write_theirs(theirs, texts)),
            (WRITE, "boto3 batch_writer", lambda: _write_resource(server, texts)),
        ]
        try:
            return [_timed(*way) for way in ways]
        finally:
            ours.ask("DeleteTable", {"TableName": _TABLE})


def _item(number: int) -> bytes:
    """An item as the service spells it: 250 B, of six attributes."""
    return orjson.dumps(
        {
            "pk": {"S": f"flight#{number:08d}"},
            "carrier": {"S": "UA"},
            "delay": {"N": f"{number % 173}.5"},
            "distance": {"N": str(number % 4983)},
            "cancelled": {"BOOL": False},
            "route": {"S": f"EWR-{number % 97:03d} " + "via the northern corridor, " * 4},
        }
    )


def _timed(direction: str, client: str, way: Way) -> Measurement:
    began = time.process_time()
    items = way()
    return Measurement(direction, client, items, time.process_time() - began)


@contextmanager
def _own(server: DynamoDBServer) -> Iterator[Client]:
    facts = server.facts()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("accessKeyId", "secretAccessKey"):
            (Path(folder) / name).write_text(facts[name])
        client = Client(Access(server.endpoint, facts["region"], Secrets({"keys": folder}), "keys"))
        yield client
        client.close()


def _write_ours(client: Client, items: Sequence[bytes]) -> int:
    for start in range(0, len(items), _BATCH):
        client.call("BatchWriteItem", batch_write_body(_TABLE, items[start : start + _BATCH]))
    return len(items)


def _read_ours(client: Client) -> int:
    found, key = 0, None
    while True:
        request = {"TableName": _TABLE, "ConsistentRead": True}
        page = cut_page(client.call("Scan", orjson.dumps(request | ({"ExclusiveStartKey": key} if key else {}))))
        found += len(page.items)
        if not (key := page.last_key):
            return found


def _write_theirs(client: Any, items: Sequence[bytes]) -> int:
    for start in range(0, len(items), _BATCH):
        puts = [{"PutRequest": {"Item": orjson.loads(item)}} for item in items[start : start + _BATCH]]
        client.batch_write_item(RequestItems={_TABLE: puts})
    return len(items)


def _read_theirs(client: Any) -> int:
    pages = client.get_paginator("scan").paginate(TableName=_TABLE, ConsistentRead=True)
    return sum(len(page["Items"]) for page in pages)


def _write_resource(server: DynamoDBServer, items: Sequence[bytes]) -> int:
    facts = server.facts()
    resource = boto3.resource(
        "dynamodb", endpoint_url=facts["endpoint"], region_name=facts["region"],
        aws_access_key_id=facts["accessKeyId"], aws_secret_access_key=facts["secretAccessKey"],
    )  # fmt: skip
    deserialize = boto3.dynamodb.types.TypeDeserializer().deserialize
    plain = [{name: deserialize(value) for name, value in orjson.loads(item).items()} for item in items]
    with resource.Table(_TABLE).batch_writer() as writer:
        for item in plain:
            writer.put_item(Item=item)
    return len(items)


def table(results: list[Measurement]) -> str:
    """The results as lines of text."""
    lines = [f"{'direction':<10} {'client':<20} {'items':>8} {'CPU s':>7} {'µs an item':>11}"]
    for one in results:
        lines.append(
            f"{one.direction:<10} {one.client:<20} {one.items:>8} {one.cpu_seconds:>7.2f} {one.micros_an_item:>11.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run against a server of its own and print the table."""
    from whimbrel_testbed.dynamodb.local import dynamodb_server

    with dynamodb_server() as server:
        print(table(measure(server)))


if __name__ == "__main__":
    main()
