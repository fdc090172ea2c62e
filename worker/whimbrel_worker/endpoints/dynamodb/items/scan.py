"""Reads items of a DynamoDB source: segments of a Scan and single keys, as bytes; implements ports.SourceReader."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from whimbrel_api.migration import TableOverride, Tables
from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused
from whimbrel_worker.endpoints.dynamodb.calls.pace import Units
from whimbrel_worker.endpoints.dynamodb.items.segments import Bound, following, place_of, segments_for
from whimbrel_worker.endpoints.dynamodb.streams.gaps import no_table
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import NOT_FOUND, each
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.errors import Incompatible, Transient
from whimbrel_worker.values.behaviour import Behaviour
from whimbrel_worker.values.columns import Row, Table
from whimbrel_worker.values.items import ItemBlock, PageBody, cut_page, key_bytes, key_cells, open_batch
from whimbrel_worker.values.selection import override_of

_LOOKUPS: Final = 4
_UNPROCESSED: Final = Backoff(base=0.05, cap=5.0, attempts=25)
_READ_UNIT: Final = 4096
_SHOW_SECONDS: Final = 5.0
"""How long empty pages of a filter are read before one is given out, so that whoever copies can show that it lives."""
_UNCOUNTED_SEGMENTS: Final = 16
"""For a table of more than a page that the service has not counted yet: it counts every six hours."""


@dataclass(frozen=True, slots=True)
class ScanReader:
    """Reads through a client; safe for many threads. `tables` says which filter a table has.

    `rate`: read units a second of this process, None for no limit; `units` counts them.
    """

    client: Client
    behaviour: Behaviour
    tables: Tables
    rate: float | None
    units: Units

    def rows(self, table: Table, low: Bound, high: Bound, batch: int) -> Iterator[ItemBlock]:
        """The items of a segment, a page at a time with the bookmark to read on after it, at most `batch` at once."""
        place, names = place_of(low, high), [column.name for column in table.key_columns]
        request = self._request(table) | {"Limit": self._limit(table, batch)}
        if place.total > 1:
            request |= {"Segment": place.index, "TotalSegments": place.total}
        after, shown = place.after, time.monotonic()
        while True:
            page = self._page(table, request, after)
            after = "" if page.last_key is None else json.dumps(page.last_key, separators=(",", ":"))
            if page.items or (after and time.monotonic() - shown > _SHOW_SECONDS):
                last = after or key_bytes(names, key_cells(page.items[-1], names)).decode()
                yield ItemBlock(page.items, names, (place.name, last))
                shown = time.monotonic()
            if not after:
                return

    def boundary(self, table: Table, after: Bound, rows: int) -> Bound:
        """The next border between segments, or None behind the last."""
        return following(after, self._segments(table, rows) if after is None else 1)

    def by_keys(self, table: Table, keys: Sequence[Row]) -> Sequence[Row]:
        """The items that have these keys, in any order."""
        names = [column.name for column in table.key_columns]
        texts = list(dict.fromkeys(key_bytes(names, key) for key in keys))
        most = self.behaviour.batch_keys
        calls = [texts[start : start + most] for start in range(0, len(texts), most)]
        found = each(lambda part: self._lookup(table, part), calls, _LOOKUPS)
        return ItemBlock([item for items in found for item in items], names)

    def count(self, table: Table) -> int:
        """How many items there are now that fit the filter; reads all of them."""
        counted, after = 0, ""
        while True:
            page = self._page(table, self._request(table) | {"Select": "COUNT"}, after)
            counted += int(page.rest.get("Count", 0))
            if page.last_key is None:
                return counted
            after = json.dumps(page.last_key)

    # --- calls ---

    def _request(self, table: Table) -> dict[str, Any]:
        override = override_of(table.source_name, self.tables)
        request: dict[str, Any] = {"TableName": table.source_name} | filter_members(override)
        if self.behaviour.consistent_reads:
            request["ConsistentRead"] = True
        if self.behaviour.page_limit:
            request["Limit"] = self.behaviour.page_limit
        if self.behaviour.capacity and self.units.limited:
            request["ReturnConsumedCapacity"] = "TOTAL"
        return request

    def _page(self, table: Table, request: Mapping[str, Any], after: str) -> PageBody:
        body = orjson.dumps(request)
        if after:
            body = body[:-1] + b',"ExclusiveStartKey":' + after.encode() + b"}"
        page = cut_page(self._call(table, "Scan", body))
        self.units.spend(page.units)
        return page

    def _call(self, table: Table, operation: str, body: bytes) -> bytes:
        self.units.wait(self.client.stop)
        try:
            return self.client.call(operation, body)
        except Refused as refusal:
            raise _refused(table, refusal) from None

    def _lookup(self, table: Table, keys: Sequence[bytes]) -> list[bytes]:
        """The items of at most a hundred keys; what the service leaves over is asked for again, to the end."""
        options = b',"ConsistentRead":true' if self.behaviour.consistent_reads else b""
        counted = b',"ReturnConsumedCapacity":"TOTAL"' if self.behaviour.capacity and self.units.limited else b""
        name, found, left = orjson.dumps(table.source_name), list[bytes](), list(keys)

        def step() -> None:
            nonlocal left
            body = b'{"RequestItems":{' + name + b':{"Keys":[' + b",".join(left) + b"]" + options + b"}}" + counted
            items, rest = open_batch(self._call(table, "BatchGetItem", body + b"}"))
            found.extend(items.get(table.source_name, ()))
            self.units.spend(sum(float(used.get("CapacityUnits", 0)) for used in rest.get("ConsumedCapacity") or ()))
            unread = (rest.get("UnprocessedKeys") or {}).get(table.source_name) or {}
            before, left = len(left), [orjson.dumps(key) for key in unread.get("Keys", ())]
            if len(left) == before:
                raise Transient("the source did not look up all keys", where=table.name, why="it is throttled or busy")

        while left:
            retrying(step, backoff=_UNPROCESSED)
        return found

    # --- sizes ---

    def _limit(self, table: Table, batch: int) -> int:
        """Items of a page: what the dialect and the caller want, and little where units are few."""
        limits = [max(1, batch)]
        if self.behaviour.page_limit:
            limits.append(self.behaviour.page_limit)
        if self.rate is not None:
            limits.append(max(1, int(self.rate * _READ_UNIT / _item_bytes(table))))
        return min(limits)

    def _segments(self, table: Table, rows: int) -> int:
        if table.rows_estimate:
            return segments_for(table.rows_estimate, rows)
        page = self._page(table, self._request(table) | {"Select": "COUNT"}, "")
        return 1 if page.last_key is None else _UNCOUNTED_SEGMENTS


def filter_members(override: TableOverride | None) -> dict[str, Any]:
    """The members of a request that hold a table's filter; none without one."""
    wanted = override.filter if override else None
    if wanted is None:
        return {}
    members: dict[str, Any] = {"FilterExpression": wanted.expression}
    if wanted.names:
        members["ExpressionAttributeNames"] = dict(wanted.names)
    if wanted.values:
        members["ExpressionAttributeValues"] = {name: json.loads(text) for name, text in wanted.values.items()}
    return members


def _item_bytes(table: Table) -> float:
    definition = json.loads(table.definition or "{}")
    items, size = definition.get("ItemCount", 0), definition.get("TableSizeBytes", 0)
    return max(1.0, size / items) if items else float(_READ_UNIT)


def _refused(table: Table, refusal: Refused) -> Incompatible:
    if refusal.code == NOT_FOUND:
        return no_table(table.name)
    return Incompatible(
        refusal.what,
        where=table.name,
        why=refusal.why,
        todo="correct the table's filter under tables.overrides[] if it has one; else report this with the endpoint's "
        "version",
    )
