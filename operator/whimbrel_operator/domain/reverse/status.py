"""The status of a ReverseSync, its conditions and events, mirrored from its worker's reports. No task stands here."""

from collections.abc import Iterable, Sequence

from whimbrel_api.base import Condition
from whimbrel_api.durations import text
from whimbrel_api.lsn import later
from whimbrel_api.migration import TableStatus
from whimbrel_api.reports import SlotReport
from whimbrel_api.reverse_sync import ReverseSyncPhase, ReverseSyncStatus, SlotStatus
from whimbrel_operator.domain import news
from whimbrel_operator.domain.conditions import TABLE_STOPPED, Said, find, merge, yes_no
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.domain.failures import Trouble, trouble
from whimbrel_operator.domain.observed import is_fresh
from whimbrel_operator.domain.reverse.view import ReverseView

MOST_TABLES = 100
STOPPED = "Stopped"
_LOST = "lost"
_IN_DANGER = "unreserved"
_SHOWN = 3
_WARNED = (("Stalled", "True"), ("SlotHealthy", "False"))
_WARNED_REASONS = (("Ready", TABLE_STOPPED), news.RETRYING, ("Ready", "NotDisarmed"))


def held(view: ReverseView) -> bool:
    """Whether nothing shall be taken from the log now."""
    return view.spec.paused or bool(view.waits_for) or view.rollback.hold


def live_status(view: ReverseView, phase: ReverseSyncPhase) -> ReverseSyncStatus:
    """The next status of a ReverseSync that is not being deleted."""
    return told(view, phase, _said(view, phase))


def told(view: ReverseView, phase: ReverseSyncPhase, said: Iterable[Said]) -> ReverseSyncStatus:
    """The next status with these conditions. What nobody reports any more stays, but for what ages."""
    before, seen, generation = view.status, view.last_seen, view.meta.generation
    lag, lag_at = _lag(view)
    figures: dict[str, object] = {}
    if seen is not None:
        figures = {
            "position": seen.position or before.position,
            "drained_to": seen.drained_to or before.drained_to,
            "changes_applied": seen.changes_applied,
            "last_change_time": seen.last_change_time or before.last_change_time,
            # A new worker has heard of nothing yet, or hears again of what is older.
            "last_change_position": later(seen.last_change_position, before.last_change_position),
        }
    figures |= {"resolved": view.resolved, "unread": view.unread}
    return before.model_copy(
        update={
            "observed_generation": generation,
            "phase": phase,
            "slot": _slot(view),
            "lag_seconds": lag,
            "lag_observed_at": lag_at,
            "lag": _lag_text(phase, lag),
            "end_of_log": view.fresh.end_of_log if view.fresh is not None else "",
            "proven_at": view.fresh.proven_at if view.fresh is not None else None,
            "quiet_seconds": view.fresh.quiet_seconds if view.fresh is not None else None,
            "held": view.fresh is not None and view.fresh.held,
            "tables": _tables(view),
            "conditions": merge(before.conditions, said, view.now, generation),
            **figures,
        }
    )


def _slot(view: ReverseView) -> SlotStatus:
    """The slot by a fresh report; without one its name alone, as nobody knows how it is now."""
    seen = view.fresh.slot if view.fresh is not None else SlotReport()
    if not seen.name:
        return SlotStatus(name=view.status.slot.name)
    return SlotStatus(
        name=seen.name, active=seen.active, wal_status=seen.wal_status, retained_bytes=seen.retained_bytes
    )


def _lag(view: ReverseView) -> tuple[float | None, object]:
    """The lag in seconds and when it was read; None where no fresh reading is there."""
    fresh, state = view.fresh, view.worker
    if fresh is None or state is None or not is_fresh(fresh.lag_observed_at, view.now, state.report_interval):
        return None, None
    return fresh.lag_seconds, fresh.lag_observed_at if fresh.lag_seconds is not None else None


def _lag_text(phase: ReverseSyncPhase, lag: float | None) -> str:
    if lag is not None:
        return text(lag)
    return "unknown" if phase is ReverseSyncPhase.STREAMING else ""


