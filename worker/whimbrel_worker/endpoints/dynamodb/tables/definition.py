"""What CreateTable on another endpoint needs to make a table anew, out of DescribeTable's answer. Pure; whoever makes
the table decides what its endpoint takes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Description = Mapping[str, Any]
"""The member `Table` of DescribeTable's answer."""

_GOING: Final = "DELETING"
ON_DEMAND: Final = "PAY_PER_REQUEST"
PROVISIONED: Final = "PROVISIONED"


@dataclass(frozen=True, slots=True)
class Described:
    """One table as its endpoint describes it. `ttl` names the attribute; empty without one, or where not asked for."""

    description: Description
    ttl: str = ""
    tags: Sequence[Mapping[str, str]] = field(default=())

    @property
    def name(self) -> str:
        """The table's name."""
        return str(self.description["TableName"])

    @property
    def identifier(self) -> str:
        """What tells the table from another one that had its name before."""
        return str(self.description.get("TableId") or f"{self.name}@{self.description.get('CreationDateTime', '')}")

    @property
    def status(self) -> str:
        """TableStatus; an endpoint that tells none is taken to be ready."""
        return str(self.description.get("TableStatus", "ACTIVE"))

    @property
    def items(self) -> int:
        """How many items there were when the service last counted; every six hours on AWS."""
        return int(self.description.get("ItemCount") or 0)

    @property
    def size(self) -> int:
        """Bytes, as old as `items`."""
        return int(self.description.get("TableSizeBytes") or 0)

    @property
    def stream(self) -> str:
        """The ARN of the stream that is enabled now; empty without one."""
        enabled = (self.description.get("StreamSpecification") or {}).get("StreamEnabled")
        return str(self.description.get("LatestStreamArn", "")) if enabled else ""

    @property
    def view(self) -> str:
        """The enabled stream's view type, such as NEW_AND_OLD_IMAGES; empty without a stream."""
        return str((self.description.get("StreamSpecification") or {}).get("StreamViewType", "")) if self.stream else ""

    @property
    def key(self) -> list[tuple[str, str]]:
        """Name and type of the partition key and, where there is one, the sort key."""
        return keys_of(self.description["KeySchema"], self.description["AttributeDefinitions"])

    @property
    def billing(self) -> str:
        """PAY_PER_REQUEST or PROVISIONED; empty where the endpoint tells neither."""
        mode = (self.description.get("BillingModeSummary") or {}).get("BillingMode")
        return str(mode) if mode else PROVISIONED if self.units("ReadCapacityUnits") else ""

    def units(self, which: str) -> int:
        """Provisioned `ReadCapacityUnits` or `WriteCapacityUnits`; 0 on demand."""
        return int((self.description.get("ProvisionedThroughput") or {}).get(which) or 0)

    def indexes(self, which: str) -> list[Mapping[str, Any]]:
        """`GlobalSecondaryIndexes` or `LocalSecondaryIndexes` that are not being deleted."""
        listed = self.description.get(which) or []
        return [index for index in listed if index.get("IndexStatus") != _GOING]


def keys_of(schema: Sequence[Mapping[str, str]], attributes: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """Name and type of a key schema's attributes, the partition key first."""
    types = {attribute["AttributeName"]: attribute["AttributeType"] for attribute in attributes}
    ordered = sorted(schema, key=lambda element: element["KeyType"] != "HASH")
    return [(element["AttributeName"], types[element["AttributeName"]]) for element in ordered]


def definition_of(table: Described) -> str:
    """The definition as compact JSON; empty parts are left out, because CreateTable refuses empty lists."""
    parts = {
        "AttributeDefinitions": _attributes(table),
        "KeySchema": _schema(table.description["KeySchema"]),
        "GlobalSecondaryIndexes": [_index(index) for index in table.indexes("GlobalSecondaryIndexes")],
        "LocalSecondaryIndexes": [_index(index) for index in table.indexes("LocalSecondaryIndexes")],
        "BillingMode": table.billing,
        "ProvisionedThroughput": _throughput(table.description),
        "TimeToLive": table.ttl,
        "Tags": [dict(tag) for tag in table.tags],
        "StreamArn": table.stream,
        "ItemCount": table.items,
        "TableSizeBytes": table.size,
    }
    return json.dumps({name: part for name, part in parts.items() if part}, separators=(",", ":"))


def _schema(elements: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    return [{"AttributeName": item["AttributeName"], "KeyType": item["KeyType"]} for item in elements]


def _attributes(table: Described) -> list[dict[str, str]]:
    """Those that a key uses: CreateTable refuses others, and the index that used one may be on its way out."""
    indexes = [*table.indexes("GlobalSecondaryIndexes"), *table.indexes("LocalSecondaryIndexes")]
    schemas = [table.description["KeySchema"], *(index["KeySchema"] for index in indexes)]
    used = {element["AttributeName"] for schema in schemas for element in schema}
    return [
        {"AttributeName": item["AttributeName"], "AttributeType": item["AttributeType"]}
        for item in table.description["AttributeDefinitions"]
        if item["AttributeName"] in used
    ]


def _index(index: Mapping[str, Any]) -> dict[str, Any]:
    made = {
        "IndexName": index["IndexName"],
        "KeySchema": _schema(index["KeySchema"]),
        "Projection": index["Projection"],
    }
    throughput = _throughput(index)
    return made | ({"ProvisionedThroughput": throughput} if throughput else {})


def _throughput(described: Mapping[str, Any]) -> dict[str, int]:
    units = described.get("ProvisionedThroughput") or {}
    figures = {name: int(units.get(name) or 0) for name in ("ReadCapacityUnits", "WriteCapacityUnits")}
    return figures if all(figures.values()) else {}
