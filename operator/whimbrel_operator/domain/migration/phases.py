"""The life of a migration, on one screen: each phase with what must hold in it, what it wants and what leads out of it.

A phase is left only for the reasons in its row or in ANYWHERE. What a decision reports stands in decide and status.
"""

from collections.abc import Callable
from dataclasses import dataclass

from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Phase
from whimbrel_api.reports import CANCELLED, SWITCHED
from whimbrel_operator.domain.cutover import hooks, rollback, setbacks, steps
from whimbrel_operator.domain.cutover.gates import caught_up, gates
from whimbrel_operator.domain.cutover.window import faults
from whimbrel_operator.domain.migration import aftermath, wants
from whimbrel_operator.domain.migration import view as ids
from whimbrel_operator.domain.migration.checks import last_validation
from whimbrel_operator.domain.migration.view import View

Test = Callable[[View], bool]


@dataclass(frozen=True)
class Exit:
    """A reason to leave, and where it leads."""

    reason: str
    when: Test
    to: Phase


@dataclass(frozen=True)
class Row:
    """A phase. `holds`: what status must show for the phase to be believed; else the target is read anew."""

    phase: Phase
    holds: Test
    tasks: tuple[Callable[[View], wants.Wanted], ...]
    exits: tuple[Exit, ...]
    doing: str


def always(_: View) -> bool:
    """Whatever is observed."""
    return True


def condition(kind: str) -> Test:
    """That condition of the status is True."""
    return lambda view: any(c.type == kind and c.status == "True" for c in view.status.conditions)


def registered(view: View) -> bool:
    """The target knows the migration: its epoch is known."""
    return view.epoch > 0


def streams(view: View) -> bool:
    """Copied, registered, and a stream follows."""
    return view.streaming and registered(view) and condition("SnapshotComplete")(view)


def cutover_begun(view: View) -> bool:
    """The status says when the cutover began."""
    return streams(view) and view.status.cutover.started_at is not None


def closed(view: View) -> bool:
    """The traffic has moved, or the copy had no stream."""
    return view.cutting_over in (CutoverState.SWITCHED, CutoverState.ROLLING_BACK) or not view.streaming


def preflight_passed(view: View) -> bool:
    """The pre-flight has found nothing wrong."""
    result = view.result(ids.PREFLIGHT)
    return result is not None and result.preflight is not None


def snapshot_recorded(view: View) -> bool:
    """The pre-flight has passed, and the target holds a whole copy already."""
    return preflight_passed(view) and view.streaming and view.truth is not None and view.truth.snapshot_complete


def schema_ready(view: View) -> bool:
    """The schema task has finished and said the target's epoch."""
    return view.done(ids.SCHEMA) and registered(view)


def copy_fenced(view: View) -> bool:
    """A copy without a stream: all of it is there, and the epoch raised."""
    return not view.streaming and view.snapshot_done and view.done(ids.FENCE_SWITCHED)


def copied(view: View) -> bool:
    """Every chunk is in the target, and a stream follows."""
    return view.streaming and view.snapshot_done


def stream_caught_up(view: View) -> bool:
    """Lag within its threshold, and the target past the end of the copy."""
    since = next((c.last_transition_time for c in view.status.conditions if c.type == "SnapshotComplete"), None)
    return caught_up(view, since)


def ready_to_cut_over(view: View) -> bool:
    """Every gate is open, this plan approved, and its attempt read back from the target."""
    inspected = view.result(ids.INSPECT_PLAN)
    record = inspected.record if inspected is not None else None
    if record is None or not record.exists or steps.rests(view, record):
        return False
    ready = view.approved and not view.source_frozen and not hooks.holds_back(view)
    return ready and all(gate.open for gate in gates(view, last_validation(view)))


def setback_to(phase: Phase) -> Test:
    """The cutover is led back to that phase."""

    def leads(view: View) -> bool:
        setback = setbacks.setback_of(view)
        return setback is not None and setback.to[0] is phase

    return leads


def control_lost(view: View) -> bool:
    """The target no longer knows the migration."""
    begun = view.status.phase not in (Phase.PENDING, Phase.PREFLIGHT, Phase.SCHEMA)
    return begun and view.truth is not None and not view.truth.exists


def traffic(step: str) -> Test:
    """That step is the target's last word on the traffic."""
    return lambda view: view.traffic == step


def cancel_asked(view: View) -> bool:
    """A person cancels, and it is not too late."""
    return view.spec.cancel and not view.switching


