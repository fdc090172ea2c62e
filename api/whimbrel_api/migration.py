"""The Migration resource: what a user asks for and what the operator reports. How it is done stands elsewhere."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from whimbrel_api.base import API_VERSION, Condition, Duration, Glob, Identifier, Model, Moment, ObjectMeta
from whimbrel_api.endpoints import Source, Target


class Mode(StrEnum):
    """A full copy with or without the stream behind it."""

    SNAPSHOT_AND_STREAM = "SnapshotAndStream"
    SNAPSHOT_ONLY = "SnapshotOnly"


class ColumnOverride(Model):
    """Another target type for one column."""

    name: Identifier
    type: str = Field(min_length=1, max_length=200)


class TableOverride(Model):
    """What is different for one table: its key, its name on the target, its column types."""

    name: Glob
    primary_key: list[Identifier] = Field(default=[], max_length=8)
    rename_to: str = Field(default="", max_length=128)
    columns: list[ColumnOverride] = Field(default=[], max_length=255)


class Tables(Model):
    """Which tables move. Globs over `database.table`; exclude wins; everything when include is empty."""

    include: list[Glob] = Field(default=[], max_length=1000)
    exclude: list[Glob] = Field(default=[], max_length=1000)
    overrides: list[TableOverride] = Field(default=[], max_length=1000)


class SchemaMode(StrEnum):
    """Whether missing target tables are made."""

    CREATE_IF_MISSING = "CreateIfMissing"
    EXISTING = "Existing"


class Schema(Model):
    """How the target's tables come to be."""

    mode: SchemaMode = SchemaMode.CREATE_IF_MISSING


class RateLimit(Model):
    """An upper bound over all workers of the task together."""

    rows_per_second: Annotated[int, Field(ge=1, le=100_000_000)]


class Snapshot(Model):
    """How the copy is shared out. `rateLimit` is for all workers together."""

    workers: int = Field(default=2, ge=1, le=64)
    tables_in_parallel: int = Field(default=4, ge=1, le=64)
    chunk_rows: int = Field(default=50_000, ge=100, le=10_000_000)
    rate_limit: RateLimit | None = None


class Stream(Model):
    """How changes are applied. `checkpointInterval` holds while the source is idle."""

    flush_interval: Duration = "200ms"
    checkpoint_interval: Duration = "6s"
    apply_connections: int = Field(default=4, ge=1, le=32)
    retention_guard: float = Field(default=0.8, gt=0, le=1)


class Thresholds(Model):
    """What counts as good enough."""

    lag: Duration = "5s"
    differences: int = Field(default=0, ge=0)
    samples: int = Field(default=3, ge=1, le=100)


class ValidationPolicy(Model):
    """The comparison that a cutover asks for. `maxAge` is how old its result may be."""

    mode: Literal["Full", "Sample"] = "Full"
    max_age: Duration = "1h"


class CutoverMode(StrEnum):
    """Whether a person approves the plan."""

    MANUAL = "Manual"
    AUTOMATIC = "Automatic"


class SourceFreeze(StrEnum):
    """Who stops the writes to the source."""

    USER = "User"
    OPERATOR = "Operator"


class Cutover(Model):
    """When and how traffic may move. An approval is the hash of the plan it is given for."""

    mode: CutoverMode = CutoverMode.MANUAL
    approved_plan: str = Field(default="", max_length=128)
    source_freeze: SourceFreeze = SourceFreeze.USER
    timeout: Duration = "10m"


class ReverseSyncPolicy(Model):
    """The way back after a cutover."""

    enabled: bool = False


class MigrationSpec(Model):
    """What a user asks for."""

    mode: Mode = Mode.SNAPSHOT_AND_STREAM
    source: Source
    target: Target
    tables: Tables = Tables()
    schema_: Schema = Field(default=Schema(), alias="schema")
    snapshot: Snapshot = Snapshot()
    stream: Stream = Stream()
    thresholds: Thresholds = Thresholds()
    validation: ValidationPolicy = ValidationPolicy()
    cutover: Cutover = Cutover()
    reverse_sync: ReverseSyncPolicy = ReverseSyncPolicy()
    paused: bool = False
    cancel: bool = False


