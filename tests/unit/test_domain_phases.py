"""The table of phases and that of cutover steps, row by row: each entry condition, each exit, each way back."""

from dataclasses import replace
from datetime import timedelta

import pytest

from support.memory_runtime import START, migration
from whimbrel_api.base import Condition, ObjectMeta, SecretRef
from whimbrel_api.cutover import Cutover, CutoverMode, CutoverState, CutoverStatus
from whimbrel_api.migration import (
    CheckResult,
    Differences,
    MigrationStatus,
    MigrationValidationStatus,
    Mode,
    Phase,
    Plan,
    TableStatus,
)
from whimbrel_api.reports import (
    CheckReport,
    FreezeResult,
    JournalEntry,
    PreflightResult,
    Record,
    StreamResult,
    WorkerReport,
    WorkerState,
)
from whimbrel_api.tasks import CheckScope, ExitCode, TaskKind
from whimbrel_api.validation import Validation, ValidationPhase, ValidationSpec, ValidationStatus
from whimbrel_operator.domain.cutover.setbacks import SETBACKS, setback_of
from whimbrel_operator.domain.cutover.steps import STEPS, step_of
from whimbrel_operator.domain.decision import Decision
from whimbrel_operator.domain.migration import wants
from whimbrel_operator.domain.migration.decide import decide
from whimbrel_operator.domain.migration.phases import BY_PHASE, ENDS, PHASES
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import LagSample, Memory, Observed, TaskRef, Tasks, TaskState

KNOWN = Record(exists=True, source_id="s1", epoch=1, start_position="p0")
AUTOMATIC = Cutover(mode=CutoverMode.AUTOMATIC)
GOOD_LAG = tuple(LagSample(START - timedelta(seconds=2 - each), 0.1) for each in range(3))
EQUAL = MigrationValidationStatus(
    name="check-0",
    result=CheckResult.EQUAL,
    rows_compared=10,
    validated_through="p1",
    completed_at=START - timedelta(seconds=30),
)


def state(task_id: str, kind: TaskKind, *, done: bool = True, index: int = 0, **said: object) -> TaskState:
    """One instance, finished or running, with a report of its own that is fresh."""
    told = {"task": kind, "task_id": task_id, "index": index, "observed_at": START}
    stand = WorkerState.DONE if done else WorkerState.RUNNING
    report = WorkerReport.model_validate({**told, "state": stand, **said})
    started = START - timedelta(minutes=5)
    code = ExitCode.DONE if done else None
    return TaskState(kind, TaskRef(task_id, index), started, running=not done, exit_code=code, report=report)


def stream(*, drained_to: str = "", done: bool = False, tables: tuple[TableStatus, ...] = ()) -> TaskState:
    told = StreamResult(position="p1", lag_seconds=0.1, lag_observed_at=START, drained_to=drained_to)
    return state("stream", TaskKind.STREAM, done=done, stream=told, tables=list(tables))


def status_in(phase: Phase, **changes: object) -> MigrationStatus:
    """A status as an undisturbed life would have it in that phase."""
    order = list(BY_PHASE)
    passed = ("PreflightPassed", Phase.PREFLIGHT), ("SchemaReady", Phase.SCHEMA), ("SnapshotComplete", Phase.SNAPSHOT)
    at = START - timedelta(minutes=3)
    conditions = [
        Condition(type=kind, status="True", reason="Done", last_transition_time=at)
        for kind, after in passed
        if order.index(phase) > order.index(after)
    ]
    if order.index(phase) >= order.index(Phase.FOLLOWING):
        conditions.append(Condition(type="IndexesReady", status="True", reason="IndexesReady", last_transition_time=at))
    epoch = 1 if order.index(phase) > order.index(Phase.SCHEMA) else 0
    bare = MigrationStatus(phase=phase, conditions=conditions, epoch=epoch, plan=Plan(attempt=1), validation=EQUAL)
    return bare.model_copy(update=changes)


def observed(status: MigrationStatus, *states: TaskState, **spec: object) -> Observed:
    return Observed(migration(status, **spec), Tasks(states), memory=Memory(lag=GOOD_LAG))  # type: ignore[arg-type]


def decided(status: MigrationStatus, *states: TaskState, **spec: object) -> Decision:
    return decide(observed(status, *states, **spec), START)


def ids(decision: Decision) -> set[str]:
    return {str(wanted.ref) for wanted in decision.wanted}