def held(view: View) -> bool:
    """Paused, or something is asked for that is not there yet; or nothing has begun and the spec cannot be read."""
    unread = view.status.phase is Phase.PENDING and bool(faults(view.spec.cutover.window))
    frozen = view.status.phase is Phase.CUTTING_OVER and view.source_frozen  # nobody would open the source again
    return (view.spec.paused or bool(view.unsupported) or unread) and not view.switching and not frozen


def cancelled(view: View) -> bool:
    """The target has journalled the end, or never knew the migration."""
    return view.done(ids.FENCE_CANCELLED) or wants.nothing_to_cancel(view)


PHASES: tuple[Row, ...] = (
    Row(Phase.PENDING, always, (), (Exit("Started", always, Phase.PREFLIGHT),), "waiting to start"),
    Row(
        Phase.PREFLIGHT,
        always,
        (wants.preflight,),
        (
            Exit("SnapshotFound", snapshot_recorded, Phase.CATCH_UP),
            Exit("PreflightPassed", preflight_passed, Phase.SCHEMA),
        ),
        "checking source and target",
    ),
    Row(
        Phase.SCHEMA,
        condition("PreflightPassed"),
        (wants.schema,),
        (Exit("SchemaReady", schema_ready, Phase.SNAPSHOT),),
        "making control tables and target tables",
    ),
    Row(
        Phase.SNAPSHOT,
        registered,
        (wants.snapshot, wants.collect, wants.after_copy),
        (Exit("SnapshotComplete", copied, Phase.CATCH_UP), Exit("CopyFenced", copy_fenced, Phase.COMPLETED)),
        "copying rows",
    ),
    Row(
        Phase.CATCH_UP,
        streams,
        (wants.stream, wants.thaw, wants.unseal),
        (Exit("CaughtUp", stream_caught_up, Phase.FOLLOWING),),
        "applying what changed during the copy",
    ),
    Row(
        Phase.FOLLOWING,
        streams,
        (
            wants.stream,
            wants.thaw,
            wants.unseal,
            wants.indexes,
            wants.check,
            wants.way_back_look,
            wants.target_look,
            wants.inspect_plan,
        ),
        (Exit("CutoverApproved", ready_to_cut_over, Phase.CUTTING_OVER),),
        "following the source",
    ),
    Row(
        Phase.CUTTING_OVER,
        cutover_begun,
        (steps.tasks,),
        (
            Exit("Switched", steps.switched, Phase.COMPLETED),
            Exit("CutoverGivenUp", steps.gave_up, Phase.FOLLOWING),
            Exit("ApprovalWithdrawn", setback_to(Phase.FOLLOWING), Phase.FOLLOWING),
        ),
        "cutting over",
    ),
    Row(
        Phase.COMPLETED,
        closed,
        (aftermath.retire, rollback.tasks),
        (Exit("RolledBack", rollback.done, Phase.CATCH_UP),),
        "done",
    ),
    Row(Phase.CANCELLED, always, (wants.thaw, aftermath.retire), (), "cancelled"),
)
ENDS = (Phase.COMPLETED, Phase.CANCELLED)

# From every phase but the last two, before the phase's own exits: what the target's journal says is the truth.
ANYWHERE: tuple[Exit, ...] = (
    Exit("SwitchJournalled", traffic(SWITCHED), Phase.COMPLETED),
    Exit("CancelJournalled", traffic(CANCELLED), Phase.CANCELLED),
    Exit("ControlTablesLost", control_lost, Phase.PREFLIGHT),
)

# Instead of the phase's own tasks and exits, while the phase stays; the first that holds.
CANCELLING = Row(
    Phase.CANCELLED, cancel_asked, (wants.cancel,), (Exit("Cancelled", cancelled, Phase.CANCELLED),), "cancelling"
)
HELD = Row(Phase.PENDING, held, (wants.thaw,), (), "held")
OVERRIDES: tuple[Row, ...] = (CANCELLING, HELD)

BY_PHASE = {row.phase: row for row in PHASES}


def row_of(view: View) -> Row:
    """The row that counts now: an override, or that of the phase."""
    phase = view.status.phase
    if phase in ENDS:
        return BY_PHASE[phase]
    return next((row for row in OVERRIDES if row.holds(view)), BY_PHASE[phase])


def exit_of(view: View) -> Exit | None:
    """The reason to leave the phase now, if there is one."""
    phase, row = view.status.phase, row_of(view)
    own = _first(row.exits, view)
    told = _first(ANYWHERE, view) if phase not in ENDS else None
    if told is not None:
        return own if own is not None and own.to is told.to else told
    if row.phase is phase and not row.holds(view):
        return Exit("StatusNotBelieved", always, Phase.PREFLIGHT)
    return own


def _first(exits: tuple[Exit, ...], view: View) -> Exit | None:
    return next((leave for leave in exits if leave.when(view)), None)
