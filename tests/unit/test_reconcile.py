"""Observe → decide → act → report over the in-memory runtime: whole lives of a migration."""

import pytest

from support.life import Life
from support.memory_runtime import KEY, MemoryRuntime
from support.world import Failure, World
from whimbrel_api.cutover import Cutover, CutoverMode, CutoverState
from whimbrel_api.migration import CheckResult, MigrationStatus, Mode, Phase, RateLimit, Snapshot
from whimbrel_api.reports import ErrorCategory, Record, ReportedError
from whimbrel_api.tasks import ExitCode, Orders, TaskKind
from whimbrel_operator.domain.observed import TaskRef
from whimbrel_operator.runtime.port import Status

AUTOMATIC = Cutover(mode=CutoverMode.AUTOMATIC)


def test_the_whole_life_by_approval() -> None:
    life = Life()
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.go(30)
    assert life.status.phase is Phase.FOLLOWING
    life.approve()
    life.until_phase(Phase.COMPLETED)
    assert life.phases == [
        Phase.PREFLIGHT,
        Phase.SCHEMA,
        Phase.SNAPSHOT,
        Phase.CATCH_UP,
        Phase.FOLLOWING,
        Phase.CUTTING_OVER,
        Phase.COMPLETED,
    ]
    assert life.world.record.last("switched") is not None
    assert life.status.epoch == life.world.record.epoch == 2
    assert life.status.cutover.freeze_position == "p1"
    life.go(3)
    assert life.runtime.instances == {}


def test_nothing_wanted_nothing_done() -> None:
    life = Life(cutover=AUTOMATIC)
    life.until_phase(Phase.COMPLETED)
    life.go(2)
    before = list(life.runtime.acts)
    life.go(10)
    assert life.runtime.acts == before


def test_a_quiet_following_migration_starts_no_task_twice() -> None:
    life = Life()
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.go(20)
    assert [str(ref) for ref in life.runtime.started].count("stream-0") == 1
    assert len([ref for ref in life.runtime.started if ref.task_id.startswith("check")]) == 1


def test_a_check_is_repeated_at_half_of_its_allowed_age() -> None:
    life = Life(validation={"maxAge": "2m"})
    life.until_state(CutoverState.AWAITING_APPROVAL)
    first = life.status.validation.completed_at
    life.go(50)
    assert life.status.validation.completed_at == first
    life.go(30)
    assert life.status.validation.completed_at != first
    assert life.said("ValidationPassed")[0] == "True"


def test_a_different_check_blocks_and_is_repeated_after_thirty_seconds() -> None:
    life = Life(World(checks=[CheckResult.DIFFERENT, CheckResult.INCONCLUSIVE]), cutover=AUTOMATIC)
    life.until(lambda status: status.validation.result is CheckResult.DIFFERENT)
    assert life.said("ValidationPassed")[:2] == ("False", "Different")
    assert "3 changed" in life.said("ValidationPassed")[2]
    at = life.runtime.now
    life.until(lambda status: status.validation.result is CheckResult.INCONCLUSIVE)
    assert 28 <= (life.runtime.now - at).total_seconds() <= 35
    assert life.status.phase is Phase.FOLLOWING
    life.until_phase(Phase.COMPLETED)


def test_a_high_lag_blocks() -> None:
    life = Life(World(lag=7.5), cutover=AUTOMATIC)
    life.until_phase(Phase.CATCH_UP)
    life.go(40)
    assert life.status.phase is Phase.CATCH_UP
    assert life.said("LagWithinThreshold")[:2] == ("False", "LagTooHigh")
    life.world.lag = 0.2
    life.until_phase(Phase.COMPLETED)


def test_a_silent_stream_closes_the_gates() -> None:
    life = Life()
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.runtime.silent.add("stream")
    life.go(10)
    assert life.said("LagWithinThreshold")[0] == "Unknown"
    assert life.said("NoStoppedTable")[0] == "Unknown"
    assert life.status.stream.lag_seconds is None
    assert life.status.cutover.state is CutoverState.NOT_READY
    life.approve()
    life.go(20)
    assert life.status.phase is Phase.FOLLOWING


