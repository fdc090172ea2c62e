"""A lane's batch: the last state of every key that changed, and the writes that bring a target there. Pure.

Of several changes to one key only the last counts, because an upsert carries the whole row. A change of key is a delete
of the old key and an upsert of the new one.

Rows of a table with unique secondary indexes may hand such a value on to each other within a batch. Every row that gave
up a value is deleted first and inserted again, in the same transaction, so no order of statements can collide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from whimbrel_worker.engine.apply.plan import Key, TablePlan
from whimbrel_worker.engine.ports import Delete, Upsert, Write
from whimbrel_worker.values.columns import Row

States = dict[Key, Row | None]
"""The last row of each key; None where it was deleted."""


@dataclass(slots=True, eq=False)
class TableChanges:
    """One table's part of a batch; `moved` holds keys whose row gave up a unique value."""

    states: States = field(default_factory=dict)
    moved: set[Key] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Batch:
    """Changes for one lane. `rows` counts rows to write, `bytes` their estimated size (an upper bound).

    `oldest` and `newest` are commit times on the source, seconds since 1970; `since` is when the first change came in
    on the worker's monotonic clock. `position` is set when the batch is closed: what is complete once it is written.
    """

    tables: dict[TablePlan, TableChanges] = field(default_factory=dict)
    rows: int = 0
    bytes: int = 0
    changes: int = 0
    oldest: float = 0.0
    newest: float = 0.0
    since: float = 0.0
    position: str = ""

    def put(self, plan: TablePlan, key: Key, row: Row | None) -> None:
        """Note the last state of a key."""
        tables = self.tables
        part = tables.get(plan)
        if part is None:
            part = tables[plan] = TableChanges()
        if key not in part.states:
            self.rows += 1
        self.bytes += 64 if row is None else plan.size_of(row)
        part.states[key] = row

    def release(self, plan: TablePlan, key: Key) -> None:
        """Note that a key's row gave up a unique value; call it after `put`."""
        moved = self.tables[plan].moved
        if key not in moved:
            moved.add(key)
            self.rows += 1

    def writes(self, stopped: Callable[[str], bool]) -> list[Write]:
        """The writes in key order, without those of stopped tables (asked by the source's `database.table`)."""
        result: list[Write] = []
        for plan in sorted(self.tables, key=lambda plan: plan.table.name):
            if not stopped(plan.table.name):
                result.extend(_table_writes(plan, self.tables[plan]))
        return result


def _table_writes(plan: TablePlan, part: TableChanges) -> Sequence[Write]:
    states = part.states
    keys = sorted(states)
    gone = [plan.key_row(key) for key in keys if states[key] is None or key in part.moved]
    rows = [row for key in keys if (row := states[key]) is not None]
    writes: list[Write] = [Delete(plan.table, gone)] if gone else []
    return [*writes, Upsert(plan.table, rows)] if rows else writes
