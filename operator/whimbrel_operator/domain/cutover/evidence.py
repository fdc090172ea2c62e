"""What proves the steps of a cutover, read from an observation. Which step wants which proof stands in steps."""

from whimbrel_api.cutover import CutoverState
from whimbrel_api.reports import SEALED, SWITCHED, TRAFFIC_STEPS, CheckReport, check_passes
from whimbrel_operator.domain.cutover import way_back
from whimbrel_operator.domain.migration import wants
from whimbrel_operator.domain.migration.checks import last_validation
from whimbrel_operator.domain.migration.view import View


def frozen(view: View) -> bool:
    """The source has come to rest at a position."""
    return bool(view.freeze_position)


def drained(view: View) -> bool:
    """The target has the freeze position. Once true of a position it stays true, whatever the report's age."""
    return frozen(view) and view.drained_to == view.freeze_position


def report_of(view: View, task_id: str) -> CheckReport | None:
    """What a comparison has found, once it has ended."""
    word = view.result(task_id)
    return word.check if word is not None else None


def passes(view: View, found: CheckReport | None) -> bool:
    """It found no more than the threshold allows, and nothing inconclusive. A comparison has no direction."""
    allowed = view.spec.thresholds.differences
    return found is not None and check_passes(found.result, found.differences, found.inconclusive, allowed)


def final_report(view: View) -> CheckReport | None:
    """The finished final check at the freeze position."""
    return report_of(view, wants.final_id(view))


def final_passed(view: View) -> bool:
    """The final check lets the cutover pass."""
    return passes(view, final_report(view))


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
