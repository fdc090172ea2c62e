"""The figures of one resource, from its status, its spec and its workers' reports. Nothing is served here."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from whimbrel_api.durations import seconds
from whimbrel_api.migration import Differences, MigrationSpec, MigrationStatus
from whimbrel_api.reverse_sync import ReverseSyncStatus
from whimbrel_api.tasks import TaskKind
from whimbrel_api.validation import ValidationStatus
from whimbrel_operator.domain.observed import Tasks, TaskState
from whimbrel_operator.figures import catalogue as is_
from whimbrel_operator.figures.catalogue import Figure
from whimbrel_operator.figures.counting import Account, Total

AnyStatus = MigrationStatus | ValidationStatus | ReverseSyncStatus
Sample = tuple[Figure, tuple[str, ...], float]
"""A figure, the labels that it has beside the resource's own, its value."""
_TRUTH = {"True": 1.0, "False": 0.0, "Unknown": -1.0}
_REFUSED = {"Stalled": 1.0, "Reconciling": 0.0}
"""The conditions of a resource that cannot be worked on, as its status says them too."""
_PLAIN = {
    "rows": is_.WRITTEN_ROWS,
    "bytes": is_.WRITTEN_BYTES,
    "transactions": is_.TRANSACTIONS,
    "connections": is_.CONNECTIONS,
}


@dataclass
class Known:
    """What is known of a resource. `status` is None until a pass has come to its end.

    `at`: when the last one did, or when work on it began, in seconds since 1970. `refused`: its status says by now that
    it cannot be worked on until a person acts. `spec` is a Migration's, where its figures need one.
    """

    at: float
    status: AnyStatus | None = None
    refused: bool = False
    spec: MigrationSpec | None = None
    tasks: Tasks = field(default_factory=Tasks)
    account: Account = field(default_factory=Account)


def samples(kind: str, known: Known) -> Iterator[Sample]:
    """All figures of a resource; one that is not known has no sample."""
    match known.status:
        case MigrationStatus() as status:
            yield from _migration(status, known)
        case ValidationStatus() as status:
            yield from _validation(status)
        case ReverseSyncStatus() as status:
            yield from _way_back(status)
    for condition, truth in _conditions(known).items():
        yield is_.CONDITION, (kind, condition), truth
    yield is_.RECONCILED_AT, (kind,), known.at
    for figure, labels, value in (*_workers(known), *_counted(known.account)):
        yield figure, (kind, *labels), value


def _conditions(known: Known) -> Mapping[str, float]:
    said = known.status.conditions if known.status is not None else ()
    return {each.type: _TRUTH[each.status] for each in said} | (_REFUSED if known.refused else {})


def _migration(status: MigrationStatus, known: Known) -> Iterator[Sample]:
    copied = status.snapshot
    yield is_.PHASE, (status.phase.value,), 1
    yield from _told(
        (is_.EPOCH, status.epoch),
        (is_.TABLES, copied.tables_total),
        (is_.TABLES_COPIED, copied.tables_done),
        (is_.TABLES_STOPPED, sum(table.state == "Stopped" for table in status.tables)),
        (is_.ROWS, copied.rows_total),
        (is_.ROWS_COPIED, copied.rows_copied),
        (is_.BYTES_COPIED, copied.bytes_copied),
        (is_.ROWS_PER_SECOND, copied.rows_per_second),
        (is_.ETA, copied.eta),
    )
    yield from _stream(status, known)
    yield from _compared(status)
    if known.spec is not None:
        yield is_.LAG_THRESHOLD, (), seconds(known.spec.thresholds.lag)
        yield is_.VALIDATION_MAX_AGE, (), seconds(known.spec.validation.max_age)


def _stream(status: MigrationStatus, known: Known) -> Iterable[Sample]:
    stream = status.stream
    return _told(
        (is_.LAG, stream.lag_seconds),
        (is_.FETCH_LAG, None if stream.lag_observed_at is None else _fetch_lag(known.tasks)),
        (is_.QUIET, stream.quiet),
        (is_.CHANGES, stream.changes_applied),
        (is_.COLLECTED, stream.collected_bytes),
        (is_.DEADLINE, _moment(stream.retention_deadline)),
        (is_.RETENTION, stream.retention_seconds),
    )


