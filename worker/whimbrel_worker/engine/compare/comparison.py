"""A comparison of tables: all rows, a sample, given keys and counts. Reading, joining, second looks stand beside it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from random import Random
from zlib import crc32

from whimbrel_worker.engine.compare.items import Segment, holds_items, segments_of
from whimbrel_worker.engine.compare.lanes import Lane, in_lanes
from whimbrel_worker.engine.compare.merge import Key, Step
from whimbrel_worker.engine.compare.reading import KEYS_AT_ONCE, back, by_lookup, forth, in_order, segment_batches
from whimbrel_worker.engine.compare.recheck import Recheck
from whimbrel_worker.engine.compare.sample import Draw, drawn
from whimbrel_worker.values.canonical import Identity
from whimbrel_worker.values.columns import Table

SUSPECTS_AT_ONCE = 5_000
"""Rows that are looked at again together: bounds memory where much differs."""
ITEMS_AT_ONCE = 500
"""The same for items, which may be large."""


@dataclass(slots=True)
class Comparison:
    """Compares with one reader a side in each lane. Tables of items are shared by `workers` workers, of which this is
    one, and read in all lanes at once; the others in the first.

    `seen` is told what is done of a table, from any lane; it may wait, or raise to end the task.
    """

    lanes: Sequence[Lane]
    recheck: Recheck
    seen: Callable[[Table, Step], None]
    index: int = 0
    workers: int = 1

    def table(self, table: Table) -> None:
        """Compare all rows of a table, or this worker's part of its items."""
        if holds_items(table):
            segments = segments_of(self.index, self.workers)
            ways = (_segment_forth, _segment_back)
            jobs = [partial(way, table, segment) for segment in segments for way in ways]
            in_lanes(self.lanes, [partial(self._job, table, job) for job in jobs])
            return
        lane = self.lanes[0]
        steps = by_lookup if table.key_is_collated else in_order
        self._settle(table, steps(lane.source, lane.target, table))

    def sample(self, table: Table, rows: int, known: int, seed: int) -> None:
        """Compare this worker's share of a sample of a table's items, of which there are about `known`."""
        draw = Draw(rows, self.index, self.workers)
        ways = (_sample_forth, _sample_back)
        jobs = [partial(way, table, draw, known, Random(seed + turn)) for turn, way in enumerate(ways)]  # noqa: S311
        in_lanes(self.lanes, [partial(self._job, table, job) for job in jobs])

    def _job(self, table: Table, steps: Callable[[Lane], Iterable[Step]], lane: Lane) -> Iterator[None]:
        return self._settled(table, steps(lane))

    def _settle(self, table: Table, steps: Iterable[Step]) -> None:
        for _ in self._settled(table, steps):
            pass

    def _settled(self, table: Table, steps: Iterable[Step]) -> Iterator[None]:
        """Looks again at what may differ; gives a turn after each step."""
        most = ITEMS_AT_ONCE if holds_items(table) else SUSPECTS_AT_ONCE
        suspects: dict[Identity, Key] = {}
        for step in steps:
            suspects.update(step.suspects)
            if len(suspects) >= most:
                self.recheck.settle(table, suspects)
                suspects = {}
            self.seen(table, step)
            yield
        self.recheck.settle(table, suspects)

    def keys(self, table: Table, keys: Mapping[Identity, Key]) -> None:
        """Compare the rows under these keys."""
        marks = iter(keys)
        while portion := {mark: keys[mark] for mark in islice(marks, KEYS_AT_ONCE)}:
            self.recheck.settle(table, portion)
            self.seen(table, Step(rows=len(portion)))

    def changed(self, table: Table, keys: Mapping[Identity, Key]) -> None:
        """Compare changed rows and the number of all rows; a number that they do not explain has the table compared."""
        before = self.recheck.findings.differences
        self.keys(table, keys)
        after = self.recheck.findings.differences
        explained = (after.missing - before.missing) - (after.extra - before.extra)
        lane = self.lanes[0]
        if lane.source.count(table) - lane.target.count(table) != explained:
            self.table(table)


def _segment_forth(table: Table, segment: Segment, lane: Lane) -> Iterator[Step]:
    return forth(lane.target, table, segment_batches(lane.source, table, segment))


def _segment_back(table: Table, segment: Segment, lane: Lane) -> Iterator[Step]:
    return back(lane.source, table, lane.target.segment_keys(table, segment.index, segment.total))


def _sample_forth(table: Table, draw: Draw, known: int, rng: Random, lane: Lane) -> Iterator[Step]:
    return forth(lane.target, table, drawn(draw, known, rng, partial(segment_batches, lane.source, table)))


def _sample_back(table: Table, draw: Draw, known: int, rng: Random, lane: Lane) -> Iterator[Step]:
    keys = drawn(draw, known, rng, lambda part: lane.target.segment_keys(table, part.index, part.total))
    return back(lane.source, table, keys)


def deal(tables: Sequence[Table], index: int, workers: int, sizes: Mapping[str, int]) -> list[Table]:
    """The tables of one of several workers, the largest first, each table to the worker with the fewest rows so far.

    All workers must come to the same answer without speaking to each other, or a table is compared by nobody. So
    `sizes` (rows by table name) must be the same for all of them, never fresh estimates, and they alone decide: not
    which tables a worker finds, because one may come or go between two workers' looks. A table without a size goes by
    its name. Tables of items are not dealt: their segments are.
    """
    loads = [0] * workers
    owner: dict[str, int] = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        owner[name] = min(range(workers), key=lambda number: (loads[number], number))
        loads[owner[name]] += max(1, sizes[name])
    mine = [table for table in tables if owner.get(table.name, crc32(table.name.encode()) % workers) == index]
    return sorted(mine, key=lambda table: (-sizes.get(table.name, 0), table.name))
