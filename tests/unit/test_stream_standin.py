"""The stream server's shards, numbers and answers, without servers: a clock that is set by hand."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from whimbrel_testbed.streams.iterators import ShardIterator, iterator_of
from whimbrel_testbed.streams.refusals import Refusal
from whimbrel_testbed.streams.service import StreamsService
from whimbrel_testbed.streams.shards import HASHES, Numbers, Shard, Stream, key_hash

ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2026-01-01T00:00:00.000"
SCHEMA = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bed:
    """One stream with one shard, and its service."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.service = StreamsService(self.clock, 7)
        self.stream = Stream(ARN, "l", "t", "NEW_AND_OLD_IMAGES", SCHEMA, self.clock.now, Numbers(7), 7)
        self.stream.begin(1, self.clock.now)
        self.service.streams[ARN] = self.stream

    @property
    def shard(self) -> Shard:
        return next(iter(self.stream.shards.values()))

    def write(self, key: str, size: int = 1) -> str:
        image = {"pk": {"S": key}, "sk": {"N": "1"}, "v": {"S": "x" * size}}
        record = {"eventName": "INSERT", "dynamodb": {"Keys": {n: image[n] for n in ("pk", "sk")}, "NewImage": image}}
        self.stream.append(record, self.clock.now)
        return str(self.stream.numbers.last)

    def ask(self, operation: str, **request: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.service.answer(operation, request))
        return answer

    def iterator(self, kind: str, number: str | None = None, shard: Shard | None = None) -> str:
        asked = {"StreamArn": ARN, "ShardId": (shard or self.shard).shard_id, "ShardIteratorType": kind}
        if number is not None:
            asked["SequenceNumber"] = number
        return str(self.ask("GetShardIterator", **asked)["ShardIterator"])

    def read(self, kind: str, number: str | None = None, shard: Shard | None = None) -> list[str]:
        return _numbers(self.ask("GetRecords", ShardIterator=self.iterator(kind, number, shard)))


def _numbers(page: dict[str, Any]) -> list[str]:
    return [record["dynamodb"]["SequenceNumber"] for record in page["Records"]]


@pytest.fixture
def bed() -> Bed:
    return Bed()


def refused(bed: Bed, operation: str, **request: Any) -> str:
    with pytest.raises(Refusal) as caught:
        bed.ask(operation, **request)
    return caught.value.kind


def test_the_kinds_of_iterators(bed: Bed) -> None:
    first, second, third = (bed.write(key) for key in "abc")
    assert bed.read("TRIM_HORIZON") == [first, second, third]
    assert bed.read("AT_SEQUENCE_NUMBER", second) == [second, third]
    assert bed.read("AFTER_SEQUENCE_NUMBER", second) == [third]
    latest = bed.iterator("LATEST")
    assert _numbers(bed.ask("GetRecords", ShardIterator=latest)) == []
    fourth = bed.write("d")
    assert _numbers(bed.ask("GetRecords", ShardIterator=latest)) == [fourth]


def test_numbers_are_texts_of_21_digits_and_more_and_rise(bed: Bed) -> None:
    numbers = [bed.write("a") for _ in range(50)]
    assert all(len(number) >= 21 and int(number) > 2**64 for number in numbers)
    assert sorted(numbers, key=int) == numbers


def test_after_a_jump_the_order_of_texts_is_another_one(bed: Bed) -> None:
    bed.stream.numbers.jump(10**21 - 2)
    numbers = [bed.write("a") for _ in range(4)]
    assert numbers == ["9" * 20 + "8", "9" * 21, "1" + "0" * 21, "1" + "0" * 20 + "1"]
    assert bed.read("TRIM_HORIZON") == numbers
    assert bed.read("AFTER_SEQUENCE_NUMBER", numbers[1]) == numbers[2:]
    with pytest.raises(ValueError, match="only rise"):
        bed.stream.numbers.jump(10**21)


def test_what_is_no_number_of_the_shard_is_refused(bed: Bed) -> None:
    bed.write("a")
    for number in ("1" * 20, "1" * 41, "-" + "1" * 21, str(bed.shard.starting - 1), str(bed.stream.numbers.last + 1)):
        asked = {"StreamArn": ARN, "ShardId": bed.shard.shard_id, "SequenceNumber": number}
        assert (
            refused(bed, "GetShardIterator", ShardIteratorType="AT_SEQUENCE_NUMBER", **asked) == "ValidationException"
        )


