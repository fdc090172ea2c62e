"""Back to the source: a rollback's steps, what begins it, what leads out of it. How a cutover goes stands in cutover.

The data phase stays Completed until the target's journal has the rollback; the traffic is RollingBack meanwhile. Each
step's end is proven by what is observed, as in a cutover. Until the journal is written it can be given up, and changes
go on flowing back; from there the forward stream begins anew, as the next attempt. A source that Whimbrel had frozen is
opened only then: what was written to it before would have been missed.
"""

from datetime import timedelta

from whimbrel_api.cutover import CutoverState, CutoverStatus, RollbackStatus
from whimbrel_api.durations import seconds
from whimbrel_api.lsn import lsn_number
from whimbrel_api.migration import Phase
from whimbrel_api.reports import ROLLED_BACK, CheckReport
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_operator.domain.conditions import TABLE_STOPPED, find, is_true
from whimbrel_operator.domain.cutover.course import Setback, Step, Tasks, Test, Text, first_of, step_at
from whimbrel_operator.domain.cutover.evidence import passes, report_of, still_frozen
from whimbrel_operator.domain.cutover.frozen_source import how_frozen
from whimbrel_operator.domain.cutover.rollback_ready import FRESH_SECONDS, rollback_ready
from whimbrel_operator.domain.cutover.way_back import lives
from whimbrel_operator.domain.failures import trouble
from whimbrel_operator.domain.migration import view as ids
from whimbrel_operator.domain.migration import wants
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import is_fresh
from whimbrel_operator.domain.unread import words

QUIET_SECONDS = 3.0
"""How long nothing may have been committed to the tables before the target counts as frozen."""
_CLOCKS_DIFFER = timedelta(seconds=1)
"""The comparison and the heartbeats are timed by different clocks."""
_WAITS = "the rollback waits: "


def progress(view: View) -> RollbackStatus:
    """Where the rollback stands, as last reported."""
    return view.status.cutover.rollback


def rolling_back(view: View) -> bool:
    """Whether a rollback has begun and not ended."""
    return view.status.phase is Phase.COMPLETED and view.cutting_over is CutoverState.ROLLING_BACK


def ordered(view: View) -> bool:
    """Whether the journal's entry is ordered: from here there is only the way to the source."""
    return view.tasks.find(ids.FENCE_ROLLED_BACK) is not None


def journalled(view: View) -> bool:
    """The target's journal says that the traffic is at the source again."""
    return view.traffic == ROLLED_BACK


def opened(view: View) -> bool:
    """The journal has it, and the application may write to the source."""
    return journalled(view) and not still_frozen(view)


def _back(view: View) -> ReverseSync | None:
    """The ReverseSync while it is there and its figures are young."""
    found = view.way_back
    if found is None or not lives(found):
        return None
    return found if is_fresh(found.status.lag_observed_at, view.now, FRESH_SECONDS) else None


def at_rest(view: View) -> bool:
    """A position is known at which the target came to rest."""
    return bool(progress(view).position)


def came_to_rest(view: View) -> RollbackStatus:
    """With the position, once nothing has been committed to the tables for long enough; else as it was."""
    found, before = _back(view), progress(view)
    if before.position or found is None or not found.status.end_of_log:
        return before
    if (found.status.quiet_seconds or 0.0) < QUIET_SECONDS or _heard_after(found, found.status.end_of_log):
        return before
    return before.model_copy(
        update={"position": found.status.end_of_log, "last_change_time": found.status.last_change_time}
    )


def drained(view: View) -> bool:
    """DynamoDB has everything up to the position."""
    found = view.way_back
    return at_rest(view) and found is not None and found.status.drained_to == progress(view).position


def report(view: View) -> CheckReport | None:
    """The comparison at the position, once it has ended."""
    return report_of(view, wants.check_back_id(view))


def passed(view: View) -> bool:
    """It lets the rollback pass."""
    return passes(view, report(view))


def confirmed(view: View) -> bool:
    """A heartbeat that went out after the comparison had ended came back, no change before it, and all tables flow."""
    if progress(view).hold:
        return True
    found, state = _back(view), view.tasks.find(wants.check_back_id(view))
    ended, proven = state.finished_at if state is not None else None, found.status.proven_at if found else None
    if found is None or ended is None or proven is None or proven <= ended + _CLOCKS_DIFFER:
        return False
    return is_true(found.status.conditions, "Ready") and not written_since(view)


def held(view: View) -> bool:
    """Nothing flows back any more, nor is anything on its way."""
    found = view.way_back
    return progress(view).hold and found is not None and found.status.held


def written_since(view: View) -> bool:
    """Something was written to the target after it had come to rest."""
    found = view.way_back
    return at_rest(view) and found is not None and _heard_after(found, progress(view).position)


