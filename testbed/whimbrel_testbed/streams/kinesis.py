"""The answers of Kinesis Data Streams over streams held in memory, and of DynamoDB about the tables that write there.

Operations, parameters and bounds are those of the API of 2013-12-02, as far as a reader of a table's changes uses them.
No network, and no clock but the one that is given.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from whimbrel_testbed.streams.dials import Dials
from whimbrel_testbed.streams.kinesis_shards import KinesisShard, KinesisStream
from whimbrel_testbed.streams.refusals import Refusal, expired

KINESIS: Final = "Kinesis_20131202"
DESTINATIONS: Final = frozenset(
    f"{verb}KinesisStreamingDestination" for verb in ("Enable", "Disable", "Describe", "Update")
)
"""DynamoDB's operations that are answered here."""
_RECORDS_A_PAGE: Final = 10_000
_SHARDS_A_PAGE: Final = 1000
_USUAL: Final = "MILLISECOND"


class KinesisService:
    """Answers calls about `streams` (by ARN); `destinations`: by table and ARN, status and precision."""

    def __init__(self, clock: Callable[[], float], seed: int, region: str, dials: Dials | None = None) -> None:
        self.streams: dict[str, KinesisStream] = {}
        self.destinations: dict[str, dict[str, dict[str, str]]] = {}
        self.dials, self.generation = dials or Dials(), 0
        self._clock, self._seed, self._region = clock, seed, region
        self._operations: dict[str, Callable[[Mapping[str, Any]], object]] = {
            "CreateStream": self._create,
            "DeleteStream": self._delete,
            "IncreaseStreamRetentionPeriod": self._retain,
            "ListStreams": self._list,
            "DescribeStreamSummary": self._describe,
            "ListShards": self._shards,
            "SplitShard": self._split,
            "MergeShards": self._merge,
            "PutRecord": self._put,
            "GetShardIterator": self._iterator,
            "GetRecords": self._records,
        }

    def answer(self, operation: str, request: Mapping[str, Any]) -> bytes:
        """The JSON text of the answer; Refusal where there is none."""
        known = self._operations.get(operation)
        if known is None:
            raise Refusal("UnknownOperationException", f"the stand-in's Kinesis has no operation {operation}")
        self.dials.admit(f"kinesis:{operation}", self._clock())
        for stream in self.streams.values():
            stream.settle(self._clock())
        return json.dumps(known(request) or {}, separators=(",", ":")).encode()

    def tables(self) -> list[str]:
        """The tables whose changes go somewhere."""
        return [table for table, found in self.destinations.items() if any(map(_is_on, found.values()))]

    def heard(self, table: str, record: Mapping[str, Any], made: float) -> None:
        """A table's record of DynamoDB Streams: it goes into the streams that are its destinations."""
        for arn, destination in self.destinations.get(table, {}).items():
            if _is_on(destination) and arn in self.streams:
                self.streams[arn].offer(table, record, made, self._clock(), destination["precision"])

    # --- DynamoDB's side ---

    def destination(self, operation: str, table: str, request: Mapping[str, Any]) -> bytes:
        """The answer to one of DESTINATIONS."""
        known = self.destinations.setdefault(table, {})
        if operation.startswith("Describe"):
            told = [_destination(arn, each) for arn, each in known.items()]
            return json.dumps({"TableName": table, "KinesisDataStreamDestinations": told}).encode()
        arn = str(request.get("StreamArn"))
        if arn not in self.streams:
            raise Refusal("ResourceNotFoundException", f"Stream {arn} not found")
        settings = (
            request.get("EnableKinesisStreamingConfiguration")
            or request.get("UpdateKinesisStreamingConfiguration")
            or {}
        )
        precision = settings.get("ApproximateCreationDateTimePrecision") or known.get(arn, {}).get("precision", _USUAL)
        status = "DISABLED" if operation.startswith("Disable") else "ACTIVE"
        known[arn] = {"status": status, "precision": precision}
        return json.dumps({"TableName": table, **_destination(arn, known[arn])}).encode()

    # --- streams ---

    def _create(self, request: Mapping[str, Any]) -> None:
        name = str(request["StreamName"])
        arn = _arn(self._region, name)
        if arn in self.streams:
            raise Refusal("ResourceInUseException", f"Stream {name} already exists")
        stream = KinesisStream(name, arn, self._clock(), self._seed + len(self.streams))
        stream.begin(int(request.get("ShardCount") or 1))
        self.streams[arn] = stream

    def _delete(self, request: Mapping[str, Any]) -> None:
        del self.streams[self._stream(request).arn]

    def _retain(self, request: Mapping[str, Any]) -> None:
        self._stream(request).kept_hours = int(request["RetentionPeriodHours"])

    def _list(self, _: Mapping[str, Any]) -> object:
        return {"StreamNames": [stream.name for stream in self.streams.values()], "HasMoreStreams": False}

    def _describe(self, request: Mapping[str, Any]) -> object:
        stream = self._stream(request)
        summary = {
            "StreamName": stream.name, "StreamARN": stream.arn, "StreamStatus": stream.status,
            "RetentionPeriodHours": stream.kept_hours, "StreamCreationTimestamp": stream.created,
            "OpenShardCount": len(stream.open_shards), "RecordDistributionStrategy": stream.distribution,
        }  # fmt: skip
        return {"StreamDescriptionSummary": summary}

    def _shards(self, request: Mapping[str, Any]) -> object:
        token = request.get("NextToken")
        arn, _, start = str(token).partition("|") if token else (self._stream(request).arn, "", "")
        shards = [shard for shard in self._named(arn).shards.values() if shard.shard_id > start]
        limit = int(request.get("MaxResults") or _SHARDS_A_PAGE)
        more = {"NextToken": f"{arn}|{shards[limit - 1].shard_id}"} if len(shards) > limit else {}
        return {"Shards": [_described(shard) for shard in shards[:limit]], **more}

    def _split(self, request: Mapping[str, Any]) -> None:
        stream = self._stream(request)
        stream.split(_shard(stream, request["ShardToSplit"]))

    def _merge(self, request: Mapping[str, Any]) -> None:
        stream = self._stream(request)
        stream.merge(_shard(stream, request["ShardToMerge"]), _shard(stream, request["AdjacentShardToMerge"]))

    def _put(self, request: Mapping[str, Any]) -> None:
        self._stream(request).put(str(request["Data"]), 0, self._clock())

    # --- records ---

    def _iterator(self, request: Mapping[str, Any]) -> object:
        stream = self._stream(request)
        shard = _shard(stream, request["ShardId"])
        return {"ShardIterator": self._pointing(stream, shard, _position(stream, shard, request))}

    def _records(self, request: Mapping[str, Any]) -> object:
        arn, shard_id, position, issued, generation = _opened(str(request.get("ShardIterator")))
        stream, now = self._named(arn), self._clock()
        if generation < self.generation or now - issued > self.dials.iterator_lifetime:
            raise expired()
        shard = _shard(stream, shard_id)
        page = shard.page(position, min(int(request.get("Limit") or _RECORDS_A_PAGE), _RECORDS_A_PAGE))
        after = shard.numbers[page[-1]] + 1 if page else position
        left = page.stop < len(shard.numbers)
        answer: dict[str, Any] = {
            "Records": [_record(shard, at) for at in page],
            "MillisBehindLatest": max(1, int((now - shard.arrived[page.stop]) * 1000)) if left else 0,
        }
        if shard.is_open or left:
            answer["NextShardIterator"] = self._pointing(stream, shard, after)
        return answer

    def _pointing(self, stream: KinesisStream, shard: KinesisShard, position: int) -> str:
        parts = [stream.arn, shard.shard_id, position, self._clock(), self.generation]
        return base64.b64encode(json.dumps(parts).encode()).decode()

    def named(self, name: str) -> KinesisStream:
        """The stream of that name; ValueError where there is none."""
        found = next((stream for stream in self.streams.values() if stream.name == name), None)
        if found is None:
            raise ValueError(f"there is no Kinesis data stream {name}")
        return found

    def _stream(self, request: Mapping[str, Any]) -> KinesisStream:
        arn = request.get("StreamARN") or _arn(self._region, str(request.get("StreamName")))
        return self._named(str(arn))

    def _named(self, arn: str) -> KinesisStream:
        if arn not in self.streams:
            raise Refusal("ResourceNotFoundException", f"Stream {arn} not found")
        return self.streams[arn]


