"""The proven steps of a cutover in the target's journal: each once, also of a worker that dies before it can say so."""

import signal
import threading
from functools import partial
from typing import Any

import pytest

from support.item_moves import ItemMove, fill
from support.item_targets import ItemCase, prepared
from support.live_run import LiveRun
from support.moves import Move, Tasks, order
from support.patience import eventually
from whimbrel_api.acknowledgements import KEPT, Acknowledgement
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import CheckResult, Phase
from whimbrel_api.reports import Record, WorkerReport
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_worker.engine.ports import ControlStore
from whimbrel_worker.tasks.targets import build_target

pytestmark = pytest.mark.timeout(240)
QUIET = {"quietSeconds": 0.1}


def proof(step: str, attempt: int = 1, **more: Any) -> dict[str, Any]:
    return {"step": step, "plan": "sha256:abc", "attempt": attempt, **more}


def record(move: Tasks) -> Record:
    code, report = move.run("inspect")
    assert (code, report.record is not None) == (ExitCode.DONE, True), report.last_error
    assert report.record is not None
    return report.record


def steps(move: Tasks) -> list[tuple[str, int]]:
    return [(each.step, each.attempt) for each in record(move).acknowledged]


def done(move: Tasks, kind: str, **fields: Any) -> WorkerReport:
    code, report = move.run(kind, **fields)
    assert code == ExitCode.DONE, report.last_error
    return report


def dies_before_it_tells(move: Tasks, kind: str, **fields: Any) -> None:
    """Killed once its step stands in the journal."""
    process = move.start(kind, "acknowledged", **fields)
    assert process.wait(60) == -signal.SIGKILL, move.log(kind)


def filled(move: Move, mysql: MySQLServer, database: str) -> None:
    with mysql.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY)")
        cursor.execute("INSERT INTO t VALUES (1), (2)")
    move.prepare()
    done(move, "snapshot")


def frozen_twice(move: Move) -> str:
    """The freeze, told again after its worker died; the position."""
    told: dict[str, Any] = {"freeze": QUIET, "proof": proof("Freeze")}
    dies_before_it_tells(move, "freeze", **told)
    (first,) = record(move).acknowledged
    report = done(move, "freeze", **told)
    assert report.acknowledged == [first], "what was journalled before is what it tells"
    assert (first.step, first.plan, first.attempt) == ("Freeze", "sha256:abc", 1)
    assert first.by.startswith("freeze-0 on ")
    assert first.by.endswith(", epoch 1")
    assert first.detail.startswith("quiet for 0.")
    assert first.at is not None
    assert report.freeze is not None
    assert first.position == report.freeze.position
    return first.position


def drained_twice(move: Move, position: str) -> None:
    """The stream, killed with its word in the journal; it says so again, and in a later attempt anew."""
    file, drain = move.task("stream"), {"drainTo": position, "proof": proof("Drain", position=position)}
    order(file, **drain)
    dies_before_it_tells(move, "stream")
    assert steps(move) == [("Freeze", 1), ("Drain", 1)]
    stream = move.start("stream")
    try:
        log = partial(move.log, "stream")
        eventually(lambda: [each.step for each in move.report(file).acknowledged] == ["Drain"], log)
        order(file, **{**drain, "proof": proof("Drain", 2, position=position)})
        eventually(lambda: [each.attempt for each in move.report(file).acknowledged] == [2], log)
        order(file, **drain, retire=True)
        assert stream.wait(60) == 0, log()
    finally:
        stream.kill()
        stream.wait()