def _heard_after(found: ReverseSync, position: str) -> bool:
    """Whether the way back has heard of a commit after a position, the end of the log at some moment.

    A commit record that starts just there was written after it. What a worker has forgotten by its restart is in
    DynamoDB, or it is read again. No clock counts: PolarDB's may step back.
    """
    heard, rest = lsn_number(found.status.last_change_position), lsn_number(position)
    return heard is not None and rest is not None and heard >= rest


def _opening(view: View) -> str:
    return f"Whimbrel undoes {how_frozen(view)}; do not point the application at the source before that"


def _freezing(view: View) -> str:
    found = _back(view)
    quiet = found.status.quiet_seconds if found is not None else None
    told = "stop the writes to the target now"
    if quiet is None:
        return f"{told}; how long its tables have been quiet is not known yet"
    return f"{told}; its tables have been quiet for {min(quiet, QUIET_SECONDS):.1f} s of {QUIET_SECONDS:g} s"


def _step(name: str, tasks: Tasks, done: Test, waits_for: Text) -> Step:
    return Step(name, CutoverState.ROLLING_BACK, tasks, done, waits_for)


REOPEN = _step(
    "Reopen",
    (wants.check_back, wants.fence_rolled_back),
    journalled,
    lambda _: "the epoch is raised, and where the source stands is kept for the forward stream",
)
STEPS: tuple[Step, ...] = (
    _step("FreezeTarget", (), at_rest, _freezing),
    _step("DrainBack", (), drained, lambda _: "what was written to the target flows back to the source"),
    _step("CheckBack", (wants.check_back,), passed, lambda _: "every item of both sides is compared once more"),
    _step(
        "ConfirmBack",
        (wants.check_back,),
        confirmed,
        lambda _: "looking at the target once more: nothing may have been written",
    ),
    _step("Hold", (wants.check_back,), held, lambda _: "the way back ends: nothing is written to the source any more"),
    REOPEN,
    _step("OpenSource", (wants.open_source,), opened, _opening),
)


def step_of(view: View) -> Step:
    """The first step that is not proven done; once its journal entry is ordered, that one, and then the last."""
    if ordered(view) and not journalled(view):
        return REOPEN
    if journalled(view):
        return STEPS[-1]
    return step_at(STEPS, view)


def tasks(view: View) -> wants.Wanted:
    """The tasks of the step that a rollback is in; without one a look at where the target says that the traffic is."""
    asked = rolling_back(view) or journalled(view)
    steps = step_of(view).wants(view) if asked else ()
    # What the fence has read is younger than the look, and holds until the source is open.
    look = wants.fence_rolled_back if journalled(view) and ordered(view) else wants.inspect_completed
    return (*look(view), *steps)


def done(view: View) -> bool:
    """The traffic may go to the source again, as the journal says, whatever a status from elsewhere may say."""
    return view.status.phase is Phase.COMPLETED and opened(view)


def _given_up(why: str) -> str:
    then = "the traffic stays at the target and its writes may go on, changes flow back as before"
    again = "for another try set spec.cutover.rollback to false, then to true"
    return f"the rollback was given up: {why}; {then}; {again}"[:4096]


def _failed_check(view: View) -> str:
    found = report(view)
    figures = f"{found.differences.total} differences, {found.inconclusive} inconclusive" if found else ""
    return _given_up(f"the comparison of both sides found {figures}")


def _late(view: View) -> str:
    return _given_up(f"not done after {view.spec.cutover.timeout} ({_doing(view)})")


def _timed_out(view: View) -> bool:
    """By the clock, which may have been set: then nobody knows how long it took."""
    started = progress(view).started_at
    return started is None or abs(view.now - started) > timedelta(seconds=seconds(view.spec.cutover.timeout))


def _broken(view: View) -> str:
    """Why the way back cannot be used any more; or empty."""
    found = view.way_back
    if found is None or not lives(found):
        return "its ReverseSync is gone"
    stalled, ready = find(found.status.conditions, "Stalled"), find(found.status.conditions, "Ready")
    if stalled is not None and stalled.status == "True":
        return stalled.message
    return ready.message if ready is not None and ready.reason == TABLE_STOPPED else ""


def _not_ready(view: View) -> str:
    """What keeps the way back from being Ready; or empty."""
    found = view.way_back
    ready = find(found.status.conditions, "Ready") if found is not None else None
    if found is None or ready is None or ready.status == "True":
        return ""
    retrying = find(found.status.conditions, "Reconciling")
    why = retrying.message if retrying is not None and retrying.reason == "Retrying" else ready.message
    return f"ReverseSync {found.metadata.name} is not Ready ({ready.reason}): {why}"


