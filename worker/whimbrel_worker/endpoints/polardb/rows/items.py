"""What a row's change means for its item, once it is known where the row holds key and document. Pure.

What the configuration says is proven on every row that is written: a key in the document that is not the key in the
columns stops the table. Where they stand is found in layout.
"""

import re
from base64 import b64encode
from binascii import Error as BinasciiError
from binascii import unhexlify
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson

from whimbrel_worker.endpoints.polardb.log.changes import RowChange
from whimbrel_worker.endpoints.polardb.log.messages import UNCHANGED, OldRow, Relation, Value, Values
from whimbrel_worker.errors import Incompatible
from whimbrel_worker.values.items import canonical_attribute

_BYTEA: Final = 17
"""pg_type's oid of bytea."""
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)
Key = tuple[bytes, ...]
"""A key's attributes as canonical JSON, such as {"S":"a"}, the partition key first."""


@dataclass(frozen=True, slots=True)
class KeyAttribute:
    """A key attribute of a DynamoDB table: its name, and its type S, N or B."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class ItemWrite:
    """What is to be done in DynamoDB: put `item` (DynamoDB-typed JSON), or where it is None delete what `key` names."""

    table: str
    key: Key
    item: bytes | None


@dataclass(frozen=True, slots=True)
class TableLayout:
    """How one table's items stand in a relation: the places of key columns and document among its columns."""

    relation: Relation
    table: str
    keys: tuple[KeyAttribute, ...]
    columns: tuple[int, ...]
    document: int

    @property
    def where(self) -> str:
        """The table, for messages."""
        return f"{self.relation.schema}.{self.relation.name}"

    def writes(self, change: RowChange) -> list[ItemWrite]:
        """What is to be done for a row's change, in this order."""
        before = None if change.old is None else self._old_key(change.old)
        if change.new is None:
            return [] if before is None else [ItemWrite(self.table, before, None)]
        return self._put(_filled(change.new, change.old), before)

    def _put(self, new: Values, before: Key | None) -> list[ItemWrite]:
        document = new[self.document]
        if isinstance(document, bytes):
            key, item = self._item(document, new)
            gone = [ItemWrite(self.table, before, None)] if before is not None and before != key else []
            return [*gone, ItemWrite(self.table, key, item)]
        if document is None:
            raise self._refused("a row has no document", "see what wrote it; repair the row, or exclude the table")
        if before is None or before == self._column_key(new):
            return []  # Neither the document nor the key was touched, so the item is what it was.
        raise self._refused(
            "a row's key was changed and its large document was not sent again",
            f"ALTER TABLE {self.where} REPLICA IDENTITY FULL, and start the reverse sync anew",
        )

    def _item(self, document: bytes, row: Values) -> tuple[Key, bytes]:
        """Key and item of a row; a key attribute that the document leaves out is added to it."""
        attributes = self._attributes(document)
        columns = self._column_key(row)
        inside = [attributes.get(key.name) for key in self.keys]
        if None not in inside:
            key = tuple(_canonical(attribute) for attribute in inside)
            self._prove(key, columns)
            return key, document
        if columns is None:
            raise self._refused(
                "a key's large value was not sent again", f"ALTER TABLE {self.where} REPLICA IDENTITY FULL"
            )
        pairs = zip(columns, inside, strict=True)
        self._prove(tuple(one if two is None else _canonical(two) for one, two in pairs), columns)
        whole = attributes | {key.name: orjson.loads(cell) for key, cell in zip(self.keys, columns, strict=True)}
        return columns, orjson.dumps(whole)

    def _attributes(self, document: bytes) -> dict[str, object]:
        try:
            opened = orjson.loads(document)
        except orjson.JSONDecodeError:
            opened = None
        if not isinstance(opened, dict):
            raise self._refused("a document is not a JSON object", "correct spec.layout.documentColumn")
        return opened

    def _prove(self, document: Key, columns: Key | None) -> None:
        if columns is not None and document != columns:
            raise self._refused(
                "a row's key columns do not hold the key that its document holds",
                "correct spec.layout.keyColumns: deletes are found by these columns",
            )

    def _old_key(self, old: OldRow) -> Key:
        key = self._column_key(old.values)
        if key is not None:
            return key
        document = old.values[self.document]
        inside = self._attributes(document) if isinstance(document, bytes) else {}
        if any(key.name not in inside for key in self.keys):
            raise self._refused(
                "a changed row cannot be told by what the log holds of it",
                f"ALTER TABLE {self.where} REPLICA IDENTITY FULL, and start the reverse sync anew",
            )
        return tuple(_canonical(inside[key.name]) for key in self.keys)

    def _column_key(self, row: Values) -> Key | None:
        """The key that the columns hold; None where one is NULL, was not sent, or is in a form that is not known."""
        cells = [self._cell(key, place, row[place]) for key, place in zip(self.keys, self.columns, strict=True)]
        known = tuple(cell for cell in cells if cell is not None)
        return known if len(known) == len(cells) else None

    def _cell(self, key: KeyAttribute, place: int, value: Value) -> bytes | None:
        if value is None or value is UNCHANGED:
            return None
        binary = self.relation.columns[place].type_oid == _BYTEA
        if binary != (key.type == "B"):
            return None
        try:
            return _CELLS[key.type](value)
        except (ValueError, BinasciiError):
            raise self._refused(
                f"a value in the key column {self.relation.columns[place].name} is not of type {key.type}",
                "correct spec.layout.keyColumns",
            ) from None

    def _refused(self, why: str, todo: str) -> Incompatible:
        return Incompatible("a change cannot be carried back", where=self.where, why=why, todo=todo)


def _filled(new: Values, old: OldRow | None) -> Values:
    """The new row with unchanged large values from what the log holds of the row before."""
    if old is None or UNCHANGED not in new:
        return new
    pairs = zip(new, old.values, strict=True)
    # In a row that holds the identity's columns alone, None may stand for a column that is not part of it.
    return tuple(was if now is UNCHANGED and (old.whole or was is not None) else now for now, was in pairs)


def _canonical(attribute: object) -> bytes:
    return canonical_attribute(orjson.dumps(attribute))


def _string(value: bytes) -> bytes:
    return orjson.dumps({"S": value.decode()})


def _number(value: bytes) -> bytes:
    text = value.decode("ascii")
    if _NUMBER.fullmatch(text) is None:
        raise ValueError("no number")
    return _canonical({"N": text})


def _binary(value: bytes) -> bytes:
    if value[:2] != b"\\x":
        raise ValueError("not in hex format")
    return orjson.dumps({"B": b64encode(unhexlify(value[2:])).decode()})


_CELLS: Final[dict[str, Callable[[bytes], bytes]]] = {"S": _string, "N": _number, "B": _binary}
