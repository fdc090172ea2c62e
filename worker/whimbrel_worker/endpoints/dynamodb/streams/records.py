"""Stream records as item changes. Pure; where records come from stands in shards."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from whimbrel_worker.engine.shard_ports import ItemChange
from whimbrel_worker.errors import Incompatible
from whimbrel_worker.values.columns import Table
from whimbrel_worker.values.items import canonical_attribute

_WRITES: Final = ("INSERT", "MODIFY")
_REMOVAL: Final = "REMOVE"
_TTL_PRINCIPAL: Final = "dynamodb.amazonaws.com"


def item_changes(table: Table, records: Sequence[Mapping[str, Any]]) -> list[ItemChange]:
    """The changes of a page in its order. Raises Incompatible for a record that does not hold what is needed."""
    names = [column.name for column in table.key_columns]
    return [_change(table, names, record) for record in records]


def _change(table: Table, names: Sequence[str], record: Mapping[str, Any]) -> ItemChange:
    event, body = record.get("eventName"), record.get("dynamodb") or {}
    keys = body.get("Keys") or {}
    if event not in (*_WRITES, _REMOVAL) or not all(name in keys for name in names) or "SequenceNumber" not in body:
        raise _unknown(table, event, body)
    key = tuple(_key_cell(keys[name]) for name in names)
    return ItemChange(
        sequence=str(body["SequenceNumber"]),
        key=key,
        after=None if event == _REMOVAL else (*key, _image(table, body)),
        at=float(body.get("ApproximateCreationDateTime") or 0.0),
        by_ttl=event == _REMOVAL and _is_service(record.get("userIdentity")),
    )


def _key_cell(attribute: dict[str, str]) -> bytes:
    """The canonical cell; a string is canonical as it is."""
    return orjson.dumps(attribute) if "S" in attribute else canonical_attribute(orjson.dumps(attribute))


def _image(table: Table, body: Mapping[str, Any]) -> bytes:
    image = body.get("NewImage")
    if image is None:
        raise Incompatible(
            "the table's stream does not carry whole items",
            where=table.name,
            why=f"its view type is {body.get('StreamViewType', 'unknown')}, and a change is written as a whole item",
            todo="let a person disable the stream (other readers may need it) and enable it with NEW_AND_OLD_IMAGES; "
            "then begin a new migration",
        )
    return orjson.dumps(image)


def _is_service(identity: Mapping[str, Any] | None) -> bool:
    """Whether DynamoDB itself deleted the item for its time to live (API reference, Streams, Record.userIdentity).

    The service writes the members with small letters, its API model with capitals.
    """
    said = {str(name).lower(): value for name, value in (identity or {}).items()}
    return said.get("type") == "Service" and said.get("principalid") == _TTL_PRINCIPAL


def _unknown(table: Table, event: object, body: Mapping[str, Any]) -> Incompatible:
    return Incompatible(
        "a stream record is not understood",
        where=table.name,
        why=f"event {str(event)[:50]!r} with the members {', '.join(sorted(map(str, body)))[:300]}; expected are "
        "INSERT, MODIFY and REMOVE with the table's key and a sequence number",
        todo="exclude the table under tables.exclude, or report this with the version of the endpoint",
    )
