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

    category: ErrorCategory = Field(description="What kind of failure it is.")
    what: str = Field(max_length=4096, description="What happened.")
    where: str = Field(default="", max_length=1024, description="To which table, where that is known.")
    why: str = Field(default="", max_length=4096, description="Why.")
    todo: str = Field(default="", max_length=4096, description="What to do.")

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

    step: str = Field(description="The step's name.")
    detail: str = Field(default="", description="What was seen.")
    recorded_at: Moment = Field(description="When, by the target's clock.")


class Record(Model):
    """What the target's control tables say of a migration; the truth that status mirrors.

    `acknowledged`: the newest of a cutover's steps that were proven, the oldest first. They stand apart from `journal`,
    so that none of many attempts crowds a milestone out.
    """

    exists: bool = Field(default=False, description="Whether the target has control tables for it.")
    source_id: str = Field(default="", description="Which source it is, as that itself says.")
    epoch: int = Field(default=0, description="The epoch; workers of another one cannot write.")
    plan_attempt: int = Field(default=1, description="The plan's attempt.")
    start_position: str = Field(default="", description="The position that was taken before the first read.")
    stream_position: str = Field(default="", description="The position up to which the stream has come.")
    snapshot_complete: bool = Field(default=False, description="Whether the copy is whole.")
    chunks_total: int = Field(default=0, description="How many chunks the copy has.")
    chunks_done: int = Field(default=0, description="How many of them are copied.")
    validated_through: str = Field(default="", description="The position that the last comparison speaks of.")
    journal: list[JournalEntry] = Field(default=[], max_length=100, description="The newest milestones.")
    acknowledged: list[Acknowledgement] = Field(
        default=[], max_length=KEPT, description="The newest proven steps of a cutover, the oldest first."
    )

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

    name: str = Field(max_length=255, description="The table.")
    items: int = Field(default=0, description="How many items it has.")
    size_bytes: int = Field(default=0, description="How large it is.")
    key: list[str] = Field(default=[], max_length=2, description="Its key, in words.")
    indexes: list[str] = Field(default=[], max_length=50, description="Its indexes, in words.")
    billing_mode: str = Field(default="", description="How its capacity is paid for.")
    read_units: int = Field(default=0, description="Its read capacity; 0 on demand.")
    write_units: int = Field(default=0, description="Its write capacity; 0 on demand.")
    ttl_attribute: str = Field(default="", description="The attribute by which items expire, if there is one.")
    stream: str = Field(default="", description="Its stream's view type, or disabled.")
    copy_seconds: float = Field(default=0.0, description="How long its copy takes by its own, as an estimate.")


class PreflightResult(Model):
    """What the pre-flight found; `warnings` are things that will not be carried, `assessment` the largest tables."""

    source_id: str = Field(description="Which source it is, as that itself says.")
    source_version: str = Field(default="", description="The source's version.")
    target_version: str = Field(default="", description="The target's version.")
    write_path: str = Field(default="", description="How rows can be written.")
    warnings: list[str] = Field(default=[], max_length=200, description="What will not be carried.")
    assessment: list[TableAssessment] = Field(default=[], max_length=100, description="The largest tables.")
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

    position: str = Field(default="", description="Up to where the target has everything.")
    quiet: bool = Field(
        default=False, description="Whether a log without a provable end has given nothing for a while."
    )
    lag_seconds: float | None = Field(
        default=None, description="How far the target is behind; null where that is not known."
    )
    lag_observed_at: Moment | None = Field(default=None, description="When that was measured.")
    fetch_lag_seconds: float | None = Field(
        default=None, description="Age of the oldest commit that was not read yet, at most."
    )
    changes_applied: int = Field(default=0, description="How many changes were applied.")
    last_change_time: Moment | None = Field(default=None, description="When the newest of them was committed.")
    end_of_log_at: Moment | None = Field(
        default=None, description="When the target was last proven to hold the whole log."
    )
    drained_to: str = Field(default="", description="The position of a drain that was reached.")
    collected_bytes: int = Field(default=0, description="While the copy runs: what was read onto the spool's volume.")
    retention_deadline: Moment | None = Field(
        default=None, description="Until when the source's log certainly keeps what comes next."
    )
    retention_seconds: float | None = Field(default=None, description="How long the source's log keeps a change.")


class SlotReport(Model):
    """A replication slot as the server reports it. `retained_bytes`: how much of the log it holds back."""

    name: str = Field(default="", description="The slot's name.")
    active: bool = Field(default=False, description="Whether somebody reads it.")
    wal_status: str = Field(default="", description="The server's own word for how safe its log is.")
    retained_bytes: int | None = Field(default=None, description="How much of the log it holds back.")


