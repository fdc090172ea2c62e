"""Tables of items in a comparison: which segments a worker reads, and which items of a batch may differ. No I/O.

Items lie in the order of a hash, which is another one on each side, so both directions go by lookup. Most pairs are
told equal without opening their values: by their bytes, or by their JSON with its names in order (a document store may
give an item's attributes in another order). Only what is left is compared by value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from whimbrel_worker.engine.compare.merge import Batch, Step, matched, unmatched
from whimbrel_worker.values.canonical import same
from whimbrel_worker.values.columns import Cell, Kind, Row, Table

SEGMENTS_A_WORKER = 8
"""A fixed number: workers must cut a table alike without speaking to each other, whatever size each believes it has."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One of `total` parts of a table."""

    index: int
    total: int

    @property
    def low(self) -> tuple[str, ...] | None:
        """The lower bound for SourceReader.rows."""
        return (f"{self.index}/{self.total}",) if self.index else None

    @property
    def high(self) -> tuple[str, ...] | None:
        """The upper bound for SourceReader.rows."""
        return (f"{self.index + 1}/{self.total}",) if self.index + 1 < self.total else None


def segments_of(index: int, workers: int) -> list[Segment]:
    """One worker's segments of every table; those of all workers together are the whole."""
    first = index * SEGMENTS_A_WORKER
    return [Segment(number, workers * SEGMENTS_A_WORKER) for number in range(first, first + SEGMENTS_A_WORKER)]


def holds_items(table: Table) -> bool:
    """Whether a row of the table is its key attributes and a whole item."""
    return table.columns[-1].kind is Kind.ITEM


def matched_items(table: Table, rows: Batch, found: Batch) -> Step:
    """Compare the source's items with what the target has under their keys, whose bytes are canonical on both sides."""
    partners = {table.key_of(row): row for row in found}
    if len(partners) != len(found):
        return matched(table, rows, found)
    step = Step(rows=len(rows))
    for row in rows:
        partner = partners.get(table.key_of(row))
        if partner is None or not _same_item(table, row, partner):
            step.suspect(table, table.key_of(row))
    return step


def unmatched_items(table: Table, keys: Sequence[Row], found: Batch) -> Step:
    """Which of the target's keys the source does not have."""
    owned = {table.key_of(row) for row in found}
    left = [key for key in keys if tuple(key) not in owned]
    return unmatched(table, left, found) if left else Step()


def _same_item(table: Table, row: Row, partner: Row) -> bool:
    ours, theirs = row[-1], partner[-1]
    return ours == theirs or _sorted(ours) == _sorted(theirs) or same(table.columns[-1], ours, theirs)


def _sorted(item: Cell) -> bytes:
    """Typed as it was, unlike a comparison of Python's values, to which true is 1."""
    if not isinstance(item, bytes):
        raise TypeError("an item is the bytes of its JSON")
    return orjson.dumps(orjson.loads(item), option=orjson.OPT_SORT_KEYS)
