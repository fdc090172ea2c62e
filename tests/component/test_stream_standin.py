"""The stream server over a real DynamoDB Local, through botocore's clients."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import ClientError

from whimbrel_testbed.dynamodb.client import dynamodb_client
from whimbrel_testbed.dynamodb.local import DynamoDBServer
from whimbrel_testbed.streams import StreamServer, stream_server
from whimbrel_testbed.streams.hub import Hub
from whimbrel_testbed.streams.upstream import Behind, Endpoint, http_session

ENABLED = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
_NUMBERS = iter(range(10**6))


@dataclass
class Bed:
    """A table with a stream, and clients that do not retry."""

    server: StreamServer
    table: str
    arn: str
    tables: Any
    streams: Any

    def put(self, key: str, value: int = 0, **more: Any) -> None:
        self.tables.put_item(TableName=self.table, Item={"k": {"S": key}, "v": {"N": str(value)}, **more})

    def shards(self, **more: Any) -> list[dict[str, Any]]:
        described = self.streams.describe_stream(StreamArn=self.arn, **more)["StreamDescription"]
        assert "LastEvaluatedShardId" not in described or more
        return list(described["Shards"])

    def iterator(self, kind: str, shard: str | None = None, number: str | None = None) -> str:
        given = {} if number is None else {"SequenceNumber": number}
        shard_id = shard or self.shards()[0]["ShardId"]
        answer = self.streams.get_shard_iterator(StreamArn=self.arn, ShardId=shard_id, ShardIteratorType=kind, **given)
        return str(answer["ShardIterator"])

    def read(self, kind: str, shard: str | None = None, number: str | None = None) -> list[dict[str, Any]]:
        return list(self.streams.get_records(ShardIterator=self.iterator(kind, shard, number))["Records"])

    def read_on(self, iterator: str | None) -> Iterator[dict[str, Any]]:
        """Records up to an empty page or the end of the shard."""
        while iterator is not None:
            page = self.streams.get_records(ShardIterator=iterator)
            yield from page["Records"]
            iterator = page.get("NextShardIterator") if page["Records"] else None

    def drain(self, arn: str | None = None) -> list[dict[str, Any]]:
        """All records there are, parents before their children."""
        arn = arn or self.arn
        shards = self.streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
        # A child's numbers are above its parent's.
        shards = sorted(shards, key=lambda shard: int(shard["SequenceNumberRange"]["StartingSequenceNumber"]))
        return [record for shard in shards for record in self._shard(arn, shard["ShardId"])]

    def _shard(self, arn: str, shard_id: str) -> Iterator[dict[str, Any]]:
        asked = {"StreamArn": arn, "ShardId": shard_id, "ShardIteratorType": "TRIM_HORIZON"}
        yield from self.read_on(self.streams.get_shard_iterator(**asked)["ShardIterator"])


@pytest.fixture(scope="module")
def server(dynamodb: DynamoDBServer) -> Iterator[StreamServer]:
    with stream_server(dynamodb) as running:
        print(f"seed {running.seed}")
        yield running


@contextmanager
def table_of(server: StreamServer, **specification: Any) -> Iterator[Bed]:
    facts, name = server.facts(), f"standin-{next(_NUMBERS)}"
    tables = dynamodb_client(facts, attempts=1)
    streams = dynamodb_client(facts, attempts=1, service="dynamodbstreams")
    described = tables.create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        **{"StreamSpecification": ENABLED, **specification},
    )["TableDescription"]  # fmt: skip
    try:
        yield Bed(server, name, described.get("LatestStreamArn", ""), tables, streams)
    finally:
        tables.delete_table(TableName=name)


@pytest.fixture
def bed(server: StreamServer) -> Iterator[Bed]:
    with table_of(server) as made:
        yield made


def refused(call: Callable[..., Any], **asked: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**asked)
    return str(caught.value.response["Error"]["Code"])


def keys_of(records: Iterable[dict[str, Any]]) -> list[str]:
    return [record["dynamodb"]["Keys"]["k"]["S"] for record in records]


def number(record: dict[str, Any]) -> str:
    return str(record["dynamodb"]["SequenceNumber"])


def test_the_records_are_the_real_engines_with_our_stream(bed: Bed, dynamodb: DynamoDBServer) -> None:
    real = dynamodb_client(dynamodb.facts()).describe_table(TableName=bed.table)["Table"]["LatestStreamArn"]
    shown = bed.tables.describe_table(TableName=bed.table)["Table"]
    assert (shown["LatestStreamArn"], shown["StreamSpecification"]) == (bed.arn, ENABLED)
    assert shown["LatestStreamArn"] == f"{shown['TableArn']}/stream/{shown['LatestStreamLabel']}"
    assert real != bed.arn
    before = time.time()
    bed.put("a", 1)
    bed.put("a", 1)
    bed.put("a", 2)
    bed.tables.delete_item(TableName=bed.table, Key={"k": {"S": "a"}})
    records = bed.drain()
    assert [record["eventName"] for record in records] == ["INSERT", "MODIFY", "REMOVE"]
    modified = records[1]["dynamodb"]
    assert modified["OldImage"] == {"k": {"S": "a"}, "v": {"N": "1"}}
    assert modified["NewImage"] == {"k": {"S": "a"}, "v": {"N": "2"}}
    assert before - 1 <= modified["ApproximateCreationDateTime"].timestamp() <= time.time()
    assert modified["SizeBytes"] > 0
    assert {record["awsRegion"] for record in records} == {bed.server.region}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_keys_order_holds_over_splits_and_rolls(bed: Bed, seed: int) -> None:
    print(f"seed {seed}")
    chance, stopped = random.Random(seed), threading.Event()
    versions: Counter[str] = Counter()

    def write(writer: int) -> None:
        drawn = random.Random(f"{seed} {writer}")
        while not stopped.is_set():
            key = f"{writer}-{drawn.randrange(12)}"
            versions[key] += 1
            bed.put(key, versions[key])

    with working(stopped, *(partial(write, writer) for writer in range(3))):
        for step in range(12):
            reach(versions.total, 30 * (step + 1))
            open_shards = [shard["shardId"] for shard in bed.server.control.shards(bed.table) if shard["open"]]
            steer = chance.choice([bed.server.control.split, bed.server.control.roll])
            steer(bed.table, chance.choice(open_shards))
    seen: dict[str, list[int]] = defaultdict(list)
    records = bed.drain()
    for record in records:
        seen[record["dynamodb"]["Keys"]["k"]["S"]].append(int(record["dynamodb"]["NewImage"]["v"]["N"]))
    assert seen == {key: list(range(1, last + 1)) for key, last in versions.items()}
    assert len(bed.shards()) > 12
    parents = {shard["ShardId"]: shard for shard in bed.shards()}
    for shard in parents.values():
        if "ParentShardId" in shard:
            ending = parents[shard["ParentShardId"]]["SequenceNumberRange"]["EndingSequenceNumber"]
            assert int(ending) < int(shard["SequenceNumberRange"]["StartingSequenceNumber"])


@contextmanager
def working(stopped: threading.Event, *works: Callable[[], None]) -> Iterator[None]:
    """Run these until the block ends, however it does."""
    with ThreadPoolExecutor(len(works)) as pool:
        started = [pool.submit(work) for work in works]
        try:
            yield
        finally:
            stopped.set()
        for work in started:
            work.result()


def reach(count: Callable[[], int], goal: int, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while count() < goal:
        assert time.monotonic() < deadline, f"only {count()} of {goal} came in time"
        time.sleep(0.002)


def test_latest_gives_what_is_written_afterwards_and_nothing_else(bed: Bed) -> None:
    stopped, written = threading.Event(), [0]

    def write() -> None:
        while not stopped.is_set():
            bed.put(f"{written[0] + 1}")
            written[0] += 1

    with working(stopped, write):
        for _ in range(15):
            reach(lambda: written[0], written[0] + 3)
            acknowledged = written[0]
            iterator = bed.iterator("LATEST")
            begun = written[0] + 2
            reach(lambda: written[0], begun)
            got = [int(key) for key in keys_of(bed.read_on(iterator))]
            assert got == list(range(got[0], got[-1] + 1))
            assert acknowledged < got[0] <= begun
            assert got[-1] >= begun


def test_trimmed_records_are_refused(bed: Bed) -> None:
    for index in range(6):
        bed.put(f"{index}")
    shard, records = bed.shards()[0]["ShardId"], bed.drain()
    held = bed.iterator("TRIM_HORIZON", shard)
    assert bed.server.control.trim(bed.table, shard, before_sequence=number(records[4])) == 4
    assert refused(bed.streams.get_records, ShardIterator=held) == "TrimmedDataAccessException"
    for kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        asked = {"ShardIteratorType": kind, "SequenceNumber": number(records[3]), "ShardId": shard}
        assert refused(bed.streams.get_shard_iterator, StreamArn=bed.arn, **asked) == "TrimmedDataAccessException"
    assert keys_of(bed.read("TRIM_HORIZON", shard)) == ["4", "5"]
    assert keys_of(bed.read("AFTER_SEQUENCE_NUMBER", shard, number(records[4]))) == ["5"]
    assert bed.server.control.trim(bed.table) == 2
    assert bed.drain() == []
    bed.put("6")
    assert keys_of(bed.drain()) == ["6"]


def test_closed_shards_vanish(bed: Bed) -> None:
    bed.put("a")
    parent = bed.shards()[0]["ShardId"]
    children = bed.server.control.split(bed.table)
    assert bed.server.control.drop_closed_shards(bed.table, older_than=3600) == []
    assert bed.server.control.drop_closed_shards(bed.table) == [parent]
    assert {shard["ShardId"]: shard.get("ParentShardId") for shard in bed.shards()} == dict.fromkeys(children, parent)
    asked = {"ShardId": parent, "ShardIteratorType": "TRIM_HORIZON"}
    assert refused(bed.streams.get_shard_iterator, StreamArn=bed.arn, **asked) == "ResourceNotFoundException"


def test_iterators_expire(bed: Bed) -> None:
    bed.put("a")
    iterator = bed.iterator("TRIM_HORIZON")
    bed.server.control.expire_iterators()
    assert refused(bed.streams.get_records, ShardIterator=iterator) == "ExpiredIteratorException"
    assert keys_of(bed.drain()) == ["a"]
    bed.server.control.iterator_lifetime(0)
    try:
        iterator = bed.iterator("TRIM_HORIZON")
        assert refused(bed.streams.get_records, ShardIterator=iterator) == "ExpiredIteratorException"
    finally:
        bed.server.control.iterator_lifetime(900)


def test_a_stream_made_anew_has_another_arn_and_the_old_one_stays(bed: Bed) -> None:
    bed.put("a")
    new = bed.server.control.recreate(bed.table)
    bed.put("b")
    described = bed.streams.describe_stream(StreamArn=bed.arn)["StreamDescription"]
    assert described["StreamStatus"] == "DISABLED"
    assert "EndingSequenceNumber" in described["Shards"][0]["SequenceNumberRange"]
    assert bed.tables.describe_table(TableName=bed.table)["Table"]["LatestStreamArn"] == new != bed.arn
    assert (keys_of(bed.drain()), keys_of(bed.drain(new))) == (["a"], ["b"])
    page = bed.streams.get_records(ShardIterator=bed.iterator("TRIM_HORIZON"))
    assert "NextShardIterator" not in page
    listed = [stream["StreamArn"] for stream in bed.streams.list_streams(TableName=bed.table)["Streams"]]
    assert listed == [bed.arn, new]


def test_update_table_enables_and_disables(server: StreamServer) -> None:
    with table_of(server, StreamSpecification={"StreamEnabled": False}) as bed:
        assert bed.arn == ""
        with pytest.raises(ValueError, match="has no stream"):
            server.control.split(bed.table)
        bed.put("unseen")
        update = bed.tables.update_table
        described = update(TableName=bed.table, StreamSpecification=ENABLED)["TableDescription"]
        bed.arn = described["LatestStreamArn"]
        bed.put("a")
        off = update(TableName=bed.table, StreamSpecification={"StreamEnabled": False})["TableDescription"]
        assert "StreamSpecification" not in off
        assert off["LatestStreamArn"] == bed.arn
        bed.put("unseen")
        assert keys_of(bed.drain()) == ["a"]
        again = update(TableName=bed.table, StreamSpecification=ENABLED)["TableDescription"]["LatestStreamArn"]
        assert again not in (bed.arn, "")
        assert refused(update, TableName=bed.table, StreamSpecification=ENABLED) == "ValidationException"


def test_a_deleted_tables_stream_stays_readable(server: StreamServer) -> None:
    with table_of(server) as bed:
        bed.put("a")
    described = bed.streams.describe_stream(StreamArn=bed.arn)["StreamDescription"]
    assert described["StreamStatus"] == "DISABLED"
    assert keys_of(bed.drain()) == ["a"]


def test_listings_come_in_pages(bed: Bed) -> None:
    for _ in range(2):
        for shard in bed.shards():
            if "EndingSequenceNumber" not in shard["SequenceNumberRange"]:
                bed.server.control.split(bed.table, shard["ShardId"])
    by_age = [shard["ShardId"] for shard in bed.shards()]
    try:
        for seed in (None, 1, 2):
            bed.server.control.shuffle_shard_listing(seed)
            paged: list[str] = []
            while len(paged) < 7:
                start = {"ExclusiveStartShardId": paged[-1]} if paged else {}
                page = bed.streams.describe_stream(StreamArn=bed.arn, Limit=3, **start)["StreamDescription"]
                paged += [shard["ShardId"] for shard in page["Shards"]]
                assert page.get("LastEvaluatedShardId") == (None if len(paged) == 7 else paged[-1])
            assert sorted(paged) == sorted(by_age)
            assert (paged == by_age) is (seed is None)
    finally:
        bed.server.control.shuffle_shard_listing(None)
    bed.server.control.recreate(bed.table)
    first = bed.streams.list_streams(TableName=bed.table, Limit=1)
    assert first["LastEvaluatedStreamArn"] == bed.arn
    rest = bed.streams.list_streams(TableName=bed.table, ExclusiveStartStreamArn=bed.arn)
    assert len(rest["Streams"]) == 1
    assert "LastEvaluatedStreamArn" not in rest


def test_numbers_whose_texts_have_another_order(bed: Bed) -> None:
    bed.server.control.big_sequence_numbers(bed.table)
    for index in range(5):
        bed.put(f"{index}")
    numbers = [number(record) for record in bed.drain()]
    assert sorted(numbers) != sorted(numbers, key=int) == numbers
    assert keys_of(bed.read("AFTER_SEQUENCE_NUMBER", number=numbers[1])) == ["2", "3", "4"]
    with pytest.raises(ValueError, match="only rise"):
        bed.server.control.big_sequence_numbers(bed.table, start=2**64 + 1)


def test_time_to_live_deletes_the_item_and_says_so(bed: Bed) -> None:
    for key in "ab":
        bed.put(key)
    bed.tables.delete_item(TableName=bed.table, Key={"k": {"S": "a"}})
    assert bed.server.control.ttl_delete(bed.table, {"k": {"S": "b"}})
    assert not bed.server.control.ttl_delete(bed.table, {"k": {"S": "b"}})
    bed.put("b")
    bed.tables.delete_item(TableName=bed.table, Key={"k": {"S": "b"}})
    assert bed.tables.scan(TableName=bed.table)["Items"] == []
    removed = [record for record in bed.drain() if record["eventName"] == "REMOVE"]
    service = {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"}
    assert [record.get("userIdentity") for record in removed] == [None, service, None]


def test_empty_pages_throttling_and_refusals(bed: Bed) -> None:
    bed.put("a")
    control, iterator = bed.server.control, bed.iterator("TRIM_HORIZON")
    control.empty_pages(1, bed.table)
    empty = bed.streams.get_records(ShardIterator=iterator)
    assert empty["Records"] == []
    assert keys_of(bed.streams.get_records(ShardIterator=empty["NextShardIterator"])["Records"]) == ["a"]
    control.throttle(1)
    assert refused(bed.streams.get_records, ShardIterator=iterator) == "ProvisionedThroughputExceededException"
    bed.streams.get_records(ShardIterator=iterator)
    control.throttle(1, "Scan", "ThrottlingException")
    assert refused(bed.tables.scan, TableName=bed.table) == "ThrottlingException"
    control.refuse("DescribeStream")
    assert refused(bed.streams.describe_stream, StreamArn=bed.arn) == "AccessDeniedException"
    control.refuse("DescribeStream", on=False)
    bed.streams.describe_stream(StreamArn=bed.arn)
    control.limit_readers(0)
    assert refused(bed.streams.get_records, ShardIterator=iterator) == "LimitExceededException"
    control.limit_readers(None)
    control.limit_describes(0)
    assert refused(bed.streams.describe_stream, StreamArn=bed.arn) == "ThrottlingException"
    control.limit_describes(None)


def test_new_shards_show_late_and_streams_begin_with_many(server: StreamServer) -> None:
    server.control.initial_shards(4)
    with table_of(server) as bed:
        server.control.initial_shards(1)
        assert len(bed.shards()) == 4
        server.control.delay_new_shards(3600)
        server.control.split(bed.table)
        assert len(bed.shards()) == 4
        server.control.delay_new_shards(0)
        assert len(bed.shards()) == 6


def test_unknown_streams_shards_and_orders(bed: Bed) -> None:
    unknown = bed.arn[:-1] + "x"
    assert refused(bed.streams.describe_stream, StreamArn=unknown) == "ResourceNotFoundException"
    asked = {"ShardId": "shardId-00000000000000000000-00000000", "ShardIteratorType": "LATEST"}
    assert refused(bed.streams.get_shard_iterator, StreamArn=bed.arn, **asked) == "ResourceNotFoundException"
    assert refused(bed.streams.get_records, ShardIterator="x") == "ValidationException"
    with urllib.request.urlopen(bed.server.control.url) as answer:
        assert {"split", "trim", "recreate"} <= set(json.load(answer)["orders"])
    request = urllib.request.Request(bed.server.control.url + "order", b"{}")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert b"knows no order" in caught.value.read()


def test_writes_around_the_server_and_streams_from_before_it(bed: Bed, dynamodb: DynamoDBServer) -> None:
    direct = dynamodb_client(dynamodb.facts())
    iterator = bed.iterator("LATEST")
    direct.put_item(TableName=bed.table, Item={"k": {"S": "around"}})
    assert keys_of(bed.streams.get_records(ShardIterator=iterator)["Records"]) == ["around"]
    with stream_server(dynamodb, seed=3) as second:
        streams = dynamodb_client(second.facts(), service="dynamodbstreams")
        (listed,) = streams.list_streams(TableName=bed.table)["Streams"]
        assert keys_of(Bed(second, bed.table, listed["StreamArn"], direct, streams).drain()) == ["around"]


def test_an_iterator_of_the_engine_behind_is_renewed(bed: Bed, dynamodb: DynamoDBServer) -> None:
    async def follow() -> list[str]:
        keys = {"access_key_id": dynamodb.access_key_id, "secret_access_key": dynamodb.secret_access_key}
        async with http_session() as session:
            hub = Hub(Behind(Endpoint(dynamodb.endpoint, dynamodb.region, **keys), session), seed=1)
            await hub.adopt_all()
            tail = hub.newest(bed.table)
            for key in "abc":
                await tail.catch_up()
                tail._iterator = aged(tail._iterator)
                await asyncio.to_thread(bed.put, key)
            await tail.catch_up()
            records = [json.loads(record) for shard in tail.stream.shards.values() for record in shard.records]
            return keys_of(records)

    assert asyncio.run(follow()) == ["a", "b", "c"]


def aged(iterator: str | None) -> str:
    """DynamoDB Local's iterator as it would be had it been given 20 minutes earlier."""
    assert iterator is not None
    arn, version, place = iterator.split("|")
    shard, number, milliseconds = base64.b64decode(place).decode().split("|")
    older = f"{shard}|{number}|{int(milliseconds) - 1_200_000:021d}"
    return f"{arn}|{version}|{base64.b64encode(older.encode()).decode()}"


