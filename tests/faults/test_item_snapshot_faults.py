"""Copies of item tables whose workers die, hang or lose their servers: nothing lost, by an independent comparison."""

import os
import random
import signal
import time
from typing import Any

import pytest

from support.item_faults import (
    MOST_UNDER_WAY,
    STALE_SECONDS,
    Application,
    ended,
    equal,
    eventually,
    freezing_write,
    is_stopped,
    key_of,
    lost_replies,
    proxied,
    streams,
    throttling,
    worker,
    working,
)
from support.item_moves import ItemMove, fill
from support.moves import order
from support.seeds import over
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.dynamodb.faults import Call, Delay, Fault

ITEMS = 2000
COPY: dict[str, Any] = {"snapshot": {"chunkRows": 300, "workers": 1}}
SLOW: dict[str, Any] = {"snapshot": {"chunkRows": 300, "workers": 1, "rateLimit": {"rowsPerSecond": 2000}}}
KILLED = -signal.SIGKILL


def filled(move: ItemMove, seed: int, items: int = ITEMS) -> str:
    print(f"seed {seed}")
    table = move.table("orders")
    fill(move.origin, table, range(items), seed)
    return table


def copied(move: ItemMove, **fields: Any) -> None:
    code, report = move.run("snapshot", **fields)
    assert code == ExitCode.DONE, report.last_error


@pytest.mark.parametrize("point", ["before_commit", "before_progress", "after_commit"])
@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_row_1_a_worker_killed_around_its_checkpoints(moving: ItemMove, seed: int, point: str) -> None:
    """Between items and the worker's row, between that and the chunk's, and before the report."""
    table, rng = filled(moving, seed), random.Random(f"{seed} {point}")
    moving.prepare()
    with worker(moving, "snapshot", f"snapshot.{point}:{rng.randint(1, 4)}", **COPY) as process:
        assert ended(process, moving, "snapshot") == KILLED, moving.log("snapshot")
    copied(moving, **COPY)
    assert moving.differences(table) == []
    report = moving.report(moving.task("snapshot"))
    assert sum(each.rows_copied or 0 for each in report.tables) in (0, ITEMS)


@pytest.mark.parametrize("fenced", [False, True])
@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_row_3_replies_that_are_lost(moving: ItemMove, seed: int, fenced: bool) -> None:
    """From the making of the control table to the end of the copy, at both ends."""
    moving.target["dynamodb"]["fencedWrites"] = fenced
    table, rng = filled(moving, seed, 1500), random.Random(seed)
    with proxied(moving, lost_replies(rng, 0.1), lost_replies(rng, 0.1)) as (near, far):
        moving.prepare()
        copied(moving, **COPY)
    for operation in ("CreateTable", "UpdateItem", "TransactWriteItems" if fenced else "BatchWriteItem"):
        assert far.calls(operation)
    assert near.calls("UpdateTable"), "the stream was enabled"
    assert moving.differences(table) == []


def test_row_4_a_zombie_writes_nothing_any_more_where_writes_are_fenced(moving: ItemMove) -> None:
    """It stops while a request of it is on its way. What it would write is seen: the successor's copy is taken away."""
    assert after_the_zombie(moving, fenced=True) == 0


def test_row_4_a_zombie_writes_no_more_than_it_was_sending(moving: ItemMove) -> None:
    """The window without fenced writes, as the documentation of this pair says."""
    left = after_the_zombie(moving, fenced=False)
    print(f"{left} items by the zombie")
    assert left <= MOST_UNDER_WAY


def after_the_zombie(move: ItemMove, *, fenced: bool) -> int:
    """How many items a zombie writes after its successor, whose copy is equal, ended."""
    move.target["dynamodb"]["fencedWrites"] = fenced
    table = filled(move, seed=4, items=1000)
    move.prepare()
    pids: list[int] = []
    with proxied(move, target=freezing_write(5, lambda: pids[0])) as _, worker(move, "snapshot", **COPY) as zombie:
        pids.append(zombie.pid)
        eventually(lambda: is_stopped(zombie.pid), lambda: move.log("snapshot"))
        stopped = time.monotonic()
        successor = {**COPY, "reportFile": str(move.directory / "successor.report")}
        copied(move, **successor)
        assert move.differences(table) == []
        empty(move, table)
        eventually(lambda: time.monotonic() - stopped > STALE_SECONDS)
        os.kill(zombie.pid, signal.SIGCONT)
        assert ended(zombie, move, "snapshot") == ExitCode.FENCED_OUT, move.log("snapshot")
    return len(move.target_items(table))


