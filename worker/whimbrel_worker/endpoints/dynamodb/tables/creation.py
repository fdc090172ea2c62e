"""Requests that make a table on another endpoint out of its definition, and what an existing table lacks. Pure; the
definition's shape stands in definition."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from whimbrel_worker.endpoints.dynamodb.tables.definition import ON_DEMAND, PROVISIONED, Described
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.values.columns import Table

GLOBAL: Final = "GlobalSecondaryIndexes"
LOCAL: Final = "LocalSecondaryIndexes"
_SYSTEM_TAGS: Final = "aws:"
_THROUGHPUT: Final = "ProvisionedThroughput"


def definition_of(table: Table) -> dict[str, Any]:
    """The table's definition, opened."""
    opened = json.loads(table.definition)
    assert isinstance(opened, dict)
    return opened


def create_request(table: Table, *, billing: bool) -> dict[str, object]:
    """CreateTable's request: keys, indexes with projections, tags; billing mode and throughput only where `billing`.

    A source that tells neither gets the on-demand mode. Empty lists are left out, because CreateTable refuses them.
    """
    definition = definition_of(table)
    tags = [tag for tag in definition.get("Tags", ()) if not str(tag["Key"]).startswith(_SYSTEM_TAGS)]
    request: dict[str, object] = {
        "TableName": table.target_name,
        "AttributeDefinitions": definition["AttributeDefinitions"],
        "KeySchema": definition["KeySchema"],
        GLOBAL: [index_request(definition, index, billing=billing) for index in definition.get(GLOBAL, ())],
        LOCAL: [_without_throughput(index) for index in definition.get(LOCAL, ())],
        "Tags": tags,
        **(_billing(definition) if billing else {}),
    }
    return {name: part for name, part in request.items() if part != []}


def index_request(definition: Mapping[str, Any], index: Mapping[str, Any], *, billing: bool) -> dict[str, Any]:
    """A global secondary index as CreateTable and UpdateTable take it; the table's throughput where it has none."""
    plain = _without_throughput(index)
    if not billing or _is_on_demand(definition):
        return plain
    return plain | {_THROUGHPUT: index.get(_THROUGHPUT) or definition[_THROUGHPUT]}


def add_index_request(table: Table, index: Mapping[str, Any], *, billing: bool) -> dict[str, object]:
    """UpdateTable's request that adds one index."""
    definition = definition_of(table)
    names = {element["AttributeName"] for element in index["KeySchema"]}
    return {
        "TableName": table.target_name,
        "AttributeDefinitions": [item for item in definition["AttributeDefinitions"] if item["AttributeName"] in names],
        "GlobalSecondaryIndexUpdates": [{"Create": index_request(definition, index, billing=billing)}],
    }


def missing_indexes(table: Table, there: Described) -> list[Mapping[str, Any]]:
    """The global secondary indexes that the target's table has not got."""
    names = {index["IndexName"] for index in there.indexes(GLOBAL)}
    return [index for index in definition_of(table).get(GLOBAL, ()) if index["IndexName"] not in names]


def mismatches(table: Table, there: Described) -> Iterator[Problem]:
    """What keeps the target's table from taking the items, and warnings."""
    wanted = [(column.name, column.source_type) for column in table.key_columns]
    if there.key != wanted:
        yield _differs(
            table,
            f"its key is {_key_text(there.key)} there, {_key_text(wanted)} here",
            "drop it, name it under schema.recreate with mode Recreate, or lead the items to another table by renameTo",
        )
    definition = definition_of(table)
    for which in (GLOBAL, LOCAL):
        yield from _index_problems(table, which, definition.get(which, ()), there.indexes(which))


def _index_problems(
    table: Table, which: str, wanted: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]
) -> Iterator[Problem]:
    existing = {index["IndexName"]: _shape(index) for index in found}
    for index in wanted:
        name = index["IndexName"]
        if name not in existing and which == LOCAL:
            why = "local secondary indexes can only be made together with the table"
            yield _warning(f"the target's table has no local secondary index {name}", table, why)
        elif name in existing and existing[name] != _shape(index):
            what = f"its index {name} has another key or projection there"
            yield _differs(table, what, "drop that index on the target; it is made anew as on the source")
    for name in existing.keys() - {index["IndexName"] for index in wanted}:
        why = "it stays as it is; items whose attributes do not fit its key are refused"
        yield _warning(f"the target's table has an index {name} that the source has not", table, why)


def _shape(index: Mapping[str, Any]) -> tuple[object, ...]:
    keys = tuple((element["AttributeName"], element["KeyType"]) for element in index["KeySchema"])
    projection = index.get("Projection") or {}
    return keys, projection.get("ProjectionType"), tuple(sorted(projection.get("NonKeyAttributes") or ()))


def _key_text(key: Sequence[tuple[str, str]]) -> str:
    return "(" + ", ".join(f"{name} {kind}" for name, kind in key) + ")"


def _differs(table: Table, what: str, todo: str) -> Problem:
    return Problem(f"the target's table {table.target_name} differs from {table.name}: {what}", table.name, todo=todo)


def _warning(what: str, table: Table, why: str) -> Problem:
    return Problem(what, table.name, why=why, fatal=False)


def _is_on_demand(definition: Mapping[str, Any]) -> bool:
    return definition.get("BillingMode") != PROVISIONED or _THROUGHPUT not in definition


def _billing(definition: Mapping[str, Any]) -> dict[str, object]:
    if _is_on_demand(definition):
        return {"BillingMode": ON_DEMAND}
    return {"BillingMode": PROVISIONED, _THROUGHPUT: definition[_THROUGHPUT]}


def _without_throughput(index: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in index.items() if name != _THROUGHPUT}
