"""Task files and orders: how the operator speaks to a worker. What a worker answers stands in reports."""

from enum import IntEnum, StrEnum

from pydantic import Field

from whimbrel_api.acknowledgements import Proof
from whimbrel_api.base import Model, Moment, Name
from whimbrel_api.cutover import FreezePolicy
from whimbrel_api.endpoints import Source, Target
from whimbrel_api.layout import Layout, OnTruncate, SlotGuard
from whimbrel_api.migration import CheckMode, Mode, SampleRows, Schema, Snapshot, Stream, Tables
from whimbrel_api.validation import Recheck, Report


class TaskKind(StrEnum):
    """One file each in the worker's tasks folder."""

    PREFLIGHT = "preflight"
    SCHEMA = "schema"
    SNAPSHOT = "snapshot"
    STREAM = "stream"
    CHECK = "check"
    FREEZE = "freeze"
    FENCE = "fence"
    INSPECT = "inspect"
    UNFREEZE = "unfreeze"
    REVERSE = "reverse"
    DISARM = "disarm"
    RETIRE = "retire"


class ExitCode(IntEnum):
    """What a worker's exit status means (design: the house, Processes)."""

    DONE = 0
    FAILED = 1
    CONFIGURATION = 2
    SOURCE_LOG_LOST = 3
    FENCED_OUT = 4
    TOLD_TO_STOP = 5


class CheckScope(StrEnum):
    """A whole comparison, or the keys changed since a position, with counts."""

    FULL = "Full"
    FINAL = "Final"


class CheckOptions(Model):
    """For the check task. `since` and `through` are positions; a final check looks at the keys changed between them.

    Where a log cannot name the keys between two positions (DynamoDB Streams) a final check is a whole one.
    """

    scope: CheckScope = CheckScope.FULL
    mode: CheckMode = "Full"
    sample_rows: SampleRows = 1000
    since: str = ""
    through: str = ""
    recheck: Recheck = Recheck()
    report: Report = Report()
    report_file: str = ""
    rows_per_second: int | None = None


class SchemaStage(StrEnum):
    """Tables come before the copy; secondary indexes after the stream has passed the copy's end.

    Between the first read and the position after the last one the copy may hold a unique value twice.
    """

    TABLES = "Tables"
    INDEXES = "Indexes"


class FreezeOptions(Model):
    """For freeze: how long the source must have been quiet, in seconds, and how its writers are stopped, if at all.

    `since`: where it had come to rest before; what was written after it is named by table. `plan_attempt`: the plan's
    attempt that this belongs to; an unfreeze ends that attempt, so that no late freeze of it is carried out.
    """

    quiet_seconds: float = 3.0
    stop_writes: FreezePolicy | None = None
    since: str = ""
    plan_attempt: int = 0


class FenceOptions(Model):
    """For the fence task: what is written into the journal with the raised epoch.

    `step` is `sealed`, `switched`, `timed-out`, `rolled-back` or `cancelled`. `plan_attempt` is the plan's attempt from
    then on (0: unchanged). A seal or a switch of an attempt that the target has left behind is refused, and so is a
    rollback of anything but the attempt that was switched; that one also fixes where the forward stream begins anew.

    Where the task has `freeze.since`, a seal or a switch looks at the source first: if anything was written after that
    position it is refused, and the task done all the same. `look_until`: from then on it is refused as well where the
    source cannot be looked at; None for never.
    """

    step: str = "switched"
    detail: str = ""
    plan_attempt: int = 0
    look_until: Moment | None = None


class WritersOptions(Model):
    """For inspect, and for a look at a way back: whether to say who else may write to the target; `allowed` may."""

    look: bool = False
    allowed: list[str] = Field(default=[])


