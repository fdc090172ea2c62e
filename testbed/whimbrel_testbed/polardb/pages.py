"""Scan and Query: what of a walk's documents is in the answer; they are opened only where the call asks for it."""

from __future__ import annotations

from typing import Any

import orjson

from whimbrel_testbed.polardb.catalogue import Body, Catalogue
from whimbrel_testbed.polardb.conditions import holds, project
from whimbrel_testbed.polardb.keyconditions import Clause, key_clauses
from whimbrel_testbed.polardb.layout import Key
from whimbrel_testbed.polardb.limits import PAGE_ITEMS, SEGMENTS
from whimbrel_testbed.polardb.parser import parse_condition, parse_projection
from whimbrel_testbed.polardb.placeholders import Placeholders, no_legacy_parameters
from whimbrel_testbed.polardb.refusals import InvalidError, invalid_parameter
from whimbrel_testbed.polardb.store import Store
from whimbrel_testbed.polardb.syntax import Condition, Path, attributes_of
from whimbrel_testbed.polardb.tables import Index
from whimbrel_testbed.polardb.values import Item, kind_of, measure
from whimbrel_testbed.polardb.walks import Walk

_SELECTS = ("ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES", "SPECIFIC_ATTRIBUTES", "COUNT")


class _Page:
    """One call: the table or index, and what the answer is to show."""

    def __init__(self, catalogue: Catalogue, body: Body) -> None:
        no_legacy_parameters(body)
        self.table = catalogue.table(body.get("TableName"))
        self.index = self._index(body.get("IndexName"))
        self.placeholders = Placeholders(body)
        self.filter = self._condition(body, "FilterExpression")
        self.key_condition = self._condition(body, "KeyConditionExpression")
        text = body.get("ProjectionExpression")
        self.paths = parse_projection(text, self.placeholders) if text is not None else []
        self.placeholders.all_used()
        self.select = _select(body, self.index)
        self.limit = _limit(body)
        self.start = self._start(body)

    @property
    def keys(self) -> list[Key]:
        """The keys asked by: the index's, or the table's."""
        return list(self.index.keys if self.index else self.table.keys)

    @property
    def order(self) -> list[Key]:
        """Keys that no two rows share."""
        names = {key.attribute for key in self.keys}
        return self.keys + [key for key in self.table.keys if key.attribute not in names]

    def walk(self, *, hashed: bool) -> Walk:
        """A walk over the table, or over those of its rows that are in the index."""
        walk = Walk(self.table, self.order, hashed)
        if self.index:
            walk.clauses += [Clause(f"{key.sql} IS NOT NULL", []) for key in self.keys]
        return walk

    def answer(self, documents: list[bytes], *, more: bool) -> bytes:
        """Put the answer together."""
        parts = [b'"ScannedCount":%d' % len(documents)]
        if more and documents:
            last = orjson.loads(documents[-1])
            parts.append(
                b'"LastEvaluatedKey":' + orjson.dumps({key.attribute: last[key.attribute] for key in self.order})
            )
        if self.filter is not None:
            documents = [document for document in documents if holds(self.filter, orjson.loads(document))]
        parts.append(b'"Count":%d' % len(documents))
        if self.select != "COUNT":
            parts.append(b'"Items":[' + b",".join(self._shown(documents)) + b"]")
        return b"{" + b",".join(parts) + b"}"

    def _shown(self, documents: list[bytes]) -> list[bytes]:
        stages = [paths for paths in (self._projected(), self.paths) if paths]
        if not stages:
            return documents
        return [orjson.dumps(_staged(orjson.loads(document), stages)) for document in documents]

    def _projected(self) -> list[Path]:
        """The attributes an index holds; none where that is all (a local index reaches the table's)."""
        if self.index is None or self.index.projection["ProjectionType"] == "ALL":
            return []
        if not self.index.is_global and (self.paths or self.select == "ALL_ATTRIBUTES"):
            return []
        names = [key.attribute for key in self.order] + list(self.index.projection.get("NonKeyAttributes") or [])
        return [(name,) for name in dict.fromkeys(names)]

    def _index(self, name: str | None) -> Index | None:
        if name is None:
            return None
        if name not in self.table.indexes:
            raise InvalidError(f"The table does not have the specified index: {name}")
        return self.table.indexes[name]

    def _condition(self, body: Body, title: str) -> Condition | None:
        text = body.get(title)
        return None if text is None else parse_condition(text, title, self.placeholders)

    def _start(self, body: Body) -> Item | None:
        start = body.get("ExclusiveStartKey")
        if start is None:
            return None
        if set(start) != {key.attribute for key in self.order}:
            raise InvalidError("The provided starting key is invalid")
        for key in self.order:
            measure(start[key.attribute])
            if kind_of(start[key.attribute]) != key.kind:
                raise InvalidError(
                    "The provided starting key is invalid: The provided key element does not match the schema"
                )
        return dict(start)


