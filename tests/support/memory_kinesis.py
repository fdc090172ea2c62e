"""The test bed's Kinesis without a network and with a clock that the test turns, for the logic of reading it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from support.memory_shards import item_table
from whimbrel_api.endpoints import KinesisStream
from whimbrel_testbed.streams.kinesis import KinesisService
from whimbrel_testbed.streams.kinesis_shards import KinesisStream as Stream
from whimbrel_testbed.streams.refusals import Refusal
from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Reply, of_reply
from whimbrel_worker.endpoints.dynamodb.kinesis.log import KinesisLog
from whimbrel_worker.endpoints.dynamodb.kinesis.streams import KinesisStreams
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.engine.shard_ports import Page, Shard, ShardRow
from whimbrel_worker.values.columns import Row, Table
from whimbrel_worker.values.moments import moment_text

BEGAN = 1_700_000_000.0


@dataclass
class _Direct:
    """What the worker's client does, without a wire."""

    world: World
    service: str
    asked: list[str] = field(default_factory=list)

    def ask(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(operation)
        try:
            with self.world.lock:
                body = self._body(operation, request)
        except Refusal as refusal:
            told = json.dumps(refusal.as_json()).encode()
            raise of_reply(Reply("the test", "keys", operation, 400, {}, told, self.service)) from None
        return dict(json.loads(body))

    def _body(self, operation: str, request: Mapping[str, Any]) -> bytes:
        if self.service == "kinesis":
            return self.world.service.answer(operation, request)
        name = request["TableName"]
        if name not in self.world.items:
            raise Refusal("ResourceNotFoundException", "Cannot do operations on a non-existent table")
        self.world.service.dials.admit(operation, self.world.now)
        if operation == "DescribeTable":
            return json.dumps({"Table": {"TableName": name, "TableStatus": "ACTIVE"}}).encode()
        return self.world.service.destination(operation, name, request)

    def clock(self) -> float:
        return self.world.now


class World:
    """Tables whose changes go into one Kinesis data stream."""

    def __init__(self, seed: int, names: tuple[str, ...] = ("t",), shards: int = 1) -> None:
        self.now = BEGAN
        self.lock = threading.RLock()
        self.service = KinesisService(lambda: self.now, seed, "us-east-1")
        self.tables: dict[str, Table] = {name: item_table(name) for name in names}
        self.items: dict[str, dict[Row, bytes]] = {name: {} for name in names}
        self.versions = 0
        self.kinesis, self.dynamodb = _Direct(self, "kinesis"), _Direct(self, "dynamodb")
        self.kinesis.ask("CreateStream", {"StreamName": "s", "ShardCount": shards})
        (self.arn,) = self.service.streams
        for name in names:
            self.point(name)

    @property
    def stream(self) -> Stream:
        return self.service.streams[self.arn]

    def point(self, table: str, verb: str = "Enable", precision: str = "MICROSECOND") -> None:
        """Make the stream the table's destination, or end that."""
        settings = {"ApproximateCreationDateTimePrecision": precision}
        request = {"TableName": table, "StreamArn": self.arn, "EnableKinesisStreamingConfiguration": settings}
        self.dynamodb.ask(f"{verb}KinesisStreamingDestination", request)

    def log(self, *, keep_ttl: bool = True, stream: str = "s") -> KinesisLog:
        """The log as a process of its own would see it."""
        wanted = [KinesisStream(tables=["*"], stream=stream)]
        streams = KinesisStreams(cast(Client, self.dynamodb), cast(Client, self.kinesis), wanted)
        return KinesisLog(streams, keep_ttl)

    def write(self, table: str, key: str, *, remove: bool = False, by_ttl: bool = False) -> None:
        """Put a new version of an item, or delete it."""
        with self.lock:
            self._write(table, key, remove, by_ttl)

    def _write(self, table: str, key: str, remove: bool, by_ttl: bool) -> None:
        cell = f'{{"S":"{key}"}}'.encode()
        before = self.items[table].pop((cell,), None)
        if remove and before is None:
            return
        self.versions += 1
        images: dict[str, Any] = {"OldImage": json.loads(before)} if before else {}
        if not remove:
            image = {"id": {"S": key}, "v": {"N": str(self.versions)}}
            self.items[table][cell,] = json.dumps(image, separators=(",", ":")).encode()
            images["NewImage"] = image
        event = "REMOVE" if remove else "MODIFY" if before else "INSERT"
        identity = {"userIdentity": {"type": "Service", "principalId": "dynamodb.amazonaws.com"}} if by_ttl else {}
        record = {"eventName": event, "dynamodb": {"Keys": {"id": {"S": key}}, **images}, **identity}
        self.service.heard(table, record, self.now)


class LiveWorld(World):
    """The same by this machine's clock, for workers with threads."""

    @property
    def now(self) -> float:
        return time.time()

    @now.setter
    def now(self, _: float) -> None:
        return


@dataclass
class LiveSource:
    """Implements shard_ports.ShardReader over a world."""

    world: World

    def __post_init__(self) -> None:
        self.log = self.world.log()

    def clock(self) -> float:
        return self.world.now

    def moment(self, at: float) -> str:
        return moment_text(at)

    def discover(self) -> tuple[list[Table], list[Problem]]:
        return list(self.world.tables.values()), []

    def shards(self, table: Table) -> list[Shard]:
        return self.log.shards(table)

    def read(self, table: Table, row: ShardRow) -> Iterator[Page]:
        return self.log.read(table, row)
