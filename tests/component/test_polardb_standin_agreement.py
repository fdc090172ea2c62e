"""The same calls to DynamoDB Local and to the PolarDB stand-in: the same answers, over seeds."""

from __future__ import annotations

import random
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import botocore.exceptions
import pytest

from whimbrel_testbed.dynamodb.client import dynamodb_client

if TYPE_CHECKING:
    from whimbrel_testbed.dynamodb.local import DynamoDBServer
    from whimbrel_testbed.polardb import PolarDBServer

_SEEDS = range(2)
_CALLS = 200
_KEYS = {"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}
_ATTRIBUTES = ("a", "b", "c", "d")
_RESERVED = ("name", "status", "c.d")


class _Draw:
    """Draws calls; everything comes from one seeded generator."""

    def __init__(self, seed: int, table: str, sort_kind: str) -> None:
        self.random, self.table, self.sort_kind = random.Random(seed), table, sort_kind

    def key(self) -> dict[str, Any]:
        sort = {
            "S": ["", "a", "b", "é", "zz"],
            "N": ["1", "1.0", "-2", "10", "1e2"],
            "B": [b"", b"\x00", b"\xff", b"a"],
        }
        return {"pk": {"S": f"p{self.random.randrange(3)}"}, "sk": {self.sort_kind: self.pick(sort[self.sort_kind])}}

    def pick(self, choices: Any) -> Any:
        return self.random.choice(list(choices))

    def number(self) -> str:
        return str(self.pick(["0", "-0", "1", "2.50", "-7", "1E3", "1e-7", "9" * 38, "12345678901234567890.123456789"]))

    def value(self, depth: int = 0) -> dict[str, Any]:
        kind = self.pick(["S", "S", "N", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"])
        text = ["", "x", "xy", "é\U0001f600", '"quoted"\\']
        makers: Mapping[str, Any] = {
            "S": lambda: self.pick(text), "N": self.number, "B": lambda: self.pick([b"", b"\x00\x01", b"x"]),
            "BOOL": lambda: self.random.random() < 0.5, "NULL": lambda: True,
            "SS": lambda: self.random.sample(text, self.random.randrange(1, 4)),
            "NS": lambda: self.random.sample(["1", "2", "3.10", "1E2"], self.random.randrange(1, 4)),
            "BS": lambda: self.random.sample([b"1", b"2", b"x"], self.random.randrange(1, 3)),
            "L": lambda: [self.value(depth + 1) for _ in range(self.random.randrange(3))],
            "M": lambda: {self.pick("xyz"): self.value(depth + 1) for _ in range(self.random.randrange(3))},
        }  # fmt: skip
        return {kind if depth < 2 else "S": makers[kind if depth < 2 else "S"]()}

    def item(self) -> dict[str, Any]:
        names = self.random.sample([*_ATTRIBUTES, *_RESERVED], self.random.randrange(5))
        return {**self.key(), **{name: self.likely(name) for name in names}}

    def likely(self, name: str) -> dict[str, Any]:
        """A value of any type; more often of the one that updates of the attribute go well with."""
        if name not in _ATTRIBUTES or self.random.random() < 0.4:
            return self.value()
        sets: list[dict[str, Any]] = [{"SS": ["x", "old"]}, {"SS": ["x"]}, {"NS": ["1", "3"]}]
        likely: Mapping[str, Any] = {
            "a": {"N": self.number()}, "b": {"L": [self.value(1), self.value(1)]},
            "c": {"M": {"x": self.value(1), "y": {"N": "2"}}}, "d": self.pick(sets),
        }  # fmt: skip
        return dict(likely[name])

    def path(self) -> str:
        return str(self.pick(_ATTRIBUTES) + self.pick(["", "", "", ".x", "[0]", "[1]", ".x.y"]))

    def operand(self) -> str:
        return str(self.pick([self.path(), ":v", ":w", f"size({self.path()})"]))

    def condition(self, depth: int = 0) -> str:
        simple = [
            f"attribute_exists({self.path()})", f"attribute_not_exists({self.path()})",
            f"attribute_type({self.path()}, :t)",
            f"contains({self.path()}, :v)", f"begins_with({self.path()}, :s)",
            f"{self.path()} {self.pick(['=', '<>', '<', '<=', '>', '>='])} {self.operand()}",
            f"{self.path()} BETWEEN :n AND :m", f"{self.path()} IN (:v, :w)",
        ]  # fmt: skip
        if depth < 2 and self.random.random() < 0.4:
            one, two = self.condition(depth + 1), self.condition(depth + 1)
            return str(self.pick([f"({one}) AND ({two})", f"{one} OR {two}", f"NOT {one}"]))
        return str(self.pick(simple))

    def update(self) -> str:
        value = self.pick([":v", f"if_not_exists({self.path()}, :v)", f"{self.path()} + :n", f"{self.path()} - :m",
                           f"list_append({self.path()}, :l)", self.path(), "size(a)"])  # fmt: skip
        parts = [f"SET {self.path()} = {value}", f"REMOVE {self.path()}",
                 f"ADD {self.pick('abcd')} {self.pick([':n', ':z'])}", "ADD d :z", "DELETE d :z",
                 "SET b = list_append(b, :l)", "ADD a :n",
                 f"DELETE {self.pick('abcd')} :z"]  # fmt: skip
        return " ".join(self.random.sample(parts, self.random.randrange(1, 3)))

    def with_values(self, body: dict[str, Any]) -> dict[str, Any]:
        """Add the values that the call's expressions name."""
        known = {
            ":v": self.value(), ":w": self.value(), ":s": {"S": "x"}, ":n": {"N": "1"}, ":m": {"N": "5"},
            ":l": {"L": [{"S": "end"}]}, ":z": self.pick([{"SS": ["x", "new"]}, {"NS": ["1", "2"]}]),
            ":t": {"S": self.pick(["S", "N", "L", "SS"])},
        }  # fmt: skip
        text = " ".join(str(value) for name, value in body.items() if name.endswith("Expression"))
        values = {name: value for name, value in known.items() if name in text}
        return {**body, "TableName": self.table, **({"ExpressionAttributeValues": values} if values else {})}

    def call(self) -> tuple[str, dict[str, Any]]:
        name = self.pick(
            ["put", "put", "update", "update", "update", "delete", "get", "batch", "transact", "query", "scan"]
        )
        return getattr(self, f"_{name}")()  # type: ignore[no-any-return]

    def _maybe_condition(self) -> dict[str, Any]:
        return {"ConditionExpression": self.condition()} if self.random.random() < 0.5 else {}

    def _put(self) -> tuple[str, dict[str, Any]]:
        returns = self.pick(["NONE", "ALL_OLD"])
        return "put_item", self.with_values({"Item": self.item(), "ReturnValues": returns, **self._maybe_condition()})

    def _update(self) -> tuple[str, dict[str, Any]]:
        returns = self.pick(["NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"])
        body = {
            "Key": self.key(),
            "UpdateExpression": self.update(),
            "ReturnValues": returns,
            **self._maybe_condition(),
        }
        return "update_item", self.with_values(body)

    def _delete(self) -> tuple[str, dict[str, Any]]:
        body = {"Key": self.key(), "ReturnValues": "ALL_OLD", **self._maybe_condition()}
        return "delete_item", self.with_values({**body, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"})

    def _get(self) -> tuple[str, dict[str, Any]]:
        paths = ", ".join({self.path() for _ in range(2)})
        return "get_item", self.with_values({"Key": self.key(), "ProjectionExpression": paths, "ConsistentRead": True})

    def _batch(self) -> tuple[str, dict[str, Any]]:
        puts = [{"PutRequest": {"Item": self.item()}} for _ in range(self.random.randrange(1, 4))]
        return "batch_write_item", {"RequestItems": {self.table: [*puts, {"DeleteRequest": {"Key": self.key()}}]}}

    def _transact(self) -> tuple[str, dict[str, Any]]:
        put = self.with_values({"Item": self.item(), **self._maybe_condition()})
        # DynamoDB Local lets a check stand beside a write of the same item; the service refuses that.
        other = {**self.key(), "pk": {"S": "p-other"}}
        check = self.with_values({"Key": other, "ConditionExpression": self.condition()})
        return "transact_write_items", {"TransactItems": [{"Put": put}, {"ConditionCheck": check}]}

    def _query(self) -> tuple[str, dict[str, Any]]:
        low = self.key()["sk"]
        condition = self.pick(
            ["pk = :p", "pk = :p AND sk > :k", "pk = :p AND begins_with(sk, :k)", ":k <= sk AND pk = :p"]
        )
        body = self.with_values({"FilterExpression": self.condition()} if self.random.random() < 0.5 else {})
        values = {**body.pop("ExpressionAttributeValues", {}), ":p": {"S": "p1"}}
        values |= {":k": low} if ":k" in condition else {}
        body |= {"KeyConditionExpression": condition, "ExpressionAttributeValues": values}
        return "query", {**body, "ScanIndexForward": self.random.random() < 0.5, "Limit": self.random.randrange(1, 9)}

    def _scan(self) -> tuple[str, dict[str, Any]]:
        return "scan", self.with_values({"FilterExpression": self.condition(), "ConsistentRead": True})


def _asked(client: Any, call: str, body: Mapping[str, Any]) -> Any:
    """The answer without what legitimately differs, or the error's code."""
    try:
        answer = getattr(client, call)(**body)
    except botocore.exceptions.ClientError as error:
        reasons = [reason["Code"] for reason in error.response.get("CancellationReasons", [])]
        return error.response["Error"]["Code"], reasons, _canonical(error.response.get("Item"))
    answer.pop("ResponseMetadata")
    answer.pop("ConsumedCapacity", None)
    if call == "query":
        return _canonical(list(client.get_paginator("query").paginate(**body).search("Items[]")))
    if call == "scan":
        answer["Items"].sort(key=lambda item: str(_canonical({name: item[name] for name in ("pk", "sk")})))
    return _canonical(answer)


def _canonical(value: Any) -> Any:
    """Sets without order and numbers by value: DynamoDB Local keeps 1E+2 and 2.50 within maps, lists and sets."""
    if isinstance(value, dict):
        return {name: _canonical_content(name, content) for name, content in sorted(value.items())}
    return [_canonical(each) for each in value] if isinstance(value, list) else value


def _canonical_content(kind: str, content: Any) -> Any:
    if kind == "N" and isinstance(content, str):
        return Decimal(content)
    if kind in {"SS", "NS", "BS"} and isinstance(content, list):
        return sorted(Decimal(member) if kind == "NS" else member for member in content)
    return _canonical(content)


@pytest.mark.parametrize("sort_kind", ["S", "N", "B"])
@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.usefixtures("polardb_prefix")
def test_the_stand_in_answers_as_dynamodb_local(
    dynamodb: DynamoDBServer,
    polardb: PolarDBServer,
    dynamodb_prefix: str,
    seed: int,
    sort_kind: str,
) -> None:
    print(f"seed {seed}")
    name = f"{dynamodb_prefix}agree"
    clients = [dynamodb_client(server.facts()) for server in (dynamodb, polardb)]
    definitions = [{"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": sort_kind}]
    for client in clients:
        client.create_table(
            TableName=name, KeySchema=list(_KEYS), AttributeDefinitions=definitions, BillingMode="PAY_PER_REQUEST"
        )
    draw = _Draw(seed, name, sort_kind)
    try:
        for number in range(_CALLS):
            call, body = draw.call()
            one, other = (_asked(client, call, body) for client in clients)
            assert other == one, f"seed {seed}, call {number}: {call} {body}"
    finally:
        clients[1].delete_table(TableName=name)