def _fetch_lag(tasks: Tasks) -> float | None:
    words = (state.word for state in tasks.instances if state.running and state.kind is TaskKind.STREAM)
    told = [word.stream.fetch_lag_seconds for word in words if word is not None and word.stream is not None]
    return max((each for each in told if each is not None), default=None)


def _compared(status: MigrationStatus) -> Iterator[Sample]:
    last = status.validation
    if last.completed_at is None:
        return
    yield is_.VALIDATED_AT, (), last.completed_at.timestamp()
    yield is_.INCONCLUSIVE, (), last.inconclusive
    yield from _differences(is_.FOUND, last.differences)


def _validation(status: ValidationStatus) -> Iterator[Sample]:
    yield is_.VALIDATION_PHASE, (status.phase.value,), 1
    if status.phase == "Pending":
        return
    yield from _differences(is_.DIFFERENCES, status.differences)
    yield from _told(
        (is_.UNDECIDED, status.inconclusive),
        (is_.COMPARED, status.rows_compared),
        (is_.COMPARED_PER_SECOND, status.rows_per_second),
        (is_.COMPARED_ETA, status.eta),
        (is_.COMPLETED_AT, _moment(status.completed_at)),
    )


def _differences(figure: Figure, found: Differences) -> Iterator[Sample]:
    for name, count in found:
        yield figure, (name,), count


def _way_back(status: ReverseSyncStatus) -> Iterator[Sample]:
    slot, guard = status.slot, status.resolved.guard if status.resolved is not None else None
    yield is_.BACK_PHASE, (status.phase.value,), 1
    yield from _told(
        (is_.BACK_LAG, status.lag_seconds),
        (is_.BACK_CHANGES, status.changes_applied),
        (is_.SLOT_BYTES, slot.retained_bytes),
        (is_.SLOT_ACTIVE, slot.active if slot.wal_status else None),
        (is_.SLOT_WARNING, None if guard is None else guard.warn_bytes),
        (is_.SLOT_LIMIT, None if guard is None else guard.limit_bytes),
    )


def _workers(known: Known) -> Iterator[Sample]:
    by_kind: dict[TaskKind, list[TaskState]] = {}
    for state in known.tasks.instances:
        by_kind.setdefault(state.kind, []).append(state)
    for kind, states in by_kind.items():
        running = [state for state in states if state.running]
        yield is_.WORKERS, (kind.value,), len(running)
        yield is_.FAILURES, (kind.value,), max(state.failures for state in states)
        if running:
            yield is_.HEARTBEAT, (kind.value,), min(_spoke(state, known.account) for state in running).timestamp()


def _spoke(state: TaskState, account: Account) -> datetime:
    """A pod that replaces another has not spoken yet; what it is a part of may have been started long ago."""
    return max(account.heard.get(state.ref, state.started_at), state.started_at)


def _counted(account: Account) -> Iterator[Sample]:
    totals = account.totals
    for task in sorted({task for task, _ in totals}):
        for name, figure in _PLAIN.items():
            yield figure, (task.value,), totals[task, name]
        yield from _retries(task, totals)


def _retries(task: TaskKind, totals: Mapping[Total, int]) -> Iterator[Sample]:
    """What is not told apart is `other`: connections that ended, servers that were away."""
    conflicts = totals[task, "conflicts"]
    for side, prefix, told in (("target", "", {"conflict": conflicts}), ("source", "source_", {})):
        throttled = totals[task, f"{prefix}throttled"]
        rest = totals[task, f"{prefix}retries"] - sum(told.values()) - throttled
        for reason, count in {**told, "throttled": throttled, "other": max(0, rest)}.items():
            yield is_.RETRIES, (task.value, side, reason), count


def _told(*figures: tuple[Figure, float | None]) -> Iterator[Sample]:
    return ((figure, (), value) for figure, value in figures if value is not None)


def _moment(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
