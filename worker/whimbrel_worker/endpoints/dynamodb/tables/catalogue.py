"""Asks an endpoint which tables there are and what they look like, many at a time. Judges nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused, RightMissing
from whimbrel_worker.endpoints.dynamodb.tables.definition import Described

S = TypeVar("S")
T = TypeVar("T")

AT_ONCE: Final = 8
"""Control calls under way: enough for a thousand tables within seconds, few enough not to be throttled for long."""
NOT_FOUND: Final = "ResourceNotFoundException"
_UNKNOWN: Final = ("UnknownOperationException", "ValidationException", NOT_FOUND)


@dataclass(slots=True)
class Refusals:
    """Calls that the account may not make, by IAM action, with the tables that they were tried on."""

    found: dict[str, tuple[RightMissing, list[str]]] = field(default_factory=dict)

    def add(self, failure: RightMissing, table: str) -> None:
        """Another one. Safe for many threads: each step is atomic."""
        self.found.setdefault(failure.action, (failure, []))[1].append(table)


@dataclass(slots=True)
class Catalogue:
    """What was found. `gone`: tables deleted since they were listed."""

    tables: list[Described] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    refusals: Refusals = field(default_factory=Refusals)


def each(action: Callable[[S], T], items: Sequence[S], at_once: int = AT_ONCE) -> list[T]:
    """The action's results in the items' order, some at a time. The first failure is raised."""
    if len(items) <= 1:
        return [action(item) for item in items]
    with ThreadPoolExecutor(min(at_once, len(items)), thread_name_prefix="dynamodb") as pool:
        return list(pool.map(action, items))


def table_names(client: Client, a_page: int) -> Iterator[str]:
    """All tables of the account in the region, in the endpoint's order; so many are asked for at once."""
    request: dict[str, object] = {"Limit": a_page}
    while True:
        answer = client.ask("ListTables", request)
        yield from answer.get("TableNames", ())
        last = answer.get("LastEvaluatedTableName")
        if not last:
            return
        request["ExclusiveStartTableName"] = last


def describe(client: Client, name: str) -> Described | None:
    """The table without time to live and tags, or None when there is none of that name."""
    try:
        return Described(client.ask("DescribeTable", {"TableName": name})["Table"])
    except Refused as refusal:
        if refusal.code == NOT_FOUND:
            return None
        raise


def read_catalogue(client: Client, names: Sequence[str], known: Mapping[str, Described] | None) -> Catalogue:
    """The tables of these names. `known`: by table id what was asked for before; None leaves out time to live and tags,
    for which DynamoDB answers ten calls a second only.
    """
    catalogue = Catalogue()

    def look(name: str) -> None:
        try:
            described = describe(client, name)
        except RightMissing as failure:
            catalogue.refusals.add(failure, name)
            return
        if described is None:
            catalogue.gone.append(name)
        else:
            catalogue.tables.append(_detailed(client, described, known, catalogue.refusals))

    each(look, names)
    catalogue.tables.sort(key=lambda described: described.name)
    return catalogue


def _detailed(
    client: Client, described: Described, known: Mapping[str, Described] | None, refusals: Refusals
) -> Described:
    if known is None:
        return described
    before = known.get(described.identifier)
    if before is not None:
        return Described(described.description, before.ttl, before.tags)
    ttl = _optional(described.name, refusals, lambda: _ttl(client, described.name))
    tags = _optional(described.name, refusals, lambda: _tags(client, described.description))
    return Described(described.description, ttl or "", tags or ())


def _optional(name: str, refusals: Refusals, ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except RightMissing as failure:
        refusals.add(failure, name)
    except Refused as refusal:
        if refusal.code not in _UNKNOWN:
            raise
    return None


def _ttl(client: Client, name: str) -> str:
    said = client.ask("DescribeTimeToLive", {"TableName": name}).get("TimeToLiveDescription") or {}
    on = said.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
    return str(said.get("AttributeName", "")) if on else ""


def _tags(client: Client, description: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    """Those that people gave; names beginning with aws: are kept for the service."""
    arn = description.get("TableArn")
    tags: list[Mapping[str, str]] = []
    request: dict[str, object] = {"ResourceArn": arn}
    while arn:
        answer = client.ask("ListTagsOfResource", request)
        tags += [tag for tag in answer.get("Tags") or () if not str(tag.get("Key", "")).startswith("aws:")]
        if not answer.get("NextToken"):
            break
        request["NextToken"] = answer["NextToken"]
    return tags
