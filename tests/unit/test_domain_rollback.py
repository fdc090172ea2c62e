"""Going back to the source: what makes it ready, its steps, what gives it up, and the stream that begins anew."""

from datetime import timedelta

import pytest

from support.both_ways import (
    AUTOMATIC,
    BACK,
    WITH_WAY_BACK,
    completed,
    forward,
    going_back,
    steps,
    without_echo_until_following,
)
from support.life import Life
from support.memory_runtime import START
from support.world import Failure
from whimbrel_api.cutover import Cutover, CutoverMode, CutoverState
from whimbrel_api.migration import CheckResult, MigrationStatus, Phase, ReverseSyncPolicy, TableStatus
from whimbrel_api.reports import ErrorCategory, ReportedError, UnreadLog
from whimbrel_api.tasks import ExitCode, TaskKind


def given_up(found: Life, reason: str) -> None:
    """It is as before, and stays so."""
    found.until_state(CutoverState.SWITCHED)
    assert reason in found.reasons()
    assert found.status.phase is Phase.COMPLETED
    assert "set spec.cutover.rollback to false, then to true" in found.status.cutover.message
    found.world.checks = []
    found.go(20)
    assert found.status.cutover.state is CutoverState.SWITCHED
    assert steps(found) == ["sealed", "switched"]
    assert list(found.runtime.ways_back) == ["shop"]
    assert not found.runtime.ways_back["shop"].orders("reverse").hold


def test_the_target_is_frozen_drained_compared_and_the_stream_begins_anew_as_the_next_attempt() -> None:
    found = going_back()
    assert "stop the writes to the target now" in found.status.cutover.message
    found.go(5)
    assert found.status.cutover.rollback.position == ""
    found.world.back_quiet = 60.0
    found.until(lambda status: status.cutover.rollback.position == "0/1")
    assert found.phases[-1] is Phase.COMPLETED
    without_echo_until_following(found)
    assert found.phases[-2:] == [Phase.CATCH_UP, Phase.FOLLOWING]
    assert steps(found) == ["sealed", "switched", "rolled-back"]
    assert (found.status.plan.attempt, found.world.record.epoch) == (2, 4)
    assert found.status.cutover.state is CutoverState.ROLLED_BACK
    assert found.status.cutover.rolled_back_at is not None
    assert (found.runtime.ways_back, found.world.slot) == ({}, "")
    assert {"CutoverRollingBack", "RolledBack", "CutoverRolledBack"} <= set(found.reasons())
    found.go(3)
    assert forward(found)


def test_the_target_is_looked_at_once_more_after_the_comparison() -> None:
    found = going_back()
    found.world.back_quiet = 60.0
    found.until(lambda status: status.cutover.rollback.position != "")
    found.world.back_proven = False
    found.go(20)
    assert found.status.cutover.message.startswith("looking at the target once more")
    assert not found.status.cutover.rollback.hold
    found.world.back_proven = True
    found.until_phase(Phase.FOLLOWING)


def test_nothing_is_opened_before_the_way_back_holds() -> None:
    found = going_back()
    found.world.back_quiet = 60.0
    found.until(lambda status: status.cutover.rollback.hold)
    found.runtime.ways_back["shop"].silent.add("reverse")
    found.go(10)
    assert steps(found) == ["sealed", "switched"]
    found.runtime.ways_back["shop"].silent.clear()
    found.until_phase(Phase.CATCH_UP)


@pytest.mark.parametrize("mode", list(CutoverMode))
def test_after_a_rollback_no_cutover_begins_without_a_word(mode: CutoverMode) -> None:
    found = going_back(mode=mode)
    found.world.back_quiet = 60.0
    found.until_phase(Phase.FOLLOWING)
    found.go(30)
    assert found.said("CutoverApproved")[:2] == ("False", "RollbackAsked")
    found.runtime.patch(cutover=Cutover(mode=mode))
    found.go(60)
    assert found.status.phase is Phase.FOLLOWING
    assert found.said("CutoverApproved")[1] == "NotApproved"
    found.runtime.patch(cutover=Cutover(mode=mode, approved_plan=found.status.plan.hash))
    found.until_phase(Phase.COMPLETED)
    assert steps(found) == ["sealed", "switched", "rolled-back", "sealed", "switched"]
    assert found.runtime.acts.count("make shop") == 2
    found.go(20)
    assert found.status.cutover.state is CutoverState.SWITCHED


