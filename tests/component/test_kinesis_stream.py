"""Kinesis data streams as the change log, against servers: the stream server's Kinesis, which delivers late, twice and
out of order, as the source, and the PolarDB stand-in as the target. The workers are processes of their own."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from support.item_moves import ItemMove, an_item, fill
from support.moves import order
from support.patience import PATIENCE, eventually
from whimbrel_api.reports import StreamResult
from whimbrel_api.tasks import ExitCode, TaskFile
from whimbrel_testbed.dynamodb.client import dynamodb_client
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.streams.server import StreamServer

MICROSECONDS = {"ApproximateCreationDateTimePrecision": "MICROSECOND"}


def point(move: ItemMove, table: str, arn: str, **settings: str) -> None:
    """Have a table's changes written into a Kinesis data stream."""
    client_of(move.origin).enable_kinesis_streaming_destination(
        TableName=table, StreamArn=arn, EnableKinesisStreamingConfiguration=settings or MICROSECONDS
    )


@pytest.fixture
def stream(moving: ItemMove, stream_bed: StreamServer) -> str:
    """The ARN of a Kinesis data stream with two shards, which follows this test's tables."""
    arn = stream_bed.control.kinesis_stream(moving.prefix + "changes", shards=2, kept_hours=48)
    moving.kinesis = [{"tables": [f"{moving.prefix}*"], "stream": moving.prefix + "changes"}]
    return arn


def copied(move: ItemMove, arn: str, *names: str) -> tuple[str, ...]:
    tables = tuple(move.table(name) for name in names)
    for table in tables:
        point(move, table, arn)
        fill(move.origin, table, range(60))
    move.prepare()
    code, report = move.run("snapshot")
    assert code == ExitCode.DONE, report.last_error
    return tables


def write(move: ItemMove, tables: tuple[str, ...], rng: random.Random, count: int) -> None:
    """So few items that each of them is written many times within what may come out of order."""
    client = client_of(move.origin)
    for _ in range(count):
        table, item = rng.choice(tables), an_item(rng.randint(0, 7), rng)
        if rng.random() < 0.2:
            client.delete_item(TableName=table, Key={name: item[name] for name in ("pk", "sk")})
        else:
            client.put_item(TableName=table, Item=item)


class Workers:
    """Stream workers of one move."""

    def __init__(self, move: ItemMove, count: int) -> None:
        self.move, self.count = move, count
        self.files = [self._file(index) for index in range(count)]
        self.processes = {index: self.start(index) for index in range(count)}

    def _file(self, index: int) -> TaskFile:
        return self.move.task("stream", index=index, workers=self.count, reportInterval=0.2)

    def start(self, index: int) -> subprocess.Popen[bytes]:
        return self.move.start("stream", index=index, workers=self.count, reportInterval=0.2)

    def result(self) -> StreamResult | None:
        try:
            return self.move.report(self.files[0]).stream
        except FileNotFoundError:
            return None

    def order(self, **orders: Any) -> None:
        for file in self.files:
            order(file, **orders)

    def log(self) -> str:
        return "\n".join(self.move.log("stream", index)[-3000:] for index in self.processes)

    def equal(self, *tables: str) -> None:
        eventually(lambda: self.move.differences(*tables) == [], lambda: (self.move.differences(*tables), self.log()))


@contextmanager
def following(move: ItemMove, count: int = 1) -> Iterator[Workers]:
    """Stream workers; retired at the end, which all must do with exit code 0."""
    workers = Workers(move, count)
    try:
        yield workers
        workers.order(retire=True)
        for process in workers.processes.values():
            assert process.wait(PATIENCE) == ExitCode.DONE, workers.log()
    finally:
        for process in workers.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def freeze(move: ItemMove) -> str:
    code, report = move.run("freeze", freeze={"quietSeconds": 3.0})
    assert code == ExitCode.DONE, report.last_error
    assert report.freeze is not None
    return report.freeze.position


def test_records_late_twice_and_out_of_order_end_right_over_splits_merges_and_a_kill(
    moving: ItemMove, stream_bed: StreamServer, stream: str
) -> None:
    control, name, seed = stream_bed.control, moving.prefix + "changes", 3
    print(f"seed {seed}")
    tables, rng = copied(moving, stream, "a", "b"), random.Random(seed)
    control.kinesis_disorder(name, seconds=2.0, twice=0.2)
    with following(moving, 2) as workers:
        for round_ in range(4):
            write(moving, tables, rng, 40)
            (control.kinesis_merge if round_ % 2 else control.kinesis_split)(name)
            control.expire_iterators()
            if round_ == 1:
                workers.processes[1].kill()
                workers.processes[1].wait()
                workers.processes[1] = workers.start(1)
        write(moving, tables, rng, 40)
        workers.equal(*tables)


