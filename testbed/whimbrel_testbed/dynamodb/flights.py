"""The flights of 2013 from New York as DynamoDB items: five tables, their keys and indexes, and how they are loaded.

Missing values are NULL in some attributes and absent in others; there are a set, maps and reserved words for names.
"""

from __future__ import annotations

import calendar
import csv
import io
import itertools
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from whimbrel_testbed.dynamodb.client import create_table, delete_table, dynamodb_client, table_names
from whimbrel_testbed.dynamodb.loader import write_items
from whimbrel_testbed.provision import flights_directory

Row = Mapping[str, str]
Item = dict[str, Any]
"""Attribute name → DynamoDB's typed value, such as {"N": "1"}."""

_MISSING: Final = "NA"


def _number(value: str) -> Item:
    return {"NULL": True} if value == _MISSING else {"N": value}


def _text(value: str) -> Item:
    return {"NULL": True} if value == _MISSING else {"S": value}


def _known(item: Item) -> Item:
    """Leave out what is NULL: attributes that are keys of an index, or simply absent in part of the items."""
    return {name: value for name, value in item.items() if "NULL" not in value}


def _airline(row: Row) -> Item:
    return {"carrier": {"S": row["carrier"]}, "name": {"S": row["name"]}}


def _airport(row: Row) -> Item:
    place = {name: {"N": row[name]} for name in ("lat", "lon", "alt")}
    zone = {"tz": {"N": row["tz"]}, "dst": {"S": row["dst"]}, "zone": _text(row["tzone"])}
    return {"faa": {"S": row["faa"]}, "name": {"S": row["name"]}, "position": {"M": place}, **zone}


def _plane(row: Row) -> Item:
    texts = {name: {"S": row[name]} for name in ("tailnum", "type", "manufacturer", "model", "engine")}
    numbers = {name: {"N": row[name]} for name in ("engines", "seats")}
    return texts | numbers | {"year": _number(row["year"])} | _known({"speed": _number(row["speed"])})


def _weather(row: Row) -> Item:
    measured = ("dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")
    hour = calendar.timegm(time.strptime(row["time_hour"], "%Y-%m-%dT%H:%M:%SZ"))
    sparse = _known({name: _number(row[name]) for name in ("temp", "wind_gust")})
    keys = {"origin": {"S": row["origin"]}, "time": {"N": str(hour)}}
    return keys | sparse | {name: _number(row[name]) for name in measured}


def _flight(row: Row) -> Item:
    numbers = ("year", "month", "day", "distance", "sched_dep_time", "sched_arr_time")
    delays = {"dep": _number(row["dep_delay"]), "arr": _number(row["arr_delay"])}
    return {
        "flight": {"S": f"{row['carrier']}#{row['flight']}"},
        "leaves": {"S": f"{row['time_hour'][:14]}{int(row['minute']):02} {row['origin']}"},
        **{name: {"N": row[name]} for name in numbers},
        **{name: _number(row[name]) for name in ("dep_time", "arr_time", "air_time")},
        **_known({"tailnum": _text(row["tailnum"])}),
        "delays": {"M": delays}, "route": {"SS": [row["origin"], row["dest"]]},
    }  # fmt: skip


@dataclass(frozen=True)
class Table:
    """One table: `keys` are attribute name → type, the partition key first; `indexes` is a part of CreateTable."""

    name: str
    keys: Mapping[str, str]
    item: Callable[[Row], Item]
    index_keys: Mapping[str, str] = field(default_factory=dict)
    indexes: Mapping[str, Any] = field(default_factory=dict)

    def request(self, prefix: str = "") -> dict[str, Any]:
        """Return the CreateTable request."""
        types = {**self.keys, **self.index_keys}
        return {
            "TableName": prefix + self.name,
            "AttributeDefinitions": [{"AttributeName": name, "AttributeType": kind} for name, kind in types.items()],
            "KeySchema": _key_schema(*self.keys),
            "BillingMode": "PAY_PER_REQUEST",
            **self.indexes,
        }


def _key_schema(*names: str) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": kind} for name, kind in zip(names, ("HASH", "RANGE"), strict=False)]


_BY_MANUFACTURER: Final = {
    "IndexName": "by-manufacturer", "KeySchema": _key_schema("manufacturer", "model"),
    "Projection": {"ProjectionType": "KEYS_ONLY"},
}  # fmt: skip
_BY_TEMPERATURE: Final = {
    "IndexName": "by-temperature", "KeySchema": _key_schema("origin", "temp"),
    "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["humid"]},
}  # fmt: skip

TABLES: Final = (
    Table("airlines", {"carrier": "S"}, _airline),
    Table("airports", {"faa": "S"}, _airport),
    Table(
        "planes", {"tailnum": "S"}, _plane, {"manufacturer": "S", "model": "S"},
        {"GlobalSecondaryIndexes": [_BY_MANUFACTURER]},
    ),
    Table(
        "weather", {"origin": "S", "time": "N"}, _weather, {"temp": "N"}, {"LocalSecondaryIndexes": [_BY_TEMPERATURE]}
    ),
    Table("flights", {"flight": "S", "leaves": "S"}, _flight),
)  # fmt: skip

TABLE_NAMES: Final = tuple(table.name for table in TABLES)


def load_flights(facts: Mapping[str, str], *, prefix: str = "", rows: int | None = None) -> dict[str, int]:
    """Make the five tables anew and load them; return the number of items a table, by its name without the prefix.

    What was in tables of these names is lost. `rows` bounds every table (the first rows of the data are taken).
    Raises TestbedError where an item is refused or throttling does not end.
    """
    client = dynamodb_client(facts)
    there = set(table_names(client))
    for table in TABLES:
        if prefix + table.name in there:
            delete_table(client, prefix + table.name)
        create_table(client, table.request(prefix))
    return {table.name: write_items(facts, prefix + table.name, _items(table, rows)) for table in TABLES}


def _items(table: Table, rows: int | None) -> Iterator[bytes]:
    for row in itertools.islice(_rows(table.name), rows):
        yield json.dumps(table.item(row), separators=(",", ":"), ensure_ascii=False).encode()


def _rows(table: str) -> Iterator[Row]:
    packed, plain = flights_directory() / f"{table}.csv.zip", flights_directory() / f"{table}.csv"
    if packed.exists():
        with zipfile.ZipFile(packed) as archive, archive.open(f"{table}.csv") as file:
            yield from csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
    else:
        with plain.open(encoding="utf-8", newline="") as text:
            yield from csv.DictReader(text)