def view(status: MigrationStatus, *states: TaskState, **spec: object) -> View:
    return View(observed(status, *states, **spec), START, Memory(lag=GOOD_LAG))


PREFLIGHT_NEW = state("preflight", TaskKind.PREFLIGHT, preflight=PreflightResult(source_id="s1"))
PREFLIGHT_COPIED = state(
    "preflight",
    TaskKind.PREFLIGHT,
    preflight=PreflightResult(source_id="s1", record=KNOWN.model_copy(update={"snapshot_complete": True})),
)
SCHEMA = state("schema", TaskKind.SCHEMA, record=KNOWN)
COPIED = tuple(state("snapshot", TaskKind.SNAPSHOT, index=index) for index in range(2))
INSPECTED = state("inspect-plan", TaskKind.INSPECT, record=KNOWN)


def journalled(step: str) -> TaskState:
    entry = JournalEntry(step=step, recorded_at=START)
    return state("inspect-fence", TaskKind.INSPECT, record=KNOWN.model_copy(update={"journal": [entry]}))


def test_every_phase_has_one_row_in_order() -> None:
    assert tuple(row.phase for row in PHASES) == tuple(Phase)


@pytest.mark.parametrize(
    ("phase", "states", "to"),
    [
        (Phase.PENDING, (), Phase.PREFLIGHT),
        (Phase.PREFLIGHT, (), Phase.PREFLIGHT),
        (Phase.PREFLIGHT, (state("preflight", TaskKind.PREFLIGHT, done=False),), Phase.PREFLIGHT),
        (Phase.PREFLIGHT, (PREFLIGHT_NEW,), Phase.SCHEMA),
        (Phase.PREFLIGHT, (PREFLIGHT_COPIED,), Phase.CATCH_UP),
        (Phase.SCHEMA, (), Phase.SCHEMA),
        (Phase.SCHEMA, (state("schema", TaskKind.SCHEMA),), Phase.SCHEMA),
        (Phase.SCHEMA, (state("schema", TaskKind.SCHEMA, epoch=1),), Phase.SNAPSHOT),
        (Phase.SCHEMA, (SCHEMA,), Phase.SNAPSHOT),
        (Phase.SNAPSHOT, COPIED[:1], Phase.SNAPSHOT),
        (Phase.SNAPSHOT, COPIED, Phase.CATCH_UP),
        (Phase.CATCH_UP, (), Phase.CATCH_UP),
        (Phase.CATCH_UP, (stream(),), Phase.FOLLOWING),
        (Phase.FOLLOWING, (stream(),), Phase.FOLLOWING),
        (Phase.FOLLOWING, (stream(), INSPECTED), Phase.CUTTING_OVER),
    ],
)
def test_each_phase_is_left_for_its_own_reason_only(phase: Phase, states: tuple[TaskState, ...], to: Phase) -> None:
    assert decided(status_in(phase), *states, cutover=AUTOMATIC).status.phase is to


@pytest.mark.parametrize("phase", [each for each in Phase if each not in ENDS])
@pytest.mark.parametrize(("step", "to"), [("switched", Phase.COMPLETED), ("cancelled", Phase.CANCELLED)])
def test_what_the_target_has_journalled_counts_anywhere(phase: Phase, step: str, to: Phase) -> None:
    changed = {"cutover": CutoverStatus(started_at=START)}
    assert decided(status_in(phase, **changed), journalled(step)).status.phase is to


@pytest.mark.parametrize("phase", [each for each in Phase if each not in ENDS and each is not Phase.PENDING])
def test_a_status_that_cannot_be_true_is_not_believed(phase: Phase) -> None:
    forged = MigrationStatus(phase=phase)
    decision = decided(forged, stream(), INSPECTED, *COPIED, cutover=AUTOMATIC)
    assert decision.status.phase in (Phase.PREFLIGHT, Phase.CATCH_UP if phase is Phase.SNAPSHOT else Phase.PREFLIGHT)


def test_a_completed_status_without_a_switch_is_not_believed() -> None:
    assert decided(MigrationStatus(phase=Phase.COMPLETED)).status.phase is Phase.PREFLIGHT
    switched = MigrationStatus(phase=Phase.COMPLETED, cutover=CutoverStatus(state=CutoverState.SWITCHED))
    assert decided(switched).wanted == ()
    assert decided(switched).status.phase is Phase.COMPLETED


