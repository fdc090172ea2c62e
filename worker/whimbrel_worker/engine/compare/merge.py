"""Finding rows that may differ: merge join and key lookups over batches of rows. Pure; reading is elsewhere.

What is found here is a suspicion only: rows may be in flight. A key reported needlessly costs a second look, so an
order that is not quite the same on both sides costs time but never hides a difference: every row of either side is
either seen equal to its partner or reported.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from whimbrel_worker.values.canonical import Identity, differing, identity
from whimbrel_worker.values.columns import Cell, Row, Table

Key = tuple[Cell, ...]
Batch = Sequence[Row]


@dataclass(slots=True)
class Step:
    """A part of the comparison: source rows looked at, and the keys of rows that may differ.

    `looked_up`: keys of the target that the source was asked for.
    """

    rows: int = 0
    looked_up: int = 0
    suspects: dict[Identity, Key] = field(default_factory=dict)

    def suspect(self, table: Table, key: Key) -> None:
        """Add a key to look at again."""
        self.suspects[identity(table.key_columns, key)] = key


class _Feed:
    """Rows of one side: the batch at hand, how far it is used up, and the rest."""

    __slots__ = ("_batches", "at", "rows")

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = iter(batches)
        self.rows: Sequence[Row] = ()
        self.at = 0

    def fill(self) -> bool:
        """Whether there is a row, after fetching the next batch where the last one is used up."""
        while self.at >= len(self.rows):
            batch = next(self._batches, None)
            if batch is None:
                return False
            self.rows, self.at = batch if isinstance(batch, list) else list(batch), 0
        return True

    def take(self) -> Sequence[Row]:
        """The rest of the batch at hand."""
        rest = self.rows[self.at :]
        self.at = len(self.rows)
        return rest


def merge(table: Table, source: Iterable[Batch], target: Iterable[Batch]) -> Iterator[Step]:
    """Join two sequences of batches that are ordered by key alike; a step for each stretch of both."""
    left, right = _Feed(source), _Feed(target)
    while left.fill() and right.fill():
        yield _stretch(table, left, right)
    while left.fill():
        rows = left.take()
        yield _alone(table, rows, len(rows))
    while right.fill():
        yield _alone(table, right.take(), 0)


def _alone(table: Table, rows: Sequence[Row], counted: int) -> Step:
    step = Step(rows=counted)
    for row in rows:
        step.suspect(table, table.key_of(row))
    return step


def _stretch(table: Table, left: _Feed, right: _Feed) -> Step:
    """Compare until one side's batch is used up. Equal stretches are compared in one go."""
    length = min(len(left.rows) - left.at, len(right.rows) - right.at)
    if left.rows[left.at : left.at + length] == right.rows[right.at : right.at + length]:
        left.at += length
        right.at += length
        return Step(rows=length)
    step, begin = Step(), left.at
    left.at, right.at = _walk(table, step, left, right)
    step.rows = left.at - begin
    return step


def _walk(table: Table, step: Step, left: _Feed, right: _Feed) -> tuple[int, int]:
    rows, others, i, j = left.rows, right.rows, left.at, right.at
    while i < len(rows) and j < len(others):
        row, other = rows[i], others[j]
        order = 0 if row == other else _order(table, step, row, other)
        i += order <= 0
        j += order >= 0
    return i, j


def _order(table: Table, step: Step, row: Row, other: Row) -> int:
    """−1: only the source has this key; 1: only the target; 0: both have it. Reports what is suspicious."""
    key, other_key = table.key_of(row), table.key_of(other)
    if key != other_key:
        mine, its = identity(table.key_columns, key), identity(table.key_columns, other_key)
        if mine != its:
            before = mine < its
            step.suspect(table, key if before else other_key)
            return -1 if before else 1
    if differing(table.columns, row, other):
        step.suspect(table, key)
    return 0


def matched(table: Table, rows: Batch, found: Batch) -> Step:
    """Compare the source's rows with what the target has under their keys."""
    step, partners = Step(rows=len(rows)), by_identity(table, found)
    for row in rows:
        key = table.key_of(row)
        others = partners.get(identity(table.key_columns, key), ())
        if len(others) != 1 or (row != others[0] and differing(table.columns, row, others[0])):
            step.suspect(table, key)
    return step


def unmatched(table: Table, keys: Sequence[Row], found: Batch) -> Step:
    """Which of the target's keys the source does not have, by value: a collation's own idea of equal does not count."""
    step, partners = Step(), by_identity(table, found)
    for key in keys:
        if identity(table.key_columns, key) not in partners:
            step.suspect(table, tuple(key))
    return step


def by_identity(table: Table, rows: Batch) -> dict[Identity, list[Row]]:
    """Rows under their keys; more than one where a side holds a key twice."""
    result: dict[Identity, list[Row]] = {}
    for row in rows:
        result.setdefault(identity(table.key_columns, table.key_of(row)), []).append(row)
    return result
