"""Every figure that the operator serves: name, type, labels, meaning. The one place for them; no value is made here.

Names follow Prometheus' conventions ("Metric and label naming"): base units, `_total` for counters, moments as
`_timestamp_seconds`. Labels are names of resources and words of small fixed sets: no table, no message, no error text.
"""

from dataclasses import dataclass
from typing import Final, Literal

_RESOURCE: Final = ("namespace", "name")
_KIND: Final = (*_RESOURCE, "kind")
_TASK: Final = (*_KIND, "task")


@dataclass(frozen=True)
class Figure:
    """One figure. A counter's `name` has its `_total`."""

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = _RESOURCE


def _gauge(name: str, text: str, *labels: str, of: tuple[str, ...] = _RESOURCE) -> Figure:
    return Figure(f"whimbrel_{name}", "gauge", text, (*of, *labels))


def _counter(name: str, text: str, *labels: str, of: tuple[str, ...] = _TASK) -> Figure:
    return Figure(f"whimbrel_{name}", "counter", text, (*of, *labels))


PHASE: Final = _gauge("migration_phase", "1 for the phase that it is in; the others have no series.", "phase")
EPOCH: Final = _gauge("migration_epoch", "The epoch that fences workers; it grows at a cutover or cancellation.")
TABLES: Final = _gauge("migration_tables", "Tables that the copy takes.")
TABLES_COPIED: Final = _gauge("migration_tables_copied", "Tables whose copy is done.")
TABLES_STOPPED: Final = _gauge("migration_tables_stopped", "Tables that stopped, of the 100 that the status lists.")
ROWS: Final = _gauge("migration_rows", "Rows that there are to copy, by the source's estimate.")
ROWS_COPIED: Final = _gauge("migration_rows_copied", "Rows of the copy that are in the target.")
BYTES_COPIED: Final = _gauge("migration_copied_bytes", "Bytes that the copy has written.")
ROWS_PER_SECOND: Final = _gauge("migration_rows_per_second", "Rows a second that the copy writes, over 15 s.")
ETA: Final = _gauge("migration_eta_seconds", "Time that the copy still takes at this rate; absent if unknown.")
LAG: Final = _gauge(
    "migration_lag_seconds", "Apply lag: age of the oldest source commit not yet in the target; absent if unknown."
)
FETCH_LAG: Final = _gauge(
    "migration_fetch_lag_seconds",
    "Fetch lag: age of the oldest source commit not yet read; absent if unknown, and from DynamoDB, whose pages are "
    "applied as they are read.",
)
LAG_THRESHOLD: Final = _gauge("migration_lag_threshold_seconds", "The lag that spec.thresholds.lag allows.")
QUIET: Final = _gauge("migration_stream_quiet", "1 while every shard is quiet, so that no lag can be told.")
CHANGES: Final = _gauge("migration_changes_applied", "Changes that the stream says it has applied.")
COLLECTED: Final = _gauge("migration_collected_bytes", "Changes that were read onto the spool's volume.")
DEADLINE: Final = _gauge(
    "migration_retention_deadline_timestamp_seconds",
    "Until when the source certainly keeps what is read next; absent if it names no time.",
)
RETENTION: Final = _gauge("migration_retention_seconds", "How long the source keeps a change; absent if unknown.")
VALIDATED_AT: Final = _gauge(
    "migration_validation_timestamp_seconds", "When the last comparison ended; absent before the first."
)
VALIDATION_MAX_AGE: Final = _gauge(
    "migration_validation_max_age_seconds", "How old the last comparison may be for a cutover (spec.validation.maxAge)."
)
FOUND: Final = _gauge(
    "migration_validation_differences", "Rows in which the last comparison found both sides different.", "difference"
)
INCONCLUSIVE: Final = _gauge(
    "migration_validation_inconclusive_rows", "Rows that the last comparison could not decide on."
)

VALIDATION_PHASE: Final = _gauge("validation_phase", "1 for the phase that it is in.", "phase")
DIFFERENCES: Final = _gauge(
    "validation_differences", "Rows that differ, as the comparison stands; absent before it begins.", "difference"
)
UNDECIDED: Final = _gauge("validation_inconclusive_rows", "Rows that could not be decided on, as it stands.")
COMPARED: Final = _gauge("validation_rows_compared", "Rows that were compared.")
COMPARED_PER_SECOND: Final = _gauge("validation_rows_per_second", "Rows a second that are compared.")
COMPARED_ETA: Final = _gauge("validation_eta_seconds", "Time that the comparison still takes; absent if unknown.")
COMPLETED_AT: Final = _gauge("validation_completed_timestamp_seconds", "When it was completed; absent before.")

