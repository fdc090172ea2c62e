"""The answers of DynamoDB Streams over streams held in memory; no network, and no clock but the one that is given.

Operations, parameters and bounds are those of the API of 2012-08-10.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from whimbrel_testbed.streams.dials import Dials
from whimbrel_testbed.streams.iterators import ShardIterator, iterator_of
from whimbrel_testbed.streams.refusals import Refusal, expired, invalid, no_shard, no_stream, out_of_range, trimmed
from whimbrel_testbed.streams.shards import Shard, Stream

_SHARDS_A_PAGE: Final = 100
_STREAMS_A_PAGE: Final = 100
_RECORDS_A_PAGE: Final = 1000
_BYTES_A_PAGE: Final = 2**20
_NUMBER: Final = re.compile("[0-9]{21,40}")


class StreamsService:
    """Answers calls about `streams` (by ARN, oldest first), as the dials say."""

    def __init__(self, clock: Callable[[], float], seed: int) -> None:
        self.streams: dict[str, Stream] = {}
        self.dials = Dials()
        self.generation = 0
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311
        self._operations: dict[str, Callable[[Mapping[str, Any]], bytes]] = {
            "ListStreams": self._list,
            "DescribeStream": self._describe,
            "GetShardIterator": self._iterator,
            "GetRecords": self._records,
        }

    def answer(self, operation: str, request: Mapping[str, Any]) -> bytes:
        """The JSON text of the answer; Refusal where there is none."""
        known = self._operations.get(operation)
        if known is None:
            raise Refusal("UnknownOperationException", f"DynamoDB Streams has no operation {operation}")
        self.dials.admit(operation, self._clock())
        return known(request)

    def lacks(self, operation: str, request: Mapping[str, Any]) -> list[str]:
        """The ARN of the stream whose newest records must be here before the call can be answered exactly, if any."""
        if operation == "ListStreams":
            return []
        if operation != "GetRecords":
            return [str(request.get("StreamArn", ""))]
        iterator = iterator_of(str(request.get("ShardIterator", "")))
        stream = self.streams.get(iterator.arn)
        shard = None if stream is None else stream.shards.get(iterator.shard_id)
        return [] if shard is None or shard.holds_from(iterator.position) else [iterator.arn]

    def _list(self, request: Mapping[str, Any]) -> bytes:
        limit = _limit(request, _STREAMS_A_PAGE)
        table = request.get("TableName")
        streams = [stream for stream in self.streams.values() if table in (None, stream.table)]
        streams = _after(streams, request.get("ExclusiveStartStreamArn"), lambda stream: stream.arn)
        page: dict[str, Any] = {
            "Streams": [{"StreamArn": s.arn, "TableName": s.table, "StreamLabel": s.label} for s in streams[:limit]]
        }
        if len(streams) > limit:
            page["LastEvaluatedStreamArn"] = streams[limit - 1].arn
        return _text(page)

    def _describe(self, request: Mapping[str, Any]) -> bytes:
        stream = self._stream(request)
        limit = _limit(request, _SHARDS_A_PAGE)
        shards = _after(self._ordered(stream), request.get("ExclusiveStartShardId"), lambda shard: shard.shard_id)
        shards = _filtered([shard for shard in shards if self._is_shown(shard)], request.get("ShardFilter"))
        described: dict[str, Any] = {
            "StreamArn": stream.arn, "StreamLabel": stream.label, "TableName": stream.table,
            "StreamStatus": "ENABLED" if stream.enabled else "DISABLED", "StreamViewType": stream.view_type,
            "CreationRequestDateTime": stream.created, "KeySchema": stream.key_schema,
            "Shards": [_described(shard) for shard in shards[:limit]],
        }  # fmt: skip
        if len(shards) > limit:
            described["LastEvaluatedShardId"] = shards[limit - 1].shard_id
        return _text({"StreamDescription": described})

    def _ordered(self, stream: Stream) -> list[Shard]:
        """All shards as DescribeStream lists them: one shard's place does not depend on which others there are."""
        seed = self.dials.listing_seed
        if seed is None:
            return list(stream.shards.values())
        place = {s: hashlib.sha256(f"{seed} {s}".encode()).digest() for s in stream.shards}
        return [stream.shards[shard_id] for shard_id in sorted(stream.shards, key=place.__getitem__)]

    def _is_shown(self, shard: Shard) -> bool:
        born_by = self._clock() - self.dials.delay_new_shards
        return not shard.dropped and (shard.parent is None or shard.created <= born_by)

    def _iterator(self, request: Mapping[str, Any]) -> bytes:
        stream = self._stream(request)
        shard = self._shard(stream, str(request.get("ShardId", "")))
        position = _position(stream, shard, request)
        iterator = ShardIterator(
            stream.arn, shard.shard_id, position, self._clock(), self.generation, f"{self._random.getrandbits(48):x}"
        )
        return _text({"ShardIterator": iterator.text()})

    def _records(self, request: Mapping[str, Any]) -> bytes:
        iterator = iterator_of(str(request.get("ShardIterator", "")))
        limit = _limit(request, _RECORDS_A_PAGE)
        stream = self.streams.get(iterator.arn)
        if stream is None:
            raise no_stream(iterator.arn)
        shard = stream.shards.get(iterator.shard_id)
        if shard is None:
            raise no_shard(iterator.shard_id, stream.arn)
        now = self._clock()
        self._check(iterator, shard, now)
        return self._page(iterator, shard, limit, now)

    def _check(self, iterator: ShardIterator, shard: Shard, now: float) -> None:
        if iterator.generation < self.generation or now - iterator.issued > self.dials.iterator_lifetime:
            raise expired()
        if shard.dropped or iterator.position <= shard.last_trimmed:
            raise trimmed()
        highest, window = self.dials.max_readers, self.dials.reader_window
        if highest is None:
            return
        others = {r: at for r, at in shard.readers.items() if at > now - window and r != iterator.reader}
        shard.readers = others
        if len(others) >= highest:
            raise Refusal("LimitExceededException", f"More than {highest} readers of shard {shard.shard_id}")
        shard.readers[iterator.reader] = now

    def _page(self, iterator: ShardIterator, shard: Shard, limit: int, now: float) -> bytes:
        records, position = shard.page(iterator.position, limit, _BYTES_A_PAGE)
        if shard.empty_pages > 0:
            shard.empty_pages -= 1
            records, position = [], iterator.position
        elif shard.ends_at(position):
            return b'{"Records":[%b]}' % b",".join(records)
        after = ShardIterator(iterator.arn, shard.shard_id, position, now, self.generation, iterator.reader)
        return b'{"Records":[%b],"NextShardIterator":%b}' % (b",".join(records), _text(after.text()))

    def _stream(self, request: Mapping[str, Any]) -> Stream:
        arn = str(request.get("StreamArn", ""))
        if arn not in self.streams:
            raise no_stream(arn)
        return self.streams[arn]

    def _shard(self, stream: Stream, shard_id: str) -> Shard:
        shard = stream.shards.get(shard_id)
        if shard is None or shard.dropped:
            raise no_shard(shard_id, stream.arn)
        return shard


