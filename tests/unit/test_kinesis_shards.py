"""Shards of Kinesis data streams over made-up streams with a clock the test turns: what is proven, what is lost."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from support.kinesis_reader import Reader, first_of, written
from support.memory_kinesis import BEGAN, World
from whimbrel_worker.endpoints.dynamodb.kinesis.reading import LATE_SECONDS
from whimbrel_worker.engine.shard_ports import Page, Shard, ShardRef, ShardRow, ShardState
from whimbrel_worker.engine.shards.lag import EmptyRun, advanced, sample
from whimbrel_worker.engine.shards.lineage import leaves, newcomers, readable
from whimbrel_worker.errors import Incompatible, SourceLogLost

HOUR = 3600.0


# --- shards ---


def test_a_merged_shard_waits_for_both_parents_and_inherits_the_weaker_proof() -> None:
    ref = [ShardRef("t", "arn", name) for name in "abc"]
    left = ShardRow(ref[0], state=ShardState.DONE, read_to=50.0)
    right = ShardRow(ref[1], state=ShardState.READING, read_to=40.0)
    ((child,),) = newcomers("t", [left, right], [Shard(ref[2], "a", adjacent="b")])
    assert (child.parent, child.adjacent, child.read_to) == ("a", "b", 40.0)
    assert readable([left, right, child]) == [right]
    done = replace(right, state=ShardState.DONE)
    assert readable([left, done, child]) == [child]
    assert leaves([left, done, child]) == []


def test_a_second_parent_that_nobody_has_seen_is_a_loss() -> None:
    left = ShardRow(ShardRef("t", "arn", "a"), state=ShardState.DONE)
    with pytest.raises(SourceLogLost, match="shard b"):
        newcomers("t", [left], [Shard(ShardRef("t", "arn", "c"), "a", adjacent="b")])


def test_the_capture_begins_before_now_and_leaves_closed_shards_out() -> None:
    world = World(1, shards=2)
    world.stream.merge(*next(world.stream.neighbours()))
    rows = world.log().capture(list(world.tables.values()))
    states = {row.ref.shard: row.state for row in rows}
    assert sorted(states.values()) == [ShardState.DONE, ShardState.DONE, ShardState.PENDING]
    (opened,) = [row for row in rows if row.state is ShardState.PENDING]
    assert {opened.parent, opened.adjacent} == {row.ref.shard for row in rows} - {opened.ref.shard}
    assert opened.skip_before == BEGAN - 900
    assert opened.ref.stream == f"{world.arn}@{int(BEGAN)}"


def test_a_table_sees_its_own_records_only() -> None:
    world = World(1, ("t", "u"))
    reader = Reader(world)
    written(world, "1")
    world.write("u", "2")
    stranger = base64.b64encode(b"not from DynamoDB").decode()
    world.kinesis.ask("PutRecord", {"StreamARN": world.arn, "Data": stranger})
    page = reader.step(reader.only().ref)
    assert [change.key for change in page.changes] == [(b'{"S":"1"}',)]
    reader.finish()
    assert reader.agrees()


# --- what is proven ---


def test_the_end_of_a_shard_proves_what_was_made_before_less_the_time_it_takes_to_arrive() -> None:
    world = World(1)
    reader = Reader(world)
    for _ in range(5):
        world.now += 1.0
        page = reader.step(reader.only().ref)
        assert (page.behind, page.proven) == (False, world.now - LATE_SECONDS)
    assert reader.only().quiet_since > 0
    lag = sample(reader.rows.values(), world.now, BEGAN)
    assert lag.quiet


def test_a_page_before_the_end_proves_what_arrived_before_its_last_record_and_is_not_quiet() -> None:
    world = World(1)
    reader = Reader(world)
    for _ in range(1001):
        world.write("t", "1")
        world.now += 0.01
    page = reader.step(reader.only().ref)
    assert page.behind
    assert len(page.changes) == 1000
    assert page.proven == pytest.approx(BEGAN + 9.99 - LATE_SECONDS)
    run = EmptyRun(9, BEGAN)
    row, run = advanced(reader.only(), Page((), world.now, proven=0.0, behind=True), run, 0)
    assert (row.quiet_since, run.pages) == (0.0, 0)


def test_changes_that_arrive_late_weaken_the_proof() -> None:
    world = World(1)
    reader = Reader(world)
    world.stream.offer("t", {"eventName": "REMOVE", "dynamodb": {"Keys": {"id": {"S": "x"}}}}, BEGAN, BEGAN + 30,
                       "MICROSECOND")  # fmt: skip
    world.now += 31
    page = reader.step(reader.only().ref)
    assert page.proven == pytest.approx(world.now - 30)


# --- losses ---


def aged(reader: Reader, hours: float) -> None:
    """Time goes by, and the stream forgets as it is set to."""
    reader.world.now += hours * HOUR
    for shard in reader.world.stream.shards.values():
        shard.trim(reader.world.now - reader.world.stream.kept_hours * HOUR)


def test_a_reader_that_was_away_for_longer_than_the_stream_keeps_stops() -> None:
    world = World(1)
    reader = Reader(world)
    written(world, "1", "2")
    reader.step(reader.only().ref)
    written(world, "3")
    aged(reader, 25)
    fresh = world.log()
    with pytest.raises(SourceLogLost, match="keeps 24 hours") as lost:
        fresh.verify(reader.only())
    assert "until 2023-11-14" in str(lost.value)
    with pytest.raises(SourceLogLost):
        next(fresh.read(world.tables["t"], reader.only()))


def test_a_reader_that_falls_behind_while_it_reads_stops() -> None:
    world = World(1)
    reader = Reader(world)
    written(world, "1")
    reader.step(reader.only().ref)
    aged(reader, 25)
    with pytest.raises(SourceLogLost):
        reader.step(reader.only().ref)


def test_a_longer_retention_is_enough() -> None:
    world = World(1)
    world.kinesis.ask("IncreaseStreamRetentionPeriod", {"StreamARN": world.arn, "RetentionPeriodHours": 168})
    reader = Reader(world)
    written(world, "1", "2")
    aged(reader, 100)
    reader.log = world.log()
    reader.finish()
    assert reader.agrees()


def test_a_quiet_shard_is_not_lost_although_its_last_record_is_gone() -> None:
    world = World(1)
    reader = Reader(world)
    written(world, "1")
    for _ in range(30):
        reader.step(reader.only().ref)
        aged(reader, 1)
    assert not world.stream.shards["shardId-000000000000"].numbers
    fresh = world.log()
    fresh.verify(reader.only())
    written(world, "2")
    page = next(fresh.read(world.tables["t"], reader.only()))
    assert [change.key for change in page.changes] == [(b'{"S":"2"}',)]


def test_a_destination_that_is_switched_off_is_a_loss() -> None:
    world = World(1)
    log, table = world.log(), world.tables["t"]
    (row,) = log.capture([table])
    assert log.has_stream("t", row.ref.stream)
    world.point("t", "Disable")
    for look in (lambda: log.shards(table), lambda: log.has_stream("t", row.ref.stream)):
        with pytest.raises(SourceLogLost, match="DISABLED"):
            look()


def test_a_stream_that_begins_to_spread_records_over_all_shards_is_a_loss() -> None:
    world = World(1)
    log, table = world.log(), world.tables["t"]
    assert log.capture([table])
    world.stream.distribution = "AUTO"
    with pytest.raises(Incompatible, match="USER_PARTITION_KEY"):
        world.log().capture([table])
    log.streams.forget(world.arn)
    with pytest.raises(SourceLogLost, match="AUTO"):
        log.shards(table)


def test_a_stream_made_anew_under_its_name_is_another_one() -> None:
    world = World(1)
    reader = Reader(world)
    row = reader.only()
    world.kinesis.ask("DeleteStream", {"StreamARN": world.arn})
    world.now += 10
    world.kinesis.ask("CreateStream", {"StreamName": "s", "ShardCount": 1})
    fresh = world.log()
    for look in (lambda: fresh.verify(row), lambda: fresh.has_stream("t", row.ref.stream)):
        with pytest.raises(SourceLogLost, match="made anew"):
            look()


def test_a_table_that_is_gone_is_no_loss_of_its_log() -> None:
    world = World(1)
    log = world.log()
    (row,) = log.capture([world.tables["t"]])
    del world.items["t"]
    assert not log.has_stream("t", row.ref.stream)


def test_iterators_that_expire_are_made_anew_without_a_record_twice() -> None:
    world = World(1)
    reader = Reader(world)
    seen: list[str] = []
    for number in range(6):
        written(world, str(number))
        seen += [change.sequence for change in reader.step(reader.only().ref).changes]
        world.service.generation += 1
        world.now += 1
    assert len(seen) == len(set(seen)) == 6


def test_an_iterator_that_expires_before_one_record_is_looked_at_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a reader that is slow: where it stands is asked for by a record's number when it starts."""
    world = World(1)
    reader = Reader(world)
    written(world, "a")
    reader.step(reader.only().ref)
    written(world, "b")
    ask, slow = world.kinesis.ask, iter([True, True])

    def expiring(operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        answer = ask(operation, request)
        if request.get("ShardIteratorType") == "AT_SEQUENCE_NUMBER" and next(slow, False):
            world.service.generation += 1
        return answer

    monkeypatch.setattr(world.kinesis, "ask", expiring)
    page = next(world.log().read(world.tables["t"], reader.only()))
    assert [change.sequence for change in page.changes if change.sequence > reader.only().position] != []
    assert next(slow, None) is None, "no iterator expired"


# --- what cannot be carried ---


def test_a_record_that_is_not_understood_stops_its_table() -> None:
    world = World(1)
    reader = Reader(world)
    world.stream.offer(
        "t", {"eventName": "INSERT", "dynamodb": {"Keys": {"id": {"S": "x"}}}}, BEGAN, BEGAN, "NANOSECOND"
    )
    with pytest.raises(Incompatible, match="NANOSECOND"):
        reader.step(reader.only().ref)


def test_an_item_with_two_partition_keys_stops_its_table() -> None:
    world = World(1)
    reader = Reader(world)
    written(world, "k", "other", "k")
    world.kinesis.ask("ListStreams", {})
    (shard,) = world.stream.open_shards
    assert shard.places[0] == shard.places[2] != shard.places[1]
    shard.places[2] += 1
    with pytest.raises(Incompatible, match="different partition keys"):
        reader.step(reader.only().ref)


def test_binary_values_are_decoded_once_wherever_they_stand() -> None:
    """As a record of the service showed them: the bytes 18, 2, 8, 123 came as RWdJSWV3PT0=."""
    world = World(1)
    binary = {"B": "EgIIew=="}
    image = {
        "id": {"S": "x"},
        "b": binary,
        "s": {"BS": ["AA==", "/w=="]},
        "m": {"M": {"l": {"L": [binary, {"B": ""}]}}},
    }
    record = {"eventName": "INSERT", "dynamodb": {"Keys": {"id": {"S": "x"}}, "NewImage": image}}
    world.stream.offer("t", record, world.now, world.now, "MICROSECOND")
    reader = Reader(world)
    data = world.kinesis.ask("GetRecords", {"ShardIterator": first_of(world)})["Records"][0]["Data"]
    assert "RWdJSWV3PT0=" in base64.b64decode(data).decode()
    (change,) = reader.step(reader.only().ref).changes
    assert change.after is not None
    assert json.loads(bytes(change.after[1])) == image  # type: ignore[arg-type]


def test_a_binary_value_that_is_encoded_once_stops_its_table() -> None:
    world = World(1)
    image = {"id": {"S": "x"}, "b": {"B": "EgIIew=="}}
    body = {"ApproximateCreationDateTime": int(BEGAN * 1000), "Keys": {"id": {"S": "x"}}, "NewImage": image}
    whole = {"eventName": "INSERT", "tableName": "t", "dynamodb": body}
    data = base64.b64encode(json.dumps(whole).encode()).decode()
    world.kinesis.ask("PutRecord", {"StreamARN": world.arn, "Data": data})
    reader = Reader(world)
    with pytest.raises(Incompatible, match="encoded by base64 twice"):
        reader.step(reader.only().ref)


def test_a_table_that_does_not_write_into_its_stream_is_refused_with_the_command() -> None:
    world = World(1)
    world.point("t", "Disable")
    with pytest.raises(Incompatible, match="enable-kinesis-streaming-destination --table-name t"):
        world.log().capture(list(world.tables.values()))
    with pytest.raises(Incompatible, match="no streaming destination"):
        world.log(stream="other").capture(list(world.tables.values()))
