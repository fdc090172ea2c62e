"""How writes are cut into requests, and requests of CreateTable made: none lost, none too large, none empty."""

import json
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.item_targets import DEFINITION, block, key, row
from whimbrel_worker.endpoints.dynamodb.items.batches import Batch, Limits, batches_of, consumed
from whimbrel_worker.endpoints.dynamodb.tables.creation import add_index_request, create_request, missing_indexes
from whimbrel_worker.endpoints.dynamodb.tables.definition import Described
from whimbrel_worker.engine.ports import Delete, Insert, Upsert, Write
from whimbrel_worker.values.columns import Column, Kind, Table

COLUMNS = (
    Column("pk", Kind.ATTRIBUTE, "S", "S", collated=True),
    Column("sk", Kind.ATTRIBUTE, "N", "N", collated=True),
    Column("item", Kind.ITEM, "item", "item"),
)
TABLE = Table("", "a.b", "", "target", COLUMNS, (0, 1), definition=json.dumps(DEFINITION))
OTHER = Table("", "other", "", "other", COLUMNS, (0, 1), definition=json.dumps(DEFINITION))
LIMITS = Limits(25, 4096)


def outcome(batches: list[Batch]) -> dict[tuple[str, str], str | None]:
    """Table and sort key → the text that is put, None for a removal."""
    found: dict[tuple[str, str], str | None] = {}
    for batch in batches:
        for request in orjson.loads(batch.body())["RequestItems"][batch.table.target_name]:
            item = request.get("PutRequest", {}).get("Item")
            name = (batch.table.target_name, (item or request["DeleteRequest"]["Key"])["sk"]["N"])
            assert name not in found, "a key twice"
            found[name] = item["text"]["S"] if item else None
    return found


numbers = st.integers(0, 40)
upserts = st.tuples(st.sampled_from([TABLE, OTHER]), st.lists(st.tuples(numbers, st.text(max_size=300)), max_size=40))
removals = st.tuples(st.sampled_from([TABLE, OTHER]), st.lists(numbers, max_size=40))


@given(st.lists(st.one_of(upserts, removals), max_size=5))
def test_the_last_write_of_a_key_counts_and_requests_stay_small(parts: list[tuple[Table, list[Any]]]) -> None:
    writes: list[Write] = []
    expected: dict[tuple[str, str], str | None] = {}
    for table, some in parts:
        if some and isinstance(some[0], tuple):
            writes.append(Upsert(table, [row(number, text) for number, text in some]))
            expected |= {(table.target_name, str(number)): text for number, text in some}
        else:
            writes.append(Delete(table, [key(number) for number in some]))
            expected |= {(table.target_name, str(number)): None for number in some}
    batches = list(batches_of(writes, LIMITS))
    assert outcome(batches) == expected
    assert all(0 < len(batch) <= 25 for batch in batches)
    assert all(batch.size <= 4096 or len(batch) == 1 for batch in batches)


def test_a_page_is_passed_on_unopened() -> None:
    page = block(range(60))
    batches = list(batches_of([Insert(TABLE, page)], LIMITS))
    assert [len(batch) for batch in batches] == [25, 25, 10]
    assert [item for batch in batches for item in batch.items] == page.items
    assert "rows" not in vars(page)


