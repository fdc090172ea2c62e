"""The table of cutover steps: what each wants, what proves it done, what leads back. How phases follow: see phases.

The step that counts is the first whose end is not proven by the observation, so that a restart of anything at any step
goes on from the evidence: the stream's drained position, the final check's result, a second quiet position equal to
the first.
"""

from collections.abc import Callable
from dataclasses import dataclass

from whimbrel_api.cutover import CutoverMode, CutoverState, FreezeMethod
from whimbrel_api.hooks import HookPoint
from whimbrel_api.migration import Phase
from whimbrel_api.reports import SEALED, SWITCHED, TRAFFIC_STEPS, CheckReport, Record, check_passes
from whimbrel_operator.domain.cutover import hooks, way_back
from whimbrel_operator.domain.cutover.gates import stopped_now
from whimbrel_operator.domain.migration import view as ids
from whimbrel_operator.domain.migration import wants
from whimbrel_operator.domain.migration.checks import last_validation
from whimbrel_operator.domain.migration.view import View

_NAMED = 10
Tasks = tuple[Callable[[View], wants.Wanted], ...]
Text = Callable[[View], str]


@dataclass(frozen=True)
class Step:
    """One step: the state it shows, the tasks and the hooks it wants, the evidence that ends it, what it waits for."""

    name: str
    state: CutoverState
    tasks: Tasks
    done: Callable[[View], bool]
    waits_for: Text
    hooks: HookPoint | None = None


@dataclass(frozen=True)
class Setback:
    """A way back out of the cutover, or back to its start. The first that holds is taken."""

    reason: str
    when: Callable[[View], bool]
    to: tuple[Phase, CutoverState]
    says: Text


def frozen(view: View) -> bool:
    """The source has come to rest at a position."""
    return bool(view.freeze_position)


def drained(view: View) -> bool:
    """The target has the freeze position. Once true of a position it stays true, whatever the report's age."""
    return frozen(view) and view.drained_to == view.freeze_position


def final_report(view: View) -> CheckReport | None:
    """The finished final check at the freeze position."""
    word = view.result(wants.final_id(view))
    return word.check if word is not None else None


def final_passed(view: View) -> bool:
    """The final check found no more than the threshold allows, and nothing inconclusive."""
    found, allowed = final_report(view), view.spec.thresholds.differences
    return found is not None and check_passes(found.result, found.differences, found.inconclusive, allowed)


def final_failed(view: View) -> bool:
    """The final check has ended, and does not let the cutover pass."""
    return final_report(view) is not None and not final_passed(view)


def compared_badly(view: View) -> bool:
    """A comparison that ended during the cutover forbids it: the final check looks only at what came after."""
    found, allowed = last_validation(view), view.spec.thresholds.differences
    return found.result is not None and not check_passes(found.result, found.differences, found.inconclusive, allowed)


def second_position(view: View) -> str:
    """The position of the second look at the source, once that has ended; or empty."""
    word = view.result(wants.confirm_id(view))
    return word.freeze.position if word is not None and word.freeze is not None else ""


def confirmed(view: View) -> bool:
    """The source is still at the freeze position."""
    return frozen(view) and second_position(view) == view.freeze_position


def not_looked_at(view: View) -> bool:
    """The fence could not look at the source in time, and was refused for that."""
    return view.last_look is not None and bool(view.last_look.unread)


def written_after_freeze(view: View) -> bool:
    """The source is at another position than before, by the second look or by the fence's: somebody wrote."""
    moved = second_position(view) not in ("", view.freeze_position)
    return frozen(view) and (moved or (view.refused and not not_looked_at(view)))


def written_for_good(view: View) -> bool:
    """The same, and to freeze again would not help: Whimbrel had stopped the writes, or the way back is being armed."""
    return (view.source_frozen or arming(view)) and written_after_freeze(view)


def held_while_frozen(view: View) -> bool:
    """A hold that would leave the source frozen with nobody at work on it."""
    return view.source_frozen and (view.spec.paused or bool(view.unsupported))


def retired(view: View) -> bool:
    """The stream has ended at the freeze position."""
    return view.stream_done and drained(view)


def fenced(view: View) -> bool:
    """The epoch is raised and the switch journalled. A fence that was refused is done as well, and says otherwise."""
    record = view.after_fence
    return record is not None and record.traffic is not None and record.traffic.step == SWITCHED


