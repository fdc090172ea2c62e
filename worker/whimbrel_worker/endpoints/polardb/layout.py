"""How items stand in PolarDB's tables, as configured, and what a row's change means for its item. Pure.

PolarDB publishes the document column's name alone; whatever else a layout has is configuration. What the configuration
says is proven on every row that is written: a key in the document that is not the key in the columns stops the table.
"""

import re
from base64 import b64encode
from binascii import Error as BinasciiError
from binascii import unhexlify
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from whimbrel_api.reverse_sync import KeyColumn, Layout
from whimbrel_worker.endpoints.polardb.changes import RowChange
from whimbrel_worker.endpoints.polardb.naming import parse_rule
from whimbrel_worker.endpoints.polardb.pgoutput import UNCHANGED, OldRow, Relation, Value, Values
from whimbrel_worker.errors import Incompatible
from whimbrel_worker.values.items import canonical_attribute

DOCUMENT: Final = "polardb_document"
_BYTEA: Final = 17
"""pg_type's oid of bytea."""
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)
_LETTERS: Final = {"String": "S", "Number": "N", "Binary": "B"}
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


class ItemLayout:
    """The configured layout over the DynamoDB tables that are known.

    `keys`: each table's key attributes, the partition key first. `names`: tables whose name on the server is not what
    the rule says (PostgreSQL cuts names at 63 bytes), as schema and name on the server.
    """

    def __init__(
        self,
        layout: Layout,
        keys: Mapping[str, Sequence[KeyAttribute]],
        names: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self._layout, self._keys, self._names = layout, keys, names or {}
        self._rule = parse_rule(layout.table_rule)
        self._tables: dict[int, TableLayout] = {}

    def table_name(self, relation: Relation) -> str | None:
        """The DynamoDB table that a relation holds, known or not; None where neither rule nor names fit it."""
        place = (relation.schema, relation.name)
        return self._names.get(place) or self._rule.table(*place)

    def table(self, relation: Relation) -> "TableLayout":
        """How the items of a relation stand in it. Raises Incompatible where the configuration does not fit it."""
        there = self._tables.get(relation.oid)
        if there is None or there.relation is not relation:
            there = self._tables[relation.oid] = self._made(relation)
        return there

    def writes(self, change: RowChange) -> list[ItemWrite]:
        """What is to be done for a row's change, in this order. Raises Incompatible, naming the table."""
        return self.table(change.relation).writes(change)

    def _made(self, relation: Relation) -> "TableLayout":
        name = self.table_name(relation)
        if name is None or name not in self._keys:
            raise Incompatible(
                "a table on the source has no counterpart in DynamoDB",
                where=f"{relation.schema}.{relation.name}",
                why="it is not one of the tables that were there at the start"
                if name
                else "spec.layout.tableRule fits no such name",
                todo="make the table in DynamoDB with the same key and begin anew, or exclude it under spec.tables",
            )
        return table_layout(relation, name, self._keys[name], self._layout)


def table_layout(relation: Relation, table: str, keys: Sequence[KeyAttribute], layout: Layout) -> "TableLayout":
    """How a table's items stand in a relation. Raises Incompatible where the configuration does not fit it."""
    where = f"{relation.schema}.{relation.name}"
    places = {column.name: place for place, column in enumerate(relation.columns)}
    document = layout.document_column or DOCUMENT
    if document not in places:
        raise _unfit(where, f"there is no column {document}", "spec.layout.documentColumn")
    free = {name: place for name, place in places.items() if name != document}
    columns = _configured(keys, layout.key_columns, free, where) if layout.key_columns else _found(keys, relation, free)
    if columns is None:
        raise _unfit(where, "its key columns are not named as the key's attributes", "spec.layout.keyColumns")
    return TableLayout(relation, table, tuple(keys), columns, places[document])


def _configured(
    keys: Sequence[KeyAttribute], named: Sequence[KeyColumn], places: Mapping[str, int], where: str
) -> tuple[int, ...]:
    """The configured columns: the first holds the partition key; of the others, the one of the sort key's type."""
    chosen = [named[0].name]
    if len(keys) > 1:
        fitting = [column.name for column in named[1:] if _LETTERS[column.type] == keys[1].type]
        if len(fitting) != 1:
            raise _unfit(
                where, f"{len(fitting)} columns are for a sort key of type {keys[1].type}", "spec.layout.keyColumns"
            )
        chosen += fitting
    missing = [name for name in chosen if name not in places]
    if missing:
        raise _unfit(where, f"there is no column {missing[0]}", "spec.layout.keyColumns")
    return tuple(places[name] for name in chosen)


def _found(keys: Sequence[KeyAttribute], relation: Relation, places: Mapping[str, int]) -> tuple[int, ...] | None:
    """Columns named as the attributes; one attribute may go without, if one column of the identity is left for it.

    PostgreSQL cannot take every attribute's name, so its column may be called otherwise.
    """
    names = {attribute.name for attribute in keys}
    left = [place for name, place in places.items() if name not in names and relation.columns[place].key]
    unnamed = [attribute.name for attribute in keys if attribute.name not in places]
    if len(unnamed) > 1 or (unnamed and len(left) != 1):
        return None
    return tuple(places.get(attribute.name, left[0] if left else -1) for attribute in keys)


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


def _unfit(where: str, why: str, field: str) -> Incompatible:
    return Incompatible(
        "a table does not have the configured layout", where=where, why=why, todo=f"correct {field} to the server's own"
    )
