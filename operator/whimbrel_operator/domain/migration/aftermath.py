"""What is said and wanted beside the phases: the log that runs out while nobody reads it, and what a migration leaves.

The conditions `RetentionNear` and `Retired`, and the task that retires. How a worker knows the log's end, and what it
takes away, stands with the workers.
"""

from collections.abc import Iterable

from whimbrel_api.cutover import CutoverState, FreezeMethod
from whimbrel_api.durations import text
from whimbrel_api.migration import Migration, MigrationSpec, Mode, Phase, StreamStatus
from whimbrel_api.tasks import FenceOptions, FreezeOptions, TaskKind
from whimbrel_operator.domain.conditions import Said, find, is_true, yes_no
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.domain.failures import trouble
from whimbrel_operator.domain.migration import wants
from whimbrel_operator.domain.migration.view import View

RETIRE, ABANDON = "retire", "abandon"
_READS_THE_LOG = (Phase.SNAPSHOT, Phase.CATCH_UP, Phase.FOLLOWING, Phase.CUTTING_OVER)
_ENDS = (Phase.COMPLETED, Phase.CANCELLED)


def retention_near(view: View, phase: Phase, streamed: StreamStatus) -> Iterable[Said]:
    """`RetentionNear`, while a log is read; True once more than the guard's share of its retention is used up."""
    if phase not in _READS_THE_LOG or not view.streaming:
        return
    deadline, period = streamed.retention_deadline, streamed.retention_seconds
    if deadline is None or period is None:
        why = "the source names no period after which it forgets changes, or has not been asked yet"
        yield Said("RetentionNear", "Unknown", "RetentionUnknown", why)
        return
    left = (deadline - view.now).total_seconds()
    guard = (1 - view.spec.stream.retention_guard) * period
    until = f"the source keeps what comes next until {deadline.isoformat(timespec='seconds')} at least"
    if left <= 0:
        passed = f"{until}, which has passed: what comes next may be gone; {_todo(view)}"
        yield Said("RetentionNear", "True", "RetentionOver", passed)
    elif left < guard:
        figures = f"{text(left)} of {text(period)} are left"
        yield Said("RetentionNear", "True", "RetentionNear", f"{until}, {figures}; {_todo(view)}")
    else:
        yield Said("RetentionNear", "False", "LogKept", until)


def _todo(view: View) -> str:
    meta = view.observed.resource.metadata
    if view.spec.paused:
        return f"resume it now: whimbrel resume {meta.name} (kubectl: in namespace {meta.namespace})"
    longer = "DynamoDB Streams cannot keep more" if view.sharded else _LONGER
    if view.status.phase is Phase.SNAPSHOT:
        return f"the copy takes too long: raise spec.snapshot.workers or its limits; {longer}"
    if view.sharded:
        return f"the stream is too far behind: raise spec.stream.workers; {longer}"
    return f"the stream is too far behind: raise spec.stream.applyConnections; {longer}"


_LONGER = "make the source keep its log for longer: SET PERSIST binlog_expire_logs_seconds = 604800"


def is_retired(view: View) -> bool:
    """Whether the worker, the target's journal or the status says that nothing is kept of it but a tombstone."""
    return view.done(RETIRE) or view.journalled("retired") or is_true(view.status.conditions, "Retired")


def way_back_kept(view: View) -> bool:
    """A way back is asked for: a rollback goes on from what retiring would take away."""
    return view.spec.reverse_sync.enabled


def retire(view: View) -> wants.Wanted:
    """The task that retires a migration which is over, if that is asked for and has not been done."""
    if not view.spec.retire or is_retired(view) or way_back_kept(view) or _to_be_opened(view):
        return ()
    return (wants.task(view, TaskKind.RETIRE, RETIRE),)


def _to_be_opened(view: View) -> bool:
    """A cancelled cutover's freeze is being undone: how it was before stands in the journal, so that goes last."""
    return view.status.phase is Phase.CANCELLED and view.source_frozen


