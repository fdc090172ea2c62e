"""The way back's own logic: positions, stopped tables, what is acknowledged when, over a log that dies anywhere."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel_api.layout import SlotGuard
from whimbrel_worker.endpoints.polardb.kept import kept_text, parse_kept
from whimbrel_worker.engine.ports import Delete, Write
from whimbrel_worker.engine.reverse import guard
from whimbrel_worker.engine.reverse.applier import Applier, Options
from whimbrel_worker.engine.reverse.ledger import Ledger
from whimbrel_worker.engine.reverse.pulse import FRESH_SECONDS, Pulse
from whimbrel_worker.engine.reverse_ports import (
    Beat,
    Emptied,
    Ended,
    ItemsChanged,
    Kept,
    Key,
    Refused,
    ReverseEvent,
    SlotState,
)
from whimbrel_worker.errors import ConfigurationError, Incompatible, Transient
from whimbrel_worker.values.columns import Column, Kind, Table

NAMES = ("one", "two", "odd")
START = 10


def everything(_table: str) -> bool:
    return True


def nobody(_content: bytes) -> None:
    return None


def a_table(name: str) -> Table:
    columns = (Column("pk", Kind.ATTRIBUTE, "S", "S"), Column("item", Kind.ITEM, "item", "item"))
    return Table("", name, "", name, columns, (0,))


TABLES = {name: a_table(name) for name in NAMES}
Content = dict[tuple[str, Key], bytes]


@dataclass
class Transaction:
    """Changes with the place of its commit record and the position behind it."""

    commit: int
    end: int
    changes: list[tuple[str, Key, bytes | None]]


@dataclass
class World:
    """A source's log and a target, with one place of death: the n-th step of any kind."""

    log: list[Transaction]
    refusing: set[str]
    dies_at: int
    items: Content = field(default_factory=dict)
    kept: Kept = field(default_factory=lambda: Kept("me", "log", START))
    acknowledged: int = START
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.dies_at:
            raise Transient("it died")


@dataclass
class MemoryLog:
    """Sends what ends after what was acknowledged, in parts; what begins before `position` comes as known."""

    world: World
    position: int
    left: deque[ReverseEvent] = field(init=False)
    ends: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.left = deque()
        for one in self.world.log:
            if one.commit < self.position:
                continue
            for table, key, item in one.changes:
                if table in self.world.refusing:
                    self.left.append(Refused(table, "odd", one.commit))
                else:
                    self.left.append(ItemsChanged(table, [(key, item)], one.commit, 1.0))
            self.left.append(Ended(one.end))

    def poll(self, timeout_seconds: float) -> Sequence[ReverseEvent]:
        self.world.step()
        given = [self.left.popleft() for _ in range(min(3, len(self.left)))]
        self.ends += [event.end for event in given if isinstance(event, Ended)]
        return given

    def acknowledge(self, end: int) -> None:
        self.world.step()
        assert end == self.world.acknowledged or end in self.ends or end == self.position
        assert end <= self.world.kept.floor, "acknowledged before it was kept"
        assert end >= self.world.acknowledged
        self.world.acknowledged = end

    def keep_alive(self) -> None: ...

    def close(self) -> None: ...


class MemoryKeeper:
    def __init__(self, world: World) -> None:
        self.world = world
        self.alive: Callable[[], None] = lambda: None

    def commit(self, writes: Sequence[Write], *, position: str | None = None) -> None:
        self.world.step()
        for write in writes:
            name = write.table.name
            if isinstance(write, Delete):
                for key in write.keys:
                    self.world.items.pop((name, tuple(key)), None)  # type: ignore[arg-type]
            else:
                for row in write.rows:
                    self.world.items[name, tuple(row[:-1])] = row[-1]  # type: ignore[arg-type, assignment]
        self.world.step()
        kept = parse_kept(position or "")
        assert kept is not None
        self.world.kept = kept

    def prove(self) -> None: ...


def followed(world: World, options: Options | None = None) -> Applier:
    """One life of a worker, to the log's end or its death."""
    applier = Applier(MemoryKeeper(world), Ledger(world.kept), kept_text, nobody, options or Options(changes=4))
    applier.ledger.restart(everything)
    log = MemoryLog(world, applier.ledger.floor)
    applier.follow(log, TABLES, lambda: not log.left)
    return applier