def _arn(region: str, name: str) -> str:
    return f"arn:aws:kinesis:{region}:000000000000:stream/{name}"


def _position(stream: KinesisStream, shard: KinesisShard, request: Mapping[str, Any]) -> int:
    """Where an iterator begins; what is older than all that is kept begins with that, in silence."""
    kind = request.get("ShardIteratorType")
    if kind == "TRIM_HORIZON":
        return shard.starting
    if kind == "LATEST":
        return stream.numbers.last + 1
    if kind == "AT_TIMESTAMP":
        first = shard.since(float(request["Timestamp"]))
        return stream.numbers.last + 1 if first is None else first
    if kind not in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        raise Refusal("InvalidArgumentException", f"ShardIteratorType {kind} is not known")
    number = int(request["StartingSequenceNumber"])
    if not shard.starting <= number <= (stream.numbers.last if shard.ending is None else shard.ending):
        raise Refusal("InvalidArgumentException", f"{number} is no sequence number of {shard.shard_id}")
    return number if kind == "AT_SEQUENCE_NUMBER" else number + 1


def _opened(text: str) -> tuple[str, str, int, float, int]:
    try:
        arn, shard_id, position, issued, generation = json.loads(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error) as error:
        raise Refusal("InvalidArgumentException", "Invalid ShardIterator.") from error
    return str(arn), str(shard_id), int(position), float(issued), int(generation)


def _shard(stream: KinesisStream, shard_id: object) -> KinesisShard:
    found = stream.shards.get(str(shard_id))
    if found is None:
        raise Refusal("ResourceNotFoundException", f"Shard {shard_id} in stream {stream.name} does not exist")
    return found


def _described(shard: KinesisShard) -> dict[str, Any]:
    numbers = {"StartingSequenceNumber": str(shard.starting)}
    if shard.ending is not None:
        numbers["EndingSequenceNumber"] = str(shard.ending)
    parents = dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
    hashes = {"StartingHashKey": str(shard.low), "EndingHashKey": str(shard.high - 1)}
    return {"ShardId": shard.shard_id, "HashKeyRange": hashes, "SequenceNumberRange": numbers, **parents}


def _record(shard: KinesisShard, at: int) -> dict[str, Any]:
    return {
        "SequenceNumber": str(shard.numbers[at]), "ApproximateArrivalTimestamp": shard.arrived[at],
        "Data": shard.data[at], "PartitionKey": f"{shard.places[at]:032X}",
    }  # fmt: skip


def _destination(arn: str, known: Mapping[str, str]) -> dict[str, str]:
    return {
        "StreamArn": arn, "DestinationStatus": known["status"],
        "ApproximateCreationDateTimePrecision": known["precision"],
    }  # fmt: skip


def _is_on(destination: Mapping[str, str]) -> bool:
    return destination["status"] == "ACTIVE"
