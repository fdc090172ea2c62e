"""What a Migration waits for and what a person does next, read from the resource. How it looks stands elsewhere."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from whimbrel_api.base import Condition
from whimbrel_api.cutover import CutoverMode, CutoverState, SourceFreeze, TargetExclusive
from whimbrel_api.hooks import HookPoint, HookState
from whimbrel_api.migration import CheckResult, Migration, MigrationStatus, Phase
from whimbrel_api.reverse_sync import ReverseSync, ReverseSyncStatus
from whimbrel_api.validation import Validation, ValidationPhase, ValidationStatus
from whimbrel_cli.figures import ago, count, lag, span
from whimbrel_operator.domain.migration.aftermath import is_over
from whimbrel_operator.domain.reverse.end import is_released

Resource = Migration | Validation | ReverseSync

_AT_THE_END: Final = {
    Phase.COMPLETED: "The target has everything. Point the application at it.",
    Phase.CANCELLED: "Cancelled. The source was not changed; what was copied is still in the target.",
}


@dataclass(frozen=True)
class Caller:
    """How a person calls the commands here: what stands before them, and the namespace that need not be said."""

    prefix: str = "whimbrel"
    namespace: str = "default"

    def line(self, command: str, resource: Resource) -> str:
        """A command line on a resource: whimbrel approve shop -n shop. A Migration goes before its own way back."""
        meta = resource.metadata
        ref = resource.spec.migration_ref if isinstance(resource, ReverseSync) else None
        name = f"reversesync/{meta.name}" if ref is not None and ref.name == meta.name else meta.name
        return f"{self.prefix} {command} {name}" + (f" -n {meta.namespace}" * (meta.namespace != self.namespace))


LOCAL: Final = Caller()


def condition(status: MigrationStatus | ValidationStatus | ReverseSyncStatus, kind: str) -> Condition | None:
    """The condition of that type where it is True."""
    return next((entry for entry in status.conditions if entry.type == kind and entry.status == "True"), None)


def finished(resource: Resource) -> bool:
    """Whether nothing will happen any more. A way back goes on until it is deleted and gone."""
    if isinstance(resource, Migration):
        return is_over(resource)
    if isinstance(resource, Validation):
        return resource.status.phase is ValidationPhase.COMPLETED
    return is_released(resource.status) is not None


@dataclass(frozen=True)
class Gate:
    """One thing that must hold before the cutover, with the figures that decide it."""

    name: str
    open: bool
    figures: str


def gates(migration: Migration, now: datetime) -> list[Gate]:
    """The gates before a cutover. What is not known keeps a gate closed."""
    return [
        _lag_gate(migration),
        _check_gate(migration, now),
        _condition_gate(migration, "tables", "NoStoppedTable"),
        _condition_gate(migration, "indexes", "IndexesReady"),
        *(_condition_gate(migration, name, kind) for name, kind in _SPOKEN_OF if _said(migration, kind)),
        *_writers(migration),
        _approval_gate(migration),
    ]


_SPOKEN_OF: Final = (("log", "RetentionSafe"), ("way back", "ReverseSyncReady"), ("time", "CutoverDue"))
"""Gates with the figures in their message, shown where the status has them."""


def _writers(migration: Migration) -> Iterator[Gate]:
    """Who else may write to the target: a gate only where that is required, told in any case."""
    found = _said(migration, "TargetExclusive")
    if found is not None:
        required = migration.spec.cutover.target_exclusive is TargetExclusive.REQUIRE
        yield Gate("writers", found.status == "True" or not required, found.message)


def _said(migration: Migration, kind: str) -> Condition | None:
    return next((each for each in migration.status.conditions if each.type == kind), None)


def _holds(migration: Migration, kind: str) -> bool:
    return condition(migration.status, kind) is not None


def _condition_gate(migration: Migration, name: str, kind: str) -> Gate:
    found = _said(migration, kind)
    return Gate(name, found is not None and found.status == "True", found.message if found else "not known yet")


def _lag_gate(migration: Migration) -> Gate:
    figures = f"{lag(migration.status.stream)}, at most {migration.spec.thresholds.lag}"
    return Gate("lag", _holds(migration, "LagWithinThreshold"), figures)


def _check_gate(migration: Migration, now: datetime) -> Gate:
    check, limit = migration.status.validation, migration.spec.thresholds.differences
    if check.result is None:
        figures = "not done yet"
    else:
        age = span(ago(check.completed_at, now))
        differences = f"{count(check.differences.total)} differences (at most {count(limit)})"
        figures = f"{check.result.value}, {differences}, {age} old (at most {migration.spec.validation.max_age})"
    return Gate("check", _holds(migration, "ValidationPassed"), figures)


def _approval_gate(migration: Migration) -> Gate:
    given, plan = migration.spec.cutover.approved_plan, migration.status.plan.hash
    if migration.spec.cutover.mode is CutoverMode.AUTOMATIC:
        return Gate("approval", True, "automatic")
    if not given:
        return Gate("approval", False, "not given")
    return Gate("approval", given == plan, "given" if given == plan else "given for another plan")


def next_step(resource: Resource, caller: Caller = LOCAL) -> str:
    """What a person does now, in a sentence or a command; empty where there is nothing to do but wait."""
    if stalled := condition(resource.status, "Stalled"):
        return f"Stalled ({stalled.reason}): {stalled.message}"
    if troubled := _troubled(resource):
        return troubled
    if isinstance(resource, Validation):
        return _after_check(resource, caller)
    if resource.spec.paused and not finished(resource):
        return f"It is paused. To go on: {caller.line('resume', resource)}"
    if stopped := [table for table in resource.status.tables if table.state == "Stopped"]:
        return f"{stopped[0].name} has stopped: {stopped[0].message}"
    return _of_phase(resource, caller) if isinstance(resource, Migration) else _of_slot(resource)


def _of_slot(resource: ReverseSync) -> str:
    """What is wrong with the slot of a way back; empty where nothing is."""
    found = next((each for each in resource.status.conditions if each.type == "SlotHealthy"), None)
    return found.message if found and found.status == "False" else ""


_HELD_UP: Final = ("Retrying", "Waiting")


def _troubled(resource: Resource) -> str:
    """What work is retried, or waited for, by itself; the whole message, since events are cut to a line."""
    found = condition(resource.status, "Reconciling")
    return f"{found.reason}: {found.message}" if found and found.message and found.reason in _HELD_UP else ""


def _of_phase(migration: Migration, caller: Caller) -> str:
    status = migration.status
    if status.cutover.state in (CutoverState.ROLLING_BACK, CutoverState.ROLLED_BACK) or migration.spec.cutover.rollback:
        return status.cutover.message
    if status.phase in (Phase.FOLLOWING, Phase.CUTTING_OVER):
        return _of_cutover(migration, caller) or _of_differences(migration, caller)
    return _AT_THE_END.get(status.phase, "")


def _of_differences(migration: Migration, caller: Caller) -> str:
    """Where to look when the last comparison keeps the cutover from beginning."""
    if migration.status.validation.result is not CheckResult.DIFFERENT or _holds(migration, "ValidationPassed"):
        return ""
    return f"Source and target differ. To see in what: {caller.line('diff', migration)}"


_DONE_MEANWHILE: Final = {
    CutoverState.DRAINING: "the rest of the changes is applied and checked",
    CutoverState.FINAL_CHECK: "the rest of the changes is applied and checked",
    CutoverState.ARMING_REVERSE: "the way back is made, then the target is opened",
}


def _of_cutover(migration: Migration, caller: Caller) -> str:
    status = migration.status
    approve = f"{caller.line('approve', migration)} --plan {status.plan.hash}"
    due = _said(migration, "CutoverDue")
    match status.cutover.state:
        case CutoverState.FREEZING:
            return _freezing(migration)
        case CutoverState.DRAINING | CutoverState.FINAL_CHECK | CutoverState.ARMING_REVERSE:
            return f"Keep the application's writes stopped; {_DONE_MEANWHILE[status.cutover.state]}."
        case CutoverState.AWAITING_APPROVAL if migration.spec.cutover.approved_plan != status.plan.hash:
            return f"To cut over: {approve}"
        case CutoverState.TIMED_OUT:
            return _given_up(migration, caller, approve)
        case CutoverState.NOT_READY if due and due.status != "True" and condition(status, "CutoverApproved"):
            return f"Approved; {due.message}"
        case _:
            return ""


def _freezing(migration: Migration) -> str:
    if _stopped_by_others(migration):
        return f"{migration.status.cutover.message}. It goes on by itself once the source is quiet."
    return "Stop the application's writes to the source now. It goes on by itself once the source is quiet."


def _given_up(migration: Migration, caller: Caller, approve: str) -> str:
    if migration.spec.cutover.mode is CutoverMode.AUTOMATIC:
        pause = caller.line("pause", migration)
        return f"{migration.status.cutover.message}. It tries again by itself; to keep it from that: {pause}"
    return f"The application may go on writing to the source. To try the cutover again: {approve}"


def _stopped_by_others(migration: Migration) -> bool:
    """Whether Whimbrel stops the writes, or hooks are to do it that have not all ended: then a person need not."""
    policy, runs = migration.spec.cutover, migration.status.cutover.hooks
    done = {each.name for each in runs if (each.point, each.state) == (HookPoint.BEFORE_FREEZE, HookState.SUCCEEDED)}
    hooked = any(each.name not in done for each in policy.hooks.before_freeze)
    return policy.source_freeze is SourceFreeze.OPERATOR or hooked


def _after_check(validation: Validation, caller: Caller) -> str:
    if validation.status.result is CheckResult.EQUAL:
        return "Source and target are equal."
    if validation.status.result is CheckResult.DIFFERENT:
        if caller.prefix != LOCAL.prefix:
            return (
                f"Source and target differ. Examples: {caller.line('diff', validation)}. The list of rows went with "
                "the worker's pod; to have it: whimbrel run, from a machine that reaches both, with a Validation that "
                "names source and target itself."
            )
        return f"Source and target differ. All differences found: {validation.status.report or 'see the events'}"
    if validation.status.result is CheckResult.INCONCLUSIVE:
        return "Some rows kept changing while they were compared. Compare again while there is less traffic."
    return ""
