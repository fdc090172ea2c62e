"""Followers with their threads over a Kinesis data stream in memory: splits, merges, late and repeated records."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from support.memory_kinesis import LiveSource, LiveWorld
from support.memory_shards import MemoryItems
from support.patience import eventually
from whimbrel_testbed.streams.kinesis_shards import Disorder
from whimbrel_worker.engine.shards.follower import Follower, Options
from whimbrel_worker.engine.shards.lag import sample
from whimbrel_worker.engine.shards.tables import Followed
from whimbrel_worker.errors import Transient


def until(condition: Callable[[], bool], *followers: Follower) -> None:
    def holds() -> bool:
        for follower in followers:
            follower.check()
        return condition()

    eventually(holds, seconds=20.0, often=0.02)


def test_two_workers_follow_a_stream_that_splits_and_merges_and_repeats_itself() -> None:
    rng = random.Random(6)
    world, target = LiveWorld(6, ("a", "b"), shards=2), MemoryItems()
    source, heard = LiveSource(world), list[Transient]()
    tables = list(world.tables.values())
    target.store.add(source.log.capture(tables))
    world.stream.disorder = Disorder(0.5, 0.3)

    def start(index: int) -> Follower:
        session = target.session("stream", index)
        followed = Followed(tables, {}, lambda name, why: target.set_table(name, "Stopped", why))
        options = Options(index, lambda: 2, time.time() - 1, threads=4)
        follower = Follower(
            source, target, followed, options, session=session, attempt=session.take().attempt, notice=heard.append
        )
        follower.start()
        return follower

    followers = [start(0), start(1)]
    for round_ in range(4):
        for _ in range(60):
            world.write(rng.choice("ab"), str(rng.randrange(9)), remove=rng.random() < 0.2)
        with world.lock:
            world.kinesis.ask("ListStreams", {})
            if round_ % 2:
                world.stream.merge(*next(world.stream.neighbours()))
            else:
                world.stream.split(max(world.stream.open_shards, key=lambda shard: shard.high - shard.low))

    def equal() -> bool:
        with world.lock, target.lock:
            return all(
                {key: row[1] for key, row in target.items.get(name, {}).items()} == items
                for name, items in world.items.items()
            )

    until(equal, *followers)
    until(lambda: sample(target.store.all(), world.now, 0.0).quiet, *followers)
    assert equal()
    assert not heard
    assert not target.states
    assert all(follower.finish() for follower in followers)
