"""Follows the real stream of a table, so that our stream has its records at once and in their order."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from whimbrel_testbed.streams.shards import Stream
from whimbrel_testbed.streams.upstream import STREAMS, Behind, UpstreamError

_PAGE: Final = 1000
_GATHER_SECONDS: Final = 0.1
"""How long writes are gathered before they are fetched unasked. No reader waits for that: it only bounds how much there
is to fetch when one comes. Each fetch costs the engine as much as a write."""
_BY_TIME_TO_LIVE: Final = {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"}

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Write:
    """A write to the table: Unix seconds of its beginning, and whether it was answered."""

    begun: float
    over: bool = False


class Tail:
    """Copies records of the stream `source` of the endpoint behind into `stream`.

    DynamoDB Local shows a record before it acknowledges the write, and pages of less than 1,000 records end at the
    newest one; so what was acknowledged before `catch_up` began is here when it returns. `over`: the real stream is
    disabled, so that ours is to close once all is here.
    """

    def __init__(self, behind: Behind, source: str, stream: Stream, clock: Callable[[], float]) -> None:
        self.stream, self.source = stream, source
        self._behind, self._clock = behind, clock
        self.over = False
        self._seen: list[str] = []
        self._iterator: str | None = None
        self._last: str | None = None
        self._asked = self._done = 0
        self._one = asyncio.Lock()
        self._soon = False
        self._writes: set[_Write] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_time_to_live: Counter[str] = Counter()

    async def catch_up(self) -> None:
        """Return when all is here that was acknowledged before the call; calls at the same time share the work."""
        if not self.stream.enabled:
            return
        self._asked += 1
        mine = self._asked
        async with self._one:
            if self._done >= mine:
                return
            covers = self._asked
            over = self.over
            await self._pump()
            self._done = covers
            if over and self.stream.enabled:
                self.stream.disable(self._clock())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A write is under way; its records come unasked soon after it, and their time is not after its beginning."""
        write = _Write(self._clock())
        self._writes.add(write)
        try:
            yield
        finally:
            write.over = True
            self._catch_up_soon()

    def close(self) -> None:
        """Fetch nothing more unasked."""
        for task in self._tasks:
            task.cancel()

    def _catch_up_soon(self) -> None:
        if not self._soon:
            self._soon = True
            task = asyncio.ensure_future(self._after_a_moment())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def mark(self, key: Mapping[str, Any], times: int = 1) -> None:
        """The next REMOVE record of this key is by time to live (-1 takes a mark back)."""
        self._by_time_to_live[_name(key)] += times

    async def _after_a_moment(self) -> None:
        await asyncio.sleep(_GATHER_SECONDS)
        # Whoever writes from here on asks again.
        self._soon = False
        try:
            await self.catch_up()
        except (UpstreamError, aiohttp.ClientError) as error:
            # Whoever reads next gets the error, or what is missing here.
            _log.warning("records of %s could not be fetched yet: %s", self.source, error)

    async def _pump(self) -> None:
        past = {write for write in self._writes if write.over}
        begun = min((write.begun for write in self._writes), default=float("inf"))
        await self._fetch(begun)
        self._writes -= past

    async def _fetch(self, begun: float) -> None:
        while self._iterator is not None or await self._next_shard():
            page = await self._page()
            moment = min(begun, self._clock())
            for record in page["Records"]:
                self._take(record, moment)
            self._iterator = page.get("NextShardIterator")
            if self._iterator is not None and len(page["Records"]) < _PAGE:
                return

    async def _page(self) -> dict[str, Any]:
        try:
            return await self._ask("GetRecords", {"ShardIterator": self._iterator, "Limit": _PAGE})
        except UpstreamError as error:
            # DynamoDB Local says Trimmed to an iterator into an empty shard once the first record has come.
            if error.kind not in ("ExpiredIteratorException", "TrimmedDataAccessException"):
                raise
        await self._point(self._seen[-1])
        return await self._ask("GetRecords", {"ShardIterator": self._iterator, "Limit": _PAGE})

    def _take(self, record: dict[str, Any], moment: float) -> None:
        self._last = record["dynamodb"]["SequenceNumber"]
        name = _name(record["dynamodb"]["Keys"])
        if record["eventName"] == "REMOVE" and self._by_time_to_live[name] > 0:
            self._by_time_to_live[name] -= 1
            record["userIdentity"] = _BY_TIME_TO_LIVE
        record["awsRegion"] = self._behind.endpoint.region
        for image in ("OldImage", "NewImage"):
            if image in record["dynamodb"]:
                record["dynamodb"][image] = {at: _whole(value) for at, value in record["dynamodb"][image].items()}
        self.stream.append(record, moment)

    async def _next_shard(self) -> bool:
        """Go on with the first shard that was not read yet; there is none at the end of a disabled stream."""
        shards = await self.shards_behind()
        unread = [shard["ShardId"] for shard in shards if shard["ShardId"] not in self._seen]
        if not unread:
            return False
        self._seen.append(unread[0])
        self._last = None
        await self._point(unread[0])
        return True

    async def _point(self, shard_id: str) -> None:
        place = {"StreamArn": self.source, "ShardId": shard_id, "ShardIteratorType": "TRIM_HORIZON"}
        if self._last is not None:
            place |= {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": self._last}
        self._iterator = (await self._ask("GetShardIterator", place))["ShardIterator"]

    async def shards_behind(self) -> list[dict[str, Any]]:
        """The shards of the real stream, parents before their children."""
        shards: list[dict[str, Any]] = []
        start: dict[str, str] = {}
        while True:
            asked = {"StreamArn": self.source, **start}
            page = (await self._ask("DescribeStream", asked))["StreamDescription"]
            shards += page["Shards"]
            if "LastEvaluatedShardId" not in page:
                return sorted(shards, key=lambda s: int(s["SequenceNumberRange"]["StartingSequenceNumber"]))
            start = {"ExclusiveStartShardId": page["LastEvaluatedShardId"]}

    async def _ask(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        return await self._behind.call(STREAMS, operation, request)


def _name(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)


def _whole(value: dict[str, Any]) -> dict[str, Any]:
    """An attribute as AWS shows it: DynamoDB Local's streams, unlike its tables, show an empty map as `{}`."""
    if not value:
        return {"M": {}}
    if "M" in value:
        return {"M": {name: _whole(each) for name, each in value["M"].items()}}
    return {"L": [_whole(each) for each in value["L"]]} if "L" in value else value