def _not_asked(_: View) -> str:
    return "the rollback was withdrawn; the traffic stays at the target and its writes may go on, changes flow back"


def _where_written(view: View) -> str:
    found = view.way_back.status.unread if view.way_back is not None else None
    return f" (table {', '.join(found.tables[:5])})" if found is not None and found.tables else ""


_GIVE_UP = (Phase.COMPLETED, CutoverState.SWITCHED)
_AGAIN = (Phase.COMPLETED, CutoverState.ROLLING_BACK)

# None of these counts once the journal's entry is ordered: from there is only the way to the source.
SETBACKS: tuple[Setback, ...] = (
    Setback("RollbackWithdrawn", lambda view: not view.spec.cutover.rollback, _GIVE_UP, _not_asked),
    Setback("RollbackBroken", lambda view: bool(_broken(view)), _GIVE_UP, lambda view: _given_up(_broken(view))),
    Setback("RollbackCheckFailed", lambda view: report(view) is not None and not passed(view), _GIVE_UP, _failed_check),
    Setback("RollbackTimedOut", _timed_out, _GIVE_UP, _late),
    Setback(
        "WrittenAfterFreeze",
        written_since,
        _AGAIN,
        lambda view: (
            f"the target was written to after it had come to rest{_where_written(view)}; stop the writes, "
            "the freeze starts again"
        ),
    ),
)


def setback_of(view: View) -> Setback | None:
    """What leads out of the rollback now, if anything does."""
    if not rolling_back(view) or ordered(view) or journalled(view):
        return None
    return first_of(SETBACKS, view)


def next_cutover(view: View, before: CutoverStatus) -> CutoverStatus:
    """What is said of the traffic while the phase is Completed."""
    if journalled(view):
        return before.model_copy(update={"state": CutoverState.ROLLING_BACK, "message": _doing(view)[:4096]})
    if before.state is not CutoverState.ROLLING_BACK:
        return _begun(view, before)
    setback = setback_of(view)
    if setback is not None:
        return _set_back(view, before, setback)
    found = came_to_rest(view)
    found = found.model_copy(update={"hold": found.hold or (passed(view) and drained(view) and confirmed(view))})
    return before.model_copy(update={"rollback": found, "message": _doing(view)[:4096]})


def _doing(view: View) -> str:
    """What is waited for, and what keeps a task of it from getting on."""
    troubles = [each.message for state in view.tasks.instances if (each := trouble(state)) is not None]
    return "; ".join(part for part in (step_of(view).waits_for(view), *troubles, _not_ready(view)) if part)


def _begun(view: View, before: CutoverStatus) -> CutoverStatus:
    """A rollback begins, or why it does not. One that was given up is tried again only after it was taken back."""
    kept = before.rollback if view.spec.cutover.rollback else RollbackStatus()
    if not view.spec.cutover.rollback or kept.given_up:
        said = "" if before.message.startswith(_WAITS) else before.message
        return before.model_copy(update={"rollback": kept, "message": said})
    ready = rollback_ready(view)
    if ready.status != "True":
        return before.model_copy(update={"rollback": kept, "message": f"{_WAITS}{ready.message}"[:4096]})
    begun = RollbackStatus(started_at=view.now)
    return before.model_copy(update={"state": CutoverState.ROLLING_BACK, "rollback": begun, "message": _freezing(view)})


def _set_back(view: View, before: CutoverStatus, setback: Setback) -> CutoverStatus:
    again = RollbackStatus(started_at=progress(view).started_at)
    given_up = RollbackStatus(given_up=view.spec.cutover.rollback)
    found = again if setback.to == _AGAIN else given_up
    update = {"state": setback.to[1], "rollback": found, "message": setback.says(view)[:4096]}
    return before.model_copy(update=update)


def left_unread(view: View) -> str:
    """What was written to the target after it was held; kept until the next cutover begins, or empty."""
    found = view.way_back.status.unread if view.way_back is not None else None
    return words(found)[:4096] if found is not None else view.status.cutover.left_unread


def rolled_back(view: View, before: CutoverStatus) -> CutoverStatus:
    """What is said once the traffic may go to the source; where nobody knew of a freeze, that it is undone first."""
    said = (
        "point the application at the source; the forward stream begins anew from here, and another cutover needs an"
        " approval of the new plan with spec.cutover.rollback false"
    )
    missed = left_unread(view)
    said = _opening(view) if still_frozen(view) else said
    said = f"{missed}; {said}"[:4096] if missed else said
    return CutoverStatus(
        state=CutoverState.ROLLED_BACK, started_at=before.started_at, completed_at=before.completed_at, message=said
    )