def sealed(view: View) -> bool:
    """The target's journal holds that nothing forward is written after the freeze position, and nothing since but it.

    What led there was proven before, and is not asked for again.
    """
    steps = view.truth.journal if view.truth is not None else []
    told = [entry for entry in steps if entry.step in TRAFFIC_STEPS and entry.step != SWITCHED]
    return frozen(view) and bool(told) and (told[-1].step, told[-1].detail) == (SEALED, view.freeze_position[:1024])


def armed(view: View) -> bool:
    """Changes flow back, and nothing that is written from now on is lost. Once the fence is ordered it stays so."""
    return view.switching or way_back.armed(view)


def arming(view: View) -> bool:
    """Something of the way back may be there: giving up has more to do than to let the writes go on."""
    return view.cutting_over is CutoverState.ARMING_REVERSE or view.traffic == SEALED or view.way_back is not None


def still_frozen(view: View) -> bool:
    """Whether Whimbrel has stopped the writes to the source, or may have: until a finished unfreeze says it is undone.

    What the target's journal tells counts even where the status was lost.
    """
    undone = view.result(wants.unfreeze_id(view))
    if undone is not None and undone.record is not None:
        return undone.record.standing_freeze is not None
    return view.source_frozen or (view.truth is not None and view.truth.standing_freeze is not None)


def how_frozen(view: View) -> str:
    """How Whimbrel stops the writes to the source, in words."""
    policy = view.spec.cutover.freeze
    if policy.method is FreezeMethod.SUPER_READ_ONLY:
        return "super_read_only"
    if policy.method is FreezeMethod.DENY_POLICY:
        return "a deny statement in the tables' policies"
    return f"locking the accounts {', '.join(policy.accounts)}"


def opens(view: View) -> str:
    """What is said of the source before its writers may go on, where Whimbrel had stopped them."""
    return f"Whimbrel undoes {how_frozen(view)}, then " if view.source_frozen else ""


def stays_frozen(view: View) -> str:
    """What is said of the source after the switch, where Whimbrel had stopped its writers."""
    return (
        f"point the application at the target; the source stays frozen ({how_frozen(view)}), because writes to it"
        " would be lost; what was so before stands in the target's journal under freezing"
    )


def _freezing(view: View) -> str:
    word = view.word(ids.FREEZE)
    seen = word.freeze if word is not None else None
    by_us = f"Whimbrel stops the writes to the source by {how_frozen(view)}"
    told = by_us if view.operator_freezes else "stop the writes to the source now"
    state = view.tasks.find(ids.FREEZE)
    if state is not None and state.failures and state.last_error is not None:
        return f"{told}; not done yet: {state.last_error.sentence()}"
    if seen is None:
        return f"{told}; reading its position"
    quiet = f"{seen.quiet_seconds:.1f} s of {wants.quiet_seconds(view):g} s"
    return f"{told}; it has been quiet for {quiet}"


def _checked(view: View) -> str:
    found = final_report(view)
    return (
        f"the final check found {found.differences.total} differences, {found.inconclusive} inconclusive"
        if found
        else ""
    )


def _final_check(view: View) -> str:
    compared = "every item is" if view.sharded else "the keys changed since the last comparison are"
    return f"{compared} compared once more"


def _hook_step(name: str, state: CutoverState, tasks: Tasks, point: HookPoint) -> Step:
    """A step that is done when every hook of its point has succeeded, and so at once where there is none."""
    return Step(
        name, state, tasks, lambda view: hooks.done(view, point), lambda view: hooks.waits_for(view, point), point
    )


