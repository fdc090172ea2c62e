"""Reads a DynamoDB target for a comparison: items by key, keys by segments, counts. Nothing is compared here.

Keys are spread by a hash, so there is no range to read; a comparison goes by lookup in both directions.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

import orjson

from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.engine.retry import Backoff
from whimbrel_worker.errors import ConfigurationError, Transient
from whimbrel_worker.values.behaviour import Behaviour
from whimbrel_worker.values.columns import Row, Table
from whimbrel_worker.values.items import cut_page, key_bytes, key_cells, key_json, open_batch

_AGAIN: Final = Backoff(base=0.05, cap=5.0, attempts=60)


class DynamoDBReader:
    """Implements ports.TargetReader. Safe for many threads."""

    def __init__(self, client: Client, behaviour: Behaviour) -> None:
        self._client, self._behaviour = client, behaviour

    def range(self, table: Table, low: Row | None, high: Row | None) -> Iterator[Sequence[Row]]:  # noqa: ARG002 - the port's
        """Raises ConfigurationError: there is no order of keys here."""
        raise ConfigurationError(
            "a DynamoDB table cannot be read by ranges of its key",
            where=table.name,
            why="its keys are spread by a hash; item tables are compared by lookup",
            todo="report this: it should not have been tried",
        )

    def by_keys(self, table: Table, keys: Sequence[Row]) -> Sequence[Row]:
        """The rows that have these keys, in any order."""
        names, rows, left = _key_names(table), list[Row](), iter(keys)
        while some := list(islice(left, self._behaviour.batch_keys)):
            rows += [(*key_cells(item, names), item) for item in self._batch(table, names, some)]
        return rows

    def keys_after(self, table: Table, after: Row | None, limit: int) -> Sequence[Row]:
        """The next keys in the target's own order."""
        names, found = _key_names(table), list[Row]()
        start = None if after is None else key_json(names, after)
        for keys, last in self._pages(table, {}, start, limit):
            found += keys
            if last is None or len(found) >= limit:
                break
        return found[:limit]

    def segment_keys(self, table: Table, index: int, total: int) -> Iterator[Sequence[Row]]:
        """All keys of segment `index` of `total`, in batches; each key is in one segment."""
        segment: dict[str, object] = {} if total == 1 else {"Segment": index, "TotalSegments": total}
        for keys, _ in self._pages(table, segment, None, None):
            if keys:
                yield keys

    def count(self, table: Table) -> int:
        """How many items there are now, by reading all of them."""
        request: dict[str, Any] = {"TableName": table.target_name, "Select": "COUNT", **self._consistent()}
        request |= self._limit(None)
        counted = 0
        while True:
            page = self._client.ask("Scan", request)
            counted += int(page["Count"])
            if not page.get("LastEvaluatedKey"):
                return counted
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def close(self) -> None:
        """Nothing is held open."""

    def _batch(self, table: Table, names: Sequence[str], keys: Sequence[Row]) -> list[bytes]:
        """The items of up to 100 keys; what comes back unprocessed is asked for again until nothing is left."""
        wanted, items, delays = [key_bytes(names, key) for key in keys], list[bytes](), _AGAIN.delays()
        while True:
            reply = self._client.call("BatchGetItem", self._batch_body(table, wanted))
            found, rest = open_batch(reply)
            items += found.get(table.target_name, [])
            unprocessed = (rest.get("UnprocessedKeys") or {}).get(table.target_name, {}).get("Keys", ())
            if not unprocessed:
                return items
            delay = next(delays, None) if len(unprocessed) == len(wanted) else 0.0
            if delay is None or self._client.stop.wait(delay):
                raise Transient("the target leaves keys unread again and again", where=table.name)
            wanted = [orjson.dumps(key) for key in unprocessed]

    def _batch_body(self, table: Table, keys: Sequence[bytes]) -> bytes:
        consistent = b',"ConsistentRead":true' if self._behaviour.consistent_reads else b""
        name = orjson.dumps(table.target_name)
        return b'{"RequestItems":{%b:{"Keys":[%b]%b}}}' % (name, b",".join(keys), consistent)

    def _pages(
        self, table: Table, segment: dict[str, object], start: dict[str, Any] | None, limit: int | None
    ) -> Iterator[tuple[list[Row], dict[str, Any] | None]]:
        """Keys page by page, each with where to read on; None after the last."""
        names = _key_names(table)
        request: dict[str, object] = {
            "TableName": table.target_name,
            "ProjectionExpression": ", ".join(f"#k{number}" for number in range(len(names))),
            "ExpressionAttributeNames": {f"#k{number}": name for number, name in enumerate(names)},
            **segment,
            **self._consistent(),
            **self._limit(limit),
        }
        while True:
            if start is not None:
                request["ExclusiveStartKey"] = start
            page = cut_page(self._client.call("Scan", orjson.dumps(request)))
            start = page.last_key
            yield [key_cells(item, names) for item in page.items], start
            if start is None:
                return

    def _limit(self, wanted: int | None) -> dict[str, int]:
        """The Limit to ask for: what is wanted, and never left to a service that then gives few."""
        most = self._behaviour.page_limit
        limit = most if wanted is None else wanted if most is None else min(wanted, most)
        return {} if limit is None else {"Limit": limit}

    def _consistent(self) -> dict[str, bool]:
        return {"ConsistentRead": True} if self._behaviour.consistent_reads else {}


def _key_names(table: Table) -> list[str]:
    return [column.name for column in table.key_columns]
