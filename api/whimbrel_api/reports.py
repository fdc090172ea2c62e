"""Worker reports: how a worker answers the operator. Bounded, without secrets, mirrored into status by the operator."""

from enum import StrEnum
from typing import Final

from pydantic import Field

from whimbrel_api.acknowledgements import KEPT, Acknowledgement
from whimbrel_api.base import Model, Moment
from whimbrel_api.cutover import TargetWriters
from whimbrel_api.migration import CheckResult, Differences, TableStatus
from whimbrel_api.tasks import TaskKind


class WorkerState(StrEnum):
    """Where a worker stands."""

    STARTING = "Starting"
    RUNNING = "Running"
    DONE = "Done"
    FAILED = "Failed"
    STOPPED = "Stopped"


class ErrorCategory(StrEnum):
    """What kind of failure it is, and so what the operator does about it."""

    CONFIGURATION = "ConfigurationError"
    SOURCE_LOG_LOST = "SourceLogLost"
    FENCED_OUT = "FencedOut"
    INCOMPATIBLE = "Incompatible"
    TRANSIENT = "Transient"
    UNEXPECTED = "Unexpected"


class ReportedError(Model):
    """A failure for a tired person: what happened, where, why, what to do next."""

    category: ErrorCategory
    what: str = Field(max_length=4096)
    where: str = Field(default="", max_length=1024)
    why: str = Field(default="", max_length=4096)
    todo: str = Field(default="", max_length=4096)

    def sentence(self) -> str:
        """All of it on one line."""
        parts = (self.what, self.where and f"in {self.where}", self.why, self.todo)
        return "; ".join(part for part in parts if part)


FREEZING: Final = "freezing"
UNFREEZING: Final = "unfreezing"
UNFROZEN: Final = "unfrozen"
FREEZE_STEPS: Final = (FREEZING, UNFREEZING, UNFROZEN)
SEALED: Final = "sealed"
SWITCHED: Final = "switched"
TIMED_OUT: Final = "timed-out"
ROLLED_BACK: Final = "rolled-back"
CANCELLED: Final = "cancelled"
REFUSED: Final = "refused"
TRAFFIC_STEPS: Final = (SEALED, SWITCHED, TIMED_OUT, ROLLED_BACK, CANCELLED)
"""The newest of these says where the traffic is, and whether the forward stream may write."""
REPEATED_STEPS: Final = (TIMED_OUT, SEALED, REFUSED, *FREEZE_STEPS)
"""Steps of which a journal may hold many: when not all of it is read, they must not crowd a milestone out."""


class JournalEntry(Model):
    """A step that the target's journal holds: `started`, `schema-ready`, `snapshot-complete`, `indexes-ready`,
    `freezing`, `unfreezing`, `unfrozen`, `sealed`, `switched`, `timed-out`, `rolled-back`, `cancelled`, `refused`."""

    step: str
    detail: str = ""
    recorded_at: Moment


class Record(Model):
    """What the target's control tables say of a migration; the truth that status mirrors.

    `acknowledged`: the newest of a cutover's steps that were proven, the oldest first. They stand apart from `journal`,
    so that none of many attempts crowds a milestone out.
    """

    exists: bool = False
    source_id: str = ""
    epoch: int = 0
    plan_attempt: int = 1
    start_position: str = ""
    stream_position: str = ""
    snapshot_complete: bool = False
    chunks_total: int = 0
    chunks_done: int = 0
    validated_through: str = ""
    journal: list[JournalEntry] = Field(default=[], max_length=100)
    acknowledged: list[Acknowledgement] = Field(default=[], max_length=KEPT)

    def last(self, step: str) -> JournalEntry | None:
        """The newest journal entry of that step."""
        return next((entry for entry in reversed(self.journal) if entry.step == step), None)

    @property
    def traffic(self) -> JournalEntry | None:
        """The newest entry of TRAFFIC_STEPS; None before the first cutover."""
        return next((entry for entry in reversed(self.journal) if entry.step in TRAFFIC_STEPS), None)

    @property
    def verdict(self) -> JournalEntry | None:
        """What became of the newest order to seal or to switch: the newest of `refused` and TRAFFIC_STEPS.

        `refused` has the order's position as its detail, and leaves the traffic where it is.
        """
        return next((entry for entry in reversed(self.journal) if entry.step in (REFUSED, *TRAFFIC_STEPS)), None)

    @property
    def standing_freeze(self) -> JournalEntry | None:
        """What Whimbrel did, or was about to do, to stop the writes to the source, until it is undone.

        Its step is `freezing`, or `unfreezing` while it is being undone; its detail tells how.
        """
        steps = [entry for entry in self.journal if entry.step in FREEZE_STEPS]
        return steps[-1] if steps and steps[-1].step != UNFROZEN else None