def may_retain(migration: Migration) -> bool:
    """Whether a source may retain something for it that its deletion has to put back: streams that were enabled.

    Or it may be frozen by a cutover that had not come to its switch, or that is being rolled back.
    """
    spec, status = migration.spec, migration.status
    stays_frozen = status.phase is Phase.COMPLETED and status.cutover.state is not CutoverState.ROLLING_BACK
    if status.cutover.source_frozen and not stays_frozen:
        return True
    begun = status.epoch > 0 or status.phase in (Phase.SCHEMA, *_READS_THE_LOG)
    return spec.source.dynamodb is not None and _follows(spec) and begun and status.phase not in _ENDS


def _follows(spec: MigrationSpec) -> bool:
    return spec.mode is Mode.SNAPSHOT_AND_STREAM


def abandon(view: View) -> wants.Wanted:
    """The task that leaves nothing behind in the source of a migration whose resource is being deleted."""
    if view.source_frozen:
        attempt = view.status.plan.attempt + 1
        return (wants.task(view, TaskKind.UNFREEZE, ABANDON, freeze=FreezeOptions(plan_attempt=attempt)),)
    return (wants.task(view, TaskKind.RETIRE, ABANDON, fence=FenceOptions(step=ABANDON)),)


def by_hand(migration: Migration) -> Event:
    """What is left where that could not be done, for the person who deleted it."""
    meta = migration.metadata
    if migration.status.cutover.source_frozen:
        return Event("Warning", "SourceLeftFrozen", _frozen_by_hand(migration))
    message = (
        f"streams that were enabled for {meta.namespace}/{meta.name} may still be on: its worker could not put them"
        " back. They keep changes for 24 hours. The entry streams-enabled of its journal in the target's table"
        " whimbrel-control names them; for each:"
        " aws dynamodb update-table --table-name TABLE --stream-specification StreamEnabled=false"
    )
    return Event("Warning", "StreamsLeft", message)


def _frozen_by_hand(migration: Migration) -> str:
    meta, policy = migration.metadata, migration.spec.cutover.freeze
    open_again = {
        FreezeMethod.SUPER_READ_ONLY: "SET GLOBAL read_only = OFF",
        FreezeMethod.LOCK_ACCOUNTS: f"ALTER USER ACCOUNT UNLOCK for each of {', '.join(policy.accounts)}",
        FreezeMethod.DENY_POLICY: "take the statement whose Sid begins with WhimbrelFreeze out of each table's policy"
        " (aws dynamodb get-resource-policy --resource-arn ARN, then put-resource-policy, or delete-resource-policy"
        " where no other statement is left)",
    }
    return (
        f"the source of {meta.namespace}/{meta.name} may still be frozen: its worker could not undo that."
        f" As an administrator of the source: {open_again[policy.method]}."
        " How it was before stands in the target's journal under freezing"
    )


def is_over(migration: Migration) -> bool:
    """Whether nothing is left to do for a Migration, the retirement that is asked for included."""
    if migration.status.phase not in _ENDS or migration.status.cutover.state is CutoverState.ROLLING_BACK:
        return False
    found = find(migration.status.conditions, "Retired")
    settled = found is not None and (found.status == "True" or found.reason == "WayBackKept")
    return settled or not migration.spec.retire


def retired(view: View, phase: Phase) -> Iterable[Said]:
    """`Retired`, where it is asked for or done; once True it stays."""
    before = find(view.status.conditions, "Retired")
    if is_retired(view):
        message = before.message if before is not None and before.status == "True" else _TOMBSTONE
        yield yes_no("Retired", True, "Retired", message)
    elif view.spec.retire:
        yield _not_yet(view, phase)


_TOMBSTONE = "of its control rows only a tombstone is left in the target, so that nothing is ever copied over it"


def _not_yet(view: View, phase: Phase) -> Said:
    if phase not in _ENDS:
        why = "spec.retire is carried out once the migration is Completed or Cancelled, and not before"
        return Said("Retired", "False", "NotOver", why)
    if way_back_kept(view):
        why = "a way back is asked for and needs them; set spec.reverseSync.enabled to false first"
        return Said("Retired", "False", "WayBackKept", why)
    state = view.tasks.find(RETIRE)
    found = trouble(state) if state is not None else None
    if found is not None:
        return Said("Retired", "False", "RetireFailed", found.message)
    return Said("Retired", "False", "Retiring", "streams are put back and control rows removed")
