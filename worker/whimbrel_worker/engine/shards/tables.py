"""The tables whose shards are followed. A stopped one is written down in the target before its changes are let go."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from whimbrel_worker.engine.shard_ports import ShardRow
from whimbrel_worker.values.columns import Table

_LOG = logging.getLogger(__name__)


class Followed:
    """Tables by name, and those that are stopped with why. Safe from any thread."""

    def __init__(
        self, tables: Iterable[Table], stopped: Mapping[str, str], write_down: Callable[[str, str], None]
    ) -> None:
        self._lock = threading.Lock()
        self._tables = {table.name: table for table in tables}
        self._stopped = dict(stopped)
        self._write_down = write_down

    def get(self, name: str) -> Table | None:
        """The table, unless it is stopped or none of ours."""
        return self._tables.get(name)

    def all(self) -> list[Table]:
        """The tables that are followed now."""
        with self._lock:
            return list(self._tables.values())

    def add(self, table: Table) -> None:
        """Follow one more."""
        with self._lock:
            if table.name not in self._stopped:
                self._tables[table.name] = table

    def stop(self, name: str, reason: str) -> None:
        """Follow this table no further. Returns once the target's control table says so."""
        if name in self._stopped:
            return
        self._write_down(name, reason)
        self.note_stopped(name, reason)
        _LOG.error("table %s is stopped: %s", name, reason, extra={"table": name})

    def note_stopped(self, name: str, reason: str) -> None:
        """The same where the control table says so already, or need not."""
        with self._lock:
            self._stopped[name] = reason
            self._tables.pop(name, None)

    def stopped(self) -> dict[str, str]:
        """Why, by name."""
        with self._lock:
            return dict(self._stopped)

    def of(self, rows: Iterable[ShardRow]) -> Sequence[ShardRow]:
        """The rows of followed tables."""
        return [row for row in rows if row.ref.table in self._tables]
