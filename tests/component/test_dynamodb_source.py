"""A DynamoDB source over DynamoDB Local: what it finds, what it says, and what it reads."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.item_sources import Rows, make_table, put_items, source_of
from whimbrel_testbed.dynamodb.faults import Call, Fault, LoseReply, Rule, Throttle, Unprocessed
from whimbrel_testbed.dynamodb.local import DynamoDBServer
from whimbrel_testbed.dynamodb.proxy import DynamoDBProxy
from whimbrel_testbed.polardb.server import PolarDBServer
from whimbrel_worker.endpoints.dynamodb.items import scan
from whimbrel_worker.endpoints.dynamodb.items.scan import ScanReader
from whimbrel_worker.endpoints.polardb.behaviour import POLARDB
from whimbrel_worker.engine.bookmarks import bookmark_of
from whimbrel_worker.engine.shard_ports import ShardRef, ShardRow
from whimbrel_worker.errors import ConfigurationError, Incompatible
from whimbrel_worker.values.columns import Kind, Table
from whimbrel_worker.values.items import ItemBlock

GSI: dict[str, Any] = {
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "by-city",
            "KeySchema": [{"AttributeName": "city", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["name"]},
        }
    ],
    "AttributeDefinitions": [{"AttributeName": "city", "AttributeType": "S"}],
}


def an_item(number: int, text: str = "x" * 200) -> dict[str, dict[str, str]]:
    return {"pk": {"S": f"k{number:05d}"}, "n": {"N": f"{number}.50"}, "name": {"S": text}}


@contextmanager
def proxied(server: DynamoDBServer, rule: Rule) -> Iterator[DynamoDBProxy]:
    with DynamoDBProxy(server.facts(), rule) as proxy:
        yield proxy


def all_rows(reader: ScanReader, table: Table, rows: int) -> list[bytes]:
    """What the chunks of a table hold together, as the copier reads them."""
    found, low = list[bytes](), None
    while True:
        high = reader.boundary(table, low, rows)
        for block in reader.rows(table, low, high, 5000):
            found += block.items
        if high is None:
            return found
        low = high


def test_discovery_carries_keys_indexes_and_ttl(dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path) -> None:
    name = dynamodb_prefix + "src.1"
    client = make_table(dynamodb, name, sort="N", **GSI)
    client.update_time_to_live(TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"})
    source = source_of(dynamodb, tmp_path, tables={"include": [dynamodb_prefix + "*"]})
    (table,), problems = source.discover()
    assert problems == []
    assert (table.name, table.target_name, table.key) == (name, name, (0, 1))
    assert [(c.name, c.kind, c.source_type) for c in table.columns] == [
        ("pk", Kind.ATTRIBUTE, "S"), ("sk", Kind.ATTRIBUTE, "N"), ("item", Kind.ITEM, "item"),
    ]  # fmt: skip
    definition = json.loads(table.definition)
    assert definition["TimeToLive"] == "expires"
    assert definition["BillingMode"] == "PAY_PER_REQUEST"
    assert definition["GlobalSecondaryIndexes"] == [
        {key: GSI["GlobalSecondaryIndexes"][0][key] for key in ("IndexName", "KeySchema", "Projection")}
    ]
    assert "LocalSecondaryIndexes" not in definition
    assert source.identity().startswith("arn:aws:dynamodb:")
    assert source.identity().count(":") == 4
    assert source.version() == "DynamoDB us-east-1"


def test_workers_that_make_no_tables_do_not_ask_for_ttl(
    dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path
) -> None:
    name = dynamodb_prefix + "t"
    client = make_table(dynamodb, name)
    client.update_time_to_live(TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"})
    (table,), _ = source_of(dynamodb, tmp_path, task="snapshot", tables={"include": [name]}).discover()
    assert "TimeToLive" not in json.loads(table.definition)


def test_nothing_selected_is_said(dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path) -> None:
    source = source_of(dynamodb, tmp_path, tables={"include": [dynamodb_prefix + "none-*"]})
    assert [problem.what for problem in source.discover()[1]] == [
        f"nothing matches {dynamodb_prefix}none-* of tables.include"
    ]
    with pytest.raises(ConfigurationError, match="no table to move"):
        source.identity()


def test_more_than_a_page_of_tables(dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path) -> None:
    names = [f"{dynamodb_prefix}{number:03d}" for number in range(103)]
    for name in names:
        make_table(dynamodb, name)
    tables, _ = source_of(dynamodb, tmp_path, task="snapshot", tables={"include": [dynamodb_prefix + "*"]}).discover()
    assert [table.name for table in tables] == names


def test_a_segmented_scan_reads_every_item_as_it_stands(
    dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path
) -> None:
    name = dynamodb_prefix + "many"
    client = make_table(dynamodb, name)
    put_items(client, name, [an_item(number) for number in range(2500)])
    source = source_of(dynamodb, tmp_path, tables={"include": [name]})
    (table,), _ = source.discover()
    assert table.rows_estimate == 2500
    with source.reader() as reader:
        for rows in (100, 1000, 10_000):
            found = all_rows(reader, table, rows)
            assert len(found) == 2500
            assert sorted((orjson.loads(item) for item in found), key=lambda item: item["pk"]["S"]) == [
                an_item(number) | {"n": {"N": f"{number}.5"}} for number in range(2500)
            ]
        assert reader.count(table) == 2500


def test_reading_goes_on_after_any_bookmark(dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path) -> None:
    name = dynamodb_prefix + "marks"
    client = make_table(dynamodb, name)
    put_items(client, name, [an_item(number, 'ü"\\{}') for number in range(300)])
    source = source_of(dynamodb, tmp_path, tables={"include": [name]})
    (table,), _ = source.discover()
    with source.reader() as reader:
        for low, high in ((None, None), (None, ("1/3",)), (("2/3",), None)):
            whole = [row for block in reader.rows(table, low, high, 5000) for row in block]
            pages = list(reader.rows(table, low, high, 7))
            assert all(len(page) <= 7 for page in pages)
            assert [row for page in pages for row in page] == whole
            for number, page in enumerate(pages):
                rest = [row for later in pages[number + 1 :] for row in later]
                mark = bookmark_of(table, page)
                assert [row for block in reader.rows(table, mark, high, 5000) for row in block] == rest


def test_by_keys_asks_a_hundred_at_a_time(dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path) -> None:
    name = dynamodb_prefix + "keys"
    client = make_table(dynamodb, name)
    put_items(client, name, [an_item(number) for number in range(250)])
    source = source_of(dynamodb, tmp_path, tables={"include": [name]})
    (table,), _ = source.discover()
    keys = [(b'{"S":"k%05d"}' % number,) for number in range(300)]
    with source.reader() as reader:
        found = reader.by_keys(table, [*keys, *keys[:20]])
        assert isinstance(found, ItemBlock)
        assert len(found) == 250
        assert {row[0] for row in found} == {key for (key,) in keys[:250]}
        assert reader.by_keys(table, []) == []


def test_a_filter_holds_for_scan_and_count(dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path) -> None:
    name = dynamodb_prefix + "filtered"
    client = make_table(dynamodb, name)
    put_items(client, name, [an_item(number) for number in range(200)])
    few = {"expression": "#n < :top", "names": {"#n": "n"}, "values": {":top": '{"N": "10"}'}}
    tables = {"include": [name], "overrides": [{"name": name, "filter": few, "renameTo": "other"}]}
    source = source_of(dynamodb, tmp_path, tables=tables)
    assert not [problem for problem in source.check() if problem.fatal]
    (table,), problems = source.discover()
    assert table.target_name == "other"
    assert [problem.what for problem in problems] == ["the filter holds for the copy only"]
    with source.reader() as reader:
        assert len(all_rows(reader, table, 50)) == 10
        assert reader.count(table) == 10


def test_empty_pages_of_a_filter_can_be_gone_on_from(
    dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever copies shows that it lives with every batch, so a long way without an item gives batches too."""
    monkeypatch.setattr(scan, "_SHOW_SECONDS", -1.0)
    name = dynamodb_prefix + "sparse"
    client = make_table(dynamodb, name)
    put_items(client, name, [an_item(number) for number in range(200)])
    few = {"expression": "n < :top", "values": {":top": '{"N": "3"}'}}
    tables = {"include": [name], "overrides": [{"name": name, "filter": few}]}
    source = source_of(dynamodb, tmp_path, task="snapshot", tables=tables)
    (table,), _ = source.discover()
    with source.reader() as reader:
        blocks = list(reader.rows(table, None, None, 10))
        assert sum(map(len, blocks)) == 3
        assert len(blocks) == 20
        for number, block in enumerate(blocks):
            left = sum(map(len, reader.rows(table, bookmark_of(table, block), None, 5000)))
            assert left == sum(map(len, blocks[number + 1 :]))


