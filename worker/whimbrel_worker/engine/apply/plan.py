"""How one table's changes are routed: key, lane, size, and what a row claims beside its key. No batches, no threads.

A lane is found by a hash that is the same in every process and every version of Python, because the lanes' positions
outlive the process: which lane has applied a change is known only as long as the hash and the lanes' number stay.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from zlib import crc32

from whimbrel_worker.values.columns import Cell, Column, Kind, Row, Table

ORDERED_LANE = 0
"""The lane of tables in which rows contend for values: one connection, the source's order, whatever others do."""

Key: TypeAlias = Any
"""A key as a dictionary's key: the cell itself where the key is one column, else a tuple of cells."""

_FIXED_SIZE = 24
_SHORT_TEXT = 64
_HEX = 2
_VARIABLE = frozenset({Kind.TEXT, Kind.BYTES})


@dataclass(frozen=True, slots=True, eq=False)
class TablePlan:
    """What routing needs to know of one table; `unique_of` gives the cells of all unique secondary indexes."""

    table: Table
    key_of: Callable[[Row], Key]
    lane_of: Callable[[Key], int]
    size_of: Callable[[Row], int]
    unique_of: Callable[[Row], object] | None

    @property
    def single(self) -> bool:
        """Whether the key is one column."""
        return len(self.table.key) == 1

    def key_row(self, key: Key) -> tuple[Cell, ...]:
        """A key as the cells of a Delete."""
        return (key,) if self.single else key


def plan_table(table: Table, hashed_lanes: int) -> TablePlan:
    """The plan of one table for `hashed_lanes` lanes beside the ordered one (numbered from 1)."""
    if not table.key:
        raise ValueError(f"table {table.name} has no key and cannot be followed")
    contended = table.has_unique_index
    return TablePlan(
        table=table,
        key_of=operator.itemgetter(*table.key),
        lane_of=_ordered if contended else _hashed(table, hashed_lanes),
        size_of=_size(table.columns),
        unique_of=_unique(table) if contended else None,
    )


def _ordered(_key: Key) -> int:
    return ORDERED_LANE


def _hashed(table: Table, lanes: int) -> Callable[[Key], int]:
    salt = crc32(table.name.encode())
    kind = table.columns[table.key[0]].kind
    if len(table.key) > 1:
        return lambda key: 1 + crc32(repr([_equal_form(cell) for cell in key]).encode(), salt) % lanes
    if kind is Kind.INTEGER:
        return lambda key: 1 + key % lanes
    if kind in (Kind.FLOAT32, Kind.FLOAT64):
        return lambda key: 1 + hash(key) % lanes
    return lambda key: 1 + crc32(key, salt) % lanes


def _equal_form(cell: Cell) -> Cell:
    """Negative zero and zero are one key on both sides, so they must be one key here."""
    return cell + 0.0 if isinstance(cell, float) else cell


def _unique(table: Table) -> Callable[[Row], object]:
    positions = {column.name: position for position, column in enumerate(table.columns)}
    unique = [index.columns for index in table.indexes if index.unique]
    names = dict.fromkeys(name for columns in unique for name in columns if name in positions)
    if not names or any(name not in positions for columns in unique for name in columns):
        return lambda row: row
    return operator.itemgetter(*(positions[name] for name in names))


def _size(columns: Sequence[Column]) -> Callable[[Row], int]:
    """Bytes of a row as text parameters, estimated: exact for long texts and binary values, a bound for others."""
    fixed, variable = 0, []
    for position, column in enumerate(columns):
        width = _width(column)
        if width:
            fixed += width
        else:
            variable.append((position, _HEX if column.kind is Kind.BYTES else 1))
    if not variable:
        return lambda _row: fixed
    if len(variable) == 1:
        position, factor = variable[0]
        return lambda row: fixed + factor * len(row[position] or b"")  # type: ignore[arg-type]
    return lambda row: fixed + sum(factor * len(row[position] or b"") for position, factor in variable)  # type: ignore[arg-type,misc]


def _width(column: Column) -> int:
    """The width that bounds a column's cells; 0 where they must be measured."""
    if column.kind not in _VARIABLE:
        return _FIXED_SIZE
    length = column.source_type.partition("(")[2].partition(")")[0]
    if length.isdigit() and int(length) <= _SHORT_TEXT:
        return 4 * int(length) + _FIXED_SIZE
    return 0
