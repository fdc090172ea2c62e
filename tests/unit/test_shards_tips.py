"""Freezes: the name of where all shards stand, what has reached it, and when a source counts as still."""

import random
import threading
from dataclasses import replace

import pytest

from support.memory_shards import MemorySource, MemoryStore
from whimbrel_worker.engine.shard_ports import Holder, ShardRef, ShardRow, ShardState
from whimbrel_worker.engine.shards.lineage import number
from whimbrel_worker.engine.shards.stillness import Stillness
from whimbrel_worker.engine.shards.tips import digest, reached
from whimbrel_worker.values.moments import freeze_position, name_of, seconds_of

A, B, C = (ShardRef("t", "arn", name) for name in "abc")
NOW = 2000.0


def quiet(ref: ShardRef, position: str = "") -> ShardRow:
    return ShardRow(ref, state=ShardState.READING, position=position, quiet_since=NOW - 60, asked_at=NOW - 1)


def test_a_position_has_a_moment_and_a_name() -> None:
    position = freeze_position("2026-11-21T19:00:00.123Z", "abc")
    assert name_of(position) == "abc"
    assert seconds_of(position) == pytest.approx(1795287600.123)
    assert name_of("2026-11-21T19:00:00.123Z") == ""


def test_the_name_is_that_of_the_records_and_not_of_empty_shards() -> None:
    assert digest({A: 7, B: 9}) == digest({B: 9, A: 7, C: -1})
    assert digest({A: 7, B: 9}) != digest({A: 7, B: 10})


def test_tips_are_reached_by_position_or_by_the_shards_end() -> None:
    tips = {A: "100", B: "7"}
    done = ShardRow(B, state=ShardState.DONE, position="7")
    assert not reached(tips, [quiet(A, "99"), done], ["t"], NOW)
    assert reached(tips, [quiet(A, "100"), done], ["t"], NOW)
    assert not reached(tips, [quiet(A, "100")], ["t"], NOW)
    assert reached(tips, [], ["another"], NOW)


def test_shards_beside_the_tips_must_be_quiet() -> None:
    tips = {A: "100"}
    child = ShardRow(B, parent="a")
    assert not reached(tips, [quiet(A, "100"), child], ["t"], NOW)
    assert reached(tips, [quiet(A, "100"), quiet(B)], ["t"], NOW)
    assert not reached(tips, [quiet(A, "100"), replace(quiet(B), asked_at=NOW - 60)], ["t"], NOW)


class Frozen:
    """A source, and a store whose rows may be moved on; `wait` lets things happen."""

    def __init__(self, seed: int = 1) -> None:
        self.source = MemorySource(random.Random(seed), ["t"], page=2)
        self.store = MemoryStore()
        self.store.add(self.source.capture(self.source.tables))
        self.now = 0.0
        self.plan: list[tuple[float, object]] = []

    def at(self, moment: float, action: object) -> None:
        self.plan.append((moment, action))

    def wait(self, seconds: float) -> None:
        self.now += max(seconds, 0.05)
        due = [action for moment, action in self.plan if moment <= self.now]
        self.plan = [(moment, action) for moment, action in self.plan if moment > self.now]
        for action in due:
            action()  # type: ignore[operator]

    def name(self, seconds: float = 3.0) -> str:
        stillness = Stillness(
            self.source, self.store, {table.name: table for table in self.source.tables}, self.wait, lambda: self.now  # type: ignore[arg-type]
        )  # fmt: skip
        rows = stillness.until_quiet(seconds, lambda _: None)
        return digest({row.ref: number(row.position) for row in rows})

    def apply(self) -> None:
        """As a stream would: everything is in the target."""
        for live in self.source.lives["t"]:
            last = live.records[-1].sequence if live.records else ""
            state = ShardState.DONE if live.closed else ShardState.READING
            self.store.add([ShardRow(live.ref, live.parent)])
            row = self.store.rows[live.ref]
            self.store.claim(row, Holder(0, 1))
            self.store.commit(replace(row, state=state, position=last), Holder(0, 1))


def test_two_freezes_are_equal_where_nothing_was_written_although_the_stream_went_on_and_shards_rolled() -> None:
    world = Frozen()
    for key in range(9):
        world.source.write("t", f"k{key}")
    first = world.name()
    world.apply()
    world.source.roll("t", split=True)
    assert world.name() == first
    world.apply()
    assert world.name() == first
    world.source.write("t", "k1")
    assert world.name() != first


def test_a_write_during_the_quiet_begins_it_anew() -> None:
    world = Frozen()
    world.at(2.0, lambda: world.source.write("t", "k1"))
    name = world.name(3.0)
    assert world.now >= 5.0
    assert name == world.name(3.0)


def test_a_record_in_a_child_that_the_store_does_not_know_is_seen() -> None:
    world = Frozen()
    world.source.write("t", "k1")
    world.source.roll("t", split=False)
    before = world.name()
    world.source.write("t", "k1")
    assert world.name() != before


def test_empty_pages_before_a_record_do_not_hide_it() -> None:
    world = Frozen()
    world.source.empties = 4
    world.source.write("t", "k1")
    assert world.name(3.0) != digest({})


def test_a_freeze_changes_nothing_in_the_store() -> None:
    world = Frozen()
    world.source.write("t", "k1")
    before = dict(world.store.rows)
    world.name()
    assert world.store.rows == before
    assert threading.active_count() < 50
