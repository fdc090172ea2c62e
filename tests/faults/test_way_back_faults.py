"""A way back of `whimbrel run` under faults: its status, its slot, PolarDB's server, a worker that wakes up late.

Rows 4, 10 and 24 of the fault matrix; each life ends by an independent comparison, or by a stop with its reason.
"""

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.both_ways_run import BothWays
from support.item_faults import (
    Application,
    ended,
    facts_of,
    freezing_write,
    is_stopped,
    worker,
)
from support.item_moves import Item, ItemMove, fill, item_move
from support.patience import eventually
from support.seeds import over
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Phase
from whimbrel_api.reports import ROLLED_BACK, SEALED, SWITCHED, TIMED_OUT, TRAFFIC_STEPS
from whimbrel_api.tasks import ExitCode
from whimbrel_operator.domain.conditions import find, is_true
from whimbrel_testbed.dynamodb.proxy import DynamoDBProxy
from whimbrel_testbed.polardb.server import PolarDBServer, polardb_server
from whimbrel_testbed.streams import StreamServer

pytestmark = pytest.mark.timeout(900)
ITEMS = 120
Status = dict[str, Any]
Hand = Callable[[BothWays, Status], None]


@pytest.fixture
def both(moving: ItemMove, polardb: PolarDBServer) -> BothWays:
    return BothWays(moving, polardb)


def wipe(both: BothWays, _old: Status) -> None:
    both.status_file.unlink()


def empty(both: BothWays, _old: Status) -> None:
    both.rewrite({})


def rewind(both: BothWays, old: Status) -> None:
    both.rewrite(old)


HANDS: tuple[Hand, ...] = (wipe, empty, rewind)


def read(both: BothWays) -> Status:
    found: Status = json.loads(both.status_file.read_text())["status"]
    return found


def journal(both: BothWays) -> list[str]:
    """The milestones of the traffic that the target holds."""
    both.move.migration = f"{both.key.namespace}/{both.key.name}"
    record = both.move.run("inspect", epoch=0)[1].record
    assert record is not None
    return [entry.step for entry in record.journal if entry.step in TRAFFIC_STEPS]


def cut_over(both: BothWays) -> None:
    """To the switch, however often it is given up on the way: each attempt takes an approval of its own."""

    def switched() -> bool:
        status = both.status()
        if status.phase is Phase.FOLLOWING and status.cutover.state is not CutoverState.NOT_READY:
            both.approve()
        return status.phase is Phase.COMPLETED and both.ready().startswith("True")

    eventually(switched, both.told, seconds=180)


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_row_10_a_status_wiped_or_rewound_on_the_way_there_and_back(both: BothWays, seed: int) -> None:
    print(f"seed {seed}")
    move, rng = both.move, random.Random(seed)
    table = move.table("orders")
    fill(move.origin, table, range(ITEMS), seed)
    with both.started():
        both.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
        old = read(both)
        both.approve()
        both.until(lambda status: status.cutover.state is CutoverState.ARMING_REVERSE)
        rng.choice(HANDS)(both, old)
        cut_over(both)
        back = both.back()
        Application(move.goal, table, rng, ITEMS).change(50)
        for hand in HANDS:
            hand(both, old)
            both.until(lambda status: status.cutover.state is CutoverState.SWITCHED)
        eventually(lambda: both.ready().startswith("True"), both.told)
        again = both.back()
        assert back is not None
        assert again is not None
        assert again.metadata.uid == back.metadata.uid, "the way back is not made anew: its slot holds what is missing"
        both.equal(table)
        switched = read(both)
        both.store.patch_spec(both.key, {"cutover": {"rollback": True}})
        both.until(lambda status: status.cutover.state is CutoverState.ROLLING_BACK)
        rng.choice(HANDS)(both, rng.choice([old, switched]))
        both.until(lambda status: status.cutover.state is CutoverState.ROLLED_BACK)
        assert move.differences(table) == []
        Application(move.origin, table, rng, ITEMS).change(50)
        for hand in HANDS:
            hand(both, switched)
            both.until(lambda status: status.cutover.state is CutoverState.ROLLED_BACK)
        both.until(lambda status: status.phase is Phase.FOLLOWING)
        both.equal(table)
        eventually(lambda: (both.back(), both.slots()) == (None, []), both.told)
    steps = journal(both)
    assert steps[-2:] == [SWITCHED, ROLLED_BACK]
    assert (steps.count(SWITCHED), steps.count(ROLLED_BACK)) == (1, 1)
    assert set(steps) <= {SEALED, SWITCHED, TIMED_OUT, ROLLED_BACK}


@pytest.fixture
def crashing(stream_bed: StreamServer, stream_prefix: str, tmp_path: Any) -> Iterator[BothWays]:
    """A PolarDB of this test's own, so that it may crash."""
    with polardb_server() as server:
        yield BothWays(item_move(tmp_path, stream_bed, server, stream_prefix), server)


def crash(both: BothWays) -> None:
    both.server.backend.kill()
    both.server.backend.start()


