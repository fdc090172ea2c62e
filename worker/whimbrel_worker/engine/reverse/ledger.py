"""How far each table is, and what the source may forget: nothing that a stopped table still needs. Pure.

One position counts for all tables but those that were stopped. Each of these keeps its own, the end of the last
transaction before the change that could not be carried, and the log from there on is not acknowledged. So the others
go on, nothing is lost, and once the cause is removed the table catches up from its own position, while what the others
hold already is passed over. The price is the log that the source keeps meanwhile; the guard on its size watches that.
"""

from collections.abc import Callable

from whimbrel_worker.engine.reverse_ports import Kept


class Ledger:
    """Positions while a log is read. For one thread; `reasons` may be read from others."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        """What the target holds, as it was kept last."""
        self.reasons: dict[str, str] = {}
        """Why tables were stopped, until they have caught up."""
        self._applied, self._behind = kept.applied, dict(kept.behind)
        self._stopped: set[str] = set()

    def restart(self, wanted: Callable[[str], bool]) -> None:
        """Begin anew after what was kept; stopped tables are tried again.

        `wanted`: whether a table is selected, be it there or not. One that is no longer gives its log up.
        """
        self._applied, self._behind = self.kept.applied, dict(self.kept.behind)
        self._stopped.clear()
        for table in [table for table in self._behind if not wanted(table)]:
            del self._behind[table]
            self.reasons.pop(table, None)

    @property
    def floor(self) -> int:
        """Where reading must begin."""
        return self.next().floor

    def takes(self, table: str, commit: int) -> bool:
        """Whether a change of this transaction is to be applied: it was not before, and its table is not stopped."""
        return table not in self._stopped and commit >= self._behind.get(table, self._applied)

    def stop(self, table: str, reason: str, at: int | None = None) -> None:
        """Apply no more of this table; `at`: its position, where it is not the end of the last transaction."""
        self._behind[table] = self._behind.get(table, self._applied) if at is None else at
        self._stopped.add(table)
        self.reasons[table] = reason

    def ended(self, end: int) -> None:
        """A transaction has come to its end."""
        self._applied = max(self._applied, end)
        for table in [table for table in self._behind if table not in self._stopped]:
            self._behind[table] = max(end, self._behind[table])
            if self._behind[table] >= self._applied:
                del self._behind[table]
                self.reasons.pop(table, None)

    def position_of(self, table: str) -> int:
        """The table's position as it was kept last."""
        return self.kept.behind.get(table, self.kept.applied)

    def next(self) -> Kept:
        """What is true once everything that was taken is in the target."""
        return Kept(self.kept.owner, self.kept.log, self._applied, dict(self._behind))
