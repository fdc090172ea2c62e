"""Which records of a Kinesis data stream still count: in whatever order they come, or how often, the newest does."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel_worker.endpoints.dynamodb.kinesis.order import REMEMBERED_SECONDS, Memory
from whimbrel_worker.endpoints.dynamodb.kinesis.records import Told
from whimbrel_worker.engine.shard_ports import ItemChange

SECOND = 1_000_000
BEGAN = 1_000_000.0
NUMBERS = itertools.count(1)


def change(key: str, made: float, arrived: float, *, step: tuple[str, str] = ("", ""), unit: int = 1,
           by_ttl: bool = False) -> Told:  # fmt: skip
    moment = int(made * SECOND) // unit * unit
    before, after = (text.encode() for text in step)
    cell = key.encode()
    row = ItemChange(str(next(NUMBERS)), (cell,), (cell, after) if after else None, moment / SECOND, by_ttl)
    return Told(row, arrived, moment, unit, before, after)


def applied(memory: Memory, deliveries: Iterable[Told]) -> dict[bytes, Told]:
    """What a target holds after these deliveries, which never goes back."""
    target: dict[bytes, Told] = {}
    shown: dict[int, Told] = {}
    for told in deliveries:
        shown[int(told.change.sequence)] = told
        if memory.counts(told):
            key = bytes(told.change.key[0])  # type: ignore[arg-type]
            assert key not in target or target[key].moment <= told.moment, "an item went back in time"
            target[key] = told
        for number in memory.again:
            target[bytes(shown[number].change.key[0])] = shown[number]  # type: ignore[arg-type]
        memory.again.clear()
    return target


@dataclass(frozen=True)
class History:
    """Changes as they arrive, and the newest of each key."""

    deliveries: Sequence[Told]
    newest: dict[bytes, Told]


@st.composite
def histories(draw: st.DrawFn) -> History:
    rng = random.Random(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([0.0, 0.5, 5.0, REMEMBERED_SECONDS]))
    keys = draw(st.integers(1, 4))
    made, found = BEGAN, list[Told]()
    newest: dict[bytes, Told] = {}
    for number in range(draw(st.integers(1, 60))):
        made += rng.choice([0.000_001, 0.01, 1.0, 20.0])
        key = str(rng.randrange(keys))
        last = newest.get(key.encode())
        step = (last.after.decode() if last else "", str(number))
        copies = [change(key, made, made + rng.uniform(0, spread), step=step) for _ in range(rng.choice([1, 1, 2]))]
        found += copies
        newest[key.encode()] = copies[0]
    return History(sorted(found, key=lambda told: told.arrived), newest)


@given(histories())
@settings(max_examples=200, deadline=None)
def test_shuffled_and_repeated_deliveries_end_with_the_newest_change_of_each_key(history: History) -> None:
    memory = Memory()
    target = applied(memory, history.deliveries)
    assert {key: told.moment for key, told in target.items()} == {k: t.moment for k, t in history.newest.items()}
    assert memory.unjudged == 0


@given(histories(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_a_reader_that_begins_anew_ends_the_same(history: History, rng: random.Random) -> None:
    """It is shown what arrived in the time before its position, and applies what comes after."""
    cut = rng.randrange(len(history.deliveries))
    target = applied(Memory(), history.deliveries[:cut])
    since = history.deliveries[cut].arrived - REMEMBERED_SECONDS
    again = Memory(horizon=since)
    for told in history.deliveries[:cut]:
        if told.arrived >= since:
            again.counts(told)
    target |= applied(again, history.deliveries[cut:])
    assert {key: told.moment for key, told in target.items()} == {k: t.moment for k, t in history.newest.items()}


def test_without_the_memory_an_old_change_would_win() -> None:
    """The deliveries that the memory is for: what the two tests above must be able to see."""
    new, old = change("a", BEGAN + 1, BEGAN + 1.1), change("a", BEGAN, BEGAN + 1.2)
    assert Memory().counts(old)
    memory = Memory()
    assert [memory.counts(new), memory.counts(old)] == [True, False]


def test_a_change_that_comes_again_does_not_count_before_or_after_a_newer_one() -> None:
    first, second = (change("a", BEGAN + made, BEGAN + made, step=(str(made), str(made + 1))) for made in (0, 1))
    memory = Memory()
    assert [memory.counts(told) for told in (first, first, second, first, second)] == [True, False, True, False, False]


def test_what_is_older_than_the_memory_is_applied_and_counted() -> None:
    memory = Memory()
    assert memory.counts(change("a", BEGAN, BEGAN))
    later = BEGAN + REMEMBERED_SECONDS + 1
    assert memory.counts(change("b", later, later))
    assert memory.unjudged == 0
    assert memory.counts(change("a", BEGAN - 5, later + 1))
    assert memory.unjudged == 1


def test_the_memory_holds_so_many_keys_and_knows_from_when_on_it_is_whole() -> None:
    memory = Memory(most=3)
    for number in range(6):
        assert memory.counts(change(str(number), BEGAN + number, BEGAN + number))
    assert memory.horizon == BEGAN + 2
    assert memory.counts(change("0", BEGAN + 1, BEGAN + 6))
    assert memory.unjudged == 1


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
def test_two_changes_of_one_millisecond_are_ordered_by_their_images(order: tuple[int, ...]) -> None:
    steps = [("v0", "v1"), ("v1", "v2")]
    told = [change("a", BEGAN, BEGAN + 1, step=step, unit=1000) for step in steps]
    target = applied(Memory(), [told[at] for at in (*order, *order)])
    assert target[b"a"].after == b"v2"


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
@pytest.mark.parametrize("twice", [False, True])
def test_any_order_of_changes_of_one_millisecond_ends_with_the_last(order: tuple[int, ...], twice: bool) -> None:
    """Also where the last comes first and the first second: once those between have come, it is applied again."""
    steps = [(f"v{number}", f"v{number + 1}") for number in range(4)]
    memory = Memory()
    deliveries = [change("a", BEGAN, BEGAN, step=steps[at], unit=1000) for at in (*order, *(order if twice else ()))]
    assert applied(memory, deliveries)[b"a"].after == b"v4"
    assert not memory.circles


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_an_item_that_comes_back_to_an_image_on_its_way_is_told_right(order: tuple[int, ...]) -> None:
    steps = [("v0", ""), ("", "v0"), ("v0", "v1")]
    target = applied(Memory(), [change("a", BEGAN, BEGAN, step=steps[at], unit=1000) for at in order])
    assert target[b"a"].after == b"v1"


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
def test_a_circle_within_one_millisecond_ends_where_the_item_was_before(order: tuple[int, ...]) -> None:
    memory = Memory()
    before = change("a", BEGAN - 1, BEGAN - 1, step=("v0", ""), unit=1000)
    steps = [("", "v1"), ("v1", "")]
    circle = [change("a", BEGAN, BEGAN, step=steps[at], unit=1000) for at in order]
    assert applied(memory, [before, *circle])[b"a"].change.after is None
    assert memory.circles == 1


def test_in_a_circle_of_an_unknown_item_the_last_to_come_counts_and_is_counted() -> None:
    memory = Memory()
    insert, removal = (change("a", BEGAN, BEGAN, step=step, unit=1000) for step in (("", "v1"), ("v1", "")))
    assert applied(memory, [insert, removal])[b"a"].change.after is None
    assert memory.circles == 1


def test_times_of_both_precisions_are_compared_by_the_coarser() -> None:
    memory = Memory()
    assert memory.counts(change("a", BEGAN + 0.000_700, BEGAN, step=("v0", "v1")))
    assert memory.counts(change("a", BEGAN + 0.000_900, BEGAN, step=("v1", "v2"), unit=1000))
    assert not memory.counts(change("a", BEGAN + 0.000_700, BEGAN, step=("v0", "v1")))
    assert memory.counts(change("a", BEGAN + 0.001_000, BEGAN, step=("v2", "v3"), unit=1000))


def test_deletes_that_are_left_out_do_not_hide_what_came_before_them() -> None:
    put, expired = change("a", BEGAN, BEGAN + 2), change("a", BEGAN + 1, BEGAN + 1, by_ttl=True)
    memory = Memory(keep_ttl=False)
    assert [memory.counts(expired), memory.counts(put)] == [False, True]
    memory = Memory()
    assert [memory.counts(expired), memory.counts(put)] == [True, False]


def test_the_longest_delay_of_the_last_minute_is_known() -> None:
    memory = Memory()
    memory.counts(change("a", BEGAN, BEGAN + 7))
    memory.counts(change("b", BEGAN + 8, BEGAN + 8.5))
    assert memory.late == pytest.approx(7)
    memory.counts(change("c", BEGAN + 80, BEGAN + 80.25))
    assert memory.late == pytest.approx(0.25)
