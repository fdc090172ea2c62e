"""Traffic against the flights tables in an Aurora DSQL endpoint, until stopped: the plan that MySQL's has, too."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import psycopg
from psycopg import sql

from whimbrel_testbed.background import Background
from whimbrel_testbed.dsql.server import DSQLServer
from whimbrel_testbed.traffic import TrafficCounts, read_plan
from whimbrel_testbed.traffic_plan import Kind, Transaction

_REPORT_SECONDS = 1.0
Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]


def run_traffic(
    server: DSQLServer, *, schema: str = "flights", rate: float = 200, seed: int, stop: threading.Event,
    report: Callable[[TrafficCounts], None] | None = None,
) -> TrafficCounts:  # fmt: skip
    """Change rows until `stop` is set, about `rate` rows a second; `report` is called every second and at the end.

    It signs in as an application does, by an IAM token, and begins a transaction anew that met a conflict (40001).
    Raises psycopg's error for anything else.
    """
    traffic = _Run(random.Random(seed), rate, stop, report)  # noqa: S311
    with psycopg.connect(**server.conninfo(), autocommit=True) as connection:
        connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
        traffic.until_stopped(connection)
    if report is not None:
        report(traffic.counts)
    return traffic.counts


@dataclass
class _Run:
    rng: random.Random
    rate: float
    stop: threading.Event
    report: Callable[[TrafficCounts], None] | None
    counts: TrafficCounts = field(default_factory=TrafficCounts)

    def until_stopped(self, connection: Connection) -> None:
        """See which keys there are, and change rows at the wanted rate."""
        with connection.cursor() as cursor:
            plan = read_plan(cursor, self.rng)
        started = reported = time.monotonic()
        while not self.stop.is_set():
            self._make(connection, plan.next_transaction())
            now = time.monotonic()
            if self.report is not None and now - reported >= _REPORT_SECONDS:
                reported = now
                self.report(self.counts)
            self.stop.wait(max(0.0, started + self.counts.changes / self.rate - now))

    def _make(self, connection: Connection, transaction: Transaction) -> None:
        """Make a transaction and count it; one that met a conflict is made again until it is done or all is to stop."""
        while not self.stop.is_set():
            try:
                done = _made(connection, transaction)
            except psycopg.errors.SerializationFailure:
                continue
            if transaction.commit:
                self.counts = self.counts.after(done)
            else:
                self.counts = replace(self.counts, rolled_back=self.counts.rolled_back + 1)
            return


def _made(connection: Connection, transaction: Transaction) -> dict[Kind, int]:
    """Run a transaction; return its rows by kind."""
    done: dict[Kind, int] = {"inserts": 0, "updates": 0, "deletes": 0, "key_changes": 0}
    with connection.transaction(force_rollback=not transaction.commit):
        for kind, statement, parameters in transaction.statements:
            # The plan's own texts, with placeholders for all values.
            done[kind] += connection.execute(statement.encode(), parameters).rowcount
    return done


@dataclass
class Traffic(Background[TrafficCounts]):
    """Inserts, updates, deletes and key changes on the flights tables of an Aurora DSQL endpoint."""

    unit = "rows"
    fails_by = (psycopg.Error, ValueError)
    server: DSQLServer
    schema: str = "flights"
    seed: int = 1
    rate: float = 200

    def none(self) -> TrafficCounts:
        """Nothing done yet."""
        return TrafficCounts()

    def work(self, stop: threading.Event, note: Callable[[TrafficCounts], None]) -> None:
        """Go on until stopped."""
        run_traffic(self.server, schema=self.schema, rate=self.rate, seed=self.seed, stop=stop, report=note)