@pytest.mark.parametrize("seed", range(5))
def test_halves_hold_all_of_a_batch_and_never_all_in_one(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(50):
        items = [row(number)[2] for number in range(rng.randrange(20))]
        keys = [b"%d" % number for number in range(rng.randrange(20))]
        if len(items) + len(keys) < 2:
            continue
        one, two = Batch(TABLE, items, keys).halves()
        assert (one.items + two.items, one.keys + two.keys) == (items, keys)
        assert len(one)
        assert len(two)


def test_what_comes_back_unprocessed_is_the_next_batch() -> None:
    batch = Batch(TABLE, [row(1, "é\\")[2], row(2)[2]], [b'{"pk":{"S":"p3"},"sk":{"N":"3"}}'])
    assert len(batch.unprocessed(b'{"UnprocessedItems":{}}')) == 0
    assert len(batch.unprocessed(b'{"ConsumedCapacity":[]}')) == 0
    reply = b'{"UnprocessedItems":' + orjson.dumps(orjson.loads(batch.body())["RequestItems"]) + b"}"
    assert outcome([batch.unprocessed(reply)]) == outcome([batch])
    named_so = Batch(TABLE, [row(1, '"UnprocessedItems":{}')[2]])
    reply = b'{"UnprocessedItems":' + orjson.dumps(orjson.loads(named_so.body())["RequestItems"]) + b"}"
    assert outcome([named_so.unprocessed(reply)]) == {("target", "1"): '"UnprocessedItems":{}'}


def test_a_transaction_begins_with_its_check() -> None:
    batch = Batch(TABLE, [row(1)[2]], [b'{"pk":{"S":"p3"},"sk":{"N":"3"}}'])
    request = orjson.loads(batch.transaction(b'{"ConditionCheck":{}}'))
    check, put, delete = request["TransactItems"]
    assert check == {"ConditionCheck": {}}
    assert put["Put"] == {"TableName": "target", "Item": orjson.loads(row(1)[2])}
    assert delete["Delete"] == {"TableName": "target", "Key": {"pk": {"S": "p3"}, "sk": {"N": "3"}}}


def test_write_units_are_an_upper_bound() -> None:
    small, large = row(1)[2], row(2, "y" * 1900)[2]
    assert Batch(TABLE, [small, large], [b"{}"]).units == 1 + 2 + 1


def test_what_was_consumed_is_asked_for_and_read() -> None:
    batch = Batch(TABLE, [row(1)[2]])
    assert orjson.loads(batch.body(metered=True)) == orjson.loads(batch.body()) | {"ReturnConsumedCapacity": "TOTAL"}
    assert consumed(b'{"ConsumedCapacity":[{"TableName":"a","CapacityUnits":2.5}],"UnprocessedItems":{}}') == 2.5
    assert consumed(b'{"UnprocessedItems":{}}') is None


# --- definitions ---

INDEX = {
    "IndexName": "by-text", "KeySchema": [{"AttributeName": "text", "KeyType": "HASH"}],
    "Projection": {"ProjectionType": "ALL"},
    "ProvisionedThroughput": {"ReadCapacityUnits": 3, "WriteCapacityUnits": 4},
}  # fmt: skip


def defined(**more: Any) -> Table:
    attributes = [*DEFINITION["AttributeDefinitions"], {"AttributeName": "text", "AttributeType": "S"}]
    whole = DEFINITION | {"AttributeDefinitions": attributes, "GlobalSecondaryIndexes": [INDEX]} | more
    return Table("", "a.b", "", "target", COLUMNS, (0, 1), definition=json.dumps(whole))


def test_empty_lists_are_left_out() -> None:
    """CreateTable refuses them; the public NimoShake sends them."""
    request = create_request(defined(GlobalSecondaryIndexes=[], LocalSecondaryIndexes=[], Tags=[]), billing=True)
    assert set(request) == {"TableName", "AttributeDefinitions", "KeySchema", "BillingMode"}


def test_throughput_goes_with_its_mode() -> None:
    units = {"ReadCapacityUnits": 1, "WriteCapacityUnits": 2}
    provisioned = defined(BillingMode="PROVISIONED", ProvisionedThroughput=units)
    request = create_request(provisioned, billing=True)
    assert (request["BillingMode"], request["ProvisionedThroughput"]) == ("PROVISIONED", units)
    assert request["GlobalSecondaryIndexes"] == [INDEX]
    for asked in (create_request(provisioned, billing=False), create_request(defined(), billing=True)):
        assert "ProvisionedThroughput" not in json.dumps(asked)
    assert create_request(defined(), billing=True)["BillingMode"] == "PAY_PER_REQUEST"
    assert "BillingMode" not in create_request(provisioned, billing=False)


def test_an_added_index_names_its_own_attributes_only() -> None:
    there = Described({"TableName": "target", **DEFINITION})
    (missing,) = missing_indexes(defined(), there)
    request = add_index_request(defined(), missing, billing=False)
    assert request["AttributeDefinitions"] == [{"AttributeName": "text", "AttributeType": "S"}]
