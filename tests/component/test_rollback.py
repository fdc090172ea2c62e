"""`whimbrel run` from DynamoDB to PolarDB's stand-in and back: a cutover with a way back, a rollback, forward again."""

import random

import pytest

from support.both_ways_run import BothWays
from support.item_faults import Application
from support.item_moves import ItemMove, an_item, fill
from support.patience import eventually
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Phase
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.polardb.server import PolarDBServer

pytestmark = pytest.mark.timeout(280)
ITEMS = 120
MARKERS = 7


@pytest.fixture
def both(moving: ItemMove, polardb: PolarDBServer) -> BothWays:
    return BothWays(moving, polardb)


def test_there_and_back_and_there_again(both: BothWays) -> None:
    move, rng = both.move, random.Random(11)
    table = move.table("orders")
    fill(move.origin, table, range(ITEMS))
    with both.cut_over(table):
        Application(move.goal, table, rng, ITEMS).change(150)
        both.equal(table)
        assert both.say("rollback", "shop", "-n", both.key.namespace, "--yes")[0] == 0
        both.until(lambda status: status.cutover.state is CutoverState.ROLLED_BACK)
        assert move.differences(table) == []
        Application(move.origin, table, rng, ITEMS).change(150)
        both.until(lambda status: status.phase is Phase.FOLLOWING)
        both.equal(table)
        assert (both.back(), both.slots()) == (None, [])
        assert both.status().plan.attempt == 2
        approved = both.say("approve", "shop", "-n", both.key.namespace)
        assert approved[0] == 0, approved
        both.until(lambda status: status.phase is Phase.COMPLETED)
        assert move.differences(table) == []
        eventually(lambda: both.ready().startswith("True"), both.told)
        Application(move.goal, table, rng, ITEMS).change(50)
        both.equal(table)


def test_nothing_echoes_while_nobody_writes(both: BothWays) -> None:
    """Markers go back once each, and then nothing is written any more, in either direction, before and after."""
    move, rng = both.move, random.Random(3)
    table = move.table("orders")
    fill(move.origin, table, range(ITEMS))
    with both.cut_over(table):
        assert both.came_back() == 0
        for number in range(MARKERS):
            client_of(move.goal).put_item(TableName=table, Item=an_item(1000 + number, rng))
        both.equal(table)
        eventually(lambda: both.came_back() == MARKERS, both.told)
        quiet = 0.0

        def still() -> bool:
            nonlocal quiet
            found = both.back()
            quiet = max(quiet, (found.status.quiet_seconds or 0.0) if found is not None else 0.0)
            assert both.came_back() == MARKERS
            return quiet > 5

        eventually(still, both.told)
        assert not any(name.startswith("stream") for name in both.workers())
        both.store.patch_spec(both.key, {"cutover": {"rollback": True}})
        both.until(lambda status: status.phase is Phase.FOLLOWING)
        before = both.status().stream.changes_applied
        for number in range(MARKERS):
            client_of(move.origin).put_item(TableName=table, Item=an_item(2000 + number, rng))
        both.equal(table)
        eventually(lambda: both.status().stream.changes_applied == before + MARKERS, both.told)
        assert before == 0, "what had come back is not carried forward again"
        assert both.slots() == []
