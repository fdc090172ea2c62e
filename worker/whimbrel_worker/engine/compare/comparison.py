"""A comparison of tables: all rows, or given keys and counts. Reading, joining and second looks stand beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from zlib import crc32

from whimbrel_worker.engine.compare.merge import Key
from whimbrel_worker.engine.compare.reading import KEYS_AT_ONCE, by_lookup, in_order
from whimbrel_worker.engine.compare.recheck import Recheck
from whimbrel_worker.engine.ports import SourceReader, TargetReader
from whimbrel_worker.values.canonical import Identity
from whimbrel_worker.values.columns import Table

SUSPECTS_AT_ONCE = 5_000
"""Rows that are looked at again together: bounds memory where much differs."""


@dataclass(slots=True)
class Comparison:
    """Compares with one reader a side. `seen` is told how many rows are done; it may wait, or raise to end the task."""

    source: SourceReader
    target: TargetReader
    recheck: Recheck
    seen: Callable[[int], None]

    def table(self, table: Table) -> None:
        """Compare all rows of a table."""
        steps = by_lookup if table.key_is_collated else in_order
        suspects: dict[Identity, Key] = {}
        for step in steps(self.source, self.target, table):
            suspects.update(step.suspects)
            if len(suspects) >= SUSPECTS_AT_ONCE:
                self.recheck.settle(table, suspects)
                suspects = {}
            self.seen(step.rows)
        self.recheck.settle(table, suspects)

    def keys(self, table: Table, keys: Mapping[Identity, Key]) -> None:
        """Compare the rows under these keys."""
        marks = iter(keys)
        while portion := {mark: keys[mark] for mark in islice(marks, KEYS_AT_ONCE)}:
            self.recheck.settle(table, portion)
            self.seen(len(portion))

    def changed(self, table: Table, keys: Mapping[Identity, Key]) -> None:
        """Compare changed rows and the number of all rows; a number that they do not explain has the table compared."""
        before = self.recheck.findings.differences
        self.keys(table, keys)
        after = self.recheck.findings.differences
        explained = (after.missing - before.missing) - (after.extra - before.extra)
        if self.source.count(table) - self.target.count(table) != explained:
            self.table(table)


def deal(tables: Sequence[Table], index: int, workers: int, sizes: Mapping[str, int]) -> list[Table]:
    """The tables of one of several workers, the largest first, each table to the worker with the fewest rows so far.

    All workers must come to the same answer without speaking to each other, or a table is compared by nobody. So
    `sizes` (rows by table name) must be the same for all of them, never fresh estimates, and they alone decide: not
    which tables a worker finds, because one may come or go between two workers' looks. A table without a size goes by
    its name. This function is the seam where claiming chunks through control tables takes over once large tables are to
    be shared.
    """
    loads = [0] * workers
    owner: dict[str, int] = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        owner[name] = min(range(workers), key=lambda number: (loads[number], number))
        loads[owner[name]] += max(1, sizes[name])
    mine = [table for table in tables if owner.get(table.name, crc32(table.name.encode()) % workers) == index]
    return sorted(mine, key=lambda table: (-sizes.get(table.name, 0), table.name))
