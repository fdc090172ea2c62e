"""The pure parts of a DynamoDB source: tables that move, definitions, estimates, positions, segments, records."""

from __future__ import annotations

import itertools
import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel_api.migration import Mode, Tables
from whimbrel_api.tasks import TaskFile
from whimbrel_worker.endpoints.dynamodb.items.segments import Place, following, place_of, segments_for
from whimbrel_worker.endpoints.dynamodb.preflight.estimate import Limits, assess, table_seconds, too_long, total_seconds
from whimbrel_worker.endpoints.dynamodb.streams.records import item_changes
from whimbrel_worker.endpoints.dynamodb.tables.definition import Described, definition_of
from whimbrel_worker.endpoints.dynamodb.tables.discover import discover, item_table, selected
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.errors import ConfigurationError, Incompatible
from whimbrel_worker.values import moments
from whimbrel_worker.values.selection import is_wanted

HOUR = 3600.0


def described(name: str = "t", **more: Any) -> Described:
    """A table with the key (pk S, sk N)."""
    ttl, tags = more.pop("ttl", ""), more.pop("tags", ())
    description = {
        "TableName": name,
        "TableStatus": "ACTIVE",
        "KeySchema": [{"AttributeName": "sk", "KeyType": "RANGE"}, {"AttributeName": "pk", "KeyType": "HASH"}],
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "N"},
        ],
    }
    return Described(description | more, ttl, tags)


def found(*tables: Described, mode: Mode = Mode.SNAPSHOT_ONLY, **wanted: Any) -> tuple[list[str], list[Problem]]:
    """Names of the tables that move, and the problems."""
    moving, problems = discover(tables, Tables.model_validate(wanted), mode)
    return [table.target_name for table in moving], problems


# --- selection ---


def test_globs_choose_and_our_own_tables_never_move() -> None:
    names = ["src1", "src2", "other", "whimbrel-control"]
    assert selected(names, Tables()) == ["src1", "src2", "other"]
    assert selected(names, Tables(include=["src*", "whimbrel-*"], exclude=["*2"])) == ["src1"]


def test_exclude_wins() -> None:
    assert not is_wanted("a", Tables(include=["a"], exclude=["a"]))
    assert is_wanted("shop.orders", Tables(include=["shop.*"]))


def test_a_renamed_table_keeps_its_own_name_here() -> None:
    ((table,), problems) = discover(
        [described("t.1")],
        Tables.model_validate({"overrides": [{"name": "t.*", "renameTo": "uuu"}]}),
        Mode.SNAPSHOT_ONLY,
    )
    assert (table.name, table.source_name, table.target_name, problems) == ("t.1", "t.1", "uuu", [])
    assert [column.name for column in table.key_columns] == ["pk", "sk"]
    assert table.key_is_collated


@pytest.mark.parametrize(
    "override",
    [{"primaryKey": ["a"]}, {"columns": [{"name": "a", "type": "text"}]}, {"renameTo": "a b"}, {"renameTo": "no"},
     {"renameTo": "whimbrel-x"}, {"filter": {"expression": "a = :b", "values": {":b": "open"}}}],
)  # fmt: skip
def test_what_items_cannot_have_is_refused(override: dict[str, Any]) -> None:
    names, problems = found(described(), overrides=[{"name": "t"} | override])
    assert names == []
    assert [problem.fatal for problem in problems] == [True]
    assert problems[0].todo


def test_a_filter_is_the_copys_only() -> None:
    overrides = [{"name": "t", "filter": {"expression": "a = :b", "values": {":b": '{"S": "x"}'}}}]
    assert found(described(), overrides=overrides) == (["t"], [])
    _, problems = found(described(), overrides=overrides, mode=Mode.SNAPSHOT_AND_STREAM)
    assert [(problem.what, problem.fatal) for problem in problems] == [("the filter holds for the copy only", False)]


def test_two_tables_cannot_become_one() -> None:
    _, problems = found(described("aaa"), described("bbb"), overrides=[{"name": "bbb", "renameTo": "aaa"}])
    assert [problem.what for problem in problems] == ["aaa and bbb both lead to aaa"]


@pytest.mark.parametrize(
    ("status", "moves", "fatal"),
    [("ACTIVE", True, []), ("UPDATING", True, []), ("DELETING", False, [False]), ("CREATING", False, [True]),
     ("ARCHIVED", False, [True]), ("INACCESSIBLE_ENCRYPTION_CREDENTIALS", False, [True])],
)  # fmt: skip
def test_states_of_tables(status: str, moves: bool, fatal: list[bool]) -> None:
    names, problems = found(described(TableStatus=status))
    assert bool(names) is moves
    assert [problem.fatal for problem in problems] == fatal


def test_what_is_not_carried_is_said() -> None:
    more: dict[str, Any] = {
        "Replicas": [{"RegionName": "eu-west-1"}],
        "DeletionProtectionEnabled": True,
        "SSEDescription": {"Status": "ENABLED"},
    }
    names, problems = found(described(**more))
    assert names == ["t"]
    assert not any(problem.fatal for problem in problems)
    said = " ".join(problem.what for problem in problems)
    assert all(word in said for word in ("deletion protection", "encryption", "eu-west-1"))


