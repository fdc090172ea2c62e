"""The gate ReverseSyncReady: the way back's pre-flight, run by a task that only looks. How one begins: reverse_sync."""

from datetime import timedelta

from whimbrel_api.cutover import WayBackStatus
from whimbrel_api.durations import seconds
from whimbrel_api.tasks import ReverseOptions
from whimbrel_operator.domain.cutover import exclusive
from whimbrel_operator.domain.cutover.gate import Gate, clock
from whimbrel_operator.domain.cutover.way_back import taken
from whimbrel_operator.domain.decision import Work
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.reverse.view import of_migration, work_of

LOOK = exclusive.WAY_BACK_LOOK
_AGAIN = timedelta(seconds=30)
_TYPE = "ReverseSyncReady"


def looked(view: View) -> WayBackStatus:
    """The last look: the one just finished, or the status' own."""
    word = view.result(LOOK)
    if word is None or word.reverse is None:
        return view.status.way_back
    return WayBackStatus(checked_at=word.observed_at, plan=view.plan.hash, problems=word.reverse.problems)


def look_due(view: View) -> bool:
    """Whether somebody shall look: not yet at this plan, half the allowed age gone, or not well and 30 s ago."""
    found = looked(view)
    if found.checked_at is None or found.plan != view.plan.hash:
        return True
    half = timedelta(seconds=seconds(view.spec.validation.max_age) / 2)
    again = found.problems or exclusive.hurried(view)
    age, wait = view.now - found.checked_at, min(half, _AGAIN) if again else half
    return age >= wait or age < -half


def look_work(view: View) -> tuple[Work, ReverseOptions] | None:
    """What the look is told: the ends and rules of the ReverseSync that a cutover would make. None without a way back.

    Its owner is nobody's, so that it finds neither slot nor kept position of its own.
    """
    meta, found = view.observed.resource.metadata, of_migration(view.observed.resource)
    if found is None or not view.has_way_back:
        return None
    name = f"{meta.namespace}/{meta.name}"
    rules = ReverseOptions(owner=f"{name}/look", layout=found.layout, guard=found.guard, on_truncate=found.on_truncate)
    return work_of(found, name), rules


def way_back_gate(view: View) -> tuple[Gate, ...]:
    """The way back's pre-flight has passed lately, where a way back is asked for; else there is no such gate."""
    if not view.spec.reverse_sync.enabled:
        return ()
    if other := taken(view):
        return (Gate(_TYPE, "False", "AnotherWayBack", other),)
    return (_judged(view, looked(view)),)


def _judged(view: View, found: WayBackStatus) -> Gate:
    if found.checked_at is None or found.plan != view.plan.hash:
        return _not_known(view)
    if found.problems:
        return Gate(_TYPE, "False", "Refused", "\n".join(found.problems))
    limit = timedelta(seconds=seconds(view.spec.validation.max_age))
    at = clock(found.checked_at)
    if view.now - found.checked_at > limit:
        message = f"looked at {at}, more than {view.spec.validation.max_age} ago"
        return Gate(_TYPE, "False", "TooOld", message)
    return Gate(_TYPE, "True", "Passed", f"publication and slot can be made on PolarDB, by a look at {at}")


def _not_known(view: View) -> Gate:
    state = view.tasks.find(LOOK)
    if state is not None and state.last_error is not None:
        return Gate(_TYPE, "False", "LookFailed", f"{state.last_error.sentence()}; it is tried again")
    return Gate(_TYPE, "Unknown", "NotChecked", "the way back's server has not been looked at yet for this plan")