class ReverseOptions(Model):
    """For the tasks of a way back, whose source is PolarDB and whose target is DynamoDB.

    `owner` tells one ReverseSync from all others, such as namespace/name/uid: what it makes bears that mark. Names are
    made up from it where they are empty. `cleanup` says what disarming takes away. `last_look`: disarming tells what
    stands in the slot unread, as after a rollback.
    """

    owner: str = ""
    slot_name: str = ""
    publication_name: str = ""
    create_publication: bool = True
    layout: Layout = Layout()
    guard: SlotGuard = SlotGuard()
    on_truncate: OnTruncate = OnTruncate.STOP
    checkpoint_interval: str = "3s"
    drop_slot: bool = True
    drop_publication: bool = True
    last_look: bool = False


class ReportResource(Model):
    """The WorkerReport that a worker on a cluster reports to and takes its orders from: `<name>-<index>`.

    `access` is a folder with the files `token` and `ca.crt`, read anew at every use, because tokens expire.
    """

    namespace: Name
    name: Name
    access: str


class TaskFile(Model):
    """All that one worker needs. Secrets are directories of files, by Secret name; nothing secret stands in here.

    `epoch` is the one the operator last saw in the target; 0 where it is not known yet. Relative paths are relative to
    the task file's own folder. A worker reports to `report_resource` where that is given, else to `report_file`, and
    takes its orders from the same place. `index` is overruled by the environment's JOB_COMPLETION_INDEX, because all
    pods of a Job read one file. With `look_only` a pre-flight makes no control tables. `spool` is the folder where the
    stream keeps changes of its own, empty for none; with `collect` it only reads into it and applies nothing.
    `proof`: the step of a cutover that this task proves; the stream has that with its orders.
    """

    task: TaskKind
    task_id: str
    migration: str = Field(pattern=r"^[^/]+/[^/]+$")
    index: int = Field(default=0, ge=0)
    workers: int = Field(default=1, ge=1)
    epoch: int = Field(default=0, ge=0)
    look_only: bool = False
    mode: Mode = Mode.SNAPSHOT_AND_STREAM
    source: Source
    target: Target
    tables: Tables = Tables()
    schema_: Schema = Field(default=Schema(), alias="schema")
    schema_stage: SchemaStage = SchemaStage.TABLES
    snapshot: Snapshot = Snapshot()
    stream: Stream = Stream()
    check: CheckOptions = CheckOptions()
    freeze: FreezeOptions = FreezeOptions()
    fence: FenceOptions = FenceOptions()
    reverse: ReverseOptions = ReverseOptions()
    proof: Proof = Proof()
    writers: WritersOptions = WritersOptions()
    secrets: dict[str, str] = Field(default={})
    report_file: str = ""
    orders_file: str = ""
    report_resource: ReportResource | None = None
    spool: str = ""
    collect: bool = False
    report_interval: float = 2.0


class Orders(Model):
    """Orders to a running worker; absent fields order nothing.

    `drain_to`: bring the target to this position, report at once when it is there, after `proof` was written into the
    target's journal. `retire`: finish, then exit 0.
    `rows_per_second`: the limit over all workers together, 0 for none. `workers`: how many share it now. `hold`: take
    no more until told otherwise, and go on reporting. `disarm`: with `retire`, take away what was made on the server.
    """

    drain_to: str = Field(default="", description="Bring the target to this position, and report at once.")
    proof: Proof = Field(default=Proof(), description="What to write into the target's journal when it is there.")
    retire: bool = Field(default=False, description="Finish, then exit with 0.")
    hold: bool = Field(default=False, description="Take no more until told otherwise; go on reporting.")
    disarm: bool = Field(default=False, description="With `retire`: take away what was made on the server.")
    rows_per_second: int | None = Field(
        default=None, ge=0, description="The limit over all workers together; 0 for none."
    )
    workers: int | None = Field(default=None, ge=1, description="How many share the task now.")

    def share(self, limit: int | None, workers: int) -> float | None:
        """One worker's part of the rows per second, orders before the task file's figures; None without a limit."""
        total = limit if self.rows_per_second is None else self.rows_per_second
        return max(total / (self.workers or workers), 1.0) if total else None