@pytest.mark.parametrize(
    ("phase", "wanted"),
    [
        (Phase.PREFLIGHT, {"preflight-0"}),
        (Phase.SCHEMA, {"schema-0"}),
        (Phase.SNAPSHOT, {"snapshot-0", "snapshot-1"}),
        (Phase.CATCH_UP, {"stream-0"}),
        (Phase.FOLLOWING, {"stream-0", "target-look-0"}),
        (Phase.COMPLETED, set()),
        (Phase.CANCELLED, set()),
    ],
)
def test_what_each_phase_wants(phase: Phase, wanted: set[str]) -> None:
    switched = CutoverStatus(state=CutoverState.SWITCHED)
    cutover = switched if phase is Phase.COMPLETED else CutoverStatus()
    assert ids(decided(status_in(phase, cutover=cutover))) == wanted


def test_a_copy_without_a_stream_wants_its_indexes_and_then_the_fence() -> None:
    only = {"mode": Mode.SNAPSHOT_ONLY}
    built = journalled("indexes-ready")
    assert {"indexes-0"} <= ids(decided(status_in(Phase.SNAPSHOT), *COPIED, **only))
    assert "indexes-0" not in ids(decided(status_in(Phase.SNAPSHOT), COPIED[0], **only))
    assert "fence-switched-0" not in ids(decided(status_in(Phase.SNAPSHOT), COPIED[0], **only))
    assert "fence-switched-0" not in ids(decided(status_in(Phase.SNAPSHOT), *COPIED, **only))
    assert "fence-switched-0" in ids(decided(status_in(Phase.SNAPSHOT), *COPIED, built, **only))
    fence = state("fence-switched", TaskKind.FENCE)
    assert decided(status_in(Phase.SNAPSHOT), *COPIED, fence, **only).status.phase is Phase.COMPLETED
    assert decided(status_in(Phase.SNAPSHOT), fence, **only).status.phase is Phase.SNAPSHOT


def without(status: MigrationStatus, kind: str) -> MigrationStatus:
    kept = [condition for condition in status.conditions if condition.type != kind]
    return status.model_copy(update={"conditions": kept})


def closed(case: str) -> tuple[MigrationStatus, tuple[TaskState, ...], Memory, Cutover]:
    """A Following migration with everything open but one gate."""
    status, states, memory, policy = status_in(Phase.FOLLOWING), (stream(), INSPECTED), Memory(lag=GOOD_LAG), AUTOMATIC
    old = EQUAL.model_copy(update={"completed_at": START - timedelta(hours=2)})
    different = EQUAL.model_copy(update={"result": CheckResult.DIFFERENT, "differences": Differences(extra=1)})
    stopped = stream(tables=(TableStatus(name="shop.a", state="Stopped", message="DDL"),))
    cases = {
        "few samples": (status, (stream(),), Memory(), policy),
        "high lag": (status, states, Memory(lag=(*GOOD_LAG[:1], LagSample(START, 9.0))), policy),
        "no stream": (status, (INSPECTED,), memory, policy),
        "never validated": (status_in(Phase.FOLLOWING, validation=MigrationValidationStatus()), states, memory, policy),
        "old validation": (status_in(Phase.FOLLOWING, validation=old), states, memory, policy),
        "different": (status_in(Phase.FOLLOWING, validation=different), states, memory, policy),
        "table stopped": (status, (stopped, INSPECTED), memory, policy),
        "not approved": (status, states, memory, Cutover()),
        "old plan approved": (status, states, memory, Cutover(approved_plan="sha256:old")),
        "plan not read back": (status, (stream(),), memory, policy),
        "indexes not built": (without(status, "IndexesReady"), states, memory, policy),
    }
    return cases[case]


@pytest.mark.parametrize(
    "case",
    [
        "few samples",
        "high lag",
        "no stream",
        "never validated",
        "old validation",
        "different",
        "table stopped",
        "not approved",
        "old plan approved",
        "plan not read back",
        "indexes not built",
    ],
)
def test_one_closed_gate_keeps_the_cutover_away(case: str) -> None:
    status, states, memory, policy = closed(case)
    found = replace(observed(status, *states, cutover=policy), memory=memory)
    assert decide(found, START).status.phase is Phase.FOLLOWING


def test_the_copy_is_caught_up_only_past_its_end() -> None:
    """A lag of 4 s, read 2 s after the last chunk, is within 5 s but may lie before that chunk's read."""
    status = status_in(Phase.CATCH_UP)
    recent = [c.model_copy(update={"last_transition_time": START - timedelta(seconds=2)}) for c in status.conditions]
    status = status.model_copy(update={"conditions": recent})
    lagging = tuple(LagSample(sample.at, 4.0) for sample in GOOD_LAG)
    found = replace(observed(status, stream()), memory=Memory(lag=lagging))
    assert decide(found, START).status.phase is Phase.CATCH_UP
    assert decide(replace(found, memory=Memory(lag=GOOD_LAG)), START).status.phase is Phase.FOLLOWING


