"""What the public NimoShake loses or stops at, each case against the whole of our copy and stream."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.item_moves import ItemMove, definition, fill
from support.moves import order
from support.patience import PATIENCE, eventually
from whimbrel_api.tasks import ExitCode, TaskFile
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.dynamodb.faults import Call, Unprocessed
from whimbrel_testbed.dynamodb.proxy import DynamoDBProxy
from whimbrel_testbed.streams.server import StreamServer


def copied(move: ItemMove, **fields: Any) -> None:
    move.prepare()
    code, report = move.run("snapshot", **fields)
    assert code == ExitCode.DONE, report.last_error


@contextmanager
def followed(move: ItemMove, **fields: Any) -> Iterator[TaskFile]:
    """The stream as a process of its own; retired at the end, which it must do with exit code 0."""
    file = move.task("stream", **fields)
    process = move.start("stream", **fields)
    try:
        yield file
        order(file, retire=True)
        assert process.wait(PATIENCE) == ExitCode.DONE, move.log("stream")
    finally:
        order(file)
        if process.poll() is None:
            process.kill()
            process.wait()


def equal(move: ItemMove, *tables: str) -> None:
    eventually(lambda: move.differences(*tables) == [], lambda: (move.differences(*tables), move.log("stream")))


def test_items_that_come_back_unprocessed_are_written_again(moving: ItemMove) -> None:
    table = moving.table("orders")
    fill(moving.origin, table, range(2000))
    goal = {"accessKeyId": moving.goal.access_key_id, "secretAccessKey": moving.goal.secret_access_key}
    facts = {"endpoint": moving.goal.endpoint, "region": moving.goal.region, **goal}
    with DynamoDBProxy(facts, lambda call: Unprocessed(0.4) if some_batch(call) else None) as proxy:
        moving.target["dynamodb"]["endpoint"] = proxy.endpoint
        copied(moving)
        assert len(proxy.calls("BatchWriteItem")) > 2000 / 25
    assert moving.differences(table) == []


def some_batch(call: Call) -> bool:
    return call.operation == "BatchWriteItem" and call.number % 2 == 0


def test_changes_of_every_kind_are_carried_as_whole_images(moving: ItemMove) -> None:
    """MODIFY of an item that is there, attributes named with reserved words, attributes that go away."""
    table = moving.table("orders")
    fill(moving.origin, table, range(100))
    copied(moving)
    client = client_of(moving.origin)
    key = {"pk": {"S": "k007"}, "sk": {"N": "7"}}
    reserved = {"name", "status", "value", "date", "order", "size", "key", "data", "group", "timestamp"}
    with followed(moving):
        client.update_item(
            TableName=table, Key=key, UpdateExpression="SET #s = :s REMOVE #n, deep",
            ExpressionAttributeNames={"#s": "status", "#n": "name"}, ExpressionAttributeValues={":s": {"S": "open"}},
        )  # fmt: skip
        words = {word: {"S": f"the {word}"} for word in reserved}
        client.put_item(TableName=table, Item={"pk": {"S": "new"}, "sk": {"N": "1"}, **words})
        client.delete_item(TableName=table, Key={"pk": {"S": "k008"}, "sk": {"N": "8"}})
        equal(moving, table)
    (changed,) = [item for item in moving.target_items(table) if item["pk"] == key["pk"] and item["sk"] == key["sk"]]
    assert changed["status"] == {"S": "open"}
    assert not {"name", "deep"} & set(changed)


@pytest.mark.parametrize("indexed", [False, True])
def test_tables_are_made_with_and_without_indexes(moving: ItemMove, indexed: bool) -> None:
    fields = definition("unused") if not indexed else INDEXED
    table = moving.table("orders", **{name: value for name, value in fields.items() if name != "TableName"})
    fill(moving.origin, table, range(10))
    copied(moving)
    there, here = (client_of(end).describe_table(TableName=table)["Table"] for end in (moving.origin, moving.goal))
    for part in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes"):
        assert shapes(here.get(part, [])) == shapes(there.get(part, []))
    assert {each["AttributeName"]: each["AttributeType"] for each in here["AttributeDefinitions"]} == {
        each["AttributeName"]: each["AttributeType"] for each in there["AttributeDefinitions"]
    }
    assert here["KeySchema"] == there["KeySchema"]
    assert moving.differences(table) == []


INDEXED = definition("unused") | {
    "AttributeDefinitions": [
        {"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "N"},
        {"AttributeName": "name", "AttributeType": "S"}, {"AttributeName": "raw", "AttributeType": "B"},
    ],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "by-name", "KeySchema": [{"AttributeName": "name", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["exact", "flag"]},
        }
    ],
    "LocalSecondaryIndexes": [
        {
            "IndexName": "by-raw",
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "raw", "KeyType": "RANGE"}],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ],
}  # fmt: skip


def shapes(indexes: list[dict[str, Any]]) -> dict[str, Any]:
    return {each["IndexName"]: (each["KeySchema"], projection(each["Projection"])) for each in indexes}


def projection(found: dict[str, Any]) -> tuple[str, list[str]]:
    return found["ProjectionType"], sorted(found.get("NonKeyAttributes", []))


def test_a_copy_that_was_killed_goes_on_where_it_was(moving: ItemMove) -> None:
    table = moving.table("orders")
    fill(moving.origin, table, range(9000))
    moving.prepare()
    options: dict[str, Any] = {"snapshot": {"workers": 1, "chunkRows": 1000, "rateLimit": {"rowsPerSecond": 4000}}}
    worker = moving.start("snapshot", **options)
    eventually(lambda: len(moving.target_items(table)) > 3000, lambda: moving.log("snapshot"))
    worker.kill()
    worker.wait()
    with DynamoDBProxy(stream_facts(moving)) as proxy:
        moving.through = proxy.endpoint
        code, report = moving.run("snapshot")
        assert code == ExitCode.DONE, report.last_error
        scanned = sum(1 for call in proxy.calls("Scan") if call.body.get("Select") != "COUNT")
    segments = 9
    print(f"{scanned} pages after the kill")
    assert scanned < segments * 3, "what was done is not read again"
    assert moving.differences(table) == []


def stream_facts(move: ItemMove) -> dict[str, str]:
    return {
        "endpoint": move.origin.endpoint, "region": move.origin.region, "accessKeyId": move.origin.access_key_id,
        "secretAccessKey": move.origin.secret_access_key,
    }  # fmt: skip


def test_shards_that_closed_while_nobody_read_are_read(moving: ItemMove, stream_bed: StreamServer) -> None:
    table = moving.table("orders")
    copied(moving)
    for start in range(0, 400, 100):
        fill(moving.origin, table, range(start, start + 100))
        if start % 200:
            stream_bed.control.split(table)
        else:
            stream_bed.control.roll(table)
    with followed(moving):
        equal(moving, table)
    assert len(moving.target_items(table)) == 400


def test_iterators_that_expire_are_asked_for_anew(moving: ItemMove, stream_bed: StreamServer) -> None:
    table = moving.table("orders")
    copied(moving)
    with followed(moving):
        for start in range(0, 300, 100):
            fill(moving.origin, table, range(start, start + 100))
            equal(moving, table)
            stream_bed.control.expire_iterators()


def test_records_that_were_trimmed_unread_stop_the_stream(moving: ItemMove, stream_bed: StreamServer) -> None:
    table = moving.table("orders")
    copied(moving)
    with followed(moving):
        fill(moving.origin, table, range(100))
        equal(moving, table)
    fill(moving.origin, table, range(100, 200))
    stream_bed.control.trim(table)
    fill(moving.origin, table, range(200, 300))
    code, report = moving.run("stream")
    assert code == ExitCode.SOURCE_LOG_LOST
    assert report.last_error is not None
    print(report.last_error.sentence())
    assert table in report.last_error.sentence()
    assert re.search(r"[0-9]{15,}", report.last_error.sentence()), "the gap is named"


def test_sequence_numbers_are_numbers_of_any_length(moving: ItemMove, stream_bed: StreamServer) -> None:
    """Beyond 2**64, and where their order as text is not that as numbers: from 999… to 1000…."""
    table = moving.table("orders")
    copied(moving)
    stream_bed.control.big_sequence_numbers(table, start=10**21 - 20)
    client = client_of(moving.origin)
    with followed(moving):
        for turn in range(60):
            item = {"pk": {"S": "one"}, "sk": {"N": "1"}, "turn": {"N": str(turn)}}
            client.put_item(TableName=table, Item=item)
        equal(moving, table)
        client.put_item(TableName=table, Item={"pk": {"S": "one"}, "sk": {"N": "1"}, "turn": {"N": "99"}})
        equal(moving, table)
    with followed(moving):
        client.put_item(TableName=table, Item={"pk": {"S": "one"}, "sk": {"N": "1"}, "turn": {"N": "100"}})
        equal(moving, table)