def _position(stream: Stream, shard: Shard, request: Mapping[str, Any]) -> int:
    """Where an iterator of this kind begins. A kind with a number is refused where the number is trimmed or foreign."""
    kind, given = request.get("ShardIteratorType"), request.get("SequenceNumber")
    if kind == "TRIM_HORIZON":
        return max(shard.starting, shard.trimmed_below)
    if kind == "LATEST":
        return stream.numbers.last + 1
    if kind not in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        raise invalid(f"ShardIteratorType {kind} is none of TRIM_HORIZON, LATEST, AT_ and AFTER_SEQUENCE_NUMBER")
    if not isinstance(given, str) or not _NUMBER.fullmatch(given):
        raise invalid("One or more parameter values were invalid: Invalid SequenceNumber")
    number = int(given)
    if shard.starting <= number < shard.trimmed_below:
        raise trimmed()
    if not shard.starting <= number <= (stream.numbers.last if shard.ending is None else shard.ending):
        raise invalid(f"One or more parameter values were invalid: SequenceNumber {given} is not of {shard.shard_id}")
    return number if kind == "AT_SEQUENCE_NUMBER" else number + 1


def _described(shard: Shard) -> dict[str, Any]:
    numbers = {"StartingSequenceNumber": str(shard.starting)}
    if shard.ending is not None:
        numbers["EndingSequenceNumber"] = str(shard.ending)
    parent = {} if shard.parent is None else {"ParentShardId": shard.parent}
    return {"ShardId": shard.shard_id, "SequenceNumberRange": numbers, **parent}


def _filtered(shards: list[Shard], wanted: Mapping[str, Any] | None) -> list[Shard]:
    if wanted is None:
        return shards
    if wanted.get("Type") != "CHILD_SHARDS":
        raise invalid("ShardFilter: the only type is CHILD_SHARDS")
    return [shard for shard in shards if shard.parent == wanted.get("ShardId")]


def _after(things: list[Any], start: str | None, name: Callable[[Any], str]) -> list[Any]:
    """What comes after the thing of that name; Refusal where there is no such thing."""
    if start is None:
        return things
    names = [name(thing) for thing in things]
    if start not in names:
        raise invalid(f"One or more parameter values were invalid: {start} does not exist")
    return things[names.index(start) + 1 :]


def _limit(request: Mapping[str, Any], highest: int) -> int:
    limit = request.get("Limit", highest)
    if not isinstance(limit, int) or not 1 <= limit <= highest:
        raise out_of_range("Limit", highest)
    return limit


def _text(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