CUTTING = CutoverStatus(state=CutoverState.FREEZING, started_at=START - timedelta(seconds=10))
AT_P1 = CUTTING.model_copy(update={"state": CutoverState.FINAL_CHECK, "freeze_position": "p1"})
EMPTY = view(status_in(Phase.CUTTING_OVER, cutover=AT_P1))
FREEZE = state("freeze", TaskKind.FREEZE, freeze=FreezeResult(position="p1"))
FINAL = state(wants.final_id(EMPTY), TaskKind.CHECK, check=CheckReport(result=CheckResult.EQUAL))
FINAL_RUNS = state(wants.final_id(EMPTY), TaskKind.CHECK, done=False, check=CheckReport())
CONFIRM = state(wants.confirm_id(EMPTY), TaskKind.FREEZE, freeze=FreezeResult(position="p1"))
MOVED = state(wants.confirm_id(EMPTY), TaskKind.FREEZE, freeze=FreezeResult(position="p2"))
SWITCH = JournalEntry(step="switched", detail="p1", recorded_at=START)
FENCE = state("fence-switched", TaskKind.FENCE, record=KNOWN.model_copy(update={"epoch": 2, "journal": [SWITCH]}))
DRAINED, RETIRED = stream(drained_to="p1"), stream(drained_to="p1", done=True)


def final_with(result: CheckResult, changed: int = 0, inconclusive: int = 0) -> TaskState:
    found = CheckReport(result=result, differences=Differences(changed=changed), inconclusive=inconclusive)
    return state(wants.final_id(EMPTY), TaskKind.CHECK, check=found)


@pytest.mark.parametrize(
    ("cutover", "states", "step", "wanted"),
    [
        (CUTTING, (stream(),), "Freeze", {"stream", "freeze"}),
        (CUTTING, (stream(), FREEZE), "Drain", {"stream"}),
        (AT_P1, (stream(),), "Drain", {"stream"}),
        (AT_P1, (stream(drained_to="p0"),), "Drain", {"stream"}),
        (AT_P1, (DRAINED,), "FinalCheck", {"stream", FINAL.ref.task_id}),
        (AT_P1, (DRAINED, FINAL_RUNS), "FinalCheck", {"stream", FINAL.ref.task_id}),
        (AT_P1, (DRAINED, FINAL), "Retire", {"stream", FINAL.ref.task_id}),
        (AT_P1, (RETIRED, FINAL), "Confirm", {"stream", FINAL.ref.task_id, CONFIRM.ref.task_id}),
        (AT_P1, (stream(), FINAL, CONFIRM), "Drain", {"stream"}),
        (
            AT_P1,
            (RETIRED, FINAL, CONFIRM),
            "Fence",
            {"stream", FINAL.ref.task_id, CONFIRM.ref.task_id, "fence-switched"},
        ),
    ],
)
def test_the_step_is_the_first_that_is_not_proven(
    cutover: CutoverStatus, states: tuple[TaskState, ...], step: str, wanted: set[str]
) -> None:
    status = status_in(Phase.CUTTING_OVER, cutover=cutover)
    assert step_of(view(status, *states, cutover=AUTOMATIC)).name == step
    decision = decided(status, *states, cutover=AUTOMATIC)
    assert decision.status.phase is Phase.CUTTING_OVER
    assert {each.ref.task_id for each in decision.wanted} == wanted
    assert decision.status.cutover.state is next(each.state for each in STEPS if each.name == step)


def test_all_proven_is_completed() -> None:
    status = status_in(Phase.CUTTING_OVER, cutover=AT_P1)
    decision = decided(status, RETIRED, FINAL, CONFIRM, FENCE, cutover=AUTOMATIC)
    assert decision.status.phase is Phase.COMPLETED
    assert decision.status.cutover.state is CutoverState.SWITCHED
    assert decision.status.cutover.completed_at == START
    assert decision.status.epoch == 2
    assert decision.wanted == ()


