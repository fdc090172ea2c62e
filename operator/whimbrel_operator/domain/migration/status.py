"""A Migration's next status, put together from the view and the exit taken. The figures themselves stand in figures."""

from dataclasses import dataclass
from datetime import datetime

from whimbrel_api.cutover import CutoverState, CutoverStatus, WayBackStatus
from whimbrel_api.migration import CheckResult, MigrationStatus, MigrationValidationStatus, Phase, StreamStatus
from whimbrel_api.reports import ROLLED_BACK, SEALED
from whimbrel_operator.domain.conditions import Said, find, merge, yes_no
from whimbrel_operator.domain.cutover import (
    evidence,
    exclusive,
    frozen_source,
    hooks,
    mirror,
    rollback,
    steps,
    way_back,
)
from whimbrel_operator.domain.cutover.course import Setback
from whimbrel_operator.domain.cutover.gate import Gate
from whimbrel_operator.domain.cutover.gates import approval_gate, awaits_approval, gates
from whimbrel_operator.domain.cutover.rollback_ready import rollback_ready
from whimbrel_operator.domain.cutover.way_back_look import LOOK, looked
from whimbrel_operator.domain.cutover.window import faults
from whimbrel_operator.domain.failures import Trouble, trouble
from whimbrel_operator.domain.migration import aftermath, checks, figures
from whimbrel_operator.domain.migration.phases import BY_PHASE, ENDS, Exit, held, row_of
from whimbrel_operator.domain.migration.view import PREFLIGHT, View

ORDER = tuple(BY_PHASE)
_MILESTONES = (
    ("PreflightPassed", Phase.PREFLIGHT),
    ("SchemaReady", Phase.SCHEMA),
    ("SnapshotComplete", Phase.SNAPSHOT),
)


@dataclass(frozen=True)
class Move:
    """What changes now: the exit taken, or the cutover's way back; mostly neither."""

    exit: Exit | None = None
    setback: Setback | None = None


def next_status(view: View, move: Move) -> MigrationStatus:
    """The status that follows from the view when the move is made."""
    phase = move.exit.to if move.exit is not None else view.status.phase
    validation = _validation(view, move)
    copied = figures.snapshot_status(view)
    streamed = figures.stream_status(view)
    open_gates = gates(view, validation)
    reached = _cutover(view, move, phase, ready=awaits_approval(open_gates, approved=view.approved))
    return MigrationStatus(
        observed_generation=view.generation,
        phase=phase,
        progress=figures.progress_text(phase, copied),
        lag=figures.lag_text(phase, streamed),
        remaining=figures.remaining_text(copied.eta),
        conditions=merge(view.status.conditions, _said(view, phase, open_gates, streamed), view.now, view.generation),
        plan=view.plan,
        epoch=view.epoch,
        write_path=_write_path(view),
        snapshot=copied,
        stream=streamed,
        validation=validation,
        checkpoint=figures.checkpoint(view),
        way_back=looked(view) if view.has_way_back else WayBackStatus(),
        target_writers=exclusive.looked(view),
        cutover=_hooked(view, move, phase, reached),
        tables=figures.tables(view),
    )


def _write_path(view: View) -> str:
    word = view.result(PREFLIGHT)
    found = word.preflight.write_path if word is not None and word.preflight is not None else ""
    return found or view.status.write_path


def _validation(view: View, move: Move) -> MigrationValidationStatus:
    """The last comparison. A final check that failed counts as one, so that its gate closes.

    After a rollback one is made anew: those before it were of other writes.
    """
    if move.exit is not None and move.exit.reason == "RolledBack":
        return MigrationValidationStatus()
    last = checks.last_validation(view)
    found = evidence.final_report(view)
    if move.setback is None or move.setback.reason != "FinalCheckFailed" or found is None:
        return last
    result = found.result if found.result is not CheckResult.EQUAL else CheckResult.INCONCLUSIVE
    failed = checks.from_check(found, view.now, "final")
    return failed.model_copy(update={"result": result, "validated_through": last.validated_through})


