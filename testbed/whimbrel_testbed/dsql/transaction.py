"""The state of one transaction as the proxy judges it; it talks to nobody."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from whimbrel_testbed.dsql import refusals, wire
from whimbrel_testbed.dsql.classify import Kind, Statement
from whimbrel_testbed.dsql.limits import Limits
from whimbrel_testbed.dsql.plan import Work
from whimbrel_testbed.dsql.refusals import Refusal


@dataclass
class Transaction:
    """An explicit transaction, or the implicit one around a unit's statements.

    `open` says whether the backend has it; `doomed` why its COMMIT will fail; `failed` that a statement has failed and
    the backend's part is rolled back; `size` is in bytes. A doomed transaction goes on in a throw-away one that begins
    with a repetition of `log`.
    """

    explicit: bool
    begin: str = "BEGIN"
    started: float = field(default_factory=time.monotonic)
    open: bool = False
    failed: bool = False
    doomed: Refusal | None = None
    rows: int = 0
    size: int = 0
    wrote: bool = False
    ddl: bool = False
    job: bool = False
    created: list[str] = field(default_factory=list)
    log: list[bytes] = field(default_factory=list)
    log_answers: int = 0
    replayable: bool = True

    def rule(self, statement: Statement) -> Refusal | None:
        """Return why a statement may not follow what the transaction has done: DDL stands alone."""
        if statement.kind is Kind.DDL:
            if self.ddl:
                return refusals.MULTIPLE_DDL
            return refusals.DDL_AND_DML if self.wrote else None
        if statement.kind in {Kind.WRITE, Kind.COPY_IN} and self.ddl:
            return refusals.DDL_AND_DML
        return None

    def note(self, work: Work) -> None:
        """Note a step that has run, so that it can be repeated."""
        for statement in work.statements:
            self.ddl = self.ddl or statement.kind is Kind.DDL
            self.job = self.job or statement.job
            self.wrote = self.wrote or statement.kind in {Kind.WRITE, Kind.COPY_IN}
            if statement.kind is Kind.DDL and statement.table:
                self.created.append(statement.table)
        if work.changes:
            self.replayable = self.replayable and work.replayable
            again = [wire.close_statement(name) for name in work.parsed] + work.messages
            self.log.append(b"".join(again))
            self.log_answers += len(again)

    def verdict(self, limits: Limits) -> Refusal | None:
        """Return why COMMIT fails; None where it may be tried."""
        if self.doomed:
            return self.doomed
        if self.size + self.rows * limits.row_overhead_bytes > limits.bytes_per_transaction:
            return refusals.SIZE_LIMIT
        if time.monotonic() - self.started > limits.transaction_seconds:
            return refusals.AGE_LIMIT
        return None


def changed_rows(statement: Statement, tag: str) -> int:
    """Return the rows that a statement has changed, by its command tag.

    >>> changed_rows(Statement(Kind.WRITE, ""), "INSERT 0 12"), changed_rows(Statement(Kind.READ, ""), "SELECT 5")
    (12, 0)
    """
    if statement.kind not in {Kind.WRITE, Kind.COPY_IN}:
        return 0
    word, _, rest = tag.partition(" ")
    return int(rest.rpartition(" ")[2]) if word in {"INSERT", "UPDATE", "DELETE", "MERGE", "COPY"} and rest else 0
