"""Observe → decide → act → report of a Validation, over the in-memory runtime."""

import asyncio

import pytest

from support.memory_runtime import KEY, START, MemoryRuntime, migration
from support.world import Failure, World
from whimbrel_api.base import ObjectMeta, SecretRef
from whimbrel_api.migration import (
    CheckResult,
    MigrationStatus,
    Phase,
)
from whimbrel_api.reports import CheckReport, ErrorCategory, ReportedError, WorkerReport, WorkerState
from whimbrel_api.tasks import ExitCode, TaskKind
from whimbrel_api.validation import Validation, ValidationPhase, ValidationSpec, ValidationStatus
from whimbrel_operator.domain.observed import ObservedValidation, TaskRef, Tasks, TaskState
from whimbrel_operator.domain.validation import check_id, decide_validation
from whimbrel_operator.errors import StatusConflict
from whimbrel_operator.reconcile import Reconciler
from whimbrel_operator.runtime.port import Key, Status


class Comparison:
    """A Validation and its runtime."""

    def __init__(self, world: World, spec: ValidationSpec, phase: Phase | None = Phase.FOLLOWING) -> None:
        resource = Validation(metadata=ObjectMeta(name="compare"), spec=spec)
        named = migration(MigrationStatus(phase=phase, epoch=1)) if phase is not None else None
        self.runtime = MemoryRuntime(world, resource, migration=named)
        self.reconciler = Reconciler(self.runtime, self.runtime.clock)

    def go(self, seconds: int) -> ValidationStatus:
        for _ in range(seconds):
            asyncio.run(self.reconciler.reconcile(KEY))
            self.runtime.advance()
        status = self.runtime.resource.status
        assert isinstance(status, ValidationStatus)
        return status


OF_SHOP = ValidationSpec(migration_ref=SecretRef(name="shop"), workers=2)


def test_a_validation_sums_up_its_workers() -> None:
    found = Comparison(World(checks=[CheckResult.EQUAL, CheckResult.DIFFERENT]), OF_SHOP)
    status = found.go(5)
    assert (status.phase, status.result) == (ValidationPhase.COMPLETED, CheckResult.DIFFERENT)
    assert status.differences.changed == 3
    assert status.rows_compared == 2000
    assert status.completed_at is not None
    assert found.runtime.instances == {}
    assert [event.reason for event in found.runtime.events] == ["Running", "ValidationDifferent"]


def test_what_a_comparison_found_outlives_a_status_that_could_not_be_written() -> None:
    """Somebody edits the resource just as it ends: hours of reading must not have to be done again for that."""

    class Contended(MemoryRuntime):
        conflicts = 0

        async def report(self, key: Key, status: Status, resource_version: str) -> None:
            if status.phase is ValidationPhase.COMPLETED and self.conflicts < 2:
                self.conflicts += 1
                raise StatusConflict("the status was written meanwhile")
            await super().report(key, status, resource_version)

    found = Comparison(World(), OF_SHOP)
    found.runtime.__class__ = Contended
    assert found.go(10).result is CheckResult.EQUAL
    assert len(found.runtime.started) == 2
    assert found.runtime.instances == {}


def share(index: int, workers: int = 2, *, told: bool = True) -> TaskState:
    """A share of a comparison that has ended, with or without its report."""
    task_id, at = check_id(OF_SHOP.model_copy(update={"workers": workers})), START
    check = CheckReport(result=CheckResult.EQUAL, rows_compared=1)
    report = WorkerReport(
        task=TaskKind.CHECK, task_id=task_id, index=index, state=WorkerState.DONE, observed_at=at, check=check
    )
    ref = TaskRef(task_id, index)
    return TaskState(TaskKind.CHECK, ref, at, running=False, exit_code=ExitCode.DONE, report=report if told else None)


@pytest.mark.parametrize(
    ("states", "phase"),
    [
        ((share(0), share(1)), ValidationPhase.COMPLETED),
        ((share(0), share(1, told=False)), ValidationPhase.RUNNING),
        ((share(0, 1), share(1)), ValidationPhase.RUNNING),
    ],
)
def test_a_validation_ends_with_the_word_of_every_worker(states: tuple[TaskState, ...], phase: ValidationPhase) -> None:
    """A lost report is no equal share, and a share cut for another number of workers leaves tables to nobody."""
    resource = Validation(
        metadata=ObjectMeta(name="compare"), spec=OF_SHOP, status=ValidationStatus(phase=ValidationPhase.RUNNING)
    )
    named = migration(MigrationStatus(phase=Phase.FOLLOWING, epoch=1))
    seen = ObservedValidation(resource, Tasks(states), named)
    assert decide_validation(seen, START).status.phase is phase


@pytest.mark.parametrize("phase", [None, Phase.SNAPSHOT])
def test_a_validation_waits_for_its_migration(phase: Phase | None) -> None:
    found = Comparison(World(), OF_SHOP, phase)
    status = found.go(5)
    assert status.phase is ValidationPhase.PENDING
    reconciling = next(each for each in status.conditions if each.type == "Reconciling")
    assert reconciling.reason == "Waiting"
    assert "Migration shop" in reconciling.message


def test_a_validation_says_so_when_its_migration_goes_while_it_compares() -> None:
    found = Comparison(World(), OF_SHOP)
    assert found.go(1).phase is ValidationPhase.RUNNING
    found.runtime.migration = None
    status = found.go(3)
    assert found.runtime.instances == {}
    reconciling = next(each for each in status.conditions if each.type == "Reconciling")
    assert reconciling.reason == "Waiting"
    assert "Migration shop not found" in reconciling.message


def test_a_validation_on_its_own_needs_no_migration() -> None:
    spec = ValidationSpec.model_validate({"source": migration().spec.source, "target": migration().spec.target})
    assert Comparison(World(), spec, None).go(5).result is CheckResult.EQUAL


def test_a_validation_that_cannot_sign_in_stalls() -> None:
    error = ReportedError(category=ErrorCategory.CONFIGURATION, what="wrong password")
    world = World(failures={TaskKind.CHECK: Failure(code=ExitCode.CONFIGURATION, error=error)})
    found = Comparison(world, OF_SHOP)
    status = found.go(60)
    stalled = next(each for each in status.conditions if each.type == "Stalled")
    assert (stalled.status, stalled.reason) == ("True", "ConfigurationError")
    assert 4 <= len(found.runtime.started) <= 12
