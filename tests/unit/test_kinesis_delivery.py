"""Records of Kinesis data streams in every order of delivery, over made-up streams: the source's items in the end."""

from __future__ import annotations

import base64
import itertools
import json
import random
from collections.abc import Sequence

import pytest

from support.kinesis_reader import Reader, first_of
from support.memory_kinesis import BEGAN, World
from whimbrel_testbed.streams.kinesis_shards import Disorder
from whimbrel_worker.endpoints.dynamodb.kinesis.order import REMEMBERED_SECONDS


def act(world: World, reader: Reader, rng: random.Random) -> None:
    """One thing that happens to a stream and those who read it."""
    stream, what = world.stream, rng.random()
    if what < 0.45:
        world.write(rng.choice(sorted(world.tables)), str(rng.randrange(5)), remove=rng.random() < 0.2)
    elif what < 0.5:
        world.kinesis.ask("ListStreams", {})
        wide = [shard for shard in stream.open_shards if shard.high - shard.low > 1]
        stream.split(rng.choice(wide))
    elif what < 0.55:
        world.kinesis.ask("ListStreams", {})
        pairs = list(stream.neighbours())
        if pairs:
            stream.merge(*rng.choice(pairs))
    elif what < 0.6:
        world.service.generation += 1
    elif what < 0.65:
        reader.list()
    elif ready := reader.ready():
        crash = rng.choice(["", "", "", "", "before writing", "before commit"])
        reader.step(rng.choice(ready).ref, crash=crash)
    world.now += rng.choice([0.0, 0.0005, 0.3, 3.0])


@pytest.mark.parametrize("seed", range(25))
def test_any_order_of_delivery_ends_with_the_sources_items(seed: int) -> None:
    rng = random.Random(seed)
    print(f"seed {seed}")
    world = World(seed, ("a", "b"), shards=rng.choice([1, 2]))
    world.stream.disorder = Disorder(rng.choice([0.0, 0.5, 15.0]), rng.choice([0.0, 0.3]))
    for key in range(3):
        world.write("a", str(key))
    reader = Reader(world)
    for _ in range(400):
        act(world, reader, rng)
    world.now += REMEMBERED_SECONDS
    reader.finish()
    assert reader.agrees()


def test_the_stand_in_does_bring_them_out_of_order() -> None:
    """What the run above would not survive without an order: records as they come do not end right."""
    wrong = 0
    for seed in range(10):
        world = World(seed)
        world.stream.disorder = Disorder(15.0, 0.3)
        for version in range(20):
            world.write("t", str(version % 3))
            world.now += 1.0
        world.now += 60.0
        last = {}
        for record in world.kinesis.ask("GetRecords", {"ShardIterator": first_of(world)})["Records"]:
            image = json.loads(base64.b64decode(record["Data"]))["dynamodb"]["NewImage"]
            last[image["id"]["S"]] = image["v"]["N"]
        newest = {json.loads(item)["id"]["S"]: json.loads(item)["v"]["N"] for item in world.items["t"].values()}
        wrong += last != newest
    assert wrong > 5


def two_versions(world: World, late: float) -> None:
    """An older version of an item, which arrives that many seconds late, and a newer one, which arrives at once."""
    delay = world.stream.disorder
    world.stream.disorder = Disorder()
    for version, due in (("1", world.now + late), ("2", world.now)):
        image = {"id": {"S": "k"}, "v": {"N": version}}
        record = {"eventName": "MODIFY", "dynamodb": {"Keys": {"id": {"S": "k"}}, "NewImage": image}}
        world.stream.offer("t", record, world.now, due, "MICROSECOND")
    world.items["t"][b'{"S":"k"}',] = b'{"id":{"S":"k"},"v":{"N":"2"}}'
    world.stream.disorder = delay


def test_what_was_applied_before_a_restart_is_remembered() -> None:
    world = World(1)
    reader = Reader(world)
    two_versions(world, 40.0)
    for _ in range(30):
        reader.step(reader.only().ref)
        world.now += 1
    assert reader.only().read_to > BEGAN + 20
    reader.pages.clear()
    world.now += 20
    reader.finish()
    assert reader.agrees()


def four_versions(world: World, order: Sequence[int]) -> None:
    """Changes of one item within one millisecond, which come in this order, a second apart."""
    for turn, at in enumerate(order):
        images = {"OldImage": version(at), "NewImage": version(at + 1)}
        record = {"eventName": "MODIFY", "dynamodb": {"Keys": {"id": {"S": "k"}}, **images}}
        world.stream.offer("t", record, BEGAN, world.now + turn, "MILLISECOND")
    world.items["t"][b'{"S":"k"}',] = b'{"id":{"S":"k"},"v":{"N":"4"}}'


def version(number: int) -> dict[str, dict[str, str]]:
    return {"id": {"S": "k"}, "v": {"N": str(number)}}


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_any_order_within_one_millisecond_ends_with_the_last(order: tuple[int, ...], restart: bool) -> None:
    world = World(1)
    reader = Reader(world)
    four_versions(world, order)
    for _ in range(5):
        reader.step(reader.only().ref)
        world.now += 1
        if restart:
            reader.pages.clear()
    reader.finish()
    assert reader.agrees()


def test_what_the_images_do_not_tell_is_warned_of_with_its_table(caplog: pytest.LogCaptureFixture) -> None:
    world = World(1)
    reader = Reader(world)
    for before, after in ((1, 2), (2, 1)):
        images = {"OldImage": version(before), "NewImage": version(after)}
        record = {"eventName": "MODIFY", "dynamodb": {"Keys": {"id": {"S": "k"}}, **images}}
        world.stream.offer("t", record, BEGAN, BEGAN, "MILLISECOND")
    reader.finish()
    assert "table t" in caplog.text
    assert "ApproximateCreationDateTimePrecision=MICROSECOND" in caplog.text


@pytest.mark.parametrize("side", [0, 1])
def test_what_was_applied_in_either_parent_is_remembered(side: int) -> None:
    world = World(1, shards=2)
    reader = Reader(world)
    two_versions(world, 20.0)
    reader.finish()
    (home,) = [shard for shard in world.stream.open_shards if shard.numbers]
    (other,) = [shard for shard in world.stream.open_shards if not shard.numbers]
    world.stream.merge(*((home, other) if side == 0 else (other, home)))
    world.now += 21
    reader.finish()
    assert reader.agrees()


def test_where_a_reader_stands_does_not_depend_on_what_it_remembers() -> None:
    """A freeze finds out by a reader of its own how far the stream's worker has to come."""
    world = World(1)
    reader = Reader(world)
    two_versions(world, 70.0)
    reader.finish()
    world.now += REMEMBERED_SECONDS + 5
    other = Reader(world, rows=dict(reader.rows))
    world.now += 10
    reader.finish()
    other.finish()
    assert other.only().position == reader.only().position
    assert int(reader.only().position) == world.stream.shards["shardId-000000000000"].numbers[-1]
