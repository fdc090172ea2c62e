"""What the control can have done, run inside the server: each method with one underscore is an order.

Tables and shards are named as DynamoDB names them; ValueError says what is wrong with an order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whimbrel_testbed.streams.dials import DESCRIBES_A_SECOND, READERS
from whimbrel_testbed.streams.hub import Hub
from whimbrel_testbed.streams.kinesis_shards import Disorder, KinesisShard, KinesisStream
from whimbrel_testbed.streams.shards import HASHES, Shard, Stream
from whimbrel_testbed.streams.upstream import TABLES


class Desk:
    """Takes orders; see control.Control for what each does."""

    def __init__(self, hub: Hub) -> None:
        self._hub, self._service, self._dials = hub, hub.service, hub.service.dials

    async def order(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Carry out an order; ValueError where there is none of that name or its arguments are wrong."""
        if name not in orders():
            raise ValueError(f"the stream server knows no order {name!r}; it knows: {', '.join(orders())}")
        try:
            return await getattr(self, f"_{name}")(**arguments)
        except TypeError as error:
            raise ValueError(f"{name}: {error}") from error

    async def _split(self, table: str, shard: str | None = None) -> list[str]:
        stream = await _newest(self._hub, table)
        parent = max(_open(stream), key=_width) if shard is None else _shard(stream, shard)
        return [child.shard_id for child in stream.split(parent, self._hub.clock())]

    async def _roll(self, table: str, shard: str | None = None) -> list[str]:
        stream = await _newest(self._hub, table)
        parents = _open(stream) if shard is None else [_shard(stream, shard)]
        return [stream.roll(parent, self._hub.clock()).shard_id for parent in parents]

    async def _trim(self, table: str, shard: str | None = None, before_sequence: str | None = None) -> int:
        stream = await _newest(self._hub, table)
        newest = stream.numbers.last + 1
        below = newest if before_sequence is None else min(int(before_sequence), newest)
        return sum(one.trim(below) for one in _shards(stream, shard))

    async def _drop_closed_shards(self, table: str, older_than: float = 0.0) -> list[str]:
        stream, now = await _newest(self._hub, table), self._hub.clock()
        dropped = [
            shard for shard in stream.shards.values()
            if not shard.dropped and shard.closed is not None and shard.closed <= now - older_than
        ]  # fmt: skip
        for shard in dropped:
            shard.trim(stream.numbers.last + 1)
            shard.dropped = True
        return [shard.shard_id for shard in dropped]

    async def _recreate(self, table: str) -> str:
        return (await self._hub.recreate(table)).arn

    async def _ttl_delete(self, table: str, key: Mapping[str, Any]) -> bool:
        tail = self._hub.newest(table)
        tail.mark(key)
        asked = {"TableName": table, "Key": key, "ReturnValues": "ALL_OLD"}
        answer = await self._hub.behind.call(TABLES, "DeleteItem", asked)
        await self._hub.catch_up(tail.stream.arn)
        if not answer.get("Attributes"):
            tail.mark(key, -1)
        return bool(answer.get("Attributes"))

    async def _expire_iterators(self) -> None:
        self._service.generation += 1
        self._hub.kinesis.generation += 1

    async def _iterator_lifetime(self, seconds: float) -> None:
        self._dials.iterator_lifetime = float(seconds)

    async def _empty_pages(self, n: int, table: str, shard: str | None = None) -> None:
        for one in _shards(await _newest(self._hub, table), shard):
            one.empty_pages = int(n)

    async def _throttle(self, n: int, operation: str, kind: str) -> None:
        self._dials.throttled[operation] = int(n)
        self._dials.throttled_as[operation] = kind

    async def _refuse(self, operation: str, on: bool = True) -> None:
        (self._dials.refused.add if on else self._dials.refused.discard)(operation)

    async def _limit_readers(self, readers: int | None = READERS, window: float = 1.0) -> None:
        self._dials.max_readers, self._dials.reader_window = readers, float(window)

    async def _limit_describes(self, a_second: int | None = DESCRIBES_A_SECOND) -> None:
        self._dials.describe_rate = a_second

    async def _big_sequence_numbers(self, start: str, table: str | None = None) -> None:
        number = int(start)
        if table is not None:
            (await _newest(self._hub, table)).numbers.jump(number)
            return
        streams = [stream for stream in self._service.streams.values() if stream.enabled]
        for stream in streams:
            await self._hub.catch_up(stream.arn)
            stream.numbers.jump(number)
        self._hub.first_number = number

    async def _delay_new_shards(self, seconds: float) -> None:
        self._dials.delay_new_shards = float(seconds)

    async def _shuffle_shard_listing(self, seed: int | None) -> None:
        self._dials.listing_seed = seed

    async def _initial_shards(self, count: int) -> None:
        if not 1 <= count <= HASHES:
            raise ValueError(f"a stream begins with at least one shard, not {count}")
        self._dials.initial_shards = count

    async def _kinesis_stream(self, name: str, shards: int = 1, kept_hours: int = 24) -> str:
        kinesis = self._hub.kinesis
        kinesis.answer("CreateStream", {"StreamName": name, "ShardCount": shards})
        stream = kinesis.named(name)
        stream.kept_hours = int(kept_hours)
        return stream.arn

    async def _kinesis_disorder(self, name: str, seconds: float = 0.0, twice: float = 0.0) -> None:
        self._hub.kinesis.named(name).disorder = Disorder(float(seconds), float(twice))

    async def _kinesis_split(self, name: str) -> list[str]:
        stream = await _settled(self._hub, name)
        return [child.shard_id for child in stream.split(max(stream.open_shards, key=_width))]

    async def _kinesis_merge(self, name: str) -> str:
        stream = await _settled(self._hub, name)
        pairs = list(stream.neighbours())
        if not pairs:
            raise ValueError(f"Kinesis data stream {name} has one open shard only")
        return stream.merge(*min(pairs, key=lambda pair: _width(pair[0]) + _width(pair[1]))).shard_id

    async def _kinesis_trim(self, name: str, older_than: float = 0.0) -> int:
        stream, before = await _settled(self._hub, name), self._hub.clock() - older_than
        return sum(shard.trim(before) for shard in stream.shards.values())

    async def _shards(self, table: str) -> list[dict[str, Any]]:
        return [_facts(shard) for shard in (await _newest(self._hub, table)).shards.values()]


