"""The fence's own look at the source, over real servers: a write before the raised epoch, fences at once, no answer."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.both_ways_run import BothWays
from support.item_moves import ItemMove, an_item, fill
from support.live_run import LiveRun, Run
from support.moves import Move
from support.patience import beside, eventually
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Phase
from whimbrel_api.reports import REFUSED, TRAFFIC_STEPS, Record, WorkerReport
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_testbed.polardb.server import PolarDBServer

pytestmark = pytest.mark.timeout(400)
PATIENCE = 180.0
"""A whole cutover with a worker for each of its steps, on a machine that has more to do."""


def record_of(move: Move | ItemMove) -> Record:
    record = move.run("inspect", epoch=0)[1].record
    assert record is not None
    return record


def steps(move: Move | ItemMove) -> list[str]:
    """The journal's steps behind the copy."""
    return [entry.step for entry in record_of(move).journal if entry.step not in ("started", "schema-ready")]


def order(step: str, position: str, attempt: int = 1, **more: Any) -> dict[str, Any]:
    """The fields of a fence that looks."""
    fence = {"step": step, "detail": position[:1024], "planAttempt": attempt, **more}
    return {"fence": fence, "freeze": {"since": position, "quietSeconds": 0.5}}


def is_stopped(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except FileNotFoundError:
        return False


def standing(move: Move | ItemMove, **fields: Any) -> subprocess.Popen[bytes]:
    """A fence that has looked and then stands still before it raises the epoch."""
    fence = move.start("fence", "fence.looked:1:stop", index=1, **fields)
    eventually(lambda: is_stopped(fence.pid), lambda: move.log("fence", 1), often=0.02)
    return fence


def woken(move: Move | ItemMove, fence: subprocess.Popen[bytes]) -> tuple[int, WorkerReport]:
    os.kill(fence.pid, signal.SIGCONT)
    return fence.wait(60), move.report(move.task("fence", index=1))


class Rows:
    """A MySQL database with a table, prepared and at rest."""

    def __init__(self, move: Move, mysql: MySQLServer, database: str) -> None:
        self.move, self.mysql, self.database = move, mysql, database
        self.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2)")
        move.prepare()
        frozen = move.run("freeze", freeze={"quietSeconds": 0.1})[1].freeze
        assert frozen is not None
        self.position = frozen.position

    def execute(self, *statements: str) -> None:
        with closing(self.mysql.connect(self.database)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def write(self) -> None:
        self.execute("UPDATE t SET v = 9", "INSERT INTO t VALUES (3, 3)")


@pytest.fixture
def rows(move: Move, mysql: MySQLServer, mysql_database: str) -> Rows:
    return Rows(move, mysql, mysql_database)


def test_a_write_is_named_and_nothing_is_switched(rows: Rows) -> None:
    move = rows.move
    rows.write()
    for _ in range(2):
        code, report = move.run("fence", **order("switched", rows.position))
        assert code == 0, report.last_error
        assert report.freeze is not None
        assert report.freeze.tables == {f"{rows.database}.t": 3}
        assert report.record is not None
        assert (report.record.verdict and report.record.verdict.step, report.record.traffic) == ("refused", None)
        assert report.epoch == 2, "raised once, so that no fence that looked before comes through"
    assert steps(move) == ["refused"]


def test_nothing_written_is_switched_and_told_again(rows: Rows) -> None:
    for _ in range(2):
        code, report = rows.move.run("fence", **order("switched", rows.position))
        assert (code, report.epoch, report.freeze) == (0, 2, None)
    assert steps(rows.move) == ["switched"]


def test_of_two_fences_at_once_the_refusal_counts_where_it_is_first(rows: Rows) -> None:
    """The first one looked before the write, the second one after it."""
    first = standing(rows.move, **order("switched", rows.position))
    rows.write()
    assert rows.move.run("fence", **order("switched", rows.position))[1].freeze is not None
    code, report = woken(rows.move, first)
    assert (code, steps(rows.move)) == (ExitCode.DONE, ["refused"])
    assert report.freeze is not None
    assert report.freeze.tables == {f"{rows.database}.t": 3}, "both say the same"


def test_of_two_fences_at_once_the_switch_counts_where_it_is_first(rows: Rows) -> None:
    first = standing(rows.move, **order("switched", rows.position))
    assert rows.move.run("fence", **order("switched", rows.position))[0] == 0
    rows.write()
    code, report = woken(rows.move, first)
    assert (code, report.freeze, report.epoch) == (ExitCode.DONE, None, 2)
    assert steps(rows.move) == ["switched"]


def test_a_fence_that_wakes_up_after_the_cutover_was_given_up_switches_nothing(rows: Rows) -> None:
    first = standing(rows.move, **order("switched", rows.position))
    given_up = {"step": "timed-out", "detail": "it took too long", "planAttempt": 2}
    assert rows.move.run("fence", fence=given_up)[0] == 0
    code, report = woken(rows.move, first)
    assert (code, steps(rows.move)) == (ExitCode.FENCED_OUT, ["timed-out"])
    assert report.last_error is not None
    assert "the plan is at attempt 2" in report.last_error.what
    assert record_of(rows.move).epoch == 1


def test_what_is_switched_is_not_given_up(rows: Rows) -> None:
    assert rows.move.run("fence", **order("switched", rows.position))[0] == 0
    for epoch in (1, 2):
        code, report = rows.move.run("fence", epoch=epoch, fence={"step": "timed-out", "planAttempt": 2})
        assert code == ExitCode.FENCED_OUT
        assert report.last_error is not None
    assert steps(rows.move) == ["switched"]
    assert record_of(rows.move).plan_attempt == 1


def test_a_late_order_of_an_epoch_that_is_over_changes_nothing(rows: Rows) -> None:
    rows.write()
    assert rows.move.run("fence", **order("switched", rows.position))[0] == 0
    frozen = rows.move.run("freeze", freeze={"quietSeconds": 0.1})[1].freeze
    assert frozen is not None
    assert rows.move.run("fence", epoch=2, **order("sealed", frozen.position))[0] == 0
    assert rows.move.run("fence", **order("switched", rows.position))[0] == ExitCode.FENCED_OUT
    assert rows.move.run("fence", epoch=3, **order("switched", frozen.position))[0] == 0
    assert steps(rows.move) == ["refused", "sealed", "switched"]


def test_a_source_that_is_away_is_tried_again_until_the_time_is_up(rows: Rows) -> None:
    away = rows.move.source()
    away["mysql"]["port"] = 1
    later, before = (datetime.now(UTC) + timedelta(minutes=sign * 5) for sign in (1, -1))
    code, report = rows.move.run("fence", source=away, **order("switched", rows.position, lookUntil=later.isoformat()))
    assert (code, steps(rows.move)) == (ExitCode.FAILED, [])
    code, report = rows.move.run("fence", source=away, **order("switched", rows.position, lookUntil=before.isoformat()))
    assert (code, steps(rows.move)) == (ExitCode.DONE, ["refused"])
    assert report.freeze is not None
    assert "cannot be reached" in report.freeze.unread
    code, report = rows.move.run("fence", **order("switched", rows.position))
    assert (code, steps(rows.move)) == (ExitCode.DONE, ["refused"]), "it was refused, whatever answers now"


class Held:
    """Fences of a run, each of which stands still right before its look."""

    def __init__(self, live: Run) -> None:
        self.live = live

    def fence(self, task: str) -> int:
        """Its process, once it stands still."""
        found = eventually(lambda: self._stopped(task), self.live.log, seconds=PATIENCE, often=0.02)
        assert isinstance(found, int)
        return found

    def _stopped(self, task: str) -> int:
        process = self.live.workers().get(f"{task}-0", 0)
        return process if process and is_stopped(process) else 0

    def go_on(self, *_: object) -> None:
        for name, process in self.live.workers().items():
            if name.startswith("fence-") and is_stopped(process):
                os.kill(process, signal.SIGCONT)


def events(live: Run) -> list[str]:
    return [event.reason for event in live.events()]


def test_a_write_between_the_confirmation_and_the_switch_is_carried(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHIMBREL_FAILPOINT", "fence.ordered:1:stop")
    live = LiveRun(postgres_move, mysql, mysql_database)
    live.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
    held = Held(live)
    with live.started() as run:
        live.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL, PATIENCE)
        live.approve()
        held.fence("fence-switched")
        first = live.status().cutover.freeze_position
        live.execute("UPDATE t SET v = 22 WHERE id = 2", "DELETE FROM t WHERE id = 3")
        with beside(held.go_on, 0.05):
            assert live.ended(run) == 0, live.log()
    assert live.status().phase is Phase.COMPLETED
    assert live.status().cutover.freeze_position != first
    written = next(event for event in live.events() if event.reason == "WrittenAfterFreeze")
    assert f"{mysql_database}.t (2)" in written.message
    assert live.differences(["t"]) == []
    assert postgres_move.look(f'SELECT id, v FROM "{mysql_database}".t ORDER BY id') == [(1, 1), (2, 22)]


@pytest.mark.timeout(560)
def test_writes_before_the_seal_and_while_the_way_back_is_armed_are_carried(
    moving: ItemMove, polardb: PolarDBServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the freeze begins again, then all is given up, and nothing of the way back is left; then it switches."""
    monkeypatch.setenv("WHIMBREL_FAILPOINT", "fence.ordered:1:stop")
    both, rng, table = BothWays(moving, polardb), random.Random(5), moving.table("orders")
    fill(moving.origin, table, range(40))
    held = Held(both)
    with both.started():
        both.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL, PATIENCE)
        both.approve()
        first = held.fence("fence-sealed")
        client_of(moving.origin).put_item(TableName=table, Item=an_item(1000, rng))
        held.go_on()
        eventually(lambda: held.fence("fence-sealed") != first, both.told, seconds=PATIENCE)
        assert events(both).count("WrittenAfterFreeze") == 1
        held.go_on()
        held.fence("fence-switched")
        assert both.slots() != []
        client_of(moving.origin).put_item(TableName=table, Item=an_item(1001, rng))
        with beside(held.go_on, 0.05):
            status = both.until(lambda status: status.phase is Phase.FOLLOWING, PATIENCE)
            assert f"changes in {table} (1), while the way back was armed" in status.cutover.message
            both.equal(table)
            assert (both.back(), both.slots()) == (None, [])
            both.until(lambda status: status.plan.attempt == 2, PATIENCE)
            both.approve()
            both.until(lambda status: status.phase is Phase.COMPLETED, PATIENCE)
    assert moving.differences(table) == []
    moving.migration = f"{both.key.namespace}/shop"
    traffic = [step for step in steps(moving) if step in (REFUSED, *TRAFFIC_STEPS)]
    assert traffic == ["refused", "sealed", "refused", "timed-out", "sealed", "switched"]
