"""Traffic against the flights tables in MySQL, until stopped; the plan beside this chooses what."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pymysql
from pymysql.connections import Connection
from pymysql.constants import CLIENT, CR, ER
from pymysql.cursors import Cursor

from whimbrel_testbed.background import Background
from whimbrel_testbed.mysql import MySQLAccess
from whimbrel_testbed.traffic_plan import Kind, TrafficPlan, Transaction

_LOST = frozenset((
    0, CR.CR_CONNECTION_ERROR, CR.CR_CONN_HOST_ERROR, CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, ER.SERVER_SHUTDOWN,
    ER.QUERY_INTERRUPTED, ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT,
))  # fmt: skip
_FIRST_PAUSE, _LONGEST_PAUSE, _REPORT_SECONDS = 0.1, 5.0, 1.0


@dataclass(frozen=True)
class TrafficCounts:
    """What was done so far, in rows of committed transactions; `reconnects` counts connections lost and made again.

    `first_write` and `last_write`: when the first and the last commit were answered, in seconds of time.monotonic().
    """

    transactions: int = 0
    inserts: int = 0
    updates: int = 0
    deletes: int = 0
    key_changes: int = 0
    rolled_back: int = 0
    reconnects: int = 0
    first_write: float | None = field(default=None, compare=False)
    last_write: float | None = field(default=None, compare=False)

    @property
    def changes(self) -> int:
        """Rows changed in all."""
        return self.inserts + self.updates + self.deletes + self.key_changes

    def after(self, done: Mapping[Kind, int]) -> TrafficCounts:
        """With the rows of a transaction whose commit was answered just now."""
        now = time.monotonic()
        return replace(
            self,
            transactions=self.transactions + 1,
            first_write=self.first_write if self.first_write is not None else now,
            last_write=now,
            **{kind: getattr(self, kind) + rows for kind, rows in done.items()},
        )


def run_traffic(
    access: MySQLAccess, *, database: str = "flights", rate: float = 200, seed: int, stop: threading.Event,
    report: Callable[[TrafficCounts], None] | None = None,
) -> TrafficCounts:  # fmt: skip
    """Change rows until `stop` is set, about `rate` rows a second; `report` is called every second and at the end.

    A lost connection is made again with a growing pause, so that it outlives a restart of the server. The account
    needs SELECT, INSERT, UPDATE and DELETE on the database.
    Raises pymysql's error for anything else, such as a refused sign-in.
    """
    traffic = _Run(access, database, rate, random.Random(seed), stop, report)  # noqa: S311
    pause = _FIRST_PAUSE
    while not stop.is_set():
        try:
            traffic.until_stopped()
        except (pymysql.err.OperationalError, pymysql.err.InterfaceError) as error:
            if error.args and error.args[0] not in _LOST:
                raise
            pause = _FIRST_PAUSE if traffic.moved_on() else min(pause * 2, _LONGEST_PAUSE)
            stop.wait(pause)
    if report is not None:
        report(traffic.counts)
    return traffic.counts


@dataclass
class _Run:
    access: MySQLAccess
    database: str
    rate: float
    rng: random.Random
    stop: threading.Event
    report: Callable[[TrafficCounts], None] | None
    counts: TrafficCounts = TrafficCounts()
    _known: int = 0

    def moved_on(self) -> bool:
        """Count a lost connection; say whether anything was done since the one before."""
        before, self._known = self._known, self.counts.transactions
        self.counts = replace(self.counts, reconnects=self.counts.reconnects + 1)
        return self._known > before

    def until_stopped(self) -> None:
        """Open a connection, see which keys there are, and change rows at the wanted rate."""
        options = {"autocommit": False, "client_flag": CLIENT.FOUND_ROWS, "init_command": "SET time_zone = '+00:00'"}
        with closing(self.access.connect(self.database, **options)) as connection, connection.cursor() as cursor:
            plan = read_plan(cursor, self.rng)
            connection.rollback()
            started, done, reported = time.monotonic(), self.counts.changes, time.monotonic()
            while not self.stop.is_set():
                self._run(connection, cursor, plan.next_transaction())
                now = time.monotonic()
                if self.report is not None and now - reported >= _REPORT_SECONDS:
                    reported = now
                    self.report(self.counts)
                self.stop.wait(max(0.0, started + (self.counts.changes - done) / self.rate - now))

    def _run(self, connection: Connection[Any], cursor: Cursor, transaction: Transaction) -> None:
        done: dict[Kind, int] = {"inserts": 0, "updates": 0, "deletes": 0, "key_changes": 0}
        for kind, statement, parameters in transaction.statements:
            done[kind] += cursor.execute(statement, parameters)
        if transaction.commit:
            connection.commit()
            self.counts = self.counts.after(done)
        else:
            connection.rollback()
            self.counts = replace(self.counts, rolled_back=self.counts.rolled_back + 1)


class Reader(Protocol):
    """A cursor of either driver."""

    def execute(self, query: str, /) -> object:
        """Run a statement."""

    def fetchall(self) -> Iterable[Sequence[Any]]:
        """Return its rows."""


def read_plan(cursor: Reader, rng: random.Random) -> TrafficPlan:
    """Read which keys there are (a bounded part of flights and weather) and plan over them."""
    lowest = _column(cursor, "SELECT id FROM flights ORDER BY id LIMIT 10000")
    highest = _column(cursor, "SELECT id FROM flights ORDER BY id DESC LIMIT 10000")
    cursor.execute("SELECT origin, time_hour FROM weather ORDER BY origin, time_hour LIMIT 5000")
    weather = [(origin, hour) for origin, hour in cursor.fetchall()]
    return TrafficPlan(
        rng, sorted({*lowest, *highest}), _column(cursor, "SELECT tailnum FROM planes ORDER BY tailnum"), weather,
        _column(cursor, "SELECT carrier FROM airlines ORDER BY carrier"),
        _column(cursor, "SELECT faa FROM airports ORDER BY faa"),
    )  # fmt: skip


def _column(cursor: Reader, statement: str) -> list[Any]:
    cursor.execute(statement)
    return [value for (value,) in cursor.fetchall()]


@dataclass
class Traffic(Background[TrafficCounts]):
    """Inserts, updates, deletes and key changes on the flights tables of a MySQL server."""

    unit = "rows"
    fails_by = (pymysql.err.MySQLError, ValueError)
    access: MySQLAccess
    database: str = "flights"
    seed: int = 1
    rate: float = 200

    def none(self) -> TrafficCounts:
        """Nothing done yet."""
        return TrafficCounts()

    def work(self, stop: threading.Event, note: Callable[[TrafficCounts], None]) -> None:
        """Go on until stopped."""
        run_traffic(self.access, database=self.database, rate=self.rate, seed=self.seed, stop=stop, report=note)
