"""Events: the steps that a person cares about, from what changes between two statuses. Nothing is decided here."""

from collections.abc import Iterable, Sequence

from whimbrel_api.base import Condition
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_operator.domain import news
from whimbrel_operator.domain.conditions import find, is_true
from whimbrel_operator.domain.cutover import hooks, rollback
from whimbrel_operator.domain.cutover.window import DUE
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.domain.migration.gate_news import awaits_news, gate_news
from whimbrel_operator.domain.migration.status import Move
from whimbrel_operator.domain.migration.view import PREFLIGHT, View
from whimbrel_operator.domain.unread import WRITTEN_AFTER_ROLLBACK

_WARNED = (("Stalled", "True"), ("NoStoppedTable", "False"), ("RetentionNear", "True"))
_WARNED_REASONS = (
    news.RETRYING,
    ("CutoverApproved", "OldPlan"),
    ("TargetExclusive", "OthersMayWrite"),
    ("Retired", "NotOver"),
    ("Retired", "WayBackKept"),
    ("Retired", "RetireFailed"),
)


def events_of(view: View, move: Move, after: MigrationStatus) -> tuple[Event, ...]:
    """What happened between the status observed and the next one."""
    before = view.status
    found = [*_phase(before, move, after), *_traffic(view, move, after), *_validation(before, after)]
    found += news.of_conditions(before.conditions, after.conditions, statuses=_WARNED, reasons=_WARNED_REASONS)
    found += _ended(before.conditions, after.conditions)
    told = [each.type for each in after.conditions if news.warns(each, _WARNED, _WARNED_REASONS)]
    found += gate_news(view, after, told)
    if after.cutover.left_unread and not before.cutover.left_unread:
        found.append(Event("Warning", WRITTEN_AFTER_ROLLBACK, after.cutover.left_unread))
    for warns, reason, message in hooks.events(view, after.cutover.hooks):
        found.append(Event("Warning" if warns else "Normal", reason, message))
    if move.exit is not None and before.phase is Phase.PREFLIGHT:
        found += _not_carried(view)
    return news.cut(found)


def _phase(before: MigrationStatus, move: Move, after: MigrationStatus) -> Iterable[Event]:
    if move.exit is not None:
        yield Event("Normal", move.exit.reason, f"{before.phase} → {after.phase}")


def _traffic(view: View, move: Move, after: MigrationStatus) -> Iterable[Event]:
    out = rollback.setback_of(view)
    if out is None:
        return _cutover(view, move, after)
    return (Event("Warning", out.reason, after.cutover.message),)


def _cutover(view: View, move: Move, after: MigrationStatus) -> Iterable[Event]:
    before, state = view.status, after.cutover.state
    known = state is CutoverState.AWAITING_APPROVAL and not awaits_news(view, after)
    if move.setback is not None:
        yield Event("Warning", move.setback.reason, after.cutover.message)
    elif state is not before.cutover.state and state is not CutoverState.NOT_READY and not known:
        yield Event("Normal", f"Cutover{state.value}", _begun(before, after))
    if before.cutover.source_frozen and not after.cutover.source_frozen:
        yield Event("Normal", "SourceUnfrozen", "what Whimbrel had done to stop the writes to the source is undone")


def _begun(before: MigrationStatus, after: MigrationStatus) -> str:
    if after.cutover.state is CutoverState.SWITCHED:
        return _switched(after)
    if after.cutover.message:
        return after.cutover.message
    approval = find(after.conditions, "CutoverApproved")
    if after.cutover.state is CutoverState.AWAITING_APPROVAL and approval is not None:
        due = find(after.conditions, DUE)
        when = f"; {due.message}" if due is not None and due.status != "True" else ""
        return f"all other gates are open; {approval.message}{when}"
    return f"{before.cutover.state} → {after.cutover.state}"


def _switched(after: MigrationStatus) -> str:
    then = after.cutover.message or "point the application at the target"
    return f"epoch {after.epoch}: no worker can write any more; {then}"


def _validation(before: MigrationStatus, after: MigrationStatus) -> Iterable[Event]:
    found = after.validation
    if found.completed_at is not None and found.completed_at != before.validation.completed_at and found.result:
        good = found.result.value == "Equal"
        unequal = f"{found.differences.total} differences, {found.inconclusive} inconclusive"
        message = f"{found.rows_compared} rows compared, {unequal}"
        yield Event("Normal" if good else "Warning", f"Validation{found.result.value}", message)


def _ended(before: Sequence[Condition], after: Sequence[Condition]) -> Iterable[Event]:
    if is_true(after, "Retired") and not is_true(before, "Retired"):
        yield Event("Normal", "Retired", "streams are as they were, and of its control rows only a tombstone is left")
    kept = find(after, "RetentionNear")
    if is_true(before, "RetentionNear") and kept is not None and kept.status == "False":
        yield Event("Normal", "LogKept", kept.message)


def _not_carried(view: View) -> Iterable[Event]:
    word = view.result(PREFLIGHT)
    warnings = word.preflight.warnings if word is not None and word.preflight is not None else ()
    return (Event("Warning", "NotCarried", warning) for warning in warnings[: news.MOST_ALIKE])