@pytest.mark.parametrize("left_out", [RETIRED, FINAL, CONFIRM])
def test_without_one_proof_the_fence_is_not_ordered(left_out: TaskState) -> None:
    states = [each for each in (RETIRED, FINAL, CONFIRM) if each is not left_out]
    decision = decided(status_in(Phase.CUTTING_OVER, cutover=AT_P1), *states, cutover=AUTOMATIC)
    assert decision.status.phase is Phase.CUTTING_OVER
    assert FENCE.ref not in {each.ref for each in decision.wanted}


@pytest.mark.parametrize("lost", [RETIRED, FINAL, CONFIRM])
def test_once_the_fence_is_done_no_other_proof_is_asked_for(lost: TaskState) -> None:
    states = [each for each in (RETIRED, FINAL, CONFIRM, FENCE) if each is not lost]
    decision = decided(status_in(Phase.CUTTING_OVER, cutover=AT_P1), *states, cutover=AUTOMATIC)
    assert decision.status.phase is Phase.COMPLETED


def test_a_fence_that_is_done_proves_nothing_until_the_journal_says_that_it_switched() -> None:
    fence = state("fence-switched", TaskKind.FENCE, record=KNOWN)
    decision = decided(status_in(Phase.CUTTING_OVER, cutover=AT_P1), RETIRED, FINAL, CONFIRM, fence, cutover=AUTOMATIC)
    assert decision.status.phase is Phase.CUTTING_OVER


def test_orders_of_the_stream_at_each_step() -> None:
    status = status_in(Phase.CUTTING_OVER, cutover=AT_P1)
    drain = next(each for each in decided(status, stream(), cutover=AUTOMATIC).wanted if each.kind is TaskKind.STREAM)
    assert (drain.orders.drain_to, drain.orders.retire, drain.again) == ("p1", False, True)
    retire = next(
        each
        for each in decided(status, DRAINED, FINAL, CONFIRM, cutover=AUTOMATIC).wanted
        if each.kind is TaskKind.STREAM
    )
    assert (retire.orders.drain_to, retire.orders.retire, retire.again) == ("p1", True, False)


def test_the_final_check_looks_between_the_last_comparison_and_the_freeze() -> None:
    status = status_in(Phase.CUTTING_OVER, cutover=AT_P1)
    check = next(each for each in decided(status, DRAINED, cutover=AUTOMATIC).wanted if each.kind is TaskKind.CHECK)
    assert (check.check.scope, check.check.since, check.check.through) == (CheckScope.FINAL, "p1", "p1")


def comparison(result: CheckResult, *, through: str = "p1", changed: int = 0) -> Validation:
    """A Validation of this migration that has just ended."""
    found = ValidationStatus(
        phase=ValidationPhase.COMPLETED, result=result, differences=Differences(changed=changed),
        validated_through=through, completed_at=START - timedelta(seconds=1),
    )  # fmt: skip
    return Validation(
        metadata=ObjectMeta(name="late"), spec=ValidationSpec(migration_ref=SecretRef(name="shop")), status=found
    )


def test_a_comparison_that_fails_during_the_cutover_ends_it() -> None:
    """The final check would look only at what changed after it, and so not at what it has found."""
    seen = observed(status_in(Phase.CUTTING_OVER, cutover=AT_P1), DRAINED, FINAL, CONFIRM, cutover=AUTOMATIC)
    late = replace(seen, validations=(comparison(CheckResult.DIFFERENT, changed=1),))
    status = decide(late, START).status
    assert status.cutover.state is CutoverState.TIMED_OUT
    assert "1 differences" in status.cutover.message
    assert status.validation.result is CheckResult.DIFFERENT


def test_an_equal_comparison_without_a_position_does_not_count() -> None:
    """Its shares began at different positions: the final check would not know from where to look."""
    seen = observed(status_in(Phase.CUTTING_OVER, cutover=AT_P1), DRAINED, cutover=AUTOMATIC)
    decision = decide(replace(seen, validations=(comparison(CheckResult.EQUAL, through=""),)), START)
    assert [wanted.check.since for wanted in decision.wanted if wanted.kind is TaskKind.CHECK] == ["p1"]


LATE = AT_P1.model_copy(update={"started_at": START - timedelta(minutes=11)})
STOPPED = stream(drained_to="p1", tables=(TableStatus(name="shop.a", state="Stopped", message="DDL"),))


