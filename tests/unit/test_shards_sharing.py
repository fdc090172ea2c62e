"""How workers share shards without speaking to each other."""

import random
from dataclasses import replace

import pytest

from whimbrel_worker.engine.shard_ports import ShardRef, ShardRow
from whimbrel_worker.engine.shards.sharing import LEFT_SECONDS, Sharing


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def rows(count: int, owner: int = -1) -> list[ShardRow]:
    return [ShardRow(ShardRef("t", "arn", f"{number:03d}"), owner=owner) for number in range(count)]


def test_a_worker_takes_its_share_at_once_and_the_rest_when_nobody_does() -> None:
    clock = Clock()
    sharing, free = Sharing(0, clock), rows(5)
    assert len(sharing.wishes(free, 2).take) == 3
    mine = [replace(row, owner=0) for row in free[:3]]
    assert sharing.wishes([*mine, *free[3:]], 2).take == []
    clock.now += LEFT_SECONDS
    assert sharing.wishes([*mine, *free[3:]], 2).take == free[3:]


def test_workers_begin_at_different_shards() -> None:
    free = rows(6)
    taken = [row.ref for index in range(3) for row in Sharing(index).wishes(free, 3).take]
    assert len(set(taken)) == 6


def test_who_holds_too_much_offers_it_and_more_rarely_when_nobody_wants_it() -> None:
    clock = Clock()
    sharing, mine, offers = Sharing(0, clock), rows(4, owner=0), 0
    for _ in range(100):
        clock.now += 1.0
        wishes = sharing.wishes(mine, 2)
        given = {row.ref for row in wishes.give}
        taken = {row.ref for row in wishes.take}
        offers += bool(given)
        mine = [replace(row, owner=-1 if row.ref in given else 0 if row.ref in taken else row.owner) for row in mine]
    assert 2 <= offers <= 6
    assert sum(row.owner == 0 for row in mine) >= 2


@pytest.mark.parametrize("seed", range(20))
def test_shares_become_fair_and_no_shard_stays_free(seed: int) -> None:
    rng, clock = random.Random(seed), Clock()
    count, workers = rng.randint(1, 12), rng.randint(1, 4)
    crew, free = [Sharing(index, clock) for index in range(workers)], rows(count)
    for sharing in crew:
        clock.now += rng.random()
        for _ in range(30 if rng.random() < 0.5 else 1):
            clock.now += 1.0
            free = served(free, sharing, workers)
    for _ in range(400):
        clock.now += 1.0
        for sharing in crew:
            free = served(free, sharing, workers)
    held = [sum(row.owner == index for row in free) for index in range(workers)]
    assert sum(held) == count
    assert max(held) <= -(-count // workers)


def served(free: list[ShardRow], sharing: Sharing, workers: int) -> list[ShardRow]:
    wishes = sharing.wishes(free, workers)
    given, taken = {row.ref for row in wishes.give}, {row.ref for row in wishes.take}
    return [
        replace(row, owner=-1 if row.ref in given else sharing.index if row.ref in taken else row.owner) for row in free
    ]
