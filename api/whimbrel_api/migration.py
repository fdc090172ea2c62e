"""The Migration resource: what a user asks for and what the operator reports. How it is done stands elsewhere."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from whimbrel_api.base import (
    API_VERSION,
    Condition,
    Duration,
    Glob,
    Identifier,
    Identifier255,
    Model,
    Moment,
    Name,
    ObjectMeta,
    Within,
)
from whimbrel_api.cutover import Cutover, CutoverStatus, TargetWriters, WayBackStatus
from whimbrel_api.endpoints import PolarDBSource, Source, Target
from whimbrel_api.layout import Layout, OnTruncate, SlotGuard


class Mode(StrEnum):
    """A full copy with or without the stream behind it."""

    SNAPSHOT_AND_STREAM = "SnapshotAndStream"
    SNAPSHOT_ONLY = "SnapshotOnly"


class ColumnOverride(Model):
    """Another target type for one column."""

    name: Identifier = Field(description="The column of the source.")
    type: str = Field(min_length=1, max_length=200, description="The type on the target, such as bigint.")


TypedValue = Annotated[
    str, Field(min_length=2, max_length=1024, description='DynamoDB-typed JSON as text, such as {"S": "open"}.')
]


class ItemFilter(Model):
    """A DynamoDB FilterExpression: items that do not fit are not copied. Values are DynamoDB-typed JSON as text."""

    expression: str = Field(
        min_length=1, max_length=4096, description="DynamoDB's filter expression, such as `#s = :open`."
    )
    names: dict[str, Identifier255] = Field(default={}, max_length=20, description="What #names stand for.")
    values: dict[str, TypedValue] = Field(default={}, max_length=20, description="What :values stand for.")


class TableOverride(Model):
    """What is different for one table: its key, its name on the target, its column types."""

    name: Glob = Field(description="The tables that it is for: a glob over database.table, such as `shop.*`.")
    primary_key: list[Identifier] = Field(
        default=[], max_length=8, description="The columns that make the key; the source's own key when empty."
    )
    rename_to: str = Field(
        default="", max_length=128, description="The table's name on the target, such as public.events."
    )
    columns: list[ColumnOverride] = Field(default=[], max_length=255, description="Columns with another type.")
    filter: ItemFilter | None = Field(default=None, description="Which items of a DynamoDB table move.")


class Tables(Model):
    """Which tables move. Globs over `database.table`; exclude wins; everything when include is empty."""

    include: list[Glob] = Field(default=[], max_length=1000, description="What moves; everything when empty.")
    exclude: list[Glob] = Field(default=[], max_length=1000, description="What stays, even where it is included.")
    overrides: list[TableOverride] = Field(
        default=[], max_length=1000, description="What is different for some tables; the first that fits counts."
    )


class SchemaMode(StrEnum):
    """Whether missing target tables are made."""

    CREATE_IF_MISSING = "CreateIfMissing"
    EXISTING = "Existing"
    RECREATE = "Recreate"


class Schema(Model):
    """How the target's tables come to be. `Recreate` drops those named in `recreate` first; the others are as usual."""

    mode: SchemaMode = Field(
        default=SchemaMode.CREATE_IF_MISSING,
        description="Make missing tables; or take them as they are; or drop those in `recreate` and make them anew.",
    )
    recreate: list[Identifier255] = Field(
        default=[], max_length=1000, description="The target's tables that are dropped and made anew, each by its name."
    )


class RateLimit(Model):
    """An upper bound over all workers of the task together."""

    rows_per_second: Annotated[int, Field(ge=1, le=100_000_000, description="Rows per second.")] = Field(
        description="Rows per second."
    )


class CapacityLimit(Model):
    """An upper bound in DynamoDB's capacity units over all workers of the task together."""

    read_units_per_second: int | None = Field(default=None, ge=1, description="Read units of the source.")
    write_units_per_second: int | None = Field(default=None, ge=1, description="Write units of the target.")


class Snapshot(Model):
    """How the copy is shared out. `rateLimit` and `capacityLimit` are for all workers together."""

    workers: int = Field(default=2, ge=1, le=64, description="How many processes share the copy.")
    tables_in_parallel: int = Field(default=4, ge=1, le=64, description="How many tables are copied at a time.")
    chunk_rows: int = Field(
        default=50_000, ge=100, le=10_000_000, description="How many rows a worker takes at a time."
    )
    rate_limit: RateLimit | None = Field(default=None, description="The most rows per second, all workers together.")
    capacity_limit: CapacityLimit | None = Field(
        default=None, description="The most of DynamoDB's capacity units per second, all workers together."
    )


class TtlDeletes(StrEnum):
    """What becomes of items that DynamoDB deletes by their time to live."""

    CARRY = "Carry"
    SKIP = "Skip"


class NewTables(StrEnum):
    """What becomes of tables that come into being during the migration."""

    ADD = "Add"
    REPORT = "Report"


class Spool(Model):
    """Where changes are kept during a copy that outlasts the source's own log."""

    claim_name: Name = Field(
        description="A PersistentVolumeClaim in this namespace; ReadWriteMany with more than one stream worker."
    )


