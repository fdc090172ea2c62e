"""Streams of item tables whose workers die, hang, lose their servers or their log: nothing lost, nothing out of order.

Each test ends by an independent comparison, or by a stop with its reason.
"""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from support.item_faults import (
    CONTROL,
    MOST_UNDER_WAY,
    STALE_SECONDS,
    Application,
    ended,
    equal,
    eventually,
    freezing_write,
    is_stopped,
    lost_replies,
    proxied,
    streams,
    throttling,
    watched,
    worker,
    working,
)
from support.item_moves import ItemMove, fill
from support.moves import order
from support.seeds import over
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.dynamodb.faults import Call, Delay, Fault
from whimbrel_testbed.streams.server import StreamServer

ITEMS = 300
MANY = 1200
"""Items for a page that holds more than a worker sends at once."""
KILLED = -signal.SIGKILL
LONG_AGO = "120"
"""Seconds by which a worker's beats are put back, so that it counts as lost at once."""


def copied(move: ItemMove, seed: int) -> str:
    """The table, copied; its stream stands at the beginning."""
    print(f"seed {seed}")
    table = move.table("orders")
    fill(move.origin, table, range(ITEMS), seed)
    move.prepare()
    code, report = move.run("snapshot")
    assert code == ExitCode.DONE, report.last_error
    return table


def application(move: ItemMove, table: str, rng: random.Random) -> Application:
    return Application(move.origin, table, rng, ITEMS)


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_row_2_a_worker_killed_inside_a_page(moving: ItemMove, seed: int) -> None:
    """Before its items, between them and the position, and after it; the next life goes on."""
    table, rng = copied(moving, seed), random.Random(seed)
    places = rng.sample(["before_write", "after_write", "before_commit", "after_commit"], k=2)
    with watched(moving, table) as lines:
        for place in places:
            point = f"stream.{place}:{rng.randint(1, 4)}"
            with working(moving, table, seed, ITEMS), worker(moving, "stream", point) as process:
                assert ended(process, moving, "stream") == KILLED, moving.log("stream")
        with streams(moving):
            equal(moving, table)
    assert lines == []


@pytest.mark.parametrize("fenced", [False, True])
@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_row_3_replies_that_are_lost(moving: ItemMove, seed: int, fenced: bool) -> None:
    moving.target["dynamodb"]["fencedWrites"] = fenced
    table, rng = copied(moving, seed), random.Random(seed)
    losing = proxied(moving, lost_replies(rng, 0.1), lost_replies(rng, 0.1))
    with losing, watched(moving, table) as lines, streams(moving):
        with working(moving, table, seed, ITEMS) as stop:
            stop.wait(3)  # how long the application works
        equal(moving, table)
    assert lines == []


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_row_4_a_zombie_is_fenced_out(moving: ItemMove, seed: int) -> None:
    """It stops while a transaction of it is on its way; its successor writes the same items as they are later."""
    moving.target["dynamodb"]["fencedWrites"] = True
    table, rng = copied(moving, seed), random.Random(seed)
    second = str(moving.directory / "successor.report")
    with frozen(moving, table, rng) as zombie, streams(moving, reportFile=second) as (successor,):
        application(moving, table, rng).change(150)
        equal(moving, table)
        os.kill(zombie.pid, signal.SIGCONT)
        assert ended(zombie, moving, "stream") == ExitCode.FENCED_OUT, moving.log("stream")
        assert moving.differences(table) == [], "the zombie wrote after its successor"
        application(moving, table, rng).change(20)
        equal(moving, table)
        assert successor.poll() is None, "the successor was not disturbed"


