"""The PolarDB stand-in: what PolarDB documents, pages and segments, indexes, races, and what stands in PostgreSQL."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import botocore.exceptions
import psycopg
import pytest

from whimbrel_testbed.dynamodb.client import dynamodb_client

if TYPE_CHECKING:
    from whimbrel_testbed.dynamodb.local import DynamoDBServer
    from whimbrel_testbed.polardb import PolarDBServer

_KEY = {"pk": {"S": "a"}, "sk": {"N": "1"}}
_THREADS = 6


@pytest.fixture
def client(polardb: PolarDBServer) -> Any:
    return dynamodb_client(polardb.facts())


@pytest.fixture
def table(client: Any, polardb_prefix: str) -> str:
    return create(client, f"{polardb_prefix}items")


def create(client: Any, name: str, *, kinds: dict[str, str] | None = None, **more: Any) -> str:
    kinds = kinds or {"pk": "S", "sk": "N"}
    schema = [
        {"AttributeName": key, "KeyType": kind} for key, kind in zip(list(kinds)[:2], ("HASH", "RANGE"), strict=False)
    ]
    definitions = [{"AttributeName": key, "AttributeType": kind} for key, kind in kinds.items()]
    more.setdefault("BillingMode", "PAY_PER_REQUEST")
    client.create_table(TableName=name, KeySchema=schema, AttributeDefinitions=definitions, **more)
    return name


def fill(client: Any, table: str, items: list[dict[str, Any]]) -> None:
    for start in range(0, len(items), 25):
        puts = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
        assert client.batch_write_item(RequestItems={table: puts})["UnprocessedItems"] == {}


def numbered(count: int, **attributes: Any) -> list[dict[str, Any]]:
    return [{"pk": {"S": f"p{n % 17}"}, "sk": {"N": str(n)}, **attributes} for n in range(count)]


def _code(caught: pytest.ExceptionInfo[botocore.exceptions.ClientError]) -> str:
    return str(caught.value.response["Error"]["Code"])


def _connect(polardb: PolarDBServer) -> psycopg.Connection[tuple[Any, ...]]:
    return polardb.backend.connect(polardb.postgres.database)


def test_a_page_has_100_items_unless_limit_is_set(client: Any, table: str) -> None:
    fill(client, table, numbered(230))
    assert [page["Count"] for page in client.get_paginator("scan").paginate(TableName=table)] == [100, 100, 30]
    assert client.scan(TableName=table, Limit=1000)["Count"] == 230
    values = {":p": {"S": "p1"}}
    found = client.query(TableName=table, KeyConditionExpression="pk = :p", ExpressionAttributeValues=values)
    assert found["Count"] == 14


def test_a_page_is_bounded_by_a_megabyte(client: Any, table: str) -> None:
    fill(client, table, numbered(30, x={"B": b"\xff" * 60_000}))
    pages = list(client.get_paginator("scan").paginate(TableName=table, PaginationConfig={"PageSize": 1000}))
    assert [page["Count"] for page in pages] == [13, 13, 4]
    assert client.scan(TableName=table, Select="COUNT").get("Items") is None


def test_segments_share_out_the_items(client: Any, table: str) -> None:
    items = [{"pk": {"S": f"p{n}"}, "sk": {"N": "1"}} for n in range(300)]
    fill(client, table, items)
    found: list[list[str]] = []
    for segment in range(7):
        pages = client.get_paginator("scan").paginate(
            TableName=table, Segment=segment, TotalSegments=7, PaginationConfig={"PageSize": 9}
        )
        found.append([item["pk"]["S"] for page in pages for item in page["Items"]])
    assert all(len(part) > 15 for part in found)
    everything = [name for part in found for name in part]
    assert sorted(everything) == sorted(item["pk"]["S"] for item in items)
    assert everything != sorted(everything), "a Scan goes by hash: whoever expects the keys' order has to fail here"


def test_describe_table_has_no_billing_no_capacity_and_no_stream(client: Any, table: str) -> None:
    client.put_item(TableName=table, Item=_KEY, ReturnConsumedCapacity="TOTAL")
    described = client.describe_table(TableName=table)["Table"]
    assert not {"BillingModeSummary", "ProvisionedThroughput", "StreamSpecification", "LatestStreamArn"} & set(
        described
    )
    assert (described["TableStatus"], described["ItemCount"]) == ("ACTIVE", 1)
    assert described["TableSizeBytes"] > 0


def test_consistent_read_is_ignored_and_counted(polardb: PolarDBServer, client: Any, table: str) -> None:
    before = polardb.control.counters()["ConsistentRead"]
    client.put_item(TableName=table, Item=_KEY)
    assert client.get_item(TableName=table, Key=_KEY)["Item"] == _KEY
    assert polardb.control.counters()["ConsistentRead"] == before
    assert client.scan(TableName=table, ConsistentRead=True)["Items"] == [_KEY]
    assert polardb.control.counters()["ConsistentRead"] == before + 1


@pytest.mark.parametrize("call", ["list_backups", "list_exports", "list_global_tables"])
def test_what_polardb_has_not_is_unknown(client: Any, call: str) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        getattr(client, call)()
    assert _code(caught) == "UnknownOperationException"


def test_a_client_finds_endpoints_and_limits(polardb: PolarDBServer, client: Any) -> None:
    assert client.describe_endpoints()["Endpoints"][0]["Address"] in polardb.endpoint
    assert client.describe_limits()["TableMaxWriteCapacityUnits"] > 0


def test_streams_are_refused(polardb: PolarDBServer, client: Any, table: str) -> None:
    view = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    with pytest.raises(botocore.exceptions.ClientError, match="not supported") as caught:
        client.update_table(TableName=table, StreamSpecification=view)
    assert _code(caught) == "ValidationException"
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        dynamodb_client(polardb.facts(), service="dynamodbstreams").list_streams()
    assert _code(caught) == "UnknownOperationException"


def test_a_batch_is_all_or_nothing(client: Any, table: str, polardb_prefix: str) -> None:
    other = create(client, f"{polardb_prefix}other", kinds={"pk": "S"})
    good, bad = {"PutRequest": {"Item": _KEY}}, {"PutRequest": {"Item": {"pk": {"S": "x\x00"}}}}
    with pytest.raises(botocore.exceptions.ClientError, match="NUL") as caught:
        client.batch_write_item(RequestItems={table: [good], other: [bad]})
    assert _code(caught) == "ValidationException"
    assert client.scan(TableName=table)["Count"] == 0
    mixed = {table: [good], other: [{"DeleteRequest": {"Key": {"pk": {"S": "x"}}}}]}
    assert client.batch_write_item(RequestItems=mixed)["UnprocessedItems"] == {}
    assert client.scan(TableName=table)["Count"] == 1


def test_more_than_16_mb_of_a_batch_read_are_unprocessed(client: Any, table: str) -> None:
    keys = [{"pk": {"S": "p"}, "sk": {"N": str(n)}} for n in range(46)]
    for key in keys:
        client.put_item(TableName=table, Item={**key, "x": {"S": "x" * 390_000}})
    answer = client.batch_get_item(RequestItems={table: {"Keys": keys}})
    found, left = answer["Responses"][table], answer["UnprocessedKeys"][table]["Keys"]
    assert found
    assert left
    assert [{"pk": item["pk"], "sk": item["sk"]} for item in found] + left == keys


def test_items_are_documents_with_a_real_key(polardb: PolarDBServer, client: Any, polardb_prefix: str) -> None:
    name = create(client, f"{polardb_prefix}Of.Documents", kinds={"id": "B", "polardb_document": "N"})
    item = {"id": {"B": b"\x00\xff"}, "polardb_document": {"N": "9" * 38}, "x": {"M": {"y": {"NS": ["1.50", "2"]}}}}
    client.put_item(TableName=name, Item=item)
    with closing(_connect(polardb)) as connection:
        row = connection.execute(f'SELECT * FROM public."{name}"').fetchone()
        columns = connection.execute(
            "SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_index i "
            "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) "
            "WHERE i.indrelid = %s::regclass AND i.indisprimary ORDER BY a.attnum",
            [f'public."{name}"'],
        ).fetchall()
    assert row is not None
    assert row[0] == b"\x00\xff"
    assert str(row[1]) == "9" * 38
    assert row[2]["x"] == {"M": {"y": {"NS": ["1.5", "2"]}}}
    assert columns[0] == ("id", "bytea")
    assert columns[1][0].startswith("polardb_document_")


def test_the_database_changes_by_items_only(polardb: PolarDBServer, client: Any, table: str) -> None:
    """A slot with a publication FOR ALL TABLES sees the items' tables and nothing of the stand-in's own."""
    changes = (
        "pg_logical_slot_get_binary_changes('standin', NULL, NULL, 'proto_version', '1', 'publication_names', 'all')"
    )
    with closing(_connect(polardb)) as connection:
        connection.execute('CREATE PUBLICATION "all" FOR ALL TABLES')
        connection.execute("SELECT pg_create_logical_replication_slot('standin', 'pgoutput')")
        try:
            client.put_item(TableName=table, Item=_KEY)
            client.tag_resource(ResourceArn=client.describe_table(TableName=table)["Table"]["TableArn"], Tags=[])
            client.delete_item(TableName=table, Key=_KEY)
            rows = connection.execute(f"SELECT chr(get_byte(data, 0)) FROM {changes}").fetchall()
        finally:
            connection.execute("SELECT pg_drop_replication_slot('standin')")
            connection.execute('DROP PUBLICATION "all"')
    assert [kind for (kind,) in rows if kind not in "BC"] == ["R", "I", "D"]


def test_a_table_made_again_is_another_one(client: Any, polardb_prefix: str) -> None:
    for kind, value in (("N", "1"), ("S", "a"), ("S", "b"), ("N", "2")):
        name = create(client, f"{polardb_prefix}again", kinds={"pk": kind})
        item = {"pk": {kind: value}, "x": {"S": value}}
        for _ in range(3):
            client.put_item(TableName=name, Item=item)
            assert client.get_item(TableName=name, Key={"pk": item["pk"]})["Item"] == item
        assert client.scan(TableName=name)["Items"] == [item]
        client.delete_table(TableName=name)


def test_long_names_get_a_hash(client: Any, polardb_prefix: str) -> None:
    names = [create(client, polardb_prefix + "x" * 200 + end, kinds={"é" * 100: "S"}) for end in "ab"]
    for name in names:
        client.put_item(TableName=name, Item={"é" * 100: {"S": name}})
    assert [client.scan(TableName=name)["Items"][0]["é" * 100]["S"] for name in names] == names


def test_a_key_beyond_postgresql_is_refused(client: Any, table: str, polardb_prefix: str) -> None:
    name = create(client, f"{polardb_prefix}text", kinds={"pk": "S", "sk": "S"})
    letters = random.Random(1)
    long = ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=size)) for size in (2048, 1024)]
    with pytest.raises(botocore.exceptions.ClientError, match="PostgreSQL, which keeps the items") as caught:
        client.put_item(TableName=name, Item={"pk": {"S": long[0]}, "sk": {"S": long[1]}})
    assert _code(caught) == "ValidationException"


def _indexes() -> dict[str, Any]:
    by_group = [{"AttributeName": "g", "KeyType": "HASH"}, {"AttributeName": "n", "KeyType": "RANGE"}]
    by_number = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "n", "KeyType": "RANGE"}]
    included = {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["x"]}
    return {
        "GlobalSecondaryIndexes": [
            {"IndexName": "by-group", "KeySchema": by_group, "Projection": included},
            {"IndexName": "by-group-only", "KeySchema": by_group[:1], "Projection": {"ProjectionType": "KEYS_ONLY"}},
        ],
        "LocalSecondaryIndexes": [
            {"IndexName": "by-number", "KeySchema": by_number, "Projection": {"ProjectionType": "ALL"}}
        ],
    }


@pytest.mark.usefixtures("polardb_prefix")
def test_indexes_answer_as_dynamodb_local(dynamodb: DynamoDBServer, client: Any, dynamodb_prefix: str) -> None:
    draw, name = random.Random(5), f"{dynamodb_prefix}indexed"
    print("seed 5")
    items = numbered(60, x={"S": "x"}, y={"S": "y"})
    for item in items:
        item.update({"g": {"S": draw.choice("ab")}} if draw.random() < 0.8 else {})
        item.update({"n": {"N": str(draw.randrange(-3, 12))}} if draw.random() < 0.8 else {})
    answers = []
    for each in (dynamodb_client(dynamodb.facts()), client):
        create(each, name, kinds={"pk": "S", "sk": "N", "g": "S", "n": "N"}, **_indexes())
        fill(each, name, items)
        answers.append([_found(each, name, *question) for question in _QUESTIONS])
    client.delete_table(TableName=name)
    assert answers[1] == answers[0]
    assert all(found for found in answers[0])


_QUESTIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("by-group", "g = :g AND n > :n", {":g": {"S": "a"}, ":n": {"N": "2"}}),
    ("by-group", "g = :g AND n BETWEEN :n AND :m", {":g": {"S": "b"}, ":n": {"N": "-1"}, ":m": {"N": "10"}}),
    ("by-group-only", "g = :g", {":g": {"S": "a"}}),
    ("by-number", "pk = :p AND n >= :n", {":p": {"S": "p3"}, ":n": {"N": "-2"}}),
]


def _found(client: Any, table: str, index: str, condition: str, values: dict[str, Any]) -> list[str]:
    """Items of a Query by pages of three; equal index keys have no order among them."""
    pages = client.get_paginator("query").paginate(
        TableName=table, IndexName=index, KeyConditionExpression=condition, ExpressionAttributeValues=values,
        PaginationConfig={"PageSize": 3},
    )  # fmt: skip
    items = [item for page in pages for item in page["Items"]]
    if index != "by-group-only":
        numbers = [int(item["n"]["N"]) for item in items]
        assert numbers == sorted(numbers)
    return sorted(str(sorted(item.items())) for item in items)


def test_a_scan_of_an_index(client: Any, polardb_prefix: str) -> None:
    name = create(client, f"{polardb_prefix}scan", kinds={"pk": "S", "sk": "N", "g": "S", "n": "N"}, **_indexes())
    fill(client, name, numbered(40) + [{**item, "g": {"S": "a"}} for item in numbered(80)[40:]])
    scan = client.get_paginator("scan").paginate(
        TableName=name, IndexName="by-group-only", PaginationConfig={"PageSize": 7}
    )
    items = [item for page in scan for item in page["Items"]]
    assert sorted(int(item["sk"]["N"]) for item in items) == list(range(40, 80))
    assert all(set(item) == {"pk", "sk", "g"} for item in items)


def test_indexes_come_and_go(client: Any, table: str) -> None:
    new = {
        "IndexName": "by-g", "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
    }  # fmt: skip
    changed = client.update_table(
        TableName=table, AttributeDefinitions=[{"AttributeName": "g", "AttributeType": "S"}],
        GlobalSecondaryIndexUpdates=[{"Create": new}],
    )["TableDescription"]  # fmt: skip
    assert [(index["IndexName"], index["IndexStatus"]) for index in changed["GlobalSecondaryIndexes"]] == [
        ("by-g", "ACTIVE")
    ]
    gone = client.update_table(TableName=table, GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "by-g"}}])
    assert "GlobalSecondaryIndexes" not in gone["TableDescription"]
    assert len(gone["TableDescription"]["AttributeDefinitions"]) == 2


def test_ttl_and_tags(polardb: PolarDBServer, client: Any, table: str) -> None:
    client.update_time_to_live(TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "until"})
    ttl = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "until"}
    fill(client, table, [{**item, "until": {"N": "1000"}} for item in numbered(3)] + numbered(6)[3:])
    assert polardb.control.expire() == 3
    assert client.scan(TableName=table)["Count"] == 3
    arn = client.describe_table(TableName=table)["Table"]["TableArn"]
    client.tag_resource(ResourceArn=arn, Tags=[{"Key": "team", "Value": "it's 100%"}, {"Key": "x", "Value": "y"}])
    client.untag_resource(ResourceArn=arn, TagKeys=["x"])
    assert client.list_tags_of_resource(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "it's 100%"}]


def test_table_names_come_in_pages_of_100(client: Any, polardb_prefix: str) -> None:
    names = [create(client, f"{polardb_prefix}{number:03}", kinds={"pk": "S"}) for number in range(101)]
    first = client.list_tables()
    assert len(first["TableNames"]) == 100
    listed = [name for page in client.get_paginator("list_tables").paginate() for name in page["TableNames"]]
    assert [name for name in listed if name.startswith(polardb_prefix)] == names


def test_counting_in_parallel_loses_nothing(polardb: PolarDBServer, client: Any, table: str) -> None:
    def count(_: int) -> None:
        mine = dynamodb_client(polardb.facts())
        for _n in range(20):
            mine.update_item(
                TableName=table, Key=_KEY, UpdateExpression="ADD v :one", ExpressionAttributeValues={":one": {"N": "1"}}
            )

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(count, range(_THREADS)))
    assert client.get_item(TableName=table, Key=_KEY)["Item"]["v"] == {"N": str(20 * _THREADS)}


def test_one_of_many_creates_the_item(polardb: PolarDBServer, client: Any, table: str) -> None:
    def create_each(who: int) -> int:
        mine, won = dynamodb_client(polardb.facts()), 0
        for number in range(20):
            item = {"pk": {"S": "race"}, "sk": {"N": str(number)}, "who": {"N": str(who)}}
            try:
                mine.put_item(TableName=table, Item=item, ConditionExpression="attribute_not_exists(pk)")
                won += 1
            except mine.exceptions.ConditionalCheckFailedException:
                continue
        return won

    with ThreadPoolExecutor(_THREADS) as pool:
        wins = list(pool.map(create_each, range(_THREADS)))
    assert sum(wins) == 20
    kept = [int(item["who"]["N"]) for item in client.scan(TableName=table)["Items"]]
    assert [kept.count(who) for who in range(_THREADS)] == wins


def test_a_batch_write_under_a_fence(client: Any, table: str) -> None:
    """A transaction whose check fails writes nothing and says which member it was."""
    client.put_item(TableName=table, Item={**_KEY, "epoch": {"N": "3"}})
    check = {"TableName": table, "Key": _KEY, "ConditionExpression": "epoch = :e"}
    puts = [{"Put": {"TableName": table, "Item": item}} for item in numbered(20)]
    for epoch, failed in (("3", False), ("2", True)):
        members = [{"ConditionCheck": {**check, "ExpressionAttributeValues": {":e": {"N": epoch}}}}, *puts]
        try:
            client.transact_write_items(TransactItems=members)
        except client.exceptions.TransactionCanceledException as error:
            assert failed
            codes = [reason["Code"] for reason in error.response["CancellationReasons"]]
            assert codes == ["ConditionalCheckFailed"] + ["None"] * 20
        else:
            assert not failed
    gets = [{"Get": {"TableName": table, "Key": {"pk": item["pk"], "sk": item["sk"]}}} for item in numbered(21)]
    responses = client.transact_get_items(TransactItems=gets)["Responses"]
    assert [bool(each.get("Item")) for each in responses] == [True] * 20 + [False]


def test_a_transaction_with_a_token_is_done_once(client: Any, table: str) -> None:
    update = {
        "TableName": table,
        "Key": _KEY,
        "UpdateExpression": "ADD v :o",
        "ExpressionAttributeValues": {":o": {"N": "1"}},
    }
    for _ in range(2):
        client.transact_write_items(TransactItems=[{"Update": update}], ClientRequestToken="once")
    assert client.get_item(TableName=table, Key=_KEY)["Item"]["v"] == {"N": "1"}
    with pytest.raises(client.exceptions.IdempotentParameterMismatchException):
        client.transact_write_items(
            TransactItems=[{"Put": {"TableName": table, "Item": _KEY}}], ClientRequestToken="once"
        )
