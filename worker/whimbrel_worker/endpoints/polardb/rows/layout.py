"""How items stand in PolarDB's tables, as configured: which relation, which columns. Pure.

PolarDB publishes the document column's name alone; whatever else a layout has is configuration. What a change of a row
means stands in items.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from whimbrel_api.layout import KeyColumn, Layout
from whimbrel_worker.endpoints.polardb.log.changes import RowChange
from whimbrel_worker.endpoints.polardb.log.messages import Relation
from whimbrel_worker.endpoints.polardb.rows.items import ItemWrite, KeyAttribute, TableLayout
from whimbrel_worker.endpoints.polardb.rows.naming import parse_rule
from whimbrel_worker.errors import Incompatible

DOCUMENT: Final = "polardb_document"
_LETTERS: Final = {"String": "S", "Number": "N", "Binary": "B"}


def _nothing(_table: str) -> bool:
    return False


class ItemLayout:
    """The configured layout over the DynamoDB tables that are known.

    `keys`: each table's key attributes, the partition key first. `names`: tables whose name on the server is not what
    the rule says (PostgreSQL cuts names at 63 bytes), by schema and name on the server. `ignored`: whether changes of
    a DynamoDB table are passed over: control tables of ours, and what is not selected.
    """

    def __init__(
        self,
        layout: Layout,
        keys: Mapping[str, Sequence[KeyAttribute]],
        names: Mapping[tuple[str, str], str] | None = None,
        ignored: Callable[[str], bool] = _nothing,
    ) -> None:
        self._layout, self._keys, self._names, self._ignored = layout, keys, names or {}, ignored
        self._places = {table: place for place, table in self._names.items()}
        self._rule = parse_rule(layout.table_rule)
        self._tables: dict[int, TableLayout] = {}
        self.passed_over: Counter[str] = Counter()
        """How many changes were passed over, by the relation's schema and name."""

    def place(self, table: str) -> tuple[str, str]:
        """Schema and name on the server of a DynamoDB table, where it must be found."""
        return self._places.get(table) or self._rule.server_name(table)

    def table_name(self, relation: Relation) -> str | None:
        """The DynamoDB table that a relation holds; None for what is ignored, or is no table of items by the rule."""
        place = (relation.schema, relation.name)
        name = self._names.get(place) or self._rule.table(*place)
        return None if name is None or self._ignored(name) else name

    def table(self, relation: Relation) -> TableLayout:
        """How the items of a relation stand in it. Raises Incompatible where the configuration does not fit it."""
        there = self._tables.get(relation.oid)
        if there is None or there.relation is not relation:
            there = self._tables[relation.oid] = self._made(relation)
        return there

    def writes(self, change: RowChange) -> list[ItemWrite]:
        """What is to be done for a row's change, in this order; nothing, and counted, where its table is passed over.

        Raises Incompatible, naming the table.
        """
        if self.table_name(change.relation) is None:
            self.passed_over[_place(change.relation)] += 1
            return []
        return self.table(change.relation).writes(change)

    def _made(self, relation: Relation) -> TableLayout:
        name = self.table_name(relation)
        if name is None or name not in self._keys or self.place(name) != (relation.schema, relation.name):
            raise Incompatible(
                "a table on the source has no counterpart in DynamoDB",
                where=_place(relation),
                why="it is not one of the tables that were there at the start",
                todo="make the table in DynamoDB with the same key, then set spec.paused to true and back to "
                "false; or exclude it under spec.tables",
            )
        return table_layout(relation, name, self._keys[name], self._layout)


def _place(relation: Relation) -> str:
    return f"{relation.schema}.{relation.name}"


def table_layout(relation: Relation, table: str, keys: Sequence[KeyAttribute], layout: Layout) -> TableLayout:
    """How a table's items stand in a relation. Raises Incompatible where the configuration does not fit it."""
    where = _place(relation)
    places = {column.name: place for place, column in enumerate(relation.columns)}
    document = layout.document_column or DOCUMENT
    if document not in places:
        raise _unfit(where, f"there is no column {document}", "spec.layout.documentColumn")
    free = {name: place for name, place in places.items() if name != document}
    columns = _configured(keys, layout.key_columns, free, where) if layout.key_columns else _found(keys, relation, free)
    if columns is None:
        raise _unfit(where, "its key columns are not named as the key's attributes", "spec.layout.keyColumns")
    _prove_identity(relation, columns, where)
    return TableLayout(relation, table, tuple(keys), columns, places[document])


def _prove_identity(relation: Relation, columns: Sequence[int], where: str) -> None:
    """An update says which row it was by the identity's columns alone: a key beside them could change unseen."""
    identity = {place for place, column in enumerate(relation.columns) if column.key}
    unseen = [relation.columns[place].name for place in columns if place not in identity]
    if identity and unseen:
        raise Incompatible(
            "a table does not log the keys of its items",
            where=where,
            why=f"{unseen[0]} is a key column and not part of the replica identity, so an item whose key changes would "
            "stay under its old one",
            todo=f"ALTER TABLE {where} REPLICA IDENTITY FULL, or correct spec.layout.keyColumns",
        )


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


def _unfit(where: str, why: str, field: str) -> Incompatible:
    return Incompatible(
        "a table does not have the configured layout", where=where, why=why, todo=f"correct {field} to the server's own"
    )