def test_a_table_that_was_not_counted_yet_is_divided_by_its_first_page(
    dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path
) -> None:
    large, small = dynamodb_prefix + "large", dynamodb_prefix + "small"
    put_items(make_table(dynamodb, large), large, [an_item(number, "x" * 10_000) for number in range(120)])
    put_items(make_table(dynamodb, small), small, [an_item(1)])
    source = source_of(dynamodb, tmp_path, task="snapshot", tables={"include": [dynamodb_prefix + "*"]})
    tables = {table.name: replace(table, rows_estimate=0) for table in source.discover()[0]}
    with source.reader() as reader:
        assert reader.boundary(tables[large], None, 1000) == ("1/16",)
        assert reader.boundary(tables[small], None, 1000) is None
        assert len(set(all_rows(reader, tables[large], 1000))) == 120


def test_a_wrong_filter_is_found_at_once(dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path) -> None:
    name = dynamodb_prefix + "wrong"
    make_table(dynamodb, name)
    tables = {"include": [name], "overrides": [{"name": name, "filter": {"expression": "size( <"}}]}
    source = source_of(dynamodb, tmp_path, tables=tables, mode="SnapshotOnly")
    fatal = [problem for problem in source.check() if problem.fatal]
    assert [(problem.where, "filter" in problem.todo) for problem in fatal] == [(name, True)]
    (table,), _ = source.discover()
    with source.reader() as reader, pytest.raises(Incompatible):
        list(reader.rows(table, None, None, 10))


