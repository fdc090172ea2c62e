"""A sharded source and target in memory that keep the ports' promises, and followers on them, without any server."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from whimbrel_api.reports import Record
from whimbrel_worker.engine.ports import Delete, SessionState, TableRow, Tally, Write
from whimbrel_worker.engine.shard_ports import (
    BEGINNING,
    Holder,
    ItemChange,
    Page,
    Shard,
    ShardReader,
    ShardRef,
    ShardRow,
    ShardState,
    ShardTaker,
)
from whimbrel_worker.engine.shards.follower import Follower, Options
from whimbrel_worker.engine.shards.lineage import number
from whimbrel_worker.engine.shards.tables import Followed
from whimbrel_worker.errors import FencedOut, Incompatible, SourceLogLost, Transient
from whimbrel_worker.values.columns import Column, Kind, Row, Table

PATIENCE: Final = 20.0
"""Seconds that a condition may take to come about."""


def item_table(name: str) -> Table:
    """A table with one key attribute."""
    return Table(
        "", name, "", name,
        (
            Column("id", Kind.ATTRIBUTE, "S", "S", nullable=False, collated=True),
            Column("item", Kind.ITEM, "item", "item", nullable=False),
        ),
        (0,),
    )  # fmt: skip


@dataclass
class LiveShard:
    """One shard of the source: its records in order, the oldest that is left, and whether it is closed."""

    ref: ShardRef
    parent: str = ""
    records: list[ItemChange] = field(default_factory=list)
    closed: bool = False
    trimmed: int = 0
    listed: bool = True


class MemorySource:
    """Tables of items; each key's changes go to one open shard. `page` records a page at most."""

    def __init__(self, rng: random.Random, names: Sequence[str], *, page: int = 5) -> None:
        self.rng, self.page_size = rng, page
        self.tables = [item_table(name) for name in names]
        self.lock = threading.RLock()
        self.now = 1_000_000.0
        self.real_clock = False
        self.empties = 0
        """How many empty pages come before each page with records."""
        self.failures = 0
        """How many of the next reads fail."""
        self.items: dict[str, dict[Row, Row]] = {name: {} for name in names}
        self.written: dict[Any, int] = {}
        self.lives: dict[str, list[LiveShard]] = {}
        self.streams = {name: f"arn:{name}/1" for name in names}
        self.listings = 0
        self.ranges: dict[ShardRef, tuple[int, int]] = {}
        self._sequence = 2**64 - 5
        self._shard = 0
        for name in names:
            self.lives[name] = []
            self.open_shard(name)

    # What happens to it

    def open_shard(self, table: str, parent: str = "") -> LiveShard:
        self._shard += 1
        shard = LiveShard(ShardRef(table, self.streams[table], f"shard-{self._shard:06d}"), parent)
        self.lives[table].append(shard)
        return shard

    def write(self, table: str, key: str, *, remove: bool = False, by_ttl: bool = False) -> None:
        with self.lock:
            cell = f'{{"S":"{key}"}}'.encode()
            version = self.written[table, key] = self.written.get((table, key), 0) + 1
            row = (cell, f'{{"id":{{"S":"{key}"}},"v":{{"N":"{version}"}}}}'.encode())
            self._sequence += self.rng.randint(1, 3)
            change = ItemChange(str(self._sequence), (cell,), None if remove else row, self.clock(), by_ttl)
            self._home(table, key).records.append(change)
            if remove:
                self.items[table].pop((cell,), None)
            else:
                self.items[table][cell,] = row

    def _home(self, table: str, key: str) -> LiveShard:
        opened = [shard for shard in self.lives[table] if not shard.closed]
        by_root = sorted(opened, key=lambda shard: shard.ref.shard)
        fitting = [shard for shard in by_root if self._covers(shard, key)]
        return fitting[-1]

    def _covers(self, shard: LiveShard, key: str) -> bool:
        low, high = self.ranges.get(shard.ref, (0, 256))
        return low <= sum(key.encode()) * 37 % 256 < high

    def roll(self, table: str, *, split: bool) -> None:
        """Close an open shard: its keys go to one child, or to two."""
        with self.lock:
            old = self.rng.choice([shard for shard in self.lives[table] if not shard.closed])
            low, high = self.ranges.get(old.ref, (0, 256))
            old.closed = True
            middle = (low + high) // 2
            parts = [(low, middle), (middle, high)] if split and low < middle < high else [(low, high)]
            for part in parts:
                child = self.open_shard(table, old.ref.shard)
                self.ranges[child.ref] = part

    def recreate(self, table: str) -> None:
        """Disable and enable the stream."""
        self.streams[table] += "0"
        self.lives[table] = []
        self.open_shard(table)

    def drop(self, table: str) -> None:
        """Delete the table: its stream is gone with it."""
        del self.lives[table]

    def trim(self, table: str, shard: str, count: int, *, unlist: bool = False) -> None:
        """Drop the oldest records, or the shard as a whole."""
        for live in self.lives[table]:
            if live.ref.shard == shard:
                live.trimmed, live.listed = count, not unlist

    # ShardedSource

    def capture(self, tables: Sequence[Table]) -> list[ShardRow]:
        return [
            ShardRow(live.ref, live.parent, ShardState.DONE if live.closed else ShardState.PENDING)
            for table in tables
            for live in self.lives[table.name]
        ]

    def shards(self, table: Table) -> list[Shard]:
        with self.lock:
            self.listings += 1
            if table.name not in self.lives:
                raise SourceLogLost("there is no stream", where=table.name)
            return [Shard(live.ref, live.parent, live.closed) for live in self.lives[table.name] if live.listed]

    def read(self, table: Table, row: ShardRow) -> Iterator[Page]:
        at = row.position
        empties = self.empties
        while True:
            with self.lock:
                if self.failures:
                    self.failures -= 1
                    raise Transient("the source is throttled", where=table.name)
                live = next((each for each in self.lives.get(table.name, ()) if each.ref == row.ref), None)
                if live is None:
                    raise SourceLogLost("no such shard", where=row.ref.shard)
                records = self._after(live, at)
                if records and empties:
                    empties -= 1
                    page = Page((), self.clock())
                else:
                    records = records[: self.rng.randint(1, self.page_size)]
                    at = records[-1].sequence if records else at
                    last = live.records[-1].sequence if live.records else BEGINNING
                    ended = live.closed and number(at) >= number(last)
                    page, empties = Page(records, self.clock(), ended), self.empties
            yield page
            if page.ended:
                return

    def _after(self, live: LiveShard, position: str) -> list[ItemChange]:
        records = [record for record in live.records if int(record.sequence) > number(position)]
        gone = [record for record in live.records[: live.trimmed] if int(record.sequence) > number(position)]
        if gone:
            raise SourceLogLost("records were trimmed before they were read", where=live.ref.shard)
        return records

    def clock(self) -> float:
        return time.time() if self.real_clock else self.now

    def moment(self, at: float) -> str:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def discover(self) -> tuple[list[Table], list[Any]]:
        return [table for table in self.tables if table.name in self.lives], []