class Stream(Model):
    """How changes are applied. `checkpointInterval` holds while the source is idle."""

    workers: int = Field(
        default=1, ge=1, le=64, description="How many processes share the shards; one where the log has none."
    )
    ttl_deletes: TtlDeletes = Field(
        default=TtlDeletes.CARRY,
        description="What becomes of items that DynamoDB deletes by their time to live: carried, or left out.",
    )
    new_tables: NewTables = Field(
        default=NewTables.REPORT, description="What becomes of DynamoDB tables made later: taken in, or told of."
    )
    spool: Spool | None = Field(
        default=None, description="A volume into which changes are read during the copy, for one of more than a day."
    )
    flush_interval: Annotated[Duration, Within("1ms", "1m")] = Field(
        default="200ms", description="How long changes are gathered before they are written to the target."
    )
    checkpoint_interval: Annotated[Duration, Within("100ms", "1h")] = Field(
        default="6s", description="How often the position is kept while none of the tables changes; else every second."
    )
    apply_connections: int = Field(default=4, ge=1, le=32, description="How many connections apply changes.")
    retention_guard: float = Field(
        default=0.8, gt=0, le=1, description="The share of the log's retention after which the lag is an alarm."
    )


class Thresholds(Model):
    """What counts as good enough."""

    lag: Annotated[Duration, Within("1ms", "24h")] = Field(
        default="5s", description="How far the target may be behind for a cutover to begin."
    )
    differences: int = Field(default=0, ge=0, description="In how many rows source and target may differ.")
    samples: int = Field(default=3, ge=1, le=100, description="In how many readings in a row the lag must hold.")


CheckMode = Literal["Full", "Sample"]
SampleRows = Annotated[int, Field(ge=1, le=10_000_000, description="How many items of each table a sample takes.")]


class ValidationPolicy(Model):
    """The comparison that a cutover asks for. `maxAge` is how old its result may be.

    With `Sample` a cutover may begin on the word of a sample; the final check reads every item all the same.
    """

    mode: CheckMode = Field(default="Full", description="Every row, or a sample of a DynamoDB table's items.")
    sample_rows: SampleRows = 1000
    max_age: Annotated[Duration, Within("1s", "720h")] = Field(
        default="1h", description="How old the comparison's result may be when a cutover begins."
    )


class ReverseSyncPolicy(Model):
    """The way back after a cutover."""

    enabled: bool = Field(
        default=False, description="Whether changes flow back after the cutover. Only where a way back exists."
    )
    polardb: PolarDBSource | None = Field(default=None, description="The server behind the target's endpoint.")
    layout: Layout = Field(default=Layout(), description="How items stand in the server's tables.")
    guard: SlotGuard = SlotGuard()
    on_truncate: OnTruncate = Field(
        default=OnTruncate.STOP,
        description="What becomes of a TRUNCATE on the server, which names no items: stop, or pass it over.",
    )
    fenced_writes: bool = Field(
        default=False, description="Whether each write back to DynamoDB checks the epoch in its transaction."
    )


class MigrationSpec(Model):
    """What a user asks for."""

    mode: Mode = Field(
        default=Mode.SNAPSHOT_AND_STREAM,
        description="SnapshotAndStream follows the source until a cutover; SnapshotOnly copies once and ends.",
    )
    source: Source
    target: Target
    tables: Tables = Tables()
    schema_: Schema = Field(default=Schema(), alias="schema", description="How the target's tables come to be.")
    snapshot: Snapshot = Field(default=Snapshot(), description="How the copy is shared out.")
    stream: Stream = Field(default=Stream(), description="How changes are applied.")
    thresholds: Thresholds = Thresholds()
    validation: ValidationPolicy = Field(
        default=ValidationPolicy(), description="The comparison that a cutover asks for."
    )
    cutover: Cutover = Cutover()
    reverse_sync: ReverseSyncPolicy = ReverseSyncPolicy()
    paused: bool = Field(default=False, description="Hold the work; the position is kept.")
    cancel: bool = Field(default=False, description="End the migration for good; the data stay in the target.")
    retire: bool = Field(
        default=False,
        description="Once it is Completed or Cancelled: put streams back and drop the control tables' rows of it.",
    )


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


class Plan(Model):
    """What an approval is given for. The attempt is kept in the target."""

    hash: str = Field(
        default="",
        description="What `cutover.approvedPlan` names; another one once the plan is another.",
    )
    attempt: int = Field(default=1, description="It grows with every cutover that timed out or was rolled back.")


class SnapshotStatus(Model):
    """The copy in figures; `eta` in seconds."""

    tables_total: int = Field(default=0, description="How many tables are copied.")
    tables_done: int = Field(default=0, description="How many are copied whole.")
    rows_total: int = Field(default=0, description="How many rows there are, by the source's estimate.")
    rows_copied: int = Field(default=0, description="How many rows are in the target.")
    bytes_copied: int = Field(default=0, description="How many bytes were copied.")
    rows_per_second: float = Field(default=0.0, description="How fast the copy is now.")
    eta: float | None = Field(
        default=None, description="How many seconds it still takes; null where that is not known."
    )


