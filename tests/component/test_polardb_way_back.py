"""Changes made through PolarDB's endpoint, read from its log and written to DynamoDB, make both sides equal."""

from __future__ import annotations

import os
import random
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from support.polardb_log import PolarDBLog, connector, read_to_marker
from support.seeds import over
from whimbrel_api.layout import Layout
from whimbrel_testbed.dynamodb.client import create_table, delete_tables, dynamodb_client
from whimbrel_worker.endpoints.polardb.log.changes import Committed, Event, RowChange
from whimbrel_worker.endpoints.polardb.log.replication import ReplicationStream
from whimbrel_worker.endpoints.polardb.rows.items import ItemWrite, KeyAttribute
from whimbrel_worker.endpoints.polardb.rows.layout import ItemLayout
from whimbrel_worker.endpoints.polardb.slot import publication, slots
from whimbrel_worker.values.items import canonical_item

if TYPE_CHECKING:
    from whimbrel_testbed.dynamodb.local import DynamoDBServer
    from whimbrel_testbed.polardb.server import PolarDBServer

KINDS = {"string": ("S", "N"), "number": ("N", "B"), "binary": ("B", "S"), "single": ("S",)}


@pytest.fixture
def log(polardb: PolarDBServer, tmp_path: Path) -> Iterator[PolarDBLog]:
    """The stand-in's own database with a slot and a publication of ours."""
    access = polardb.postgres
    made = connector(polardb.backend, access.database, tmp_path / "secret", access.user, access.password)
    log = PolarDBLog(polardb.backend, made, f"back_{os.getpid()}")
    with made.connect() as connection:
        publication.create(connection, "back", publication.Mark(log.owner, log.slot), None, made.where)
        log.published, log.position = "back", slots.create(connection, log.slot, made.where)
        yield log
        slots.drop(connection, log.slot, made.where, terminate=True)
        publication.drop(connection, "back", log.owner, made.where)


def definition(name: str, kinds: tuple[str, ...]) -> dict[str, Any]:
    names = ("pk", "xmin")[: len(kinds)]  # PostgreSQL cannot have a column xmin: the layout finds what stands for it.
    pairs = list(zip(names, kinds, strict=True))
    return {
        "TableName": name,
        "KeySchema": [
            {"AttributeName": key, "KeyType": role} for key, role in zip(names, ("HASH", "RANGE"), strict=False)
        ],
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": kind} for key, kind in pairs],
        "BillingMode": "PAY_PER_REQUEST",
    }


def some_key(seeded: random.Random, kinds: tuple[str, ...]) -> dict[str, Any]:
    def value(kind: str) -> dict[str, Any]:
        number = seeded.randrange(6)
        return {kind: {"S": f"käy'\"\\{number}", "N": f"{number - 2}.50", "B": bytes([0, 255, number])}[kind]}

    return dict(zip(("pk", "xmin"), map(value, kinds), strict=False))


def some_attributes(seeded: random.Random) -> dict[str, Any]:
    long = seeded.randbytes(4000).hex() if seeded.random() < 0.3 else "short"
    return {"v": {"N": str(seeded.randrange(1000))}, "long": {"S": long}, "set": {"BS": [seeded.randbytes(3)]}}


def act(client: Any, seeded: random.Random, tables: dict[str, tuple[str, ...]]) -> None:
    """One call of an application."""
    table = seeded.choice(list(tables))
    key = some_key(seeded, tables[table])
    match seeded.randrange(4):
        case 0:
            client.delete_item(TableName=table, Key=key)
        case 1:
            client.update_item(
                TableName=table, Key=key, UpdateExpression="SET #c = :c", ExpressionAttributeNames={"#c": "v"},
                ExpressionAttributeValues={":c": {"N": str(seeded.randrange(1000))}},
            )  # fmt: skip
        case 2:
            client.put_item(TableName=table, Item=key | some_attributes(seeded))
        case _:
            items = {
                orjson.dumps(made, default=list): made for made in (some_key(seeded, tables[table]) for _ in "abc")
            }
            puts = [{"PutRequest": {"Item": made | some_attributes(seeded)}} for made in items.values()]
            client.batch_write_item(RequestItems={table: puts})


