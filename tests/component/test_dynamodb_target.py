"""A DynamoDB-compatible target: sign-in, tables, reading for a comparison, and the positions of shards."""

import json
from dataclasses import replace
from typing import Any

import pytest

from support.item_targets import DEFINITION, ItemCase, block, item, key, numbers_of, prepared, row, rows
from whimbrel_testbed.dynamodb.faults import Call, Fault, LoseReply, Refuse, Unprocessed
from whimbrel_testbed.dynamodb.proxy import DynamoDBProxy
from whimbrel_worker.engine.ports import Upsert
from whimbrel_worker.engine.shard_ports import NOBODY, Holder, ShardRef, ShardRow, ShardState
from whimbrel_worker.errors import ConfigurationError, FencedOut
from whimbrel_worker.values.columns import Row, Table

STREAM = "arn:aws:dynamodb:us-east-1:000000000000:table/items/stream/2026-11-21T19:00:00.000"
GLOBAL_INDEX = {
    "IndexName": "by-text", "KeySchema": [{"AttributeName": "text", "KeyType": "HASH"}],
    "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["size"]},
}  # fmt: skip
LOCAL_INDEX = {
    "IndexName": "by-time",
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "time", "KeyType": "RANGE"}],
    "Projection": {"ProjectionType": "KEYS_ONLY"},
}  # fmt: skip
INDEXED: dict[str, Any] = {
    "AttributeDefinitions": [
        *DEFINITION["AttributeDefinitions"],
        {"AttributeName": "text", "AttributeType": "S"}, {"AttributeName": "time", "AttributeType": "N"},
    ],
    "GlobalSecondaryIndexes": [GLOBAL_INDEX],
    "LocalSecondaryIndexes": [LOCAL_INDEX],
}  # fmt: skip


# --- sign-in ---


def test_sign_in(item_case: ItemCase) -> None:
    assert item_case.endpoint in item_case.target().check_sign_in()
    assert item_case.target().probe_write_path() == "batch"


def test_wrong_keys_are_refused_by_name_and_never_shown(polardb_case: ItemCase) -> None:
    (polardb_case.directory / "secretAccessKey").write_text("not-the-password")
    with pytest.raises(ConfigurationError, match="does not accept the keys") as refused:
        polardb_case.target().check_sign_in()
    assert "Secret target" in refused.value.why
    assert "not-the-password" not in str(refused.value)


def test_fenced_writes_are_refused_where_there_are_no_transactions(item_case: ItemCase) -> None:
    prepared(item_case)

    def rule(call: Call) -> Fault | None:
        wanted = call.operation == "TransactWriteItems"
        return Refuse(400, "UnknownOperationException", "") if wanted else None

    with DynamoDBProxy(item_case.facts, rule) as proxy:
        target = item_case.through(proxy.endpoint).target(fenced_writes=True)
        with pytest.raises(ConfigurationError, match="takes no transactions") as refused:
            target.probe_write_path()
    assert "fencedWrites" in refused.value.todo


def test_that_writes_can_be_fenced_is_known_before_there_is_a_control_table(item_case: ItemCase) -> None:
    assert item_case.target(fenced_writes=True).probe_write_path() == "transaction"


# --- tables ---


def described(case: ItemCase, table: Table) -> dict[str, Any]:
    found: dict[str, Any] = case.direct.describe_table(TableName=table.target_name)["Table"]
    return found


def time_to_live(case: ItemCase, table: Table) -> dict[str, Any]:
    found: dict[str, Any] = case.direct.describe_time_to_live(TableName=table.target_name)["TimeToLiveDescription"]
    return found


