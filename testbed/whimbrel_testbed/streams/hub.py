"""Which stream of ours stands for which real one, and how tables' descriptions show it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from whimbrel_testbed.streams.kinesis import KinesisService
from whimbrel_testbed.streams.refusals import Refusal
from whimbrel_testbed.streams.service import StreamsService
from whimbrel_testbed.streams.shards import Numbers, Stream
from whimbrel_testbed.streams.tail import Tail
from whimbrel_testbed.streams.upstream import STREAMS, TABLES, Behind, UpstreamError

_DESCRIPTIONS: Final = ("TableDescription", "Table")


class Hub:
    """All streams. What is here follows the endpoint behind: a stream is taken over when it is first seen."""

    def __init__(self, behind: Behind, seed: int, clock: Callable[[], float] = time.time) -> None:
        self.behind, self.clock = behind, clock
        self.service = StreamsService(clock, seed)
        self.kinesis = KinesisService(clock, seed, behind.endpoint.region, self.service.dials)
        self.first_number: int | None = None
        self._seed = seed
        self._by_source: dict[str, Tail] = {}
        self._by_arn: dict[str, Tail] = {}
        self._one = asyncio.Lock()

    async def adopt_all(self) -> None:
        """Take over every stream there is behind."""
        found: list[dict[str, str]] = []
        start: dict[str, str] = {}
        while True:
            page = await self.behind.call(STREAMS, "ListStreams", start)
            found += page["Streams"]
            if "LastEvaluatedStreamArn" not in page:
                break
            start = {"ExclusiveStartStreamArn": page["LastEvaluatedStreamArn"]}
        for stream in sorted(found, key=lambda stream: stream["StreamLabel"]):
            await self._adopted(stream["StreamArn"])

    async def describe(self, body: bytes) -> bytes:
        """The body of an answer that describes a table, with our stream instead of the real one."""
        answer = json.loads(body)
        described = [answer[name] for name in _DESCRIPTIONS if name in answer]
        for description in described:
            await self._show(description)
        return json.dumps(answer, separators=(",", ":")).encode() if described else body

    async def end(self, table: str) -> None:
        """The table's streams are disabled behind (or the table is gone): take what is left of them and close them."""
        for tail in self._tails(table):
            tail.over = True
            await tail.catch_up()
        self.kinesis.destinations.pop(table, None)

    async def destination(self, operation: str, table: str, request: Mapping[str, Any]) -> bytes:
        """The answer to a call about the Kinesis data streams that a table's changes go to.

        They come from the table's stream, which is enabled for that where it is not.
        """
        try:
            described = (await self.behind.call(TABLES, "DescribeTable", {"TableName": table}))["Table"]
        except UpstreamError as error:
            raise Refusal(error.kind, error.text) from error
        if (described.get("StreamSpecification") or {}).get("StreamEnabled"):
            await self._show(described)
        elif operation.startswith("Enable"):
            await self._update(table, {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"})
        for tail in self._tails(table):
            await tail.catch_up()
        return self.kinesis.destination(operation, table, request)

    async def catch_up_kinesis(self) -> None:
        """Have in all Kinesis data streams what was acknowledged by now, or on its way there.

        No reader waits for it: as in the service, a change arrives a moment after its write was answered.
        """
        for table in self.kinesis.tables():
            for tail in self._tails(table):
                await tail.catch_up()

    async def catch_up(self, arn: str) -> None:
        """Have in the stream of this ARN what was acknowledged by now; nothing where it is closed or unknown."""
        if arn in self._by_arn:
            await self._by_arn[arn].catch_up()

    @contextmanager
    def writing(self, tables: Collection[str] | None) -> Iterator[None]:
        """A write to these tables (None: to any) is under way."""
        with ExitStack() as writes:
            for tail in self._by_arn.values():
                if tail.stream.enabled and (tables is None or tail.stream.table in tables):
                    writes.enter_context(tail.writing())
            yield

    def close(self) -> None:
        """Fetch nothing more unasked."""
        for tail in self._by_arn.values():
            tail.close()

    def newest(self, table: str) -> Tail:
        """The tail of the table's newest stream; ValueError where it has none."""
        tails = self._tails(table)
        if not tails:
            raise ValueError(f"table {table} has no stream; enable one with UpdateTable, or ask DescribeTable first")
        return tails[-1]

    def _tails(self, table: str) -> list[Tail]:
        """The table's tails, oldest first: ARNs of one table differ only in their labels, which are times."""
        tails = [tail for tail in self._by_arn.values() if tail.stream.table == table]
        return sorted(tails, key=lambda tail: tail.source)

    async def recreate(self, table: str) -> Stream:
        """Disable and enable the table's stream."""
        view = self.newest(table).stream.view_type
        if self.newest(table).stream.enabled:
            await self._update(table, {"StreamEnabled": False})
        await self._update(table, {"StreamEnabled": True, "StreamViewType": view})
        return self.newest(table).stream

    async def _update(self, table: str, specification: Mapping[str, Any]) -> None:
        answer = await self.behind.call(
            TABLES, "UpdateTable", {"TableName": table, "StreamSpecification": specification}
        )
        await self._show(answer["TableDescription"])

    async def _show(self, description: dict[str, Any]) -> None:
        source = description.get("LatestStreamArn")
        if source is None:
            return
        tail = await self._adopted(source)
        if not description.get("StreamSpecification", {}).get("StreamEnabled"):
            tail.over = True
            await tail.catch_up()
        description["LatestStreamArn"], description["LatestStreamLabel"] = tail.stream.arn, tail.stream.label

    async def _adopted(self, source: str) -> Tail:
        async with self._one:
            if source not in self._by_source:
                await self._adopt(source)
            return self._by_source[source]

    async def _adopt(self, source: str) -> None:
        answer = await self.behind.call(STREAMS, "DescribeStream", {"StreamArn": source})
        real = answer["StreamDescription"]
        for elder in self._tails(real["TableName"]):
            elder.over = elder.over or elder.source < source
        stream = self._stream(source, real)
        tail = Tail(self.behind, source, stream, self.clock)
        self._by_source[source] = self._by_arn[stream.arn] = tail
        self.service.streams[stream.arn] = stream
        tail.over = real["StreamStatus"] == "DISABLED"

    def _stream(self, source: str, real: Mapping[str, Any]) -> Stream:
        stem, _, label = source.rpartition("/")
        moment = datetime.fromtimestamp(self.clock(), UTC)
        taken = {label, *(stream.label for stream in self.service.streams.values())}
        while (ours := moment.replace(tzinfo=None).isoformat(timespec="milliseconds")) in taken:
            moment += timedelta(milliseconds=1)
        numbers = Numbers(self._seed + len(self.service.streams))
        if self.first_number is not None:
            numbers.jump(self.first_number)
        stream = Stream(
            f"{stem}/{ours}", ours, real["TableName"], real["StreamViewType"], real["KeySchema"], self.clock(), numbers,
            self._seed,
        )  # fmt: skip
        stream.heard = partial(self.kinesis.heard, stream.table)
        stream.begin(self.service.dials.initial_shards, self.clock())
        return stream
