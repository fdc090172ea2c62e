"""Ways back whose workers die or hang, whose slot is lost, whose servers crash or lose replies: nothing lost.

Each test ends by an independent comparison, or by a stop with its reason.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.item_faults import (
    ended,
    eventually,
    facts_of,
    freezing_write,
    is_stopped,
    lost_replies,
    throttling,
    worker,
)
from support.item_moves import fill
from support.moves import order
from support.patience import beside
from support.reverse_moves import ITEMS, KIND, ReverseMove, reverse_move
from support.seeds import over
from whimbrel_api.reports import ErrorCategory
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.dynamodb.faults import Rule
from whimbrel_testbed.dynamodb.proxy import DynamoDBProxy
from whimbrel_testbed.polardb.server import polardb_server

if TYPE_CHECKING:
    from whimbrel_testbed.dynamodb.local import DynamoDBServer
    from whimbrel_testbed.polardb.server import PolarDBServer

KILLED = -signal.SIGKILL
KEPT_BYTES = "1MB"
PLACES = ("armed", "before_commit", "after_commit", "before_acknowledge")
FILLING = "SELECT pg_logical_emit_message(false, 'noise', repeat('x', 15000000)) FROM generate_series(1, 4)"


@pytest.fixture(scope="module")
def origin() -> Iterator[PolarDBServer]:
    """A stand-in whose slots lose their log early."""
    with polardb_server(settings={"max_slot_wal_keep_size": KEPT_BYTES}) as server:
        yield server


@pytest.fixture
def back(origin: PolarDBServer, dynamodb: DynamoDBServer, tmp_path: Path) -> Iterator[ReverseMove]:
    with reverse_move(tmp_path, origin, dynamodb) as move:
        move.reverse = {"guard": {"onLimit": "Report"}}
        yield move


@contextmanager
def proxied(move: ReverseMove, rule: Rule) -> Iterator[None]:
    """The product reaches DynamoDB through a proxy; the comparison does not."""
    straight = move.target["dynamodb"]["endpoint"]
    with DynamoDBProxy(facts_of(move.goal), rule) as far:
        move.target["dynamodb"]["endpoint"] = far.endpoint
        try:
            yield
        finally:
            move.target["dynamodb"]["endpoint"] = straight


def working(move: ReverseMove, table: str, seed: int) -> Callable[..., object]:
    application = move.application(table, random.Random(seed))
    return lambda stop: application.change(10, stop)


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_a_worker_killed_anywhere(back: ReverseMove, seed: int) -> None:
    """At named places and at any other; the next life goes on, and in the end both sides are equal."""
    print(f"seed {seed}")
    table, rng = back.table(), random.Random(seed)
    back.order()
    with worker(back, KIND, "reverse.armed") as process:  # type: ignore[arg-type]
        assert back.ended(process) == KILLED, back.log(KIND)
    assert back.kept() is None
    fill(back.origin, table, range(ITEMS), seed)
    for place in rng.sample(PLACES[1:], k=2):
        point = f"reverse.{place}:{rng.randint(2, 5)}"
        with beside(working(back, table, rng.randrange(99)), 0.05), worker(back, KIND, point) as process:  # type: ignore[arg-type]
            assert back.ended(process) == KILLED, back.log(KIND)
    with beside(working(back, table, seed), 0.05) as stop, worker(back, KIND) as process:  # type: ignore[arg-type]
        back.forget_report()
        back.armed()
        stop.wait(rng.uniform(0, 1.5))  # the moment of death, not a wait for anything
        process.kill()
    with back.following():
        back.equal(table)


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_a_zombie_is_fenced_out(back: ReverseMove, seed: int) -> None:
    """It stops before a write; its successor takes row and slot and writes on; then it wakes up."""
    print(f"seed {seed}")
    back.target["dynamodb"]["fencedWrites"] = True
    table, pids = back.table(), [0]
    with proxied(back, freezing_write(random.Random(seed).randint(1, 2), lambda: pids[0])):
        back.order()
        with worker(back, KIND) as zombie:  # type: ignore[arg-type]
            pids[0] = zombie.pid
            back.armed()
            fill(back.origin, table, range(ITEMS), seed)
            eventually(lambda: is_stopped(zombie.pid), lambda: back.log(KIND)[-2000:])
            first = back.directory / "reverse-0.report"
            first.rename(back.directory / "zombie.report")
            orders = str(back.directory / "zombie.orders")
            order(back.way(ordersFile=orders))
            with back.following() as successor:
                back.application(table, random.Random(seed)).change(100)
                back.equal(table)
                os.kill(zombie.pid, signal.SIGCONT)
                assert ended(zombie, back, KIND) == ExitCode.FENCED_OUT, back.log(KIND)[-3000:]  # type: ignore[arg-type]
                assert back.differences(table) == [], "the zombie wrote after its successor"
                assert successor.poll() is None, "the successor was not disturbed"


@pytest.mark.parametrize("seed", over(1, 2, 3))
def test_replies_that_are_lost_and_calls_that_are_throttled(back: ReverseMove, seed: int) -> None:
    print(f"seed {seed}")
    table, rng = back.table(), random.Random(seed)
    losing, slowing = lost_replies(rng, 0.1), throttling(rng, 0.05)
    with proxied(back, lambda call: losing(call) or slowing(call)), back.following():
        fill(back.origin, table, range(ITEMS), seed)
        back.application(table, rng).change(100)
        back.equal(table)


def test_a_server_that_crashes_and_comes_back(back: ReverseMove) -> None:
    table, rng = back.table(), random.Random(24)
    with back.following() as process:
        fill(back.origin, table, range(ITEMS))
        back.application(table, rng).change(50)
        back.server.backend.kill()
        back.server.backend.start()
        back.application(table, rng).change(50)
        back.equal(table)
        assert process.poll() is None


def lost(move: ReverseMove) -> str:
    """The reason why the worker cannot go on, which it gives each time."""
    move.order()
    code, report = move.run()
    assert code == ExitCode.SOURCE_LOG_LOST, report.last_error
    assert report.last_error is not None
    assert report.last_error.category is ErrorCategory.SOURCE_LOG_LOST
    return report.last_error.sentence()


def armed_before(move: ReverseMove) -> None:
    move.table()
    move.order(drainTo="0/1", retire=True)
    code, report = move.run()
    assert code == ExitCode.DONE, report.last_error


def test_a_slot_that_is_not_what_it_was(back: ReverseMove) -> None:
    """Advanced by somebody, dropped, made anew: each would lose changes in silence, and is told instead."""
    armed_before(back)
    back.sql("SELECT pg_logical_emit_message(true, 'a', 'b')")
    back.sql("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", back.slot)
    assert "advanced by somebody" in lost(back)
    back.sql("SELECT pg_drop_replication_slot(%s)", back.slot)
    assert f"the source has no slot {back.slot}" in lost(back)
    back.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", back.slot)
    assert "made anew" in lost(back)


def test_a_slot_whose_log_is_gone(back: ReverseMove) -> None:
    armed_before(back)
    back.sql(FILLING)
    back.sql("SELECT pg_switch_wal()")
    back.sql("CHECKPOINT")
    assert "wal_status lost" in lost(back)


def test_a_slot_dropped_under_a_worker_that_holds(back: ReverseMove) -> None:
    back.table()
    with back.following() as process:
        back.held()
        back.sql("SELECT pg_drop_replication_slot(%s)", back.slot)
        assert back.ended(process) == ExitCode.SOURCE_LOG_LOST
    report = back.reported()
    assert report is not None
    assert "slot is not there any more" in str(report.last_error)


def test_a_publication_made_anew_is_noticed(back: ReverseMove) -> None:
    armed_before(back)
    name = back.slot
    back.sql(f'DROP PUBLICATION "{name}"')
    back.sql(f'CREATE PUBLICATION "{name}" FOR TABLE "{back.prefix}orders"')
    assert "dropped and made anew" in lost(back)