@pytest.mark.parametrize(
    ("reason", "cutover", "policy", "states", "to"),
    [
        ("ApprovalWithdrawn", AT_P1, Cutover(), (DRAINED,), (Phase.FOLLOWING, CutoverState.NOT_READY)),
        (
            "FinalCheckFailed",
            AT_P1,
            AUTOMATIC,
            (DRAINED, final_with(CheckResult.DIFFERENT, changed=1)),
            (Phase.CUTTING_OVER, CutoverState.TIMED_OUT),
        ),
        (
            "FinalCheckFailed",
            AT_P1,
            AUTOMATIC,
            (DRAINED, final_with(CheckResult.INCONCLUSIVE, inconclusive=1)),
            (Phase.CUTTING_OVER, CutoverState.TIMED_OUT),
        ),
        ("TableStopped", AT_P1, AUTOMATIC, (STOPPED,), (Phase.CUTTING_OVER, CutoverState.TIMED_OUT)),
        ("TimedOut", LATE, AUTOMATIC, (DRAINED,), (Phase.CUTTING_OVER, CutoverState.TIMED_OUT)),
        ("WrittenAfterFreeze", AT_P1, AUTOMATIC, (DRAINED, FINAL, MOVED), (Phase.CUTTING_OVER, CutoverState.FREEZING)),
    ],
)
def test_each_setback(
    reason: str,
    cutover: CutoverStatus,
    policy: Cutover,
    states: tuple[TaskState, ...],
    to: tuple[Phase, CutoverState],
) -> None:
    status = status_in(Phase.CUTTING_OVER, cutover=cutover)
    decision = decided(status, *states, cutover=policy)
    assert (decision.status.phase, decision.status.cutover.state) == to
    assert decision.status.cutover.freeze_position == ""
    assert decision.status.cutover.message
    assert reason in [event.reason for event in decision.events]
    with_fence = view(status, *states, state("fence-switched", TaskKind.FENCE, done=False), cutover=policy)
    assert setback_of(with_fence) is None, "no way back once the fence is ordered"


def test_every_setback_is_tested() -> None:
    assert {each.reason for each in SETBACKS} == {
        "ApprovalWithdrawn",
        "ComparisonFailed",
        "FinalCheckFailed",
        "PausedWhileFrozen",
        "ReverseSyncRefused",
        "SourceNotLookedAt",
        "HookFailed",
        "TableStopped",
        "TimedOut",
        "WrittenAfterFreeze",
    }


def test_giving_up_is_journalled_with_the_next_attempt_before_it_is_following_again() -> None:
    given_up = CUTTING.model_copy(update={"state": CutoverState.TIMED_OUT, "message": "not done after 10m"})
    status = status_in(Phase.CUTTING_OVER, cutover=given_up)
    first = decided(status, stream(), cutover=AUTOMATIC)
    fence = next(each for each in first.wanted if each.kind is TaskKind.FENCE)
    assert (fence.fence.step, fence.fence.plan_attempt, fence.fence.detail) == ("timed-out", 2, "not done after 10m")
    assert {each.ref.task_id for each in first.wanted} == {"stream", "fence-timed-out"}
    record = KNOWN.model_copy(update={"plan_attempt": 2})
    done = state("fence-timed-out", TaskKind.FENCE, record=record)
    second = decided(status, stream(), done, cutover=AUTOMATIC)
    assert second.status.phase is Phase.FOLLOWING
    assert second.status.cutover.state is CutoverState.TIMED_OUT
    assert second.status.cutover.message == "not done after 10m"
    assert second.status.plan.attempt == 2


def test_following_builds_the_indexes_until_the_target_has_journalled_them() -> None:
    unbuilt = without(status_in(Phase.FOLLOWING), "IndexesReady")
    assert "indexes-0" in ids(decided(unbuilt, stream()))
    assert "indexes-0" in ids(decided(unbuilt, stream(), state("indexes", TaskKind.SCHEMA)))
    assert "indexes-0" not in ids(decided(unbuilt, stream(), journalled("indexes-ready")))


def test_a_comparison_of_an_earlier_copy_does_not_count() -> None:
    """The copy was made again, by hand or after the control tables were lost: what was equal then proves nothing."""
    old = EQUAL.model_copy(update={"completed_at": START - timedelta(minutes=4)})
    decision = decided(status_in(Phase.FOLLOWING, validation=old), stream(), INSPECTED, cutover=AUTOMATIC)
    assert decision.status.phase is Phase.FOLLOWING
    assert TaskKind.CHECK in {wanted.kind for wanted in decision.wanted}
    assert (
        decided(status_in(Phase.FOLLOWING), stream(), INSPECTED, cutover=AUTOMATIC).status.phase is Phase.CUTTING_OVER
    )
