"""A Kinesis data stream as shards of records: late, twice and out of order, with splits and merges; no protocol here.

A record waits for a time drawn from the stream's dials before it arrives, in the shard that is open by then. So it may
arrive after a newer one of its item, or in a child while the newer one is in the parent, as the service may have it.
"""

from __future__ import annotations

import base64
import heapq
import itertools
import json
import random
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from whimbrel_testbed.streams.shards import HASHES, Numbers, key_hash

_MICROSECONDS: Final = 1_000_000


@dataclass
class KinesisShard:
    """One shard with the hashes [low, high). Its lists belong together.

    `arrived`: Unix seconds. `places`: the hash of each record's key, within the shard's.
    """

    shard_id: str
    low: int
    high: int
    starting: int
    parents: tuple[str, ...] = ()
    ending: int | None = None
    numbers: list[int] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Whether records still come."""
        return self.ending is None

    def page(self, position: int, limit: int) -> range:
        """Where the records from the number `position` on stand."""
        first = bisect_left(self.numbers, position)
        return range(first, min(first + limit, len(self.numbers)))

    def since(self, moment: float) -> int | None:
        """The number of the first record that arrived at that moment or later."""
        at = bisect_left(self.arrived, moment)
        return self.numbers[at] if at < len(self.numbers) else None

    def trim(self, before: float) -> int:
        """Forget what arrived before; return how many records that were."""
        count = bisect_left(self.arrived, before)
        del self.numbers[:count], self.arrived[:count], self.data[:count], self.places[:count]
        return count


@dataclass
class Disorder:
    """How a stream delivers: each record waits up to `seconds`, and that share of `twice` comes again as late."""

    seconds: float = 0.0
    twice: float = 0.0


@dataclass
class KinesisStream:
    """A stream. `kept_hours`: its retention, which only `trim` enforces; `tables`: by table the time's precision."""

    name: str
    arn: str
    created: float
    seed: int
    kept_hours: int = 24
    status: str = "ACTIVE"
    distribution: str = "USER_PARTITION_KEY"
    disorder: Disorder = field(default_factory=Disorder)
    shards: dict[str, KinesisShard] = field(default_factory=dict)
    _waiting: list[tuple[float, int, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.numbers = Numbers(self.seed)
        self._random = random.Random(self.seed)  # noqa: S311
        self._turns, self._names = itertools.count(), itertools.count()
        self._moment, self._arrived = 0, 0.0

    def begin(self, count: int) -> None:
        """Make the first shards, each with its share of the hashes."""
        edges = [HASHES * index // count for index in range(count + 1)]
        for low, high in itertools.pairwise(edges):
            self._open(low, high, ())

    @property
    def open_shards(self) -> list[KinesisShard]:
        """The shards that take records."""
        return [shard for shard in self.shards.values() if shard.is_open]

    def offer(self, table: str, record: Mapping[str, Any], made: float, now: float, precision: str) -> None:
        """A change of a table that was made at `made`; no two have the same microsecond."""
        self._moment = max(int(made * _MICROSECONDS), self._moment + 1)
        body = {name: value for name, value in record["dynamodb"].items() if name != "SequenceNumber"}
        body |= {
            part: {name: _encoded(value) for name, value in body[part].items()}
            for part in ("Keys", "NewImage", "OldImage")
            if part in body
        }
        unit = 1 if precision == "MICROSECOND" else 1000
        body |= {"ApproximateCreationDateTime": self._moment // unit, "ApproximateCreationDateTimePrecision": precision}
        whole = {
            "awsRegion": record.get("awsRegion"), "eventID": record.get("eventID"), "eventName": record["eventName"],
            "userIdentity": record.get("userIdentity"), "recordFormat": "application/json", "tableName": table,
            "dynamodb": body, "eventSource": "aws:dynamodb",
        }  # fmt: skip
        data = base64.b64encode(json.dumps(whole, separators=(",", ":")).encode()).decode()
        for _ in range(2 if self._random.random() < self.disorder.twice else 1):
            self.put(data, key_hash(body["Keys"]), now + self._random.uniform(0, self.disorder.seconds))

    def put(self, data: str, place: int, due: float) -> None:
        """A record that arrives at `due` at the earliest."""
        heapq.heappush(self._waiting, (due, next(self._turns), place, data))

    def settle(self, now: float) -> None:
        """Let arrive what is due."""
        while self._waiting and self._waiting[0][0] <= now:
            due, _, place, data = heapq.heappop(self._waiting)
            shard = next(shard for shard in self.open_shards if shard.low <= place < shard.high)
            self._arrived = max(self._arrived, due)
            shard.numbers.append(self.numbers.take())
            shard.arrived.append(self._arrived)
            shard.data.append(data)
            shard.places.append(place)

    def split(self, shard: KinesisShard) -> list[KinesisShard]:
        """Close a shard; two children take the halves of its range."""
        middle = (shard.low + shard.high) // 2
        self._close(shard)
        return [self._open(*part, (shard.shard_id,)) for part in ((shard.low, middle), (middle, shard.high))]

    def merge(self, shard: KinesisShard, other: KinesisShard) -> KinesisShard:
        """Close two neighbours; one child takes the range of both. ValueError where they are none."""
        first, second = sorted((shard, other), key=lambda each: each.low)
        if first.high != second.low:
            raise ValueError(f"{first.shard_id} and {second.shard_id} are no neighbours")
        self._close(first)
        self._close(second)
        return self._open(first.low, second.high, (shard.shard_id, other.shard_id))

    def neighbours(self) -> Iterator[tuple[KinesisShard, KinesisShard]]:
        """The pairs of open shards that can be merged."""
        return itertools.pairwise(sorted(self.open_shards, key=lambda shard: shard.low))

    def _close(self, shard: KinesisShard) -> None:
        if not shard.is_open:
            raise ValueError(f"{shard.shard_id} is closed already")
        shard.ending = self.numbers.take()

    def _open(self, low: int, high: int, parents: tuple[str, ...]) -> KinesisShard:
        shard = KinesisShard(f"shardId-{next(self._names):012d}", low, high, self.numbers.take(), parents)
        self.shards[shard.shard_id] = shard
        return shard


def _encoded(value: Any) -> Any:
    """An attribute with its binary values encoded once more, as the service does it on the way to Kinesis."""
    ((kind, inner),) = value.items()
    if kind == "B":
        return {kind: base64.b64encode(inner.encode()).decode()}
    if kind == "BS":
        return {kind: [base64.b64encode(each.encode()).decode() for each in inner]}
    if kind == "L":
        return {kind: [_encoded(each) for each in inner]}
    return {kind: {name: _encoded(each) for name, each in inner.items()}} if kind == "M" else value