def test_a_table_is_made_as_on_the_source(item_case: ItemCase) -> None:
    tags = [{"Key": "team", "Value": "air"}, {"Key": "aws:cloudformation:stack", "Value": "x"}]
    table = item_case.table("in.dex_ed", **INDEXED, TimeToLive="until", Tags=tags, BillingMode="PAY_PER_REQUEST")
    schema = prepared(item_case).schema()
    assert schema.mismatches(table) is None
    schema.create(table)
    schema.create(table)
    found = described(item_case, table)
    assert found["KeySchema"] == DEFINITION["KeySchema"]
    for which, wanted in (("GlobalSecondaryIndexes", GLOBAL_INDEX), ("LocalSecondaryIndexes", LOCAL_INDEX)):
        assert [{name: index[name] for name in wanted} for index in found[which]] == [wanted]
    assert time_to_live(item_case, table)["TimeToLiveStatus"] == "DISABLED"
    for _ in range(2):
        schema.enable_time_to_live(table)
        assert time_to_live(item_case, table) == {"AttributeName": "until", "TimeToLiveStatus": "ENABLED"}
    if item_case.name == "polardb":  # DynamoDB Local has no tags
        assert item_case.direct.list_tags_of_resource(ResourceArn=found["TableArn"])["Tags"] == tags[:1]
    assert schema.mismatches(table) == []
    schema.create_indexes(table)
    assert not schema.has_rows(table)
    item_case.target().writer().write([Upsert(table, [row(1)])])
    assert schema.has_rows(table)


def test_throughput_is_asked_for_only_where_it_is_taken(item_case: ItemCase) -> None:
    units = {"ReadCapacityUnits": 7, "WriteCapacityUnits": 5}
    table = item_case.table(**INDEXED, BillingMode="PROVISIONED", ProvisionedThroughput=units)
    prepared(item_case, table)
    found = described(item_case, table)
    if item_case.behaviour.billing:
        assert found["ProvisionedThroughput"]["ReadCapacityUnits"] == 7
        assert found["GlobalSecondaryIndexes"][0]["ProvisionedThroughput"]["WriteCapacityUnits"] == 5
    else:
        assert "ProvisionedThroughput" not in found


def test_what_differs_is_named(item_case: ItemCase) -> None:
    table = item_case.table()
    schema = prepared(item_case, table).schema()
    other_key = replace(table, columns=(replace(table.columns[0], source_type="B"), *table.columns[1:]))
    (problem,) = schema.mismatches(other_key) or []
    assert problem.fatal
    assert "(pk S, sk N) there, (pk B, sk N) here" in problem.what
    (warning,) = schema.mismatches(item_case.table(**INDEXED)) or []
    assert not warning.fatal
    assert "by-time" in warning.what


def test_missing_global_indexes_are_added(item_case: ItemCase) -> None:
    plain, wanted = item_case.table(), item_case.table(**INDEXED | {"LocalSecondaryIndexes": []})
    target = prepared(item_case, plain)
    target.writer().write([Upsert(plain, rows(range(20)))])
    target.schema().create(wanted)
    target.schema().create_indexes(wanted)
    target.schema().create_indexes(wanted)
    assert [index["IndexName"] for index in described(item_case, wanted)["GlobalSecondaryIndexes"]] == ["by-text"]
    narrow = GLOBAL_INDEX | {"Projection": {"ProjectionType": "KEYS_ONLY"}}
    (problem,) = target.schema().mismatches(item_case.table(**INDEXED | {"GlobalSecondaryIndexes": [narrow],
                                                            "LocalSecondaryIndexes": []})) or []  # fmt: skip
    assert problem.fatal
    assert "by-text has another key or projection" in problem.what


def test_recreated_tables_are_dropped_once_and_never_after_the_copy_may_have_begun(item_case: ItemCase) -> None:
    table, other = item_case.table(), item_case.table("other")
    before = prepared(item_case, table, other)
    before.writer().write([Upsert(table, rows(range(5), "old")), Upsert(other, rows([1], "old"))])
    target = item_case.target(recreate=frozenset({table.target_name}))
    schema = target.schema()
    assert schema.mismatches(table) is None, "it will be made anew"
    assert schema.mismatches(other) == []
    schema.create(other)
    schema.create(table)
    assert item_case.stored(table) == {}
    assert len(item_case.stored(other)) == 1
    assert schema.mismatches(table) == []
    target.writer().write([Upsert(table, rows(range(3), "new"))])
    item_case.target(recreate=frozenset({table.target_name})).schema().create(table)
    assert len(item_case.stored(table)) == 3
    target.control().journal("schema-ready")
    late = item_case.target(recreate=frozenset({other.target_name})).schema()
    late.create(other)
    assert late.mismatches(other) == []
    assert len(item_case.stored(other)) == 1