@dataclass
class MemoryStore:
    """Implements ShardStore; `beat` is a clock of its own. `log`: what was committed, in order."""

    rows: dict[ShardRef, ShardRow] = field(default_factory=dict)
    kept: dict[str, Mapping[ShardRef, str]] = field(default_factory=dict)
    log: list[tuple[Holder, ShardRow]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    clock: Callable[[], float] = time.monotonic

    def add(self, rows: Sequence[ShardRow]) -> None:
        with self.lock:
            for row in rows:
                self.rows.setdefault(row.ref, row)

    def all(self) -> list[ShardRow]:
        with self.lock:
            return list(self.rows.values())

    def claim(self, row: ShardRow, holder: Holder) -> bool:
        with self.lock:
            held = self.rows[row.ref]
            if (held.owner, held.attempt, held.position) != (row.owner, row.attempt, row.position):
                return False
            self.rows[row.ref] = replace(held, owner=holder.index, attempt=holder.attempt, beat_at=self.clock())
            return True

    def commit(self, row: ShardRow, holder: Holder) -> None:
        with self.lock:
            held = self.rows[row.ref]
            if (held.owner, held.attempt) != (holder.index, holder.attempt):
                raise FencedOut("another worker holds the shard now", where=row.ref.shard)
            self.rows[row.ref] = replace(row, owner=holder.index, attempt=holder.attempt, beat_at=self.clock())
            self.log.append((holder, row))

    def release(self, holder: Holder) -> None:
        with self.lock:
            for ref, row in self.rows.items():
                if row.owner == holder.index and row.attempt <= holder.attempt:
                    self.rows[ref] = replace(row, owner=-1)

    def release_lost(self, older_than_seconds: float) -> int:
        with self.lock:
            lost = [row for row in self.rows.values() if row.owner >= 0 and self._is_late(row, older_than_seconds)]
            for row in lost:
                self.rows[row.ref] = replace(row, owner=-1)
            return len(lost)

    def _is_late(self, row: ShardRow, seconds: float) -> bool:
        return row.state is not ShardState.DONE and self.clock() - row.beat_at > seconds

    def keep_tips(self, name: str, tips: Mapping[ShardRef, str]) -> None:
        self.kept[name] = dict(tips)

    def tips(self, name: str) -> Mapping[ShardRef, str] | None:
        return self.kept.get(name)


@dataclass
class MemoryItems:
    """A target's items and control rows: implements what a follower asks of a ShardedTarget."""

    items: dict[str, dict[Any, Row]] = field(default_factory=dict)
    writes: list[tuple[str, Any, Row | None]] = field(default_factory=list)
    store: MemoryStore = field(default_factory=MemoryStore)
    refuses: set[str] = field(default_factory=set)
    failures: int = 0
    slow: bool = False
    """Writes take so long that their caller has to prove itself."""
    states: dict[str, TableRow] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def shards(self) -> MemoryStore:
        return self.store

    def writer(self) -> MemoryItems:
        return self

    def control(self) -> MemoryItems:
        return self

    def write(self, writes: Sequence[Write], proof: Callable[[], float] | None = None) -> None:
        begun = time.monotonic()
        while proof is not None and self.slow and proof() < begun:
            time.sleep(0.05)
        with self.lock:
            if self.failures:
                self.failures -= 1
                raise Transient("the target is throttled")
            for write in writes:
                self._write(write)

    def _write(self, write: Write) -> None:
        name = write.table.name
        if name in self.refuses:
            raise Incompatible("the target does not take a value", where=name)
        items = self.items.setdefault(name, {})
        if isinstance(write, Delete):
            for key in write.keys:
                items.pop(tuple(key), None)
                self.writes.append((name, tuple(key), None))
            return
        for row in write.rows:
            items[write.table.key_of(row)] = row
            self.writes.append((name, write.table.key_of(row), row))

    def record(self) -> Record:
        return Record(exists=True, snapshot_complete=True)

    def tables(self) -> list[TableRow]:
        with self.lock:
            return list(self.states.values())

    def set_table(self, name: str, state: str, message: str = "") -> None:
        with self.lock:
            self.states[name] = TableRow(name, state, message=message)

    def session(self, _task: str, index: int) -> MemoryBeat:
        return MemoryBeat(self, index)


@dataclass
class MemoryBeat:
    """A worker's control row."""

    target: MemoryItems
    index: int
    attempt: int = 0
    tally: Tally = field(default_factory=Tally)

    def take(self) -> SessionState:
        with self.target.lock:
            self.attempt = self.target.attempts[self.index] = self.target.attempts.get(self.index, 0) + 1
        return SessionState(1, self.attempt)

    def commit(self, writes: Sequence[Write], *, position: str | None = None, progress: object = None) -> None:
        assert not writes
        if self.target.attempts.get(self.index) != self.attempt:
            raise FencedOut("another worker holds the control row now")

    def close(self) -> None:
        return


class MemoryStage:
    """A source, a target and the followers on them; `page` records a page at most."""

    def __init__(self, *names: str, page: int, workers: int = 1) -> None:
        self.source = MemorySource(random.Random(3), names or ("t",), page=page)
        self.source.real_clock = True
        self.target = MemoryItems()
        self.target.store.add(self.source.capture(self.source.tables))
        self.workers = workers
        self.heard: list[Transient] = []
        self.followers: list[Follower] = []

    def session(self, index: int) -> MemoryBeat:
        """Take the control row of a worker."""
        session = self.target.session("stream", index)
        session.take()
        return session

    def follow(
        self, source: ShardReader, target: ShardTaker, session: MemoryBeat, *, keep_ttl: bool = True
    ) -> Follower:
        """Start a follower that holds the session's row."""
        followed = Followed(self.source.tables, {}, lambda name, why: self.target.set_table(name, "Stopped", why))
        options = Options(session.index, lambda: self.workers, time.time() - 1, keep_ttl, threads=4)
        follower = Follower(
            source, target, followed, options, session=session, attempt=session.attempt, notice=self.heard.append
        )
        self.followers.append(follower)
        follower.start()
        return follower

    def write(self, count: int, *, table: str = "t") -> None:
        for each in range(count):
            self.source.write(table, f"k{each % 17}", remove=self.removes(each))

    def removes(self, number: int) -> bool:
        """Whether the change of that number removes its item."""
        return False

    def equal(self) -> bool:
        with self.target.lock, self.source.lock:
            return all(self.target.items.get(name, {}) == items for name, items in self.source.items.items())

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the condition. Raises what ends a follower meanwhile."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            for follower in self.followers:
                follower.check()
            assert time.monotonic() < deadline, "it did not come about in time"
            time.sleep(0.02)

    def rows(self) -> list[ShardRow]:
        return self.target.store.all()