class TableAssessment(Model):
    """What a table of items is like, and how long its copy is expected to take by its own.

    Figures as old as the service's own (DynamoDB counts every six hours). `key` and `indexes` in words; units are 0 on
    demand. `stream`: the view type, or `disabled`.
    """

    name: str = Field(max_length=255)
    items: int = 0
    size_bytes: int = 0
    key: list[str] = Field(default=[], max_length=2)
    indexes: list[str] = Field(default=[], max_length=50)
    billing_mode: str = ""
    read_units: int = 0
    write_units: int = 0
    ttl_attribute: str = ""
    stream: str = ""
    copy_seconds: float = 0.0


class PreflightResult(Model):
    """What the pre-flight found; `warnings` are things that will not be carried, `assessment` the largest tables."""

    source_id: str
    source_version: str = ""
    target_version: str = ""
    write_path: str = ""
    warnings: list[str] = Field(default=[], max_length=200)
    assessment: list[TableAssessment] = Field(default=[], max_length=100)
    record: Record = Record()


class StreamResult(Model):
    """Where the stream stands. `end_of_log_at`: when the target was last proven to hold the whole log.

    `quiet`: a log that offers no proof of its end has given nothing for a while, in all of its shards. No lag is
    claimed then; what the target really holds is for a comparison to say. `collected_bytes`: while the copy
    runs, what was read onto the spool's volume. `retention_deadline`: until when the source's log certainly keeps what
    comes next; `retention_seconds`: how long it keeps a change. Both None where it forgets nothing by time.
    `fetch_lag_seconds`: age of the oldest source commit that was not read yet, as an upper bound; None where the log is
    applied as it is read, or where that is not known.
    """

    position: str = ""
    quiet: bool = False
    lag_seconds: float | None = None
    lag_observed_at: Moment | None = None
    fetch_lag_seconds: float | None = None
    changes_applied: int = 0
    last_change_time: Moment | None = None
    end_of_log_at: Moment | None = None
    drained_to: str = ""
    collected_bytes: int = 0
    retention_deadline: Moment | None = None
    retention_seconds: float | None = None


class SlotReport(Model):
    """A replication slot as the server reports it. `retained_bytes`: how much of the log it holds back."""

    name: str = ""
    active: bool = False
    wal_status: str = ""
    retained_bytes: int | None = None


class UnreadLog(Model):
    """Changes that stand in a slot's log and that nobody took.

    `first`, `last`: where their commit records start, such as 0/16B3748; `more`: others may stand behind these.
    `unknown`: why it could not be looked at.
    """

    changes: int = 0
    first: str = Field(default="", max_length=64)
    last: str = Field(default="", max_length=64)
    tables: list[str] = Field(default=[], max_length=20)
    more: bool = False
    unknown: str = Field(default="", max_length=1024)