def _cutover(view: View, move: Move, phase: Phase, *, ready: bool) -> CutoverStatus:
    before = view.status.cutover
    others = {
        Phase.COMPLETED: _completed(view, before) if view.streaming else CutoverStatus(),
        Phase.CANCELLED: before,
        Phase.CATCH_UP: _catching_up(view, before),
        Phase.FOLLOWING: _following(view, move, before, ready=ready),
        Phase.CUTTING_OVER: _cutting_over(view, move, before),
    }
    found = others.get(phase, CutoverStatus())
    begins = phase is Phase.CUTTING_OVER and move.exit is not None
    entered = begins and view.operator_freezes
    known = {
        "source_frozen": entered or evidence.still_frozen(view),
        "sealed": view.traffic == SEALED,
        "rolled_back_at": _rolled_back_at(view),
        "steps": [] if begins else mirror.mirrored(view, phase, found),
        "left_unread": rollback.left_unread(view) if found.state is CutoverState.ROLLED_BACK else "",
    }
    return found.model_copy(update=known)


def _rolled_back_at(view: View) -> datetime | None:
    """When it was rolled back last, by the target's journal where that was read; kept for good."""
    entry = view.truth.last(ROLLED_BACK) if view.truth is not None else None
    return entry.recorded_at if entry is not None else view.status.cutover.rolled_back_at


def _hooked(view: View, move: Move, phase: Phase, found: CutoverStatus) -> CutoverStatus:
    """With what is known of hooks and switches; a cutover that begins knows nothing of those of a former one."""
    begins = move.exit is not None and phase is Phase.CUTTING_OVER
    over = phase is Phase.COMPLETED and view.streaming
    if begins or not (over or found.started_at):
        return found
    return found.model_copy(update={"hooks": hooks.statuses(view)})


def _cutting_over(view: View, move: Move, before: CutoverStatus) -> CutoverStatus:
    if move.exit is not None:
        return CutoverStatus(
            state=CutoverState.FREEZING, started_at=view.now, message=steps.first_step(view).waits_for(view)
        )
    if move.setback is not None:
        return _set_back(view, move.setback, before)
    step = steps.step_of(view)
    message = before.message if _quiet(view) else step.waits_for(view)
    return before.model_copy(
        update={"state": step.state, "freeze_position": view.freeze_position, "message": message[:4096]}
    )


def _quiet(view: View) -> bool:
    return row_of(view) is not BY_PHASE[Phase.CUTTING_OVER]


def _catching_up(view: View, before: CutoverStatus) -> CutoverStatus:
    """Before a cutover there is nothing to say; after a rollback it is said until the next one."""
    at_the_source = before.state is CutoverState.ROLLED_BACK or view.traffic == ROLLED_BACK
    return rollback.rolled_back(view, before) if at_the_source else CutoverStatus()


def _completed(view: View, before: CutoverStatus) -> CutoverStatus:
    switched = before.state is CutoverState.SWITCHED and view.has_way_back
    if view.status.phase is Phase.COMPLETED and (switched or before.state is CutoverState.ROLLING_BACK):
        return rollback.next_cutover(view, before)
    stays = frozen_source.stays_frozen(view) if evidence.still_frozen(view) else ""
    done = {"state": CutoverState.SWITCHED, "completed_at": before.completed_at or view.now, "message": stays}
    return before.model_copy(update=done)


def _set_back(view: View, setback: Setback, before: CutoverStatus) -> CutoverStatus:
    return before.model_copy(
        update={"state": setback.to[1], "freeze_position": "", "message": setback.says(view)[:4096]}
    )


def _following(view: View, move: Move, before: CutoverStatus, *, ready: bool) -> CutoverStatus:
    if move.setback is not None:
        return CutoverStatus(state=move.setback.to[1], message=move.setback.says(view))
    if before.state is CutoverState.ROLLED_BACK:
        return rollback.rolled_back(view, before)
    if before.state is CutoverState.TIMED_OUT:
        return before.model_copy(update={"freeze_position": ""})
    state = CutoverState.AWAITING_APPROVAL if ready else CutoverState.NOT_READY
    return CutoverStatus(state=state, message=before.message)