def _staged(item: Item, stages: list[list[Path]]) -> Item:
    for paths in stages:
        item = project(item, paths)
    return item


def _select(body: Body, index: Index | None) -> str:
    select = str(body.get("Select") or "")
    if select and select not in _SELECTS:
        raise InvalidError(f"1 validation error detected: Value '{select}' at 'select' failed to satisfy constraint")
    if "ProjectionExpression" in body and select not in {"", "SPECIFIC_ATTRIBUTES"}:
        raise InvalidError(f"Cannot specify the ProjectionExpression when choosing to get {select}")
    if select == "SPECIFIC_ATTRIBUTES" and "ProjectionExpression" not in body:
        raise InvalidError(
            "Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES"
        )
    if select == "ALL_PROJECTED_ATTRIBUTES" and index is None:
        raise InvalidError("ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName")
    if select == "ALL_ATTRIBUTES" and index and index.is_global and index.projection["ProjectionType"] != "ALL":
        raise invalid_parameter(
            f"Select type ALL_ATTRIBUTES is not supported for global secondary index {index.name} because its "
            "projection type is not ALL"
        )
    return select


def _limit(body: Body) -> int:
    limit: Any = body.get("Limit", PAGE_ITEMS)
    if not isinstance(limit, int) or limit < 1:
        raise InvalidError(
            f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: "
            "Member must have value greater than or equal to 1"
        )
    return limit


class Pages:
    """The calls that read pages."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store, self._catalogue = store, catalogue

    def scan(self, body: Body) -> bytes:
        """Scan, by the hash of the partition key; a segment is a range of hashes."""
        page = _Page(self._catalogue, body)
        walk = page.walk(hashed=True)
        segment = _segment(body)
        if segment:
            walk.segment(*segment)
        return self._answer(page, walk)

    def query(self, body: Body) -> bytes:
        """Query: one partition, by the sort key."""
        page = _Page(self._catalogue, body)
        if page.key_condition is None:
            raise InvalidError(
                "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request."
            )
        _filters_no_key(page)
        walk = page.walk(hashed=False)
        walk.descending = body.get("ScanIndexForward") is False
        walk.clauses += key_clauses(page.key_condition, page.keys)
        return self._answer(page, walk)

    def _answer(self, page: _Page, walk: Walk) -> bytes:
        documents, more = self._store.run(lambda connection: walk.page(connection, page.start, page.limit))
        return page.answer(documents, more=more)


def _filters_no_key(page: _Page) -> None:
    for path in attributes_of(page.filter):
        if path[0] in {key.attribute for key in page.keys}:
            raise InvalidError(
                f"Filter Expression can only contain non-primary key attributes: Primary key attribute: {path[0]}"
            )


def _segment(body: Body) -> tuple[int, int] | None:
    number, total = body.get("Segment"), body.get("TotalSegments")
    if number is None and total is None:
        return None
    if number is None or total is None:
        missing = "Segment" if number is None else "TotalSegments"
        given = "TotalSegments" if number is None else "Segment"
        raise InvalidError(
            f"The {missing} parameter is required but was not present in the request when {given} is present"
        )
    if not 1 <= total <= SEGMENTS:
        raise InvalidError(
            f"1 validation error detected: Value '{total}' at 'totalSegments' failed to satisfy constraint: "
            f"Member must have value between 1 and {SEGMENTS}"
        )
    if not 0 <= number < total:
        raise InvalidError(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: "
            f"Segment: {number} is not less than TotalSegments: {total}"
        )
    return number, total
