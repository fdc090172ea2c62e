"""Tables that come into being during the migration, and those that other workers stop or add. Worker 0 does the work.

An added table is made on the target, its stream is enabled and its shards' positions are kept; only then is it copied,
by the same copier and checkpoints as every other table, and only once its row says Copied are its shards read. A crash
anywhere in between is made good by the next look, or by the next worker 0.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from whimbrel_api.migration import NewTables
from whimbrel_worker.engine.copy.copier import Copier, CopyOptions
from whimbrel_worker.engine.ports import Problem, TableRow
from whimbrel_worker.engine.shard_ports import ShardedSource, ShardedTarget
from whimbrel_worker.engine.shards.tables import Followed
from whimbrel_worker.errors import Incompatible
from whimbrel_worker.values.columns import Table

_LOG = logging.getLogger(__name__)
_DISCOVER_SECONDS: Final = 60.0
_AGAIN_SECONDS: Final = 10.0
_COPYING: Final = frozenset({"Pending", "Planning", "Copying"})
_LATE: Final = (
    "the table was made after the migration began, so it is not part of it; set spec.stream.newTables to Add to have it"
    " copied and followed, or name it in spec.tables.exclude"
)
_OCCUPIED: Final = (
    "the table was made after the migration began, and the target has one of that name that holds items; empty or drop"
    " that one, or name this table in spec.tables.exclude"
)


class _Ended(Exception):
    """The worker ends while it copies."""


@dataclass(frozen=True, slots=True)
class AddOptions:
    """`remember` is told which tables' streams are about to be enabled. `chunk_rows`: see CopyOptions."""

    index: int
    new_tables: NewTables
    chunk_rows: int
    remember: Callable[[Sequence[str]], None]


@dataclass(slots=True)
class AddedTables:
    """`look` is called every few seconds from one thread; the rest from any."""

    source: ShardedSource
    target: ShardedTarget
    followed: Followed
    options: AddOptions
    stopping: threading.Event
    _discovered_at: float = field(default=float("-inf"), init=False)
    _waiting: Mapping[str, str] = field(default_factory=dict, init=False)
    _copying: Mapping[str, str] = field(default_factory=dict, init=False)

    def waiting(self) -> dict[str, str]:
        """New tables that are not followed, with why."""
        return dict(self._waiting)

    def copying(self) -> dict[str, str]:
        """New tables that are being copied, with how far."""
        return dict(self._copying)

    def look(self) -> None:
        """Hear of tables that others stopped or added; find, add and copy new ones. Raises Transient among others."""
        rows = self.target.control().tables()
        self._hear_of_stopped(rows)
        missing = [row for row in rows if row.state == "Copied" and self._is_unknown(row.name)]
        since = time.monotonic() - self._discovered_at
        finds_new = self.options.index == 0 and since >= _DISCOVER_SECONDS
        if finds_new or (missing and since >= _AGAIN_SECONDS):
            self._discovered_at = time.monotonic()
            tables, problems = self.source.discover()
            self._follow([table for table in tables if table.name in {row.name for row in missing}])
            if self.options.index == 0:
                known = {row.name for row in rows}
                self._handle_new([table for table in tables if table.name not in known], problems)
        if self.options.index == 0:
            self._copy()

    def _is_unknown(self, name: str) -> bool:
        return self.followed.get(name) is None and name not in self.followed.stopped()

    def _hear_of_stopped(self, rows: Sequence[TableRow]) -> None:
        stopped = self.followed.stopped()
        for row in rows:
            if row.state == "Stopped" and row.name not in stopped:
                self.followed.note_stopped(row.name, row.message)

    def _follow(self, tables: Sequence[Table]) -> None:
        for table in tables:
            _LOG.info(
                "table %s was added and copied: its changes are followed from here on",
                table.name,
                extra={"table": table.name},
            )
            self.followed.add(table)

    # Worker 0

    def _handle_new(self, tables: Sequence[Table], problems: Sequence[Problem]) -> None:
        waiting: dict[str, str] = {}
        for table in tables:
            why = _LATE if self.options.new_tables is NewTables.REPORT else self._add(table)
            if why:
                waiting[table.name] = "; ".join(
                    [why, *(problem.what for problem in problems if problem.fatal and problem.where == table.name)]
                )
        for name in waiting.keys() - self._waiting.keys():
            _LOG.warning("new table %s: %s", name, waiting[name], extra={"table": name})
        self._waiting = waiting

    def _add(self, table: Table) -> str:
        """Make it part of the migration. Returns why it cannot be, or nothing."""
        schema = self.target.schema()
        try:
            found = schema.mismatches(table)
            fatal = [problem for problem in found or () if problem.fatal]
            if fatal:
                return f"{fatal[0].what}; {fatal[0].why}; {fatal[0].todo}"
            if found is not None and schema.has_rows(table):
                return _OCCUPIED
            self.source.prepare_streams([table], before=self.options.remember)
            self.target.shards().add(self.source.capture([table]))
            schema.create(table)
        except Incompatible as error:
            return str(error)
        _LOG.info("new table %s is made part of the migration", table.name, extra={"table": table.name})
        self.target.control().add_tables([TableRow(table.name, "Pending", table.rows_estimate)])
        return ""

    def _copy(self) -> None:
        """Copy what was added, whichever worker 0 began it. Before the copy is complete that is the snapshot's work."""
        control = self.target.control()
        if not control.record().snapshot_complete or not any(row.state in _COPYING for row in control.tables()):
            self._copying = {}
            return
        options = CopyOptions(index=0, chunk_rows=self.options.chunk_rows, tables_in_parallel=1)
        try:
            Copier(self.source, self.target, options, self).run()
        except _Ended:
            return
        self._copying = {}
        self._discovered_at = float("-inf")

    # Implements engine.copy.Guide

    def wait(self, seconds: float) -> None:
        """Wait; the copy breaks off when the worker ends."""
        if self.stopping.wait(seconds):
            raise _Ended

    def rate(self) -> float | None:
        """An added table is copied at full speed, within the limits that the source and the target have."""
        return None

    def progress(self, tables: Sequence[TableRow]) -> None:
        """Hear where all tables stand."""
        self._copying = {
            row.name: f"{row.rows_copied} of about {row.rows_estimate} items" for row in tables if row.state in _COPYING
        }
