"""Calls that must be refused: the PolarDB stand-in refuses them with the same error as DynamoDB Local."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import botocore.exceptions
import pytest

from whimbrel_testbed.dynamodb.client import dynamodb_client

if TYPE_CHECKING:
    from whimbrel_testbed.dynamodb.local import DynamoDBServer
    from whimbrel_testbed.polardb import PolarDBServer

_KEY = {"pk": {"S": "a"}, "sk": {"N": "1"}}
_GSI = {
    "IndexName": "by-g", "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}],
    "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["x"]},
}  # fmt: skip
_LSI = {
    "IndexName": "by-l", "Projection": {"ProjectionType": "ALL"},
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "l", "KeyType": "RANGE"}],
}  # fmt: skip
_KINDS = {"pk": "S", "sk": "N", "g": "S", "l": "N"}
_TABLE: dict[str, Any] = {
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": kind} for name, kind in _KINDS.items()],
    "GlobalSecondaryIndexes": [_GSI], "LocalSecondaryIndexes": [_LSI], "BillingMode": "PAY_PER_REQUEST",
}  # fmt: skip
_DEEP: dict[str, Any] = {"S": "x"}
for _ in range(33):
    _DEEP = {"L": [_DEEP]}


def _put(**attributes: Any) -> tuple[str, dict[str, Any]]:
    return "put_item", {"Item": {**_KEY, **attributes}}


def _query(condition: str, values: dict[str, Any], **more: Any) -> tuple[str, dict[str, Any]]:
    return "query", {"KeyConditionExpression": condition, "ExpressionAttributeValues": values, **more}


def _update(expression: str, values: dict[str, Any] | None = None, **more: Any) -> tuple[str, dict[str, Any]]:
    given = {"ExpressionAttributeValues": values} if values else {}
    return "update_item", {"Key": _KEY, "UpdateExpression": expression, **given, **more}


_REFUSED = {
    "no sort key": ("put_item", {"Item": {"pk": {"S": "a"}}}),
    "key of another type": ("put_item", {"Item": {"pk": {"N": "1"}, "sk": {"N": "1"}}}),
    "empty key": ("put_item", {"Item": {"pk": {"S": ""}, "sk": {"N": "1"}}}),
    "partition key too long": ("put_item", {"Item": {"pk": {"S": "x" * 2049}, "sk": {"N": "1"}}}),
    "index key of another type": _put(g={"N": "1"}),
    "empty index key": _put(g={"S": ""}),
    "item too large": _put(x={"S": "x" * 410_000}),
    "empty set": _put(x={"SS": []}),
    "duplicates in a set": _put(x={"NS": ["1", "1.0"]}),
    "no number": _put(x={"N": "one"}),
    "39 digits": _put(x={"N": "1" * 39}),
    "too large a number": _put(x={"N": "1e126"}),
    "too small a number": _put(x={"N": "1e-131"}),
    "two types": _put(x={"S": "a", "N": "1"}),
    "NULL false": _put(x={"NULL": False}),
    "33 levels": _put(x=_DEEP),
    "incomplete key": ("get_item", {"Key": {"pk": {"S": "a"}}}),
    "key with more": ("get_item", {"Key": {**_KEY, "x": {"S": "a"}}}),
    "reserved word": _update("SET name = :v", {":v": {"S": "x"}}),
    "reserved word in lower case within a path": _update("REMOVE x.timestamp"),
    "unused value": _update("SET x = :v", {":v": {"S": "x"}, ":w": {"S": "x"}}),
    "unused name": _update("REMOVE x", ExpressionAttributeNames={"#n": "name"}),
    "undefined value": _update("SET x = :v"),
    "undefined name": _update("REMOVE #n"),
    "empty expression": _update(""),
    "syntax": _update("SET x"),
    "clause twice": _update("REMOVE x REMOVE y"),
    "overlapping paths": _update("REMOVE x, x.y"),
    "update of a key": _update("SET sk = :v", {":v": {"N": "2"}}),
    "update of no such path": _update("SET nothing.here = :v", {":v": {"N": "2"}}),
    "sum of no numbers": _update("SET x = :v + :v", {":v": {"S": "2"}}),
    "ADD of text": _update("ADD x :v", {":v": {"S": "2"}}),
    "number overflow": _update("SET x = :v + :v", {":v": {"N": "9.9e125"}}),
    "39 digits in a sum": _update("SET x = :v + :w", {":v": {"N": "1e38"}, ":w": {"N": "0.1"}}),
    "failed condition": _update("REMOVE x", ConditionExpression="attribute_exists(nothing)"),
    "ALL_NEW of a put": ("put_item", {"Item": _KEY, "ReturnValues": "ALL_NEW"}),
    "unknown function": ("delete_item", {"Key": _KEY, "ConditionExpression": "exists(x)"}),
    "query without partition key": _query("sk = :s", {":s": {"N": "1"}}),
    "query by a range of the partition key": _query("pk > :p", {":p": {"S": "1"}}),
    "query by another attribute": _query("pk = :p AND x = :s", {":p": {"S": "1"}, ":s": {"N": "1"}}),
    "query with another type": _query("pk = :p", {":p": {"N": "1"}}),
    "query with OR": _query("pk = :p OR sk = :s", {":p": {"S": "1"}, ":s": {"N": "1"}}),
    "query filtering a key": _query("pk = :p", {":p": {"S": "1"}}, FilterExpression="sk = :p"),
    "query of no index": _query("pk = :p", {":p": {"S": "1"}}, IndexName="nothing"),
    "all of a partial index": _query("g = :p", {":p": {"S": "1"}}, IndexName="by-g", Select="ALL_ATTRIBUTES"),
    "start that is no key": ("scan", {"ExclusiveStartKey": {"pk": {"S": "a"}}}),
    "segment beyond": ("scan", {"Segment": 4, "TotalSegments": 4}),
    "segments alone": ("scan", {"TotalSegments": 4}),
}  # fmt: skip


@pytest.fixture(scope="module")
def clients(dynamodb: DynamoDBServer, polardb: PolarDBServer) -> list[Any]:
    servers = (dynamodb, polardb)
    return [dynamodb_client(server.facts()) for server in servers]


@pytest.fixture(scope="module")
def table(clients: list[Any]) -> Iterator[str]:
    for client in clients:
        client.create_table(TableName="refusals", **_TABLE)
        client.put_item(TableName="refusals", Item=_KEY)
    yield "refusals"
    for client in clients:
        client.delete_table(TableName="refusals")


def _code(client: Any, call: str, body: dict[str, Any]) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        getattr(client, call)(**body)
    print(caught.value)
    return str(caught.value.response["Error"]["Code"])


@pytest.mark.parametrize("what", _REFUSED)
def test_a_bad_call_is_refused_alike(clients: list[Any], table: str, what: str) -> None:
    call, body = _REFUSED[what]
    one, other = (_code(client, call, {"TableName": table, **body}) for client in clients)
    assert other == one


_BATCHES: dict[str, tuple[str, Any]] = {
    "key twice": ("batch_write_item", [{"PutRequest": {"Item": _KEY}}, {"DeleteRequest": {"Key": _KEY}}]),
    "26 writes": ("batch_write_item", [{"PutRequest": {"Item": {**_KEY, "sk": {"N": str(n)}}}} for n in range(26)]),
    "bad item": ("batch_write_item", [{"PutRequest": {"Item": {"pk": {"S": "a"}}}}]),
    "key read twice": ("batch_get_item", {"Keys": [_KEY, _KEY]}),
    "101 reads": ("batch_get_item", {"Keys": [{**_KEY, "sk": {"N": str(n)}} for n in range(101)]}),
}


@pytest.mark.parametrize("what", _BATCHES)
def test_a_bad_batch_is_refused_alike(clients: list[Any], table: str, what: str) -> None:
    call, requests = _BATCHES[what]
    one, other = (_code(client, call, {"RequestItems": {table: requests}}) for client in clients)
    assert other == one


_TABLES: dict[str, dict[str, Any]] = {
    "empty list of global indexes": {"GlobalSecondaryIndexes": []},
    "empty list of local indexes": {"LocalSecondaryIndexes": []},
    "attribute of no key": {"GlobalSecondaryIndexes": [{**_GSI, "KeySchema": _TABLE["KeySchema"]}]},
    "undefined attribute": {"AttributeDefinitions": _TABLE["AttributeDefinitions"][:2]},
    "index name twice": {"GlobalSecondaryIndexes": [_GSI, _GSI]},
    "local index by another partition key": {
        "LocalSecondaryIndexes": [{**_LSI, "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}]}]
    },
    "no projected attributes": {"GlobalSecondaryIndexes": [{**_GSI, "Projection": {"ProjectionType": "INCLUDE"}}]},
    "bad name": {"TableName": "a b c"},
    "short name": {"TableName": "ab"},
    "two partition keys": {"KeySchema": [{"AttributeName": name, "KeyType": "HASH"} for name in ("pk", "sk")]},
    "there already": {"TableName": "refusals"},
}


@pytest.mark.parametrize("what", _TABLES)
@pytest.mark.usefixtures("table")
def test_a_bad_table_is_refused_alike(clients: list[Any], what: str) -> None:
    body = {"TableName": "refusals-2", **_TABLE, **_TABLES[what]}
    one, other = (_code(client, "create_table", body) for client in clients)
    assert other == one


@pytest.mark.parametrize("call", ["get_item", "describe_table", "delete_table", "scan"])
def test_a_table_that_is_not_there(clients: list[Any], call: str) -> None:
    body = {"TableName": "nothing-here", **({"Key": _KEY} if call == "get_item" else {})}
    assert {_code(client, call, body) for client in clients} == {"ResourceNotFoundException"}