def test_patterns_that_match_nothing() -> None:
    assert [problem.where for problem in found(described("aaa"), include=["aaa", "b*"])[1]] == ["b*"]
    assert [problem.what for problem in found()[1]] == ["the source has no table to move"]


# --- definitions ---


def test_a_definition_leaves_out_what_create_table_refuses() -> None:
    definition = json.loads(definition_of(described(LocalSecondaryIndexes=[], GlobalSecondaryIndexes=None)))
    assert set(definition) == {"AttributeDefinitions", "KeySchema"}


def test_a_definition_holds_throughput_indexes_and_only_used_attributes() -> None:
    units = {"ReadCapacityUnits": 5, "WriteCapacityUnits": 7}
    index = {
        "KeySchema": [{"AttributeName": "city", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
        "ProvisionedThroughput": units | {"NumberOfDecreasesToday": 0},
    }
    table = described(
        GlobalSecondaryIndexes=[
            {"IndexName": "stays", "IndexStatus": "ACTIVE", "ItemCount": 3} | index,
            {"IndexName": "goes", "IndexStatus": "DELETING"}
            | index
            | {"KeySchema": [{"AttributeName": "gone", "KeyType": "HASH"}]},
        ],
        ProvisionedThroughput=units | {"NumberOfDecreasesToday": 0},
        ttl="expires",
        tags=({"Key": "a", "Value": "b"},),
    )
    table.description["AttributeDefinitions"].extend(
        {"AttributeName": name, "AttributeType": "S"} for name in ("city", "gone")
    )
    definition = json.loads(definition_of(table))
    assert definition["BillingMode"] == "PROVISIONED"
    assert definition["ProvisionedThroughput"] == units
    assert definition["GlobalSecondaryIndexes"] == [index | {"IndexName": "stays", "ProvisionedThroughput": units}]
    assert [item["AttributeName"] for item in definition["AttributeDefinitions"]] == ["pk", "sk", "city"]
    assert (definition["TimeToLive"], definition["Tags"]) == ("expires", [{"Key": "a", "Value": "b"}])


def test_only_an_enabled_stream_counts() -> None:
    arn = {"LatestStreamArn": "arn:s"}
    on = described(StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}, **arn)
    assert (on.stream, on.view) == ("arn:s", "NEW_IMAGE")
    assert (described(**arn).stream, described(**arn).view) == ("", "")


# --- estimates ---


def a_file(mode: str = "SnapshotAndStream", **fields: Any) -> TaskFile:
    end = {"region": "us-east-1", "endpoint": "http://127.0.0.1:9", "credentialsSecretRef": {"name": "s"}}
    return TaskFile.model_validate(
        {"task": "preflight", "taskId": "t", "migration": "a/b", "mode": mode, "source": {"dynamodb": end},
         "target": {"dynamodb": end}} | fields
    )  # fmt: skip


def sized(name: str, items: int, size: int, **more: Any) -> Described:
    return described(name, ItemCount=items, TableSizeBytes=size, **more)


def test_the_slowest_of_the_limits_counts() -> None:
    table = sized("t", 1_000_000, 1_000_000_000)
    free = Limits(workers=2, tables_in_parallel=4)
    assert total_seconds([table], free) == pytest.approx(100)
    assert total_seconds([table], Limits(2, 4, rows_per_second=1000)) == pytest.approx(1000)
    assert total_seconds([table], Limits(2, 4, read_units=100)) == pytest.approx(2441, abs=1)
    assert total_seconds([table], Limits(2, 4, write_units=500)) == pytest.approx(2000)
    provisioned = sized("t", 1_000_000, 1_000_000_000, ProvisionedThroughput={"ReadCapacityUnits": 10})
    assert table_seconds(provisioned, free) == pytest.approx(24414, abs=1)


def test_tables_side_by_side_take_as_long_as_their_longest_row() -> None:
    tables = [sized(f"t{n}", 0, 4096 * 10 * 100, ProvisionedThroughput={"ReadCapacityUnits": 10}) for n in range(4)]
    assert total_seconds(tables, Limits(64, 2)) == pytest.approx(200)
    assert total_seconds(tables, Limits(64, 4)) == pytest.approx(100)
    assert total_seconds([], Limits(1, 1)) == 0


def test_a_copy_longer_than_the_streams_is_refused_with_the_numbers() -> None:
    large = sized("large", 100_000_000, 10**12)
    file = a_file(snapshot={"workers": 1})
    (problem,) = too_long([large, sized("small", 1, 1)], file)
    assert problem.fatal
    assert "34.7 h" in problem.what
    assert all(part in problem.why for part in ("100,000,001 items", "1,000.0 GB", "80%", "19.2 h", "large"))
    assert not list(too_long([large], a_file(snapshot={"workers": 2})))
    assert list(too_long([large], a_file(snapshot={"workers": 2}, stream={"retentionGuard": 0.5})))
    assert not list(too_long([large], a_file("SnapshotOnly", snapshot={"workers": 1})))


def test_assessments_are_the_largest_hundred() -> None:
    assessed = assess([sized(f"t{n}", n, n) for n in range(150)], Limits(1, 1))
    assert len(assessed) == 100
    assert assessed[0].name == "t149"
    assert assessed[0].stream == "disabled"


# --- positions ---


@settings(deadline=None)
@given(st.integers(0, 4_000_000_000_000))
def test_moments_keep_milliseconds(milliseconds: int) -> None:
    text = moments.moment_text(milliseconds / 1000 + 0.0002)
    assert len(text) == len("2026-11-21T19:00:00.123Z")
    assert round(moments.seconds_of(text) * 1000) in (milliseconds, milliseconds + 1)


def test_positions_cover_each_other_by_time() -> None:
    early, late = "2026-11-21T19:00:00.123Z", "2026-11-21T19:00:00.124Z"
    assert moments.covers(late, early)
    assert moments.covers(early, early + "#tips")
    assert not moments.covers(early, late + "#tips")
    assert moments.covers("", "")
    assert not moments.covers("", early)
    assert moments.least([late, early + "#x"]) == early + "#x"
    assert moments.least([]) == moments.least([late, ""]) == ""
    with pytest.raises(ConfigurationError, match="no position"):
        moments.covers("uuid:1-7", early)


# --- segments ---


@settings(deadline=None)
@given(st.integers(0, 10**7), st.integers(1, 10**5))
def test_bounds_name_every_segment_once(items: int, rows: int) -> None:
    total = segments_for(items, rows)
    assert 1 <= total <= 1000
    low, places = None, list[Place]()
    while True:
        high = following(low, total)
        places.append(place_of(low, high))
        low = high
        if high is None:
            break
    assert places == [Place(index, total) for index in range(total)]


def test_a_bookmark_stays_in_its_segment() -> None:
    assert place_of(("0/3", '{"pk":{"S":"a"}}'), ("1/3",)) == Place(0, 3, '{"pk":{"S":"a"}}')
    assert place_of(("2/3", "{}"), None).name == "2/3"
    with pytest.raises(ConfigurationError):
        place_of(("17",), None)


# --- records ---


def record(event: str, number: int = 1, **body: Any) -> dict[str, Any]:
    keys = {"pk": {"S": "a"}, "sk": {"N": "1.0"}}
    known = {"Keys": keys, "SequenceNumber": str(10**30 + number), "ApproximateCreationDateTime": 1.5}
    return {"eventName": event, "dynamodb": known | body}


TABLE = item_table(described())


def test_records_become_rows_with_canonical_keys() -> None:
    image = {"pk": {"S": "a"}, "sk": {"N": "1.0"}, "v": {"N": "1.50"}, "é": {"L": [{"NULL": True}]}}
    put, removal = item_changes(TABLE, [record("MODIFY", NewImage=image), record("REMOVE", 2, OldImage=image)])
    assert put.key == (b'{"S":"a"}', b'{"N":"1"}')
    assert put.after is not None
    assert tuple(put.after[:2]) == put.key
    assert orjson.loads(put.after[2]) == image  # type: ignore[arg-type]
    assert (put.sequence, put.at, put.by_ttl) == (str(10**30 + 1), 1.5, False)
    assert removal.after is None
    assert not removal.by_ttl


@pytest.mark.parametrize("capital", [False, True])
def test_who_deleted(capital: bool) -> None:
    def identity(**said: str) -> dict[str, Any]:
        return {"userIdentity": {name[0].upper() + name[1:] if capital else name: who for name, who in said.items()}}

    by_service = record("REMOVE") | identity(type="Service", principalId="dynamodb.amazonaws.com")
    by_other = record("REMOVE") | identity(type="Service", principalId="other.amazonaws.com")
    assert [change.by_ttl for change in item_changes(TABLE, [by_service, by_other])] == [True, False]


@pytest.mark.parametrize(
    "odd",
    [record("INSERT"), record("REPLACE", NewImage={}), record("REMOVE", Keys={"pk": {"S": "a"}}),
     {"eventName": "REMOVE"}, {"eventName": "REMOVE", "dynamodb": {"Keys": record("")["dynamodb"]["Keys"]}}],
)  # fmt: skip
def test_what_is_not_understood_stops_the_table(odd: dict[str, Any]) -> None:
    with pytest.raises(Incompatible) as caught:
        item_changes(TABLE, [odd])
    assert caught.value.where == "t"
    assert caught.value.todo


def test_no_value_stands_in_a_message() -> None:
    secret = {"pk": {"S": "a"}, "sk": {"N": "1"}, "card": {"S": "4111-1111"}}
    for odd in itertools.chain([record("REPLACE", NewImage=secret)], [record("INSERT", OldImage=secret)]):
        with pytest.raises(Incompatible) as caught:
            item_changes(TABLE, [odd])
        assert "4111" not in str(caught.value)