def test_a_recreation_that_died_is_done_again(item_case: ItemCase, monkeypatch: pytest.MonkeyPatch) -> None:
    table = item_case.table()
    prepared(item_case, table)
    schema = item_case.target(recreate=frozenset({table.target_name})).schema()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(schema, "_make", die)
    with pytest.raises(KeyboardInterrupt):
        schema.create(table)
    again = item_case.target(recreate=frozenset({table.target_name})).schema()
    again.create(table)
    assert described(item_case, table)["TableName"] == table.target_name


def test_without_a_control_table_a_recreated_one_counts_as_missing(item_case: ItemCase) -> None:
    table = item_case.table()
    item_case.target().schema().create(table)
    assert item_case.target(recreate=frozenset({table.target_name})).schema().mismatches(table) is None


# --- reading ---


def test_items_are_found_by_key_and_nothing_else(item_case: ItemCase) -> None:
    table = item_case.table()
    target = prepared(item_case, table)
    target.writer().write([Upsert(table, block(range(250)))])
    with target.reader() as reader:
        found = reader.by_keys(table, [key(number) for number in range(100, 350)])
        assert numbers_of(found) == list(range(100, 250))
        (one,) = [cells for cells in found if cells[1] == b'{"N":"123"}']
        assert tuple(one[:2]) == key(123)
        assert json.loads(str(one[2], "utf-8") if isinstance(one[2], bytes) else "") == json.loads(item(123))
        assert reader.by_keys(table, []) == []
        assert reader.count(table) == 250
        with pytest.raises(ConfigurationError, match="ranges"):
            reader.range(table, None, None)


def test_keys_go_round_in_pages_and_segments(item_case: ItemCase) -> None:
    table = item_case.table()
    target = prepared(item_case, table)
    target.writer().write([Upsert(table, block(range(700)))])
    with target.reader() as reader:
        after: Row | None = None
        found: list[Row] = []
        while keys := reader.keys_after(table, after, 64):
            assert len(keys) <= 64
            found += keys
            after = keys[-1]
        assert numbers_of(found) == list(range(700))
        segments = [[cells for part in reader.segment_keys(table, index, 3) for cells in part] for index in range(3)]
        assert sorted(number for part in segments for number in numbers_of(part)) == list(range(700))
        assert numbers_of([cells for part in reader.segment_keys(table, 0, 1) for cells in part]) == list(range(700))


def test_keys_that_come_back_unprocessed_are_read(item_case: ItemCase) -> None:
    table = item_case.table()
    prepared(item_case, table).writer().write([Upsert(table, block(range(150)))])

    def rule(call: Call) -> Fault | None:
        return Unprocessed(0.5) if call.operation == "BatchGetItem" and len(str(call.body)) > 300 else None

    with DynamoDBProxy(item_case.facts, rule) as proxy, item_case.through(proxy.endpoint).target().reader() as reader:
        found = reader.by_keys(table, [key(number) for number in range(150)])
    assert numbers_of(found) == list(range(150))


# --- shards ---


def shard(name: str, **fields: Any) -> ShardRow:
    return ShardRow(ShardRef("items", STREAM, name), **fields)


def test_shards_are_added_once_and_claimed_by_one(item_case: ItemCase) -> None:
    store = prepared(item_case).shards()
    first = shard("shardId-1", skip_before=5.5, position="")
    second = shard("shardId-2", parent="shardId-1", adjacent="shardId-0", position="@90071992547409930000001")
    store.add([first, second])
    store.add([replace(first, position="9", skip_before=0.0)])
    rows_there = {found.ref.shard: found for found in store.all()}
    assert rows_there["shardId-1"].skip_before == 5.5
    assert rows_there["shardId-1"].position == ""
    assert rows_there["shardId-2"].position == "@90071992547409930000001"
    assert (rows_there["shardId-2"].parent, rows_there["shardId-2"].adjacent) == ("shardId-1", "shardId-0")
    one, two = Holder(0, 1), Holder(1, 1)
    assert store.claim(rows_there["shardId-1"], one)
    assert store.claim(rows_there["shardId-1"], one), "a claim whose reply was lost"
    assert not store.claim(rows_there["shardId-1"], two)
    stale = replace(rows_there["shardId-2"], position="")
    assert not store.claim(stale, two)
    found = next(found for found in store.all() if found.ref.shard == "shardId-1")
    assert (found.owner, found.attempt) == (0, 1)
    assert found.beat_at > 0