def _tables(view: ReverseView) -> list[TableStatus]:
    """At most 100 tables, those that have stopped first."""
    word = view.last_word
    newest = word.tables if word is not None and word.tables else view.status.tables
    return sorted(newest, key=lambda table: (table.state != STOPPED, table.name))[:MOST_TABLES]


def troubles_of(view: ReverseView) -> tuple[Trouble, ...]:
    """All that keeps it from getting on, the worst first."""
    found = [each for state in view.observed.tasks.instances if (each := trouble(state)) is not None]
    if view.lacks:
        found.append(Trouble("NoWayBack", view.lacks, stalls=True))
    if view.moved:
        found.append(Trouble("EndsChanged", _moved(view), stalls=True))
    if view.waits_for and view.worker is not None:
        found.append(Trouble("ForwardAgain", _forward_again(view), stalls=True))
    if view.observed.missing_secrets:
        names = ", ".join(view.observed.missing_secrets)
        message = f"Secret {names} not found in namespace {view.meta.namespace}; make it, work goes on by itself"
        found.append(Trouble("SecretNotFound", message, stalls=True))
    word = view.worker.fresh_word(view.now) if view.worker is not None else None
    if word is not None and word.last_error is not None and not found:
        found.append(Trouble("Retrying", f"its worker tries again: {word.last_error.sentence()}", stalls=False))
    found += [
        Trouble("Retrying", f"task {state.ref}: {state.report_problem}", stalls=False)
        for state in view.observed.tasks.instances
        if state.report_problem
    ]
    return tuple(sorted(found, key=lambda each: (not each.stalls, each.message)))


def _moved(view: ReverseView) -> str:
    return (
        f"{', '.join(view.moved)} may not change once slot and publication are made; work goes on as status.resolved "
        f"has it; put it back, or delete this resource and make another: {view.delete_command}"
    )


def _forward_again(view: ReverseView) -> str:
    return (
        f"{view.waits_for}; the worker takes nothing, and its slot holds back the server's log until this is deleted: "
        f"{view.delete_command}; make it anew after the next cutover"
    )


def _said(view: ReverseView, phase: ReverseSyncPhase) -> list[Said]:
    troubles = troubles_of(view)
    return [_ready(view, phase, troubles), *progress(troubles, phase.value, _doing(view, phase)), _paused(view),
            slot_healthy(view, phase)]  # fmt: skip


def progress(troubles: Sequence[Trouble], reason: str, doing: str) -> list[Said]:
    """The conditions Reconciling and Stalled. The whole message stands in one of them."""
    stalling = [each for each in troubles if each.stalls]
    if stalling:
        messages = "\n".join(each.message for each in stalling)
        others = "\n".join(each.message for each in troubles if not each.stalls)
        return [
            yes_no("Reconciling", False, "Stalled", others or "see the condition Stalled"),
            yes_no("Stalled", True, stalling[0].reason, messages),
        ]
    retried = "\n".join(each.message for each in troubles)
    return [
        yes_no("Reconciling", True, "Retrying" if troubles else reason, retried or doing),
        yes_no("Stalled", False, "Progressing"),
    ]


def _doing(view: ReverseView, phase: ReverseSyncPhase) -> str:
    if phase is ReverseSyncPhase.PENDING:
        return view.waits_for or ("it is paused" if view.spec.paused else "the way back begins")
    if phase is ReverseSyncPhase.ARMING:
        return "looking at the server, then making publication and slot"
    return "nothing is taken while it is paused" if view.spec.paused else "changes flow back"


def _ready(view: ReverseView, phase: ReverseSyncPhase, troubles: Sequence[Trouble]) -> Said:
    """Whether changes flow back now."""
    if troubles:
        where = "Stalled" if troubles[0].stalls else "Reconciling"
        return Said("Ready", "False", troubles[0].reason, f"see the condition {where}")
    if view.spec.paused:
        return Said("Ready", "False", "Paused", "the slot keeps the server's log meanwhile; look at SlotHealthy")
    return _flowing(view, phase)