def test_each_step_is_journalled_once_though_its_worker_dies_before_it_tells(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    move = postgres_move
    filled(move, mysql, mysql_database)
    position = frozen_twice(move)
    drained_twice(move, position)
    final: dict[str, Any] = {"check": {"scope": "Final", "since": position, "through": position}}
    final |= {"proof": proof("FinalCheck", position=position)}
    dies_before_it_tells(move, "check", **final)
    (checked,) = done(move, "check", **final).acknowledged
    assert checked.detail.startswith("Equal: 0 differences in ")
    second = {"freeze": {**QUIET, "since": position}, "proof": proof("Confirm", position=position, before=["Retire"])}
    retired, _ = done(move, "freeze", **second).acknowledged
    assert (retired.step, retired.position) == ("Retire", position)
    assert retired.by.startswith("the operator, by freeze-0 on ")
    fence = {"fence": {"step": "switched", "detail": position}, "proof": proof("Fence", position=position)}
    dies_before_it_tells(move, "fence", **fence)
    done(move, "fence", **fence)
    names = [name for name, attempt in steps(move) if attempt == 1]
    assert names == ["Freeze", "Drain", "FinalCheck", "Retire", "Confirm", "Fence"]
    found = record(move)
    assert found.epoch == 2, "one switch, though it was ordered twice"
    assert [entry.step for entry in found.journal].count("switched") == 1
    assert len(move.look("SELECT 1 FROM whimbrel.journal WHERE step LIKE 'acknowledged:%'")) == 7


def test_what_proves_nothing_is_not_journalled(postgres_move: Move, mysql: MySQLServer, mysql_database: str) -> None:
    filled(postgres_move, mysql, mysql_database)
    with mysql.connect(mysql_database) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (3)")
    options: dict[str, Any] = {"recheck": {"attempts": 1, "backoff": "10ms"}}
    report = done(postgres_move, "check", check=options, proof=proof("FinalCheck"))
    assert report.check is not None
    assert (report.check.result, report.acknowledged) == (CheckResult.DIFFERENT, [])
    (allowed,) = done(postgres_move, "check", check=options, proof=proof("FinalCheck", differences=1)).acknowledged
    assert allowed.detail.startswith("Different: 1 differences in ")
    moved = {**QUIET, "since": "somewhere else"}
    with pytest.raises(AssertionError):
        done(postgres_move, "freeze", freeze=moved, proof=proof("Confirm"))
    assert done(postgres_move, "freeze", freeze=QUIET).acknowledged == []
    assert steps(postgres_move) == [("FinalCheck", 1)]


def crowded(control: ControlStore) -> None:
    """Many attempts: the milestones stay, the newest steps are read, and a repeated milestone is known again."""
    control.journal("freezing", "as it was")
    for attempt in range(1, 2 * KEPT):
        for step in ("Freeze", "Drain"):
            told = Acknowledgement(step=step, attempt=attempt, position="p1")
            assert control.acknowledge(told) == control.acknowledge(told)
    control.journal("freezing", "as it was")
    assert control.raise_epoch("switched", "p1") == 2
    control.acknowledge(Acknowledgement(step="Fence", attempt=2 * KEPT, position="p1"))
    assert control.raise_epoch("switched", "p1") == 2, "an acknowledgement behind it makes no new order of it"
    found = control.record()
    assert [entry.step for entry in found.journal if entry.step != "schema-ready"] == [
        "started",
        "freezing",
        "switched",
    ]
    assert len(found.acknowledged) == KEPT
    assert [(each.step, each.attempt) for each in found.acknowledged[-3:]] == [
        ("Freeze", 2 * KEPT - 1),
        ("Drain", 2 * KEPT - 1),
        ("Fence", 2 * KEPT),
    ]
    control.retire(("switched",))
    assert [entry.step for entry in control.record().journal] == ["switched", "retired"]
    assert control.record().acknowledged == []


def test_many_attempts_crowd_out_no_milestone_of_sql(move: Move, mysql: MySQLServer, mysql_database: str) -> None:
    with mysql.connect(mysql_database) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY)")
    move.prepare()
    crowded(build_target(move.task("inspect"), threading.Event()).control())


def test_many_attempts_crowd_out_no_milestone_of_items(item_case: ItemCase) -> None:
    crowded(prepared(item_case).control())


def test_items_steps_are_journalled_once_though_their_worker_dies_before_it_tells(moving: ItemMove) -> None:
    fill(moving.origin, moving.table("orders"), range(10))
    moving.prepare()
    done(moving, "snapshot")
    file = moving.task("stream")
    stream = moving.start("stream")
    try:
        told: dict[str, Any] = {"freeze": {"quietSeconds": 0.5}, "proof": proof("Freeze")}
        dies_before_it_tells(moving, "freeze", **told)
        report = done(moving, "freeze", **told)
        assert report.freeze is not None
        position = report.freeze.position
        assert [(each.step, each.position) for each in report.acknowledged] == [("Freeze", position)]
        order(file, drainTo=position, proof=proof("Drain", position=position))
        eventually(lambda: [each.step for each in moving.report(file).acknowledged] == ["Drain"])
        order(file, drainTo=position, retire=True)
        assert stream.wait(60) == 0, moving.log("stream")
    finally:
        stream.kill()
        stream.wait()
    done(moving, "check", check={"through": position}, proof=proof("FinalCheck", position=position))
    told = {"fence": {"step": "switched", "detail": position}}
    told |= {"proof": proof("Fence", position=position, before=["Arm"])}
    dies_before_it_tells(moving, "fence", **told)
    done(moving, "fence", **told)
    assert [name for name, _ in steps(moving)] == ["Freeze", "Drain", "FinalCheck", "Arm", "Fence"]
    assert record(moving).epoch == 2


def test_a_run_killed_in_the_cutover_goes_on_and_its_status_has_every_step(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    live = LiveRun(postgres_move, mysql, mysql_database)
    live.execute("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    with live.started() as run:
        live.until(lambda status: status.cutover.state is CutoverState.AWAITING_APPROVAL)
        live.approve()
        frozen = live.until(lambda status: bool(status.cutover.steps)).cutover
        live.kill(run)
    with live.started() as run:
        assert live.ended(run) == 0, live.log()
    status = live.status()
    assert (status.phase, status.cutover.freeze_position) == (Phase.COMPLETED, frozen.freeze_position)
    names = [step.name for step in status.cutover.steps]
    assert names == ["Freeze", "Drain", "FinalCheck", "Retire", "Confirm", "Fence"]
    assert status.cutover.steps[0] == frozen.steps[0], "it went on from the freeze that it had"
    statement = "SELECT step, recorded_at FROM whimbrel.journal WHERE step LIKE 'acknowledged:%' ORDER BY number"
    held = live.move.look(statement)
    assert [step.removeprefix("acknowledged:") for step, _ in held] == names, "each once"
    assert [step.at for step in status.cutover.steps] == [at for _, at in held]
