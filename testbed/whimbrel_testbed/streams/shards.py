"""A stream as shards of records: where a key's records go, what a split, a roll and a trim leave; no protocol here.

A shard holds the keys whose hash is in its range [low, high); an open shard that closes hands its range to one child or
halves it between two. Sequence numbers rise within a shard, and from a parent to its children.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

HASHES = 2**32
FIRST_NUMBER = 10**20
"""The first sequence number has 21 digits and is beyond 2^64."""
_LARGEST_STEP = 999


class Numbers:
    """Sequence numbers that rise, with gaps."""

    def __init__(self, seed: int, first: int = FIRST_NUMBER) -> None:
        self._random = random.Random(seed)  # noqa: S311
        self._step = _LARGEST_STEP
        self.last = first - 1

    def take(self) -> int:
        """The next number."""
        self.last += self._random.randint(1, self._step)
        return self.last

    def jump(self, to: int) -> None:
        """Go on with `to`, and one by one from there; ValueError where numbers would fall."""
        if to <= self.last:
            raise ValueError(f"sequence numbers only rise: {to} is not above {self.last}")
        self.last, self._step = to - 1, 1


@dataclass
class Shard:
    """One shard. `numbers` and `records` (JSON texts) belong together; times are Unix seconds.

    `trimmed_below`: numbers under it are no longer kept; `last_trimmed`: the highest of a record that was trimmed.
    """

    shard_id: str
    parent: str | None
    low: int
    high: int
    starting: int
    created: float
    ending: int | None = None
    closed: float | None = None
    numbers: list[int] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    trimmed_below: int = 0
    last_trimmed: int = -1
    dropped: bool = False
    empty_pages: int = 0
    readers: dict[str, float] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether records still come."""
        return self.ending is None

    def append(self, number: int, record: bytes) -> None:
        """Take a record."""
        self.numbers.append(number)
        self.records.append(record)

    def page(self, position: int, limit: int, size: int) -> tuple[list[bytes], int]:
        """The records from `position` on, at most `limit` of them and `size` bytes (but one), and where to go on."""
        first = bisect_left(self.numbers, position)
        last, taken = first, 0
        while last < len(self.numbers) and last - first < limit:
            taken += len(self.records[last])
            if taken > size and last > first:
                break
            last += 1
        return self.records[first:last], self.numbers[last - 1] + 1 if last > first else position

    def ends_at(self, position: int) -> bool:
        """Whether the shard is closed and holds nothing from `position` on."""
        return not self.is_open and not self.holds_from(position)

    def holds_from(self, position: int) -> bool:
        """Whether there are records from `position` on."""
        return bool(self.numbers) and self.numbers[-1] >= position

    def trim(self, below: int) -> int:
        """Forget the records whose numbers are below; return how many they were."""
        count = bisect_left(self.numbers, below)
        if count:
            self.last_trimmed = self.numbers[count - 1]
        del self.numbers[:count], self.records[:count]
        self.trimmed_below = max(self.trimmed_below, below)
        return count


@dataclass
class Stream:
    """The change log of one table under one ARN. `heard` is told of each record, and when it was written."""

    arn: str
    label: str
    table: str
    view_type: str
    key_schema: list[dict[str, str]]
    created: float
    numbers: Numbers
    seed: int
    enabled: bool = True
    shards: dict[str, Shard] = field(default_factory=dict)
    heard: Callable[[Mapping[str, Any], float], None] | None = None

    def __post_init__(self) -> None:
        # Names of shards may not repeat the steps of the numbers.
        self._random = random.Random(f"{self.seed} {self.arn}")  # noqa: S311

    @property
    def open_shards(self) -> list[Shard]:
        """The shards that take records."""
        return [shard for shard in self.shards.values() if shard.is_open]

    def begin(self, count: int, now: float) -> None:
        """Make the first shards, each with its share of the hashes."""
        edges = [HASHES * index // count for index in range(count + 1)]
        for low, high in itertools.pairwise(edges):
            self._open(None, low, high, now)

    def append(self, record: dict[str, Any], now: float) -> None:
        """Give an upstream record its number and time, and put it into its shard."""
        number, body = self.numbers.take(), record["dynamodb"]
        body["SequenceNumber"] = str(number)
        body["ApproximateCreationDateTime"] = int(now)
        place = key_hash(self.partition_key(body["Keys"]))
        shard = next(shard for shard in self.shards.values() if shard.is_open and shard.low <= place < shard.high)
        shard.append(number, json.dumps(record, separators=(",", ":")).encode())
        if self.heard is not None:
            self.heard(record, now)

    def partition_key(self, keys: Mapping[str, Any]) -> Any:
        """The typed value of the partition key."""
        return keys[next(key["AttributeName"] for key in self.key_schema if key["KeyType"] == "HASH")]

    def split(self, shard: Shard, now: float) -> list[Shard]:
        """Close a shard; two children take the halves of its range. ValueError where it is closed or too narrow."""
        middle = (shard.low + shard.high) // 2
        if middle == shard.low:
            raise ValueError(f"{shard.shard_id} is too narrow to be split again")
        self.close(shard, now)
        return [self._open(shard, shard.low, middle, now), self._open(shard, middle, shard.high, now)]

    def roll(self, shard: Shard, now: float) -> Shard:
        """Close a shard; one child takes all of its range. ValueError where it is closed."""
        self.close(shard, now)
        return self._open(shard, shard.low, shard.high, now)

    def close(self, shard: Shard, now: float) -> None:
        """Let no more records in; ValueError where it is closed."""
        if not shard.is_open:
            raise ValueError(f"{shard.shard_id} is closed already")
        shard.ending, shard.closed = self.numbers.take(), now

    def disable(self, now: float) -> None:
        """Close what is open: the stream stays readable and never grows again."""
        self.enabled = False
        for shard in self.open_shards:
            self.close(shard, now)

    def _open(self, parent: Shard | None, low: int, high: int, now: float) -> Shard:
        shard_id = f"shardId-{int(now * 1000):020d}-{self._random.getrandbits(32):08x}"
        parent_id = None if parent is None else parent.shard_id
        shard = Shard(shard_id, parent_id, low, high, self.numbers.take(), now)
        self.shards[shard_id] = shard
        return shard


def key_hash(value: Any) -> int:
    """The place of a typed partition key (`{"S": "a"}`) among HASHES."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
