"""Which shards may be read, and that every item's changes come in order over splits, rolls, crashes and any sharing."""

import random
from dataclasses import dataclass, field, replace

import pytest

from support.memory_shards import MemoryItems, MemorySource
from whimbrel_worker.engine.shard_ports import Holder, Shard, ShardRef, ShardRow, ShardState
from whimbrel_worker.engine.shards.discovery import Discovery
from whimbrel_worker.engine.shards.lineage import is_open, leaves, newcomers, number, parents_of, readable
from whimbrel_worker.engine.shards.reading import Reading, Terms
from whimbrel_worker.engine.shards.sharing import Sharing
from whimbrel_worker.engine.shards.tables import Followed
from whimbrel_worker.errors import SourceLogLost

SEEDS = range(40)


def ref(shard: str, stream: str = "arn/1") -> ShardRef:
    return ShardRef("t", stream, shard)


def row(shard: str, parent: str = "", state: ShardState = ShardState.PENDING) -> ShardRow:
    return ShardRow(ref(shard), parent, state)


def listed(shard: str, parent: str = "", stream: str = "arn/1") -> Shard:
    return Shard(ref(shard, stream), parent)


def test_positions_grow_as_numbers_and_not_as_text() -> None:
    assert number("99") < number("100")
    assert number("") < number("@1") < number("1")
    assert number(f"{2**64 + 1}") > number(f"{2**64}")


def test_a_child_waits_for_its_parent_only() -> None:
    rows = [row("a"), row("b", "a"), row("c", "a"), row("other")]
    assert [each.ref.shard for each in readable(rows)] == ["a", "other"]
    rows[0] = row("a", state=ShardState.DONE)
    assert [each.ref.shard for each in readable(rows)] == ["b", "c", "other"]


def test_a_child_whose_parent_was_gone_before_the_capture_is_read() -> None:
    assert readable([row("b", "a")]) == [row("b", "a")]


def test_an_ended_shard_is_a_leaf_until_its_child_is_known() -> None:
    done = row("a", state=ShardState.DONE)
    assert leaves([done]) == [done]
    assert leaves([done, row("b", "a")]) == []


def test_new_shards_come_by_generations_with_what_their_parents_proved() -> None:
    known = [replace(row("a", state=ShardState.DONE), read_to=70.0)]
    found = newcomers("t", known, [listed("d", "c"), listed("b", "a"), listed("c", "a"), listed("a")])
    assert [[each.ref.shard for each in generation] for generation in found] == [["b", "c"], ["d"]]
    assert {each.read_to for generation in found for each in generation} == {70.0}


def test_a_shard_whose_parent_nobody_has_seen_is_a_loss() -> None:
    with pytest.raises(SourceLogLost, match="b of table t came and was trimmed"):
        newcomers("t", [row("a")], [listed("a"), listed("c", "b")])


def test_another_stream_is_a_loss_that_names_both() -> None:
    with pytest.raises(SourceLogLost, match=r"arn/1.*arn/2"):
        newcomers("t", [row("a")], [listed("a", stream="arn/2")])


def test_shards_that_are_each_others_parents_are_refused() -> None:
    with pytest.raises(SourceLogLost, match="circle"):
        newcomers("t", [], [listed("a", "b"), listed("b", "a")])


# The whole, against a model


@dataclass
class Worker:
    """One worker of the model: what a follower does, without its threads."""

    world: "World"
    index: int
    attempt: int = 0
    readings: dict[ShardRef, Reading] = field(default_factory=dict)
    now: float = 0.0
    sharing: Sharing = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.attempt += 1
        self.readings = {}
        self.sharing = Sharing(self.index, lambda: self.now)
        self.store.release(self.holder)

    @property
    def store(self):  # type: ignore[no-untyped-def]
        return self.world.target.store

    @property
    def holder(self) -> Holder:
        return Holder(self.index, self.attempt)

    def look(self) -> None:
        self.now += 1.0
        rows = self.store.all()
        known = {each.ref: each for each in rows}
        wishes = self.sharing.wishes(readable(rows), self.world.workers)
        for each in wishes.give:
            if each.ref in self.readings:
                self.readings.pop(each.ref).let_go()
        for each in wishes.take:
            if each.ref not in self.readings and self.store.claim(each, self.holder):
                assert not any(is_open(parent) for parent in parents_of(each, known))
                table = self.world.followed.get(each.ref.table)
                assert table is not None
                held = replace(each, owner=self.index, attempt=self.attempt)
                self.readings[each.ref] = Reading(table, held, self.terms(), self.world.followed.stop)

    def terms(self) -> Terms:
        target = self.world.target
        return Terms(self.world.source, self.store, target, self.holder, True, lambda _: None, lambda _: False)

    def step(self, rng: random.Random, at: ShardRef | None = None) -> None:
        if self.readings:
            at = at or rng.choice(sorted(self.readings))
            if self.readings[at].step() is None:
                del self.readings[at]