def expected(log: Sequence[Transaction], names: Sequence[str]) -> Content:
    content: Content = {}
    for one in log:
        for table, key, item in one.changes:
            if table in names and item is not None:
                content[table, key] = item
            elif table in names:
                content.pop((table, key), None)
    return content


def some_log(rng: random.Random) -> list[Transaction]:
    place, log = START, list[Transaction]()
    for number in range(rng.randrange(1, 15)):
        changes: list[tuple[str, Key, bytes | None]] = [
            (rng.choice(NAMES), (b"%d" % rng.randrange(4),), rng.choice([None, b"%d.%d" % (number, each)]))
            for each in range(rng.randrange(5))
        ]
        log.append(Transaction(place + 1, place + 3, changes))
        place += rng.randrange(3, 9)
    return log


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 40), st.integers(1, 40))
def test_nothing_is_lost_wherever_it_dies_and_a_stopped_table_catches_up(seed: int, first: int, second: int) -> None:
    log = some_log(random.Random(seed))
    world = World(log, {"odd"}, first)
    for dies_at in (first, second, 0):
        world.dies_at, world.steps = dies_at, 0
        try:
            followed(world)
        except Transient:
            continue
    assert {key: item for key, item in world.items.items() if key[0] != "odd"} == expected(log, ["one", "two"])
    touched = [one for one in log if any(table == "odd" for table, _, _ in one.changes)]
    assert world.kept.applied == log[-1].end
    assert (list(world.kept.behind) == ["odd"]) == bool(touched)
    if touched:
        assert world.acknowledged <= touched[0].commit, "what the stopped table needs was given up"
    world.refusing.clear()
    followed(world)
    assert world.items == expected(log, NAMES)
    assert world.kept.behind == {}
    assert world.acknowledged == log[-1].end


def test_a_table_that_the_target_refuses_is_stopped_alone() -> None:
    log = [Transaction(11, 13, [("one", (b"a",), b"1"), ("odd", (b"a",), b"1")])]
    world = World(log, set(), 0)

    class Picky(MemoryKeeper):
        def commit(self, writes: Sequence[Write], *, position: str | None = None) -> None:
            if any(write.table.name == "odd" for write in writes):
                raise Incompatible("too large", where="odd")
            super().commit(writes, position=position)

    applier = Applier(Picky(world), Ledger(world.kept), kept_text, nobody, Options())
    stream = MemoryLog(world, START)
    applier.follow(stream, TABLES, lambda: not stream.left)
    assert world.items == {("one", (b"a",)): b"1"}
    assert world.kept == Kept("me", "log", 13, {"odd": START})
    assert world.acknowledged == START
    assert "too large" in applier.ledger.reasons["odd"]


def test_a_refusal_that_names_no_table_ends_the_work() -> None:
    world = World([Transaction(11, 13, [("one", (b"a",), b"1")])], set(), 0)

    class Broken(MemoryKeeper):
        def commit(self, writes: Sequence[Write], *, position: str | None = None) -> None:
            raise Incompatible("not JSON")

    applier = Applier(Broken(world), Ledger(world.kept), kept_text, nobody, Options())
    stream = MemoryLog(world, START)
    with pytest.raises(Incompatible):
        applier.follow(stream, TABLES, lambda: not stream.left)
    assert world.acknowledged == START


@pytest.mark.parametrize("skip", [False, True])
def test_a_truncate_stops_its_table_or_is_counted(skip: bool) -> None:
    world = World([], set(), 0)
    applier = Applier(MemoryKeeper(world), Ledger(world.kept), kept_text, nobody, Options(skip_truncates=skip))
    stream = MemoryLog(world, START)
    stream.left.extend([Emptied("one", 11), Ended(13)])
    applier.follow(stream, TABLES, lambda: not stream.left)
    assert applier.progress.truncates_skipped == int(skip)
    assert world.kept.behind == ({} if skip else {"one": START})
    assert applier.heard == 11


def test_the_newest_commit_that_was_heard_counts_whatever_became_of_it_and_whatever_its_time() -> None:
    world = World([], set(), 0)
    applier = Applier(MemoryKeeper(world), Ledger(world.kept), kept_text, nobody, Options())
    assert applier.heard == 0
    for event, heard in (
        (ItemsChanged("one", [((b"a",), b"1")], 11, 5.0), 11),
        (ItemsChanged("one", [((b"a",), b"2")], 14, 4.0), 14),
        (Refused("odd", "odd", 17), 17),
        (ItemsChanged("odd", [((b"a",), b"1")], 20, 1.0), 20),
        (ItemsChanged("one", [((b"a",), b"1")], 3, 9.0), 20),
    ):
        stream = MemoryLog(world, START)
        stream.left.append(event)
        applier.follow(stream, TABLES, lambda left=stream.left: not left)  # type: ignore[misc]
        assert applier.heard == heard