def test_an_approval_of_the_plan_before_the_rollback_is_an_old_one() -> None:
    found = going_back()
    old = found.status.plan.hash
    found.world.back_quiet = 60.0
    found.until_phase(Phase.FOLLOWING)
    found.runtime.patch(cutover=Cutover(approved_plan=old))
    found.go(20)
    assert found.status.phase is Phase.FOLLOWING
    assert found.said("CutoverApproved")[1] == "OldPlan"


def test_the_same_manifest_again_rolls_back_only_once() -> None:
    found = going_back()
    found.world.back_quiet = 60.0
    found.until_phase(Phase.FOLLOWING)
    found.go(60)
    assert steps(found).count("rolled-back") == 1
    assert found.status.phase is Phase.FOLLOWING


def test_differences_give_it_up_and_changes_go_on_flowing_back() -> None:
    found = going_back()
    found.world.checks = [CheckResult.DIFFERENT]
    found.world.back_quiet = 60.0
    given_up(found, "RollbackCheckFailed")
    found.runtime.patch(cutover=AUTOMATIC)
    found.go(2)
    found.runtime.patch(cutover=BACK)
    found.until_phase(Phase.FOLLOWING)


def test_writes_that_do_not_end_give_it_up_in_time() -> None:
    given_up(going_back(timeout="30s"), "RollbackTimedOut")


def test_what_does_not_drain_gives_it_up_in_time() -> None:
    found = going_back(timeout="30s")
    found.world.back_quiet, found.world.back_drains = 60.0, False
    given_up(found, "RollbackTimedOut")


def test_a_way_back_that_breaks_gives_it_up() -> None:
    found = going_back()
    lost = ReportedError(category=ErrorCategory.SOURCE_LOG_LOST, what="the slot is lost")
    found.world.failures = {TaskKind.REVERSE: Failure(code=ExitCode.SOURCE_LOG_LOST, error=lost)}
    found.until_state(CutoverState.SWITCHED)
    assert "RollbackBroken" in found.reasons()
    assert "the slot is lost" in found.status.cutover.message
    assert found.said("RollbackReady")[0] == "False"


def test_a_rollback_that_is_withdrawn_leaves_all_as_it_was() -> None:
    found = going_back()
    found.runtime.patch(cutover=AUTOMATIC)
    found.until_state(CutoverState.SWITCHED)
    assert "RollbackWithdrawn" in found.reasons()
    assert list(found.runtime.ways_back) == ["shop"]
    found.runtime.patch(cutover=BACK)
    found.until_state(CutoverState.ROLLING_BACK)


@pytest.mark.parametrize("when", ["rest", "hold"])
def test_what_is_written_after_the_freeze_begins_it_again(when: str) -> None:
    found = going_back()
    found.world.back_quiet = 60.0
    if when == "rest":
        found.until(lambda status: status.cutover.rollback.position != "")
    else:
        found.until(lambda status: status.cutover.rollback.hold)
        found.runtime.ways_back["shop"].silent.add("reverse")
    # The same clock as before the freeze, or one that stepped back: positions alone count.
    found.world.back_changed, found.world.back_position = "0/1", "0/2"
    found.runtime.ways_back["shop"].silent.clear()
    found.until(lambda _: "WrittenAfterFreeze" in found.reasons())
    found.until_phase(Phase.FOLLOWING)
    assert [entry.detail for entry in found.world.record.journal if entry.step == "rolled-back"] == ["0/2"]


UNREAD = UnreadLog(changes=2, first="0/5", last="0/9", tables=["orders"])


def test_what_is_written_while_it_is_held_begins_the_freeze_again() -> None:
    found = going_back()
    found.world.back_quiet, found.world.back_unread, found.world.back_position = 60.0, UNREAD, "0/4"
    found.until(lambda status: status.cutover.rollback.hold)
    found.world.back_quiet = 0.0
    found.until(lambda _: "WrittenAfterFreeze" in found.reasons())
    assert "had come to rest (table orders); stop the writes" in found.status.cutover.message
    assert (found.status.cutover.rollback.hold, steps(found)) == (False, ["sealed", "switched"])
    found.world.back_unread, found.world.back_changed, found.world.back_position = None, "0/9", "0/A"
    found.go(3)
    assert not found.runtime.ways_back["shop"].orders("reverse").hold
    found.world.back_quiet = 60.0
    found.until_phase(Phase.FOLLOWING)
    assert found.status.cutover.left_unread == ""
    assert "WrittenAfterRollback" not in found.reasons()


