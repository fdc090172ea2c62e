"""What CreateTable and UpdateTable may ask for, checked; the result is the description a table is made of."""

from __future__ import annotations

import re
from typing import Any

from whimbrel_testbed.polardb.limits import GLOBAL_INDEXES, LOCAL_INDEXES
from whimbrel_testbed.polardb.refusals import InvalidError, RefusedError, invalid_parameter

Asked = dict[str, Any]
_TABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_KINDS = ("S", "N", "B")
_TITLES = ("GlobalSecondaryIndexes", "LocalSecondaryIndexes")
_MOST = {"GlobalSecondaryIndexes": GLOBAL_INDEXES, "LocalSecondaryIndexes": LOCAL_INDEXES}


def table(body: Asked) -> Asked:
    """Return the description of a table that CreateTable asks for; ValidationException where it cannot be."""
    name = _name(body.get("TableName"), "TableName")
    _no_stream(body)
    asked: Asked = {"TableName": name, "AttributeDefinitions": _attributes(body.get("AttributeDefinitions"))}
    asked["KeySchema"] = _key_schema(body.get("KeySchema"))
    for title in _TITLES:
        if title in body:
            asked[title] = [_index(each) for each in _index_list(body[title], title)]
    if body.get("Tags"):
        asked["Tags"] = tags(body)
    return _consistent(asked)


def updated(current: Asked, body: Asked) -> Asked:
    """Return a table's description after UpdateTable."""
    _no_stream(body)
    asked = {**current, "GlobalSecondaryIndexes": list(current.get("GlobalSecondaryIndexes") or [])}
    given = {each["AttributeName"]: each for each in current["AttributeDefinitions"]}
    given |= {each["AttributeName"]: each for each in _attributes(body.get("AttributeDefinitions") or [])}
    for change in body.get("GlobalSecondaryIndexUpdates") or []:
        _change(asked["GlobalSecondaryIndexes"], change)
    used = _used(asked)
    asked["AttributeDefinitions"] = [each for name, each in given.items() if name in used]
    return _consistent(asked)


def tags(body: Asked) -> dict[str, str]:
    """Return the tags of a call as a mapping."""
    return {str(each["Key"]): str(each["Value"]) for each in body.get("Tags") or []}


def _change(indexes: list[Asked], change: Asked) -> None:
    if "Create" in change:
        indexes.append(_index(change["Create"]))
    elif "Delete" in change:
        name = change["Delete"].get("IndexName")
        kept = [each for each in indexes if each["IndexName"] != name]
        if len(kept) == len(indexes):
            raise RefusedError("ResourceNotFoundException", "Requested resource not found")
        indexes[:] = kept
    elif "Update" not in change:
        raise invalid_parameter("GlobalSecondaryIndexUpdates needs Create, Update or Delete")


def _no_stream(body: Asked) -> None:
    if (body.get("StreamSpecification") or {}).get("StreamEnabled"):
        raise InvalidError("Streams are not supported: this DynamoDB-compatible endpoint has none")


def _name(name: Any, what: str) -> str:
    if not isinstance(name, str) or not _TABLE_NAME.fullmatch(name):
        raise InvalidError(
            f"Invalid table/index name.  {what} must be at least 3 characters long and at most 255 characters long, "
            "and may contain only the characters a-z, A-Z, 0-9, '_', '-', and '.'"
        )
    return name


def _attributes(given: Any) -> list[Asked]:
    found = {}
    for each in given or []:
        if each.get("AttributeType") not in _KINDS or not each.get("AttributeName"):
            raise InvalidError(
                f"1 validation error detected: Value '{each.get('AttributeType')}' at "
                "'attributeDefinitions.1.member.attributeType' failed to satisfy constraint: Member must satisfy enum "
                "value set: [B, N, S]"
            )
        found[each["AttributeName"]] = {name: each[name] for name in ("AttributeName", "AttributeType")}
    return list(found.values())


def _key_schema(given: Any) -> list[Asked]:
    kinds = [part.get("KeyType") for part in given or []]
    if kinds not in (["HASH"], ["HASH", "RANGE"]):
        raise InvalidError(
            "Invalid KeySchema: The first KeySchemaElement is not a HASH key type, or there are too many"
        )
    names = [part["AttributeName"] for part in given]
    if len(set(names)) != len(names):
        raise InvalidError("Both the Hash Key and the Range Key element in the KeySchema have the same name")
    return [{name: part[name] for name in ("AttributeName", "KeyType")} for part in given]


def _index_list(given: Any, title: str) -> list[Asked]:
    if not given:
        raise invalid_parameter(f"List of {title} is empty")
    if len(given) > _MOST[title]:
        raise invalid_parameter(f"{title} count exceeds the per-table limit of {_MOST[title]}")
    return list(given)


def _index(given: Asked) -> Asked:
    projection = given.get("Projection") or {}
    kind, names = projection.get("ProjectionType"), projection.get("NonKeyAttributes")
    if kind not in {"ALL", "KEYS_ONLY", "INCLUDE"}:
        raise invalid_parameter("Unknown ProjectionType: " + str(kind))
    if (kind == "INCLUDE") != bool(names):
        what = "not specified" if kind == "INCLUDE" else f"specified, where ProjectionType is {kind}"
        raise invalid_parameter(f"NonKeyAttributes is {what}")
    kept = {"ProjectionType": kind, **({"NonKeyAttributes": names} if names else {})}
    name = _name(given.get("IndexName"), "IndexName")
    return {"IndexName": name, "KeySchema": _key_schema(given.get("KeySchema")), "Projection": kept}


def _used(asked: Asked) -> set[str]:
    schemas = [asked["KeySchema"], *(each["KeySchema"] for title in _TITLES for each in asked.get(title) or [])]
    return {part["AttributeName"] for schema in schemas for part in schema}


def _consistent(asked: Asked) -> Asked:
    defined = {each["AttributeName"] for each in asked["AttributeDefinitions"]}
    used = _used(asked)
    if used - defined:
        raise invalid_parameter(
            "Some index key attributes are not defined in AttributeDefinitions. "
            f"Keys: [{', '.join(sorted(used - defined))}], AttributeDefinitions: [{', '.join(sorted(defined))}]"
        )
    if defined - used:
        raise invalid_parameter(
            "Number of attributes in KeySchema does not exactly match number of attributes defined in "
            "AttributeDefinitions"
        )
    indexes = [each for title in _TITLES for each in asked.get(title) or []]
    if len({each["IndexName"] for each in indexes}) != len(indexes):
        raise invalid_parameter("Duplicate index name")
    for each in asked.get("LocalSecondaryIndexes") or []:
        _local(asked["KeySchema"], each)
    return asked


def _local(table_keys: list[Asked], index: Asked) -> None:
    if len(table_keys) < 2:
        raise invalid_parameter("Table KeySchema does not have a range key, which is required when specifying a LSI")
    if index["KeySchema"][0] != table_keys[0] or len(index["KeySchema"]) < 2:
        raise invalid_parameter(
            "Index KeySchema does not have the table's hash key and a range key: index " + index["IndexName"]
        )