def test_a_freeze_is_drained_and_nothing_comes_after_it(
    moving: ItemMove, stream_bed: StreamServer, stream: str
) -> None:
    tables = copied(moving, stream, "a", "b")
    stream_bed.control.kinesis_disorder(moving.prefix + "changes", seconds=1.0, twice=0.3)
    with following(moving) as workers:
        write(moving, tables, random.Random(5), 60)
        first = freeze(moving)
        workers.order(drainTo=first)
        eventually(lambda: (found := workers.result()) is not None and found.drained_to == first, workers.log)
        assert moving.differences(*tables) == []
        assert freeze(moving) == first


def test_a_quiet_stream_is_said_to_be_quiet_and_keeps_what_comes_for_as_long_as_it_is_set_to(
    moving: ItemMove, stream: str
) -> None:
    copied(moving, stream, "a")
    with following(moving) as workers:
        eventually(lambda: (found := workers.result()) is not None and found.quiet, workers.log)
        assert (found := workers.result()) is not None
        assert found.retention_seconds == 48 * 3600


def test_a_destination_that_is_switched_off_ends_the_stream(moving: ItemMove, stream: str) -> None:
    (table,) = copied(moving, stream, "a")
    client_of(moving.origin).disable_kinesis_streaming_destination(TableName=table, StreamArn=stream)
    code, report = moving.run("stream")
    assert code == ExitCode.SOURCE_LOG_LOST
    assert report.last_error is not None
    assert "DISABLED" in report.last_error.sentence()


def test_the_preflight_tells_of_the_stream_and_refuses_a_table_that_does_not_write_into_it(
    moving: ItemMove, stream: str
) -> None:
    table = moving.table("a")
    code, report = moving.run("preflight")
    assert code != ExitCode.DONE
    assert report.last_error is not None
    assert "enable-kinesis-streaming-destination" in json.dumps(report.model_dump(mode="json"))
    point(moving, table, stream)
    code, report = moving.run("preflight")
    assert code == ExitCode.DONE, report.last_error
    told = json.dumps(report.model_dump(mode="json"))
    assert "48 hours in 2 open shards" in told
    assert "disabled (" not in told


def test_tables_of_one_migration_may_have_either_log(moving: ItemMove, stream_bed: StreamServer) -> None:
    arn = stream_bed.control.kinesis_stream(moving.prefix + "some")
    moving.kinesis = [{"tables": [f"{moving.prefix}k*"], "stream": arn}]
    by_kinesis, by_streams = moving.table("k"), moving.table("s")
    point(moving, by_kinesis, arn)
    for table in (by_kinesis, by_streams):
        fill(moving.origin, table, range(20))
    moving.prepare()
    code, report = moving.run("snapshot")
    assert code == ExitCode.DONE, report.last_error
    with following(moving) as workers:
        write(moving, (by_kinesis, by_streams), random.Random(9), 40)
        workers.equal(by_kinesis, by_streams)


def test_the_stand_in_speaks_to_botocore(stream_bed: StreamServer, stream_prefix: str) -> None:
    """DynamoDB's side of it; Kinesis' own side is the product's signed client's."""
    facts: Mapping[str, Any] = stream_bed.facts()
    arn, client = stream_bed.control.kinesis_stream(stream_prefix + "s"), dynamodb_client(facts)
    key = {"AttributeName": "pk", "KeyType": "HASH"}
    client.create_table(
        TableName=stream_prefix + "t", KeySchema=[key], BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
    )  # fmt: skip
    client.enable_kinesis_streaming_destination(TableName=stream_prefix + "t", StreamArn=arn)
    told = client.describe_kinesis_streaming_destination(TableName=stream_prefix + "t")
    (destination,) = told["KinesisDataStreamDestinations"]
    assert (destination["StreamArn"], destination["DestinationStatus"]) == (arn, "ACTIVE")
    assert destination["ApproximateCreationDateTimePrecision"] == "MILLISECOND"
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.enable_kinesis_streaming_destination(TableName=stream_prefix + "none", StreamArn=arn)
