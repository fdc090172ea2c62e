"""What leads a cutover back out, or back to its start, and what is then said. Its steps stand in steps."""

from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Phase
from whimbrel_operator.domain.cutover import hooks, way_back
from whimbrel_operator.domain.cutover.course import Setback, first_of
from whimbrel_operator.domain.cutover.evidence import (
    arming,
    compared_badly,
    final_failed,
    final_report,
    held_while_frozen,
    not_looked_at,
    written_after_freeze,
    written_for_good,
)
from whimbrel_operator.domain.cutover.frozen_source import how_frozen, opens
from whimbrel_operator.domain.cutover.gates import stopped_now
from whimbrel_operator.domain.cutover.steps import step_of
from whimbrel_operator.domain.migration import wants
from whimbrel_operator.domain.migration.checks import last_validation
from whimbrel_operator.domain.migration.view import View

_NAMED = 10


def _given_up(view: View, why: str, then: str = "") -> str:
    opened = opens(view)
    return f"the cutover was given up: {why}; {opened}writes to the source may go on{then}"[:4096]


def _withdrawn_late(view: View) -> bool:
    """Hooks have run: the attempt ends with the approval, so that the next one runs them again."""
    return not view.approved and hooks.begun(view)


def _hook_failed(view: View) -> str:
    found = hooks.failed(view)
    told = hooks.failure_text(view, found) if found is not None else ""
    return _given_up(view, told, ", approve the new plan to try again")


def _withdrawn(view: View) -> str:
    then = ", approve the new plan to try again" if view.source_frozen else ""
    return _given_up(view, "the approval was withdrawn or the plan has changed", then)


def _not_armed(view: View) -> str:
    why = f"the way back could not be armed: {way_back.refusal(view)}"
    return _given_up(view, why, ", approve the new plan once that is put right")


def _paused(view: View) -> str:
    why = view.unsupported or "it was paused while Whimbrel had the source frozen"
    return _given_up(view, why, ", approve the new plan to try again")


def _failed_check(view: View) -> str:
    return _given_up(view, _checked(view), ", approve the new plan once a comparison passes")


def _failed_comparison(view: View) -> str:
    found = last_validation(view)
    figures = f"{found.differences.total} differences, {found.inconclusive} inconclusive"
    why = f"comparison {found.name} found {figures}"
    return _given_up(view, why, ", approve the new plan once a comparison passes")


def _stopped(view: View) -> str:
    return _given_up(view, stopped_now(view).message)


def _late(view: View) -> str:
    where = f"while in {view.cutting_over} ({step_of(view).waits_for(view)})"
    return _given_up(view, f"not done after {view.spec.cutover.timeout} {where}", ", approve the new plan to try again")


def _written_where(view: View) -> str:
    """Which tables were written to after the source had come to rest, and how much."""
    word = view.result(wants.confirm_id(view))
    seen = view.last_look or (word.freeze if word is not None else None)
    found = seen.tables if seen is not None else {}
    counts = [f"{table} ({count})" for table, count in found.items()]
    more = f" and {len(counts) - _NAMED} more tables" if len(counts) > _NAMED else ""
    where = f"changes in {', '.join(counts[:_NAMED])}{more}" if counts else "in no table of this migration"
    return f"the source was written to after it had come to rest, {where}"


def _written(view: View) -> str:
    return f"{_written_where(view)}; stop the writes, the freeze starts again"


def _written_for_good(view: View) -> str:
    if view.source_frozen:
        then = "; find out who could write, then approve the new plan to try again"
        return _given_up(view, f"{_written_where(view)}, though frozen by {how_frozen(view)}", then)
    then = "; find out who wrote, then approve the new plan to try again"
    return _given_up(view, f"{_written_where(view)}, while the way back was armed", then)


def _not_looked_at(view: View) -> str:
    seen = view.last_look
    why = f"the source could not be looked at before the switch: {seen.unread if seen is not None else ''}"
    return _given_up(view, why, ", approve the new plan once it answers")


_BACK = (Phase.FOLLOWING, CutoverState.NOT_READY)
_GIVE_UP = (Phase.CUTTING_OVER, CutoverState.TIMED_OUT)
_AGAIN = (Phase.CUTTING_OVER, CutoverState.FREEZING)

# None of these counts once the fence is ordered: from there is only forward, unless the fence was refused.
SETBACKS: tuple[Setback, ...] = (
    Setback(
        "ApprovalWithdrawn",
        lambda view: not view.approved and (view.source_frozen or arming(view)),
        _GIVE_UP,
        _withdrawn,
    ),
    Setback("ApprovalWithdrawn", _withdrawn_late, _GIVE_UP, _withdrawn),
    Setback("ApprovalWithdrawn", lambda view: not view.approved, _BACK, _withdrawn),
    Setback("PausedWhileFrozen", held_while_frozen, _GIVE_UP, _paused),
    Setback("HookFailed", lambda view: hooks.failed(view) is not None, _GIVE_UP, _hook_failed),
    Setback("ComparisonFailed", compared_badly, _GIVE_UP, _failed_comparison),
    Setback("FinalCheckFailed", final_failed, _GIVE_UP, _failed_check),
    Setback("TableStopped", lambda view: stopped_now(view).status == "False", _GIVE_UP, _stopped),
    Setback("ReverseSyncRefused", lambda view: arming(view) and bool(way_back.refusal(view)), _GIVE_UP, _not_armed),
    Setback("SourceNotLookedAt", not_looked_at, _GIVE_UP, _not_looked_at),
    Setback("WrittenAfterFreeze", written_for_good, _GIVE_UP, _written_for_good),
    Setback("TimedOut", lambda view: view.timed_out, _GIVE_UP, _late),
    Setback("WrittenAfterFreeze", written_after_freeze, _AGAIN, _written),
)


def _checked(view: View) -> str:
    found = final_report(view)
    return (
        f"the final check found {found.differences.total} differences, {found.inconclusive} inconclusive"
        if found
        else ""
    )


def setback_of(view: View) -> Setback | None:
    """What leads the cutover back, if anything does."""
    if view.switching or view.cutting_over is CutoverState.TIMED_OUT:
        return None
    return first_of(SETBACKS, view)
