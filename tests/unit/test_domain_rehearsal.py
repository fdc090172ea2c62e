"""What a dry run says of a cutover: the stricter of what was reported and what is so now, its steps, its pause."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from support.memory_runtime import START, migration
from whimbrel_api.base import Condition, ConditionStatus
from whimbrel_api.cutover import (
    Cutover,
    CutoverMode,
    CutoverState,
    CutoverStatus,
    FreezeMethod,
    FreezePolicy,
    SourceFreeze,
    Window,
)
from whimbrel_api.endpoints import DynamoDBSource, DynamoDBTarget, Source, Target
from whimbrel_api.migration import (
    CheckResult,
    Migration,
    MigrationStatus,
    MigrationValidationStatus,
    Phase,
    ReverseSyncPolicy,
    StreamStatus,
)
from whimbrel_operator.domain.cutover.rehearsal import rehearse
from whimbrel_operator.domain.cutover.steps import STEPS

KINDS = ("LagWithinThreshold", "ValidationPassed", "NoStoppedTable", "IndexesReady", "RetentionSafe", "CutoverDue")
LAG = StreamStatus(
    lag_seconds=0.5, lag_observed_at=START, retention_deadline=START + timedelta(days=6), retention_seconds=7 * 86_400.0
)
SILENT = {"LagWithinThreshold": "LagUnknown", "ValidationPassed": "TooOld"}
EQUAL = MigrationValidationStatus(
    result=CheckResult.EQUAL, rows_compared=5000, validated_through="p1", took_seconds=12.0,
    completed_at=START - timedelta(minutes=10),
)  # fmt: skip
ITEMS: dict[str, object] = {
    "source": Source(dynamodb=DynamoDBSource(region="us-east-1")),
    "target": Target(dynamodb=DynamoDBTarget(endpoint="http://polar:5432")),
}


def conditions(*shut: str) -> list[Condition]:
    def one(kind: str) -> Condition:
        status: ConditionStatus = "False" if kind in shut else "True"
        return Condition(
            type=kind, status=status, reason="Test", message=f"{kind} as reported", last_transition_time=START
        )

    return [one(kind) for kind in KINDS]


def following(*shut: str, spec: Mapping[str, object] | None = None, **status: Any) -> Migration:
    said = MigrationStatus(phase=Phase.FOLLOWING, observed_generation=1, stream=LAG, validation=EQUAL)
    told = said.model_copy(update={"conditions": conditions(*shut), **status})
    return migration(told, **(spec or {}))  # type: ignore[arg-type]


def shut(resource: Migration, later: float = 0.0) -> dict[str, str]:
    found = rehearse(resource, START + timedelta(seconds=later))
    return {gate.type: gate.reason for gate in found.gates if not gate.open}


def test_with_every_gate_open_only_the_approval_is_missing() -> None:
    found = rehearse(following(), START)
    assert found.ready
    assert [gate.type for gate in found.gates] == list(KINDS)
    assert (found.approval.open, found.approval.reason) == (False, "NotApproved")
    approved = rehearse(following(spec={"cutover": Cutover(approved_plan=found.plan)}), START)
    assert approved.approval.open


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_gate_that_was_reported_shut_stays_shut(kind: str) -> None:
    assert shut(following(kind)) == {kind: "Test"}


@pytest.mark.parametrize(
    ("later", "reasons"),
    [
        (29.0, {}),
        (31.0, {"LagWithinThreshold": "LagUnknown"}),
        (3001.0, SILENT),
        (5 * 86_400.0, {**SILENT, "RetentionSafe": "RetentionNear"}),
    ],
)  # fmt: skip
def test_what_was_open_shuts_as_time_goes_by_and_nobody_reports(later: float, reasons: dict[str, str]) -> None:
    assert shut(following(), later) == reasons


def test_the_time_is_judged_by_the_clock_here() -> None:
    late = {"cutover": Cutover(window=Window(schedule="0 13 * * *"))}
    resource = following(spec=late)
    assert shut(resource) == {"CutoverDue": "OutsideWindow"}
    assert rehearse(resource, START).begins == START + timedelta(hours=1)


def test_a_status_without_conditions_opens_nothing() -> None:
    found = rehearse(following(conditions=[]), START)
    assert {gate.reason for gate in found.gates if gate.type != "CutoverDue"} == {"NoFreshReport"}
    assert not found.ready


@pytest.mark.parametrize(
    ("resource", "says"),
    [
        (following(phase=Phase.SNAPSHOT), "the phase is Snapshot"),
        (following(observed_generation=0), "generation 0, the spec is 1"),
        (following(spec={"paused": True}), "spec.paused is true"),
        (following(cutover=CutoverStatus(source_frozen=True)), "had frozen the source"),
        (following(cutover=CutoverStatus(state=CutoverState.TIMED_OUT),
                   spec={"cutover": Cutover(mode=CutoverMode.AUTOMATIC)}), "begins 5m0s after that at the earliest"),
        (following(spec={"reverse_sync": ReverseSyncPolicy(enabled=True)}), "spec.reverseSync.enabled: true"),
        (following(conditions=[Condition(type="Stalled", status="True", reason="SourceLogLost", message="purged",
                                         last_transition_time=START)]), "it is Stalled (SourceLogLost): purged"),
    ],
)  # fmt: skip
def test_what_is_no_gate_and_holds_it_back_is_said_too(resource: Migration, says: str) -> None:
    found = rehearse(resource, START)
    assert any(says in each for each in found.obstacles)
    assert not found.ready


def test_the_pause_of_a_log_is_bounded_by_the_last_whole_comparison() -> None:
    found = rehearse(following(), START)
    assert [stage.name for stage in found.stages] == [step.name for step in STEPS]
    times = {stage.name: stage.takes.seconds for stage in found.stages}
    assert {name: times[name] for name in ("Freeze", "Drain", "FinalCheck", "Confirm")} == {
        "Freeze": 3.0,
        "Drain": 2.5,
        "FinalCheck": 12.0,
        "Confirm": 0.5,
    }
    assert [stage.name for stage in found.stages if stage.takes.at_most] == ["FinalCheck"]
    assert (found.pause.seconds, found.pause.at_most) == (18.0, False)
    assert "Fence" in found.pause.basis


def test_each_worker_of_the_pause_is_taken_to_start_as_that_of_the_last_comparison_did() -> None:
    found = rehearse(following(validation=EQUAL.model_copy(update={"start_seconds": 4.0})), START)
    times = {stage.name: stage.takes.seconds for stage in found.stages if stage.takes.seconds is not None}
    assert times == {"Freeze": 7.0, "Drain": 2.5, "FinalCheck": 12.0, "Confirm": 4.5, "Fence": 4.0}
    assert found.pause.seconds == 30.0
    assert "Fence" not in found.pause.basis


def test_the_pause_of_shards_holds_a_whole_comparison() -> None:
    found = rehearse(following(spec=ITEMS, stream=LAG.model_copy(update={"lag_seconds": None, "quiet": True})), START)
    times = {stage.name: (stage.takes.seconds, stage.takes.at_most) for stage in found.stages}
    assert times["Freeze"] == (10.0, False)
    assert times["Drain"] == (2.0, False)
    assert times["FinalCheck"] == (12.0, False)
    assert times["Confirm"] == (5.0, False)


@pytest.mark.parametrize(
    ("status", "missing"),
    [
        ({"stream": StreamStatus()}, "Drain"),
        ({"validation": EQUAL.model_copy(update={"took_seconds": None})}, "FinalCheck"),
        ({"validation": EQUAL.model_copy(update={"sampled": True})}, "FinalCheck"),
    ],
)
def test_what_was_not_measured_is_not_guessed(status: dict[str, Any], missing: str) -> None:
    pause = rehearse(following(**status), START).pause
    assert (pause.seconds, pause.basis) == (None, f"not measured: {missing}")


@pytest.mark.parametrize(("timeout", "late"), [("17s", True), ("10m", False)])
def test_a_pause_longer_than_the_cutover_may_take_is_told(timeout: str, late: bool) -> None:
    assert rehearse(following(spec={"cutover": Cutover(timeout=timeout)}), START).too_long is late


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "you: stop the application's writes"),
        ({"cutover": Cutover(source_freeze=SourceFreeze.OPERATOR)}, "Whimbrel, by super_read_only: undone"),
        (
            {"cutover": Cutover(source_freeze=SourceFreeze.OPERATOR,
                                freeze=FreezePolicy(method=FreezeMethod.LOCK_ACCOUNTS, accounts=["app@%", "web@%"]))},
            "by locking the accounts app@%, web@%: undone",
        ),
        (
            {"cutover": Cutover(source_freeze=SourceFreeze.OPERATOR,
                                freeze=FreezePolicy(method=FreezeMethod.DENY_POLICY))},
            "by a deny statement in the tables' policies: undone",
        ),
    ],
)  # fmt: skip
def test_it_is_said_who_freezes(spec: dict[str, object], says: str) -> None:
    assert says in rehearse(following(spec=spec), START).freezes


def test_it_is_said_whether_a_way_back_is_armed() -> None:
    assert rehearse(following(), START).way_back.startswith("none is armed")
    asked = rehearse(following(spec={"reverse_sync": ReverseSyncPolicy(enabled=True)}), START)
    assert asked.way_back.startswith("armed before the target is opened")
    assert [gate.type for gate in asked.gates if not gate.open] == ["ReverseSyncReady"]
