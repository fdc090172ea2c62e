"""The whole migration to a real Aurora DSQL cluster, under traffic: by `whimbrel run` and by the operator."""

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from support.churn import CHURNED, Place, churning, make_churned
from support.cluster_run import NAME, ClusterRun
from support.lent_dsql import Lent
from support.live_run import LiveRun, at_least
from support.moves import Move
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_testbed.compare import independent_compare
from whimbrel_testbed.flights import TABLE_NAMES, load_flights
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_testbed.traffic import Traffic

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROWS = 2000
PATIENCE = 900.0
"""Seconds for a phase: a fresh table takes a few thousand rows a second, and DDL is waited for."""
SPEC = {"snapshot": {"workers": 2, "chunkRows": 500}, "stream": {"flushInterval": "200ms"}}
TABLES = [*CHURNED, *TABLE_NAMES]


@dataclass
class Clock:
    """When a migration was first seen in each phase, for the figures."""

    begun: float = field(default_factory=time.monotonic)
    seen: dict[str, float] = field(default_factory=dict)

    def note(self, holds: Callable[[MigrationStatus], bool]) -> Callable[[MigrationStatus], bool]:
        """The same condition, with its phases noted."""

        def looked(status: MigrationStatus) -> bool:
            self.seen.setdefault(str(status.phase), round(time.monotonic() - self.begun, 1))
            return holds(status)

        return looked

    def tell(self, what: str, status: MigrationStatus) -> None:
        phases = ", ".join(f"{phase} {seconds} s" for phase, seconds in self.seen.items() if phase)
        print(f"\n{what}: {status.snapshot.rows_copied} rows copied; first seen: {phases}", flush=True)


@contextmanager
def filled_source(mysql: MySQLServer, database: str) -> Iterator[None]:
    """The flights sample in a database of its own."""
    load_flights(mysql, database, rows=ROWS)
    yield
    with closing(mysql.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE `{database}`")


@contextmanager
def traffic_on(place: Place, seed: int) -> Iterator[Callable[[], None]]:
    """Both applications write until the function is called."""
    print(f"seed {seed}")
    flights = Traffic(place.mysql.admin, database=place.database, seed=seed, rate=100)
    with flights, churning(place, random.Random(seed), ROWS, pause=0.1) as stop:

        def quiet() -> None:
            stop.set()
            flights.stop()

        yield quiet


@pytest.fixture
def folder() -> Iterator[Path]:
    """For Secrets and state: readable by nobody else, and gone afterwards, which pytest's own folders are not."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-aws-") as name:
        yield Path(name)


def move_to(real: Lent, mysql: MySQLServer, database: str, folder: Path, *, own_identity: bool) -> Move:
    secrets = real.cluster.give_secret(folder / "dsql", own_identity=own_identity)
    target = real.cluster.target(own_identity=own_identity)
    return Move(folder, target, secrets, tables={"include": [f"{database}.*"]}, mysql=mysql.migration, conninfo="")


def differences(real: Lent, mysql: MySQLServer, database: str) -> list[str]:
    """By plain SQL, with a fresh token each time; a stale catalogue (OC001) is read again."""
    tables = [f"{database}.{table}" for table in TABLES]
    for left in reversed(range(5)):
        try:
            return independent_compare(mysql.admin, real.cluster.conninfo(), tables)
        except psycopg.Error as error:
            if not left or not isinstance(error, psycopg.errors.SerializationFailure):
                # Without its frames, because their arguments hold the token.
                raise error.with_traceback(None) from None
    raise AssertionError("unreachable")


def awaiting(status: MigrationStatus) -> bool:
    return status.cutover.state is CutoverState.AWAITING_APPROVAL


def completed(status: MigrationStatus) -> bool:
    return status.phase is Phase.COMPLETED


def test_by_whimbrel_run_with_the_processes_own_identity(real: Lent, mysql: MySQLServer, folder: Path) -> None:
    database, clock = real.schema("run"), Clock()
    with filled_source(mysql, database):
        move = move_to(real, mysql, database, folder, own_identity=True)
        live = LiveRun(move, mysql, database, namespace=real.namespace("run"), **SPEC)
        make_churned(live, ROWS)
        with live.started() as process, traffic_on(live, seed=1) as quiet:
            live.until(clock.note(awaiting), PATIENCE)
            live.approve()
            live.until(clock.note(at_least(Phase.CUTTING_OVER)), PATIENCE)
            quiet()
            live.until(clock.note(completed), PATIENCE)
            assert live.ended(process) == 0, live.log()
        clock.tell("whimbrel run", live.status())
        assert differences(real, mysql, database) == []


def test_by_the_operator_with_a_secret(
    real: Lent, mysql: MySQLServer, cluster: KubernetesCluster, folder: Path
) -> None:
    database, namespace, clock = real.schema("cluster"), real.namespace("cluster"), Clock()
    cluster.kubectl("create", "namespace", namespace)
    with filled_source(mysql, database):
        move = move_to(real, mysql, database, folder, own_identity=False)
        run = ClusterRun(cluster, namespace, move, mysql, database, **SPEC)
        make_churned(run, ROWS)
        with run.begun(), traffic_on(run, seed=2) as quiet:
            run.until(clock.note(awaiting), PATIENCE)
            run.approve()
            run.until(clock.note(at_least(Phase.CUTTING_OVER)), PATIENCE)
            quiet()
            status = run.until(clock.note(completed), PATIENCE)
            clock.tell("the operator", status)
            assert differences(real, mysql, database) == []
            run.kubectl("delete", "migration", NAME, "--timeout=60s")
            run.until_nothing_is_left()
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")
