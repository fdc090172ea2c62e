"""A comparison of a sample: where it is refused, what it says of itself, and which gate it opens."""

from datetime import timedelta
from typing import Any

import pytest

from support.memory_runtime import START, migration
from whimbrel_api.base import Condition, ObjectMeta, SecretRef
from whimbrel_api.migration import (
    CheckMode,
    CheckResult,
    MigrationStatus,
    MigrationValidationStatus,
    SnapshotStatus,
    ValidationPolicy,
)
from whimbrel_api.reports import CheckReport
from whimbrel_api.rules import breaches
from whimbrel_api.validation import Validation, ValidationPhase, ValidationSpec, ValidationStatus
from whimbrel_operator.domain.cutover.gates import validation_gate
from whimbrel_operator.domain.migration.checks import (
    check_due,
    from_check,
    from_validation,
    last_validation,
    merged,
    share_text,
)
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.migration.wants import final_check
from whimbrel_operator.domain.observed import Memory, Observed, Tasks
from whimbrel_operator.domain.validation import check_id

SAMPLE = CheckReport(
    result=CheckResult.EQUAL, rows_compared=500, sampled=True, rows_known=20_000, validated_through="p1"
)
DYNAMODB = {"dynamodb": {"region": "us-east-1"}}
POLARDB = {"dynamodb": {"endpoint": "http://polar:5432", "credentialsSecretRef": {"name": "polar"}}}
MYSQL = {"mysql": {"host": "db", "credentialsSecretRef": {"name": "db"}}}
POSTGRES = {"postgresql": {"host": "pg", "database": "d", "credentialsSecretRef": {"name": "pg"}}}


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (CheckReport(rows_compared=5), ""),
        (merged([SAMPLE, SAMPLE]), "a sample: 1,000 of about 40,000 items (2.5 %)"),
        (SAMPLE.model_copy(update={"rows_known": 0}), "a sample: 500 items, of how many is not known"),
        (CheckReport(sampled=True), "a sample: 0 items, of how many is not known"),
    ],
)
def test_a_sample_says_what_share_was_compared(report: CheckReport, text: str) -> None:
    assert share_text(report) == text


@pytest.mark.parametrize(("mode", "reason"), [("Sample", "WithinThreshold"), ("Full", "Sampled")])
def test_a_sample_opens_the_gate_only_where_it_is_accepted(mode: CheckMode, reason: str) -> None:
    last = from_check(SAMPLE, START - timedelta(seconds=10), "check-0")
    gate = validation_gate(last, ValidationPolicy(mode=mode), 0, START)
    assert (gate.reason, gate.open) == (reason, mode == "Sample")
    assert "a sample: 500 of about 20,000 items" in gate.message


def test_a_finished_validation_hands_on_that_it_was_a_sample() -> None:
    status = ValidationStatus(
        phase=ValidationPhase.COMPLETED, result=CheckResult.EQUAL, sampled=True, compared=share_text(SAMPLE),
        completed_at=START,
    )  # fmt: skip
    spec = ValidationSpec(migration_ref=SecretRef(name="shop"), mode="Sample")
    found = from_validation(Validation(metadata=ObjectMeta(name="v"), spec=spec, status=status))
    assert (found.sampled, found.compared) == (True, share_text(SAMPLE))


@pytest.mark.parametrize(("mode", "due"), [("Sample", False), ("Full", True)])
def test_a_sample_is_followed_by_a_whole_comparison_once_that_is_asked_for(mode: CheckMode, due: bool) -> None:
    last = from_check(SAMPLE, START - timedelta(seconds=10), "check-0")
    resource = migration(MigrationStatus(validation=last), validation=ValidationPolicy(mode=mode))
    view = View(Observed(resource, Tasks(())), START, Memory())
    assert check_due(view, last) is due


@pytest.mark.parametrize(("compared", "due"), [(0, False), (2, True), (3, False)])
def test_a_comparison_that_left_tables_out_is_made_again_soon(compared: int, due: bool) -> None:
    report = CheckReport(result=CheckResult.EQUAL, tables_compared=compared, tables_total=2, validated_through="p1")
    last = from_check(report, START - timedelta(seconds=40), "check-0")
    resource = migration(MigrationStatus(validation=last, snapshot=SnapshotStatus(tables_total=3)))
    assert check_due(View(Observed(resource, Tasks(())), START, Memory()), last) is due


@pytest.mark.parametrize(
    ("ends", "fits"),
    [
        ({"source": DYNAMODB, "target": POLARDB}, True),
        ({"source": MYSQL, "target": POSTGRES}, False),
        ({"migrationRef": {"name": "shop"}}, True),
    ],
)
def test_a_sample_is_taken_of_items_only(ends: dict[str, Any], fits: bool) -> None:
    found = [
        ".".join(map(str, place)) for place, _ in breaches(ValidationSpec.model_validate({"mode": "Sample", **ends}))
    ]
    assert found == ([] if fits else ["mode"])
    assert not list(breaches(ValidationSpec.model_validate({"mode": "Full", **ends})))


def test_a_sample_of_rows_stalls_a_migration_and_one_of_items_does_not() -> None:
    policy = ValidationPolicy(mode="Sample")
    rows = View(Observed(migration(validation=policy), Tasks(())), START, Memory())
    assert "spec.validation.mode" in rows.unsupported
    spec = rows.spec.model_copy(
        update={"source": type(rows.spec.source).model_validate(DYNAMODB)}
    )  # fmt: skip
    items = migration(validation=policy).model_copy(update={"spec": spec})
    assert View(Observed(items, Tasks(())), START, Memory()).unsupported == ""


def test_shares_of_another_sample_are_not_taken_for_this_ones() -> None:
    whole = ValidationSpec(migration_ref=SecretRef(name="shop"))
    small, large = (whole.model_copy(update={"mode": "Sample", "sample_rows": rows}) for rows in (10, 20))
    assert len({check_id(whole), check_id(small), check_id(large)}) == 3
    assert check_id(whole) == check_id(whole.model_copy(update={"sample_rows": 10}))


def test_the_final_check_reads_everything_even_where_a_sample_opened_the_gate() -> None:
    view = View(Observed(migration(validation=ValidationPolicy(mode="Sample")), Tasks(())), START, Memory())
    assert [task.check.mode for task in final_check(view)] == ["Full"]


@pytest.mark.parametrize(
    ("mode", "result", "name"),
    [
        ("Full", CheckResult.EQUAL, "whole"),
        ("Full", CheckResult.DIFFERENT, "v"),
        ("Sample", CheckResult.EQUAL, "v"),
    ],
)
def test_a_sample_does_not_take_the_place_of_a_whole_comparison(
    mode: CheckMode, result: CheckResult, name: str
) -> None:
    copied = Condition(type="SnapshotComplete", status="True", reason="Done", last_transition_time=START)
    whole = MigrationValidationStatus(name="whole", result=CheckResult.EQUAL, completed_at=START)
    status = ValidationStatus(
        phase=ValidationPhase.COMPLETED, result=result, sampled=True, validated_through="p1",
        completed_at=START + timedelta(seconds=9),
    )  # fmt: skip
    spec = ValidationSpec(migration_ref=SecretRef(name="shop"), mode="Sample")
    sample = Validation(metadata=ObjectMeta(name="v"), spec=spec, status=status)
    policy = ValidationPolicy(mode=mode)
    resource = migration(MigrationStatus(validation=whole, conditions=[copied]), validation=policy)
    view = View(Observed(resource, Tasks(()), validations=(sample,)), START + timedelta(seconds=10), Memory())
    assert last_validation(view).name == name