def test_a_call_is_handed_on_as_it_came() -> None:
    seen: list[dict[str, str]] = []

    class Behind(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append({**{name.lower(): value for name, value in self.headers.items()}, "body": body.decode()})
            answer = b'{"Streams":[]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            return

    behind = ThreadingHTTPServer(("127.0.0.1", 0), Behind)
    threading.Thread(target=behind.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{behind.server_port}"
    try:
        with stream_server(StreamServer(address, "us-east-1", "key", None, 0, "secret")) as server:  # type: ignore[arg-type]
            sent = {
                "host": "dynamodb.us-east-1.amazonaws.com", "authorization": "AWS4-HMAC-SHA256 Credential=x",
                "x-amz-date": "20260101T000000Z", "x-amz-target": "DynamoDB_20120810.GetItem",
                "content-type": "application/x-amz-json-1.0", "user-agent": "mine", "accept-encoding": "identity",
            }  # fmt: skip
            request = urllib.request.Request(server.endpoint + "/", b'{ "a":  1}', sent)
            with urllib.request.urlopen(request) as answer:
                assert answer.read() == b'{"Streams":[]}'
    finally:
        behind.shutdown()
        behind.server_close()
    got = seen[-1]
    assert got.pop("body") == '{ "a":  1}'
    assert {name: value for name, value in got.items() if name not in ("connection", "content-length")} == sent