def test_a_table_deleted_while_it_is_read_stops_alone(
    dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path
) -> None:
    name = dynamodb_prefix + "gone"
    client = make_table(dynamodb, name)
    source = source_of(dynamodb, tmp_path, tables={"include": [name]})
    (table,), _ = source.discover()
    client.delete_table(TableName=name)
    with source.reader() as reader, pytest.raises(Incompatible, match="no longer in the source"):
        list(reader.rows(table, None, None, 10))


def test_check_says_which_streams_will_be_enabled(
    dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path
) -> None:
    make_table(dynamodb, dynamodb_prefix + "off")
    make_table(dynamodb, dynamodb_prefix + "on", stream="NEW_IMAGE")
    make_table(dynamodb, dynamodb_prefix + "keys", stream="KEYS_ONLY")
    source = source_of(dynamodb, tmp_path, tables={"include": [dynamodb_prefix + "*"]})
    problems = source.check()
    assert [(problem.what, problem.where) for problem in problems if problem.fatal] == [
        ("the table's stream has the view type KEYS_ONLY", dynamodb_prefix + "keys")
    ]
    (warning,) = [problem for problem in problems if not problem.fatal]
    assert warning.what == f"streams are disabled (1 of the tables): {dynamodb_prefix}off"
    only = source_of(dynamodb, tmp_path, tables={"include": [dynamodb_prefix + "*"]}, mode="SnapshotOnly")
    assert only.check() == []


def test_assessment_tells_of_each_table(dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path) -> None:
    name = dynamodb_prefix + "assessed"
    client = make_table(dynamodb, name, sort="B", stream="NEW_AND_OLD_IMAGES", **GSI)
    client.put_item(TableName=name, Item={"pk": {"S": "a"}, "sk": {"B": b"\x00"}})
    source = source_of(dynamodb, tmp_path, tables={"include": [name]})
    assert not [problem for problem in source.check() if problem.fatal]
    (assessed,) = source.assessment()
    assert (assessed.name, assessed.items, assessed.key) == (name, 1, ["pk (S)", "sk (B)"])
    assert assessed.indexes == ["global by-city (city), projects INCLUDE"]
    assert (assessed.billing_mode, assessed.stream) == ("PAY_PER_REQUEST", "NEW_AND_OLD_IMAGES")


def test_a_copy_longer_than_the_streams_keep_is_refused_until_it_has_begun(
    dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path
) -> None:
    name = dynamodb_prefix + "long"
    client = make_table(dynamodb, name, stream="NEW_AND_OLD_IMAGES")
    put_items(client, name, [an_item(number) for number in range(20)])
    fields: dict[str, Any] = {"tables": {"include": [name]}, "stream": {"retentionGuard": 1e-9}}
    (problem,) = source_of(dynamodb, tmp_path, **fields).check()
    assert problem.fatal
    assert "20 items" in problem.why
    begun = Rows([ShardRow(ShardRef(name, "arn", "shard"))])
    (problem,) = source_of(dynamodb, tmp_path, store=lambda: begun, **fields).check()
    assert not problem.fatal