def _flowing(view: ReverseView, phase: ReverseSyncPhase) -> Said:
    """The same where nothing is wrong: only a fresh word of the worker proves it."""
    if phase is ReverseSyncPhase.PENDING:
        return Said("Ready", "False", "Waiting", view.waits_for)
    if phase is ReverseSyncPhase.ARMING:
        return Said(
            "Ready", "False", "Arming", "what is written to the target before it is Streaming may not come back"
        )
    stopped = [table for table in _tables(view) if table.state == STOPPED]
    if stopped:
        return Said("Ready", "False", TABLE_STOPPED, _stopped_text(stopped))
    if view.fresh is None:
        return Said("Ready", "Unknown", "NoFreshReport", "the worker has not spoken lately; read its log")
    return Said("Ready", "True", "Streaming", "\n".join(view.fresh.warnings))


def _stopped_text(stopped: Sequence[TableStatus]) -> str:
    more = f"; and {len(stopped) - _SHOWN} more" if len(stopped) > _SHOWN else ""
    return "; ".join(f"{table.name} has stopped: {table.message}" for table in stopped[:_SHOWN]) + more


def _paused(view: ReverseView) -> Said:
    return yes_no("Paused", view.spec.paused, "Paused" if view.spec.paused else "NotPaused")


def slot_healthy(view: ReverseView, phase: ReverseSyncPhase) -> Said:
    """Whether the slot keeps what comes next, and holds back no more of the server's log than it may."""
    if phase is ReverseSyncPhase.PENDING:
        return Said("SlotHealthy", "Unknown", "NoSlotYet")
    seen = view.fresh.slot if view.fresh is not None else None
    if seen is None or not seen.name:
        return Said("SlotHealthy", "Unknown", "NoFreshReport", "how the slot is now is not known")
    return _judged(view, seen)


def _judged(view: ReverseView, slot: SlotReport) -> Said:
    guard = view.options.guard
    if slot.wal_status == _LOST:
        return Said("SlotHealthy", "False", "SlotLost", _lost(view, slot))
    if slot.wal_status == _IN_DANGER:
        message = f"the server may remove log that slot {slot.name} needs at its next checkpoint; let it catch up now"
        return Said("SlotHealthy", "False", "SlotInDanger", message)
    kept = slot.retained_bytes
    if kept is None:
        return Said(
            "SlotHealthy", "Unknown", "NotMeasured", f"the server does not say what slot {slot.name} holds back"
        )
    figures = f"slot {slot.name} holds back {kept:,} bytes of the server's log"
    if kept >= guard.limit_bytes:
        message = f"{figures}, more than guard.limitBytes {guard.limit_bytes:,}; onLimit: {guard.on_limit.value}"
        return Said("SlotHealthy", "False", "SlotOverLimit", message)
    if kept >= guard.warn_bytes:
        then = f"at {guard.limit_bytes:,}: {guard.on_limit.value}"
        message = f"{figures}, more than guard.warnBytes {guard.warn_bytes:,}; {then}"
        return Said("SlotHealthy", "False", "SlotOverWarning", message)
    # No figure: it would make a new status of every report.
    return Said("SlotHealthy", "True", "Healthy", f"below guard.warnBytes {guard.warn_bytes:,}")


def _lost(view: ReverseView, slot: SlotReport) -> str:
    return (
        f"the server has removed log that slot {slot.name} needs: changes are lost and the way back is over; delete "
        f"this resource: {view.delete_command}; to go back all the same, compare and copy anew"
    )


def events_of(view: ReverseView, after: ReverseSyncStatus) -> tuple[Event, ...]:
    """What happened between the status observed and the next one."""
    before, then = view.status.conditions, after.conditions
    found = news.of_conditions(before, then, statuses=_WARNED, reasons=_WARNED_REASONS)
    return news.cut([*_phase(view, after), *found, *_healthy(before, then)])


def _phase(view: ReverseView, after: ReverseSyncStatus) -> Iterable[Event]:
    if after.phase is not view.status.phase:
        slot = f"; slot {after.slot.name}" if after.slot.name else ""
        yield Event("Normal", after.phase.value, f"{view.status.phase} → {after.phase}{slot}")


def _healthy(before: Sequence[Condition], after: Sequence[Condition]) -> Iterable[Event]:
    if _was(before, "SlotHealthy", "False") and _was(after, "SlotHealthy", "True"):
        yield Event("Normal", "Healthy", "the slot is well again")


def _was(conditions: Sequence[Condition], kind: str, status: str) -> bool:
    found = find(conditions, kind)
    return found is not None and found.status == status