def test_a_stopped_table_blocks_the_cutover_by_name() -> None:
    life = Life(World(stopped_table="shop.events"), cutover=AUTOMATIC)
    life.until_phase(Phase.FOLLOWING)
    life.go(20)
    assert life.status.phase is Phase.FOLLOWING
    assert "shop.events: ALTER TABLE" in life.said("NoStoppedTable")[2]
    assert life.status.tables[0].name == "shop.events"


def test_an_approval_for_an_old_plan_does_nothing_and_says_so() -> None:
    life = Life(cutover=Cutover(approved_plan="sha256:0000"))
    life.until(lambda status: status.validation.result is CheckResult.EQUAL)
    life.go(20)
    assert life.status.phase is Phase.FOLLOWING
    status, reason, message = life.said("CutoverApproved")
    assert (status, reason) == ("False", "OldPlan")
    assert life.status.plan.hash in message
    assert "sha256:0000" in message


def test_a_time_out_goes_back_and_the_old_approval_no_longer_counts() -> None:
    life = Life(World(quiet=False), cutover=Cutover(timeout="30s"))
    life.until_state(CutoverState.AWAITING_APPROVAL)
    approved = life.status.plan.hash
    life.runtime.patch(cutover=Cutover(timeout="30s", approved_plan=approved))
    life.until_state(CutoverState.TIMED_OUT)
    life.until_phase(Phase.FOLLOWING)
    assert life.world.record.last("timed-out") is not None
    assert life.world.record.epoch == 1, "the stream must not be fenced out"
    assert life.status.plan.attempt == 2
    assert life.status.plan.hash != approved
    assert "stop the writes to the source now" in life.status.cutover.message
    life.world.quiet = True
    life.go(60)
    assert life.status.phase is Phase.FOLLOWING
    assert life.status.cutover.state is CutoverState.TIMED_OUT
    assert life.said("CutoverApproved")[1] == "OldPlan"
    life.runtime.patch(cutover=Cutover(timeout="30s", approved_plan=life.status.plan.hash))
    life.until_phase(Phase.COMPLETED)
    assert [str(ref) for ref in life.runtime.started].count("stream-0") == 1


def test_writes_after_the_freeze_start_it_again() -> None:
    life = Life()
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.approve()
    life.until(lambda status: status.cutover.freeze_position == "p1")
    life.world.position = "p2"
    life.until(lambda _: "WrittenAfterFreeze" in life.reasons())
    assert life.status.cutover.state is CutoverState.FREEZING
    life.until_phase(Phase.COMPLETED)
    assert life.status.cutover.freeze_position == "p2"
    assert [ref.task_id for ref in life.runtime.started].count("freeze") == 2


def test_writes_right_after_the_final_check_are_seen() -> None:
    life = Life()
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.approve()
    life.until(lambda _: any(ref.task_id.startswith("confirm") for ref in life.runtime.instances))
    life.world.position = "p2"
    life.until_phase(Phase.COMPLETED)
    assert "WrittenAfterFreeze" in life.reasons()
    assert life.world.record.stream_position == "p2"


@pytest.mark.parametrize("result", [CheckResult.DIFFERENT, CheckResult.INCONCLUSIVE])
def test_a_final_check_that_fails_gives_the_cutover_up(result: CheckResult) -> None:
    life = Life()
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.world.checks = [result]
    life.approve()
    life.until(lambda _: "FinalCheckFailed" in life.reasons())
    life.until_phase(Phase.FOLLOWING)
    assert life.world.record.last("switched") is None
    assert life.status.plan.attempt == 2
    assert life.said("ValidationPassed")[0] == "False"
    assert "the final check found" in life.status.cutover.message


