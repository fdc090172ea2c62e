"""Whether the source's log is kept for long enough: figures that are missing, and what a stopped stream leaves."""

from datetime import datetime, timedelta

import pytest

from support.memory_runtime import START, migration
from whimbrel_api.cutover import Cutover
from whimbrel_api.migration import MigrationStatus, Stream, StreamStatus
from whimbrel_api.reports import StreamResult, WorkerReport, WorkerState
from whimbrel_api.tasks import TaskKind
from whimbrel_operator.domain.cutover.retention import judge_retention, retention_gate, told
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import Memory, Observed, TaskRef, Tasks, TaskState

HOUR, DAY = 3600.0, 86400.0


def in_hours(hours: float) -> datetime:
    return START + timedelta(hours=hours)


@pytest.mark.parametrize(
    ("left", "period", "timeout", "reason"),
    [
        (24.0, DAY, "10m", "LogKept"),
        (4.81, DAY, "10m", "LogKept"),
        (4.79, DAY, "10m", "RetentionNear"),
        (0.0, DAY, "10m", "RetentionNear"),
        (-1.0, DAY, "10m", "RetentionNear"),
        (5.9, DAY, "6h", "RetentionNear"),
        (6.1, DAY, "6h", "LogKept"),
        (0.2, None, "10m", "LogKept"),
        (0.1, None, "10m", "RetentionNear"),
    ],
)
def test_the_guards_share_and_a_whole_cutover_must_be_left(
    left: float, period: float | None, timeout: str, reason: str
) -> None:
    """With a guard of 0.8 a fifth of the retention must be left: 4.8 h of a day."""
    stream = StreamStatus(retention_deadline=in_hours(left), retention_seconds=period)
    spec = migration(cutover=Cutover(timeout=timeout)).spec
    gate = judge_retention(stream, spec, START, reported=True)
    assert (gate.type, gate.reason, gate.open) == ("RetentionSafe", reason, reason == "LogKept")


@pytest.mark.parametrize(
    ("period", "reported", "status", "reason"),
    [
        (DAY, True, "Unknown", "RetentionUnknown"),
        (DAY, False, "Unknown", "RetentionUnknown"),
        (None, False, "Unknown", "NoFreshReport"),
        (None, True, "True", "NotTold"),
    ],
)
def test_unknown_closes_it_where_the_source_can_tell(
    period: float | None, reported: bool, status: str, reason: str
) -> None:
    stream = StreamStatus(retention_seconds=period)
    gate = judge_retention(stream, migration().spec, START, reported=reported)
    assert (gate.status, gate.reason) == (status, reason)


def worker(index: int, deadline: datetime | None, period: float | None, *, age: float = 0.0) -> TaskState:
    said = StreamResult(retention_deadline=deadline, retention_seconds=period)
    report = WorkerReport(
        task=TaskKind.STREAM, task_id="stream", index=index, state=WorkerState.RUNNING, stream=said,
        observed_at=START - timedelta(seconds=age),
    )  # fmt: skip
    return TaskState(TaskKind.STREAM, TaskRef("stream", index), START, report=report)


def view(*states: TaskState, status: StreamStatus | None = None) -> View:
    resource = migration(MigrationStatus(stream=status or StreamStatus()), stream=Stream(retention_guard=0.5))
    return View(Observed(resource, Tasks(states)), START, Memory())


KEPT = StreamStatus(retention_deadline=in_hours(3), retention_seconds=DAY)


@pytest.mark.parametrize(
    ("states", "status", "deadline", "reason"),
    [
        ((worker(0, in_hours(20), DAY), worker(1, in_hours(13), DAY)), None, in_hours(13), "LogKept"),
        ((worker(0, in_hours(20), DAY), worker(1, in_hours(11), DAY)), None, in_hours(11), "RetentionNear"),
        ((worker(0, None, DAY),), KEPT, in_hours(3), "RetentionNear"),
        ((worker(0, None, DAY),), None, None, "RetentionUnknown"),
        ((worker(0, None, None),), KEPT, None, "NotTold"),
        ((), KEPT, in_hours(3), "RetentionNear"),
        ((worker(0, in_hours(20), DAY, age=600.0),), None, in_hours(20), "LogKept"),
        ((worker(0, None, None, age=600.0),), None, None, "NoFreshReport"),
    ],
)
def test_the_earliest_deadline_counts_and_an_old_one_stays_true(
    states: tuple[TaskState, ...], status: StreamStatus | None, deadline: datetime | None, reason: str
) -> None:
    seen = view(*states, status=status)
    assert told(seen).retention_deadline == deadline
    assert retention_gate(seen).reason == reason