BACK_PHASE: Final = _gauge("reversesync_phase", "1 for the phase that the way back is in.", "phase")
BACK_LAG: Final = _gauge(
    "reversesync_lag_seconds", "Age of the oldest change not yet back in DynamoDB; absent if unknown."
)
BACK_CHANGES: Final = _gauge("reversesync_changes_applied", "Changes that its worker says it has brought back.")
SLOT_BYTES: Final = _gauge(
    "reversesync_slot_retained_bytes", "Log that the slot holds back on PolarDB; absent if unknown."
)
SLOT_ACTIVE: Final = _gauge("reversesync_slot_active", "1 while somebody reads the slot; absent if unknown.")
SLOT_WARNING: Final = _gauge("reversesync_slot_warning_bytes", "The guard's warnBytes; absent before it is resolved.")
SLOT_LIMIT: Final = _gauge("reversesync_slot_limit_bytes", "The guard's limitBytes; absent before it is resolved.")

CONDITION: Final = _gauge(
    "resource_condition", "A condition, gates too: 1 is True, 0 is False, -1 is Unknown.", "condition", of=_KIND
)
RECONCILED_AT: Final = _gauge(
    "resource_reconciled_timestamp_seconds",
    "When the last pass over the resource came to its end; before that of the first, when that began.",
    of=_KIND,
)

WORKERS: Final = _gauge("worker_running", "Workers of a task that run.", of=_TASK)
HEARTBEAT: Final = _gauge(
    "worker_last_report_timestamp_seconds",
    "When the running worker that has been silent for longest reported, or was started if it never has.",
    of=_TASK,
)
FAILURES: Final = _gauge("worker_failures_in_a_row", "How often in a row a worker of the task has failed.", of=_TASK)
WRITTEN_ROWS: Final = _counter("worker_rows_written_total", "Rows that workers have written.")
WRITTEN_BYTES: Final = _counter("worker_written_bytes_total", "Bytes of rows that workers have written.")
TRANSACTIONS: Final = _counter("worker_transactions_total", "Transactions that workers have committed.")
CONNECTIONS: Final = _counter("worker_connections_opened_total", "Connections to the target that workers have opened.")
RETRIES: Final = _counter(
    "worker_retries_total",
    "Tries that workers made again, by side (source, target) and reason: conflict (the target's optimistic concurrency "
    "control), throttled, or other.",
    "side",
    "reason",
)

LEADER: Final = _gauge("leader", "1 while this process holds the Lease.", of=())
SECONDS: Final = Figure("whimbrel_reconcile_seconds", "histogram", "Seconds that a pass took.", ("kind",))
ERRORS: Final = _counter(
    "reconcile_errors_total", "Passes that failed, by what went wrong.", "error", of=("kind",)
)  # fmt: skip

MIGRATION: Final = (
    PHASE, EPOCH, TABLES, TABLES_COPIED, TABLES_STOPPED, ROWS, ROWS_COPIED, BYTES_COPIED, ROWS_PER_SECOND, ETA, LAG,
    FETCH_LAG, LAG_THRESHOLD, QUIET, CHANGES, COLLECTED, DEADLINE, RETENTION, VALIDATED_AT, VALIDATION_MAX_AGE, FOUND,
    INCONCLUSIVE,
)  # fmt: skip
VALIDATION: Final = (
    VALIDATION_PHASE, DIFFERENCES, UNDECIDED, COMPARED, COMPARED_PER_SECOND, COMPARED_ETA, COMPLETED_AT,
)  # fmt: skip
WAY_BACK: Final = (BACK_PHASE, BACK_LAG, BACK_CHANGES, SLOT_BYTES, SLOT_ACTIVE, SLOT_WARNING, SLOT_LIMIT)
ANY_KIND: Final = (CONDITION, RECONCILED_AT)
WORKER: Final = (
    WORKERS, HEARTBEAT, FAILURES, WRITTEN_ROWS, WRITTEN_BYTES, TRANSACTIONS, CONNECTIONS, RETRIES,
)  # fmt: skip
OF_RESOURCES: Final = (*MIGRATION, *VALIDATION, *WAY_BACK, *ANY_KIND, *WORKER)
"""Those of resources: made anew for each scrape, and gone with the resource."""
OF_THE_PROCESS: Final = (SECONDS, ERRORS, LEADER)
ALL: Final = (*OF_RESOURCES, *OF_THE_PROCESS)
