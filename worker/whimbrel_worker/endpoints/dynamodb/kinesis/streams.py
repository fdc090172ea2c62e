"""Kinesis data streams as they are described: which one a table's changes go to, its shards and how long it keeps them.

No record is read here. API: Amazon Kinesis Data Streams API reference (ListShards, DescribeStreamSummary); Amazon
DynamoDB API reference (DescribeKinesisStreamingDestination).
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from whimbrel_api.endpoints import KinesisStream
from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import NOT_FOUND
from whimbrel_worker.engine.shard_ports import Shard, ShardRef

_MARK: Final = "@"
"""Between a stream's ARN and the second it was made in: a stream of the same name made anew has the same ARN."""
_SERVICE: Final = ":kinesis:"
_WRITTEN: Final = ("ACTIVE", "UPDATING")
_BY_KEY: Final = "USER_PARTITION_KEY"
"""What a stream does that does not say: records of one partition key share a shard."""
_SHARDS_A_PAGE: Final = 1000
_PARENTS: Final = ("ParentShardId", "AdjacentParentShardId")
_LOOK_AGAIN_SECONDS: Final = 30.0


def is_kinesis(stream: str) -> bool:
    """Whether this names a Kinesis data stream, and not one of DynamoDB Streams."""
    return _SERVICE in stream


def arn_of(stream: str) -> str:
    """The ARN in a ShardRef's `stream`."""
    return stream.partition(_MARK)[0]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a table's changes go, as the table says it; `arn` is empty where the wanted stream is no destination."""

    arn: str = ""
    status: str = ""
    precision: str = ""

    @property
    def is_written(self) -> bool:
        """Whether changes go there now, and went there without a break while it was so described."""
        return self.status in _WRITTEN


@dataclass(frozen=True, slots=True)
class StreamState:
    """A Kinesis data stream. `stream`: its name for a ShardRef; `kept`: seconds; `open_shards`: how many.

    `scatters`: an item's records go into any shard, so that no shard holds the order of an item's changes.
    """

    stream: str
    status: str
    kept: float
    open_shards: int
    scatters: bool = False

    @property
    def is_readable(self) -> bool:
        """Whether records can be read."""
        return self.status in _WRITTEN


@dataclass(slots=True)
class KinesisStreams:
    """The streams that a manifest names. `client` asks DynamoDB, `kinesis` Kinesis. Safe for many threads."""

    client: Client
    kinesis: Client
    wanted: Sequence[KinesisStream]
    _states: dict[str, tuple[float, StreamState]] = field(default_factory=dict)
    _listing: threading.Lock = field(default_factory=threading.Lock)

    def named(self, table: str) -> str:
        """The name or ARN of the stream that follows the table; empty where DynamoDB Streams do."""
        fitting = (each.stream for each in self.wanted if any(fnmatchcase(table, glob) for glob in each.tables))
        return next(fitting, "")

    def destination(self, table: str) -> Destination:
        """Where the table's changes go, as far as the wanted stream is concerned. Raises Refused without a table."""
        named = self.named(table)
        answer = self.client.ask("DescribeKinesisStreamingDestination", {"TableName": table})
        for each in answer.get("KinesisDataStreamDestinations") or ():
            arn = str(each.get("StreamArn"))
            if named in (arn, arn.rpartition("/")[2]):
                precision = str(each.get("ApproximateCreationDateTimePrecision") or "")
                return Destination(arn, str(each.get("DestinationStatus")), precision)
        return Destination()

    def state(self, arn: str) -> StreamState | None:
        """The stream, as of half a minute ago at most; None when it is gone."""
        known = self._recent(arn)
        if known is not None:
            return known
        with self._listing:
            found = self._recent(arn) or self._described(arn)
            if found is None:
                self._states.pop(arn, None)
            elif self._recent(arn) is None:
                self._states[arn] = time.monotonic(), found
        return found

    def _recent(self, arn: str) -> StreamState | None:
        looked, known = self._states.get(arn, (0.0, None))
        return known if time.monotonic() - looked < _LOOK_AGAIN_SECONDS else None

    def forget(self, arn: str) -> None:
        """Ask anew how the stream is."""
        self._states.pop(arn, None)

    def _described(self, arn: str) -> StreamState | None:
        try:
            said = self.kinesis.ask("DescribeStreamSummary", {"StreamARN": arn})["StreamDescriptionSummary"]
        except Refused as refusal:
            if refusal.code == NOT_FOUND:
                return None
            raise
        return StreamState(
            stream=f"{arn}{_MARK}{int(float(said.get('StreamCreationTimestamp') or 0))}",
            status=str(said.get("StreamStatus")),
            kept=float(said["RetentionPeriodHours"]) * 3600.0,
            open_shards=int(said.get("OpenShardCount") or 0),
            scatters=said.get("RecordDistributionStrategy", _BY_KEY) != _BY_KEY,
        )

    def listed(self, arn: str) -> list[Mapping[str, Any]] | None:
        """All shards that still hold records or may get some, in the service's words; None without a stream."""
        shards: list[Mapping[str, Any]] = []
        request: dict[str, object] = {"StreamARN": arn, "MaxResults": _SHARDS_A_PAGE}
        while True:
            try:
                answer = self.kinesis.ask("ListShards", request)
            except Refused as refusal:
                if refusal.code == NOT_FOUND:
                    return None
                raise
            shards += answer.get("Shards") or ()
            if not answer.get("NextToken"):
                return shards
            request = {"NextToken": answer["NextToken"], "MaxResults": _SHARDS_A_PAGE}


def ancestors(listed: Iterable[Mapping[str, Any]], parents: Sequence[str], generations: int) -> list[str]:
    """These parents and what they came from, so many generations as far as they are listed, the oldest first."""
    known = {str(each["ShardId"]): each for each in listed}
    found: list[str] = []
    generation = [name for name in parents if name in known]
    for _ in range(generations):
        found += [name for name in generation if name not in found]
        generation = _parents(known, generation)
    return found[::-1]


def _parents(known: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    named = [str(known.get(name, {}).get(member) or "") for name in names for member in _PARENTS]
    return [name for name in named if name in known]


def as_shard(table: str, stream: str, shard: Mapping[str, Any]) -> Shard:
    """A shard as the engine sees it, for one of the tables whose records it holds. Merged ones have two parents."""
    closed = bool((shard.get("SequenceNumberRange") or {}).get("EndingSequenceNumber"))
    parent, adjacent = (str(shard.get(name) or "") for name in _PARENTS)
    return Shard(ShardRef(table, stream, str(shard["ShardId"])), parent, closed, adjacent)
