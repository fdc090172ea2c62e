"""The table of cutover steps: what each wants, and which evidence ends it. How phases follow: see phases.

What leads out of a cutover stands in setbacks.
"""

from whimbrel_api.cutover import CutoverMode, CutoverState
from whimbrel_api.hooks import HookPoint
from whimbrel_api.reports import Record
from whimbrel_operator.domain.cutover import hooks, way_back
from whimbrel_operator.domain.cutover.course import Step, Tasks, step_at
from whimbrel_operator.domain.cutover.evidence import (
    armed,
    confirmed,
    drained,
    fenced,
    final_passed,
    frozen,
    retired,
    sealed,
    still_frozen,
)
from whimbrel_operator.domain.cutover.frozen_source import how_frozen
from whimbrel_operator.domain.migration import view as ids
from whimbrel_operator.domain.migration import wants
from whimbrel_operator.domain.migration.view import View


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
    return step_at(steps_left(view), view)


def steps_of(view: View) -> tuple[Step, ...]:
    """The table of steps, with a way back or without."""
    return WITH_WAY_BACK if view.has_way_back else STEPS


def steps_left(view: View) -> tuple[Step, ...]:
    """Those of them that still need proof: behind the seal only what comes after it."""
    return _SEALED if view.has_way_back and sealed(view) else steps_of(view)


def first_step(view: View) -> Step:
    """The step that a cutover begins with."""
    return step_at(STEPS, view)


def tasks(view: View) -> wants.Wanted:
    """The tasks of the step the cutover is in."""
    return step_of(view).wants(view)


def switched(view: View) -> bool:
    """The last step is proven done; it was ordered when all before it were."""
    return view.cutting_over is not CutoverState.TIMED_OUT and fenced(view)


def gave_up(view: View) -> bool:
    """The target's journal holds that the cutover was given up."""
    return view.cutting_over is CutoverState.TIMED_OUT and GIVING_UP.done(view)
