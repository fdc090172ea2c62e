"""What a DynamoDB table is here: its description as kept in PostgreSQL, its keys and its indexes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

from whimbrel_testbed.polardb.layout import Key, Layout, column_key, document_key
from whimbrel_testbed.polardb.limits import PARTITION_KEY_BYTES, SORT_KEY_BYTES
from whimbrel_testbed.polardb.refusals import InvalidError, invalid_parameter
from whimbrel_testbed.polardb.values import Item, Value, decode_binary, kind_of, measure


@dataclass(frozen=True)
class Index:
    """A secondary index as it was asked for (IndexName, KeySchema, Projection), and the keys a Query on it goes by."""

    asked: dict[str, Any]
    keys: tuple[Key, ...]
    is_global: bool

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.asked["IndexName"])

    @property
    def projection(self) -> dict[str, Any]:
        """ProjectionType and NonKeyAttributes."""
        return dict(self.asked["Projection"])


@dataclass
class Table:
    """A table; `asked` holds TableName, KeySchema, AttributeDefinitions, indexes, tags, TTL, creation time and id."""

    asked: dict[str, Any]
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        keys = tuple(column_key(name, self._kinds[name]) for name in _attributes(self.asked))
        self.layout = Layout(self.name, keys)

    @property
    def name(self) -> str:
        """The table's name in DynamoDB."""
        return str(self.asked["TableName"])

    @property
    def keys(self) -> tuple[Key, ...]:
        """The partition key and, where there is one, the sort key."""
        return self.layout.keys

    @cached_property
    def key_names(self) -> list[str]:
        """The key attributes' names."""
        return [key.attribute for key in self.keys]

    @cached_property
    def _kinds(self) -> dict[str, str]:
        return {each["AttributeName"]: each["AttributeType"] for each in self.asked["AttributeDefinitions"]}

    @cached_property
    def indexes(self) -> dict[str, Index]:
        """The secondary indexes by name."""
        found = {}
        for title, is_global in (("GlobalSecondaryIndexes", True), ("LocalSecondaryIndexes", False)):
            for asked in self.asked.get(title) or []:
                keys = tuple(document_key(name, self._kinds[name]) for name in _attributes(asked))
                found[asked["IndexName"]] = Index(asked, keys, is_global)
        return found

    def text(self) -> str:
        """The description as it is kept with the table in PostgreSQL."""
        return orjson.dumps(self.asked).decode()

    def check_item(self, item: Item) -> None:
        """Refuse an item whose keys, or whose attributes that are keys of an index, are missing or mistyped."""
        for number, key in enumerate(self.keys):
            if key.attribute not in item:
                raise invalid_parameter(f"Missing the key {key.attribute} in the item")
            actual = kind_of(item[key.attribute])
            if actual != key.kind:
                raise invalid_parameter(f"Type mismatch for key {key.attribute} expected: {key.kind} actual: {actual}")
            check_key_value(key, item[key.attribute], first=number == 0)
        for index in self.indexes.values():
            self._check_index(index, item)

    def _check_index(self, index: Index, item: Item) -> None:
        for key in index.keys:
            if key.attribute not in item:
                continue
            actual = kind_of(item[key.attribute])
            if actual != key.kind:
                raise invalid_parameter(
                    f"Type mismatch for Index Key {key.attribute} Expected: {key.kind} Actual: {actual} "
                    f"IndexName: {index.name}"
                )
            if item[key.attribute][key.kind] == "":
                raise InvalidError(
                    "One or more parameter values are not valid. A value specified for a secondary index key is not "
                    "supported. The AttributeValue for a key attribute cannot contain an empty string value. "
                    f"IndexName: {index.name}, IndexKey: {key.attribute}"
                )

    def key_of(self, item: Item) -> Item:
        """Return the key attributes of an item."""
        return {name: item[name] for name in self.key_names}

    def check_key(self, key: Any) -> Item:
        """Return a key given with a call, with its numbers canonical; refuses one that is not exactly the table's."""
        if not isinstance(key, dict) or set(key) != set(self.key_names):
            raise InvalidError("The provided key element does not match the schema")
        for number, part in enumerate(self.keys):
            measure(key[part.attribute])
            if kind_of(key[part.attribute]) != part.kind:
                raise InvalidError("The provided key element does not match the schema")
            check_key_value(part, key[part.attribute], first=number == 0)
        return key

    def key_texts(self, item: Item) -> list[str]:
        """Return the key's values as SQL parameters, and something to order and compare keys by."""
        return [item[key.attribute][key.kind] for key in self.keys]


def _attributes(asked: Mapping[str, Any]) -> list[str]:
    ranked = sorted(asked["KeySchema"], key=lambda part: str(part["KeyType"]) != "HASH")
    return [part["AttributeName"] for part in ranked]


def check_key_value(key: Key, value: Value, *, first: bool = False) -> None:
    """Refuse a key's value that is empty or too long; `first`: of the partition key."""
    content = value[key.kind]
    if key.kind == "N":
        return
    size = len(decode_binary(content)) if key.kind == "B" else len(content.encode())
    if not size:
        what = "binary" if key.kind == "B" else "string"
        raise InvalidError(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an "
            f"empty {what} value. Key: {key.attribute}"
        )
    limit = PARTITION_KEY_BYTES if first else SORT_KEY_BYTES
    if size > limit:
        raise invalid_parameter(
            f"Size of {'hashkey' if first else 'rangekey'} has exceeded the maximum size limit of {limit} bytes"
        )
