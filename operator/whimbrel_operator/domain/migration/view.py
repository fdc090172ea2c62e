"""One observation as the tables of phases and cutover steps read it: the facts, and what follows from them at once."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from whimbrel_api.cutover import CutoverMode, CutoverState, FreezeMethod, SourceFreeze
from whimbrel_api.durations import seconds
from whimbrel_api.migration import MigrationSpec, MigrationStatus, Mode, Plan
from whimbrel_api.reports import (
    REFUSED,
    ROLLED_BACK,
    SEALED,
    SWITCHED,
    FreezeResult,
    Record,
    StreamResult,
    WorkerReport,
)
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_operator.domain.conditions import is_true
from whimbrel_operator.domain.migration.plan import plan_hash
from whimbrel_operator.domain.observed import Memory, Observed, Tasks, TaskState

PREFLIGHT, SCHEMA, SNAPSHOT, STREAM, FREEZE = "preflight", "schema", "snapshot", "stream", "freeze"
INDEXES = "indexes"
INSPECT_PLAN, INSPECT_FENCE, INSPECT_CANCEL = "inspect-plan", "inspect-fence", "inspect-cancel"
FENCE_SWITCHED, FENCE_TIMED_OUT, FENCE_CANCELLED = "fence-switched", "fence-timed-out", "fence-cancelled"
FENCE_SEALED, INSPECT_SEALED, FENCE_ROLLED_BACK = "fence-sealed", "inspect-sealed", "fence-rolled-back"
INSPECT_COMPLETED, INSPECT_WAY_BACK, INSPECT_SWITCHED = "inspect-completed", "inspect-way-back", "inspect-switched"


@dataclass(frozen=True)
class View:
    """An observation at a moment, with the memory of former ones already brought up to date."""

    observed: Observed
    now: datetime
    memory: Memory

    @property
    def spec(self) -> MigrationSpec:
        """What the user asks for."""
        return self.observed.resource.spec

    @property
    def status(self) -> MigrationStatus:
        """What was last reported; a mirror, never the truth."""
        return self.observed.resource.status

    @property
    def tasks(self) -> Tasks:
        """The task instances."""
        return self.observed.tasks

    @property
    def generation(self) -> int:
        """The generation of the spec."""
        return self.observed.resource.metadata.generation

    @property
    def streaming(self) -> bool:
        """Whether a stream follows the copy."""
        return self.spec.mode is Mode.SNAPSHOT_AND_STREAM

    @property
    def sharded(self) -> bool:
        """Whether the source's change log is divided into shards, whose end nobody can prove."""
        return self.spec.source.dynamodb is not None

    @cached_property
    def truth(self) -> Record | None:
        """What the target's control tables said last, if a finished task read them."""
        return self.tasks.newest_record()

    def journalled(self, step: str) -> bool:
        """Whether the target's journal is known to hold that step."""
        return self.truth is not None and self.truth.last(step) is not None

    @property
    def traffic(self) -> str:
        """The step by which the target's journal says where the traffic is; empty where it says nothing, or is unread.

        Of a seal the status knows too, until the journal says otherwise. By `sealed` and `switched` nothing forward may
        be written.
        """
        if self.truth is None:
            return SEALED if self.status.cutover.sealed else ""
        return self.truth.traffic.step if self.truth.traffic is not None else ""

    @property
    def rolled_back(self) -> bool:
        """Whether it has ever been rolled back: from then on no cutover begins without a person's word."""
        known = self.status.cutover.rolled_back_at is not None
        return known or self.journalled(ROLLED_BACK)

    @property
    def has_way_back(self) -> bool:
        """Whether the spec asks for a way back, and says all that it takes."""
        policy = self.spec.reverse_sync
        named = policy.enabled and policy.polardb is not None
        return named and self.spec.source.dynamodb is not None and self.streaming

    @cached_property
    def way_back(self) -> ReverseSync | None:
        """The ReverseSync of its own."""
        meta = self.observed.resource.metadata
        ours = (each for each in self.observed.ways_back if each.metadata.belongs_to(meta.uid))
        return next((each for each in ours if each.metadata.name == meta.name), None)

    @property
    def strange_ways_back(self) -> tuple[ReverseSync, ...]:
        """Those that name it, or bear its name, and are not its own."""
        uid = self.observed.resource.metadata.uid
        return tuple(each for each in self.observed.ways_back if not each.metadata.belongs_to(uid))

    @property
    def closed_forward(self) -> bool:
        """Whether nothing forward may be written now: the target is sealed or switched, or would come back as an echo.

        An echo of an old change could overwrite a newer one in the source.
        """
        return self.traffic in (SEALED, SWITCHED) or self.way_back is not None

    @cached_property
    def epoch(self) -> int:
        """The epoch last seen in the target; 0 where it is not known yet."""
        if self.truth is not None:
            return self.truth.epoch if self.truth.exists else 0
        registered = [word.epoch for word in self.tasks.words(SCHEMA) if self.done(SCHEMA)]
        return max([self.status.epoch, *registered])

    @cached_property
    def plan(self) -> Plan:
        """The plan that an approval must name; its attempt is the target's, where it is known."""
        known = self.truth is not None and self.truth.exists
        attempt = self.truth.plan_attempt if self.truth is not None and known else self.status.plan.attempt
        return Plan(hash=plan_hash(self.spec, attempt), attempt=attempt)

    @property
    def approved(self) -> bool:
        """Whether this very plan may be carried out."""
        policy = self.spec.cutover
        if policy.rollback:
            return False
        return self.automatic or policy.approved_plan == self.plan.hash

    @property
    def automatic(self) -> bool:
        """Whether no approval is needed: not after a rollback, or the traffic would go to and fro by itself."""
        return self.spec.cutover.mode is CutoverMode.AUTOMATIC and not self.rolled_back

    def done(self, task_id: str) -> bool:
        """Whether a task of one worker has finished."""
        return self.tasks.all_done(task_id, 1)

    def result(self, task_id: str) -> WorkerReport | None:
        """The report of a finished task of one worker."""
        state = self.tasks.find(task_id)
        return state.word if state is not None and state.done else None

    def word(self, task_id: str) -> WorkerReport | None:
        """The newest report of a task of one worker, whatever its age."""
        state = self.tasks.find(task_id)
        return state.word if state is not None else None

    @property
    def stream_done(self) -> bool:
        """Whether every worker of the stream has finished."""
        return self.tasks.all_done(STREAM, self.spec.stream.workers)

    @property
    def stream_state(self) -> TaskState | None:
        """The stream's first worker, which speaks for all of them."""
        return self.tasks.find(STREAM)

    @property
    def fresh_stream(self) -> StreamResult | None:
        """Where the stream stands, by a fresh report of a running worker."""
        state = self.stream_state
        word = state.fresh_word(self.now) if state is not None else None
        return word.stream if word is not None else None

    @property
    def snapshot_done(self) -> bool:
        """Whether every worker of the copy has finished."""
        return self.tasks.all_done(SNAPSHOT, self.spec.snapshot.workers)

    @property
    def switching(self) -> bool:
        """Whether the fence has been ordered: from here there is only forward, unless it was refused."""
        if self.tasks.find(FENCE_SWITCHED) is None:
            return False
        newest = self.after_fence.verdict if self.after_fence is not None else None
        return newest is None or newest.step != REFUSED

    @property
    def after_fence(self) -> Record | None:
        """What the target's journal said when the switch's fence had ended, by its own word or read after it.

        None while it runs or has failed: what it has done is not known then.
        """
        fence, inspected = self.tasks.find(FENCE_SWITCHED), self.tasks.find(INSPECT_SWITCHED)
        if fence is None or not fence.done:
            return None
        if fence.word is not None and fence.word.record is not None:
            return fence.word.record
        if inspected is None or not inspected.done or inspected.word is None:
            return None
        later = fence.finished_at is None or inspected.started_at >= fence.finished_at
        return inspected.word.record if later else None

    @property
    def refused(self) -> bool:
        """Whether the target's journal says that the last look forbade to seal or to switch at this freeze position."""
        sealing = self.result(FENCE_SEALED)
        records = (self.after_fence, sealing.record if sealing is not None else None, self.truth)
        newest = [record.verdict for record in records if record is not None]
        wanted = (REFUSED, self.freeze_position[:1024])
        told = any(entry is not None and (entry.step, entry.detail) == wanted for entry in newest)
        return bool(self.freeze_position) and told

    @property
    def last_look(self) -> FreezeResult | None:
        """What a fence saw at the source that was refused for it; None where none was, or what it said is lost."""
        words = (self.result(task_id) for task_id in (FENCE_SWITCHED, FENCE_SEALED))
        found = (word.freeze for word in words if word is not None and word.freeze is not None)
        return next(found, None) if self.refused else None

    @property
    def indexes_ready(self) -> bool:
        """Whether the secondary indexes are built, as the target's journal or the status says."""
        return self.journalled("indexes-ready") or is_true(self.status.conditions, "IndexesReady")

    @property
    def freeze_position(self) -> str:
        """The position at which the source came to rest, as the status or a finished freeze task has it; or empty."""
        if self.status.cutover.freeze_position:
            return self.status.cutover.freeze_position
        result = self.result(FREEZE)
        return result.freeze.position if result is not None and result.freeze is not None else ""

    @property
    def drained_to(self) -> str:
        """The position that the stream says the target has reached on order."""
        word = self.word(STREAM)
        return word.stream.drained_to if word is not None and word.stream is not None else ""

    @property
    def timed_out(self) -> bool:
        """Whether the cutover has taken longer than it may."""
        started = self.status.cutover.started_at
        return started is not None and self.now - started > timedelta(seconds=seconds(self.spec.cutover.timeout))

    @property
    def cutting_over(self) -> CutoverState:
        """The cutover's state as last reported."""
        return self.status.cutover.state

    @property
    def operator_freezes(self) -> bool:
        """Whether the spec asks Whimbrel to stop the writes to the source."""
        return self.spec.cutover.source_freeze is SourceFreeze.OPERATOR

    @property
    def _foreign_method(self) -> bool:
        """Whether the method is of another kind of source, as a manifest from before that rule may have it."""
        return (self.spec.cutover.freeze.method is FreezeMethod.DENY_POLICY) != self.sharded

    @property
    def source_frozen(self) -> bool:
        """Whether Whimbrel has stopped the writes to the source, or may have, as the status says."""
        return self.status.cutover.source_frozen

    @property
    def unsupported(self) -> str:
        """What is asked for and not there yet, as a sentence; or empty."""
        asked = (
            (
                self.operator_freezes and self._foreign_method,
                f"spec.cutover.sourceFreeze: Operator with freeze.method: {self.spec.cutover.freeze.method} from"
                " this source",
                "User and stop the writers yourself when the cutover asks for it, or take another method",
            ),
            (
                self.spec.reverse_sync.enabled and not self.has_way_back,
                "spec.reverseSync.enabled: true without a stream from DynamoDB and spec.reverseSync.polardb",
                "false",
            ),
            (self.spec.validation.mode != "Full" and not self.sharded, "spec.validation.mode: Sample", "Full"),
        )
        found = [f"{what} is not supported yet, set it to {instead}" for wrong, what, instead in asked if wrong]
        return "; ".join(found)
