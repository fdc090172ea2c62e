"""The streams of a DynamoDB source, over the stream server: switched on, captured before the first read, and read
through splits, expiry and trimming without a loss."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.item_sources import Rows, make_table, source_of
from whimbrel_testbed.dynamodb.local import DynamoDBServer
from whimbrel_testbed.streams.server import StreamServer
from whimbrel_worker.endpoints.dynamodb.source import DynamoDBSource
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.engine.shard_ports import BEGINNING, ItemChange, Page, Shard, ShardRow, ShardState
from whimbrel_worker.errors import ConfigurationError, Incompatible, SourceLogLost

VIEW = "NEW_AND_OLD_IMAGES"
_PATIENCE = 20.0


def an_item(number: int, **more: Any) -> dict[str, dict[str, Any]]:
    return {"pk": {"S": f"k{number:03d}"}, "v": {"N": "1"}} | more


class Streamed:
    """One table with a stream, its source, and short ways to read it."""

    def __init__(self, server: StreamServer, name: str, directory: Path) -> None:
        self.server, self.name, self.directory = server, name, directory
        self.client = make_table(server, name, stream=VIEW)
        self.source = self.fresh()
        (self.table,), _ = self.source.discover()

    def fresh(self, rows: list[ShardRow] | None = None, task: str = "preflight") -> DynamoDBSource:
        """The source as a process of its own would see it."""
        store = None if rows is None else (lambda: Rows(rows))
        return source_of(self.server, self.directory, task=task, tables={"include": [self.name]}, store=store)

    def put(self, *numbers: int, value: int = 1) -> None:
        for number in numbers:
            self.client.put_item(TableName=self.name, Item=an_item(number, v={"N": str(value)}))

    def row(self, shard: Shard) -> ShardRow:
        return ShardRow(shard.ref, shard.parent)

    def only_row(self) -> ShardRow:
        (shard,) = self.source.shards(self.table)
        return self.row(shard)

    def pages(self, row: ShardRow) -> Iterator[Page]:
        return self.source.read(self.table, row)

    def all_pages(self, rows: Sequence[ShardRow]) -> Iterator[Page]:
        """Pages of several shards in turn."""
        return itertools.chain.from_iterable(zip(*map(self.pages, rows), strict=False))

    def changes(self, row: ShardRow, count: int) -> list[ItemChange]:
        """The next changes of a shard; fails when they do not come in time."""
        return collect(self.pages(row), count)

    def whole(self, row: ShardRow) -> list[ItemChange]:
        """All changes of a closed shard."""
        return [change for page in self.pages(row) for change in page.changes]


def collect(pages: Iterator[Page], count: int) -> list[ItemChange]:
    found: list[ItemChange] = []
    ends = time.monotonic() + _PATIENCE
    while len(found) < count:
        assert time.monotonic() < ends, f"{len(found)} of {count} changes came"
        found += next(pages).changes
    return found


def keys(changes: list[ItemChange]) -> list[str]:
    return [orjson.loads(change.key[0])["S"] for change in changes]  # type: ignore[arg-type]


@pytest.fixture
def streamed(stream_bed: StreamServer, stream_prefix: str, tmp_path: Path) -> Streamed:
    return Streamed(stream_bed, stream_prefix + "t", tmp_path)


# --- records ---


def test_changes_are_whole_items_and_removals(streamed: Streamed) -> None:
    nested = {"M": {"list": {"L": [{"N": "1.50"}, {"NULL": True}]}, "é": {"SS": ["b", "a"]}}}
    streamed.client.put_item(TableName=streamed.name, Item=an_item(1, deep=nested))
    streamed.client.update_item(
        TableName=streamed.name, Key={"pk": {"S": "k001"}}, UpdateExpression="REMOVE v SET #n = :x",
        ExpressionAttributeNames={"#n": "name"}, ExpressionAttributeValues={":x": {"S": ""}},
    )  # fmt: skip
    streamed.client.delete_item(TableName=streamed.name, Key={"pk": {"S": "k001"}})
    put, update, removal = streamed.changes(streamed.only_row(), 3)
    assert put.key == (b'{"S":"k001"}',)
    assert put.after is not None
    assert put.after[0] == put.key[0]
    image = orjson.loads(update.after[1])  # type: ignore[index,arg-type]
    assert set(image) == {"pk", "deep", "name"}
    assert image["name"] == {"S": ""}
    assert removal.after is None
    assert not removal.by_ttl
    assert int(put.sequence) < int(update.sequence) < int(removal.sequence)
    assert abs(put.at - time.time()) < 60


def test_deletes_by_time_to_live_are_marked(streamed: Streamed) -> None:
    streamed.put(1, 2)
    assert streamed.server.control.ttl_delete(streamed.name, {"pk": {"S": "k001"}})
    streamed.client.delete_item(TableName=streamed.name, Key={"pk": {"S": "k002"}})
    changes = streamed.changes(streamed.only_row(), 4)
    assert [change.by_ttl for change in changes if change.after is None] == [True, False]


def test_sequence_numbers_are_numbers(streamed: Streamed) -> None:
    """From 999…9 to 1000…0 text order and number order part."""
    streamed.server.control.big_sequence_numbers(streamed.name)
    streamed.put(*range(6))
    row = streamed.only_row()
    changes = streamed.changes(row, 6)
    assert sorted(change.sequence for change in changes) != [change.sequence for change in changes]
    for index, change in enumerate(changes[:-1]):
        rest = streamed.changes(replace(row, position=change.sequence), 5 - index)
        assert keys(rest) == keys(changes[index + 1 :])


# --- capture ---


def test_capture_keeps_closed_shards_and_begins_before_the_first_read(streamed: Streamed) -> None:
    streamed.put(1, 2, 3)
    streamed.server.control.split(streamed.name)
    before = streamed.source.clock()
    rows = streamed.source.capture([streamed.table])
    closed = [row for row in rows if row.state is ShardState.DONE]
    opened = [row for row in rows if row.state is ShardState.PENDING]
    assert (len(closed), len(opened)) == (1, 2)
    assert {row.parent for row in opened} == {closed[0].ref.shard}
    for row in opened:
        assert row.position == BEGINNING
        assert before - 16 * 60 < row.skip_before < before - 14 * 60
    streamed.put(*range(10), value=2)
    found = collect(streamed.all_pages(opened), 10)
    assert sorted(keys(found)) == [f"k{number:03d}" for number in range(10)]


def test_capture_of_a_busy_shard_begins_with_a_record_that_it_saw(streamed: Streamed) -> None:
    stop = threading.Event()
    written = itertools.count()

    def write() -> None:
        while not stop.wait(0.01):
            streamed.put(next(written))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        (row,) = streamed.source.capture([streamed.table])
    finally:
        stop.set()
        writer.join()
    assert row.position.startswith("@")
    (first, *rest) = streamed.changes(row, 2)
    assert first.sequence == row.position[1:]
    assert int(rest[0].sequence) > int(first.sequence)


def test_a_shard_that_hides_its_records_is_captured_from_further_back(streamed: Streamed) -> None:
    """An empty page proves nothing."""
    streamed.put(1)
    streamed.server.control.empty_pages(1000, streamed.name)
    (row,) = streamed.source.capture([streamed.table])
    assert row.position == BEGINNING
    assert row.skip_before > 0
    streamed.server.control.empty_pages(0, streamed.name)
    assert keys(streamed.changes(row, 1)) == ["k001"]


# --- lineage and reading on ---


def test_children_come_after_their_parent_and_parents_end(streamed: Streamed) -> None:
    streamed.put(*range(20))
    parent = streamed.only_row()
    children = streamed.server.control.split(streamed.name)
    streamed.put(*range(20), value=2)
    shards = {shard.ref.shard: shard for shard in streamed.source.shards(streamed.table)}
    assert shards[parent.ref.shard].closed
    assert {shards[child].parent for child in children} == {parent.ref.shard}
    assert keys(streamed.whole(parent)) == [f"k{number:03d}" for number in range(20)]
    found = collect(streamed.all_pages([streamed.row(shards[child]) for child in children]), 20)
    assert sorted(keys(found)) == [f"k{number:03d}" for number in range(20)]


def test_many_shards_are_listed_over_pages(streamed: Streamed) -> None:
    streamed.server.control.shuffle_shard_listing()
    try:
        for _ in range(104):
            streamed.server.control.roll(streamed.name)
        assert len(streamed.source.shards(streamed.table)) == 105
    finally:
        streamed.server.control.shuffle_shard_listing(None)


@pytest.mark.parametrize("read_before", [0, 3])
def test_expired_iterators_are_renewed_where_reading_was(streamed: Streamed, read_before: int) -> None:
    streamed.put(*range(3))
    pages = streamed.pages(streamed.only_row())
    first = collect(pages, 3) if read_before else []
    streamed.server.control.expire_iterators()
    streamed.put(*range(3, 6))
    rest = collect(pages, 6 - len(first))
    assert keys(first + rest) == [f"k{number:03d}" for number in range(6)]


def test_throttled_reads_go_on(streamed: Streamed) -> None:
    streamed.put(*range(3))
    streamed.server.control.throttle(3)
    streamed.server.control.throttle(2, kind="LimitExceededException")
    assert len(streamed.changes(streamed.only_row(), 3)) == 3


# --- losses ---


def _lost(action: Callable[[], object]) -> str:
    with pytest.raises(SourceLogLost) as caught:
        action()
    return str(caught.value)


def test_a_position_that_was_trimmed_stops_with_the_gap(streamed: Streamed) -> None:
    streamed.put(*range(5))
    row = streamed.only_row()
    changes = streamed.changes(row, 5)
    streamed.server.control.trim(streamed.name, before_sequence=changes[3].sequence)
    known = replace(row, position=changes[1].sequence, last_change_at=changes[1].at)
    said = _lost(lambda: next(streamed.pages(known)))
    assert changes[1].sequence in said
    assert changes[3].sequence in said
    assert _lost(lambda: streamed.fresh([known]).check_log("")) == said
    read = replace(row, position=changes[3].sequence)
    streamed.fresh([read]).check_log("")
    assert keys(streamed.changes(read, 1)) == ["k004"]


def test_records_trimmed_under_a_reader_are_not_skipped(streamed: Streamed) -> None:
    streamed.put(*range(3))
    pages = streamed.pages(streamed.only_row())
    assert len(collect(pages, 3)) == 3
    streamed.put(3, 4)
    streamed.server.control.trim(streamed.name)
    _lost(lambda: collect(pages, 1))


def test_a_beginning_that_was_trimmed_is_lost_unless_what_is_left_is_older(streamed: Streamed) -> None:
    streamed.put(*range(3))
    row = streamed.only_row()
    changes = streamed.changes(row, 3)
    streamed.server.control.trim(streamed.name, before_sequence=changes[1].sequence)
    whole = _lost(lambda: next(streamed.pages(row)))
    assert "the shard's beginning" in whole
    early = replace(row, skip_before=changes[1].at - 60)
    assert changes[1].sequence in _lost(lambda: streamed.fresh([early]).check_log(""))
    streamed.fresh([early], task="snapshot").check_log("")
    old = replace(row, skip_before=changes[1].at - 23 * 3600)
    _lost(lambda: streamed.fresh([old], task="snapshot").check_log(""))
    late = replace(row, skip_before=changes[1].at + 1)
    streamed.fresh([late]).check_log("")
    assert keys(streamed.changes(late, 2)) == ["k001", "k002"]


def test_a_shard_that_vanished_is_lost(streamed: Streamed) -> None:
    streamed.put(1)
    row = streamed.only_row()
    streamed.server.control.roll(streamed.name)
    streamed.server.control.drop_closed_shards(streamed.name)
    assert "shard" in _lost(lambda: next(streamed.pages(row)))
    streamed.fresh([replace(row, state=ShardState.DONE)]).check_log("")


def test_a_stream_made_anew_names_both(streamed: Streamed) -> None:
    streamed.put(1)
    row = streamed.only_row()
    anew = streamed.server.control.recreate(streamed.name)
    for action in (lambda: streamed.source.shards(streamed.table), lambda: streamed.fresh([row]).check_log("")):
        said = _lost(action)
        assert all(name in said for name in (row.ref.stream, anew, streamed.name))


def test_a_disabled_stream_is_a_loss(streamed: Streamed) -> None:
    row = streamed.only_row()
    streamed.source.restore_streams([streamed.name])
    for action in (lambda: streamed.source.shards(streamed.table), lambda: streamed.fresh([row]).check_log("")):
        assert "no enabled stream" in _lost(action)


def test_a_deleted_table_stops_alone(dynamodb: DynamoDBServer, dynamodb_prefix: str, tmp_path: Path) -> None:
    """Its stream stays readable for a while, and then is gone."""
    name = dynamodb_prefix + "gone"
    client = make_table(dynamodb, name, stream=VIEW)
    source = source_of(dynamodb, tmp_path, tables={"include": [name]})
    (table,), _ = source.discover()
    (row,) = source.capture([table])
    assert row.skip_before > 0
    pages = source.read(table, row)
    client.put_item(TableName=name, Item=an_item(1))
    assert keys(collect(pages, 1)) == ["k001"]
    client.delete_table(TableName=name)
    source_of(dynamodb, tmp_path, tables={"include": [name]}, store=lambda: Rows([row])).check_log("")
    assert keys(collect(source.read(table, row), 1)) == ["k001"]
    gone = replace(row, ref=replace(row.ref, stream=row.ref.stream + "9"))
    with pytest.raises(Incompatible, match="no longer in the source"):
        next(source.read(table, gone))
    _lost(lambda: source.shards(table))


def test_shards_close_to_the_retention_are_told_of(streamed: Streamed, caplog: pytest.LogCaptureFixture) -> None:
    row, now = streamed.only_row(), streamed.source.clock()
    streamed.fresh([replace(row, read_to=now - 3600)]).check_log("")
    assert not caplog.records
    streamed.fresh([replace(row, read_to=now - 20 * 3600)]).check_log("")
    assert [streamed.name in record.getMessage() for record in caplog.records] == [True]


def test_without_shards_in_the_store_the_start_may_not_be_older_than_a_day(streamed: Streamed) -> None:
    streamed.fresh([]).check_log(streamed.source.position())
    assert "24 hours" in _lost(lambda: streamed.fresh([]).check_log("2020-01-01T00:00:00.000Z"))


# --- switching ---


def test_streams_are_enabled_where_missing_and_put_back(
    stream_bed: StreamServer, stream_prefix: str, tmp_path: Path
) -> None:
    make_table(stream_bed, stream_prefix + "off")
    client = make_table(stream_bed, stream_prefix + "on", stream="NEW_IMAGE")
    source = source_of(stream_bed, tmp_path, tables={"include": [stream_prefix + "*"]})
    tables, _ = source.discover()
    told: list[str] = []
    assert source.prepare_streams(tables, told.extend) == [stream_prefix + "off"]
    assert told == [stream_prefix + "off"]
    assert source.prepare_streams(tables, told.extend) == []
    assert told == [stream_prefix + "off"]
    assert all(source.shards(table) for table in tables)
    described = client.describe_table(TableName=stream_prefix + "off")["Table"]
    assert described["StreamSpecification"] == {"StreamEnabled": True, "StreamViewType": VIEW}
    source.restore_streams([stream_prefix + "off", stream_prefix + "none"])
    source.restore_streams([stream_prefix + "off"])
    described = client.describe_table(TableName=stream_prefix + "off")["Table"]
    assert not described.get("StreamSpecification", {}).get("StreamEnabled")
    with pytest.raises(SourceLogLost):
        source.shards(next(table for table in tables if table.name.endswith("off")))


def test_another_view_type_is_left_to_a_person(stream_bed: StreamServer, stream_prefix: str, tmp_path: Path) -> None:
    make_table(stream_bed, stream_prefix + "keys", stream="KEYS_ONLY")
    source = source_of(stream_bed, tmp_path, tables={"include": [stream_prefix + "*"]})
    tables, _ = source.discover()
    with pytest.raises(ConfigurationError, match="view type KEYS_ONLY"):
        source.prepare_streams(tables, lambda names: None)


# --- permissions ---

TRIED = {
    "Scan": True, "BatchGetItem": True, "DescribeStream": True, "GetShardIterator": True, "GetRecords": True,
    "DescribeTimeToLive": False, "ListTagsOfResource": False,
}  # fmt: skip


@pytest.mark.parametrize("operation", TRIED)
def test_each_refused_call_is_one_problem_with_its_action(streamed: Streamed, operation: str) -> None:
    source = streamed.fresh()
    control = streamed.server.control
    control.refuse(operation)
    try:
        found = _problems(source)
    finally:
        control.refuse(operation, False)
    assert [(f"dynamodb:{operation}" in problem.what, problem.fatal) for problem in found] == [(True, TRIED[operation])]
    assert streamed.name in found[0].where


def test_enabling_is_tried_without_harm(stream_bed: StreamServer, stream_prefix: str, tmp_path: Path) -> None:
    client = make_table(stream_bed, stream_prefix + "off")
    source = source_of(stream_bed, tmp_path, tables={"include": [stream_prefix + "*"]})
    before = client.describe_table(TableName=stream_prefix + "off")["Table"]
    stream_bed.control.refuse("UpdateTable")
    try:
        assert "dynamodb:UpdateTable" in next(p for p in _problems(source) if p.fatal).what
    finally:
        stream_bed.control.refuse("UpdateTable", False)
    assert not [problem for problem in _problems(source) if problem.fatal]
    assert client.describe_table(TableName=stream_prefix + "off")["Table"] == before


def test_a_refused_listing_says_so(streamed: Streamed) -> None:
    streamed.server.control.refuse("ListTables")
    try:
        with pytest.raises(ConfigurationError, match="dynamodb:ListTables"):
            streamed.fresh().identity()
    finally:
        streamed.server.control.refuse("ListTables", False)


def _problems(source: DynamoDBSource) -> list[Problem]:
    checked = source.check()
    return [*checked, *source.discover()[1]]