class World:
    """Source, target and workers, moved by a seeded generator."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        names = [f"t{number}" for number in range(self.rng.randint(1, 3))]
        self.source = MemorySource(self.rng, names, page=self.rng.randint(1, 7))
        self.source.empties = self.rng.choice([0, 0, 3])
        self.target = MemoryItems()
        self.followed = Followed(self.source.tables, {}, self.target.set_table)
        self.workers = self.rng.randint(1, 4)
        self.crew = []
        self.target.store.add(self.source.capture(self.source.tables))
        self.discovery = Discovery(
            self.source, self.target.store, self.followed, rows=self.target.store.all, found=lambda: None,
            notice=lambda _: None, workers=lambda: self.workers,
        )  # fmt: skip
        self.crew = [Worker(self, index) for index in range(self.workers)]

    def move(self) -> None:
        rng, table = self.rng, self.rng.choice(self.source.tables)
        what = rng.random()
        if what < 0.35:
            self.source.now += rng.random()
            self.source.write(table.name, f"k{rng.randint(0, 9)}", remove=rng.random() < 0.2)
        elif what < 0.38:
            self.source.roll(table.name, split=rng.random() < 0.5)
        elif what < 0.42:
            self.discovery.look(table)
        elif what < 0.55:
            rng.choice(self.crew).look()
        elif what < 0.56:
            rng.choice(self.crew).start()
        elif what < 0.58:
            self.source.failures = self.target.failures = rng.randint(0, 2)
        else:
            rng.choice(self.crew).step(rng)

    def drain(self) -> None:
        self.source.failures = self.target.failures = 0
        for _ in range(2000):
            if self.settled():
                return
            for table in self.source.tables:
                self.discovery.look(table)
            for worker in self.crew:
                worker.look()
                for at in list(worker.readings):
                    worker.step(self.rng, at)

    def settled(self) -> bool:
        rows = self.target.store.rows
        lives = [live for lives in self.source.lives.values() for live in lives]
        return all(
            live.ref in rows
            and (not is_open(rows[live.ref]) or not live.closed)
            and number(rows[live.ref].position) == (int(live.records[-1].sequence) if live.records else -1)
            for live in lives
        )

    def versions_in_order(self) -> None:
        """Within one life of one holder a key's versions never go back, nor does a committed position."""
        seen: dict[tuple[Holder, ShardRef], int] = {}
        for holder, each in self.target.store.log:
            assert seen.get((holder, each.ref), -1) <= number(each.position)
            seen[holder, each.ref] = number(each.position)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_change_is_applied_in_order_whoever_reads_whatever_breaks(seed: int) -> None:
    world = World(seed)
    for _ in range(600):
        world.move()
    world.drain()
    world.versions_in_order()
    assert {name: items for name, items in world.target.items.items() if items} == {
        name: items for name, items in world.source.items.items() if items
    }
    for lives in world.source.lives.values():
        for live in lives:
            kept = world.target.store.rows[live.ref]
            assert kept.state is ShardState.DONE or not live.closed
            assert number(kept.position) == (int(live.records[-1].sequence) if live.records else -1)
            assert kept.changes == len(live.records)


@pytest.mark.parametrize("seed", range(5))
def test_a_shard_trimmed_before_it_was_read_ends_the_work(seed: int) -> None:
    world = World(seed)
    name = world.source.tables[0].name
    for each in range(10):
        world.source.write(name, f"k{each}")
    live = world.source.lives[name][0]
    world.source.trim(name, live.ref.shard, 3)
    with pytest.raises(SourceLogLost, match="trimmed"):
        world.drain()


def test_a_stream_made_anew_ends_the_work() -> None:
    world = World(1)
    name = world.source.tables[0].name
    world.source.recreate(name)
    with pytest.raises(SourceLogLost, match=f"arn:{name}/1"):
        world.discovery.look(world.source.tables[0])