@pytest.mark.parametrize("worker", ["running", "gone"])
def test_what_stood_in_the_slot_after_the_rollback_is_told_and_stays_told(worker: str) -> None:
    found = going_back()
    found.world.back_quiet, found.world.left_unread = 60.0, UNREAD
    back = found.runtime.ways_back["shop"]
    if worker == "gone":
        found.until(lambda status: status.cutover.state is CutoverState.ROLLED_BACK)
        back.instances.clear()
    found.until_phase(Phase.FOLLOWING)
    found.go(10)
    said = "2 changes of orders, the first committed at 0/5, were written to the target after the rollback had held it"
    assert found.status.cutover.left_unread.startswith(said)
    assert found.status.cutover.message.startswith(said)
    assert found.reasons().count("WrittenAfterRollback") == 1
    assert [event.reason for event in back.events].count("WrittenAfterRollback") == 1
    assert (found.runtime.ways_back, found.world.slot) == ({}, "")


def test_a_worker_that_has_forgotten_what_it_heard_is_no_write() -> None:
    found = completed()
    found.world.back_changed, found.world.back_position = "0/FF", "1/0"
    found.runtime.patch(cutover=BACK)
    found.world.back_quiet = 60.0
    found.until(lambda status: status.cutover.rollback.position == "1/0")
    found.world.back_changed = ""
    found.until_phase(Phase.FOLLOWING)
    assert "WrittenAfterFreeze" not in found.reasons()


def test_the_target_is_not_at_rest_while_the_end_of_its_log_is_older_than_what_was_heard() -> None:
    found = going_back()
    found.world.back_quiet, found.world.back_changed, found.world.back_position = 60.0, "1/10", "0/FF"
    found.go(5)
    assert found.status.cutover.rollback.position == ""
    found.world.back_position = "1/11"
    found.until_phase(Phase.FOLLOWING)


def test_a_table_of_the_way_back_that_stops_gives_it_up_with_its_reason() -> None:
    found = going_back()
    found.world.back_tables = [TableStatus(name="orders", state="Stopped", message="a TRUNCATE emptied the table")]
    found.until_state(CutoverState.SWITCHED)
    assert "orders has stopped: a TRUNCATE emptied the table" in found.status.cutover.message
    given_up(found, "RollbackBroken")


def test_what_troubles_the_way_back_is_said_and_nothing_is_confirmed_meanwhile() -> None:
    found = going_back(timeout="60s")
    found.world.back_quiet = 60.0
    found.until(lambda status: status.cutover.rollback.position != "")
    found.world.back_error = ReportedError(category=ErrorCategory.TRANSIENT, what="DynamoDB does not answer")
    found.until(lambda status: "looking at the target once more" in status.cutover.message)
    found.go(5)
    assert "ReverseSync shop is not Ready (Retrying)" in found.status.cutover.message
    assert "DynamoDB does not answer" in found.status.cutover.message
    assert not found.status.cutover.rollback.hold
    found.until_state(CutoverState.SWITCHED)
    assert "DynamoDB does not answer" in found.status.cutover.message


STEPS = ("begun", "rest", "hold", "ordered")


