"""A migration of items that goes there and back by `whimbrel run`, over real servers."""

import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from support.item_moves import ItemMove
from support.live_run import WAIT_SECONDS, Run
from support.patience import eventually
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_operator.domain.conditions import find
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.runtime.processes import is_alive
from whimbrel_testbed.polardb.server import PolarDBServer

_RUNS = itertools.count(1)
_USED: list[PolarDBServer] = []


def clear_servers() -> None:
    """Drop the slots and publications that runs of a test have left: its servers are those of other tests as well."""
    while _USED:
        with suppress(psycopg.OperationalError):  # a server of the test's own has gone with it
            _clear(_USED.pop())


def _clear(server: PolarDBServer) -> None:
    with server.backend.connect(server.postgres.database) as connection:
        connection.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        eventually(lambda: _dropped(connection))


def _dropped(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
    """Whether no slot is left; one whose reader has not ended yet is tried again."""
    here = "FROM pg_replication_slots WHERE database = current_database()"
    for (name,) in connection.execute(f"SELECT slot_name {here} AND NOT active".encode()).fetchall():
        connection.execute("SELECT pg_drop_replication_slot(%s)", (name,))
    for (name,) in connection.execute("SELECT pubname FROM pg_publication").fetchall():
        connection.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(name)))
    return connection.execute(f"SELECT 1 {here}".encode()).fetchone() is None


class BothWays(Run):
    """One migration with a way back, and a look at both."""

    def __init__(
        self, move: ItemMove, polardb: PolarDBServer, *, stream: dict[str, Any] | None = None, **cutover: Any
    ) -> None:
        access = polardb.postgres
        move.secret("polardb", username=access.user, password=access.password)
        server = {
            "host": access.host, "port": access.port, "database": access.database,
            "credentialsSecretRef": {"name": "polardb"}, "tls": {"mode": "Disabled"},
        }  # fmt: skip
        # Runs of one process share their servers, and DynamoDB's side keeps what a way back of that name has done.
        space = f"back-{next(_RUNS)}"
        back = {"enabled": True, "polardb": server}
        own = {"reverseSync": back, "cutover": cutover, "thresholds": {"samples": 1}, "stream": stream or {}}
        super().__init__(move, namespace=space, **own)
        self.move, self.server = move, polardb
        _USED.append(polardb)
        self.back_key = Key(space, "ReverseSync", "shop")

    def until(self, holds: Callable[[MigrationStatus], bool], seconds: float = 2 * WAIT_SECONDS) -> MigrationStatus:
        """As of any run; it has further to go, and two workers to wait for."""
        return super().until(holds, seconds)

    def back(self) -> ReverseSync | None:
        if self.back_key not in self.store.list("ReverseSync"):
            return None
        found = self.store.get(self.back_key)
        return found if isinstance(found, ReverseSync) else None

    def came_back(self) -> int:
        found = self.back()
        return found.status.changes_applied if found is not None else -1

    def counted(self) -> int:
        """The same by a report that was made after all that has come back by now was counted."""
        moment = datetime.now(UTC) + timedelta(seconds=1)

        def told() -> bool:
            found = self.back()
            at = found.status.lag_observed_at if found is not None else None
            return at is not None and at > moment

        eventually(told, self.told)
        return self.came_back()

    def ready(self) -> str:
        found = find(self.status().conditions, "RollbackReady")
        return f"{found.status} {found.reason}: {found.message}" if found is not None else ""

    def told(self) -> object:
        found = self.back()
        logs = dict(self.store.log_tail(self.back_key, 12)) if found is not None else {}
        return [self.status().phase, self.status().cutover, self.ready(), found and found.status, logs, self.log()]

    def equal(self, table: str) -> None:
        eventually(lambda: self.move.differences(table) == [], self.told, seconds=2 * WAIT_SECONDS)

    def slots(self) -> list[str]:
        with self.server.backend.connect(self.server.postgres.database) as connection:
            return [name for (name,) in connection.execute("SELECT slot_name FROM pg_replication_slots").fetchall()]

    @contextmanager
    def cut_over(self, table: str) -> Iterator[None]:
        """Running, Completed, and ready to go back."""
        with self.started():
            self.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
            self.approve()
            self.until(lambda status: status.phase is Phase.COMPLETED, 4 * WAIT_SECONDS)
            assert self.move.differences(table) == []
            eventually(lambda: self.ready().startswith("True"), self.told)
            yield

    def kill(self, process: "subprocess.Popen[str]") -> int:
        """As of any run; the way back's worker dies with it."""
        known = [each.known() for each in self.store.instances(self.back_key)] if self.back() is not None else []
        for each in known:
            if each is not None and each.running and is_alive(each.pid, each.birth):
                with suppress(ProcessLookupError):
                    os.kill(each.pid, signal.SIGKILL)
        return super().kill(process)