def test_read_units_hold_the_scan_back(dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path) -> None:
    name = dynamodb_prefix + "slow"
    client = make_table(dynamodb, name)
    put_items(client, name, [an_item(number) for number in range(400)])
    source = source_of(
        dynamodb, tmp_path, task="snapshot", workers=2, tables={"include": [name]},
        snapshot={"capacityLimit": {"readUnitsPerSecond": 20}},
    )  # fmt: skip
    (table,), _ = source.discover()
    with source.reader() as reader:
        begun = time.monotonic()
        pages = list(reader.rows(table, None, None, 5000))
        assert len(reader.by_keys(table, [table.key_of(row) for row in pages[0][:10]])) == 10
    assert sum(map(len, pages)) == 400
    assert len(pages) > 1
    assert time.monotonic() - begun >= 0.8, "about 25 units at 10 a second, of which one second's worth is free"


def test_an_endpoint_with_other_ways(polardb: PolarDBServer, polardb_prefix: str, tmp_path: Path) -> None:
    """No strong reads to ask for, a hundred items a page unless more are asked for, tags, and no streams."""
    name = polardb_prefix + "other"
    client = make_table(polardb, name, sort="N", Tags=[{"Key": "team", "Value": "birds"}])
    put_items(client, name, [an_item(number) | {"sk": {"N": str(number)}} for number in range(250)])
    source = source_of(polardb, tmp_path, tables={"include": [name]}, behaviour=POLARDB)
    assert [problem.what for problem in source.check() if problem.fatal] == ["this endpoint has no DynamoDB Streams"]
    (table,), _ = source.discover()
    assert json.loads(table.definition)["Tags"] == [{"Key": "team", "Value": "birds"}]
    assert source.identity() == polardb.endpoint.removeprefix("http://")
    with source.reader() as reader:
        assert len(list(reader.rows(table, None, None, 5000))) == 1
        assert reader.count(table) == 250


# --- faults ---


def test_unprocessed_keys_are_asked_for_to_the_end(
    dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path
) -> None:
    name = dynamodb_prefix + "left"
    put_items(make_table(dynamodb, name), name, [an_item(number) for number in range(100)])
    shares = iter([1.0, 0.7, 1.0, 1.0, 0.4, 0.9])

    def rule(call: Call) -> Fault | None:
        share = next(shares, 0.0) if call.operation == "BatchGetItem" else 0.0
        return Unprocessed(share) if share else None

    with proxied(dynamodb, rule) as proxy:
        source = source_of(proxy, tmp_path, tables={"include": [name]}, task="snapshot")
        (table,), _ = source.discover()
        with source.reader() as reader:
            found = reader.by_keys(table, [(b'{"S":"k%05d"}' % number,) for number in range(100)])
        assert len({row[0] for row in found}) == len(found) == 100
        assert len(proxy.calls("BatchGetItem")) == 7


def test_a_throttled_scan_with_lost_replies_gives_every_item_once(
    dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path
) -> None:
    name = dynamodb_prefix + "bumpy"
    put_items(make_table(dynamodb, name), name, [an_item(number) for number in range(500)])
    faults = itertools.cycle([Throttle(), LoseReply(), None, Throttle("ThrottlingException"), None, None])

    def rule(call: Call) -> Fault | None:
        return next(faults) if call.operation == "Scan" else None

    with proxied(dynamodb, rule) as proxy:
        source = source_of(proxy, tmp_path, tables={"include": [name]}, task="snapshot")
        (table,), _ = source.discover()
        with source.reader() as reader:
            pages = list(reader.rows(table, None, None, 60))
    items = [row[0] for page in pages for row in page]
    assert len(set(items)) == len(items) == 500
    assert source.client.tally.retries > 0


def test_a_table_deleted_between_the_calls_is_left_out(
    dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path
) -> None:
    client = make_table(dynamodb, dynamodb_prefix + "stays")
    gone = dynamodb_prefix + "goes"
    make_table(dynamodb, gone)

    def rule(call: Call) -> Fault | None:
        if call.operation == "DescribeTable" and call.body["TableName"] == gone:
            with suppress(client.exceptions.ResourceNotFoundException):
                client.delete_table(TableName=gone)
        return None

    with proxied(dynamodb, rule) as proxy:
        source = source_of(proxy, tmp_path, tables={"include": [dynamodb_prefix + "*"]})
        assert not [problem for problem in source.check() if problem.fatal]
        tables, problems = source.discover()
    assert [table.name for table in tables] == [dynamodb_prefix + "stays"]
    assert problems == []