class ReverseResult(Model):
    """Where a way back stands. `armed`: slot, publication and kept position are there, nothing after them is lost.

    `lag_seconds` counts from a heartbeat that came back through the log; None where none came lately. `drained_to`: the
    ordered position (an LSN such as 0/16B3748) that DynamoDB holds. `left_behind`: what could not be taken away.
    `proven_at`: everything committed before that moment has come, by a heartbeat that came back; `quiet_seconds`: for
    how long nothing had been committed then. Both None where nothing is proven.
    `last_change_position`: where the newest commit record of a change starts that the worker has heard of since its
    start, carried or not; empty where it heard of none. It only grows.
    `unread`: what stands in the log unread, while held for a rollback, or before the slot is dropped after one.
    `held`: told to take no more for a rollback, nothing is on its way to DynamoDB, and the log was looked at since.
    `problems`: of a task that only looks, what keeps the way back from beginning.
    """

    armed: bool = False
    slot: SlotReport = SlotReport()
    position: str = ""
    end_of_log: str = ""
    drained_to: str = ""
    lag_seconds: float | None = None
    lag_observed_at: Moment | None = None
    changes_applied: int = 0
    last_change_time: Moment | None = None
    last_change_position: str = ""
    unread: UnreadLog | None = None
    proven_at: Moment | None = None
    quiet_seconds: float | None = None
    held: bool = False
    problems: list[str] = Field(default=[], max_length=20)
    left_behind: list[str] = Field(default=[], max_length=20)
    warnings: list[str] = Field(default=[], max_length=50)


class CheckReport(Model):
    """What a comparison found. `rows_known`: how many items there were when the source last counted them.

    Of those a sample takes its part; 0 for tables of rows, or where they were not counted yet.
    """

    result: CheckResult | None = None
    differences: Differences = Differences()
    inconclusive: int = 0
    rows_compared: int = 0
    sampled: bool = False
    rows_known: int = 0
    rows_total: int = 0
    tables_compared: int = 0
    tables_total: int = 0
    validated_through: str = ""
    report_file: str = ""
    examples: list[str] = Field(default=[], max_length=20)


def check_passes(result: CheckResult | None, differences: Differences, inconclusive: int, allowed: int) -> bool:
    """Whether a final check lets the cutover pass: nothing inconclusive and differences within the threshold."""
    if inconclusive or result is None or result is CheckResult.INCONCLUSIVE:
        return False
    return result is CheckResult.EQUAL or 0 < differences.total <= allowed


class FreezeResult(Model):
    """The position at which the source came to rest; empty while it has not.

    `tables`: in which tables how many rows were written after the position that the task was given, if it was.
    `unread`: why the source could not be looked at, where a fence was refused for that.
    """

    position: str = ""
    quiet_seconds: float = 0.0
    last_position: str = ""
    tables: dict[str, int] = Field(default={}, max_length=100)
    unread: str = Field(default="", max_length=4096)


class Counters(Model):
    """What a worker has done since it started. `retries` and the like are the target's, `source_…` the source's."""

    rows: int = 0
    bytes: int = 0
    transactions: int = 0
    retries: int = 0
    conflicts: int = 0
    connections: int = 0
    throttled: int = 0
    source_retries: int = 0
    source_throttled: int = 0


class WorkerReport(Model):
    """The newest word of one worker. The operator reads at most one per worker.

    `acknowledged`: the steps of a cutover that this worker found in the target's journal, or wrote there itself.
    `started_at`: when this process began; its counters count from then.
    """

    task: TaskKind
    task_id: str
    index: int = 0
    state: WorkerState = WorkerState.STARTING
    epoch: int = 0
    attempt: int = 0
    counters: Counters = Counters()
    tables: list[TableStatus] = Field(default=[], max_length=100)
    tables_total: int = 0
    tables_done: int = 0
    rows_total: int = 0
    rows_done: int = 0
    last_error: ReportedError | None = None
    observed_at: Moment
    preflight: PreflightResult | None = None
    record: Record | None = None
    stream: StreamResult | None = None
    check: CheckReport | None = None
    freeze: FreezeResult | None = None
    reverse: ReverseResult | None = None
    acknowledged: list[Acknowledgement] = Field(default=[], max_length=KEPT)
    started_at: Moment | None = None
    writers: TargetWriters | None = None