def test_a_withdrawn_approval_leads_back_and_clears_the_orders() -> None:
    life = Life(World(quiet=False))
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.approve()
    life.until_phase(Phase.CUTTING_OVER)
    life.runtime.patch(cutover=Cutover())
    life.go(3)
    assert life.status.phase is Phase.FOLLOWING
    assert life.status.cutover.state in (CutoverState.NOT_READY, CutoverState.AWAITING_APPROVAL)
    assert "approval was withdrawn" in life.status.cutover.message
    assert life.runtime.orders("stream").drain_to == ""


def test_a_stream_that_dies_while_draining_is_drained_again() -> None:
    life = Life()
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.approve()
    life.until_state(CutoverState.FINAL_CHECK)
    life.world.failures = {TaskKind.STREAM: Failure(code=ExitCode.FAILED)}
    life.go(3)
    life.world.failures = {}
    life.until_phase(Phase.COMPLETED)


def test_a_copy_without_a_stream_ends_fenced() -> None:
    life = Life(mode=Mode.SNAPSHOT_ONLY)
    life.until_phase(Phase.COMPLETED)
    assert life.phases[-2:] == [Phase.SNAPSHOT, Phase.COMPLETED]
    assert life.world.record.epoch == 2
    assert life.world.record.last("switched") is not None
    assert TaskRef("stream") not in life.runtime.started


@pytest.mark.parametrize("phase", [Phase.PREFLIGHT, Phase.SCHEMA, Phase.SNAPSHOT, Phase.CATCH_UP, Phase.FOLLOWING])
def test_cancel_fences_whatever_there_is(phase: Phase) -> None:
    life = Life()
    life.until_phase(phase)
    life.runtime.patch(cancel=True)
    life.until_phase(Phase.CANCELLED)
    life.go(2)
    assert life.runtime.instances == {}
    begun = life.world.record.exists
    assert (life.world.record.last("cancelled") is not None) == begun
    assert life.world.record.epoch == (2 if begun else 0)


def test_cancel_during_the_cutover() -> None:
    life = Life(World(quiet=False), cutover=AUTOMATIC)
    life.until_phase(Phase.CUTTING_OVER)
    life.runtime.patch(cancel=True)
    life.until_phase(Phase.CANCELLED)


def test_cancel_after_the_fence_was_ordered_comes_too_late() -> None:
    life = Life(cutover=AUTOMATIC)
    life.until(lambda _: TaskRef("fence-switched") in life.runtime.instances)
    life.runtime.patch(cancel=True)
    life.until_phase(Phase.COMPLETED)
    assert life.world.record.last("cancelled") is None


@pytest.mark.parametrize("phase", [p for p in Phase if p not in (Phase.PENDING, Phase.COMPLETED, Phase.CANCELLED)])
def test_paused_work_stops_and_goes_on_where_it_was(phase: Phase) -> None:
    life = Life(cutover=AUTOMATIC)
    life.until_phase(phase)
    life.runtime.patch(paused=True)
    life.go(4)
    assert life.runtime.instances == {}
    assert life.status.phase is phase
    assert life.said("Paused")[0] == "True"
    life.runtime.patch(paused=False)
    life.until_phase(Phase.COMPLETED)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"reverse_sync": {"enabled": True}}, "spec.reverseSync.enabled"),
        ({"validation": {"mode": "Sample"}}, "spec.validation.mode"),
    ],
)
def test_what_is_not_there_yet_is_refused_in_words(spec: dict[str, object], named: str) -> None:
    life = Life(None, **spec)
    life.go(5)
    assert life.said("Stalled")[:2] == ("True", "NotSupportedYet")
    assert named in life.said("Stalled")[2]
    assert life.runtime.started == []