class Phase(StrEnum):
    """How far the data are. Paused and Stalled are conditions, not phases."""

    PENDING = "Pending"
    PREFLIGHT = "Preflight"
    SCHEMA = "Schema"
    SNAPSHOT = "Snapshot"
    CATCH_UP = "CatchUp"
    FOLLOWING = "Following"
    CUTTING_OVER = "CuttingOver"
    COMPLETED = "Completed"
    CANCELLED = "Cancelled"


class CutoverState(StrEnum):
    """How far the traffic is."""

    NOT_READY = "NotReady"
    AWAITING_APPROVAL = "AwaitingApproval"
    FREEZING = "Freezing"
    DRAINING = "Draining"
    FINAL_CHECK = "FinalCheck"
    SWITCHED = "Switched"
    TIMED_OUT = "TimedOut"


class Plan(Model):
    """What an approval is given for. The attempt is kept in the target."""

    hash: str = ""
    attempt: int = 1


class SnapshotStatus(Model):
    """The copy in figures; `eta` in seconds."""

    tables_total: int = 0
    tables_done: int = 0
    rows_total: int = 0
    rows_copied: int = 0
    bytes_copied: int = 0
    rows_per_second: float = 0.0
    eta: float | None = None


class StreamStatus(Model):
    """The change stream in figures. `lagSeconds` is null when it is not known."""

    position: str = Field(default="", max_length=16384)
    lag_seconds: float | None = None
    lag_observed_at: Moment | None = None
    changes_applied: int = 0
    last_change_time: Moment | None = None
    retention_deadline: Moment | None = None


class Differences(Model):
    """Rows that differ, by kind."""

    missing: int = 0
    extra: int = 0
    changed: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.missing + self.extra + self.changed


class CheckResult(StrEnum):
    """The three ends of a comparison; the last two both block a cutover."""

    EQUAL = "Equal"
    DIFFERENT = "Different"
    INCONCLUSIVE = "Inconclusive"


class MigrationValidationStatus(Model):
    """The last comparison."""

    name: str = ""
    result: CheckResult | None = None
    differences: Differences = Differences()
    inconclusive: int = 0
    rows_compared: int = 0
    validated_through: str = Field(default="", max_length=16384)
    completed_at: Moment | None = None


class Checkpoint(Model):
    """A mirror of the target's own checkpoint, never ahead of it."""

    position: str = Field(default="", max_length=16384)
    snapshot: str = Field(default="", max_length=1024)
    recorded_at: Moment | None = None


class CutoverStatus(Model):
    """Where the cutover stands."""

    state: CutoverState = CutoverState.NOT_READY
    freeze_position: str = Field(default="", max_length=16384)
    started_at: Moment | None = None
    completed_at: Moment | None = None
    message: str = Field(default="", max_length=4096)


class TableStatus(Model):
    """One table. `state`: Pending, Copying, Copied, Following, Stopped."""

    name: str
    state: str
    rows_total: int = 0
    rows_copied: int = 0
    differences: int | None = None
    message: str = Field(default="", max_length=4096)


class MigrationStatus(Model):
    """What the operator reports. Rebuilt from the target's control tables when it is lost."""

    observed_generation: int = 0
    phase: Phase = Phase.PENDING
    progress: str = ""
    conditions: list[Condition] = Field(default=[], max_length=32)
    plan: Plan = Plan()
    epoch: int = 0
    write_path: str = ""
    snapshot: SnapshotStatus = SnapshotStatus()
    stream: StreamStatus = StreamStatus()
    validation: MigrationValidationStatus = MigrationValidationStatus()
    checkpoint: Checkpoint = Checkpoint()
    cutover: CutoverStatus = CutoverStatus()
    tables: list[TableStatus] = Field(default=[], max_length=100)


class Migration(Model):
    """A live database on its way from a source to a target."""

    api_version: Literal["whimbrel.dev/v1alpha1"] = API_VERSION
    kind: Literal["Migration"] = "Migration"
    metadata: ObjectMeta
    spec: MigrationSpec
    status: MigrationStatus = MigrationStatus()