def test_a_closed_shard_ends_and_its_children_share_its_keys(bed: Bed) -> None:
    seed = 11
    print(f"seed {seed}")
    keys = [f"k{number}" for number in random.Random(seed).sample(range(10_000), 60)]
    before = [bed.write(key) for key in keys]
    left, right = bed.stream.split(bed.shard, bed.clock.now)
    after = {bed.write(key): key for key in keys}
    page = bed.ask("GetRecords", ShardIterator=bed.iterator("TRIM_HORIZON"))
    assert _numbers(page) == before
    assert "NextShardIterator" not in page
    halves = [bed.read("TRIM_HORIZON", shard=child) for child in (left, right)]
    assert sorted(map(int, halves[0] + halves[1])) == sorted(map(int, after))
    assert halves[0]
    assert halves[1]
    for half, child in zip(halves, (left, right), strict=True):
        assert all(child.low <= key_hash({"S": after[number]}) < child.high for number in half)
    assert bed.shard.ending is not None
    assert max(map(int, before)) < bed.shard.ending < min(left.starting, right.starting)


def test_a_roll_has_one_child_with_all_keys(bed: Bed) -> None:
    child = bed.stream.roll(bed.shard, bed.clock.now)
    assert (child.low, child.high, child.parent) == (0, HASHES, bed.shard.shard_id)
    with pytest.raises(ValueError, match="closed already"):
        bed.stream.roll(bed.shard, bed.clock.now)


def test_what_was_trimmed_is_refused_and_not_skipped(bed: Bed) -> None:
    first, second, third = (bed.write(key) for key in "abc")
    old = bed.iterator("TRIM_HORIZON")
    at_end = bed.iterator("AFTER_SEQUENCE_NUMBER", third)
    assert bed.shard.trim(int(third)) == 2
    assert refused(bed, "GetRecords", ShardIterator=old) == "TrimmedDataAccessException"
    for kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        for number in (first, second):
            asked = {"ShardIteratorType": kind, "SequenceNumber": number, "ShardId": bed.shard.shard_id}
            assert refused(bed, "GetShardIterator", StreamArn=ARN, **asked) == "TrimmedDataAccessException"
    assert bed.read("TRIM_HORIZON") == bed.read("AT_SEQUENCE_NUMBER", third) == [third]
    bed.shard.trim(bed.stream.numbers.last + 1)
    # Whoever had read all of it misses nothing.
    fourth = bed.write("d")
    assert _numbers(bed.ask("GetRecords", ShardIterator=at_end)) == bed.read("TRIM_HORIZON") == [fourth]


def test_iterators_expire_by_age_and_by_order(bed: Bed) -> None:
    bed.write("a")
    iterator = bed.iterator("TRIM_HORIZON")
    bed.clock.now += 900
    following = bed.ask("GetRecords", ShardIterator=iterator)["NextShardIterator"]
    bed.clock.now += 1
    assert refused(bed, "GetRecords", ShardIterator=iterator) == "ExpiredIteratorException"
    assert bed.ask("GetRecords", ShardIterator=following)["Records"] == []
    bed.service.generation += 1
    assert refused(bed, "GetRecords", ShardIterator=following) == "ExpiredIteratorException"
    assert len(bed.read("TRIM_HORIZON")) == 1


def test_an_iterator_of_our_making_only(bed: Bed) -> None:
    for text in ("", "x", f"{ARN}|1|", f"{ARN}|1|bnVsbA==", f"{ARN}|1|Ww==", f"{ARN}|1|WzEsMl0="):
        assert refused(bed, "GetRecords", ShardIterator=text) == "ValidationException"
    iterator = ShardIterator(ARN, "shardId-1", 10**30, 1.5, 3, "r")
    assert iterator_of(iterator.text()) == iterator


def test_pages_end_at_the_limit_and_at_one_mebibyte(bed: Bed) -> None:
    numbers = [bed.write("a", size=300_000) for _ in range(5)]
    huge = bed.write("a", size=1_500_000)
    pages, iterator = [], bed.iterator("TRIM_HORIZON")
    for _ in range(3):
        page = bed.ask("GetRecords", ShardIterator=iterator)
        pages.append(_numbers(page))
        iterator = page["NextShardIterator"]
    assert pages == [numbers[:3], numbers[3:], [huge]]
    page = bed.ask("GetRecords", ShardIterator=bed.iterator("TRIM_HORIZON"), Limit=2)
    assert _numbers(page) == numbers[:2]
    for limit in (0, 1001):
        iterator = bed.iterator("LATEST")
        assert refused(bed, "GetRecords", ShardIterator=iterator, Limit=limit) == "ValidationException"


