"""What all sessions share: dials, limits, counters, the catalogue's version, and the watcher that ends lock waits.

Aurora DSQL has no lock waits. PostgreSQL has: where a statement waits for a lock, the watcher dooms the idle
transaction that holds it, so that the first to commit wins and a stopped client blocks nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from typing import Any, Protocol

from whimbrel_testbed.dsql import refusals
from whimbrel_testbed.dsql.backend import Address, Backend
from whimbrel_testbed.dsql.dials import Dials
from whimbrel_testbed.dsql.jobs import Jobs
from whimbrel_testbed.dsql.limits import WATCH_SECONDS, Limits
from whimbrel_testbed.dsql.refusals import Refusal, RefusedError

COUNTERS = ("connections", "refused_connections", "commits", "conflicts", "rows", "doomed", "stale_catalogues", "cuts")


class Session(Protocol):
    """What the hub asks of a session, and orders."""

    task: asyncio.Task[None] | None

    @property
    def pid(self) -> int:
        """The backend's process id."""

    def busy_seconds(self) -> float:
        """How long the backend has been at a statement of this session."""

    def is_doomed(self) -> bool:
        """Whether this session's transaction will fail at its COMMIT."""

    def cancelled(self) -> None:
        """Note that the backend is told to end this session's statement."""

    def conflict(self) -> Refusal:
        """What a transaction in the way of this session's statement is told."""

    async def doom(self, reason: Refusal) -> bool:
        """Roll back this session's idle transaction for its locks."""

    def end(self) -> None:
        """Cut the connection now."""


class Hub:
    """The state of one stand-in server."""

    def __init__(self, address: Address, dials: Dials) -> None:
        self.address, self.dials = address, dials
        self.limits = Limits().but(dials.limits)
        self.random = random.Random(dials.seed)  # noqa: S311 -- faults are drawn, nothing is kept secret by it
        self.counters: Counter[str] = Counter()
        self.sessions: set[Session] = set()
        self.catalogue_version = 0
        self.jobs = Jobs(address)
        self._running = asyncio.Event()
        self._created: dict[str, float] = {}
        self._bucket = (float(self.limits.connection_burst), time.monotonic())
        self.turn({})

    def turn(self, changes: dict[str, Any]) -> None:
        """Change dials; an unknown one raises ValueError and changes nothing."""
        limits = Limits().but(changes.get("limits", self.dials.limits))
        self.dials.set(**changes)
        if "seed" in changes:
            self.random.seed(self.dials.seed)
        if "limits" in changes:
            self._bucket = (float(limits.connection_burst), time.monotonic())
        self.limits = limits
        if self.dials.pause:
            self._running.clear()
        else:
            self._running.set()

    async def unpaused(self) -> None:
        """Wait while the pause dial is on."""
        await self._running.wait()

    def admit(self) -> None:
        """Take a place for one more connection; raises RefusedError where there are too many, or too many a second."""
        tokens, before = self._bucket
        now = time.monotonic()
        tokens = min(float(self.limits.connection_burst), tokens + (now - before) * self.limits.connections_per_second)
        self._bucket = (max(tokens - 1, 0.0), now)
        if tokens < 1:
            raise RefusedError(refusals.CONNECTION_RATE)
        if len(self.sessions) >= self.limits.connections:
            raise RefusedError(refusals.TOO_MANY_CONNECTIONS)

    def draw(self, dial: str) -> bool:
        """Say whether a drop dial strikes now: a count is counted down, a fraction is drawn."""
        value = float(getattr(self.dials, dial))
        if value >= 1:
            setattr(self.dials, dial, value - 1)
            return True
        return self.chance(value)

    def chance(self, fraction: float) -> bool:
        """Draw with a probability."""
        return fraction > 0 and self.random.random() < fraction

    def session_seconds(self) -> float:
        """Age at which a session is cut."""
        return self.dials.max_session_seconds or self.limits.session_seconds

    def created(self, tables: list[str]) -> None:
        """Note when tables were made."""
        self._created.update(dict.fromkeys(tables, time.monotonic()))

    async def throttle(self, table: str, rows: int) -> None:
        """Take the time that a fresh table needs for that many rows, where the dial is on."""
        made = self._created.get(table)
        rate = self.dials.slow_fresh_table
        if rate > 0 and made is not None and time.monotonic() - made < self.limits.fresh_table_seconds:
            await asyncio.sleep(rows / rate)

    async def watch(self) -> None:
        """Look after waiting statements until cancelled."""
        connection = await Backend.connect(self.address, {"application_name": "stand-in watcher"})
        try:
            while True:
                await asyncio.sleep(WATCH_SECONDS)
                waiting = {s.pid: s for s in self.sessions if s.busy_seconds() > WATCH_SECONDS}
                if waiting:
                    await self._resolve(connection, waiting)
        finally:
            connection.close()

    async def _resolve(self, connection: Backend, waiting: dict[int, Session]) -> None:
        pids = ", ".join(map(str, waiting))
        rows = await connection.execute(
            f"SELECT pid, array_to_string(pg_blocking_pids(pid), ' ') FROM unnest(ARRAY[{pids}]::int[]) AS pid"
        )
        by_pid = {session.pid: session for session in self.sessions}
        for pid, blockers in rows:
            if blockers and waiting[int(pid)].is_doomed():
                waiting[int(pid)].cancelled()
                await connection.execute(f"SELECT pg_cancel_backend({int(pid)})")
                continue
            for blocker in blockers.split():
                holder = by_pid.get(int(blocker))
                if holder is not None and await holder.doom(waiting[int(pid)].conflict()):
                    self.counters["doomed"] += 1

    async def close(self) -> None:
        """End every session."""
        for session in list(self.sessions):
            session.end()
        tasks = [session.task for session in self.sessions if session.task]
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
