"""`RollbackReady`: whether a Migration could go back to its source now, and what would end that. How: see rollback."""

from whimbrel_api.durations import seconds
from whimbrel_api.layout import OnLimit
from whimbrel_api.migration import Phase
from whimbrel_api.reverse_sync import ReverseSync, ReverseSyncPhase
from whimbrel_operator.domain.conditions import Said, find, is_true
from whimbrel_operator.domain.cutover.way_back import lives, taken
from whimbrel_operator.domain.migration.view import View
from whimbrel_operator.domain.observed import is_fresh

FRESH_SECONDS = 5.0
"""A ReverseSync's status is written with its worker's reports; three of these without a figure, and it is not known."""


def rollback_ready(view: View) -> Said:
    """`RollbackReady`: True only while changes flow back, close behind, with a well slot, by a young word of theirs."""
    if not view.spec.reverse_sync.enabled:
        return _not_ready("NoWayBack", "spec.reverseSync.enabled is false")
    if view.status.phase is not Phase.COMPLETED:
        return _not_ready("NotSwitched", "changes flow back from the switch on")
    if view.strange_ways_back:
        return _not_ready("AnotherWayBack", taken(view))
    found = view.way_back
    if found is None or not lives(found):
        return _not_ready("WayBackGone", "its ReverseSync is gone, and what was written since has not come back")
    return _judged(view, found)


def _judged(view: View, found: ReverseSync) -> Said:
    status, limit = found.status, seconds(view.spec.thresholds.lag)
    for kind in ("Ready", "SlotHealthy"):
        said = find(status.conditions, kind)
        if not is_true(status.conditions, kind):
            reason, why = (said.reason, said.message) if said is not None else ("NoFreshReport", "")
            return _not_ready(reason, f"ReverseSync {found.metadata.name} is not {kind} ({reason}): {why}".rstrip(": "))
    fresh = is_fresh(status.lag_observed_at, view.now, FRESH_SECONDS)
    if status.phase is not ReverseSyncPhase.STREAMING or status.lag_seconds is None or not fresh:
        return Said("RollbackReady", "Unknown", "LagUnknown", "no fresh reading of the lag of what flows back")
    if status.lag_seconds > limit:
        return _not_ready("LagTooHigh", f"what flows back is more than thresholds.lag {limit:g} s behind")
    return Said("RollbackReady", "True", "Ready", _deadline(view))


def _deadline(view: View) -> str:
    """Until when. It names no figure that changes with each report."""
    guard = view.spec.reverse_sync.guard
    ends = (
        f"the slot is dropped when it holds back {guard.limit_bytes:,} bytes of PolarDB's log (guard.limitBytes)"
        if guard.on_limit is OnLimit.DROP_SLOT
        else f"nothing drops the slot by itself (guard.onLimit: {guard.on_limit.value})"
    )
    return (
        f"no deadline by time: {ends}, or PolarDB invalidates it by its max_slot_wal_keep_size, or the ReverseSync is"
        " deleted; DynamoDB keeps its items for as long as its tables are there"
    )


def _not_ready(reason: str, message: str) -> Said:
    return Said("RollbackReady", "False", reason, message)