def test_a_configuration_error_stalls_waits_longer_each_time_and_goes_on() -> None:
    error = ReportedError(
        category=ErrorCategory.INCOMPATIBLE, what="type geometry", where="shop.a.g", todo="exclude it"
    )
    life = Life(World(failures={TaskKind.PREFLIGHT: Failure(code=ExitCode.CONFIGURATION, error=error)}))
    life.go(120)
    starts = len(life.runtime.started)
    assert 4 <= starts <= 6
    assert life.said("Stalled")[:2] == ("True", "Incompatible")
    assert "type geometry; in shop.a.g; exclude it" in life.said("Stalled")[2]
    assert life.said("PreflightPassed") == ("False", "Incompatible", "see the condition Stalled")
    assert life.said("Reconciling") == ("False", "Stalled", "see the condition Stalled")
    assert life.reasons().count("Incompatible") == 1, "nothing flaps"
    life.world.failures = {}
    life.runtime.patch(paused=False)
    life.go(3)
    assert life.said("Stalled")[0] == "False"
    assert life.status.phase is not Phase.PREFLIGHT


def test_the_events_before_and_after_a_cutover_say_what_a_person_does() -> None:
    life = Life()
    life.until_state(CutoverState.AWAITING_APPROVAL)
    told = {event.reason: event.message for event in life.runtime.events}
    assert told["CutoverAwaitingApproval"].endswith(
        f"approve plan {life.status.plan.hash} by spec.cutover.approvedPlan"
    )
    life.approve()
    life.until_phase(Phase.COMPLETED)
    told = {event.reason: event.message for event in life.runtime.events}
    assert "point the application at the target" in told["CutoverSwitched"]


def test_a_lost_log_stalls_and_is_never_skipped() -> None:
    life = Life()
    life.until_phase(Phase.FOLLOWING)
    error = ReportedError(category=ErrorCategory.SOURCE_LOG_LOST, what="binlog purged")
    life.world.failures = {TaskKind.STREAM: Failure(code=ExitCode.SOURCE_LOG_LOST, error=error)}
    life.go(60)
    assert life.said("Stalled")[:2] == ("True", "SourceLogLost")
    assert life.status.phase is Phase.FOLLOWING


def test_an_unexpected_end_is_retried_quickly_and_named() -> None:
    life = Life()
    life.until_phase(Phase.FOLLOWING)
    life.world.failures = {TaskKind.STREAM: Failure(code=ExitCode.FAILED)}
    life.go(2)
    assert life.said("Reconciling")[1] == "Retrying"
    assert "task stream-0" in life.said("Reconciling")[2]
    assert life.said("Stalled")[0] == "False"
    life.world.failures = {}
    life.go(10)
    assert life.said("Reconciling")[1] == "Following"


def test_a_fenced_out_worker_reads_the_epoch_before_it_starts_again() -> None:
    life = Life()
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.world.record = life.world.record.model_copy(update={"epoch": 5})
    life.until(lambda status: status.epoch == 5)
    life.go(10)
    assert life.said("LagWithinThreshold")[0] == "True"
    assert TaskRef("inspect-fence") in life.runtime.started
    assert TaskRef("inspect-fence") not in life.runtime.instances


def test_a_worker_fenced_out_twice_in_a_row_starts_again() -> None:
    """The second end comes before anybody saw it run, so that the first answer about the epoch still lies there."""
    life = Life()
    life.until_phase(Phase.CATCH_UP)
    life.world.failures = {TaskKind.STREAM: Failure(code=ExitCode.FENCED_OUT)}
    life.until(lambda _: life.runtime.instances[TaskRef("stream")][0].failures >= 2)
    life.world.failures = {}
    life.until_phase(Phase.FOLLOWING)
    assert life.runtime.started.count(TaskRef("inspect-fence")) >= 2


def test_a_missing_secret_is_named() -> None:
    life = Life()
    life.runtime.missing = ("src",)
    life.go(3)
    assert life.said("Stalled")[:2] == ("True", "SecretNotFound")
    assert life.runtime.started == []
    life.runtime.missing = ()
    life.until_phase(Phase.FOLLOWING)