async def _newest(hub: Hub, table: str) -> Stream:
    """The table's newest stream, with all that was written before the order."""
    tail = hub.newest(table)
    await hub.catch_up(tail.stream.arn)
    return tail.stream


async def _settled(hub: Hub, name: str) -> KinesisStream:
    """The Kinesis data stream of that name, with all that has arrived before the order."""
    await hub.catch_up_kinesis()
    stream = hub.kinesis.named(name)
    stream.settle(hub.clock())
    return stream


def orders() -> list[str]:
    """The names of the orders."""
    return sorted(name[1:] for name in vars(Desk) if name.startswith("_") and not name.startswith("__"))


def _width(shard: Shard | KinesisShard) -> int:
    return shard.high - shard.low


def _open(stream: Stream) -> list[Shard]:
    if not stream.open_shards:
        raise ValueError(f"stream {stream.arn} is disabled: it has no open shard")
    return stream.open_shards


def _shard(stream: Stream, shard_id: str) -> Shard:
    if shard_id not in stream.shards:
        raise ValueError(f"stream {stream.arn} has no shard {shard_id}")
    return stream.shards[shard_id]


def _shards(stream: Stream, shard_id: str | None) -> list[Shard]:
    return list(stream.shards.values()) if shard_id is None else [_shard(stream, shard_id)]


def _facts(shard: Shard) -> dict[str, Any]:
    return {
        "shardId": shard.shard_id, "parent": shard.parent, "open": shard.is_open, "dropped": shard.dropped,
        "records": len(shard.records), "hashes": [shard.low, shard.high], "trimmedBelow": str(shard.trimmed_below),
        "first": str(shard.numbers[0]) if shard.numbers else None,
        "last": str(shard.numbers[-1]) if shard.numbers else None,
        "starting": str(shard.starting), "ending": None if shard.ending is None else str(shard.ending),
    }  # fmt: skip
