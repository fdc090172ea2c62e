"""Finds the shards that split and roll brings forth, and keeps them as rows. Who reads them is sharing's affair.

DescribeStream is allowed ten times a second for the whole account, which is too little to look at a thousand tables
every few seconds. But a shard has children only once it is closed, and they are read only once it is read to its end:
so a table whose shard has just ended is looked at first, again and again until the child is there, and all tables in
turn, as a safety net, at the pace that is left.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from whimbrel_worker.engine.shard_ports import ShardReader, ShardRef, ShardRow, ShardStore
from whimbrel_worker.engine.shards.lineage import newcomers, parent_refs
from whimbrel_worker.engine.shards.tables import Followed
from whimbrel_worker.errors import SourceLogLost, Transient
from whimbrel_worker.values.columns import Table

LOOKS_A_SECOND: Final = 5.0
"""A freeze and a comparison beside it list streams too."""
_TURN_SECONDS: Final = 2.0
_HOT_SECONDS: Final = 0.5
_HOT_FOR: Final = 60.0
_IDLE_SECONDS: Final = 0.1
GONE: Final = "the source has no such table any more, or one that cannot be carried: migrate this table anew"


class Discovery:
    """`rows` gives the newest known rows; `found` hears that there are more; `workers` how many share the pace."""

    def __init__(
        self, source: ShardReader, store: ShardStore, followed: Followed, *, rows: Callable[[], Sequence[ShardRow]],
        found: Callable[[], None], notice: Callable[[Transient], None], workers: Callable[[], int],
    ) -> None:  # fmt: skip
        self._source, self._store, self._followed = source, store, followed
        self._rows, self._found, self._notice, self._workers = rows, found, notice, workers
        self._lock = threading.Lock()
        self._hot: dict[ShardRef, float] = {}
        self._looked: dict[str, float] = {}
        self._turns: deque[str] = deque()

    def ended(self, ref: ShardRef) -> None:
        """This shard is read to its end: its children are due."""
        with self._lock:
            self._hot[ref] = time.monotonic() + _HOT_FOR

    def run(self, stopping: threading.Event) -> None:
        """Look until told to stop."""
        pause = 0.0
        while not stopping.wait(pause):
            table = self._next()
            if table is None:
                pause = _IDLE_SECONDS
                continue
            self._looked[table.name] = time.monotonic()
            pause = max(1, self._workers()) / LOOKS_A_SECOND
            try:
                self.look(table)
            except Transient as failure:
                self._notice(failure)

    def look(self, table: Table) -> bool:
        """Keep what the table's stream has that is not known. Whether there was any. Raises SourceLogLost."""
        try:
            listed = self._source.shards(table)
        except SourceLogLost:
            if self.stops_gone(table.name):
                return False
            raise
        rows = [row for row in self._rows() if row.ref.table == table.name]
        generations = newcomers(table.name, rows, listed)
        for generation in generations:
            self._store.add(generation)
        if generations:
            self._found()
        return bool(generations)

    def stops_gone(self, name: str) -> bool:
        """Stop the table if the source has it no more: its log is then not lost but over. Whether it was so."""
        tables, _ = self._source.discover()
        gone = name not in {table.name for table in tables}
        if gone:
            self._followed.stop(name, GONE)
        return gone

    def _next(self) -> Table | None:
        """The table to look at now, if one is due."""
        self._cool()
        for ref in list(self._hot):
            table = self._followed.get(ref.table)
            if table is not None and self._is_due(table.name, _HOT_SECONDS):
                return table
        return self._next_in_turn()

    def _next_in_turn(self) -> Table | None:
        if not self._turns:
            self._turns.extend(sorted(table.name for table in self._followed.all()))
        while self._turns:
            table = self._followed.get(self._turns[0])
            if table is not None and not self._is_due(table.name, _TURN_SECONDS):
                return None
            self._turns.popleft()
            if table is not None:
                return table
        return None

    def _is_due(self, name: str, seconds: float) -> bool:
        return time.monotonic() - self._looked.get(name, float("-inf")) >= seconds

    def _cool(self) -> None:
        """Forget the shards whose children are known, and those that seem to have none."""
        with self._lock:
            if not self._hot:
                return
            parents = {parent for row in self._rows() for parent in parent_refs(row)}
            now = time.monotonic()
            for ref, until in list(self._hot.items()):
                if now > until or ref in parents:
                    del self._hot[ref]