def test_row_4_a_zombie_without_fenced_writes(moving: ItemMove) -> None:
    """The window that is documented: of a page with more, only what it was sending lands; the comparison finds it."""
    table, rng = copied(moving, seed=4), random.Random(4)
    fill(moving.origin, table, range(MANY), seed=5)
    second = str(moving.directory / "successor.report")
    with frozen(moving, table, rng) as zombie, streams(moving, reportFile=second):
        stopped = time.monotonic()
        fill(moving.origin, table, range(MANY), seed=6)
        equal(moving, table)
        eventually(lambda: time.monotonic() - stopped > STALE_SECONDS)
        os.kill(zombie.pid, signal.SIGCONT)
        assert ended(zombie, moving, "stream") == ExitCode.FENCED_OUT, moving.log("stream")
        found = wrong(moving, table)
    print(f"{found} items by the zombie")
    assert found <= MOST_UNDER_WAY


def wrong(move: ItemMove, table: str) -> int:
    """How many items the independent comparison finds wrong."""
    lines = move.differences(table)
    counted = re.fullmatch(r".*: (\d+) differences in all", lines[-1]) if lines else None
    return int(counted[1]) if counted else len(lines)


def test_row_4_a_zombie_whose_shards_another_worker_took(moving: ItemMove) -> None:
    """Nobody came with its index, so only what takes its shards away can fence its writes out."""
    moving.target["dynamodb"]["fencedWrites"] = True
    table, rng = copied(moving, seed=5), random.Random(5)
    with frozen(moving, table, rng, workers=2) as zombie:
        put_back_beats(moving)
        with worker(moving, "stream", index=1, workers=2) as successor:
            application(moving, table, rng).change(150)
            eventually(lambda: moving.differences(table) == [], lambda: moving.log("stream", 1))
            os.kill(zombie.pid, signal.SIGCONT)
            assert ended(zombie, moving, "stream") == ExitCode.FENCED_OUT, moving.log("stream")
            assert moving.differences(table) == [], "the zombie wrote after its successor"
            assert successor.poll() is None, "the successor was not disturbed"


class frozen:  # noqa: N801 - a context manager
    """A stream worker that stands still since its n-th write of items, which has not reached the target."""

    def __init__(self, move: ItemMove, table: str, rng: random.Random, workers: int = 1) -> None:
        self.move, self.table, self.rng, self.workers = move, table, rng, workers
        self._pids: list[int] = []

    def __enter__(self) -> Any:
        move = self.move
        application(move, self.table, self.rng).change(100)
        self._ends = proxied(move, target=freezing_write(self.rng.randint(1, 3), lambda: self._pids[0]))
        self._ends.__enter__()
        self._life = worker(move, "stream", workers=self.workers)
        straight = move.goal.endpoint, ""
        zombie = self._life.__enter__()
        self._pids.append(zombie.pid)
        move.target["dynamodb"]["endpoint"], move.through = straight
        changes = application(move, self.table, self.rng)

        def stands() -> bool:
            changes.change(3)
            return is_stopped(zombie.pid)

        eventually(stands, lambda: move.log("stream"))
        return zombie

    def __exit__(self, *error: object) -> None:
        self._life.__exit__(None, None, None)
        self._ends.__exit__(None, None, None)


