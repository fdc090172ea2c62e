"""What is said of a task that was started again: trouble until it gets on, and none when it is done."""

from datetime import UTC, datetime

import pytest

from whimbrel_api.reports import WorkerReport, WorkerState
from whimbrel_api.tasks import TaskKind
from whimbrel_operator.domain.failures import trouble
from whimbrel_operator.domain.observed import TaskRef, TaskState

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "said", "troubled"),
    [
        (TaskKind.STREAM, WorkerState.STARTING, True),
        (TaskKind.STREAM, WorkerState.RUNNING, False),
        (TaskKind.STREAM, WorkerState.DONE, False),
        (TaskKind.SCHEMA, WorkerState.RUNNING, True),
        (TaskKind.SCHEMA, WorkerState.DONE, False),
    ],
)
def test_a_restarted_task_is_in_trouble_until_it_gets_on(kind: TaskKind, said: WorkerState, troubled: bool) -> None:
    report = WorkerReport(task=kind, task_id="t", index=1, attempt=2, state=said, observed_at=NOW)
    state = TaskState(kind, TaskRef("t", 1), NOW, failures=1, report=report)
    assert (trouble(state) is not None) is troubled
