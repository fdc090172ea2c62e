"""The cutover of `whimbrel run` over real servers: writes that arrive late, a time-out, an approval that is too old."""

import os
import signal

import pytest

from support.live_run import LiveRun
from support.moves import Move
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Phase
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.mysql import MySQLServer

pytestmark = pytest.mark.timeout(180)


def awaiting(live: LiveRun) -> str:
    """Wait until only a person's word is missing; the plan's hash."""
    status = live.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
    return status.plan.hash


def reasons(live: LiveRun) -> list[str]:
    return [event.reason for event in live.events()]


def filled(move: Move, mysql: MySQLServer, database: str, **cutover: str) -> LiveRun:
    live = LiveRun(move, mysql, database, cutover=cutover)
    live.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
    return live


def test_writes_after_the_freeze_are_seen_and_carried(dsql_move: Move, mysql: MySQLServer, mysql_database: str) -> None:
    """The stream is held still once the source has come to rest, so that the write falls before the last look."""
    live = filled(dsql_move, mysql, mysql_database)
    with live.started() as run:
        awaiting(live)
        live.approve()
        live.until(lambda status: status.cutover.state is CutoverState.FREEZING)
        stream = live.workers()["stream-0"]
        os.kill(stream, signal.SIGSTOP)
        try:
            first = live.until(lambda status: status.cutover.freeze_position != "").cutover.freeze_position
            live.execute("UPDATE t SET v = 22 WHERE id = 2", "DELETE FROM t WHERE id = 3")
        finally:
            os.kill(stream, signal.SIGCONT)
        assert live.ended(run) == 0, live.log()
    status = live.status()
    assert status.phase is Phase.COMPLETED
    assert status.cutover.freeze_position != first
    assert "WrittenAfterFreeze" in reasons(live)
    assert live.differences(["t"]) == []
    assert live.move.look(f'SELECT id, v FROM "{mysql_database}".t ORDER BY id') == [(1, 1), (2, 22)]


def test_a_switch_that_was_ordered_before_the_cutover_was_given_up_is_not_made(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    """A leader that stood still orders it late; meanwhile another gave up, and the application writes to the source."""
    with mysql.connect(mysql_database) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY)")
    postgres_move.prepare()
    assert postgres_move.run("fence", fence={"step": "timed-out", "planAttempt": 2})[0] == 0
    code, report = postgres_move.run("fence", fence={"step": "switched", "planAttempt": 1})
    assert code == ExitCode.FENCED_OUT
    assert report.last_error is not None
    assert "attempt 2" in report.last_error.what
    assert postgres_move.look("SELECT epoch FROM whimbrel.migrations") == [(1,)]
    code, report = postgres_move.run("fence", fence={"step": "switched", "planAttempt": 2})
    assert (code, report.epoch) == (0, 2)


def test_a_later_attempts_seal_at_the_same_position_raises_the_epoch_again(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    """Nothing was written in between, so only the journal's order tells it from the first seal ordered again."""
    with mysql.connect(mysql_database) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY)")
    postgres_move.prepare()
    epochs = []
    for step, attempt in [("sealed", 1), ("sealed", 1), ("timed-out", 2), ("sealed", 2), ("sealed", 2)]:
        detail = "here" if step == "sealed" else "it took too long"
        order = {"step": step, "detail": detail, "planAttempt": attempt}
        code, report = postgres_move.run("fence", epoch=0, fence=order)
        assert code == 0, report.last_error
        epochs.append(report.epoch)
    assert epochs == [2, 2, 2, 3, 3]
    found = postgres_move.run("inspect")[1].record
    assert found is not None
    assert [entry.step for entry in found.journal[-3:]] == ["sealed", "timed-out", "sealed"]


def test_a_time_out_goes_back_says_why_and_needs_a_new_approval(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    live = filled(postgres_move, mysql, mysql_database, timeout="5s")
    with live.started() as run:
        plan = awaiting(live)
        live.approve()
        live.until(lambda status: status.cutover.state is CutoverState.FREEZING)
        number = 0

        def timed_out_while_written_to() -> bool:
            nonlocal number
            number += 1
            live.execute(f"UPDATE t SET v = {number} WHERE id = 1")
            return live.status().phase is Phase.FOLLOWING

        live.until(lambda _: timed_out_while_written_to())
        status = live.status()
        assert status.cutover.state is CutoverState.TIMED_OUT
        assert "not done after 5s while in Freezing (stop the writes to the source now" in status.cutover.message
        assert "writes to the source may go on, approve the new plan to try again" in status.cutover.message
        assert status.plan.attempt == 2
        again = live.until(lambda status: status.plan.hash != plan).plan.hash
        code, said = live.say("approve", "shop", "--plan", plan)
        assert code != 0
        assert again in said
        live.execute("INSERT INTO t VALUES (4, 4)")
        live.store.patch_spec(live.key, {"cutover": {"timeout": "2m"}})
        patient = live.until(lambda status: status.plan.hash not in (plan, again)).plan.hash
        code, said = live.say("approve", "shop", "--plan", patient)
        assert code == 0, said
        assert live.ended(run) == 0, live.log()
    assert live.status().phase is Phase.COMPLETED
    assert live.differences(["t"]) == []