STEPS: tuple[Step, ...] = (
    _hook_step("BeforeFreeze", CutoverState.FREEZING, (wants.stream,), HookPoint.BEFORE_FREEZE),
    Step("Freeze", CutoverState.FREEZING, (wants.stream, wants.freeze), frozen, _freezing),
    Step(
        "Drain",
        CutoverState.DRAINING,
        (wants.stream_draining,),
        drained,
        lambda _: "the stream drains to the freeze position",
    ),
    _hook_step("AfterDrain", CutoverState.DRAINING, (wants.stream_draining,), HookPoint.AFTER_DRAIN),
    Step(
        "FinalCheck",
        CutoverState.FINAL_CHECK,
        (wants.stream_draining, wants.final_check),
        final_passed,
        _final_check,
    ),
    Step(
        "Retire",
        CutoverState.FINAL_CHECK,
        (wants.stream_retiring, wants.final_check),
        retired,
        lambda _: "the stream ends",
    ),
    Step(
        "Confirm",
        CutoverState.FINAL_CHECK,
        (wants.stream_retiring, wants.final_check, wants.confirm),
        confirmed,
        lambda _: "looking at the source once more: nothing may have been written",
    ),
    Step(
        "Fence",
        CutoverState.FINAL_CHECK,
        (wants.stream_retiring, wants.final_check, wants.confirm, wants.fence_switched, wants.inspect_switched),
        fenced,
        lambda _: "the epoch is raised, so that no late worker can write",
    ),
)
# Instead of the last step, where a way back is asked for. The forward stream ends for good before it begins: no echo.
_SEALED: tuple[Step, ...] = (
    Step(
        "Seal",
        CutoverState.FINAL_CHECK,
        (wants.stream_retiring, wants.final_check, wants.confirm, wants.fence_sealed),
        sealed,
        lambda _: "the epoch is raised, so that nothing forward is written while the way back is armed",
    ),
    Step("Arm", CutoverState.ARMING_REVERSE, (wants.fence_sealed,), armed, way_back.waits_for),
    Step(
        "Fence",
        CutoverState.ARMING_REVERSE,
        (wants.fence_sealed, wants.fence_switched, wants.inspect_switched),
        fenced,
        lambda _: "the way back is armed; the epoch is raised once more, and the target is opened",
    ),
)
WITH_WAY_BACK = (*STEPS[:-1], *_SEALED)
_REREAD = Step(
    "Reread",
    CutoverState.ARMING_REVERSE,
    (wants.inspect_sealed,),
    lambda view: view.truth is not None,
    lambda _: "reading in the target how far the cutover is",
)
GIVING_UP = Step(
    "GiveUp",
    CutoverState.TIMED_OUT,
    (wants.unfreeze, wants.stream, wants.fence_timed_out),
    lambda view: view.done(ids.FENCE_TIMED_OUT) and not still_frozen(view) and view.way_back is None,
    lambda view: view.status.cutover.message,
)


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


def rests(view: View, record: Record) -> bool:
    """Whether an automatic cutover waits, because the last one was given up a moment ago, as the target's journal says.

    What gave it up is mostly still so, and each try may stop the writes to the source for as long as the time-out is.
    """
    last = record.last("timed-out")
    automatic = view.spec.cutover.mode is CutoverMode.AUTOMATIC
    return automatic and last is not None and abs(view.now - last.recorded_at) < hooks.RETRY_AFTER


def step_of(view: View) -> Step:
    """The step the cutover is in: the first that is not proven done; the last one when all are.

    Once the fence is ordered it is the last one, whatever becomes of the evidence: it may have been carried out.
    """
    if view.cutting_over is CutoverState.TIMED_OUT:
        return GIVING_UP
    if view.switching:
        return steps_of(view)[-1]
    if view.cutting_over is CutoverState.ARMING_REVERSE and not _REREAD.done(view):
        return _REREAD
    steps = steps_left(view)
    return next((step for step in steps if not step.done(view)), steps[-1])


def steps_of(view: View) -> tuple[Step, ...]:
    """The table of steps, with a way back or without."""
    return WITH_WAY_BACK if view.has_way_back else STEPS


def steps_left(view: View) -> tuple[Step, ...]:
    """Those of them that still need proof: behind the seal only what comes after it."""
    return _SEALED if view.has_way_back and sealed(view) else steps_of(view)


def first_step(view: View) -> Step:
    """The step that a cutover begins with."""
    return next((step for step in STEPS if not step.done(view)), STEPS[-1])


def tasks(view: View) -> wants.Wanted:
    """The tasks of the step the cutover is in."""
    return tuple(task for want in step_of(view).tasks for task in want(view))


def setback_of(view: View) -> Setback | None:
    """What leads the cutover back, if anything does."""
    if view.switching or view.cutting_over is CutoverState.TIMED_OUT:
        return None
    return next((setback for setback in SETBACKS if setback.when(view)), None)


def switched(view: View) -> bool:
    """The last step is proven done; it was ordered when all before it were."""
    return view.cutting_over is not CutoverState.TIMED_OUT and fenced(view)


def gave_up(view: View) -> bool:
    """The target's journal holds that the cutover was given up."""
    return view.cutting_over is CutoverState.TIMED_OUT and GIVING_UP.done(view)
