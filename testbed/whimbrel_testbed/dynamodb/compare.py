"""The independent comparison of DynamoDB tables with their copies: botocore's own client, plain Python.

Both ends must be at rest. It is an oracle for tests and the demo: it holds one side in memory and shares no code with
what it judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol, TypeAlias

import botocore.session
from botocore.config import Config

Item: TypeAlias = Mapping[str, Mapping[str, Any]]
_SETS = ("SS", "NS", "BS")


class Endpoint(Protocol):
    """Where a server is and how it is signed in to."""

    @property
    def endpoint(self) -> str: ...  # noqa: D102
    @property
    def region(self) -> str: ...  # noqa: D102
    @property
    def access_key_id(self) -> str: ...  # noqa: D102
    @property
    def secret_access_key(self) -> str: ...  # noqa: D102


def client_of(server: Endpoint, service: str = "dynamodb") -> Any:
    """A botocore client for a server of the test bed."""
    return botocore.session.get_session().create_client(
        service,
        region_name=server.region,
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=server.secret_access_key,
        config=Config(retries={"max_attempts": 10, "mode": "standard"}, parameter_validation=False),
    )


def independent_compare(
    source: Endpoint, target: Endpoint, tables: Sequence[str | tuple[str, str]], *, limit: int = 20
) -> list[str]:
    """Compare whole tables; return the differences in words, empty where all are equal.

    A table is its name where both sides have it, or a pair of the source's and the target's. At most `limit`
    differences of a table are described, and one line more counts them all.
    """
    one, other = client_of(source), client_of(target)
    found: list[str] = []
    for table in tables:
        names = (table, table) if isinstance(table, str) else table
        found += _compared(one, other, names, limit)
    return found


def _compared(one: Any, other: Any, names: tuple[str, str], limit: int) -> list[str]:
    keys = [each["AttributeName"] for each in one.describe_table(TableName=names[0])["Table"]["KeySchema"]]
    left = {_key(item, keys): _plain({"M": item}) for item in items(one, names[0])}
    lines, seen = [], set()
    for item in items(other, names[1]):
        key = _key(item, keys)
        if key in seen:
            lines.append(f"{names[1]} {key}: twice in the target")
        seen.add(key)
        if key not in left:
            lines.append(f"{names[1]} {key}: only in the target")
        elif left[key] != _plain({"M": item}):
            lines.append(f"{names[1]} {key}: differs")
    lines += [f"{names[0]} {key}: missing in the target" for key in left if key not in seen]
    return lines if len(lines) <= limit else [*lines[:limit], f"{names[0]}: {len(lines)} differences in all"]


def items(client: Any, table: str) -> Iterator[Item]:
    """All items of a table, by a consistent Scan."""
    start: dict[str, Any] = {}
    while True:
        page = client.scan(TableName=table, ConsistentRead=True, **start)
        yield from page["Items"]
        if "LastEvaluatedKey" not in page:
            return
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def _key(item: Item, names: Sequence[str]) -> tuple[object, ...]:
    return tuple(_plain(item[name]) for name in names)


def _plain(value: Mapping[str, Any]) -> object:
    """A typed value as a comparable one: numbers by value, sets without order; its type is kept."""
    ((kind, inner),) = value.items()
    if kind == "M":
        return ("M", tuple(sorted((name, _plain(each)) for name, each in inner.items())))
    if kind == "L":
        return ("L", tuple(_plain(each) for each in inner))
    if kind in _SETS:
        return (kind, frozenset(_scalar(kind[0], each) for each in inner))
    return (kind, _scalar(kind, inner))


def _scalar(kind: str, inner: Any) -> object:
    return Decimal(inner) if kind == "N" else bytes(inner) if kind == "B" else inner