@pytest.mark.parametrize("listing_seed", [None, 1, 2, 3])
def test_shards_are_paged_in_any_listing(bed: Bed, listing_seed: int | None) -> None:
    for _ in range(130):
        bed.stream.roll(bed.stream.open_shards[0], bed.clock.now)
    bed.service.dials.listing_seed = listing_seed
    seen: list[str] = []
    start: dict[str, str] = {}
    pages = 0
    while True:
        page = bed.ask("DescribeStream", StreamArn=ARN, **start)["StreamDescription"]
        seen += [shard["ShardId"] for shard in page["Shards"]]
        pages += 1
        if "LastEvaluatedShardId" not in page:
            break
        start = {"ExclusiveStartShardId": page["LastEvaluatedShardId"]}
    assert pages == 2
    assert sorted(seen) == sorted(bed.stream.shards)
    assert (seen == list(bed.stream.shards)) is (listing_seed is None)
    assert refused(bed, "DescribeStream", StreamArn=ARN, Limit=101) == "ValidationException"


def test_children_show_late_and_dropped_shards_not_at_all(bed: Bed) -> None:
    bed.service.dials.delay_new_shards = 5
    (child,) = [bed.stream.roll(bed.shard, bed.clock.now)]
    listed = [shard["ShardId"] for shard in bed.ask("DescribeStream", StreamArn=ARN)["StreamDescription"]["Shards"]]
    assert listed == [bed.shard.shard_id]
    bed.clock.now += 5
    held = bed.iterator("TRIM_HORIZON")
    bed.shard.dropped = True
    shards = bed.ask("DescribeStream", StreamArn=ARN)["StreamDescription"]["Shards"]
    assert [(shard["ShardId"], shard["ParentShardId"]) for shard in shards] == [(child.shard_id, bed.shard.shard_id)]
    assert refused(bed, "GetRecords", ShardIterator=held) == "TrimmedDataAccessException"
    asked = {"ShardId": bed.shard.shard_id, "ShardIteratorType": "TRIM_HORIZON"}
    assert refused(bed, "GetShardIterator", StreamArn=ARN, **asked) == "ResourceNotFoundException"


def test_children_of_a_shard_by_filter(bed: Bed) -> None:
    children = {shard.shard_id for shard in bed.stream.split(bed.shard, bed.clock.now)}
    wanted = {"Type": "CHILD_SHARDS", "ShardId": bed.shard.shard_id}
    shards = bed.ask("DescribeStream", StreamArn=ARN, ShardFilter=wanted)["StreamDescription"]["Shards"]
    assert {shard["ShardId"] for shard in shards} == children


def test_an_empty_page_proves_nothing(bed: Bed) -> None:
    number = bed.write("a")
    bed.stream.roll(bed.shard, bed.clock.now)
    bed.shard.empty_pages = 2
    iterator = bed.iterator("TRIM_HORIZON")
    for _ in range(2):
        page = bed.ask("GetRecords", ShardIterator=iterator)
        assert page["Records"] == []
        iterator = page["NextShardIterator"]
    page = bed.ask("GetRecords", ShardIterator=iterator)
    assert _numbers(page) == [number]
    assert "NextShardIterator" not in page


def test_a_third_reader_is_refused_while_two_read(bed: Bed) -> None:
    bed.service.dials.max_readers = 2
    one, two, three = (bed.iterator("TRIM_HORIZON") for _ in range(3))
    one = bed.ask("GetRecords", ShardIterator=one)["NextShardIterator"]
    two = bed.ask("GetRecords", ShardIterator=two)["NextShardIterator"]
    assert refused(bed, "GetRecords", ShardIterator=three) == "LimitExceededException"
    bed.ask("GetRecords", ShardIterator=one)
    bed.clock.now += 1.1
    bed.ask("GetRecords", ShardIterator=three)


def test_describe_stream_ten_times_a_second(bed: Bed) -> None:
    bed.service.dials.describe_rate = 10
    for _ in range(10):
        bed.ask("DescribeStream", StreamArn=ARN)
    assert refused(bed, "DescribeStream", StreamArn=ARN) == "ThrottlingException"
    bed.clock.now += 1
    bed.ask("DescribeStream", StreamArn=ARN)


def test_a_stream_with_several_first_shards_covers_every_hash() -> None:
    stream = Stream(ARN, "l", "t", "KEYS_ONLY", SCHEMA, 0, Numbers(1), 1)
    stream.begin(3, 0)
    edges = [(shard.low, shard.high) for shard in stream.shards.values()]
    assert [edges[0][0], edges[-1][1]] == [0, HASHES]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(edges))
    assert all(shard.parent is None for shard in stream.shards.values())