def _said(view: View, phase: Phase, found: tuple[Gate, ...], streamed: StreamStatus) -> list[Said]:
    troubles = troubles_of(view)
    every = (*found, *exclusive.exclusive_said(view, phase), approval_gate(view))
    asked = [Said(gate.type, gate.status, gate.reason, gate.message) for gate in every]
    milestones = [_milestone(view, phase, kind, after, troubles) for kind, after in _MILESTONES]
    paused = yes_no("Paused", view.spec.paused, "Paused" if view.spec.paused else "NotPaused")
    return [
        _succeeded(phase),
        _reconciling(view, phase, troubles),
        _stalled(troubles, phase),
        paused,
        *milestones,
        *asked,
        *hooks.said(view, phase),
        *aftermath.retention_near(view, phase, streamed),
        rollback_ready(view),
        *aftermath.retired(view, phase),
    ]


def troubles_of(view: View) -> tuple[Trouble, ...]:
    """All that keeps the migration from getting on, the worst first."""
    # What these looks find closes a gate, and holds up nothing else.
    states = [s for s in view.tasks.instances if s.ref.task_id not in (LOOK, exclusive.TARGET_LOOK)]
    found = [each for state in states if (each := trouble(state)) is not None]
    if view.unsupported:
        found.append(Trouble("NotSupportedYet", view.unsupported, stalls=True))
    found += [Trouble("InvalidSpec", f"{each}; correct it", stalls=True) for each in faults(view.spec.cutover.window)]
    if view.observed.missing_secrets:
        names = ", ".join(view.observed.missing_secrets)
        namespace = view.observed.resource.metadata.namespace
        message = f"Secret {names} not found in namespace {namespace}; make it, work goes on by itself"
        found.append(Trouble("SecretNotFound", message, stalls=True))
    found += [
        Trouble("Retrying", f"task {s.ref}: {s.report_problem}", stalls=False)
        for s in view.tasks.instances
        if s.report_problem
    ]
    return tuple(sorted(found, key=lambda each: (not each.stalls, each.message)))


def _succeeded(phase: Phase) -> Said:
    if phase in ENDS:
        return yes_no("Succeeded", phase is Phase.COMPLETED, phase.value)
    return Said("Succeeded", "Unknown", "InProgress")


def _stalled(troubles: tuple[Trouble, ...], phase: Phase) -> Said:
    stalling = [each for each in troubles if each.stalls]
    if not stalling or phase in ENDS:
        return yes_no("Stalled", False, "Progressing")
    return yes_no("Stalled", True, stalling[0].reason, "\n".join(each.message for each in stalling))


def _reconciling(view: View, phase: Phase, troubles: tuple[Trouble, ...]) -> Said:
    if phase in ENDS:
        return yes_no("Reconciling", False, phase.value)
    if held(view):
        return yes_no("Reconciling", False, "Held", "no task runs")
    row = row_of(view) if row_of(view).phase is Phase.CANCELLED else BY_PHASE[phase]
    if troubles:
        stalls = troubles[0].stalls
        others = [each.message for each in troubles if not each.stalls]
        messages = [_where(troubles), *others] if stalls else others
        return yes_no("Reconciling", not stalls, "Stalled" if stalls else "Retrying", "\n".join(messages))
    return yes_no("Reconciling", True, phase.value, way_back.going(view) or row.doing)


def _milestone(view: View, phase: Phase, kind: str, after: Phase, troubles: tuple[Trouble, ...]) -> Said:
    before = find(view.status.conditions, kind)
    passed = ORDER.index(phase) > ORDER.index(after)
    if phase is Phase.CANCELLED:
        return Said(kind, before.status, before.reason, before.message) if before else yes_no(kind, False, "Cancelled")
    if not passed:
        here = _where(troubles) if troubles and phase is after else ""
        return yes_no(kind, False, troubles[0].reason if here else "NotYet", here)
    message = _preflight_message(view) if kind == "PreflightPassed" else ""
    return yes_no(kind, True, "Done", message or (before.message if before and before.status == "True" else ""))


def _where(troubles: tuple[Trouble, ...]) -> str:
    """Where the whole message stands, which is said once."""
    return f"see the condition {'Stalled' if troubles[0].stalls else 'Reconciling'}"


def _preflight_message(view: View) -> str:
    word = view.result(PREFLIGHT)
    if word is None or word.preflight is None:
        return ""
    found = word.preflight
    versions = (("source", found.source_version), ("target", found.target_version))
    # PostgreSQL's version goes on with its platform and compiler.
    servers = [f"{end} {version.split(' on ')[0]}" for end, version in versions if version]
    return "; ".join([*servers, *found.warnings])