def test_a_table_that_is_not_there_keeps_its_log_and_one_that_is_not_wanted_gives_it_up() -> None:
    ledger = Ledger(Kept("me", "log", 30, {"gone": 20, "excluded": 15}))
    ledger.restart(lambda table: table != "excluded")
    assert (ledger.floor, ledger.next().behind) == (20, {"gone": 20})
    assert not ledger.takes("gone", 19)
    assert ledger.takes("gone", 21)
    assert not ledger.takes("other", 21)
    ledger.ended(25)
    assert ledger.floor == 25
    ledger.ended(30)
    assert (ledger.floor, ledger.next().behind) == (30, {})


def test_what_is_kept_as_text_is_the_same_when_read() -> None:
    kept = Kept("ns/name/uid", "16400", 0x1_0000_00FF, {"a": 7})
    assert parse_kept(kept_text(kept)) == kept
    assert parse_kept("") is None
    for text in ("0/1", "{}", '{"applied":1}'):
        with pytest.raises(ConfigurationError):
            parse_kept(text)


def test_heartbeats_tell_the_lag() -> None:
    pulse = Pulse("me")
    assert pulse.sample(0.0).seconds is None
    first, second = pulse.send(10.0), pulse.send(11.0)
    pulse.came(b"somebody:1", 10.5)
    assert pulse.sample(10.5).seconds is None
    pulse.came(first.encode(), 11.5)
    assert pulse.sample(11.6).seconds == 1.5
    assert pulse.sample(14.0).seconds == 3.0, "the second is on its way for longer than the first took"
    pulse.came(second.encode(), 14.0)
    assert pulse.sample(14.0).seconds == 3.0
    assert pulse.sample(14.1 + FRESH_SECONDS).seconds is None
    pulse.forget()
    assert pulse.sample(14.0).seconds is None


def test_heartbeats_come_back_when_what_came_before_them_is_written() -> None:
    world, told = World([], set(), 0), list[bytes]()
    applier = Applier(MemoryKeeper(world), Ledger(world.kept), kept_text, told.append, Options(flush_seconds=60))
    stream = MemoryLog(world, START)
    stream.left.extend([ItemsChanged("one", [((b"a",), b"1")], 11, 1.0), Beat(b"x"), Ended(13)])
    applier.follow(stream, TABLES, lambda: bool(told) or not stream.left)
    assert told == [b"x"]
    assert world.items == {("one", (b"a",)): b"1"}


def test_a_log_that_is_over_is_not_kept_alive() -> None:
    """What proves the control row between two logs must not speak to one that is closed."""
    world = World([], set(), 1)
    keeper = MemoryKeeper(world)
    applier = Applier(keeper, Ledger(world.kept), kept_text, nobody, Options())
    stream = MemoryLog(world, START)
    with pytest.raises(Transient):
        applier.follow(stream, TABLES, lambda: False)
    assert keeper.alive != stream.keep_alive


def test_the_guard_warns_before_it_acts() -> None:
    limits = SlotGuard(warn_bytes=1 << 20, limit_bytes=1 << 21)

    def state(retained: int | None, status: str = "reserved") -> SlotState:
        return SlotState("s", True, status, retained, 1)

    assert guard.warnings(state(None), limits) == []
    assert "guard.warnBytes (1.0 MiB)" in guard.warnings(state(1 << 20), limits)[0]
    assert not guard.is_over(state((1 << 21) - 1), limits)
    assert guard.is_over(state(1 << 21), limits)
    assert "unreserved" in guard.warnings(state(0, "unreserved"), limits)[0]


def test_a_slot_that_was_not_seen_for_a_while_is_not_known() -> None:
    """Its figures of before neither drop it nor look healthy."""
    state = SlotState("s", True, "reserved", 3 << 30, 99)
    limits = SlotGuard(warn_bytes=1 << 30, limit_bytes=2 << 30)
    assert guard.known(state, guard.FRESH_SECONDS) == state
    unknown = guard.known(state, guard.FRESH_SECONDS + 1)
    assert unknown == SlotState("s", False, "", None, 0)
    assert guard.is_over(state, limits)
    assert not guard.is_over(unknown, limits)
