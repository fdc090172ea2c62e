"""`whimbrel run` with a cutover that stops the writers itself: under traffic to the switch, and all the way back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fix_servers import fresh_name
from support.freezing import SUPER_READ_ONLY, Frozen, can_write, freezable, locking, postgres_target
from support.live_run import LiveRun
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Phase
from whimbrel_testbed.mysql import MySQLAccess
from whimbrel_testbed.postgres import PostgresServer

pytestmark = pytest.mark.timeout(180)
GIVEN_UP = (Phase.FOLLOWING, CutoverState.TIMED_OUT)


@pytest.fixture(scope="module")
def source() -> Iterator[Frozen]:
    with freezable() as frozen:
        yield frozen


@pytest.fixture
def live(
    request: pytest.FixtureRequest, source: Frozen, postgres: PostgresServer, postgres_database: str, tmp_path: Path
) -> LiveRun:
    database = fresh_name()
    source.open()
    source.make(database)
    move = postgres_target(source.server.migration, database, postgres, postgres_database, tmp_path)
    policy: dict[str, Any] = {"sourceFreeze": "Operator", **request.param}
    return LiveRun(move, source.server, database, cutover=policy)


@contextmanager
def traffic(app: MySQLAccess, database: str) -> Iterator[None]:
    """An application that writes for as long as it may, signing in anew each time."""
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.2):
            can_write(app, database)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("live", [{"freeze": locking("app@%")}], indirect=True)
def test_a_cutover_under_traffic_freezes_switches_and_leaves_the_source_frozen(source: Frozen, live: LiveRun) -> None:
    app = source.application()
    with traffic(app, live.database), live.started() as run:
        live.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
        assert can_write(app, live.database)
        live.approve()
        assert live.ended(run) == 0, live.log()
        status = live.status()
        assert status.phase is Phase.COMPLETED
        assert not can_write(app, live.database)
    assert status.cutover.source_frozen
    assert "the source stays frozen" in status.cutover.message
    assert live.differences(["t"]) == []
    assert live.move.look(f'SELECT count(*) FROM "{live.database}".t')[0][0] > 5


@pytest.mark.parametrize("live", [{"freeze": SUPER_READ_ONLY, "timeout": "15s"}], indirect=True)
def test_a_time_out_opens_the_source_and_the_next_cutover_succeeds(source: Frozen, live: LiveRun) -> None:
    """An administrator's locked table keeps the source from being frozen at first."""
    app = source.application()
    with live.started() as run:
        live.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
        with closing(source.server.connect(live.database)) as connection, connection.cursor() as cursor:
            cursor.execute("LOCK TABLES t WRITE")
            live.approve()
            status = live.until(lambda found: (found.phase, found.cutover.state) == GIVEN_UP)
        assert "Whimbrel undoes super_read_only" in status.cutover.message
        assert "super_read_only could not be switched on within 5 s" in status.cutover.message
        assert not status.cutover.source_frozen
        assert source.read_only() == (False, False)
        assert can_write(app, live.database)
        live.store.patch_spec(live.key, {"cutover": {"timeout": "2m"}})
        live.until(lambda found: found.plan.hash != status.plan.hash and found.plan.attempt == 2)
        live.approve()
        assert live.ended(run) == 0, live.log()
    assert "SourceUnfrozen" in [event.reason for event in live.events()]
    assert live.differences(["t"]) == []
    assert source.read_only() == (True, True)
