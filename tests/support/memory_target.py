"""A target in memory that keeps the ports' promises: transactions, unique values, fenced control rows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from whimbrel_worker.engine.ports import Delete, SessionState, Tally, Write
from whimbrel_worker.errors import FencedOut, Incompatible
from whimbrel_worker.values.columns import Row, Table

Rows = dict[Any, Row]


@dataclass
class MemoryTarget:
    """Rows by table name and key, and the stream's control rows as [attempt, position] by index."""

    rows: dict[str, Rows] = field(default_factory=dict)
    control_rows: dict[int, list[Any]] = field(default_factory=dict)
    refuses: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def session(self, _task: str, index: int) -> MemorySession:
        return MemorySession(self, index)

    def control(self) -> MemoryTarget:
        return self

    def positions(self, _task: str) -> dict[int, str]:
        return {index: row[1] for index, row in self.control_rows.items()}

    def drop_positions(self, _task: str, from_index: int) -> None:
        self.control_rows = {index: row for index, row in self.control_rows.items() if index < from_index}


@dataclass
class MemorySession:
    """Commits into a MemoryTarget, all or nothing."""

    target: MemoryTarget
    index: int
    attempt: int = 0
    tally: Tally = field(default_factory=Tally)
    commits: int = 0

    def take(self) -> SessionState:
        row = self.target.control_rows.setdefault(self.index, [0, ""])
        row[0] += 1
        self.attempt = row[0]
        return SessionState(1, self.attempt, row[1])

    def commit(self, writes: Sequence[Write], *, position: str | None = None, progress: object = None) -> None:
        with self.target.lock:
            held = self.target.control_rows.get(self.index)
            if held is None or held[0] != self.attempt:
                raise FencedOut("another worker holds the control row now")
            for write in writes:
                self._refuse(write)
            changed = {write.table.name: dict(self.target.rows.get(write.table.name, {})) for write in writes}
            for write in writes:
                apply_write(changed[write.table.name], write)
            self.target.rows.update(changed)
            held[1] = held[1] if position is None else position
            self.commits += 1

    def _refuse(self, write: Write) -> None:
        if write.table.name in self.target.refuses:
            raise Incompatible("the target does not take a value", where=write.table.name)

    def close(self) -> None:
        return


def apply_write(rows: Rows, write: Write) -> None:
    """Apply one write; a unique value that two rows hold raises Incompatible, as a server does at once."""
    if isinstance(write, Delete):
        for key in write.keys:
            rows.pop(tuple(key), None)
        return
    keys = [write.table.key_of(row) for row in write.rows]
    assert len(set(keys)) == len(keys), "a key twice in one write"
    for key, row in zip(keys, write.rows, strict=True):
        rows[key] = row
        _check_unique(write.table, rows, key, row)


def _check_unique(table: Table, rows: Rows, key: Any, row: Row) -> None:
    names = [column.name for column in table.columns]
    for index in (index for index in table.indexes if index.unique):
        at = [names.index(name) for name in index.columns]
        value = [row[position] for position in at]
        holders = [k for k, other in rows.items() if k != key and [other[p] for p in at] == value]
        if None not in value and holders:
            raise Incompatible("duplicate key value violates unique constraint", where=table.name)