def empty(move: ItemMove, table: str) -> None:
    client, items = client_of(move.goal), move.target_items(table)
    for start in range(0, len(items), 25):
        requests = [{"DeleteRequest": {"Key": key_of(item)}} for item in items[start : start + 25]]
        client.batch_write_item(RequestItems={table: requests})
    assert move.target_items(table) == []


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_row_11_partitions_latency_and_cut_connections(moving: ItemMove, seed: int) -> None:
    table, rng = filled(moving, seed), random.Random(seed)
    moving.prepare()

    def slow(_: Call) -> Fault | None:
        return Delay(rng.uniform(0.0, 0.1)) if rng.random() < 0.3 else None

    with proxied(moving, slow, slow) as ends, worker(moving, "snapshot", **SLOW) as process:
        eventually(lambda: ends[0].calls("Scan"), lambda: moving.log("snapshot"))
        while process.poll() is None:
            end = rng.choice(ends)
            end.pause()
            time.sleep(rng.uniform(0.1, 0.6))  # how long the partition lasts
            if rng.random() < 0.5:
                end.cut_all()
            end.resume()
            time.sleep(rng.uniform(0.05, 0.3))  # until the next one
        assert ended(process, moving, "snapshot") == ExitCode.DONE, moving.log("snapshot")
    assert moving.differences(table) == []


def test_row_11_a_half_open_connection(moving: ItemMove) -> None:
    """A page that is never answered is asked for again once its time is over."""
    table = filled(moving, seed=1, items=600)
    moving.prepare()
    held: list[int] = []

    def once(call: Call) -> Fault | None:
        if call.operation != "Scan" or held:
            return None
        held.append(call.number)
        return Delay(50.0)

    with proxied(moving, source=once):
        copied(moving, **COPY)
    assert held
    assert moving.differences(table) == []


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_row_20_items_that_change_while_they_are_copied(moving: ItemMove, seed: int) -> None:
    """Two workers and small segments; the application begins before the copy and ends after it."""
    table = filled(moving, seed)
    options: dict[str, Any] = {"snapshot": {"chunkRows": 200, "workers": 2, "rateLimit": {"rowsPerSecond": 1500}}}
    moving.prepare()
    with working(moving, table, seed, ITEMS + ITEMS // 4) as stop:
        with (
            worker(moving, "snapshot", index=0, workers=2, **options) as one,
            worker(moving, "snapshot", index=1, workers=2, **options) as other,
        ):
            codes = [ended(one, moving, "snapshot"), ended(other, moving, "snapshot", 1)]
            assert codes == [0, 0], moving.log("snapshot") + moving.log("snapshot", 1)
        with streams(moving):
            stop.set()
            equal(moving, table)


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_row_20_a_worker_killed_while_items_change(moving: ItemMove, seed: int) -> None:
    """An item that is deleted after its segment was read, and before it is read again, must not stay."""
    table, rng = filled(moving, seed), random.Random(seed)
    moving.prepare()
    with working(moving, table, seed, ITEMS) as stop:
        for _ in range(2):
            point = rng.choice(["before_commit", "after_commit"])
            with worker(moving, "snapshot", f"snapshot.{point}:{rng.randint(2, 5)}", **SLOW) as process:
                assert ended(process, moving, "snapshot") == KILLED, moving.log("snapshot")
        copied(moving, **COPY)
        with streams(moving):
            stop.set()
            equal(moving, table)


@pytest.mark.parametrize(("seed", "fenced"), over((1, False), (2, True), (3, False), (4, True)))
def test_row_22_throttling_and_items_given_back(moving: ItemMove, seed: int, fenced: bool) -> None:
    moving.target["dynamodb"]["fencedWrites"] = fenced
    table, rng = filled(moving, seed, 1500), random.Random(seed)
    moving.prepare()
    with proxied(moving, throttling(rng, 0.15), throttling(rng, 0.15)), working(moving, table, seed, 1500) as stop:
        copied(moving, **COPY)
        counters = moving.report(moving.task("snapshot")).counters
        assert counters.throttled > 0
        with streams(moving):
            Application(moving.origin, table, rng, 1500).change(100)
            stop.set()
            equal(moving, table)
    order(moving.task("stream"))
