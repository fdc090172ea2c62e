"""What the Migration keeps of a comparison that has just ended."""

from datetime import datetime, timedelta

import pytest

from support.memory_runtime import START, migration
from whimbrel_api.base import Condition
from whimbrel_api.migration import CheckResult, MigrationStatus, MigrationValidationStatus
from whimbrel_api.reports import CheckReport, WorkerReport, WorkerState
from whimbrel_api.tasks import ExitCode, TaskKind
from whimbrel_operator.domain.migration.checks import check_id, last_validation
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import Memory, Observed, TaskRef, Tasks, TaskState


@pytest.mark.parametrize(
    ("began", "start"),
    [
        (START + timedelta(seconds=4), 4.0),
        (START - timedelta(seconds=1), None),
        (None, None),
    ],
    ids=["measured", "the worker's clock is behind", "from a worker of a former version"],
)
def test_how_long_its_worker_took_to_start_is_kept(began: datetime | None, start: float | None) -> None:
    name = check_id(MigrationValidationStatus())
    found = CheckReport(result=CheckResult.EQUAL, rows_compared=9, validated_through="p1")
    report = WorkerReport(
        task=TaskKind.CHECK, task_id=name, state=WorkerState.DONE,
        observed_at=START + timedelta(seconds=6), started_at=began, check=found,
    )  # fmt: skip
    done = TaskState(TaskKind.CHECK, TaskRef(name), START, running=False, exit_code=ExitCode.DONE, report=report)
    copied = Condition(type="SnapshotComplete", status="True", reason="Done", last_transition_time=START)
    view = View(Observed(migration(MigrationStatus(conditions=[copied])), Tasks((done,))), START, Memory())
    last = last_validation(view)
    assert (last.name, last.took_seconds, last.start_seconds) == (name, 6.0, start)