def going_back_as_far_as(step: str) -> Life:
    """A rollback that has come to that step of STEPS."""
    found = going_back()
    if step != "begun":
        found.world.back_quiet = 60.0
    if step == "rest":
        found.until(lambda status: status.cutover.rollback.position != "")
    if step in ("hold", "ordered"):
        found.until(lambda status: status.cutover.rollback.hold)
    if step == "ordered":
        found.until(lambda _: any(ref.task_id == "fence-rolled-back" for ref in found.runtime.instances))
    return found


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("restart", ["operator", "tasks", "status"])
def test_a_restart_at_any_step_goes_on(step: str, restart: str) -> None:
    found = going_back_as_far_as(step)
    match restart:
        case "operator":
            found.reconciler.forget(found.key)
        case "tasks":
            found.runtime.instances.clear()
        case "status":
            found.runtime.write_status(MigrationStatus())
    found.world.back_quiet = 60.0
    without_echo_until_following(found)
    assert steps(found) == ["sealed", "switched", "rolled-back"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("jump", [-3600.0, 400 * 86400.0])
def test_row_30_a_clock_that_jumps_skips_no_step_and_holds_nothing_up(step: str, jump: float) -> None:
    found = going_back_as_far_as(step)
    found.runtime.advance(jump)
    found.world.back_quiet = 60.0

    def again(status: MigrationStatus) -> bool:
        """One that was given up is asked for anew."""
        wanted = AUTOMATIC if status.cutover.rollback.given_up else BACK
        if found.runtime.resource.spec.cutover != wanted:  # type: ignore[union-attr]
            found.runtime.patch(cutover=wanted)
        return status.phase is Phase.CATCH_UP

    found.until(again, 400)
    if jump > 0:  # a clock that was set back shows the end of the copy ahead: that is waited for, and not skipped
        without_echo_until_following(found)
    assert steps(found) == ["sealed", "switched", "rolled-back"]
    assert (found.world.rolled_back_on, found.world.held_at_rollback) == (CheckResult.EQUAL, True)


def test_a_status_from_before_the_rollback_is_not_believed() -> None:
    found = completed()
    old = found.status
    found.runtime.patch(cutover=BACK)
    found.world.back_quiet = 60.0
    found.until_phase(Phase.FOLLOWING)
    assert not found.once().looking
    found.runtime.write_status(old)
    assert found.once().looking, "a run does not end by such a status before the target has been read"
    found.until_phase(Phase.FOLLOWING)
    assert steps(found) == ["sealed", "switched", "rolled-back"]
    found.runtime.patch(cutover=AUTOMATIC)
    found.go(60)
    assert found.status.phase is Phase.FOLLOWING


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("moment", [Phase.FOLLOWING, Phase.CUTTING_OVER])
def test_a_status_from_before_the_switch_does_not_end_the_way_back(moment: Phase, known: bool) -> None:
    """Its slot holds what is not in the source yet."""
    found = Life(**(WITH_WAY_BACK | {"cutover": Cutover()}))
    found.until_phase(Phase.FOLLOWING)
    found.runtime.patch(cutover=AUTOMATIC)
    found.until_phase(moment)
    old = found.status
    found.until_phase(Phase.COMPLETED)
    found.until(lambda _: found.said("RollbackReady")[0] == "True")
    if not known:
        found.runtime.instances.clear()
    found.runtime.write_status(old)
    found.until_phase(Phase.COMPLETED)
    found.go(20)
    assert [act for act in found.runtime.acts if act.endswith(" shop")] == ["make shop"]
    assert list(found.runtime.ways_back) == ["shop"]
    assert steps(found) == ["sealed", "switched"]


def test_it_does_not_begin_before_it_is_ready_and_says_why() -> None:
    found = completed()
    found.world.lag = 60.0
    found.go(3)
    assert found.said("RollbackReady")[:2] == ("False", "LagTooHigh")
    found.runtime.patch(cutover=BACK)
    found.go(5)
    assert found.status.cutover.state is CutoverState.SWITCHED
    assert found.status.cutover.message.startswith("the rollback waits: what flows back is more than thresholds.lag")
    found.world.lag = 0.0
    found.until_state(CutoverState.ROLLING_BACK)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [("silent", "NoFreshReport"), ("slot", "SlotInDanger"), ("gone", "WayBackGone"), ("lag", "LagUnknown")],
)
def test_it_is_ready_only_by_a_young_word_of_a_way_back_that_is_well(broken: str, reason: str) -> None:
    found = completed()
    assert "no deadline by time" in found.said("RollbackReady")[2]
    assert "guard.limitBytes" in found.said("RollbackReady")[2]
    match broken:
        case "silent":
            found.runtime.ways_back["shop"].silent.add("reverse")
        case "slot":
            found.world.wal_status = "unreserved"
        case "gone":
            del found.runtime.ways_back["shop"]
        case "lag":
            found.world.lag = None
    found.go(10)
    assert found.said("RollbackReady")[0] != "True"
    assert found.said("RollbackReady")[1] == reason


def test_it_is_not_ready_before_the_switch_nor_without_a_way_back() -> None:
    found = Life(**(WITH_WAY_BACK | {"cutover": Cutover()}))
    found.until_phase(Phase.FOLLOWING)
    assert found.said("RollbackReady")[:2] == ("False", "NotSwitched")
    found.runtime.patch(reverse_sync=ReverseSyncPolicy())
    found.go(1)
    assert found.said("RollbackReady")[:2] == ("False", "NoWayBack")
    assert found.runtime.now > START + timedelta(seconds=1)


def test_what_keeps_a_task_of_it_from_getting_on_is_said() -> None:
    found = going_back()
    found.world.back_quiet = 60.0
    wrong = ReportedError(category=ErrorCategory.CONFIGURATION, what="the account may not read the table")
    found.world.failures = {TaskKind.CHECK: Failure(code=ExitCode.CONFIGURATION, error=wrong)}
    found.until(lambda status: "the account may not read the table" in status.cutover.message)
    assert found.status.cutover.state is CutoverState.ROLLING_BACK
    found.world.failures = {}
    found.until_phase(Phase.FOLLOWING, 600)