class UnreadLog(Model):
    """Changes that stand in a slot's log and that nobody took.

    `first`, `last`: where their commit records start, such as 0/16B3748; `more`: others may stand behind these.
    `unknown`: why it could not be looked at.
    """

    changes: int = Field(default=0, description="How many changes.")
    first: str = Field(default="", max_length=64, description="Where the first one's commit starts, such as 0/16B3748.")
    last: str = Field(default="", max_length=64, description="Where the last one's commit starts.")
    tables: list[str] = Field(default=[], max_length=20, description="The tables that they are in.")
    more: bool = Field(default=False, description="Whether others may stand behind these.")
    unknown: str = Field(default="", max_length=1024, description="Why it could not be looked at.")


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

    armed: bool = Field(default=False, description="Whether slot, publication and kept position are there.")
    slot: SlotReport = SlotReport()
    position: str = Field(default="", description="Up to where DynamoDB has everything.")
    end_of_log: str = Field(default="", description="The end of the server's log.")
    drained_to: str = Field(default="", description="The position that DynamoDB holds.")
    lag_seconds: float | None = Field(
        default=None, description="How far DynamoDB is behind; null where that is not known."
    )
    lag_observed_at: Moment | None = Field(default=None, description="When that was measured.")
    changes_applied: int = Field(default=0, description="How many changes were written.")
    last_change_time: Moment | None = Field(default=None, description="When the newest of them was committed.")
    last_change_position: str = Field(
        default="", description="Where the newest commit of a change starts that was heard of."
    )
    unread: UnreadLog | None = Field(default=None, description="What stands in the log unread.")
    proven_at: Moment | None = Field(default=None, description="Everything committed before has come.")
    quiet_seconds: float | None = Field(default=None, description="For how long nothing had been committed then.")
    held: bool = Field(default=False, description="Whether it takes no more, for a rollback.")
    problems: list[str] = Field(default=[], max_length=20, description="What keeps the way back from beginning.")
    left_behind: list[str] = Field(default=[], max_length=20, description="What could not be taken away.")
    warnings: list[str] = Field(default=[], max_length=50, description="What is worth knowing.")


class CheckReport(Model):
    """What a comparison found. `rows_known`: how many items there were when the source last counted them.

    Of those a sample takes its part; 0 for tables of rows, or where they were not counted yet.
    """

    result: CheckResult | None = Field(
        default=None, description="Equal, Different or Inconclusive; absent until it has ended."
    )
    differences: Differences = Differences()
    inconclusive: int = Field(default=0, description="Rows that changed too fast to be compared.")
    rows_compared: int = Field(default=0, description="How many rows were compared.")
    sampled: bool = Field(default=False, description="Whether only a sample was compared.")
    rows_known: int = Field(default=0, description="How many items there were when the source last counted them.")
    rows_total: int = Field(default=0, description="How many rows are to be compared.")
    tables_compared: int = Field(default=0, description="How many tables were compared.")
    tables_total: int = Field(default=0, description="How many tables there are.")
    validated_through: str = Field(default="", description="The source's position that the result speaks of.")
    report_file: str = Field(default="", description="The file with the differences.")
    examples: list[str] = Field(
        default=[], max_length=20, description="Some of the rows that differ, without their values."
    )


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

    position: str = Field(default="", description="Where the source came to rest; empty while it has not.")
    quiet_seconds: float = Field(default=0.0, description="For how long it has been quiet.")
    last_position: str = Field(default="", description="The newest position that was seen.")
    tables: dict[str, int] = Field(
        default={}, max_length=100, description="How many rows were written after the rest, by table."
    )
    unread: str = Field(default="", max_length=4096, description="Why the source could not be looked at.")


class Counters(Model):
    """What a worker has done since it started. `retries` and the like are the target's, `source_…` the source's."""

    rows: int = Field(default=0, description="Rows written.")
    bytes: int = Field(default=0, description="Bytes of them.")
    transactions: int = Field(default=0, description="Transactions in the target.")
    retries: int = Field(default=0, description="Tries that the target made necessary.")
    conflicts: int = Field(default=0, description="Conflicts with other writers of the target.")
    connections: int = Field(default=0, description="Connections to the target opened.")
    throttled: int = Field(default=0, description="Times that the target asked to be slower.")
    source_retries: int = Field(default=0, description="Tries that the source made necessary.")
    source_throttled: int = Field(default=0, description="Times that the source asked to be slower.")


class WorkerReport(Model):
    """The newest word of one worker. The operator reads at most one per worker.

    `acknowledged`: the steps of a cutover that this worker found in the target's journal, or wrote there itself.
    `started_at`: when this process began; its counters count from then.
    """

    task: TaskKind = Field(description="What the worker does.")
    task_id: str = Field(description="The task that it works on.")
    index: int = Field(default=0, description="Which of the task's workers it is.")
    state: WorkerState = Field(default=WorkerState.STARTING, description="Where it stands.")
    epoch: int = Field(default=0, description="The epoch that it holds.")
    attempt: int = Field(default=0, description="Its attempt; a successor has a higher one.")
    counters: Counters = Counters()
    tables: list[TableStatus] = Field(default=[], max_length=100, description="One entry for each table, at most 100.")
    tables_total: int = Field(default=0, description="How many tables there are.")
    tables_done: int = Field(default=0, description="How many are done.")
    rows_total: int = Field(default=0, description="How many rows there are, by the source's estimate.")
    rows_done: int = Field(default=0, description="How many are done, by all workers of the task.")
    last_error: ReportedError | None = Field(default=None, description="Its last failure.")
    observed_at: Moment = Field(description="When this was written.")
    preflight: PreflightResult | None = None
    record: Record | None = None
    stream: StreamResult | None = None
    check: CheckReport | None = None
    freeze: FreezeResult | None = None
    reverse: ReverseResult | None = None
    acknowledged: list[Acknowledgement] = Field(
        default=[],
        max_length=KEPT,
        description="The steps of a cutover that it found in the target's journal, or wrote there.",
    )
    started_at: Moment | None = Field(
        default=None, description="When this process began; the counters count from then."
    )
    writers: TargetWriters | None = None
