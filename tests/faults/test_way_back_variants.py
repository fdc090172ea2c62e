"""There and back by `whimbrel run` where the source is not plain: Kinesis, several workers, time to live, odd names.

Nothing echoes in either direction, and each life ends by an independent comparison.
"""

import random
from typing import Any

import pytest

from support.both_ways_run import BothWays
from support.item_faults import Application
from support.item_moves import Item, ItemMove, fill
from support.live_run import WAIT_SECONDS
from support.patience import eventually
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Phase
from whimbrel_testbed.dynamodb.compare import Endpoint, client_of
from whimbrel_testbed.polardb.server import PolarDBServer
from whimbrel_testbed.streams import StreamServer

pytestmark = pytest.mark.timeout(900)
ITEMS = 60
MARKERS = 4
HASH, RANGE = 'p"k`; DROP TABLE "x"--%s{}', "ключ\\'\n$1 😀"
"""Names of key attributes, which become columns: at most 63 bytes each."""
LONGEST = "ä" * 120 + "\"`\\'%(x)s$$"


def hostile_keys() -> dict[str, Any]:
    return {
        "AttributeDefinitions": [
            {"AttributeName": HASH, "AttributeType": "S"}, {"AttributeName": RANGE, "AttributeType": "B"},
        ],
        "KeySchema": [
            {"AttributeName": HASH, "KeyType": "HASH"}, {"AttributeName": RANGE, "KeyType": "RANGE"},
        ],
    }  # fmt: skip


def hostile(number: int) -> Item:
    deep = {"M": {LONGEST: {"L": [{"S": LONGEST}, {"NULL": True}]}}}
    return {
        HASH: {"S": f"'{number}\\\""},
        RANGE: {"B": bytes([number, 0, 255])},
        LONGEST: {"N": str(number)},
        "x": deep,
    }


def put(end: Endpoint, table: str, *items: Item) -> None:
    for item in items:
        client_of(end).put_item(TableName=table, Item=item)


class Variants:
    """Three tables: one read by Kinesis, one with a time to live, one with names that end in SQL."""

    def __init__(self, move: ItemMove, bed: StreamServer) -> None:
        stream = move.prefix + "changes"
        arn = bed.control.kinesis_stream(stream, shards=2, kept_hours=48)
        move.kinesis = [{"tables": [f"{move.prefix}k-*"], "stream": stream}]
        self.move, client = move, client_of(move.origin)
        self.kinesis, self.lives, self.odd = (
            move.table("k-orders"),
            move.table("l"),
            move.table("odd", **hostile_keys()),
        )
        client.enable_kinesis_streaming_destination(
            TableName=self.kinesis, StreamArn=arn,
            EnableKinesisStreamingConfiguration={"ApproximateCreationDateTimePrecision": "MICROSECOND"},
        )  # fmt: skip
        client.update_time_to_live(
            TableName=self.lives, TimeToLiveSpecification={"AttributeName": "ends", "Enabled": True}
        )
        self.all = (self.kinesis, self.lives, self.odd)
        for table in self.all[:2]:
            fill(move.origin, table, range(ITEMS))
        put(move.origin, self.odd, *(hostile(number) for number in range(20)))

    def change(self, end: Endpoint, rng: random.Random) -> None:
        for table in self.all[:2]:
            Application(end, table, rng, ITEMS).change(20)
        first = hostile(rng.randrange(20))
        client_of(end).delete_item(TableName=self.odd, Key={name: first[name] for name in (HASH, RANGE)})
        put(end, self.odd, hostile(rng.randrange(20, 250)))

    def mark(self, end: Endpoint, first: int) -> int:
        """That many new items, each written once."""
        for table in self.all[:2]:
            fill(end, table, range(first, first + MARKERS))
        put(
            end, self.odd, *(hostile(first % 200 + 40 + number) | {"y": {"N": str(first)}} for number in range(MARKERS))
        )
        return 3 * MARKERS

    def equal(self, both: BothWays) -> None:
        eventually(lambda: self.move.differences(*self.all) == [], both.told)


def test_there_and_back_by_kinesis_with_two_workers_time_to_live_and_hostile_names(
    moving: ItemMove, stream_bed: StreamServer, polardb: PolarDBServer
) -> None:
    source, rng = Variants(moving, stream_bed), random.Random(25)
    both = BothWays(moving, polardb, stream={"workers": 2}, mode="Automatic")
    with both.started():
        both.until(lambda status: status.phase is Phase.COMPLETED, 6 * WAIT_SECONDS)
        eventually(lambda: both.ready().startswith("True"), both.told)
        assert moving.differences(*source.all) == []
        assert both.came_back() == 0, "what went forward does not come back"
        source.change(moving.goal, rng)
        source.equal(both)
        before = both.counted()
        count = source.mark(moving.goal, 1000)
        source.equal(both)
        eventually(lambda: both.came_back() == before + count, both.told)
        both.store.patch_spec(both.key, {"cutover": {"rollback": True}})
        both.until(lambda status: status.cutover.state is CutoverState.ROLLED_BACK)
        assert moving.differences(*source.all) == []
        both.until(lambda status: status.phase is Phase.FOLLOWING)
        # Kinesis keeps its log: what may have been on its way is carried once more, the same items in the same order.
        again = both.until(lambda status: status.stream.quiet).stream.changes_applied
        source.equal(both)
        count = source.mark(moving.origin, 2000)
        source.equal(both)
        eventually(lambda: both.status().stream.changes_applied == again + count, both.told)
        source.change(moving.origin, rng)
        source.equal(both)
        eventually(lambda: (both.back(), both.slots()) == (None, []), both.told)
