"""The life of a ReverseSync, as a table like that of a Validation, and the decision for it. Pure.

How it ends stands in end, what is said of it in status.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from whimbrel_api.reverse_sync import ReverseSyncPhase
from whimbrel_api.tasks import Orders, TaskKind
from whimbrel_operator.domain.decision import ReverseSyncDecision, WantedTask
from whimbrel_operator.domain.failures import may_start
from whimbrel_operator.domain.observed import ObservedReverseSync, TaskRef
from whimbrel_operator.domain.reverse.end import decide_end
from whimbrel_operator.domain.reverse.status import events_of, held, live_status
from whimbrel_operator.domain.reverse.view import REVERSE, ReverseView

Tasks = tuple[WantedTask, ...]


@dataclass(frozen=True)
class ReverseRow:
    """A phase of the way back: its tasks, and the one way on."""

    phase: ReverseSyncPhase
    tasks: Callable[[ReverseView], Tasks]
    leave: Callable[[ReverseView], bool]
    to: ReverseSyncPhase


def nothing(_: ReverseView) -> Tasks:
    """No task."""
    return ()


def reverse(view: ReverseView) -> Tasks:
    """The worker that makes slot and publication and then brings changes back. It has no end of its own.

    While it is paused, or the forward stream writes again, it takes nothing and goes on reporting the slot's health.
    """
    if view.work is None:
        return ()
    ready = may_start(view.worker, view.now, view.meta.generation, again=True) and not view.observed.missing_secrets
    return (
        WantedTask(
            kind=TaskKind.REVERSE,
            ref=TaskRef(REVERSE),
            work=view.work,
            generation=view.meta.generation,
            start=ready,
            again=True,
            reverse=view.options,
            orders=Orders(hold=held(view), drain_to=view.rollback.position),
        ),
    )


def may_begin(view: ReverseView) -> bool:
    """Its ends are known and nothing would be an echo; or the work has begun, whatever a status says."""
    return view.worker is not None or (view.work is not None and not held(view))


def armed(view: ReverseView) -> bool:
    """Slot, publication and a kept position are there."""
    return view.armed


def never(_: ReverseView) -> bool:
    """Not left."""
    return False


ROWS: tuple[ReverseRow, ...] = (
    ReverseRow(ReverseSyncPhase.PENDING, nothing, may_begin, ReverseSyncPhase.ARMING),
    ReverseRow(ReverseSyncPhase.ARMING, reverse, armed, ReverseSyncPhase.STREAMING),
    ReverseRow(ReverseSyncPhase.STREAMING, reverse, never, ReverseSyncPhase.STREAMING),
    # Only a deletion leads here, and that has no way back: whoever wrote it into the status meant nothing.
    ReverseRow(ReverseSyncPhase.STOPPED, nothing, may_begin, ReverseSyncPhase.ARMING),
)
BY_PHASE = {row.phase: row for row in ROWS}


def decide_reverse_sync(observed: ObservedReverseSync, now: datetime) -> ReverseSyncDecision:
    """What shall be so for a ReverseSync now: at most one phase further, never further than the observation proves."""
    view = ReverseView(observed, now)
    if view.meta.deletion_timestamp is not None:
        return decide_end(view)
    row = BY_PHASE[view.status.phase]
    phase = row.to if row.leave(view) else row.phase
    status = live_status(view, phase)
    return ReverseSyncDecision(status, BY_PHASE[phase].tasks(view), events_of(view, status), observed.memory)