def put_back_beats(move: ItemMove) -> None:
    """Worker 0 has been silent for long."""
    client = client_of(move.goal)
    rows = client.query(
        TableName=CONTROL, KeyConditionExpression="migration = :m",
        ExpressionAttributeValues={":m": {"S": move.migration}},
    )["Items"]  # fmt: skip
    for row in rows:
        name = {"shard": "beatAt", "worke": "heartbeat"}.get(row["entry"]["S"][:5], "")
        if name in row:
            client.update_item(
                TableName=CONTROL, Key={"migration": row["migration"], "entry": row["entry"]},
                UpdateExpression=f"SET {name} = {name} - :ago",
                ExpressionAttributeValues={":ago": {"N": LONG_AGO}},
            )  # fmt: skip


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_row_11_partitions_latency_and_cut_connections(moving: ItemMove, seed: int) -> None:
    table, rng = copied(moving, seed), random.Random(seed)

    def slow(_: Call) -> Fault | None:
        return Delay(rng.uniform(0.0, 0.1)) if rng.random() < 0.3 else None

    with proxied(moving, slow, slow) as ends, watched(moving, table) as lines, streams(moving):
        with working(moving, table, seed, ITEMS):
            for _ in range(6):
                end = rng.choice(ends)
                end.pause()
                time.sleep(rng.uniform(0.1, 0.8))  # how long the partition lasts
                if rng.random() < 0.5:
                    end.cut_all()
                end.resume()
                time.sleep(rng.uniform(0.05, 0.3))  # until the next one
        equal(moving, table)
    assert lines == []


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_row_22_throttling_and_items_given_back(moving: ItemMove, seed: int) -> None:
    table, rng = copied(moving, seed), random.Random(seed)
    busy = proxied(moving, throttling(rng, 0.2), throttling(rng, 0.2))
    with busy, watched(moving, table) as lines, streams(moving):
        with working(moving, table, seed, ITEMS) as stop:
            stop.wait(3)  # how long the application works
        equal(moving, table)
    assert lines == []


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_row_23_shards_that_split_and_roll_under_two_workers(
    moving: ItemMove, stream_bed: StreamServer, seed: int
) -> None:
    """With expired iterators and empty pages, one worker killed and back: the order of an item is kept."""
    table, rng = copied(moving, seed), random.Random(seed)
    control = stream_bed.control

    def divide() -> None:
        shards = [shard["shardId"] for shard in control.shards(table) if shard["open"]]
        if len(shards) < 8 and rng.random() < 0.6:
            control.split(table, rng.choice(shards))
        else:
            control.roll(table, rng.choice(shards))

    empty_pages = partial(control.empty_pages, 3, table)
    acts: list[Callable[[], None]] = [divide, divide, control.expire_iterators, empty_pages]
    with watched(moving, table) as lines, streams(moving, workers=2) as processes:
        with working(moving, table, seed, ITEMS, pause=0.01) as stop:
            for turn in range(12):
                rng.choice(acts)()
                stop.wait(rng.uniform(0.05, 0.4))  # until the next one
                if turn == 6:
                    processes[1].kill()
                    processes[1].wait()
                    processes[1] = moving.start("stream", index=1, workers=2)
        equal(moving, table, workers=2)
    assert lines == []
    assert len(control.shards(table)) > 3


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_row_23_a_log_that_was_trimmed_stops_the_stream(moving: ItemMove, stream_bed: StreamServer, seed: int) -> None:
    table, rng = copied(moving, seed), random.Random(seed)
    with streams(moving):
        application(moving, table, rng).change(60)
        equal(moving, table)
    before = moving.target_items(table)
    application(moving, table, rng).change(rng.randint(5, 60))
    stream_bed.control.trim(table)
    application(moving, table, rng).change(20)
    for _ in range(2):
        code, report = moving.run("stream")
        assert code == ExitCode.SOURCE_LOG_LOST
        assert report.last_error is not None
        assert table in report.last_error.sentence()
        assert report.last_error.todo
    assert len(moving.target_items(table)) == len(before), "it did not go on behind the gap"
    assert moving.differences(table) != []


def test_row_23_a_new_stream_stops_by_both_names(moving: ItemMove, stream_bed: StreamServer) -> None:
    """While nobody follows, and then while somebody does."""
    table, rng = copied(moving, 1), random.Random(1)
    client = client_of(moving.origin)
    old = client.describe_table(TableName=table)["Table"]["LatestStreamArn"]
    application(moving, table, rng).change(20)
    process = moving.start("stream")
    try:
        equal(moving, table)
        application(moving, table, rng).change(20)
        new = stream_bed.control.recreate(table)
        application(moving, table, rng).change(20)
        assert ended(process, moving, "stream") == ExitCode.SOURCE_LOG_LOST, moving.log("stream")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    for sentence in (moving.report(moving.task("stream")).last_error, moving.run("stream")[1].last_error):
        assert sentence is not None
        assert old in sentence.sentence()
        assert new in sentence.sentence()
    order(moving.task("stream"))
