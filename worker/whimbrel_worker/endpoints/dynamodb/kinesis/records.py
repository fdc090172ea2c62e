"""Records of Kinesis Data Streams for DynamoDB: what one of them tells, and how it becomes an item change. Pure.

Where records come from stands in reading, in which order they count in order. Form: Amazon DynamoDB
Developer Guide, "Using Kinesis Data Streams to capture changes to DynamoDB": base64 of a JSON object that is the
record of DynamoDB Streams without a sequence number, with the table's name and a finer time, and with binary values
that are encoded once more.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from whimbrel_worker.endpoints.dynamodb.streams.records import item_changes
from whimbrel_worker.engine.shard_ports import ItemChange
from whimbrel_worker.errors import Incompatible
from whimbrel_worker.values.columns import Table

_UNITS: Final = {"MICROSECOND": 1, "MILLISECOND": 1000}
"""Microseconds of one unit of a record's time."""
_USUAL: Final = "MILLISECOND"
"""What a record means that does not say."""
_FORM: Final = "application/json"
MICROSECONDS: Final = 1_000_000
"""Of a second."""
_DIGEST_BYTES: Final = 8
_BINARY: Final = (b'"B"', b'"BS"')
"""One of these stands in every record with a binary value."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A record of the stream. `arrived`: seconds since 1970, Kinesis' clock. `body`: the opened data.

    `body` is None where DynamoDB did not write the record: other programs may write into the stream too. `binary`:
    whether it may hold binary values. `place`: its partition key, by which Kinesis picks the shard.
    """

    number: int
    arrived: float
    body: Mapping[str, Any] | None
    binary: bool = True
    place: str = ""

    @property
    def table(self) -> str:
        """The table's name; empty where DynamoDB did not write it."""
        return str(self.body["tableName"]) if self.body else ""


@dataclass(frozen=True, slots=True)
class Told:
    """A change and what orders it: when it was made, in microseconds since 1970, and the `unit` that this is exact to.

    `before` and `after`: digests of the item's images, empty where there was none. They tell what came first among
    changes of the same moment. `place`: see Arrival.
    """

    change: ItemChange
    arrived: float
    moment: int
    unit: int
    before: bytes
    after: bytes
    place: str = ""


def arrival(record: Mapping[str, Any]) -> Arrival:
    """One of GetRecords' records."""
    number, arrived = int(record["SequenceNumber"]), float(record.get("ApproximateArrivalTimestamp") or 0.0)
    data = base64.b64decode(str(record.get("Data", "")))
    return Arrival(
        number, arrived, _opened(data), any(mark in data for mark in _BINARY), str(record.get("PartitionKey") or "")
    )


def told(table: Table, seen: Arrival) -> Told:
    """What a record of this table tells. Raises Incompatible for one that is not understood."""
    body = seen.body or {}
    inner = body.get("dynamodb") or {}
    unit = _UNITS.get(str(inner.get("ApproximateCreationDateTimePrecision") or _USUAL))
    moment = inner.get("ApproximateCreationDateTime")
    if unit is None or not isinstance(moment, int) or body.get("recordFormat", _FORM) != _FORM:
        raise _unknown(table, body, inner)
    moment *= unit
    again = {**inner, "SequenceNumber": str(seen.number), "ApproximateCreationDateTime": moment / MICROSECONDS}
    if seen.binary:
        again |= {name: _item(table, again[name]) for name in ("Keys", "NewImage") if again.get(name)}
    (change,) = item_changes(table, [{**body, "dynamodb": again}])
    before, after = _digest(inner.get("OldImage")), _digest(inner.get("NewImage"))
    return Told(change, seen.arrived, moment, unit, before, after, seen.place)


def _item(table: Table, item: Mapping[str, Any]) -> dict[str, Any]:
    """An item with its binary values as DynamoDB gives them. Raises Incompatible where one is no base64 of base64."""
    try:
        return {name: _attribute(value) for name, value in item.items()}
    except ValueError:
        raise Incompatible(
            "a binary value in the Kinesis data stream is not encoded as expected",
            where=table.name,
            why="binary values are encoded by base64 twice there, and this one is not; it would become another value",
            todo="follow the table by DynamoDB Streams (take it out of source.dynamodb.kinesisStreams in a new "
            "migration), and report this",
        ) from None


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    ((kind, inner),) = value.items()
    if kind == "B":
        return {kind: _once(inner)}
    if kind == "BS":
        return {kind: [_once(each) for each in inner]}
    if kind == "L":
        return {kind: [_attribute(each) for each in inner]}
    if kind == "M":
        return {kind: {name: _attribute(each) for name, each in inner.items()}}
    return {kind: inner}


def _once(text: str) -> str:
    """The base64 in this base64. Raises ValueError where there is none."""
    inner = base64.b64decode(text, validate=True)
    base64.b64decode(inner, validate=True)
    return inner.decode("ascii")


def _opened(data: bytes) -> Mapping[str, Any] | None:
    """The JSON object in a record's data, where DynamoDB wrote it."""
    try:
        body = orjson.loads(data)
    except ValueError:
        return None
    ours = isinstance(body, dict) and isinstance(body.get("dynamodb"), dict) and body.get("tableName")
    return body if ours else None


def _digest(image: Mapping[str, Any] | None) -> bytes:
    if not image:
        return b""
    return hashlib.blake2b(orjson.dumps(image, option=orjson.OPT_SORT_KEYS), digest_size=_DIGEST_BYTES).digest()


def _unknown(table: Table, body: Mapping[str, Any], inner: Mapping[str, Any]) -> Incompatible:
    return Incompatible(
        "a record of the Kinesis data stream is not understood",
        where=table.name,
        why=f"format {str(body.get('recordFormat'))[:50]!r}, precision "
        f"{str(inner.get('ApproximateCreationDateTimePrecision'))[:50]!r}, members "
        f"{', '.join(sorted(map(str, inner)))[:300]}; expected are JSON, MILLISECOND or MICROSECOND and a time in them",
        todo="follow the table by DynamoDB Streams (take it out of source.dynamodb.kinesisStreams in a new migration), "
        "or report this",
    )
