"""Whether only the migration's own account may write to the target: the condition `TargetExclusive`, and its gate.

It is a gate with `spec.cutover.targetExclusive: Require` alone; with Warn it is said, and closes nothing. Who may write
is found by workers that look: at the target's catalogue while it follows and once more before a cutover begins, or,
behind PolarDB's endpoint, together with the look at the way back.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from whimbrel_api.base import ConditionStatus
from whimbrel_api.cutover import TargetExclusive, TargetWriters
from whimbrel_api.durations import seconds
from whimbrel_api.migration import Phase
from whimbrel_api.tasks import WritersOptions
from whimbrel_operator.domain.cutover.gate import Gate, clock
from whimbrel_operator.domain.migration.view import INSPECT_PLAN, View

TYPE: Final = "TargetExclusive"
TARGET_LOOK: Final = "target-look"
WAY_BACK_LOOK: Final = "way-back-look"
_LOOKS: Final = (TARGET_LOOK, INSPECT_PLAN, WAY_BACK_LOOK)
_AGAIN: Final = timedelta(seconds=30)
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_ENDS: Final = (Phase.COMPLETED, Phase.CANCELLED)


def options(view: View) -> WritersOptions:
    """What a task is told that looks."""
    policy = view.spec.cutover
    if policy.target_exclusive is TargetExclusive.IGNORE:
        return WritersOptions()
    return WritersOptions(look=True, allowed=policy.allowed_writers)


def looked(view: View) -> TargetWriters:
    """The newest finding: of a task just finished, or the status' own."""
    found = [view.status.target_writers]
    for task_id in _LOOKS:
        word = view.result(task_id)
        if word is not None and word.writers is not None:
            found.append(word.writers.model_copy(update={"checked_at": word.observed_at}))
    return max(found, key=lambda each: each.checked_at or _NEVER)


def look_due(view: View) -> bool:
    """Whether a task shall look at the target itself: half the allowed age gone, or the gate shut and 30 s ago."""
    policy, found = view.spec.cutover.target_exclusive, looked(view)
    if policy is TargetExclusive.IGNORE or not _can_be_asked(view):
        return False
    if found.checked_at is None:
        return True
    half = timedelta(seconds=seconds(view.spec.validation.max_age) / 2)
    age, wait = view.now - found.checked_at, min(half, _AGAIN) if hurried(view) else half
    return age >= wait or age < -half


def hurried(view: View) -> bool:
    """Whether a cutover waits for another answer, so that it is asked for again soon."""
    return view.spec.cutover.target_exclusive is TargetExclusive.REQUIRE and not judged(view).open


def exclusive_gate(view: View) -> tuple[Gate, ...]:
    """The gate, where it is required; else there is none."""
    required = view.spec.cutover.target_exclusive is TargetExclusive.REQUIRE and view.streaming
    return (judged(view),) if required else ()


def exclusive_said(view: View, phase: Phase) -> tuple[Gate, ...]:
    """The condition where it is no gate, until the migration is over: then others may write."""
    warned = view.spec.cutover.target_exclusive is TargetExclusive.WARN and view.streaming
    return (judged(view),) if warned and phase not in _ENDS else ()


def judged(view: View) -> Gate:
    """The condition with its figures, by the newest finding; what is not known is not True."""
    found = looked(view)
    if not _can_be_asked(view) and not view.has_way_back:
        return _gate("Unknown", "CannotAsk", _cannot_ask(view))
    if found.checked_at is None:
        return _not_known(view)
    if found.unknown:
        return _gate("Unknown", "LookFailed", f"{found.unknown}; looked at {clock(found.checked_at)}")
    max_age = view.spec.validation.max_age
    if view.now - found.checked_at > timedelta(seconds=seconds(max_age)):
        return _gate("False", "TooOld", f"looked at {clock(found.checked_at)}, more than {max_age} ago")
    if found.roles_total:
        return _gate("False", "OthersMayWrite", "; ".join(_others(view, found)))
    return _gate("True", "Exclusive", "; ".join(_alone(found)))


def _can_be_asked(view: View) -> bool:
    """Whether the target itself has a catalogue that tells."""
    return view.streaming and view.spec.target.dynamodb is None


def _gate(status: ConditionStatus, reason: str, message: str) -> Gate:
    return Gate(TYPE, status, reason, message)


def _cannot_ask(view: View) -> str:
    told = "not checked: the endpoint has no way to ask who else may write to it; see to that yourself"
    way = ", or name PolarDB's server under spec.reverseSync, whose catalogue is read then"
    required = view.spec.cutover.target_exclusive is TargetExclusive.REQUIRE
    return f"{told}, and set spec.cutover.targetExclusive to Warn{way}" if required else told


def _not_known(view: View) -> Gate:
    for task_id in _LOOKS:
        state = view.tasks.find(task_id)
        if state is not None and state.last_error is not None:
            return _gate("Unknown", "LookFailed", f"{state.last_error.sentence()}; it is tried again")
    return _gate("Unknown", "NotChecked", "nobody has looked yet who else may write to the target: that is done later")


def _others(view: View, found: TargetWriters) -> Iterator[str]:
    """Who, what to do, and what else there is to know; in this order, as an Event has less room."""
    count, more = found.roles_total, found.roles_total - len(found.roles)
    who = "1 role besides" if count == 1 else f"{count} roles besides"
    yield f"{who} {found.account} may write to the target's tables before the cutover"
    yield from found.roles
    if more > 0:
        yield f"and {more} more"
    yield f"to take that away until the cutover: {' '.join(found.remedies).removesuffix(';')}"
    if view.spec.cutover.target_exclusive is TargetExclusive.REQUIRE:
        yield "it is looked at again every 30 s; spec.cutover.allowedWriters names roles that may"
    yield from _besides(found)


def _alone(found: TargetWriters) -> Iterator[str]:
    yield f"none but {found.account} may write to the migration's {found.tables} tables on the target"
    yield from _besides(found)


def _besides(found: TargetWriters) -> Iterator[str]:
    if found.superusers_total:
        more = found.superusers_total - len(found.superusers)
        yield f"superusers always may: {', '.join(found.superusers)}{f' and {more} more' if more > 0 else ''}"
    yield from found.notes
    if found.checked_at is not None:
        yield f"looked at {clock(found.checked_at)}"