def test_row_24_a_server_that_crashes_while_changes_flow_back_and_while_it_is_rolled_back(crashing: BothWays) -> None:
    both, move, rng = crashing, crashing.move, random.Random(24)
    table = move.table("orders")
    fill(move.origin, table, range(ITEMS))
    with both.cut_over(table):
        Application(move.goal, table, rng, ITEMS).change(60)
        crash(both)
        Application(move.goal, table, rng, ITEMS).change(60)
        both.equal(table)
        eventually(lambda: both.ready().startswith("True"), both.told)
        Application(move.goal, table, rng, ITEMS).change(60)
        both.store.patch_spec(both.key, {"cutover": {"rollback": True}})
        both.until(lambda status: status.cutover.state is CutoverState.ROLLING_BACK)
        crash(both)
        both.until(lambda status: status.cutover.rollback.position != "")
        crash(both)
        both.until(lambda status: status.cutover.state is CutoverState.ROLLED_BACK)
        assert move.differences(table) == []
        Application(move.origin, table, rng, ITEMS).change(60)
        both.until(lambda status: status.phase is Phase.FOLLOWING)
        both.equal(table)


def lost(both: BothWays, why: str) -> None:
    """The way back is Stalled with that reason, and no rollback begins."""

    def said() -> bool:
        found = both.back()
        stalled = find(found.status.conditions, "Stalled") if found is not None else None
        return stalled is not None and stalled.status == "True" and why in stalled.message

    eventually(said, both.told)
    eventually(lambda: both.ready().startswith("False SourceLogLost"), both.told)
    both.store.patch_spec(both.key, {"cutover": {"rollback": True}})
    both.until(lambda status: status.cutover.message.startswith("the rollback waits: "))
    assert both.status().cutover.state is CutoverState.SWITCHED


def test_row_24_a_slot_advanced_dropped_or_made_anew_after_the_switch(both: BothWays) -> None:
    move = both.move
    table = move.table("orders")
    fill(move.origin, table, range(ITEMS))

    def sql(statement: str) -> None:
        with both.server.backend.connect(both.server.postgres.database) as connection:
            connection.execute(statement.encode(), None)

    with both.cut_over(table):
        (slot,) = both.slots()
    sql("SELECT pg_logical_emit_message(true, 'a', 'b')")
    sql(f"SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")
    with both.started():
        lost(both, "advanced by somebody")
    sql(f"SELECT pg_drop_replication_slot('{slot}')")
    with both.started():
        lost(both, "the source has no slot")
    sql(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    with both.started():
        lost(both, "made anew")
        assert journal(both) == [SEALED, SWITCHED]
        code, said = both.say("delete", "shop", "-n", both.key.namespace)
        assert code == 0, said
        eventually(lambda: both.ready().startswith("False WayBackGone"), both.told)
    assert is_true(both.status().conditions, "Succeeded")


@pytest.mark.parametrize("fenced", [True, False])
def test_row_4_a_forward_worker_that_wakes_up_after_the_switch(
    moving: ItemMove, polardb: PolarDBServer, fenced: bool
) -> None:
    """It stands still with a change of the source in its hands that was overwritten since; nothing of it may land.

    Only few items change before it stands, so that a page is one request and none of another thread is on its way: that
    one may land without fenced writes (docs/dynamodb-to-polardb.md).
    """
    moving.target["dynamodb"]["fencedWrites"] = fenced
    both, move, rng = BothWays(moving, polardb), moving, random.Random(4)
    table = move.table("orders")
    fill(move.origin, table, range(ITEMS))
    pids = [0]
    with both.started():
        both.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
        move.migration, straight = f"{both.key.namespace}/{both.key.name}", move.goal.endpoint
        with DynamoDBProxy(facts_of(move.goal), freezing_write(1, lambda: pids[0])) as far:
            move.target["dynamodb"]["endpoint"] = far.endpoint
            with worker(move, "stream", epoch=both.status().epoch) as zombie:
                move.target["dynamodb"]["endpoint"] = straight
                pids[0] = zombie.pid
                changes = Application(move.origin, table, rng, ITEMS)

                def stands() -> bool:
                    changes.heat()
                    return is_stopped(zombie.pid)

                eventually(stands, lambda: [both.told(), move.log("stream")[-3000:]])
                Application(move.origin, table, rng, ITEMS).change(100)
                cut_over(both)
                assert move.differences(table) == []
                Application(move.goal, table, rng, ITEMS).change(50)
                both.equal(table)
                before, items = both.counted(), move.target_items(table)
                os.kill(zombie.pid, signal.SIGCONT)
                # The stream that it reads is off since the switch: it may notice that first.
                ends = (ExitCode.FENCED_OUT, ExitCode.SOURCE_LOG_LOST)
                assert ended(zombie, move, "stream") in ends, move.log("stream")[-3000:]
                written = [call for call in far.log if call.operation == "BatchWriteItem"]
                assert len(written) == (0 if fenced else 1), "it sent nothing more"
                assert changed(items, move.target_items(table)) == [], "the zombie wrote to the target"
                assert move.differences(table) == [], "the zombie wrote to the target"
                client_marker(both, table)
                assert both.came_back() == before + 1, "nothing of the zombie flowed back"


def changed(before: list[Item], after: list[Item]) -> list[Item]:
    return [item for item in before if item not in after] + [item for item in after if item not in before]


def client_marker(both: BothWays, table: str) -> None:
    """One more change of the application, which comes back behind whatever was written before it."""
    before = both.came_back()
    Application(both.move.goal, table, random.Random(1), ITEMS).heat()
    eventually(lambda: both.came_back() > before, both.told)
    both.equal(table)