@pytest.mark.parametrize("phase", [p for p in Phase if p not in (Phase.PENDING, Phase.CANCELLED)])
def test_a_wiped_status_is_rebuilt_from_the_target(phase: Phase) -> None:
    life = Life(cutover=AUTOMATIC)
    life.until_phase(phase)
    life.runtime.write_status(MigrationStatus())
    life.until_phase(Phase.COMPLETED)
    assert life.world.record.epoch == 2


def test_a_status_rewound_over_the_end_finds_it_again() -> None:
    life = Life()
    life.until_state(CutoverState.AWAITING_APPROVAL)
    old = life.status
    life.approve()
    life.until_phase(Phase.COMPLETED)
    life.runtime.write_status(old)
    life.until_phase(Phase.COMPLETED)
    assert life.world.record.epoch == 2
    assert life.phases.count(Phase.CUTTING_OVER) == 1


def test_a_status_rewound_over_a_time_out_does_not_revive_its_approval() -> None:
    life = Life(World(quiet=False), cutover=Cutover(timeout="20s"))
    life.until_state(CutoverState.AWAITING_APPROVAL)
    old = life.status
    life.runtime.patch(cutover=Cutover(timeout="20s", approved_plan=old.plan.hash))
    life.until(lambda status: status.phase is Phase.FOLLOWING and status.plan.attempt == 2)
    cutovers = life.phases.count(Phase.CUTTING_OVER)
    life.runtime.write_status(old)
    life.go(30)
    assert life.phases.count(Phase.CUTTING_OVER) == cutovers
    assert life.status.plan.attempt == 2


def test_lost_control_tables_start_the_migration_anew() -> None:
    life = Life()
    life.until_phase(Phase.FOLLOWING)
    life.world.record = Record()
    life.world.snapshot_seen = {}
    life.until(lambda status: status.phase is Phase.PREFLIGHT)
    life.until_phase(Phase.FOLLOWING)
    assert life.status.epoch == 1


def test_a_status_written_meanwhile_is_looked_at_again() -> None:
    life = Life()
    life.once()

    async def rival(key: object, status: Status, version: str) -> None:
        life.runtime.write_status(MigrationStatus())
        await MemoryRuntime.report(life.runtime, KEY, status, version)

    life.runtime.report = rival  # type: ignore[method-assign,assignment]
    life.runtime.advance()
    events = len(life.runtime.events)
    assert life.once().moved
    assert len(life.runtime.events) == events


def test_fewer_workers_end_the_ones_too_many() -> None:
    life = Life(World(snapshot_steps=30), snapshot=Snapshot(workers=4))
    life.until_phase(Phase.SNAPSHOT)
    life.go(2)
    life.runtime.patch(snapshot=Snapshot(workers=1))
    life.go(2)
    assert sorted(map(str, life.runtime.instances)) == ["snapshot-0"]


def test_a_new_rate_reaches_running_workers_as_an_order() -> None:
    life = Life(World(snapshot_steps=30))
    life.until_phase(Phase.SNAPSHOT)
    life.go(2)
    life.runtime.patch(snapshot=Snapshot(rate_limit=RateLimit(rows_per_second=5000)))
    life.go(2)
    assert life.runtime.orders("snapshot") == Orders(rows_per_second=5000, workers=2)
    assert [str(ref) for ref in life.runtime.started].count("snapshot-0") == 1


def test_progress_shows_real_figures() -> None:
    life = Life(World(snapshot_steps=20), snapshot=Snapshot(workers=1))
    life.until_phase(Phase.SNAPSHOT)
    life.go(10)
    copied = life.status.snapshot
    assert copied.rows_copied == 450
    assert copied.rows_per_second == pytest.approx(50, abs=1)
    assert copied.eta == pytest.approx(11, abs=1)
    assert life.status.progress == "45%"