def test_commits_belong_to_the_holder(item_case: ItemCase) -> None:
    store = prepared(item_case).shards()
    store.add([shard("shardId-1")])
    holder = Holder(0, 1)
    assert store.claim(store.all()[0], holder)
    moved = replace(
        store.all()[0], state=ShardState.READING, position="100000000000000000000001", read_to=7.25, quiet_since=8.0,
        asked_at=9.5, last_change_at=6.0, changes=12,
    )  # fmt: skip
    store.commit(moved, holder)
    found = store.all()[0]
    assert replace(found, beat_at=0.0) == replace(moved, beat_at=0.0)
    with pytest.raises(FencedOut, match="another worker holds the shard"):
        store.commit(moved, Holder(0, 2))
    store.commit(replace(moved, state=ShardState.DONE), holder)
    store.commit(replace(moved, state=ShardState.DONE), holder)
    with pytest.raises(FencedOut):
        store.commit(moved, holder)
    assert store.claim(store.all()[0], NOBODY)
    assert store.all()[0].owner == -1


def test_shards_come_back(item_case: ItemCase) -> None:
    store = prepared(item_case).shards()
    store.add([shard(f"shardId-{number}") for number in range(3)])
    found = store.all()
    assert [
        store.claim(found[0], Holder(0, 4)),
        store.claim(found[1], Holder(0, 5)),
        store.claim(found[2], Holder(1, 1)),
    ]
    store.release(Holder(0, 4))
    assert [row.owner for row in store.all()] == [-1, 0, 1]
    assert store.release_lost(3600.0) == 0
    assert store.release_lost(-60.0) == 2
    assert [row.owner for row in store.all()] == [-1, -1, -1]
    with pytest.raises(FencedOut):
        store.commit(found[2], Holder(1, 1))


def test_a_raised_epoch_takes_all_shards_away_for_good(item_case: ItemCase) -> None:
    target = prepared(item_case)
    old = target.shards()
    old.add([shard("shardId-1"), shard("shardId-2")])
    held, free = old.all()
    assert old.claim(held, Holder(0, 1))
    held = old.all()[0]
    target.control().raise_epoch("switched", "")
    with pytest.raises(FencedOut):
        old.commit(held, Holder(0, 1))
    assert not old.claim(old.all()[0], Holder(0, 1))
    assert not old.claim(free, Holder(0, 1))
    with pytest.raises(FencedOut, match="epoch 1"):
        old.add([shard("shardId-3")])
    new = item_case.target(epoch=2).shards()
    assert new.claim(new.all()[1], Holder(0, 1))
    assert target.control().raise_epoch("switched", "") == 2
    assert new.all()[1].owner == 0


def test_a_claim_whose_reply_was_lost_is_known_again(item_case: ItemCase) -> None:
    prepared(item_case).shards().add([shard("shardId-1")])
    lost: list[int] = []

    def rule(call: Call) -> Fault | None:
        if call.operation == "UpdateItem" and not lost:
            lost.append(call.number)
            return LoseReply()
        return None

    with DynamoDBProxy(item_case.facts, rule) as proxy:
        store = item_case.through(proxy.endpoint).target().shards()
        assert store.claim(store.all()[0], Holder(2, 1))
    assert lost
    assert item_case.target().shards().all()[0].owner == 2


def test_tips_are_kept_however_many(item_case: ItemCase) -> None:
    store = prepared(item_case).shards()
    assert store.tips("none") is None
    tips = {ShardRef("items", STREAM, f"shardId-{number:08d}"): str(10**25 + number) for number in range(4500)}
    store.keep_tips("abc", tips)
    store.keep_tips("abcd", {})
    assert store.tips("abc") == tips
    assert store.tips("abcd") == {}
