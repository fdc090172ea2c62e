"""Tables for the tests of the apply engine, and a source in memory that knows its own log."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from whimbrel_worker.endpoints.mysql.binlog.gtid import GtidSet
from whimbrel_worker.engine.ports import Begin, Changes, End, Event
from whimbrel_worker.values.columns import Column, Index, Kind, Row, Table

SOURCE = "0c11b9d3-e5a7-11f1-a761-02fc00000001"


def _integer(name: str) -> Column:
    return Column(name, Kind.INTEGER, "int", "integer", nullable=False)


def _text(name: str, source_type: str = "varchar(20)") -> Column:
    return Column(name, Kind.TEXT, source_type, "text")


ORDERS = Table("shop", "orders", "shop", "orders", (_integer("id"), _text("state")), (0,))
PAIRS = Table("shop", "pairs", "shop", "pairs", (_integer("a"), _text("b"), _integer("n")), (0, 1))
USERS = Table(
    "shop", "users", "shop", "users", (_integer("id"), _text("mail"), _integer("n")), (0,),
    (Index("by_mail", ("mail",), unique=True), Index("by_n", ("n",), unique=False)),
)  # fmt: skip
TEXTS = Table(
    "shop", "texts", "shop", "texts",
    (_text("k", "varchar(300)"), _text("body", "longtext"), Column("raw", Kind.BYTES, "blob", "bytea")), (0,),
)  # fmt: skip
TABLES = (ORDERS, PAIRS, USERS)


@dataclass
class MemorySource:
    """Random transactions that obey keys and unique values row by row, as MySQL does; the log of all of them."""

    rng: random.Random
    tables: tuple[Table, ...] = TABLES
    rows: dict[str, dict[Any, Row]] = field(default_factory=lambda: {table.name: {} for table in TABLES})
    log: list[list[Event]] = field(default_factory=list)

    def least(self, positions: list[str]) -> str:
        first, *others = (GtidSet.parse(position) for position in positions)
        for other in others:
            first = first.intersection(other)
        return str(first)

    def position(self) -> str:
        return f"{SOURCE}:1-{len(self.log)}" if self.log else ""

    def transact(self, statements: int) -> None:
        """Commit one transaction of some row changes; none at all is an empty one."""
        gtid = f"{SOURCE}:{len(self.log) + 1}"
        changes = [change for _ in range(statements) if (change := self._statement())]
        self.log.append([Begin(gtid, 1000.0 + len(self.log)), *changes, End(gtid)])

    def since(self, position: str) -> list[Event]:
        """The events of all transactions that a position does not hold."""
        held = GtidSet.parse(position)
        missing = [events for number, events in enumerate(self.log, 1) if not held.contains(f"{SOURCE}:{number}")]
        return [event for events in missing for event in events]

    def _statement(self) -> Changes | None:
        table = self.rng.choice(self.tables)
        rows = self.rows[table.name]
        before = rows[self.rng.choice(list(rows))] if rows and self.rng.random() < 0.7 else None
        after = self._row(table) if before is None or self.rng.random() < 0.75 else None
        if before is not None and after is not None and self.rng.random() < 0.4:
            after = self._with_key_of(table, before, after)
        if after is not None and not self._allowed(table, rows, before, after):
            return None
        if before is not None:
            del rows[table.key_of(before)]
        if after is not None:
            rows[table.key_of(after)] = after
        return Changes(table, [(before, after)])  # type: ignore[list-item]

    def _row(self, table: Table) -> Row:
        if table is ORDERS:
            return (self.rng.randrange(300), b"%d" % self.rng.randrange(1000))
        if table is PAIRS:
            return (self.rng.randrange(10), b"%d" % self.rng.randrange(10), self.rng.randrange(1000))
        return (self.rng.randrange(6), b"mail%d" % self.rng.randrange(7), self.rng.randrange(1000))

    def _with_key_of(self, table: Table, before: Row, after: Row) -> Row:
        return tuple(before[at] if at in table.key else cell for at, cell in enumerate(after))

    def _allowed(self, table: Table, rows: dict[Any, Row], before: Row | None, after: Row) -> bool:
        others = [row for row in rows.values() if row is not before]
        taken = any(table.key_of(row) == table.key_of(after) for row in others)
        return not taken and not (table is USERS and any(row[1] == after[1] for row in others))