@dataclass
class Carrier:
    """Writes changes to DynamoDB and keeps the position, as a worker does; acknowledges now and then."""

    back: Any
    tables: dict[str, tuple[str, ...]]
    position: int
    seeded: random.Random
    commits: int = 0

    def __post_init__(self) -> None:
        self.keys = {
            name: [KeyAttribute(key, kind) for key, kind in zip(("pk", "xmin"), kinds, strict=False)]
            for name, kinds in self.tables.items()
        }
        self.layout = ItemLayout(Layout(), self.keys)

    def carry(self, stream: ReplicationStream, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, RowChange):
                for write in self.layout.writes(event):
                    self._apply(write)
            if isinstance(event, Committed):
                self.position = event.end_lsn
                self.commits += 1
                if self.seeded.random() < 0.5:
                    stream.acknowledge(event.end_lsn)

    def _apply(self, write: ItemWrite) -> None:
        if write.item is not None:
            self.back.put_item(TableName=write.table, Item=wire(orjson.loads(write.item)))
            return
        names = [key.name for key in self.keys[write.table]]
        key = dict(zip(names, map(orjson.loads, write.key), strict=True))
        self.back.delete_item(TableName=write.table, Key=wire(key))


def wire(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes as the AWS SDK takes them: it makes base64 itself."""

    def opened(attribute: dict[str, Any]) -> dict[str, Any]:
        ((kind, value),) = attribute.items()
        return {
            kind: b64decode(value) if kind == "B" else [b64decode(each) for each in value] if kind == "BS" else value
        }

    return {name: opened(attribute) for name, attribute in attributes.items()}


def content(client: Any, table: str) -> list[bytes]:
    def text(value: Any) -> str:
        return b64encode(value).decode()

    pages = client.get_paginator("scan").paginate(TableName=table)
    return sorted(canonical_item(orjson.dumps(item, default=text)) for page in pages for item in page["Items"])


@pytest.fixture
def tables(
    polardb: PolarDBServer, dynamodb: DynamoDBServer, polardb_prefix: str
) -> Iterator[dict[str, tuple[str, ...]]]:
    """The same empty tables on both sides."""
    there, back = dynamodb_client(polardb.facts()), dynamodb_client(dynamodb.facts())
    made = {polardb_prefix + name: kinds for name, kinds in KINDS.items()}
    for name, kinds in made.items():
        create_table(there, definition(name, kinds))
        create_table(back, definition(name, kinds))
    yield made
    delete_tables(back, polardb_prefix)


@pytest.mark.parametrize("seed", over(1, 2, 3, 4, 5))
def test_both_sides_are_equal_after_random_calls_and_restarts(
    log: PolarDBLog, polardb: PolarDBServer, dynamodb: DynamoDBServer, tables: dict[str, tuple[str, ...]], seed: int
) -> None:
    """The stream is cut off anywhere, also inside a transaction, and goes on from the position that was kept."""
    print(f"seed {seed}")
    seeded = random.Random(seed)
    there, back = dynamodb_client(polardb.facts()), dynamodb_client(dynamodb.facts())
    carrier = Carrier(back, tables, log.position, seeded)
    for number in range(12):
        for _ in range(20):
            act(there, seeded, tables)
        log.beat(f"round {number}")
        with log.stream(carrier.position) as stream:
            events = read_to_marker(stream, f"round {number}")
            carrier.carry(stream, events[: seeded.randrange(len(events) + 1)])
    log.beat("last")
    with log.stream(carrier.position) as stream:
        carrier.carry(stream, read_to_marker(stream, "last"))
    assert carrier.commits > 50
    for name in tables:
        assert content(there, name) == content(back, name)