class StreamStatus(Model):
    """The change stream in figures. `lagSeconds` is null when it is not known."""

    position: str = Field(
        default="", max_length=16384, description="Up to where the target has everything, as the source counts."
    )
    lag_seconds: float | None = Field(
        default=None,
        description="How far the target is behind; null where that is not known, 0 only where the log's end is proven.",
    )
    lag_observed_at: Moment | None = Field(default=None, description="When that was measured.")
    quiet: bool = Field(
        default=False, description="No shard has given a change for a while; DynamoDB Streams cannot prove more."
    )
    changes_applied: int = Field(default=0, description="How many changes its worker has applied.")
    collected_bytes: int = Field(default=0, description="While the copy runs: what was read onto the spool's volume.")
    last_change_time: Moment | None = Field(
        default=None, description="When the newest of them was committed on the source."
    )
    retention_deadline: Moment | None = Field(
        default=None, description="Until when the source's log certainly keeps what comes next."
    )
    retention_seconds: float | None = Field(default=None, description="How long the source's log keeps a change.")


class Differences(Model):
    """Rows that differ, by kind."""

    missing: int = Field(default=0, description="Rows that the target lacks.")
    extra: int = Field(default=0, description="Rows that only the target has.")
    changed: int = Field(default=0, description="Rows whose values differ.")

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

    name: str = Field(default="", description="Which comparison it was.")
    result: CheckResult | None = Field(default=None, description="Its result; the last two block a cutover.")
    differences: Differences = Differences()
    inconclusive: int = Field(default=0, description="Rows that changed too fast to be compared.")
    rows_compared: int = Field(default=0, description="How many rows were compared.")
    tables_compared: int = Field(default=0, description="0 where they were not counted.")
    tables_total: int = Field(default=0, description="How many tables there were.")
    took_seconds: float | None = Field(default=None, description="From the order to start its worker to the result.")
    start_seconds: float | None = Field(default=None, description="Of that, until its worker ran.")
    sampled: bool = Field(default=False, description="Whether only a sample was compared.")
    compared: str = Field(default="", max_length=300, description="What was compared, where it was not every row.")
    validated_through: str = Field(
        default="", max_length=16384, description="The source's position that the result speaks of."
    )
    completed_at: Moment | None = Field(default=None, description="When it ended.")


class Checkpoint(Model):
    """A mirror of the target's own checkpoint, never ahead of it."""

    position: str = Field(
        default="", max_length=16384, description="The position in the source's log that the target has kept."
    )
    snapshot: str = Field(
        default="", max_length=1024, description="How much of the copy the target has kept, such as 12/40 chunks."
    )
    recorded_at: Moment | None = Field(default=None, description="When that was reported.")


class TableStatus(Model):
    """One table. `state`: Pending, Copying, Copied, Following, Stopped."""

    name: str = Field(description="The table.")
    state: str = Field(description="Pending, Copying, Copied, Following or Stopped.")
    rows_total: int = Field(default=0, description="How many rows it has, by the source's estimate.")
    rows_copied: int = Field(default=0, description="How many of them are in the target.")
    differences: int | None = Field(
        default=None, description="How many rows the last comparison found different; null where it did not look."
    )
    message: str = Field(default="", max_length=4096, description="Why it has stopped, and what to do.")


class MigrationStatus(Model):
    """What the operator reports. Rebuilt from the target's control tables when it is lost."""

    observed_generation: int = Field(default=0, description="The generation of the spec that the status speaks of.")
    phase: Phase = Phase.PENDING
    progress: str = Field(default="", description="How much of the rows is copied, such as 42%.")
    lag: str = Field(default="", description="stream.lagSeconds for a reader: 0.4s, 3m20s, quiet, unknown.")
    remaining: str = Field(default="", description="snapshot.eta for a reader: 21m5s.")
    conditions: list[Condition] = Field(
        default=[], max_length=32, description="What holds and what does not, each with reason and message."
    )
    plan: Plan = Plan()
    epoch: int = Field(default=0, description="The fence: workers of another epoch cannot write.")
    write_path: str = Field(
        default="",
        description="How rows are written: copy, unnest or values; to DynamoDB batch or transaction. Probed once.",
    )
    snapshot: SnapshotStatus = SnapshotStatus()
    stream: StreamStatus = StreamStatus()
    validation: MigrationValidationStatus = MigrationValidationStatus()
    checkpoint: Checkpoint = Checkpoint()
    cutover: CutoverStatus = CutoverStatus()
    way_back: WayBackStatus = WayBackStatus()
    target_writers: TargetWriters = TargetWriters()
    tables: list[TableStatus] = Field(
        default=[], max_length=100, description="One entry for each table, at most 100, the worst first."
    )


class Migration(Model):
    """A live database on its way from a source to a target."""

    api_version: Literal["whimbrel.dev/v1alpha1"] = API_VERSION
    kind: Literal["Migration"] = "Migration"
    metadata: ObjectMeta
    spec: MigrationSpec
    status: MigrationStatus = MigrationStatus()
